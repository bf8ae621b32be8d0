//! Which snapshot roots are refused, and what happens to mounts inside a module.

use crate::support;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use support::file_system::Mount;
use support::module::{Module, visible};
use support::run::{Run, tool};
use support::subvolumes::make_module_directory;
use support::{fingerprint, have, may_mount, tree};

/// Runs the hook, which must refuse with exit 2, naming a remedy with one of `words` in it,
/// and must leave the root as it was.
#[track_caller]
fn expect_refusal(module: &Module, words: &[&str]) {
    let before = fingerprint::of(&module.root);
    let run = module.run_hook().exits(&[2]);
    let said = run.stderr().to_lowercase();
    assert!(words.iter().any(|word| said.contains(word)), "none of {words:?} in: {run}");
    fingerprint::assert_equal(
        &before,
        &fingerprint::of(&module.root),
        "the refused root before and after",
    );
    let check = module.run(&["check", "data"]);
    assert!(matches!(check.code(), Some(1 | 2)), "a refusal has to show: {check}");
}

fn module() -> Module {
    let module = Module::new();
    tree::small(&module.latest);
    module
}

#[test]
fn a_root_that_others_may_write_is_refused() {
    for mode in [0o777, 0o1777, 0o757] {
        let module = module();
        tree::set_mode(&module.root, mode);
        expect_refusal(&module, &["writable", "write"]);
        tree::set_mode(&module.root, 0o700);
        module.expect_snapshot();
        module.run(&["check", "data"]).exits(&[0]);
    }
}

#[test]
fn a_root_that_is_a_file_or_in_one_is_told_as_that() {
    let module = module();
    let file = module.directory.join("file");
    fs::write(&file, "x").expect("a file");
    for (root, problem) in [
        (file.clone(), "is not a directory; move that file away".to_string()),
        (file.join("root"), format!("{} is not a directory", file.display())),
    ] {
        module.write_policy(&format!("[defaults]\nsnapshot_root = \"{}\"\n", root.display()));
        for arguments in [&["snapshot", "data"][..], &["list", "data"], &["check", "data"]] {
            module.run(arguments).exits(&[2]).says(&problem).says("`snapshot_root`");
        }
        module.run_hook().exits(&[2]).says(&problem);
    }
}

/// Opening a pipe would wait for its writer.
#[test]
fn what_is_in_the_place_of_our_directories_is_told_and_not_waited_for() {
    let module = module();
    let private = module.private("");
    let private = private.as_path();
    let name = private.display().to_string();
    let name = name.trim_end_matches('/');
    for (make, kind) in [
        (format!("echo x > {name}"), "is a file, and not the directory of this program"),
        (format!("mkfifo {name}"), "is a pipe"),
        (format!("ln -s /no/such {name}"), "is a symbolic link"),
        (format!("mkdir {name}.aside; ln -s {name}.aside {name}"), "is a symbolic link"),
    ] {
        Run::of(tool("sh").args(["-c", &make])).exits(&[0]);
        for arguments in [&["snapshot", "data"][..], &["list", "data"], &["check", "data"]] {
            let run = module.run(arguments).exits(&[2]).says(kind);
            run.says(&format!("`mv {name} {name}.other`"));
        }
        Run::of(tool("sh").args(["-c", &format!("mv {name} {name}.other")])).exits(&[0]);
        module.run(&["snapshot", "data"]).exits(&[0, 4]);
        Run::of(tool("rm").arg("-rf").args([name, &format!("{name}.other")])).exits(&[0]);
    }
    for directory in [module.state_directory(), module.runtime_directory()] {
        fs::remove_dir_all(&directory).expect("removed");
        Run::of(tool("mkfifo").arg(&directory)).exits(&[0]);
    }
    module.run(&["snapshot", "data"]).exits(&[0, 4]);
    module.run(&["check", "data"]);
}

#[test]
fn commands_in_messages_quote_paths_with_blanks() {
    let server = support::server::Server::new();
    let root = server.directory.join("it's a root");
    let latest = root.join("latest");
    tree::small(&latest);
    let module = Module { server, root, latest };
    module.write_rsyncd_conf(&module.rsyncd_conf_section("data", &module.latest));
    tree::set_mode(&module.root, 0o777);
    let quoted = module.root.display().to_string().replace('\'', "'\\''");
    module.run_hook().exits(&[2]).says(&format!("chmod go-w '{quoted}'"));
}

