//! `list --sizes`: what each snapshot takes alone, beside what `du` says, and how long a number
//! counts as exact.

use crate::support;

use std::fs;

use serde_json::Value;
use support::disk_use::{assert_sizes_are_right as check, disk_use};
use support::module::Module;
use support::random::Random;

fn with_policy() -> Module {
    let module = Module::new();
    module.write_policy("[defaults]\nmin_keep = 1\nmin_age = \"0s\"\ngrace = \"0s\"\n");
    module
}

/// A new snapshot, which no rotation expires.
fn pinned(module: &Module) -> String {
    let name = module.expect_snapshot();
    module.run(&["pin", "data", &name]).exits(&[0]);
    name
}

/// Replaces a file, as rsync does: a new inode.
fn push_file(module: &Module, name: &str, bytes: usize) {
    let draft = module.directory.join("draft");
    fs::write(&draft, vec![7; bytes]).expect("a file");
    fs::rename(draft, module.latest.join(name)).expect("renamed");
}

#[test]
fn a_snapshot_takes_alone_what_du_says() {
    let module = with_policy();
    fs::create_dir(module.latest.join("sub")).expect("a directory");
    push_file(&module, "sub/a", 300_000);
    push_file(&module, "b", 40_000);
    let first = pinned(&module);
    push_file(&module, "sub/a", 200_000);
    let second = pinned(&module);
    push_file(&module, "b", 10_000);
    let third = pinned(&module);
    let (exact, before) = check(&module, &[]);
    assert_eq!((exact, &before["sizes_counted"]), (0, &Value::Null));

    let (exact, list) = check(&module, &["--sizes"]);
    assert_eq!(exact, 2, "all but the newest: {list}");
    assert_eq!(list["total_bytes"].as_u64(), Some(disk_use(&module, None)));
    let sizes: Vec<u64> = list["snapshots"]
        .as_array()
        .expect("snapshots")
        .iter()
        .map(|snapshot| snapshot["size_bytes"].as_u64().expect("a size"))
        .collect();
    assert_eq!(sizes, [340_000, 240_000, 210_000]);
    // What the runs noted by themselves.
    let new = |name: &str| module.record(name)["new_bytes"].as_integer();
    let noted = [&first, &second, &third].map(|name| new(name));
    assert_eq!(noted, [Some(340_000), Some(200_000), Some(10_000)]);

    // What was counted is remembered.
    let (exact, remembered) = check(&module, &[]);
    assert_eq!((exact, &remembered["total_bytes"]), (2, &list["total_bytes"]));
    let text = module.run(&["list", "data"]).exits(&[0]).says("ALONE").stdout();
    assert!(text.contains("are free on this file system"), "{text}");

    // The neighbour of the first one goes, so the first one now has more alone.
    module.run(&["unpin", "data", &second]).exits(&[0]);
    module.run(&["expire", "data", &second, "--now"]).exits(&[0]);
    let (exact, _) = check(&module, &[]);
    assert_eq!(exact, 0);
    module.run(&["list", "data"]).exits(&[0]).says(">");
    let (exact, _) = check(&module, &["--sizes"]);
    assert_eq!(exact, 1);
    assert_eq!(module.snapshots(), [first, third]);
}

#[test]
fn every_number_is_right_after_any_history() {
    slow!();
    let mut random = Random::new(21);
    let module = with_policy();
    push_file(&module, "0", 5_000);
    let mut exact = 0;
    for step in 0..support::by_sweep(15, 15, 60) {
        match random.below(5) {
            0 if module.snapshots().len() > 2 => {
                let names = module.snapshots();
                let name = &names[random.below(names.len() - 1)];
                let now: &[&str] = if random.below(2) == 0 { &["--now"] } else { &[] };
                module.run(&[&["expire", "data", name], now].concat()).exits(&[0]);
            }
            1 => {
                check(&module, &["--sizes"]);
            }
            2 => {
                let _ = fs::remove_file(module.latest.join(random.below(6).to_string()));
            }
            _ => {
                push_file(&module, &random.below(6).to_string(), 4_000 * (1 + step));
                module.run_hook().exits(&[0]);
            }
        }
        exact += check(&module, &[]).0;
    }
    assert!(exact > 0, "no number was ever exact");
}

#[test]
fn hard_links_within_the_module_count_once() {
    let module = with_policy();
    push_file(&module, "a", 100_000);
    fs::hard_link(module.latest.join("a"), module.latest.join("b")).expect("a link");
    pinned(&module);
    push_file(&module, "a", 1_000);
    push_file(&module, "b", 1_000);
    module.expect_snapshot();
    let (exact, list) = check(&module, &["--sizes"]);
    assert_eq!((exact, &list["snapshots"][0]["size_bytes"]), (1, &100_000.into()));
    assert!(list["snapshots"][0]["alone_bytes"].as_u64() >= Some(100_000), "{list}");
}

#[test]
fn a_file_of_sizes_that_cannot_be_read_counts_for_nothing() {
    let (module, _) = Module::with_snapshot();
    let file = module.private("sizes.toml");
    module.run(&["list", "data"]).exits(&[0]);
    assert!(!file.exists(), "a listing writes nothing");
    for text in ["", "garbage", "format = 1\n", "format = 1\ntime = 7\n"] {
        fs::write(&file, text).expect("written");
        module.run(&["list", "data"]).exits(&[0]).says("1 snapshot in");
        let list = module.json(&["list", "data", "--json"]);
        assert!(list["snapshots"][0]["alone_bytes"].is_null(), "{list}");
    }
    module.run(&["list", "data", "--sizes"]).exits(&[0]).says("ALONE");
    assert!(fs::read_to_string(&file).expect("a file").starts_with("format = 1\n"));

    let newer = "format = 99\nmore = true\n";
    fs::write(&file, newer).expect("written");
    module.run(&["list", "data"]).exits(&[0]);
    module.run(&["list", "data", "--sizes"]).exits(&[0]).says("are not remembered");
    assert_eq!(fs::read_to_string(&file).expect("a file"), newer);
}

#[test]
fn the_sizes_are_counted_without_a_module_directory() {
    let (module, _) = Module::with_snapshot();
    fs::rename(&module.latest, module.directory.join("away")).expect("moved");
    module.run(&["list", "data", "--sizes"]).exits(&[0]).says("ALONE");
    module.run(&["list", "--sizes", "--all"]).exits(&[0]).says("ALONE");
}
