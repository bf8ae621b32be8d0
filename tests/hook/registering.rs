//! What registers a snapshot root, and which modules are worked on.

use crate::support;

use std::fs;
use std::path::{Path, PathBuf};

use support::daemon::{Daemon, source};
use support::module::{Module, visible};
use support::run::Run;
use support::subvolumes::{are_subvolumes, make_module_directory, remove_root};
use support::{have, is_root, tree};

/// Whether a root was made or registered in `directory`.
fn is_used(directory: &Path) -> bool {
    directory.join(".rsyncd-snapshot").exists()
}

#[test]
fn upkeep_registers_no_root() {
    let module = Module::new();
    tree::small(&module.latest);
    fs::create_dir(module.snapshot("2020-01-01T00-00-00Z")).expect("an adopted snapshot");
    for arguments in [
        &["verify", "data"][..],
        &["verify", "data", "--repair-attributes"],
        &["rotate", "data"],
        &["rotate", "data", "--confirm"],
        &["rotate", "data", "--purge"],
        &["rotate", "data", "--dry-run"],
        &["release", "data"],
        &["release", "data", "--torn"],
        &["release", "data", "--damage"],
        &["pin", "data", "2020-01-01T00-00-00Z"],
        &["unpin", "data", "2020-01-01T00-00-00Z"],
        &["undelete", "data", "2020-01-01T00-00-00Z"],
        &["list", "data"],
        &["list", "data", "--expired"],
        &["plan", "data"],
        &["check", "data"],
        &["check"],
        &["snapshot", "data", "--due"],
        &["snapshot", "--all"],
        &["verify", "--all"],
    ] {
        let run = module.run(arguments);
        assert!(!is_used(&module.root), "{run}");
        assert!(module.snapshot("2020-01-01T00-00-00Z").exists(), "{run}");
    }
    let run = module.run(&["verify", "data"]).exits(&[2]);
    run.says("never been used").says("rsyncd-snapshot snapshot MODULE");
    module.run(&["snapshot", "data"]).exits(&[0]);
    module.run(&["rotate", "data"]).exits(&[0, 4]);
}

#[test]
fn a_download_registers_no_root_with_either_hook() {
    if !have(&["rsync"]) {
        return;
    }
    for is_paired in [true, false] {
        let module = Module::new();
        tree::small(&module.latest);
        let more = if is_paired { "" } else { "read only = yes" };
        let section = match is_paired {
            true => Daemon::pair_section(&module, "data", &module.latest, more),
            false => {
                Daemon::section(&module, "data", &module.latest, "").replace("read only = no", more)
            }
        };
        let daemon = Daemon::start(&module, &section);
        daemon.pull("data/", &module.directory.join("restored")).exits(&[0]);
        daemon.list("data/").exits(&[0]);
        let hooks = daemon.await_hooks(2);
        assert!(hooks.iter().all(|hook| hook.exit == 0), "{hooks:?}");
        assert!(!is_used(&module.root), "paired: {is_paired}");
        let left = module.state_directory().join("transfers");
        for ledger in fs::read_dir(left).into_iter().flatten().flatten() {
            assert_eq!(
                support::module::names_in(&ledger.path()),
                [""; 0],
                "entries are struck out"
            );
        }
        // Hooks in the section of a module to which nothing can be pushed are a mistake.
        module.run(&["check", "data"]).exits(&[if is_paired { 0 } else { 2 }]);
        if is_paired {
            let source = source(&module);
            daemon.push(&source, "data", &[]).exits(&[0]);
            daemon.await_last_hook(3);
            assert_eq!(module.snapshots().len(), 1);
        }
    }
}

/// A server with the module `data`, and `above`, which holds its root, both with a snapshot if an
/// earlier version made it.
fn with_module_above(access: &str) -> (Module, PathBuf) {
    let module = Module::new();
    tree::small(&module.latest);
    let above = module.directory.join("offered/all");
    fs::create_dir_all(&above).expect("directories");
    let root = above.join("data");
    fs::rename(&module.root, &root).expect("moved");
    let module = Module { latest: root.join("latest"), root, ..module };
    let sections =
        [("data", &module.latest, "no"), ("above", &above, access)].map(|(name, path, only)| {
            let section = module.rsyncd_conf_section(name, path);
            section.replace("read only = no", &format!("read only = {only}"))
        });
    module.write_rsyncd_conf(&sections.concat());
    (module, above)
}