#[test]
fn a_root_that_users_may_enter_is_warned_about_with_the_command() {
    if !support::root() {
        return;
    }
    for (mode, group) in [(0o755, 0), (0o711, 0), (0o750, 1000)] {
        let module = module();
        std::os::unix::fs::chown(&module.root, None, Some(group)).expect("chown");
        tree::set_mode(&module.root, mode);
        let chmod = format!("chmod 0700 {}", module.root.display());
        module.run_hook().exits(&[0]).says("data: users who own directories").says(&chmod);
        tree::write(&module.latest.join("new"), "by hand");
        module.run(&["snapshot", "data"]).exits(&[4]).says("warning: ").says(&chmod);
        module.run(&["check", "data"]).exits(&[1]).says(&chmod);

        // A directory above that only root may enter protects the root, too.
        tree::set_mode(&module.directory, 0o700);
        module.run(&["check", "data"]).exits(&[0]);
        tree::set_mode(&module.directory, 0o755);

        module.write_policy("[defaults]\nopen_root = true\n");
        module.run(&["check", "data"]).exits(&[0]);
        tree::write(&module.latest.join("more"), "x");
        let run = module.run_hook().exits(&[0]);
        assert!(!run.stderr().contains("users who own"), "{run}");

        module.write_policy("[defaults]\n");
        tree::set_mode(&module.root, 0o700);
        module.run(&["check", "data"]).exits(&[0]);
    }
}

#[test]
fn a_root_that_a_run_makes_is_closed_to_users() {
    let module = module();
    let roots = module.directory.join("roots");
    fs::create_dir(&roots).expect("a directory");
    tree::set_mode(&roots, 0o2755);
    module
        .write_policy(&format!("[defaults]\nsnapshot_root = \"{}/{{module}}\"\n", roots.display()));
    let mut hook = module.hook_through(&["sh", "-c", "umask 000 && exec \"$0\" \"$@\""]);
    Run::of(&mut hook).exits(&[0]);
    assert_eq!(fs::metadata(roots.join("data")).expect("a root").mode() & 0o777, 0o700);
    module.run(&["check", "data"]).exits(&[0]);
}

#[test]
fn the_root_directory_of_the_machine_is_refused() {
    if !may_mount() {
        return;
    }
    let module = module();
    // In a mount namespace of its own the scratch directory becomes `/`, with the libraries
    // bound into it, so that a program that does not refuse does no harm.
    let script = "
        cd \"$1\" && shift
        for directory in usr lib lib64 bin; do
            [ -e /$directory ] && mkdir $directory && mount --bind /$directory $directory
        done
        cp \"$1\" program && shift
        exec chroot . /program \"$@\"";
    let directory = module.directory.to_str().expect("UTF-8");
    let mut hook =
        module.hook_through(&["unshare", "--mount", "sh", "-e", "-c", script, "sh", directory]);
    fs::rename(&module.latest, module.directory.join("latest")).expect("moved");
    // The paths as they are inside.
    hook.env("RSYNC_MODULE_PATH", "/latest")
        .env("RSYNCD_SNAPSHOT_STATE_DIRECTORY", "/state")
        .env("RSYNCD_SNAPSHOT_RUNTIME_DIRECTORY", "/run");
    for path in [&module.policy, &module.rsyncd_conf] {
        let inside = module.directory.join(path.strip_prefix("/").expect("absolute"));
        fs::create_dir_all(inside.parent().expect("a parent")).expect("directories");
        fs::copy(path, inside).expect("a copy");
    }
    let run = Run::of(&mut hook).exits(&[2]);
    assert!(run.stderr().contains("'/'") || run.stderr().contains("snapshot_root"), "{run}");
    assert!(!module.directory.join(".rsyncd-snapshot").exists(), "{run}");
}

#[test]
fn a_root_inside_the_module_is_refused() {
    for inside in ["", "/snapshots", "/documents/letters"] {
        let module = module();
        fs::create_dir(module.latest.join("snapshots")).expect("a directory");
        let root = format!("{}{inside}", module.latest.display());
        module.write_policy(&format!("[defaults]\nsnapshot_root = \"{root}\"\n"));
        expect_refusal(&module, &["inside", "module"]);
    }
}

