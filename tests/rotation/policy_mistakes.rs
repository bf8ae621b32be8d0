//! A policy that cannot be read without error expires nothing, but costs no snapshot either;
//! nor does a clock that cannot be believed.

use crate::support;

use std::fs;

use support::module::{Module, visible};
use support::run::Run;
use support::{fingerprint, tree};

const OLD: [&str; 5] = [
    "2001-02-03T04-05-06Z",
    "2001-02-04T04-05-06Z",
    "2001-02-05T04-05-06Z",
    "2001-02-06T04-05-06Z",
    "2001-02-07 04:05:06",
];

/// Would expire all of [`OLD`].
const EXPIRING: &str = "[defaults]\nkeep = { daily = 1 }\nmin_keep = 1\ngrace = \"0s\"\n";

/// Mistakes, and what the message has to mention.
const MISTAKES: &[(&str, &[&str])] = &[
    ("", &["empty"]),
    ("# only a comment\n", &["empty"]),
    ("[defaults\nkeep = 3\n", &[":1:"]),
    ("[defaults]\nkeep = { daily = 1 }\nkepp = 1\n", &[":3:", "kepp"]),
    ("[defaults]\nkeep = { daily = 0 }\n", &[":2:", "1"]),
    ("[defaults]\nkeep = { daily = -1 }\n", &[":2:"]),
    ("[defaults]\nkeep = { daily = \"24*0\" }\n", &[":2:"]),
    ("[defaults]\nkeep = { daily = \"sometimes\" }\n", &[":2:", "always"]),
    ("[defaults]\nkeep = { fortnightly = 1 }\n", &[":2:", "weekly"]),
    ("[defaults]\nkeep = {}\n", &[":2:"]),
    ("[defaults]\nkeep = 24\n", &[":2:"]),
    ("[defaults]\nkeep = { daily = 1 }\nmin_age = \"1\"\n", &[":3:"]),
    ("[defaults]\nkeep = { daily = 1 }\nmin_age = 3600\n", &[":3:"]),
    ("[defaults]\nkeep = { daily = 1 }\nprefer = \"youngest\"\n", &[":3:", "newest"]),
    ("[defaults]\nkeep = { daily = 1 }\nstrict = \"no\"\n", &[":3:"]),
    ("[defaults]\nkeep = { daily = 1 }\ntime_zone = \"Mars/Olympus\"\n", &[":3:"]),
    ("[defaults]\nkeep = { daily = 1 }\nmin_keep = -1\n", &[":3:"]),
    ("[defaults]\nkeep = { daily = 1 }\nsnapshot_root = \"relative\"\n", &[":3:"]),
    ("[defaults]\nkeep = { daily = 1 }\nlog_level = \"loud\"\n", &[":3:", "info"]),
    ("[defaults]\nkeep = { daily = 1 }\nnice = 99\n", &[":3:"]),
    ("[defaults]\nkeep = { daily = 1 }\nionice = \"realtime!\"\n", &[":3:", "idle"]),
    ("[default]\nkeep = { daily = 1 }\n", &[":1:", "defaults"]),
    ("[module.other]\nkeep = { daily = 0 }\n", &[":2:"]),
    ("[defaults]\nkeep = { daily = 1 }\nkeep = { daily = 2 }\n", &[":3:"]),
];

/// A registered root with one snapshot, old ones to expire, and a change to be snapshotted.
fn registered_module() -> Module {
    let (module, _) = Module::with_snapshot();
    for name in OLD {
        module.make_old_snapshot(name);
    }
    tree::write(&module.latest.join("new"), "x");
    module
}

