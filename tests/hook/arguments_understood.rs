//! Hostile arguments, as rsyncd itself understands them and as this program does.
//!
//! They reach a real daemon over its port. Its log says whether it served them as the sender, with
//! "rsync on", or as the receiver, with "rsync to"; a module that refuses the options that
//! rewrite says whether it saw one.

use crate::support;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rsyncd_snapshot::decide::arguments::Arguments;
use rsyncd_snapshot::decide::arguments::transfer_kind::TransferKind;
use support::daemon::Daemon;
use support::have;
use support::random::Random;
use support::recorded::dumped;
use support::server::Server;

/// So many at once, since rsyncd waits before it hangs up on options that it refuses.
const WORKERS: usize = 24;
const CASES: usize = 300;

/// Words that are read in more than one way, depending on those around them.
const WORDS: [&str; 44] = [
    "--sender",
    "--sender",
    "--sender",
    "--inplace",
    "--append",
    "--append-verify",
    "--write-devices",
    "--backup-dir",
    "--partial-dir",
    "--temp-dir",
    "--suffix",
    "--suffix=",
    "--link-dest",
    "--link-dest=--sender",
    "--remote-option",
    "-M",
    "-M--sender",
    "-T",
    "-Tn",
    "-rT",
    "-re--sender",
    "-e",
    "-e.LsfxC",
    "-ve",
    "-n",
    "-rn",
    "-r",
    "-d",
    "-ae.n",
    "-vvp",
    "-B700",
    "-B",
    "-B=700",
    "700",
    "--timeout",
    "--bwlimit=100",
    "--checksum-seed",
    "--list-only",
    "--delete",
    "--existing",
    "--ignore-existing",
    "--numeric-ids",
    "data/--sender",
    "\\--sender",
];

/// Words that make rsyncd refuse the rest.
const WRONG: [&str; 8] =
    ["--", "-", "--sender=1", "--unheard-of", "-G", "-r=1", "--daemon", "--\u{e9}"];

/// The lists of words that a client sends: two if it keeps them secluded.
fn lists(random: &mut Random) -> Vec<Vec<&'static str>> {
    let mut some = |most: usize, wrong: usize| -> Vec<&'static str> {
        let count = random.below(most + 1);
        let words: &[&str] = if random.once_in(wrong) { &WRONG } else { &WORDS };
        let mut some: Vec<_> = (0..count).filter_map(|_| random.of(&WORDS).copied()).collect();
        some.extend(random.of(words));
        some
    };
    let server = vec!["--server"];
    let paths = vec![".", "data/"];
    match some(1, 2).len() {
        1 => vec![[server, some(6, 6), paths].concat()],
        _ => vec![
            [server, vec!["-s"], some(2, 8)].concat(),
            [vec!["rsync"], some(4, 8), paths].concat(),
        ],
    }
}

/// What came of one connection.
struct Served {
    /// What the pre-xfer hook was told; nothing if rsyncd gave up before it ran.
    arguments: Vec<Vec<u8>>,
    /// Whether rsyncd took itself for the sender.
    sender: bool,
    /// Whether it gave up because of the options.
    refused: bool,
    /// Whether that was because of one that rewrites.
    refused_rewriting: bool,
}

/// Sends the lists to a module.
fn send(address: &str, module: &str, lists: &[Vec<&str>]) {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let mut answers = BufReader::new(stream.try_clone().expect("the other direction"));
    let mut line = String::new();
    answers.read_line(&mut line).expect("a greeting");
    write!(stream, "@RSYNCD: 31.0\n{module}\n").expect("a request");
    while !line.starts_with("@RSYNCD: OK") {
        line.clear();
        assert!(answers.read_line(&mut line).expect("an answer") > 0, "rsyncd hung up");
    }
    for list in lists {
        let words: String = list.iter().map(|word| format!("{word}\0")).collect();
        // The daemon may be gone after the first list.
        let _ = stream.write_all((words + "\0").as_bytes());
    }
    // A value of `-e` with a `v` in it promises the name of a checksum, and rsyncd tells what it
    // refuses only after that. Otherwise this is the end of the transfer.
    let _ = stream.write_all(b"\x03md5");
    let _ = stream.shutdown(Shutdown::Write);
    let _ = answers.read_to_end(&mut Vec::new());
}

/// The daemon's log, by the process that wrote it, and the process that served each module.
struct Log<'a> {
    lines: HashMap<&'a str, Vec<&'a str>>,
    pids: HashMap<&'a str, &'a str>,
}