#[test]
fn a_module_deeper_in_its_root_is_refused() {
    let module = module();
    module
        .write_policy(&format!("[defaults]\nsnapshot_root = \"{}\"\n", module.directory.display()));
    let before = visible(&module.directory);
    module.run_hook().exits(&[2]);
    assert_eq!(visible(&module.directory), before);
    assert!(!module.directory.join(".rsyncd-snapshot").exists());
}

#[test]
fn a_root_of_another_module_is_refused() {
    let (module, name) = Module::with_snapshot();
    let other = module.root.join("other");
    make_module_directory(&other);
    tree::small(&other);
    tree::write(&other.join("more"), "x");
    let run =
        Run::of(module.hook().env("RSYNC_MODULE_PATH", &other).env("RSYNC_MODULE_NAME", "other"))
            .exits(&[2]);
    assert!(run.stderr().contains("snapshot_root"), "{run}");
    assert_eq!(visible(&module.root), [name.as_str(), "other"]);

    // The remedy works.
    let roots = module.directory.join("roots");
    fs::create_dir_all(roots.join("other")).expect("directories");
    module.write_policy(&format!(
        "[module.other]\nsnapshot_root = \"{}/{{module}}\"\n",
        roots.display()
    ));
    Run::of(module.hook().env("RSYNC_MODULE_PATH", &other).env("RSYNC_MODULE_NAME", "other"))
        .exits(&[0]);
    assert_eq!(visible(&roots.join("other")).len(), 1);
    assert_eq!(visible(&module.root), [name.as_str(), "other"]);
}

#[test]
fn snapshot_root_replaces_the_modules_name() {
    let module = module();
    let roots = module.directory.join("elsewhere");
    fs::create_dir_all(roots.join("data")).expect("directories");
    module
        .write_policy(&format!("[defaults]\nsnapshot_root = \"{}/{{module}}\"\n", roots.display()));

    module.run_hook().exits(&[0]);

    let names = visible(&roots.join("data"));
    assert_eq!(names.len(), 1, "{names:?}");
    fingerprint::assert_same(&module.latest, &roots.join("data").join(&names[0]));
    assert!(module.snapshots().is_empty());
    assert!(!module.private(".").exists());
    let listed = module.json(&["list", "--json", "data"]);
    assert_eq!(listed["snapshot_root"], format!("{}/data", roots.display()));
}

#[test]
fn a_private_directory_that_is_not_ours_is_refused() {
    let module = module();
    let private = module.root.join(".rsyncd-snapshot");

    symlink(module.directory.join("state"), &private).expect("a symlink");
    expect_refusal(&module, &[".rsyncd-snapshot"]);
    fs::remove_file(&private).expect("removed");

    symlink("latest/documents", &private).expect("a symlink into the module");
    expect_refusal(&module, &[".rsyncd-snapshot"]);
    fs::remove_file(&private).expect("removed");

    fs::write(&private, "a file").expect("a file");
    expect_refusal(&module, &[".rsyncd-snapshot"]);
    fs::remove_file(&private).expect("removed");

    for mode in [0o755, 0o770, 0o701] {
        fs::create_dir(&private).expect("a directory");
        tree::set_mode(&private, mode);
        expect_refusal(&module, &["0700", "mode", "chmod"]);
        fs::remove_dir(&private).expect("removed");
    }

    module.expect_snapshot();
    assert_eq!(fs::metadata(&private).expect("ours").mode() & 0o7777, 0o700);
}

#[test]
fn a_private_directory_of_another_user_is_refused() {
    if !support::root() {
        return;
    }
    let module = module();
    let private = module.root.join(".rsyncd-snapshot");
    fs::create_dir(&private).expect("a directory");
    tree::set_mode(&private, 0o700);
    std::os::unix::fs::chown(&private, Some(1000), None).expect("chown");
    expect_refusal(&module, &[".rsyncd-snapshot"]);
}

#[test]
fn a_module_at_a_mount_point_is_refused() {
    let module = Module::new();
    let Some(_mount) = Mount::tmpfs(&module.latest) else { return };
    tree::small(&module.latest);
    expect_refusal(&module, &["file system", "mount"]);
}

