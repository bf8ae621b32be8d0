//! The anomaly brake: a push that changes most of a tree pins what was there before and pauses
//! expiry.

use crate::support;

use std::fs;
use std::path::Path;

use support::module::Module;
use support::simulated::{EXPIRING, Simulated};
use support::tree;

/// 20 directories with 60 files each: 1,220 entries.
fn large(more: &str) -> Simulated {
    let module = Simulated::new(Module::new(), &format!("{EXPIRING}{more}"));
    tree::numbered(&module.latest, 20, 60);
    module
}

/// Replaces every file in so many of the directories.
fn encrypt(live: &Path, directories: usize) {
    for directory in 0..directories {
        for file in 0..60 {
            tree::write(&live.join(format!("d{directory:04}/f{file:04}")), "ransom");
        }
    }
}

fn braked(module: &Simulated) -> bool {
    module.state().contains_key("brake")
}

#[test]
fn rewriting_most_of_a_tree_pauses_expiry_until_release() {
    slow!();
    let module = large("");
    let good = module.publish();
    encrypt(&module.latest, 11);
    module.pass(1);
    let run = module.run().exits(&[4]);
    assert!(run.to_string().contains("changed 671 and removed 0 of 1220"), "{run}");
    let bad = module.name();
    assert_eq!(
        module.snapshots(),
        [good.clone(), bad.clone()],
        "the snapshot is taken all the same"
    );
    assert!(braked(&module));

    // Days of pushes, and failures, wear nothing down.
    let mut names = vec![good.clone(), bad];
    for number in 0..5 {
        tree::write(&module.latest.join("d0001/f0001"), &number.to_string());
        module.pass(1);
        module.run().exits(&[4]);
        names.push(module.name());
        module.run_after(23).exits(&[0]);
    }
    assert_eq!(module.snapshots(), names);
    let check = module.server.run(&["check", "data"]).exits(&[2]);
    check.says("release");

    // No command takes away what all messages about the pause name.
    module.server.run(&["unpin", "data", &good]).exits(&[2]).says("run `release`");
    let order = ["expire", "data", &good, "--below-min-keep", "--now"];
    module.server.run(&order).exits(&[2]).says("stays").says("release");

    module.server.run(&["release", "data"]).exits(&[0]).says(&good);
    let check = module.server.run(&["check", "data"]).to_string();
    assert!(!check.contains("671"), "the last run's warning is over, too: {check}");
    let pins = fs::read_to_string(module.root.join(".rsyncd-snapshot/pins.toml")).expect("a copy");
    assert!(pins.starts_with("format = 1\n"), "{pins}");
    module.server.run(&["release", "data"]).exits(&[0]).says("nothing to release");
    tree::write(&module.latest.join("d0001/f0001"), "x");
    let newest = module.publish();
    assert_eq!(module.snapshots(), [newest], "the brake's pin went with it");
}

#[test]
fn further_anomalies_pin_nothing_and_release_leaves_only_pins_of_people() {
    slow!();
    let module = large("");
    let good = module.publish();
    let mut names = vec![good.clone()];
    for number in 0..4 {
        tree::numbered(&module.latest, 20, 60);
        for directory in 0..12 {
            for file in 0..60 {
                let path = module.latest.join(format!("d{directory:04}/f{file:04}"));
                tree::write(&path, &format!("version {number}"));
            }
        }
        module.pass(1);
        module.run().exits(&[4]);
        names.push(module.name());
    }
    assert_eq!(pins(&module), std::slice::from_ref(&good), "the one before the first anomaly");
    let held = names[2].clone();
    module.server.run(&["pin", "data", &held, "--reason", "by hand"]).exits(&[0]);
    let run = module.server.run(&["release", "data"]).exits(&[0]);
    assert!(run.stdout().contains(&good) && !run.stdout().contains(&held), "{run}");
    assert_eq!(pins(&module), [held]);
}