/// A snapshot of `data` from before `above` was in `rsyncd.conf`: then it is not refused.
fn snapshot_before_above(module: &Module) -> String {
    let conf = fs::read_to_string(&module.rsyncd_conf).expect("a configuration");
    module.write_rsyncd_conf(&module.rsyncd_conf_section("data", &module.latest));
    let name = module.expect_snapshot();
    module.write_rsyncd_conf(&conf);
    name
}

fn hook_above(module: &Module, above: &Path) -> Run {
    let mut hook = module.hook();
    Run::of(hook.env("RSYNC_MODULE_NAME", "above").env("RSYNC_MODULE_PATH", above))
}

#[test]
fn a_read_only_module_above_snapshots_is_left_alone_in_silence() {
    let (module, above) = with_module_above("yes");
    for is_known in [false, true] {
        let run = hook_above(&module, &above).exits(&[0]);
        assert_eq!(run.stderr(), "", "{is_known}: {run}");
        module.run(&["check", "above"]).exits(&[0]).says("read only");
        module.run_hook().exits(&[0]);
    }
    assert!(!is_used(&module.directory.join("offered")));
}

#[test]
fn a_module_that_holds_a_root_is_refused() {
    for forgets in [false, true] {
        let (module, above) = with_module_above("no");
        snapshot_before_above(&module);
        if forgets {
            fs::remove_dir_all(module.state_directory()).expect("forgotten");
        }
        let run = hook_above(&module, &above).exits(&[2]);
        run.says("above: ").says("holds the snapshot root");
        module.run(&["snapshot", "above"]).exits(&[2]).says("only to modules that clients push to");
        assert!(!is_used(&module.directory.join("offered")), "forgotten: {forgets}");
        assert!(
            module
                .run(&["check", "above"])
                .exits(&[2])
                .stdout()
                .contains("holds the snapshot root")
        );
        module.run_hook().exits(&[0]);
    }
}

#[test]
fn all_leaves_out_what_an_earlier_version_registered_and_says_why() {
    let (module, _) = with_module_above("no");
    let offered = module.directory.join("offered");
    // Registered before the other one was. Root is warned that users may change the snapshots.
    let run = module.run(&["snapshot", "above"]);
    match is_root() {
        true => run.exits(&[4]).says("chmod 0700"),
        false => run.exits(&[0]),
    };
    assert_eq!(visible(&offered).len(), 2, "the module and a snapshot");
    fs::rename(offered.join(".rsyncd-snapshot"), offered.join("aside")).expect("moved");
    snapshot_before_above(&module);
    fs::rename(offered.join("aside"), offered.join(".rsyncd-snapshot")).expect("moved");
    for command in ["snapshot", "verify", "rotate"] {
        let run = module.run(&[command, "--all"]).exits(&[4]);
        run.says("above: skipped: ").says("holds the snapshot root");
    }
    module.run(&["verify", "above"]).exits(&[2]).says("remove ");
    assert_eq!(visible(&offered).len(), 2);
    assert!(
        module.run(&["check", "above"]).exits(&[2]).stdout().contains("holds the snapshot root")
    );
    let check = module.run(&["check", "data"]);
    assert!(!check.stdout().contains("holds the snapshot root"), "{check}");
}

#[test]
fn a_read_only_module_gets_snapshots_only_by_its_directory() {
    let module = Module::new();
    tree::small(&module.latest);
    let section = module.rsyncd_conf_section("data", &module.latest);
    module.write_rsyncd_conf(&section.replace("read only = no", "read only = yes"));
    module.run_hook().exits(&[0]);
    module.run(&["snapshot", "data"]).exits(&[2]).says("read only").says("name its directory");
    assert!(!is_used(&module.root));
    module.run(&["snapshot", module.latest.to_str().expect("text")]).exits(&[0]);
    assert_eq!(module.snapshots().len(), 1);
    // That has made it a module like others, but for its clients.
    for arguments in [&["snapshot", "data"][..], &["snapshot", "--all"]] {
        tree::write(&module.latest.join("more"), arguments[1]);
        let before = module.snapshots().len();
        module.run(arguments).exits(&[0]);
        assert_eq!(module.snapshots().len(), before + 1, "{arguments:?}");
    }
    tree::write(&module.latest.join("more"), "by no push");
    module.run_hook().exits(&[0]);
    assert_eq!(module.snapshots().len(), 3, "a reader's hook takes none");
}