/// The hook takes its snapshot, expires nothing and exits 2; `rotate` and `check` refuse.
fn assert_nothing_expires(module: &Module, what: &str, mention: &[&str]) {
    let before = module.snapshots();
    let hook = module.run_hook();
    assert_eq!(hook.code(), Some(2), "{what}: {hook}");
    let mut after = module.snapshots();
    assert_eq!(after.len(), before.len() + 1, "{what}: a snapshot all the same: {hook}");
    after.retain(|name| before.contains(name));
    assert_eq!(after, before, "{what}: nothing expires");

    for arguments in [&["rotate", "data"][..], &["rotate", "data", "--confirm"], &["plan", "data"]]
    {
        let run = module.run(arguments);
        assert_eq!(run.code(), Some(2), "{what}: {run}");
        for word in mention {
            assert!(run.stderr().contains(word), "{what}: no {word:?} in {run}");
        }
    }
    assert_eq!(module.snapshots().len(), before.len() + 1, "{what}: nothing expires");
    let check = module.run(&["check", "data"]);
    assert_eq!(check.code(), Some(2), "{what}: {check}");
    module.run(&["list", "data"]).exits(&[0, 2]);
}

#[test]
fn a_policy_with_a_mistake_expires_nothing_and_says_where_it_is() {
    std::thread::scope(|scope| {
        for (policy, mention) in MISTAKES {
            scope.spawn(move || {
                let module = registered_module();
                module.write_policy(policy);
                assert_nothing_expires(&module, policy, mention);

                module.write_policy(EXPIRING);
                module.run(&["rotate", "data"]).exits(&[0]);
                let left = module.snapshots();
                assert!(
                    !OLD.iter().any(|name| left.iter().any(|left| left == name)),
                    "{policy}: {left:?}"
                );
            });
        }
    });
}

/// A failed transfer removes what is retired, for its space; but not now.
#[test]
fn a_policy_with_a_mistake_does_not_end_what_is_retired() {
    let module = registered_module();
    module.write_policy(EXPIRING);
    module.run(&["rotate", "data"]).exits(&[0]);
    assert_eq!(module.retired(), OLD);
    module.write_policy("[defaults]\nkeep = { daily = 0 }\n");
    module.run_hook_after(12).exits(&[2]);
    assert_eq!(module.retired(), OLD);
    module.write_policy(EXPIRING);
    module.run_hook_after(12).exits(&[0]);
    assert_eq!(module.retired(), [""; 0]);
}

#[test]
fn several_mistakes_are_reported_at_once() {
    let module = registered_module();
    module.write_policy("[defaults]\nkepp = 1\nmin_age = \"soon\"\n\n[module.data]\nprefer = 3\n");
    let said = module.run(&["plan", "data"]).exits(&[2]).stderr();
    for place in [":2:", ":3:", ":6:"] {
        assert!(said.contains(place), "{place} is missing: {said}");
    }
}

#[test]
fn a_policy_file_that_is_missing_though_named_expires_nothing() {
    let module = registered_module();
    fs::remove_file(&module.policy).expect("removed");
    assert_nothing_expires(&module, "missing", &["policy.toml"]);
}

#[test]
fn a_policy_file_that_cannot_be_read_expires_nothing() {
    let module = registered_module();
    fs::remove_file(&module.policy).expect("removed");
    fs::create_dir(&module.policy).expect("a directory in its place");
    assert_nothing_expires(&module, "a directory", &["policy.toml"]);
    fs::remove_dir(&module.policy).expect("removed");
    fs::write(&module.policy, b"[defaults]\nkeep = { daily = 1 } # \xff\n").expect("no text");
    tree::write(&module.latest.join("newer"), "x");
    assert_nothing_expires(&module, "no text", &["policy.toml"]);
}

#[test]
fn an_unregistered_root_is_not_touched_under_a_policy_with_a_mistake() {
    let module = Module::new();
    tree::small(&module.latest);
    for name in OLD {
        fs::create_dir(module.snapshot(name)).expect("a snapshot that is not ours");
    }
    let before = fingerprint::of(&module.root);
    module.write_policy("[defaults]\nkeep = { daily = 0 }\n");
    module.run_hook().exits(&[2]);
    fs::remove_file(&module.policy).expect("removed");
    module.run_hook().exits(&[2]);
    fingerprint::assert_equal(&before, &fingerprint::of(&module.root), "the root");
}

