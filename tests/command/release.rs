//! `release`: each option says what it has ended, and everything that still stands.

use crate::support;

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use support::module::{Module, NAME};
use support::subvolumes::remove_snapshot;
use support::{time::wait_until, tree};

/// A module on which everything lies at once: state lost, damage, torn, due, a client that has not
/// finished, and a snapshot that vanished.
fn troubled() -> (Module, String) {
    let module = Module::new();
    tree::small(&module.latest);
    let gone = module.expect_snapshot();
    tree::write(&module.latest.join("new"), "x");
    module.expect_snapshot();
    fs::write(module.private("state.toml"), "damaged").expect("written");
    module.run_hook().exits(&[0, 4]);
    module.write_policy("[defaults]\nlock_wait = \"0s\"\n");
    let lock = module.hold_lock();
    module.run_hook().exits(&[3]);
    module.run_hook_after(12).exits(&[3]);
    drop(lock);
    module.write_policy("[defaults]\nlock_wait = \"20s\"\n");
    sleep(Duration::from_millis(50));
    remove_snapshot(&module.snapshot(&gone));
    tree::set_mode(&module.latest.join("read me"), 0o600);
    module.run(&["verify", NAME]).exits(&[1]);
    fs::write(module.latest.join(".rsync-system-backup-partial"), "").expect("a file");
    (module, gone)
}

const STANDING: [(&str, &str); 6] = [
    ("nothing expires yet: state.toml was damaged", ""),
    ("1 file in 1 snapshot has been altered in place", "--damage"),
    ("the module is still torn by a failed push", "--torn"),
    ("snapshots are partial until the client has finished", ""),
    ("a snapshot is due since", ""),
    ("is gone, and no run of rsyncd-snapshot removed it", "--vanished"),
];

#[test]
fn each_release_says_what_it_ended_and_what_still_stands() {
    slow!();
    only_hard_links!("changes of snapshots, which are read-only");
    for (option, ended) in [
        ("--torn", "no longer torn"),
        ("--damage", "1 altered file accepted as found"),
        ("--unseen", "no push whose process cannot be seen"),
        ("--vanished", "accepted as gone: 20"),
        ("", "nothing to release"),
    ] {
        let (module, _) = troubled();
        let arguments: Vec<&str> =
            ["release", NAME, option].into_iter().filter(|word| !word.is_empty()).collect();
        let run = module.run(&arguments).exits(&[0, 4]);
        let said = run.stdout();
        assert!(said.starts_with(&format!("{NAME}: {ended}")), "{option}: {run}");
        assert_eq!(said.lines().count(), 1, "{option}: {run}");
        for (text, ends) in STANDING {
            let is_ended = ends == option && !option.is_empty();
            assert_eq!(said.contains(text), !is_ended, "{option}: {text}: {run}");
        }
    }
}

#[test]
fn nothing_stands_after_all_is_released() {
    only_hard_links!("changes of snapshots, which are read-only");
    let (module, _) = troubled();
    fs::remove_file(module.latest.join(".rsync-system-backup-partial")).expect("removed");
    for option in ["--torn", "--damage", "--vanished"] {
        module.run(&["release", NAME, option]).exits(&[0, 4]);
    }
    module.run(&["rotate", NAME, "--confirm"]).exits(&[0, 4]);
    module.run(&["snapshot", NAME]).exits(&[0, 4]);
    wait_until("the module is in order", || module.run(&["check", NAME]).code() == Some(0));
    let run = module.run(&["release", NAME]).exits(&[0]);
    assert_eq!(run.stdout(), format!("{NAME}: nothing to release\n"), "{run}");
}

#[test]
fn a_broken_policy_stands_and_hides_no_other_trouble() {
    only_hard_links!("changes of snapshots, which are read-only");
    let (module, gone) = troubled();
    module.write_policy("[defaults]\nmin_keep = \"x\"\n");
    module
        .run(&["release", NAME])
        .exits(&[0, 4])
        .says("nothing expires yet, since the policy cannot be used: ")
        .says("release --torn")
        .says(&gone);
}

#[test]
fn each_command_that_changes_something_says_so_in_json() {
    let (module, first) = Module::with_snapshot();
    tree::write(&module.latest.join("more"), "x");
    let second = module.expect_snapshot();
    let of = |json: &serde_json::Value| (json["outcome"].clone(), json["snapshots"].clone());
    let named = |command: &str| module.json(&[command, "data", &first, &second, "--json"]);
    for (command, outcome) in [("pin", "pinned"), ("unpin", "unpinned")] {
        let json = named(command);
        assert_eq!(json["module"], "data", "{json:#}");
        assert_eq!(of(&json), (outcome.into(), serde_json::json!([first, second])));
    }
    module.run(&["expire", "data", &first, "--below-min-keep"]).exits(&[0]);
    let json = module.json(&["undelete", "data", &first, "--json"]);
    assert_eq!(of(&json), ("undeleted".into(), serde_json::json!([first])));
    for option in ["--torn", "--damage", "--unseen", "--vanished"] {
        let json = module.json(&["release", "data", option, "--json"]);
        assert!(json["ended"].is_string() && json["standing"] == serde_json::json!([]), "{json:#}");
    }
    let all = module.json(&["release", "--all", "--json"]);
    assert_eq!(all[0]["ended"], "nothing to release", "{all:#}");
}