#[test]
fn a_module_within_a_snapshot_is_refused() {
    let (module, name) = Module::with_snapshot();
    let inside = module.snapshot(&name).join("documents");
    let mut hook = module.hook();
    let run = Run::of(hook.env("RSYNC_MODULE_NAME", "inside").env("RSYNC_MODULE_PATH", &inside));
    run.exits(&[2]).says("part of the snapshots in");
    assert!(!is_used(&module.snapshot(&name)));
}

#[test]
fn a_copy_of_another_machine_s_root_is_backed_up_like_any_directory() {
    let module = Module::new();
    let copied = module.latest.join("laptop/.rsyncd-snapshot");
    fs::create_dir_all(&copied).expect("directories");
    fs::write(
        copied.join("root.toml"),
        "format = 1\nmodule = \"laptop\"\npath = \"/srv/backup/laptop/latest\"\n",
    )
    .expect("a registration");
    module.expect_snapshot();
}

#[test]
fn a_new_root_in_a_module_without_a_root_is_refused() {
    for forgets in [false, true] {
        let (module, above) = with_module_above("no");
        let refused = "inside the directory";
        module.run_hook().exits(&[2]).says(refused).says("module 'above'");
        module.run(&["snapshot", "data"]).exits(&[2]).says("make it `read only`");
        let path = module.latest.to_str().expect("UTF-8");
        module.run(&["snapshot", path]).exits(&[2]).says(refused);
        module.run(&["check", "data"]).exits(&[2]).says(refused);
        assert!(!is_used(&module.root));
        // The push itself goes on, and the outer module gets its snapshots.
        Run::of(&mut module.gate_through(&[""; 0])).exits(&[0]).says(refused);
        // A subvolume in it is left out, which is told.
        let status = if are_subvolumes() { 4 } else { 0 };
        hook_above(&module, &above).exits(&[status]);
        if forgets {
            fs::remove_dir_all(module.state_directory()).expect("forgotten");
        }
        module.run_hook().exits(&[2]);
        hook_above(&module, &above).exits(&[0]);

        // A root outside of every module is the remedy.
        let elsewhere = module.directory.join("elsewhere");
        module
            .write_policy(&format!("[module.data]\nsnapshot_root = \"{}\"\n", elsewhere.display()));
        module.run_hook().exits(&[0]);
        assert_eq!(visible(&elsewhere).len(), 1, "forgotten: {forgets}");
    }
}

#[test]
fn modules_without_hooks_keep_no_root_away() {
    let (module, _) = with_module_above("no");
    let conf = fs::read_to_string(&module.rsyncd_conf).expect("a configuration");
    let (data, above) = conf.split_once("[above]").expect("both modules");
    let unhooked: Vec<&str> = above.lines().filter(|line| !line.starts_with("post-xfer")).collect();
    module.write_rsyncd_conf(&format!("{data}[above]{}\n", unhooked.join("\n")));
    module.run_hook().exits(&[0]);
    module.run(&["check", "data"]).exits(&[2]).says("clients of module 'above' can write");
}

#[test]
fn a_new_root_above_a_module_named_like_a_snapshot_is_refused() {
    let module = Module::new();
    let dated = module.snapshot("2020-01-01T00-00-00Z");
    tree::small(&module.latest);
    tree::small(&dated);
    let sections = [("data", &module.latest), ("dated", &dated)]
        .map(|(n, p)| module.rsyncd_conf_section(n, p));
    module.write_rsyncd_conf(&sections.concat());
    module.run_hook().exits(&[2]).says("module 'dated' under the name of a snapshot");
    assert!(!is_used(&module.root));
}