impl<'a> Log<'a> {
    fn read(text: &'a str) -> Log<'a> {
        let mut log = Log { lines: HashMap::new(), pids: HashMap::new() };
        for line in text.lines() {
            let Some(pid) = line.split(['[', ']']).nth(1) else { continue };
            log.lines.entry(pid).or_default().push(line);
            if let Some((_, request)) = line.split_once(" allowed access on module ") {
                let module = request.split(' ').next().expect("a module");
                assert!(log.pids.insert(module, pid).is_none(), "one connection to a module");
            }
        }
        log
    }

    /// What hook and log say of the connection to a module.
    fn served(&self, server: &Server, module: &str) -> Served {
        let pid = self.pids.get(module).expect("a connection in the log");
        let says = |text: &str| self.lines[pid].iter().any(|line| line.contains(text));
        Served {
            arguments: dumped(&server.directory.join(module)),
            sender: says("rsync on "),
            refused: says("(code 4)") || says("(code 1)"),
            refused_rewriting: ["inplace", "append", "append-verify", "write-devices"]
                .iter()
                .any(|option| says(&format!("configured to refuse --{option}"))),
        }
    }
}

/// Two modules for one case: the second refuses what rewrites.
fn sections(server: &Server, case: usize) -> String {
    let section = |module: &str, refused: &str| {
        format!(
            "[{module}]\n    path = {}\n    read only = no\n    refuse options = {refused}\n    pre-xfer exec = env -0 > '{}'\n",
            server.directory.join("data").display(),
            server.directory.join(module).display()
        )
    };
    section(&format!("open{case}"), "!write-devices")
        + &section(&format!("strict{case}"), "inplace append* write-devices")
}

#[test]
fn rsyncd_and_this_program_understand_hostile_arguments_alike() {
    slow!();
    if !have(&["rsync", "env"]) {
        return;
    }
    // Each batch has a daemon of its own, which reads all its modules for every connection.
    let batches = if support::is_full_sweep() { 10 } else { 1 };
    for batch in 0..batches {
        compare(batch * CASES..(batch + 1) * CASES);
    }
}

/// Sends the case of each seed to two modules of a daemon, and compares what it did with what this
/// program says.
fn compare(seeds: Range<usize>) {
    let server = Server::new();
    fs::create_dir_all(server.directory.join("data/data")).expect("a module");
    let sections: String = seeds.clone().map(|case| sections(&server, case)).collect();
    // More than its five connections may be waiting.
    let daemon = Daemon::start(&server, &format!("listen backlog = {CASES}\n{sections}"));
    let url = daemon.url("");
    let address = url.trim_start_matches("rsync://").trim_end_matches('/');
    let cases: Vec<_> = seeds.map(|case| (case, lists(&mut Random::new(case as u64)))).collect();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some((case, lists)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    send(address, &format!("open{case}"), lists);
                    send(address, &format!("strict{case}"), lists);
                }
            });
        }
    });

    let text = fs::read_to_string(server.directory.join("rsyncd.log")).expect("a log");
    let log = Log::read(&text);
    let (mut pushes, mut pulls, mut rewriting) = (0, 0, 0);
    for (case, lists) in &cases {
        let open = log.served(&server, &format!("open{case}"));
        let ours = Arguments::parse(&open.arguments);
        let told = format!("case {case}: {lists:?}: {ours:?}");
        // Two kinds of words that rsyncd accepts are suspect on purpose.
        let dashes = open.arguments.iter().any(|word| word == b"-" || word == b"--");
        if !open.refused && !open.arguments.is_empty() {
            let for_sender = matches!(ours.kind, TransferKind::Pull | TransferKind::Listing);
            assert!(open.sender || !for_sender, "a push for rsyncd: {told}");
            // What rsyncd served is understood, so the direction has to be right too.
            let either =
                dashes || matches!(ours.kind, TransferKind::DryRun | TransferKind::DeletionOnly);
            assert!(!open.sender || for_sender || either, "a pull for rsyncd: {told}");
            *(if open.sender { &mut pulls } else { &mut pushes }) += 1;
        }
        let strict = log.served(&server, &format!("strict{case}"));
        if strict.refused_rewriting {
            assert!(!ours.rewriting.is_empty(), "rsyncd saw one that rewrites: {told}");
            rewriting += 1;
        } else if !strict.refused && !strict.arguments.is_empty() && !dashes {
            assert!(ours.rewriting.is_empty(), "rsyncd saw none that rewrites: {told}");
        }
    }
    println!("{pushes} pushes, {pulls} pulls, {rewriting} refused for rewriting, of {CASES}");
    assert!(
        pushes > 20 && pulls > 20 && rewriting > 20,
        "{pushes} pushes, {pulls} pulls, {rewriting} rewriting"
    );
}
