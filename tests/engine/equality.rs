//! A snapshot equals what `cp --archive --link` makes of the module, on every file system.

use crate::support;

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use support::file_system::{FileSystem, Kind};
use support::module::Module;
use support::run::{Run, tool};
use support::{fingerprint, is_full_sweep, root, tree};

/// Takes one snapshot of a tree with everything in it and compares it with the module and with
/// what `cp` makes of that.
fn assert_equals_copy(module: &Module) {
    tree::every_type(&module.latest);
    let copy = module.root.with_file_name("copy");
    Run::of(tool("cp").args(["--archive", "--link"]).arg(&module.latest).arg(&copy)).exits(&[0]);
    let before = fingerprint::of(&module.latest);

    let name = module.expect_snapshot();

    fingerprint::assert_same(&copy, &module.snapshot(&name));
    fingerprint::assert_equal(
        &before,
        &fingerprint::of(&module.latest),
        "the module before and after",
    );
    module.expect_no_snapshot();
}

fn assert_equals_copy_on(kind: Kind) {
    if let Some(file_system) = FileSystem::new(kind) {
        assert_equals_copy(&Module::on(&file_system));
    }
}

#[test]
fn a_snapshot_equals_a_hard_linked_copy_on_ext4() {
    only_hard_links!("a copy by cp --link");
    assert_equals_copy_on(Kind::Ext4);
}

#[test]
fn a_snapshot_equals_a_hard_linked_copy_on_xfs() {
    only_hard_links!("a copy by cp --link");
    assert_equals_copy_on(Kind::Xfs);
}

#[test]
fn a_snapshot_equals_a_hard_linked_copy_on_btrfs() {
    only_hard_links!("a copy by cp --link");
    assert_equals_copy_on(Kind::Btrfs);
}

#[test]
fn a_snapshot_equals_a_hard_linked_copy_on_tmpfs() {
    only_hard_links!("a copy by cp --link");
    assert_equals_copy_on(Kind::Tmpfs);
}

#[test]
fn a_snapshot_equals_a_hard_linked_copy_in_the_temporary_directory() {
    only_hard_links!("a copy by cp --link");
    let module = Module::new();
    assert_equals_copy(&module);
}

#[test]
fn a_tree_deeper_than_path_max_is_whole_and_expires() {
    let module = Module::new();
    // 200 levels of 41 bytes with their slashes are more than the 4096 bytes of PATH_MAX.
    tree::deep(&module.latest, 200, 40);
    let name = module.expect_snapshot();
    module.assert_equals_module(&name);
    assert_eq!(fingerprint::of(&module.snapshot(&name)).len(), 1 + 400);
    module.expect_no_snapshot();

    module.rename_to_the_past(&name, "2001-02-03T04-05-06Z");
    fs::remove_dir_all(module.latest.join(format!("{:040}", 0))).expect("removed");
    module.write_policy("[defaults]\nkeep = { daily = 1 }\nmin_keep = 1\n");
    let newest = module.expect_snapshot();
    assert_eq!(module.snapshots(), [newest]);
    module.run(&["rotate", "data", "--purge"]).exits(&[0]);
    assert_eq!(module.left_over("expired"), 0);
}

#[test]
fn a_thousand_levels_need_no_thousand_descriptors() {
    slow!();
    let module = Module::new();
    tree::deep(&module.latest, 1100, 3);
    let limited =
        Run::of(&mut module.hook_through(&["sh", "-c", "ulimit -n 256; exec \"$0\" \"$@\""]));
    limited.exits(&[0]);
    let name = module.snapshots().remove(0);
    // Read with as many descriptors as levels, which this process may not have.
    let levels = |directory: &Path| {
        let find = Run::of(tool("find").arg(directory).args(["-printf", "%y %f\n"])).exits(&[0]);
        find.stdout().lines().count()
    };
    assert_eq!(levels(&module.snapshot(&name)), 2201);

    module.rename_to_the_past(&name, "2001-02-03T04-05-06Z");
    tree::write(&module.latest.join("changed"), "x");
    module.write_policy("[defaults]\nkeep = { daily = 1 }\nmin_keep = 1\ngrace = \"0s\"\n");
    Run::of(&mut module.hook_through(&["sh", "-c", "ulimit -n 256; exec \"$0\" \"$@\""]))
        .exits(&[0]);
    assert_eq!(module.snapshots().len(), 1);

    // The next one is made out of the retired one.
    assert_eq!(module.left_over("expired"), 1);
    tree::write(&module.latest.join("changed again"), "x");
    Run::of(&mut module.hook_through(&["sh", "-c", "ulimit -n 64; exec \"$0\" \"$@\""]))
        .exits(&[0]);
    assert_eq!(levels(&module.snapshot(&module.snapshots().remove(1))), 2203);
    assert_eq!(module.left_over("expired"), 0);
}