#[test]
fn a_new_root_in_another_module_is_refused() {
    let (module, _) = Module::with_snapshot();
    let inner = module.latest.join("inner/latest");
    tree::small(&inner);
    let mut hook = module.hook();
    let run = Run::of(hook.env("RSYNC_MODULE_NAME", "inner").env("RSYNC_MODULE_PATH", &inner));
    run.exits(&[2]).says("inside the module directory");
    assert!(!is_used(&module.latest.join("inner")));
}

/// A server whose module `home` has a directory for each user.
fn home(module: &Module) -> impl Fn(&str) -> PathBuf {
    let path = module.directory.join("homes/%RSYNC_USER_NAME%/latest");
    module.write_rsyncd_conf(&module.rsyncd_conf_section("home", &path));
    let homes = module.directory.join("homes");
    move |user: &str| homes.join(user).join("latest")
}

fn hook_of(module: &Module, path: &Path, user: &str) -> Run {
    let mut hook = module.hook();
    hook.env("RSYNC_MODULE_NAME", "home")
        .env("RSYNC_MODULE_PATH", path)
        .env("RSYNC_USER_NAME", user);
    Run::of(&mut hook)
}

#[test]
fn directories_that_only_the_hooks_know_are_walked() {
    let module = Module::new();
    let home = home(&module);
    let named = "home: skipped, for this machine remembers no push";
    module.run(&["snapshot", "--all"]).exits(&[0]).says(named).says("%RSYNC_USER_NAME%");
    module.run(&["check"]).exits(&[0]).says("this machine remembers no push");
    module.run(&["check", "home"]).exits(&[0]).says("this machine remembers no push");
    let labels: Vec<String> = ["anna", "bert"]
        .map(|user| {
            tree::small(&home(user));
            tree::set_mode(home(user).parent().expect("a root"), 0o700);
            hook_of(&module, &home(user), user).exits(&[0]);
            format!("home ({})", home(user).display())
        })
        .into();
    for arguments in [
        &["list"][..],
        &["list", "--all"],
        &["list", "home"],
        &["list", "--expired"],
        &["plan", "--all"],
        &["verify", "--all"],
        &["verify", "home"],
        &["rotate", "--all"],
        &["rotate", "--all", "--dry-run"],
        &["release", "--all"],
        &["check"],
        &["check", "home"],
    ] {
        let run = module.run(arguments).exits(&[0]);
        for label in &labels {
            assert!(run.stdout().contains(label.as_str()), "{label}: {run}");
        }
        assert!(!run.stderr().contains("skipped"), "{run}");
    }
    for user in ["anna", "bert"] {
        tree::write(&home(user).join("more"), user);
    }
    module.run(&["snapshot", "--all"]).exits(&[0]);
    for user in ["anna", "bert"] {
        assert_eq!(visible(home(user).parent().expect("a root")).len(), 2, "{user}");
    }
    let name = visible(home("anna").parent().expect("a root")).remove(0);
    let list = module.json(&["list", "--all", "--json"]);
    assert_eq!(list.as_array().map(Vec::len), Some(2), "{list}");
    module.run(&["pin", home("anna").to_str().expect("text"), &name]).exits(&[0]);
}

#[test]
fn a_directory_that_fails_or_is_lost_is_told_by_check() {
    let module = Module::new();
    let home = home(&module);
    for user in ["anna", "bert"] {
        tree::small(&home(user));
    }
    tree::set_mode(home("anna").parent().expect("a root"), 0o777);
    hook_of(&module, &home("anna"), "anna").exits(&[2]);
    let check = module.run(&["check"]).exits(&[2]);
    assert!(check.stdout().contains(&home("anna").display().to_string()), "{check}");
    tree::set_mode(home("anna").parent().expect("a root"), 0o700);

    hook_of(&module, &home("bert"), "bert").exits(&[0]);
    fs::remove_dir_all(home("bert").parent().expect("a root")).expect("removed");
    let check = module.run(&["check"]).exits(&[2]).stdout();
    assert!(check.contains("if this directory was given up, remove "), "{check}");
    for command in [&["rotate", "--all"][..], &["list", "--all"]] {
        let run = module.run(command);
        assert!(!run.succeeded(), "{run}");
        run.says(&format!("home ({}): skipped, for it has no snapshots", home("anna").display()))
            .says("writable by others");
    }
    let forget = check.split("given up, remove ").nth(1).and_then(|rest| rest.lines().next());
    let forget = forget.expect("a file");
    fs::remove_file(forget).expect("the file that was named");
    module.run(&["rotate", "--all"]).exits(&[4]).says("has no snapshots");
}