#[test]
fn a_mistake_does_not_move_the_snapshots_to_another_root() {
    slow!();
    let module = Module::new();
    tree::small(&module.latest);
    let elsewhere = module.directory.join("elsewhere");
    fs::create_dir(&elsewhere).expect("a directory");
    let root = format!("snapshot_root = \"{}\"\n", elsewhere.display());
    module.write_policy(&format!("[defaults]\n{root}"));
    module.run_hook().exits(&[0]);
    assert_eq!(visible(&elsewhere).len(), 1);

    for policy in [format!("[defaults]\n{root}kepp = 1\n"), "[defaults\n".into(), String::new()] {
        module.write_policy(&policy);
        tree::write(&module.latest.join("new"), &policy);
        let before = visible(&elsewhere).len();
        module.run_hook().exits(&[2]);
        assert_eq!(visible(&elsewhere).len(), before + 1, "{policy}");
        assert!(module.snapshots().is_empty(), "{policy}");
        assert!(!module.private(".").exists(), "{policy}");
    }
}

/// Makes the last run one of a hundred days ago.
fn let_the_clock_jump(module: &Module) {
    let mut state = module.state();
    let last_run =
        state.get_mut("last_run").and_then(toml::Value::as_table_mut).expect("a last run");
    let long_ago = support::time::now() - chrono::TimeDelta::days(100);
    let long_ago = long_ago.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    last_run.insert("time".into(), toml::Value::String(long_ago));
    fs::write(module.private("state.toml"), state.to_string()).expect("the state");
}

#[test]
fn a_jump_of_the_clock_pauses_expiry_until_it_is_confirmed() {
    let module = registered_module();
    module.write_policy(EXPIRING);
    let_the_clock_jump(&module);

    module.run_hook().exits(&[0, 4]);
    assert_eq!(module.snapshots().len(), OLD.len() + 2, "a snapshot is taken, nothing expires");
    // It stays paused although that run was a moment ago.
    module.run(&["rotate", "data"]).exits(&[0, 4]);
    tree::write(&module.latest.join("newer"), "x");
    module.run_hook().exits(&[0, 4]);
    assert_eq!(module.snapshots().len(), OLD.len() + 3);
    let plan = module.json(&["plan", "data", "--json"]);
    assert!(plan["pause"].as_str().is_some_and(|pause| pause.contains("--confirm")), "{plan}");
    let check = module.run(&["check", "data"]).exits(&[1, 2]);
    assert!(check.stdout().contains("--confirm"), "{check}");

    module.run(&["rotate", "data", "--confirm"]).exits(&[0]);
    assert!(OLD.iter().all(|name| !module.snapshot(name).exists()), "{:?}", module.snapshots());
    module.run(&["check", "data"]).exits(&[0]);
}

#[test]
fn a_damaged_state_expires_nothing_and_costs_no_snapshot() {
    let module = registered_module();
    module.write_policy(EXPIRING);
    fs::write(module.private("state.toml"), "torn = [what\n").expect("the state");
    module.run_hook();
    tree::write(&module.latest.join("repaired"), "x");
    let run = module.run_hook();
    assert!(matches!(run.code(), Some(0 | 4)), "{run}");
    assert!(OLD.iter().all(|name| module.snapshot(name).exists()), "{:?}", module.snapshots());
    let newest = module.snapshots().pop().expect("a snapshot");
    module.assert_equals_module(&newest);
    module.run(&["check", "data"]).exits(&[1, 2]);
    module.run(&["rotate", "data", "--confirm"]).exits(&[0]);
    assert!(OLD.iter().all(|name| !module.snapshot(name).exists()), "{:?}", module.snapshots());
}

#[test]
fn a_root_of_a_newer_format_is_refused() {
    let module = registered_module();
    let path = module.private("root.toml");
    let text = fs::read_to_string(&path).expect("the root's file");
    fs::write(&path, text.replace("format = 1", "format = 3").replace("format = 2", "format = 3"))
        .expect("written");
    let before = module.snapshots();
    module.write_policy(EXPIRING);
    let run = Run::of(&mut module.hook());
    assert!(matches!(run.code(), Some(1 | 2)), "{run}");
    assert!(run.stderr().contains("format"), "{run}");
    module.run(&["rotate", "data"]).exits(&[1, 2]);
    assert_eq!(module.snapshots(), before);
}