/// Their names take more memory than a walk gives to one level, so it reads the directory more than
/// once.
#[test]
fn a_directory_with_very_many_subdirectories_is_linked_compared_and_removed() {
    slow!();
    let module = Module::new();
    let directory = |number: usize| module.latest.join(format!("{}{number:06}", "n".repeat(200)));
    // The program reads such a directory again for each few thousand of its subdirectories.
    let count = if is_full_sweep() { 21_000 } else { 9_000 };
    for number in 0..count {
        // In an order that is not that of their names.
        let directory = directory(number * 7_919 % count);
        fs::create_dir(&directory).expect("a directory");
        if number % 100 == 0 {
            fs::write(directory.join("file"), number.to_string()).expect("a file");
        }
    }
    module.write_policy(
        "[defaults]\nkeep = { yearly = 1 }\nmin_keep = 1\nmin_age = \"0s\"\ngrace = \"0s\"\nanomaly_share = \"100%\"\n",
    );
    let first = module.expect_snapshot();
    module.assert_equals_module(&first);
    module.expect_no_snapshot();

    // Found wherever it is, also where the directory is read for the third or fifth time.
    for number in [0, count / 2, count - 1] {
        tree::write(&directory(number).join("new"), "x");
        fs::remove_dir_all(directory(number ^ 1)).expect("removed");
    }
    let second = module.expect_snapshot();
    module.assert_equals_module(&second);
    let counts = &module.list()[1];
    assert_eq!(
        (&counts["added"], counts["removed"].as_u64() >= Some(3)),
        (&3.into(), true),
        "{counts}"
    );

    module.rename_to_the_past(&first, "2001-02-03T04-05-06Z");
    for number in 0..count / 2 {
        let _ = fs::remove_dir(directory(2 * number + 1));
    }
    let third = module.expect_snapshot();
    module.assert_equals_module(&third);
    module.run(&["rotate", "data", "--confirm", "--purge"]).exits(&[0]);
    assert_eq!((module.left_over("expired"), module.left_over("staging")), (0, 0));
}

/// The program holds 8 MiB of a directory's entries at a time, so it reads this one in two parts.
#[test]
fn a_directory_of_more_names_than_are_held_at_once_is_linked_compared_and_recycled() {
    slow!();
    let module = Module::new();
    let file = |number: usize| module.latest.join(format!("{}{number:06}", "n".repeat(240)));
    let count = 34_000;
    for number in 0..count {
        fs::write(file(number), "").expect("a file");
    }
    module.write_policy(
        "[defaults]\nkeep = { yearly = 1 }\nmin_keep = 1\nmin_age = \"0s\"\ngrace = \"0s\"\nanomaly_share = \"100%\"\n",
    );
    let first = module.expect_snapshot();
    module.assert_equals_module(&first);
    module.expect_no_snapshot();

    // Wherever the directory is divided, some of these are on either side.
    let mut names = vec![first];
    for push in 0..3 {
        for number in (push * 500..count).step_by(2_000) {
            fs::remove_file(file(number)).expect("removed");
            tree::write(&file(number + 1), "changed");
            tree::write(&file(count + number), "added");
        }
        let name = module.expect_snapshot();
        module.assert_equals_module(&name);
        let counts = module.list().last().expect("a snapshot").clone();
        let counts = ["added", "changed", "removed"].map(|key| counts[key].as_u64());
        // The module's own time has changed, too.
        assert_eq!(counts, [Some(17), Some(18), Some(17)], "push {push}");
        // The first one retires at the second push, and so on; the next push is made out of it.
        assert_eq!(module.left_over("expired"), usize::from(push > 0), "push {push}");
        let last = names.last().expect("the one before");
        module.rename_to_the_past(last, &format!("200{push}-02-03T04-05-06Z"));
        names.push(name);
    }
    assert_eq!(module.left_over("staging"), 0);
}

#[test]
fn the_umask_leaves_no_trace_and_our_own_directory_is_private() {
    for umask in ["000", "077", "777"] {
        let module = Module::new();
        tree::small(&module.latest);
        tree::set_mode(&module.latest.join("documents"), 0o777);
        tree::set_mode(&module.latest.join("documents/letters"), 0o750);
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");

        Run::of(&mut module.hook_through(&["sh", "-c", &script])).exits(&[0]);

        let name = module.snapshots().remove(0);
        module.assert_equals_module(&name);
        let mode = |path: &str| fs::metadata(module.private(path)).expect("ours").mode() & 0o7777;
        assert_eq!(mode("."), 0o700, "umask {umask}");
        for path in ["lock", "root.toml", "state.toml", "records", &format!("records/{name}.toml")]
        {
            assert_eq!(
                mode(path) & 0o022,
                0,
                "umask {umask}: others may write {path}: {:o}",
                mode(path)
            );
            assert_ne!(
                mode(path) & 0o400,
                0,
                "umask {umask}: we may not read {path}: {:o}",
                mode(path)
            );
        }
        module.expect_no_snapshot();
    }
}

#[test]
fn attributes_of_the_root_do_not_leak_into_the_snapshot() {
    if !root() {
        return;
    }
    let module = Module::new();
    tree::every_type(&module.latest);
    chown(&module.root, None, Some(1000)).expect("chown");
    tree::set_mode(&module.root, 0o2755);
    if !tree::set_attribute(&module.root, "system.posix_acl_default", &tree::acl(0o7, 0o5, 1000)) {
        skipped!("needs access control lists below {}", module.root.display());
        return;
    }

    let name = module.expect_snapshot();

    module.assert_equals_module(&name);
    assert_eq!(fs::metadata(module.private(".")).expect("ours").mode() & 0o777, 0o700);
    module.expect_no_snapshot();
}