#[test]
fn directories_whose_memory_is_lost_are_found_by_their_roots() {
    let module = Module::new();
    let home = home(&module);
    for user in ["anna", "bert"] {
        tree::small(&home(user));
        tree::set_mode(home(user).parent().expect("a root"), 0o700);
        hook_of(&module, &home(user), user).exits(&[0]);
    }
    // A user without a root, a directory of another module, and a file.
    fs::create_dir_all(home("carl")).expect("a directory");
    let other = home("other").parent().expect("a root").join(".rsyncd-snapshot");
    fs::create_dir_all(&other).expect("a directory");
    let path = home("other").display().to_string();
    fs::write(other.join("root.toml"), format!("format = 1\nmodule = \"x\"\npath = \"{path}\"\n"))
        .expect("a registration");
    fs::write(module.directory.join("homes/file"), "x").expect("a file");
    fs::remove_dir_all(module.state_directory()).expect("forgotten");

    let labels = ["anna", "bert"].map(|user| format!("home ({})", home(user).display()));
    for arguments in
        [&["list"][..], &["list", "home"], &["check"], &["check", "home"], &["plan", "--all"]]
    {
        let run = module.run(arguments).exits(&[i32::from(arguments[0] == "check")]);
        for label in &labels {
            assert!(run.stdout().contains(label.as_str()), "{label}: {run}");
        }
        assert!(!run.stdout().contains("carl") && !run.stdout().contains("other"), "{run}");
        assert!(!run.stderr().contains("skipped"), "{run}");
    }
    module.run(&["check"]).exits(&[1]).says("has lost what it remembered of this directory");
    fs::remove_dir_all(home("bert")).expect("given up");
    let check = module.run(&["check"]).exits(&[2]);
    let given_up = home("bert").parent().expect("a root").join(".rsyncd-snapshot");
    check.says(&format!("if this directory was given up, remove {}", given_up.display()));
    fs::remove_dir_all(given_up).expect("removed");

    module.run(&["rotate", "--all"]).exits(&[0]);
    module.run(&["check"]).exits(&[0]);
}

#[test]
fn directories_that_share_a_root_are_told_what_the_path_has_to_be() {
    let module = Module::new();
    let path = module.directory.join("homes/%RSYNC_USER_NAME%");
    module.write_rsyncd_conf(&module.rsyncd_conf_section("home", &path));
    let homes = module.directory.join("homes");
    for user in ["anna", "bert"] {
        tree::small(&homes.join(user));
    }
    tree::set_mode(&homes, 0o700);
    hook_of(&module, &homes.join("anna"), "anna").exits(&[0]);
    let run = hook_of(&module, &homes.join("bert"), "bert").exits(&[2]);
    run.says("its directories cannot share a root").says("%RSYNC_USER_NAME%/latest");
}

#[test]
fn a_timer_tells_a_module_whose_root_is_another_one_s() {
    let (module, _) = Module::with_snapshot();
    let second = module.root.join("second");
    make_module_directory(&second);
    tree::small(&second);
    let sections = [("data", &module.latest), ("second", &second)];
    let sections = sections.map(|(name, path)| module.rsyncd_conf_section(name, path));
    module.write_rsyncd_conf(&sections.concat());
    module.run(&["snapshot", "second", "--due"]).exits(&[2]).says("is registered for the module");
    module.run(&["snapshot", "data", "--due"]).exits(&[0]);
}

