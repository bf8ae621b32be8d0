//! What rsync leaves when it is stopped, and what only looks like it.

use crate::support;

use std::fs;
use std::path::Path;

use support::daemon::{Daemon, source};
use support::module::Module;
use support::run::{Run, tool};
use support::subvolumes::are_subvolumes;
use support::time::wait_until;
use support::{have, tree};

fn count(module: &Module, name: &str) -> i64 {
    module.record(name)["temporaries"].as_integer().expect("a number")
}

fn make_old(path: &Path) {
    Run::of(tool("touch").args(["-d", "3 days ago"]).arg(path)).exits(&[0]);
}

#[test]
fn temporaries_that_stay_are_counted_and_reported() {
    let (module, first) = Module::with_snapshot();
    assert_eq!(count(&module, &first), 0);
    tree::write(&module.latest.join("documents/.bashrc.backup"), "precious");
    tree::write(&module.latest.join(".report.Ab12Cd"), "half");
    tree::write(&module.latest.join("documents/.no.suffix-"), "x");

    let second = module.expect_snapshot();
    module.assert_equals_module(&second);
    assert_eq!(count(&module, &second), 2);
    assert_eq!(module.list()[1]["temporaries"], 2);
    module.run(&["check", "data"]).exits(&[0]);

    make_old(&module.latest.join(".report.Ab12Cd"));
    let told = module.run(&["check", "data"]).exits(&[1]).says(".report.Ab12Cd");
    assert!(told.stdout().contains("1 file"), "{told}");
    // A link out of the module is not followed.
    fs::remove_file(module.latest.join(".report.Ab12Cd")).expect("removed");
    let outside = module.directory.join("outside");
    tree::write(&outside, "x");
    make_old(&outside);
    std::os::unix::fs::symlink(&outside, module.latest.join(".report.Ab12Cd")).expect("a link");
    module.run(&["check", "data"]).exits(&[0]);
}

#[test]
fn every_snapshot_counts_all_temporaries() {
    if !support::may_recycle() {
        return;
    }
    let (module, _) = Module::with_snapshot();
    module.write_policy(
        "[defaults]\nkeep = { minutely = 1 }\nmin_keep = 1\nmin_age = \"0s\"\ngrace = \"0s\"\n",
    );
    tree::write(&module.latest.join("documents/letters/.a.000000"), "x");
    for round in 0..6 {
        // Only this file's directory changes; what the index knows is not read.
        tree::write(&module.latest.join("read me"), &"x".repeat(round + 1));
        fs::remove_file(module.latest.join("read me")).expect("removed");
        tree::write(&module.latest.join("read me"), &"x".repeat(round + 2));
        let name = module.expect_snapshot();
        assert_eq!(count(&module, &name), 1, "round {round}: {:?}", module.record(&name));
    }
    let name = module.snapshots().pop().expect("a snapshot");
    let is_recycled = module.recycled_from(&name).is_some();
    assert_eq!(is_recycled, !are_subvolumes(), "{:?}", module.record(&name));
}

#[test]
fn a_transfer_that_is_killed_leaves_one() {
    if !have(&["rsync", "pgrep", "pkill"]) {
        return;
    }
    let module = Module::new();
    let source = source(&module);
    let daemon = Daemon::of_pair(&module);
    fs::write(source.join("large"), vec![b'x'; 1 << 20]).expect("a large file");
    let mut client = daemon.push_slowly(&source, "data");
    let partial = || {
        let names = fs::read_dir(&module.latest).expect("the module");
        names
            .flatten()
            .map(|entry| entry.file_name().into_string().expect("UTF-8"))
            .find(|name| name.starts_with(".large."))
    };
    wait_until("the large file begins to arrive", || partial().is_some());
    let connection =
        fs::read_dir(module.private("transfers")).expect("the ledger").next().expect("one");
    let connection = connection.expect("an entry").file_name().into_string().expect("a name");
    let connection = connection.rsplit('-').next().expect("a number");
    // The receiver is a child of the generator, and that one of the connection's process.
    let kill = "for child in $(pgrep -P $0); do pkill -KILL -P $child; kill -s KILL $child; done";
    Run::of(tool("sh").args(["-c", kill, connection])).exits(&[0]);
    client.wait().expect("its end");
    daemon.await_hooks(1);
    let name = partial().expect("rsync had no time to remove it");

    module.run(&["snapshot", "data"]).exits(&[0]);
    let snapshot = module.snapshots().remove(0);
    assert!(snapshot.ends_with("-partial"), "{snapshot}");
    assert!(module.snapshot(&snapshot).join(&name).exists(), "{name}");
    assert_eq!(count(&module, &snapshot), 1);
}
