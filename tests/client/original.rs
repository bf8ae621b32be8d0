//! `rsync-system-backup` beside the Python program of that name, version 1.1: the same options, the
//! same rsync, and its backups are taken over.

use crate::support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use support::client::{BACKUP_BINARY, Machine, Stage};
use support::original::{original_client, python};
use support::run::Run;
use support::{have, may_mount, tree};

/// The options of a help text by their long name: short name and value.
fn options(help: &str) -> BTreeMap<String, (Option<String>, Option<String>)> {
    let mut found = BTreeMap::new();
    for line in help.lines().map(str::trim).filter(|line| line.starts_with('-')) {
        let words: Vec<&str> =
            line.split([' ', ',', '=']).filter(|word| !word.is_empty()).collect();
        let short = words.iter().find(|word| word.len() == 2 && word.starts_with('-'));
        let Some(at) = words.iter().position(|word| word.starts_with("--")) else { continue };
        let value = words.get(at + 1).map(|word| word.trim_matches(['<', '>']));
        let value = value.filter(|word| {
            word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        });
        let long = words[at].trim_end_matches('.').to_string();
        // Later lines may be prose that begins with an option.
        found.entry(long).or_insert((short.map(ToString::to_string), value.map(str::to_string)));
    }
    found
}

#[test]
fn every_option_of_the_original_is_one_of_ours() {
    let Some(venv) = original_client() else { return };
    let theirs = Run::of(python(&venv, "rsync-system-backup").arg("--help")).exits(&[0]).stdout();
    let theirs = options(&theirs);
    assert_eq!(theirs.len(), 16, "{theirs:?}");
    let ours = options(&Run::of(Command::new(BACKUP_BINARY).arg("--help")).exits(&[0]).stdout());
    for (long, option) in &theirs {
        assert_eq!(ours.get(long), Some(option), "{long}");
    }
    let mut more: Vec<&String> = ours.keys().filter(|long| !theirs.contains_key(*long)).collect();
    more.sort();
    assert_eq!(more, ["--check", "--config", "--retries", "--version"]);
}

/// A stage on which rsync and ionice only note how they are called.
fn recorder(machine: &Machine) -> Stage<'_> {
    let stage = Stage::new(machine);
    let note = "echo \"HOME=$HOME\" > \"$stage/call\"; for word in \"$@\"; do printf '%s\\n' \"$word\"; done >> \"$stage/call\"";
    stage.script("rsync", &format!("case \"$*\" in *--no-recursive*) exit 0 ;; esac\n{note}"));
    stage.script("ionice", "shift 2; exec \"$@\"");
    stage
}

/// How rsync was called: its environment, its options in order, and its last two arguments.
fn call_of(stage: &Stage) -> Vec<String> {
    let call = stage.directory.join("call");
    let text = fs::read_to_string(&call).expect("rsync was called");
    fs::remove_file(call).expect("forgotten");
    text.lines().map(str::to_string).collect()
}

/// What ours adds to the command line, and why it may.
fn is_addition(word: &str) -> bool {
    // The token, a summary, and an end to dead connections.
    word.contains(".rsync-system-backup-") || word == "--stats" || word.starts_with("--timeout=")
}

