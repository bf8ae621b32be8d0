//! `check` about mistakes whose obvious remedy would mend nothing: what it tells, typed exactly,
//! brings a snapshot with the files in it.

use crate::doctor::{Patient, run_told};
use crate::support;

use std::fs;

use support::daemon::Daemon;
use support::file_system::Mount;
use support::{BINARY, may_mount, root, tree};

#[test]
fn a_redirection_that_fails_is_told_before_a_push() {
    let Some(patient) = Patient::new() else { return };
    let good = patient.good();
    let directory = patient.module.directory.join("logs");
    let log = directory.join("x.log").display().to_string();
    let command = format!("`install -d {}`", directory.display());
    for (line, consequence) in
        [(patient.post(), "no snapshot is made"), (patient.pre(), "every transfer is turned away")]
    {
        patient.write(&good.replace(&line, &format!("{line} >>{log} 2>&1")));
        let told = patient.is_told("hook", "critical", consequence);
        assert!(told.contains(&log) && told.contains(&command), "{told}");
        run_told(&told, "install -d");
        patient.works();
        fs::remove_dir_all(&directory).expect("removed");
    }
    fs::create_dir(&directory).expect("a directory");
    patient.write(
        &good.replace(&patient.post(), &format!("{} >{}", patient.post(), directory.display())),
    );
    patient.is_told("hook", "critical", "is a directory");
    let input = directory.join("in").display().to_string();
    patient.write(&good.replace(&patient.post(), &format!("{} <{input}", patient.post())));
    patient.is_told("hook", "critical", "to read, does not exist");
    // A file that is made by writing to it, and the usual place for what is to vanish.
    patient
        .write(&good.replace(&patient.post(), &format!("{} >{log} 2>/dev/null", patient.post())));
    patient.works();
}

#[test]
fn a_script_that_the_kernel_cannot_start_is_told() {
    let Some(patient) = Patient::new() else { return };
    let script = patient.module.directory.join("hook");
    let write = |text: &str| {
        fs::write(&script, text).expect("a script");
        tree::set_mode(&script, 0o755);
    };
    let own = patient.hook(BINARY.as_ref());
    patient.write(
        &patient.good().replace(&patient.post(), &format!("post-xfer exec = {}", script.display())),
    );
    write(&format!("#!/no/such/sh\nexec {own}\n"));
    patient.is_told("hook", "critical", "its interpreter /no/such/sh does not exist");
    for first in ["#!/bin/sh", "#!/usr/bin/env sh", "#!/bin/sh -e"] {
        write(&format!("{first}\r\nexec {own}\r\n"));
        let told = patient.is_told("hook", "critical", "lines end as on Windows");
        run_told(&told, "sed -i");
        patient.works();
    }
}

#[test]
fn a_comment_behind_the_path_is_told_without_making_that_directory() {
    let Some(patient) = Patient::new() else { return };
    let latest = patient.module.latest.display().to_string();
    let line = format!("path = {latest}\n");
    for comment in ["# laptop", "; laptop", "#"] {
        patient.write(&patient.good().replace(&line, &format!("path = {latest} {comment}\n")));
        let words =
            format!("rsync takes `{comment}` for part of the path; write `path = {latest}`");
        let told = patient.module.run(&["check"]).exits(&[2]).says(&words);
        assert!(!told.stdout().contains("install"), "{told}");
    }
    // A directory that is really called so.
    let odd = patient.module.root.join("latest # laptop");
    fs::create_dir(&odd).expect("a directory");
    tree::set_mode(&odd, 0o700);
    patient.write(&patient.good().replace(&line, &format!("path = {}\n", odd.display())));
    patient.works();
}

#[test]
fn a_path_that_only_a_shell_would_expand_is_critical() {
    let Some(patient) = Patient::new() else { return };
    let line = format!("path = {}\n", patient.module.latest.display());
    for path in ["~/latest", "$HOME/latest"] {
        patient.write(&patient.good().replace(&line, &format!("path = {path}\n")));
        patient.is_told("module-directory", "critical", "write the whole path");
        patient.fails_as("");
    }
}

#[test]
fn a_missing_rsyncd_conf_of_a_hook_is_a_warning() {
    let Some(patient) = Patient::new() else { return };
    let conf = patient.module.rsyncd_conf.display().to_string();
    let post = patient.post();
    patient.write(&patient.good().replace(&post, &post.replace(&conf, "/no/such/rsyncd.conf")));
    patient.is_told("hook", "warning", "correct `--rsyncd-conf`");
}

#[test]
fn what_makes_rsync_give_up_its_configuration_is_told_with_the_edit() {
    let Some(patient) = Patient::new() else { return };
    for (from, to, words) in [
        ("[data]", "[data", "add `]` behind the name"),
        ("read only = no", "&include /no/such/dir", "make it, or take the line out"),
    ] {
        patient.write(&patient.good().replace(from, to));
        patient.module.run(&["check"]).exits(&[2]).says("every connection fails").says(words);
        patient.fails_as("");
    }
}

