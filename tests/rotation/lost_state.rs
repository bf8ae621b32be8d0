//! Files of ours that vanish from a root: each is told, or its loss is harmless.

use crate::support;

use std::fs;

use support::module::Module;
use support::server::Server;
use support::simulated::{EXPIRING, Simulated};
use support::subvolumes::are_subvolumes;
use support::tree;

fn push(module: &Simulated, content: &str) -> String {
    tree::write(&module.latest.join("file"), content);
    module.publish_with(&[0, 4])
}

fn simulated() -> Simulated {
    Simulated::new(Module::new(), EXPIRING)
}

#[test]
fn a_missing_state_pauses_expiry_and_keeps_pins() {
    let module = simulated();
    let pinned = push(&module, "0");
    Server::run(&module, &["pin", "data", &pinned, "--reason", "before the move"]).exits(&[0]);
    let second = push(&module, "1");
    fs::remove_file(module.private("state.toml")).expect("removed");
    Server::run(&module, &["check", "data"])
        .exits(&[1])
        .says("it was missing")
        .says("rotate data --confirm");
    for content in ["2", "3", "4"] {
        tree::write(&module.latest.join("file"), content);
        module.pass(1);
        module.run().exits(&[0, 4]);
    }
    let left = module.snapshots();
    assert!(left.contains(&pinned) && left.contains(&second), "{left:?}");
    assert!(
        Server::run(&module, &["list", "data"]).exits(&[0]).stdout().contains("before the move")
    );
    Server::run(&module, &["rotate", "data", "--confirm"]).exits(&[0, 4]);
    assert!(module.snapshots().contains(&pinned));
    let check = Server::run(&module, &["check", "data"]);
    assert!(!check.stdout().contains("it was missing"), "{check}");
}

#[test]
fn a_root_that_lost_state_and_records_is_no_new_one() {
    // Subvolumes have neither an index nor baselines.
    let all = [&["pins.toml"][..], &["index"], &["inodes"]];
    for left in all.into_iter().take(if are_subvolumes() { 1 } else { 3 }) {
        let module = simulated();
        let pinned = push(&module, "0");
        Server::run(&module, &["pin", "data", &pinned]).exits(&[0]);
        let second = push(&module, "1");
        fs::remove_file(module.private("state.toml")).expect("removed");
        fs::remove_dir_all(module.private("records")).expect("removed");
        for other in ["pins.toml", "index", "inodes"] {
            let path = module.private(other);
            match path.is_dir() {
                _ if left.contains(&other) => {}
                true => fs::remove_dir_all(&path).expect("removed"),
                false => fs::remove_file(&path).expect("removed"),
            }
        }
        Server::run(&module, &["check", "data"]).exits(&[1, 2]);
        tree::write(&module.latest.join("file"), "2");
        module.pass(1);
        module.run().exits(&[0, 4]);
        Server::run(&module, &["check", "data"]).says("it was missing");
        assert!(
            module.snapshots().contains(&pinned) && module.snapshots().contains(&second),
            "{left:?}"
        );
    }
}

#[test]
fn a_new_root_has_lost_nothing() {
    let module = simulated();
    push(&module, "0");
    let check = Server::run(&module, &["check", "data"]);
    assert!(!check.stdout().contains("it was missing"), "{check}");
}

#[test]
fn records_that_vanish_are_told_until_a_person_confirms() {
    slow!();
    let module = simulated();
    let first = push(&module, "0");
    fs::remove_dir_all(module.private("records")).expect("removed");
    let told = "records was missing: what was recorded of snapshots";
    for (command, remedy) in [
        ("list", "rotate --confirm"),
        ("plan", "rotate --confirm"),
        ("check", "rotate data --confirm"),
    ] {
        Server::run(&module, &[command, "data"]).says(told).says(remedy);
    }
    Server::run(&module, &["list", "data"]).exits(&[4]).says(&first);
    push(&module, "1");
    push(&module, "2");
    Server::run(&module, &["check", "data"]).exits(&[1]).says(told);
    Server::run(&module, &["list", "data"]).exits(&[0]);
    Server::run(&module, &["rotate", "data", "--confirm"]).exits(&[0, 4]);
    let check = Server::run(&module, &["check", "data"]);
    assert!(!check.stdout().contains(told), "{check}");
}

#[test]
fn a_look_ends_the_mark_of_a_lost_state_if_nothing_has_changed() {
    let (module, name) = Module::with_snapshot();
    // Written in place, it is no longer what the snapshot was taken of.
    let file = module.latest.join("read me");
    let before = fs::read(&file).expect("a file");
    fs::remove_file(module.private("state.toml")).expect("removed");
    fs::write(&file, "half").expect("written in place");
    module.run(&["snapshot", "data"]);
    assert!(module.is_marked("torn"), "{:?}", module.state());
    assert!(module.snapshots().iter().all(|made| *made == name || made.ends_with("-partial")));

    let (module, name) = Module::with_snapshot();
    assert_eq!(fs::read(module.latest.join("read me")).expect("a file"), before);
    fs::remove_file(module.private("state.toml")).expect("removed");
    module.run(&["rotate", "data", "--confirm"]).exits(&[4]).says("state.toml is missing");
    let told = module.run(&["check", "data"]).exits(&[1]);
    told.says("`rsyncd-snapshot snapshot data ").says("` that finds the module equal");
    module.run(&["snapshot", "data"]).exits(&[0]);
    assert_eq!(module.snapshots(), [name]);
    module.run(&["check", "data"]).exits(&[0]);
}

#[test]
fn other_files_that_vanish_cost_no_snapshot() {
    slow!();
    for file in ["pins.toml", "records", "index", "inodes", "transfers", "root.toml"] {
        let module = simulated();
        let pinned = push(&module, "0");
        Server::run(&module, &["pin", "data", &pinned]).exits(&[0]);
        push(&module, "1");
        let path = module.private(file);
        match path.is_dir() {
            true => fs::remove_dir_all(&path).expect("removed"),
            false => fs::remove_file(&path).expect("removed"),
        }
        push(&module, "2");
        assert!(module.snapshots().contains(&pinned), "{file}");
        Server::run(&module, &["check", "data"]).exits(&[0, 1, 2]);
    }
}

#[test]
fn files_of_a_newer_version_are_told_as_that_and_stay() {
    for (file, key) in [("root.toml", "kind"), ("state.toml", "mood")] {
        let module = simulated();
        push(&module, "0");
        let path = module.private(file);
        let text = fs::read_to_string(&path)
            .expect("ours")
            .replacen("format = 1", "format = 3", 1)
            .replacen("format = 2", "format = 3", 1);
        // A key that this version does not know must not make it a damaged file.
        fs::write(&path, format!("{key} = \"new\"\n{text}")).expect("written");
        let newer = fs::read_to_string(&path).expect("ours");
        tree::write(&module.latest.join("file"), "1");
        module.pass(1);
        module.run().exits(&[1]).says("newer version of rsyncd-snapshot");
        for command in
            [&["check", "data"][..], &["check"], &["rotate", "data"], &["snapshot", "--all"]]
        {
            let run = Server::run(&module, command);
            assert!(!run.succeeded(), "{run}");
            let said = run.stdout() + &run.stderr();
            assert!(said.contains("newer version of rsyncd-snapshot"), "{file}: {run}");
            assert!(!said.contains("disk"), "{file}: {run}");
        }
        assert_eq!(fs::read_to_string(&path).expect("ours"), newer, "{file}");
        assert!(!module.private("state.toml.damaged").exists());
    }
}