#[test]
fn a_module_that_is_a_bind_mount_is_refused() {
    let module = Module::new();
    let elsewhere = module.directory.join("elsewhere");
    tree::small(&elsewhere);
    let Some(_mount) = Mount::bind(&elsewhere, &module.latest) else { return };
    expect_refusal(&module, &["file system", "mount"]);
}

#[test]
fn a_mount_inside_the_module_is_skipped_and_reported() {
    let module = module();
    let elsewhere = module.directory.join("elsewhere");
    fs::create_dir(&elsewhere).expect("a directory");
    fs::write(elsewhere.join("not backed up"), "x").expect("a file");
    for name in ["other file system", "bind"] {
        fs::create_dir_all(module.latest.join("mounts").join(name)).expect("mount points");
    }
    let Some(_tmpfs) = Mount::tmpfs(&module.latest.join("mounts/other file system")) else {
        return;
    };
    let Some(_bind) = Mount::bind(&elsewhere, &module.latest.join("mounts/bind")) else { return };
    tree::write(&module.latest.join("mounts/other file system/not backed up"), "x");

    let run = module.run_hook().exits(&[4]);
    assert!(run.stderr().contains("mounts/bind"), "{run}");
    let names = module.snapshots();
    let found = fingerprint::contents(&module.snapshot(&names[0]));
    assert!(!found.keys().any(|path| path.ends_with("not backed up")), "{found:?}");
    assert!(found.keys().any(|path| path.ends_with("letters/to you")), "{found:?}");
    let listed = module.list()[0]["skipped_mounts"].clone();
    let mut skipped: Vec<_> =
        listed.as_array().expect("a list").iter().filter_map(|path| path.as_str()).collect();
    skipped.sort_unstable();
    assert_eq!(skipped, ["mounts/bind", "mounts/other file system"]);

    tree::write(&module.latest.join("mounts/other file system/more"), "x");
    fs::write(elsewhere.join("more"), "x").expect("a file");
    module.run_hook().exits(&[0, 4]);
    assert_eq!(module.snapshots(), names, "what happens on a skipped mount is no change");
    module.run(&["check", "data"]).exits(&[0, 1]);

    tree::write(&module.latest.join("mounts/beside"), "x");
    module.run_hook().exits(&[4]);
    assert_eq!(module.snapshots().len(), 2);
}

#[test]
fn mounts_are_skipped_also_where_the_kernel_has_no_openat2() {
    if !have(&["strace"]) {
        return;
    }
    let module = module();
    let elsewhere = module.directory.join("elsewhere");
    fs::create_dir(&elsewhere).expect("a directory");
    fs::write(elsewhere.join("not backed up"), "x").expect("a file");
    let (tmpfs, bind) = (module.latest.join("tmpfs"), module.latest.join("bind"));
    fs::create_dir(&tmpfs).expect("a mount point");
    fs::create_dir(&bind).expect("a mount point");
    let Some(_tmpfs) = Mount::tmpfs(&tmpfs) else { return };
    let Some(_bind) = Mount::bind(&elsewhere, &bind) else { return };
    tree::write(&tmpfs.join("not backed up"), "x");

    let old_kernel =
        ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=openat2:error=ENOSYS"];
    Run::of(&mut module.hook_through(&old_kernel)).exits(&[4]);

    let name = module.snapshots().remove(0);
    let found = fingerprint::contents(&module.snapshot(&name));
    assert!(!found.keys().any(|path| path.ends_with("not backed up")), "{found:?}");
    assert_eq!(
        module.list()[0]["skipped_mounts"].as_array().map(Vec::len),
        Some(2),
        "{:?}",
        module.list()
    );
}

#[test]
fn a_root_half_made_by_a_killed_run_is_new() {
    for rooms in [&[][..], &["records"], &["records", "index", "staging", "expired", "transfers"]] {
        let module = module();
        fs::create_dir(module.private("")).expect("our directory");
        tree::set_mode(&module.private(""), 0o700);
        rooms.iter().for_each(|room| fs::create_dir(module.private(room)).expect("a room"));
        assert_eq!(module.list(), [""; 0], "{rooms:?}");
        for command in ["list", "plan"] {
            module.run(&[command, "data"]).exits(&[0]);
        }
        module.run(&["list", "--expired", "data"]).exits(&[0]);
        module.run(&["rotate", "--dry-run", "data"]).exits(&[0]);
        let check = module.run(&["check", "data"]);
        assert!(!check.stderr().contains("os error"), "{check}");
        module.expect_snapshot();
        module.run(&["check", "data"]).exits(&[0]);
    }
}