#[test]
fn an_empty_line_below_global_hooks_is_named() {
    let Some(patient) = Patient::new() else { return };
    let (pre, post) = (patient.pre(), patient.post());
    let body = patient.good().replace(&format!("{pre}\n{post}\n"), "");
    let place = |count: usize| format!("rsyncd.conf:{count}");
    let above = format!("{pre}\n{post}\n{body}");
    let count = above.lines().count();
    patient.write(&format!("{above}post-xfer exec =\n"));
    let told = patient.is_told("hook-missing", "critical", "this empty `post-xfer exec =`");
    assert!(told.contains(&place(count + 1)), "{told}");
    patient.write(&format!("{above}pre-xfer exec =\npost-xfer exec =\n"));
    let found = patient.module.run(&["check"]).exits(&[1, 2, 3]);
    assert!(!found.stdout().contains("add `post-xfer"), "{found}");
    patient.write(&format!("{above}pre-xfer exec =\n"));
    // Without pre-xfer, no options are refused either.
    let found = patient.module.run(&["check"]).exits(&[1]);
    found.says(&place(count + 1)).says("this empty `pre-xfer exec =`");
    // The line is taken out, as told.
    patient.write(&above);
    patient.works();
}

#[test]
fn a_snapshot_root_without_its_parent_is_told_with_the_command() {
    let Some(patient) = Patient::new() else { return };
    let snapshots = patient.module.directory.join("nope/snap");
    let policy = format!("[defaults]\nsnapshot_root = \"{}\"\n", snapshots.display());
    patient.module.write_policy(&policy);
    let told = patient.is_told("root", "critical", "does not exist, nor does its parent");
    assert!(told.contains("policy.toml:2"), "{told}");
    run_told(&told, "install -d");
    patient.is_well();
    let daemon = Daemon::serve(&patient.module);
    patient.push_as(&daemon, "").exits(&[0]);
    patient.await_snapshot(&daemon, &snapshots, 1);
    patient.is_well();
}

#[test]
fn a_bind_mounted_module_is_told_a_way_out() {
    if !root() || !may_mount() {
        return;
    }
    let Some(patient) = Patient::new() else { return };
    let data = patient.module.directory.join("data");
    fs::create_dir(&data).expect("a directory");
    tree::set_mode(&data, 0o700);
    let Some(_mount) = Mount::bind(&data, &patient.module.latest) else { return };
    let below = patient.module.latest.join("latest");
    let told = patient.is_told("root", "critical", "the module is a mount point itself");
    assert!(told.contains(&below.display().to_string()), "{told}");
    assert!(!told.contains("take `snapshot_root`"), "{told}");
    // As told: a directory in it is the module's path.
    fs::create_dir(&below).expect("a directory");
    let line = format!("path = {}", patient.module.latest.display());
    patient.write(&patient.good().replace(&line, &format!("path = {}", below.display())));
    patient.is_well();
    let daemon = Daemon::serve(&patient.module);
    patient.push_as(&daemon, "").exits(&[0]);
    patient.await_snapshot(&daemon, &patient.module.latest, 1);
    patient.is_well();
}

#[test]
fn files_that_the_server_refuses_are_not_to_be_done_without() {
    if !root() {
        return;
    }
    let Some(patient) = Patient::new() else { return };
    let latest = &patient.module.latest;
    let temporary = latest.join("t");
    fs::create_dir(&temporary).expect("a directory");
    tree::set_mode(&temporary, 0o755);
    std::os::unix::fs::chown(latest, Some(34), Some(34)).expect("chown");
    let good = patient.good().replace("uid = root\ngid = root", "uid = 34\ngid = 34");
    let good = good.replace("use chroot = no", "use chroot = yes");
    patient.write(&format!("{good}temp dir = /t\n"));
    // The source has no such directory, so that a push leaves it alone.
    let daemon = Daemon::serve(&patient.module);
    for push in 0..3 {
        tree::write(&patient.source.join("more"), &format!("{push}\n"));
        assert!(!patient.push_as(&daemon, "").succeeded());
        daemon.await_connections();
    }
    let found = patient.module.run(&["check"]).exits(&[1, 2]);
    found.says("no push has ever ended well").says("`temp dir`");
    let text = patient.module.run(&["check"]).stdout();
    assert!(!text.contains("snapshot_on_exit"), "{text}");
    drop(daemon);
    // Mended as told.
    patient.write(&good);
    let daemon = Daemon::serve(&patient.module);
    patient.push_as(&daemon, "").exits(&[0]);
    patient.await_snapshot(&daemon, &patient.module.root, 1);
    // After a good push, files that cannot be read may be the client's matter.
    drop(daemon);
    patient.write(&format!("{good}temp dir = /t\n"));
    let daemon = Daemon::serve(&patient.module);
    // Such a push writes nothing. So one alone may leave the module equal to its newest snapshot,
    // and then it is only noted; three in a row are told in any case.
    for push in 0..3 {
        tree::write(&patient.source.join("more"), &format!("again {push}\n"));
        assert!(!patient.push_as(&daemon, "").succeeded());
        daemon.await_connections();
    }
    patient.module.run(&["check"]).exits(&[1, 2]).says("snapshot_on_exit = [0, 23, 24]");
}
