//! The arguments of transfers, as real clients send them and a real rsyncd passes them on to
//! pre-xfer hooks; and what no client would send.
//!
//! `arguments/recorded.toml` holds what the clients of rsync 3.1 to 3.5 sent to an rsyncd 3.5.0;
//! the installed rsync is asked anew.

use crate::support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;

use rsyncd_snapshot::decide::arguments::Arguments;
use rsyncd_snapshot::decide::arguments::rewriting_option::RewritingOption;
use rsyncd_snapshot::decide::arguments::transfer_kind::TransferKind;
use support::daemon::{Daemon, client};
use support::random::Random;
use support::recorded::{Command, commands, dumped};
use support::run::Run;
use support::server::Server;
use support::{have, tree};

fn bytes(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

fn shown(arguments: &[Vec<u8>]) -> String {
    arguments.iter().map(|word| word.escape_ascii().to_string()).collect::<Vec<_>>().join(" ")
}

// -- What clients send -----------------------------------------------------------------------------

#[test]
fn what_clients_of_five_versions_sent_is_classified() {
    let commands = commands();
    let mut lists = 0;
    for command in &commands {
        for sent in &command.sent {
            let arguments: Vec<_> =
                sent.arguments.iter().map(|word| word.clone().into_bytes()).collect();
            let classified = Arguments::parse(&arguments);
            assert_eq!(
                (classified.kind, classified.rewriting),
                command.expected(),
                "{:?} by {:?}",
                command.run,
                sent.by
            );
            lists += sent.by.len();
        }
    }
    for version in ["3.1.0", "3.1.3", "3.2.7", "3.3.0", "3.4.1", "3.5.0"] {
        let of_version = commands.iter().flat_map(|command| &command.sent);
        let count = of_version.filter(|sent| sent.by.iter().any(|by| by == version)).count();
        assert!(count > 150, "only {count} of {version}");
    }
    assert!(lists > 1000, "{lists}");
}

#[test]
fn what_the_installed_client_sends_is_classified() {
    slow!();
    if !have(&["rsync", "env"]) {
        return;
    }
    let server = Server::new();
    let commands = commands();
    let places: Vec<_> =
        (0..commands.len()).map(|number| server.directory.join(format!("m{number}"))).collect();
    let sections = commands.iter().zip(&places).enumerate().map(|(number, (command, place))| {
        fs::create_dir_all(place.join("data/old")).expect("a module");
        section(
            &format!("m{number}"),
            &place.join("data"),
            &place.join("dump"),
            command.rsyncd_conf(),
        )
    });
    let sections: String = sections.collect();
    let daemon = Daemon::start(&server, &sections);
    let shell = server.directory.join("shell");
    let text = format!(
        "#!/bin/sh\nexec rsync --server --daemon --config='{}' .\n",
        server.rsyncd_conf.display()
    );
    fs::write(&shell, text).expect("a remote shell");
    fs::set_permissions(&shell, fs::Permissions::from_mode(0o755)).expect("a program");

    let work: Vec<_> = commands.iter().zip(&places).enumerate().collect();
    let mut checked = 0;
    thread::scope(|scope| {
        let workers: Vec<_> = work
            .chunks(work.len().div_ceil(8))
            .map(|chunk| {
                let (daemon, shell) = (&daemon, &shell);
                scope.spawn(move || {
                    let checks = chunk.iter().map(|(number, (command, place))| {
                        let module = format!("m{number}");
                        check_live(
                            command,
                            place,
                            &daemon.url(&module),
                            &format!("host::{module}"),
                            shell,
                        )
                    });
                    checks.filter(|checked| *checked).count()
                })
            })
            .collect();
        checked = workers.into_iter().map(|worker| worker.join().expect("checks that hold")).sum();
    });
    // An old client knows fewer of the options, and a client built without a library too.
    assert!(
        checked * 10 > commands.len() * 7,
        "only {checked} of {} commands reached rsyncd",
        commands.len()
    );
}

/// A module whose pre-xfer hook writes its environment to a file.
fn section(name: &str, path: &Path, dump: &Path, more: &str) -> String {
    format!(
        "[{name}]\n    path = {}\n    read only = no\n    {more}\n    pre-xfer exec = env -0 > '{}'\n",
        path.display(),
        dump.display()
    )
}

/// Runs the command and checks what rsyncd got, unless the client did not come that far.
fn check_live(command: &Command, place: &Path, url: &str, host: &str, shell: &Path) -> bool {
    tree::small(&place.join("source"));
    fs::write(place.join("names"), "documents/report\n").expect("a list of names");
    fs::write(place.join("data/names"), "old\n").expect("a list of names");
    let directory = place.display().to_string();
    let words = command.run.iter().map(|word| {
        word.replace("{source}", &format!("{directory}/source"))
            .replace("{target}", &format!("{directory}/target"))
            .replace("{scratch}/shell", &shell.display().to_string())
            .replace("{scratch}", &directory)
            .replace("{data}", url)
            .replace("{text}", url)
            .replace("{host}", host)
    });
    let run = Run::of(client().args(words));
    let arguments = dumped(&place.join("dump"));
    if arguments.is_empty() {
        return false;
    }
    let classified = Arguments::parse(&arguments);
    assert_eq!(
        (classified.kind, classified.rewriting),
        command.expected(),
        "rsyncd got {} from {run}",
        shown(&arguments)
    );
    true
}

// -- What no client sends --------------------------------------------------------------------------

const SWITCHES: [&str; 12] = [
    "-r",
    "-d",
    "-vlogDtpr",
    "-re.LsfxCIvu",
    "-B700",
    "--list-only",
    "--delete",
    "--existing",
    "--inplace",
    "--append",
    "--timeout=60",
    "--numeric-ids",
];
const VALUED: [&str; 10] = [
    "--backup-dir",
    "--partial-dir",
    "--temp-dir",
    "--suffix",
    "--link-dest",
    "--remote-option",
    "-T",
    "-rT",
    "-vM",
    "-f",
];
const TRAPS: [&str; 4] = ["--sender", "-n", "--dry-run", "--list-only"];

/// Bytes that are no option and no value that rsync takes.
fn garbage(random: &mut Random) -> Vec<u8> {
    let length = 1 + random.below(12);
    let mut word = random.bytes(length);
    word.retain(|byte| !b"\0n".contains(byte));
    word.push(0xff);
    if random.once_in(2) {
        word.insert(0, b'-');
    }
    word
}

/// Words that say nothing of a pull or a dry run but as the value of an option.
fn harmless(random: &mut Random) -> Vec<Vec<u8>> {
    let valued = *random.of(&VALUED).expect("an option");
    let trap = *random.of(&TRAPS).expect("a value");
    match random.below(8) {
        0 => vec![garbage(random)],
        1 | 2 => bytes(&[random.of(&SWITCHES).expect("an option")]),
        3 if valued.starts_with("--") => bytes(&[&format!("{valued}={trap}")]),
        3 => bytes(&[&format!("{valued}{trap}")]),
        4 => bytes(&[
            valued,
            random.of(&["--inplace", "--append", "--backup-dir", "-T", "."]).expect("a value"),
        ]),
        _ => bytes(&[valued, trap]),
    }
}

#[test]
fn a_push_with_pull_options_as_values_stays_one() {
    slow!();
    let pushes: Vec<_> = commands()
        .into_iter()
        .filter(|command| command.kind.writes())
        .flat_map(|command| command.sent)
        .map(|sent| sent.arguments.into_iter().map(String::into_bytes).collect::<Vec<_>>())
        .filter(|arguments| arguments.get(2).is_some_and(|word| word != b"--sender"))
        .collect();
    assert!(pushes.len() > 100, "{}", pushes.len());
    for seed in 0..50_000 {
        let mut random = Random::new(seed);
        let push = random.of(&pushes).expect("a push");
        let mut arguments = push[..2].to_vec();
        let (before, after) = (random.below(4), random.below(4));
        arguments.extend((0..before).flat_map(|_| harmless(&mut random)));
        arguments.extend_from_slice(&push[2..]);
        arguments.extend((0..after).flat_map(|_| harmless(&mut random)));
        let kind = Arguments::parse(&arguments).kind;
        assert!(kind.writes(), "seed {seed}: {kind}: {}", shown(&arguments));
    }
}

#[test]
fn no_garbage_is_a_pull_or_hides_what_rewrites() {
    slow!();
    for seed in 0..50_000 {
        let mut random = Random::new(seed);
        let mut arguments = bytes(&["rsyncd", "--server", "."]);
        for _ in 0..random.below(8) {
            let length = random.below(20);
            let word = if random.once_in(2) {
                random.bytes(length)
            } else {
                harmless(&mut random).remove(0)
            };
            let place = random.below(arguments.len() + 1);
            arguments.insert(place, word);
        }
        let kind = Arguments::parse(&arguments).kind;
        let possible = match kind {
            TransferKind::Push | TransferKind::DeletionOnly => true,
            TransferKind::Pull | TransferKind::Listing => arguments.contains(&b"--sender".to_vec()),
            TransferKind::DryRun => {
                arguments.iter().any(|word| word.starts_with(b"-") && word.contains(&b'n'))
            }
        };
        assert!(possible, "seed {seed}: {kind}: {}", shown(&arguments));

        arguments.extend([garbage(&mut random), b"-\xff".to_vec(), b"--inplace".to_vec()]);
        let classified = Arguments::parse(&arguments);
        assert_eq!(classified.kind, TransferKind::Push, "seed {seed}: {}", shown(&arguments));
        assert!(
            classified.rewriting.contains(&RewritingOption::Inplace),
            "seed {seed}: {}",
            shown(&arguments)
        );
    }
}