#[test]
fn rsync_is_called_as_the_original_calls_it() {
    let Some(venv) = original_client() else { return };
    if !may_mount() {
        return;
    }
    let machine = Machine::new();
    let stage = recorder(&machine);
    let latest = machine.latest.to_str().expect("UTF-8");
    let source = machine.source.to_str().expect("UTF-8");
    let compare = |arguments: &[&str]| {
        let arguments = [&["--backup", "--disable-notifications"], arguments].concat();
        Run::of(stage.enter().arg(venv.join("bin/rsync-system-backup")).args(&arguments))
            .exits(&[0]);
        let theirs = call_of(&stage);
        stage.backup(&arguments).exits(&[0]);
        let mut ours: Vec<String> =
            call_of(&stage).into_iter().filter(|word| !is_addition(word)).collect();
        // It always names the port.
        let mut theirs: Vec<String> =
            theirs.into_iter().map(|word| word.replace(":873/", "/")).collect();
        assert_eq!(ours[ours.len() - 2..], theirs[theirs.len() - 2..], "{arguments:?}");
        let rules = |words: &[String]| -> Vec<String> {
            let is_rule =
                |word: &&String| word.starts_with("--filter") || word.starts_with("--exclude");
            words.iter().filter(is_rule).cloned().collect()
        };
        assert_eq!(
            rules(&ours),
            rules(&theirs),
            "{arguments:?}: the first rule that matches counts"
        );
        ours.sort();
        theirs.sort();
        assert_eq!(ours, theirs, "{arguments:?}");
    };
    compare(&[latest]);
    compare(&[source, latest]);
    compare(&["--dry-run", source, latest]);
    compare(&["--multi-fs", "--exclude=*.iso", "-x", "/var/lib/docker/", source, latest]);
    compare(&["--ionice=idle", "-u", source, latest]);
    compare(&["-bu", source, "me@server::module"]);
    compare(&["server::module"]);
    compare(&["rsync://me@server:8730/module"]);

    // The original loses the slash after a module, and so the backup goes to a module of another
    // name.
    let arguments = ["--backup", "--disable-notifications", "server::module/some/directory"];
    Run::of(stage.enter().arg(venv.join("bin/rsync-system-backup")).args(arguments)).exits(&[0]);
    assert_eq!(
        call_of(&stage).last().expect("an argument"),
        "rsync://server:873/modulesome/directory/"
    );
    stage.backup(&arguments).exits(&[0]);
    assert_eq!(
        call_of(&stage).last().expect("an argument"),
        "rsync://server/module/some/directory/"
    );

    let ionice: Vec<String> =
        stage.log().into_iter().filter(|line| line.starts_with("ionice ")).collect();
    assert!(
        ionice.len() >= 2 && ionice.iter().all(|line| line.starts_with("ionice -c idle rsync ")),
        "{ionice:?}"
    );
}

#[test]
fn a_backup_of_the_original_goes_on_with_the_same_command_line() {
    let Some(venv) = original_client() else { return };
    if !may_mount() || !have(&["rsync"]) {
        return;
    }
    let machine = Machine::new();
    let stage = Stage::new(&machine);
    let latest = machine.latest.to_str().expect("UTF-8");
    let source = machine.source.to_str().expect("UTF-8");
    let arguments = ["--no-sudo", "--disable-notifications", source, latest];
    Run::of(stage.enter().arg(venv.join("bin/rsync-system-backup")).args(arguments)).exits(&[0]);
    let theirs = machine.snapshots();
    assert_eq!(theirs.len(), 1, "{theirs:?}");
    machine.verify(Path::new(latest));

    // Nothing has changed, so theirs stands for it.
    stage.backup(&arguments).exits(&[0]).says(&format!("nothing changed since {}", theirs[0]));
    assert_eq!(machine.snapshots(), theirs);
    tree::write(&machine.source.join("more"), "more\n");
    stage.backup(&arguments).exits(&[0]);
    let names = machine.snapshots();
    assert!(names.len() == 2 && names.contains(&theirs[0]), "{names:?}");
    let listed = machine.run(&["list", latest]).exits(&[0]).stdout();
    assert!(listed.contains(&theirs[0]), "{listed}");
}

#[test]
fn another_system_than_linux_is_refused_unless_forced() {
    if !may_mount() || !have(&["rsync"]) {
        return;
    }
    let machine = Machine::new();
    let stage = Stage::new(&machine);
    stage.script("uname", "echo FreeBSD");
    let latest = machine.latest.to_str().expect("UTF-8");
    let source = machine.source.to_str().expect("UTF-8");
    let arguments = ["--no-sudo", "--disable-notifications", source, latest];
    stage.backup(&arguments).exits(&[2]).says("does not say that this is Linux").says("--force");
    stage.backup(&["--check", source, latest]).exits(&[2]);
    assert!(!machine.latest.exists());
    stage.backup(&[&["-f"][..], &arguments].concat()).exits(&[0]).says("as --force is given");
    machine.verify(&machine.latest);
}