/// An earlier version pinned one more snapshot with each large change, and marked none as its own.
#[test]
fn release_takes_away_the_pins_that_an_earlier_version_left() {
    slow!();
    let module = large("");
    let names: Vec<String> = (0..3)
        .map(|number| {
            tree::write(&module.latest.join("d0001/f0001"), &number.to_string());
            module.publish_with(&[0])
        })
        .collect();
    let last = names[2].clone();
    let reason = "the last one before a push that changed 671 and removed 0 of 1220 entries";
    let mut text = fs::read_to_string(module.private("state.toml")).expect("the state");
    for name in [&names[1], &last] {
        text +=
            &format!("\n[pins.{name}]\nsince = \"2025-03-01T00:00:00Z\"\nreason = \"{reason}\"\n");
    }
    fs::write(module.private("state.toml"), text).expect("written");
    // The brake itself may have been released by that version.
    module.server.run(&["release", "data"]).exits(&[0]).says(&last).says(&names[1]);
    assert_eq!(pins(&module), [""; 0]);
}

fn pins(module: &Simulated) -> Vec<String> {
    let state = module.state();
    let pins = state.get("pins").and_then(toml::Value::as_table);
    pins.map(|pins| pins.keys().cloned().collect()).unwrap_or_default()
}

#[test]
fn a_pin_of_the_administrator_does_not_undo_that_of_the_guard() {
    slow!();
    let module = large("");
    let good = module.publish();
    encrypt(&module.latest, 11);
    module.pass(1);
    module.run().exits(&[4]);
    module.server.run(&["pin", "data", &good, "--reason", "mine"]).exits(&[0]);
    module.server.run(&["unpin", "data", &good]).exits(&[2]).says("run `release`");
    module.server.run(&["release", "data"]).exits(&[0]);
    // It was the administrator's, and stays until it is taken off.
    module.server.run(&["unpin", "data", &good]).exits(&[0]);
}

#[test]
fn most_of_a_tree_removed_is_an_anomaly_too() {
    slow!();
    let module = large("");
    let good = module.publish();
    for directory in 0..11 {
        fs::remove_dir_all(module.latest.join(format!("d{directory:04}"))).expect("removed");
    }
    module.pass(1);
    module.run().exits(&[4]);
    assert!(braked(&module) && module.snapshots().contains(&good));
    // Vouching for the clock does not vouch for the content.
    module.server.run(&["rotate", "data", "--confirm"]).exits(&[4]).says("release");
    assert!(braked(&module) && module.snapshots().contains(&good));
}

#[test]
fn additions_half_a_tree_and_small_trees_pause_nothing() {
    slow!();
    let module = large("");
    module.publish();
    tree::numbered(&module.latest.join("more"), 30, 60);
    module.publish();
    encrypt(&module.latest, 10);
    module.publish();
    assert!(!braked(&module));

    let small = Simulated::new(Module::new(), EXPIRING);
    tree::numbered(&small.latest, 10, 60);
    small.publish();
    encrypt(&small.latest, 10);
    small.publish();
    assert!(!braked(&small));
}

#[test]
fn the_share_is_the_policys() {
    slow!();
    let module = large("anomaly_share = \"10%\"\n");
    module.publish();
    encrypt(&module.latest, 3);
    module.pass(1);
    module.run().exits(&[4]);
    assert!(braked(&module));

    let module = large("anomaly_share = \"100%\"\n");
    module.publish();
    encrypt(&module.latest, 20);
    module.publish();
    assert!(!braked(&module));
}

#[test]
fn retired_snapshots_wait_while_expiry_is_paused() {
    slow!();
    let module = large("");
    let first = module.publish();
    tree::write(&module.latest.join("d0001/f0001"), "x");
    module.publish();
    assert_eq!(Module::retired(&module), [first.as_str()]);
    encrypt(&module.latest, 20);
    module.pass(1);
    module.run().exits(&[4]);
    for status in [12, 0] {
        tree::write(&module.latest.join("d0001/f0001"), &status.to_string());
        module.pass(1);
        module.run_after(status).exits(&[0, 4]);
    }
    assert_eq!(module.snapshots().len(), 3);
    assert_eq!(Module::retired(&module), [first.as_str()]);
    module.server.run(&["undelete", "data", &first]).exits(&[0]);
    assert!(module.snapshot(&first).join("d0001/f0001").is_file());
}