#[test]
fn in_place_is_refused_while_any_earlier_root_holds_snapshots() {
    slow!();
    only_hard_links!("options that write in place");
    if !have(&["rsync"]) {
        return;
    }
    let module = Module::new();
    let source = support::daemon::source(&module);
    let daemon = support::daemon::Daemon::of_pair(&module);
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_last_hook(1);
    let first = module.snapshot(&module.snapshots().remove(0));
    let before = fingerprint::of(&first);
    let mut hooks = 1;
    // Twice, so that the first root is no longer the last one that was used.
    for number in 0..3 {
        let root = module.directory.join(format!("root {number}"));
        fs::create_dir(&root).expect("a root");
        module.write_policy(&format!("[defaults]\nsnapshot_root = \"{}\"\n", root.display()));
        tree::write(&source.join("documents/report"), &format!("rewritten {number}\n"));
        let run = daemon.push(&source, "data", &["--inplace"]).says("--inplace would rewrite");
        assert!(!run.succeeded(), "{run}");
        daemon.push(&source, "data", &[]).exits(&[0]);
        hooks += 2;
        daemon.await_hooks(hooks);
        if number == 1 {
            fs::remove_dir_all(&root).expect("removed");
        }
    }
    fingerprint::assert_equal(&before, &fingerprint::of(&first), "the first snapshot");
}

#[test]
fn in_place_is_refused_where_files_have_other_names() {
    only_hard_links!("options that write in place");
    if !have(&["rsync"]) {
        return;
    }
    let module = Module::new();
    let source = support::daemon::source(&module);
    let daemon = support::daemon::Daemon::of_pair(&module);
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_last_hook(1);
    // The snapshot is where no memory leads to, and the memory is gone.
    let moved = module.directory.join("moved");
    fs::rename(module.snapshot(&module.snapshots().remove(0)), &moved).expect("moved");
    fs::remove_dir_all(module.private("")).expect("forgotten");
    fs::remove_dir_all(module.state_directory()).expect("forgotten");
    let before = fingerprint::of(&moved);
    tree::write(&source.join("documents/report"), "rewritten\n");
    let run =
        daemon.push(&source, "data", &["--inplace"]).says("--inplace could rewrite snapshots");
    assert!(!run.succeeded(), "{run}");
    fingerprint::assert_equal(&before, &fingerprint::of(&moved), "the snapshot that was moved");
}

#[test]
fn in_place_is_refused_through_a_module_that_reaches_the_directory() {
    only_hard_links!("options that write in place");
    if !have(&["rsync"]) {
        return;
    }
    use support::daemon::Daemon;
    let module = Module::new();
    let source = support::daemon::source(&module);
    fs::create_dir(module.latest.join("inner")).expect("a directory");
    let root = |name: &str| {
        let root = module.directory.join(name);
        fs::create_dir(&root).expect("a root");
        format!("[module.{name}]\nsnapshot_root = \"{}\"\n", root.display())
    };
    module.write_policy(&["same", "below"].map(root).concat());
    let section =
        |name: &str, path: &std::path::Path| Daemon::pair_section(&module, name, path, "");
    let sections = [
        section("data", &module.latest),
        section("same", &module.latest),
        section("below", &module.latest.join("inner")),
    ];
    let daemon = Daemon::start(&module, &sections.concat());
    daemon.push(&source, "data/inner", &[]).exits(&[0]);
    daemon.await_last_hook(1);
    let first = module.snapshot(&module.snapshots().remove(0));
    let before = fingerprint::of(&first);
    tree::write(&source.join("documents/report"), "rewritten\n");
    for name in ["same/inner", "below"] {
        let run =
            daemon.push(&source, name, &["--inplace"]).says("--inplace would rewrite 1 snapshot");
        assert!(!run.succeeded(), "{run}");
    }
    fingerprint::assert_equal(&before, &fingerprint::of(&first), "the snapshot");
}