#[test]
fn a_missing_module_directory_has_one_status_in_all_commands() {
    let (module, name) = Module::with_snapshot();
    let homes = home(&module);
    tree::small(&homes("anna"));
    tree::set_mode(homes("anna").parent().expect("a root"), 0o700);
    hook_of(&module, &homes("anna"), "anna").exits(&[0]);
    let conf = fs::read_to_string(&module.rsyncd_conf).expect("a configuration");
    module.write_rsyncd_conf(&(module.rsyncd_conf_section("data", &module.latest) + &conf));
    fs::rename(&module.latest, module.root.join("aside")).expect("renamed");
    fs::rename(homes("anna"), homes("anna").with_file_name("aside")).expect("renamed");
    for arguments in [
        &["snapshot", "data"][..],
        &["snapshot", "data", "--due"],
        &["snapshot", "--all"],
        &["rotate", "data"],
        &["rotate", "--all"],
        &["rotate", "home"],
    ] {
        module.run(arguments).exits(&[1]).says("module directory");
    }
    // Snapshots alone are enough for these.
    for arguments in [
        &["plan", "data"][..],
        &["list", "data"],
        &["list", "home"],
        &["list"],
        &["verify", "data"],
        &["pin", "data", &name],
    ] {
        module.run(arguments).exits(&[0]);
    }
    module.run_hook().exits(&[1]);
    for arguments in [&["check", "data"][..], &["check", "home"], &["check"]] {
        module.run(arguments).exits(&[2]).says("CRITICAL");
    }
}

#[test]
fn a_module_that_left_rsyncd_conf_is_still_walked() {
    let (module, name) = Module::with_snapshot();
    module.write_rsyncd_conf("");
    assert!(module.run(&["list"]).exits(&[0]).stdout().contains(&name));
    module.run(&["rotate", "--all"]).exits(&[0]).says("left as it is");
    let listed = module.run(&["list"]).exits(&[0]);
    assert!(listed.stdout().contains(&name), "{listed}");
    remove_root(&module.root);
    module.run(&["rotate", "--all"]).exits(&[0]);
}

#[test]
fn a_push_that_could_delete_snapshots_is_turned_away() {
    let (module, above) = with_module_above("no");
    let snapshot = snapshot_before_above(&module);
    let inside = module.snapshot(&snapshot);
    for (name, path) in [("above", &above), ("inside", &inside)] {
        let mut gate = module.gate_through(&[""; 0]);
        gate.env("RSYNC_MODULE_NAME", name).env("RSYNC_MODULE_PATH", path);
        let run = Run::of(&mut gate);
        assert!(!run.succeeded(), "{run}");
        assert!(run.stdout().contains("reaches snapshots of another one"), "{run}");
    }
    // A module within another one gets no snapshots, but its clients keep their backups.
    let inner = module.latest.join("inner/latest");
    tree::small(&inner);
    let mut gate = module.gate_through(&[""; 0]);
    gate.env("RSYNC_MODULE_NAME", "inner").env("RSYNC_MODULE_PATH", &inner);
    Run::of(&mut gate).exits(&[0]).says("inside the module directory");
}

#[test]
fn a_root_in_the_snapshots_of_another_module_is_refused() {
    let (module, snapshot) = Module::with_snapshot();
    let other = module.directory.join("other/latest");
    tree::small(&other);
    for place in [module.snapshot(&snapshot), module.private("staging")] {
        module.write_policy(&format!("[defaults]\nsnapshot_root = \"{}\"\n", place.display()));
        let other = other.to_str().expect("UTF-8");
        module.run(&["snapshot", other]).exits(&[2]).says("would go when they expire");
    }
}

#[test]
fn relative_paths_and_daemon_chroots_are_walked_too() {
    for (above, path) in [("", "homes/latest"), ("daemon chroot = /elsewhere\n", "/homes/latest")] {
        let module = Module::new();
        tree::small(&module.latest);
        module.write_rsyncd_conf(&format!("{above}[data]\npath = {path}\nread only = no\n"));
        let run = module.run(&["list"]).exits(&[0]);
        assert!(
            run.stderr().contains("data: skipped, for this machine remembers no push"),
            "{run}"
        );
        let name = module.expect_snapshot();
        for arguments in [&["list"][..], &["list", "data"]] {
            assert!(module.run(arguments).exits(&[0]).stdout().contains(&name), "{path}");
        }
    }
}
