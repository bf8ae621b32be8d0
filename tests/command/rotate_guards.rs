//! What keeps `rotate` by hand from expiring by mistake, and from hiding one.

use crate::support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::module::Module;
use support::run::Run;
use support::{BINARY, tree};

const OLD: [&str; 3] = ["2020-01-01T00-00-00Z", "2020-01-02T00-00-00Z", "2020-01-03T00-00-00Z"];

#[test]
fn rotate_misses_a_policy_that_is_gone() {
    let module = Module::new();
    OLD.iter().for_each(|name| module.make_old_snapshot(name));
    module.write_policy("[defaults]\nkeep = { daily = 3650 }\nmin_keep = 1\n");
    module.run(&["rotate", "data"]).exits(&[0]);
    assert_eq!(module.snapshots(), OLD);

    // Without a file there are the built-in defaults, which would expire them.
    if Path::new("/etc/rsyncd-snapshot.toml").exists() {
        skipped!("needs a machine without /etc/rsyncd-snapshot.toml");
        return;
    }
    let mut command = Command::new(BINARY);
    command.env_clear();
    for (name, value) in module.command(&[]).get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command.arg("--rsyncd-conf").arg(&module.rsyncd_conf).args(["rotate", "data"]);
    Run::of(&mut command).exits(&[2]).says("was used with the policy");
    assert_eq!(module.snapshots(), OLD);
}

#[test]
fn rotating_does_not_make_a_lost_history_look_like_a_new_beginning() {
    let (module, _) = Module::with_snapshot();
    for name in module.snapshots() {
        fs::remove_dir_all(module.snapshot(&name)).expect("removed");
    }
    fs::remove_dir_all(module.root.join(".rsyncd-snapshot")).expect("removed");
    module.run(&["rotate", "data"]).exits(&[2]).says("holds no history now");
    module.run(&["check", "data"]).exits(&[2]).says("holds no history now");
}

#[test]
fn the_next_run_corrects_a_verification_from_the_future() {
    let (module, name) = Module::with_snapshot();
    let path = module.private("records").join(format!("{name}.toml"));
    let record = fs::read_to_string(&path).expect("the record");
    let ahead = |line: &str| match line.starts_with("verified_until") {
        true => "verified_until = \"2099-01-01T00:00:00Z\"\n".to_string(),
        false => format!("{line}\n"),
    };
    let year = |module: &Module| module.record(&name)["verified_until"].to_string();
    for change in [false, true] {
        fs::write(&path, record.lines().map(ahead).collect::<String>()).expect("written");
        assert!(year(&module).contains("2099"));
        if change {
            tree::write(&module.latest.join("new"), "x");
        }
        module.run_hook().exits(&[0, 4]);
        assert!(!year(&module).contains("2099"), "change {change}: {}", year(&module));
    }
    assert_eq!(module.snapshots().len(), 2);
}

#[test]
fn a_rotation_that_finds_the_lock_busy_does_not_promise_a_snapshot() {
    let (module, _) = Module::with_snapshot();
    module.write_policy("[defaults]\nlock_wait = \"0s\"\n");
    let lock = module.hold_lock();
    module.run(&["rotate", "data"]).exits(&[3]).says("nothing was done");
    module.run(&["snapshot", "data"]).exits(&[3]).says("marked due");
    drop(lock);
}

#[test]
fn a_rotation_that_can_be_remembered_nowhere_is_one_all_the_same() {
    let (module, newest) = Module::with_snapshot();
    OLD.iter().for_each(|name| module.make_old_snapshot(name));
    module.write_policy(
        "[defaults]\nkeep = { daily = 1 }\nmin_keep = 1\ntime_zone = \"UTC\"\nlog_level = \"debug\"\n",
    );
    for directory in [module.state_directory(), module.runtime_directory()] {
        fs::remove_dir_all(&directory).expect("removed");
        fs::write(&directory, "a file in its place").expect("written");
    }
    module
        .run(&["rotate", "data"])
        .exits(&[4])
        .says("this run works at once")
        .says("what this machine remembers of the module cannot be written: cannot ");
    assert_eq!((module.snapshots(), module.retired().len()), (vec![newest], OLD.len()));
}
