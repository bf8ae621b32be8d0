//! `check` about an rsyncd.conf that rsync itself does not read, or reads otherwise than it was
//! meant, and about what it names: files of rules, refused options, units of systemd.

use crate::doctor::{Patient, run_told};
use crate::support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use support::daemon::Daemon;
use support::run::{Run, tool};
use support::{BINARY, have, may_mount, tree};

#[test]
fn a_file_at_which_rsync_stops_is_critical() {
    let Some(patient) = Patient::new() else { return };
    let (good, directory) = (patient.good(), &patient.module.directory);
    let (includes, path) = (directory.join("inc"), patient.module.latest.display().to_string());
    fs::create_dir(&includes).expect("a directory");
    symlink("/no/such/file", includes.join("x.conf")).expect("a link");
    let dangling = format!("&include {}", includes.display());
    let daemon = Daemon::serve(&patient.module);
    for (from, to, words) in [
        ("[data]", "[data", "add `]` behind the name"),
        ("[data]", "[]", "write its name between the brackets"),
        ("[data]", "[da/ta]", "take the slash out"),
        ("read only = no", "= no", "write `NAME = VALUE`"),
        ("read only = no", "&load /x", "unknown directive &load"),
        ("read only = no", "&include /no/such/dir", "make it, or take the line out"),
        ("read only = no", "&merge /dev/null", "neither a file nor a directory"),
        ("read only = no", dangling.as_str(), "remove its link"),
    ] {
        patient.write(&good.replace(from, to));
        let place = match to {
            _ if to == dangling => "inc/x.conf: ".to_string(),
            _ => {
                let line = good.lines().position(|line| line == from).expect("it") + 1;
                format!("rsyncd.conf:{line}: ")
            }
        };
        for arguments in [&["check"][..], &["check", "data"], &["check", &path]] {
            let run = patient.module.run(arguments).exits(&[2]).says(words).says(&place);
            let text = run.says("every connection fails").stdout();
            assert!(text.starts_with("CRITICAL - "), "{text}");
            assert_eq!(text.matches("every connection fails").count(), 1, "{text}");
        }
        assert!(!patient.push_as(&daemon, "").succeeded(), "{to}");
        daemon.await_connections();
    }
    drop(daemon);
    // What only this reader refuses may work with rsync.
    patient.write(&good.replace("read only = no", "&include relative"));
    patient.module.run(&["check"]).exits(&[3]).says("is not an absolute path");
    patient.write(&good);
    patient.works();
}

#[test]
fn a_missing_rsyncd_conf_is_told_with_the_option() {
    let Some(patient) = Patient::new() else { return };
    fs::remove_file(&patient.module.rsyncd_conf).expect("removed");
    patient.module.run(&["check"]).exits(&[3]).says("give it with `--rsyncd-conf FILE`");
}

#[test]
fn a_byte_order_mark_is_told_with_what_it_hides() {
    let Some(patient) = Patient::new() else { return };
    let good = patient.good();
    let section = good.replace(&patient.global(), "");
    let with_header = format!("\u{feff}{section}{}", patient.global());
    for (conf, code, words) in [
        (with_header.as_str(), 2, "ignores this line, `[data]`"),
        (&format!("\u{feff}{good}"), 1, "ignores this line, `use chroot = no`"),
        (&format!("\u{feff}# of this server\n{good}"), 0, "no harm before a comment"),
    ] {
        patient.write(conf);
        let told = patient.module.run(&["check"]).exits(&[code]).says(words);
        let told = told.says("rsyncd.conf:1: the file begins with a byte order mark").stdout();
        patient.module.run(&["check", "data"]).says(words);
        if code == 2 {
            patient.fails_as("");
        }
        run_told(&told, "sed -i");
        assert_eq!(fs::read_to_string(&patient.module.rsyncd_conf).expect("it"), conf[3..]);
        patient.is_well();
    }
    patient.works();
}

#[test]
fn files_of_an_included_directory_with_other_names_are_told() {
    for (word, suffix) in [("include", ".conf"), ("merge", ".inc")] {
        let Some(patient) = Patient::new() else { return };
        let section = patient.good().replace(&patient.global(), "");
        let directory = patient.module.directory.join("rsyncd.d");
        fs::create_dir(&directory).expect("a directory");
        fs::write(directory.join("data"), &section).expect("written");
        patient.write(&format!("{}&{word} {}\n", patient.global(), directory.display()));
        let told = patient.module.run(&["check"]).exits(&[3]).says(&format!("end in `{suffix}`"));
        run_told(&told.stdout(), "mv ");
        // Other files beside one that is read are left alone: an editor's, or a distribution's.
        fs::write(directory.join("data.conf~"), "[data~]\n").expect("written");
        fs::write(directory.join("data.inc.bak"), "[data.bak\n").expect("written");
        // To rsync, this is an empty file.
        fs::create_dir(directory.join(format!("x{suffix}"))).expect("a directory");
        let text = patient.module.run(&["check"]).exits(&[0]).stdout();
        assert!(!text.contains("end in `"), "{text}");
        patient.works();
    }
}

#[test]
fn a_line_without_an_equals_sign_is_told() {
    let Some(patient) = Patient::new() else { return };
    let with = |line: &str| {
        patient.write(&patient.good().replace("read only = no", &format!("read only = no\n{line}")))
    };
    with("hosts allow 127.0.0.1");
    let told = patient.is_told("conf-parameter", "warning", "since it has no `=`");
    assert!(told.contains("`hosts allow 127.0.0.1`"), "{told}");
    with("# hosts allow 127.0.0.1\n\n;");
    patient.works();
}

#[test]
fn refused_options_of_a_backup_are_a_note_and_tear_no_module() {
    slow!();
    let Some(patient) = Patient::new() else { return };
    let with = |options: &str| {
        let line = format!("read only = no\nrefuse options = {options}");
        patient.write(&patient.good().replace("read only = no", &line));
    };
    with("inplace append* partial-dir delay-updates checksum");
    let text = patient.module.run(&["check"]).exits(&[0]).stdout();
    assert!(!text.contains("refuse options"), "{text}");
    for (options, shown, given) in [
        ("delete*", "--delete, --delete-excluded", "--delete"),
        ("hard-links", "--hard-links", "--hard-links"),
        ("X", "--xattrs", "--xattrs"),
    ] {
        with(options);
        let words = format!("refuses {shown}, which rsync-system-backup gives");
        patient.module.run(&["check"]).exits(&[0]).says(&words);
        patient.works();
        let daemon = Daemon::serve(&patient.module);
        tree::write(&patient.source.join("new"), options);
        let refused = daemon.push(&patient.source, "data", &[given]).exits(&[4]);
        assert!(refused.stderr().contains("refuse"), "{refused}");
        daemon.await_connections();
        assert!(!patient.module.latest.join("new").exists());
        // It has written nothing, so the module is as whole as before.
        let text = patient.module.run(&["check"]).exits(&[0]).stdout();
        assert!(!text.contains("torn"), "{text}");
        drop(daemon);
        fs::remove_file(patient.source.join("new")).expect("removed");
    }
}

#[test]
fn files_of_rules_with_a_mistake_are_told_with_their_line() {
    slow!();
    let Some(patient) = Patient::new() else { return };
    let rules = patient.module.directory.join("rules");
    let name = rules.display();
    let with = |line: &str| {
        patient.write(&patient.good().replace("read only = no", &format!("read only = no\n{line}")))
    };
    for (line, text, words) in [
        (format!("filter = merge {name}"), "- *.o\nfoo\n", "rules:2: `foo` is no rule"),
        (format!("filter = - a .,e_{name}"), "+ a\n!x\n", "rules:2: nothing may follow"),
        (format!("filter = merge {name}"), ". /no/such\n", "rules:1: /no/such does not exist"),
        (format!("exclude from = {name}"), "*.o\n- \n", "rules:2: one blank and a pattern"),
        (format!("include from = {name}"), "+ \n", "rules:1: one blank and a pattern"),
    ] {
        fs::write(&rules, text).expect("written");
        with(&line);
        patient.is_told("conf-parameter", "critical", words);
        patient.fails_as("");
    }
    for (line, text) in [
        (format!("filter = merge {name}"), "# rules\n- *.o\n\n; more\n+ two words\n- _x\n"),
        (format!("filter = .-_{name}"), "foo\n"),
        (format!("exclude from = {name}"), "# names\n*.o\n- x\n+ y\n!\n"),
        (format!("include from = {name}"), "*.c\n"),
    ] {
        fs::write(&rules, text).expect("written");
        with(&line);
        patient.works();
    }
}

#[test]
fn a_broken_hook_is_mended_before_its_snapshot_is_taken_by_hand() {
    let Some(patient) = Patient::new() else { return };
    patient.works();
    let (good, post) = (patient.good(), patient.post());
    patient.write(&good.replace(&post, "post-xfer exec = /no/such/rsyncd-snapshot"));
    let daemon = Daemon::serve(&patient.module);
    tree::write(&patient.source.join("new"), "x\n");
    patient.push_as(&daemon, "").exits(&[0]);
    daemon.await_connections();
    let told = patient.module.run(&["check"]).exits(&[2]).says("does not exist").stdout();
    assert!(told.starts_with("CRITICAL - data: "), "{told}");
    assert!(!told.contains("to the end; run `"), "{told}");
    drop(daemon);
    // As told: first the line, then the command, as it is printed.
    patient.write(&good);
    assert!(told.contains("mend the hook first") || told.contains("torn since"), "{told}");
    if let Some(begin) = told.find("mend the hook first") {
        let command = told[begin..].split('`').nth(1).expect("a command");
        let command = command.replacen("rsyncd-snapshot", BINARY, 1);
        let mut shell = tool("sh");
        let shell = crate::doctor_policies::in_environment(&patient, &mut shell);
        Run::of(shell.args(["-c", &command])).exits(&[0, 4]);
    }
    let daemon = Daemon::serve(&patient.module);
    patient.push_as(&daemon, "").exits(&[0]);
    daemon.await_connections();
    patient.works();
}

#[test]
fn a_script_as_hook_is_noted_with_the_option_of_commands() {
    let Some(patient) = Patient::new() else { return };
    let script = patient.module.directory.join("hook");
    let own = patient.hook(Path::new(BINARY));
    fs::write(&script, format!("#!/bin/sh\nexec {own}\n")).expect("a script");
    tree::set_mode(&script, 0o755);
    let check = || {
        let mut command = tool(BINARY);
        let command = crate::doctor_policies::in_environment(&patient, &mut command);
        Run::of(command.arg("check").arg("--rsyncd-conf").arg(&patient.module.rsyncd_conf))
    };
    let note = "which policy this command names cannot be seen";
    let (pre, post) = (patient.pre(), patient.post());
    let scripted = format!("post-xfer exec = {}", script.display());
    for conf in [
        patient.good().replace(&pre, "pre-xfer exec = /bin/true").replace(&post, &scripted),
        patient.good().replace(&format!("{pre}\n"), "").replace(&post, &format!("{post}; true")),
    ] {
        patient.write(&conf);
        let found = check().says(note).says("add `--config FILE`");
        assert!(!found.stdout().contains("UNKNOWN"), "{found}");
        // A `check` that was given a policy judges by that.
        assert!(!patient.module.run(&["check"]).stdout().contains(note));
    }
    // A hook that can be read beside a script tells.
    for conf in [patient.good(), patient.good().replace(&post, &scripted)] {
        patient.write(&conf);
        assert!(!check().stdout().contains(note), "{conf}");
    }
}

#[test]
fn a_missing_policy_of_the_hooks_is_told_once() {
    let Some(patient) = Patient::new() else { return };
    let gone = patient.module.directory.join("gone.toml").display().to_string();
    let policy = patient.module.policy.display().to_string();
    patient.write(&patient.good().replace(&policy, &gone));
    let mut command = tool(BINARY);
    let command = crate::doctor_policies::in_environment(&patient, &mut command);
    let conf = &patient.module.rsyncd_conf;
    let told = Run::of(command.arg("check").arg("--rsyncd-conf").arg(conf)).exits(&[2]).stdout();
    let about: Vec<&str> = told.lines().filter(|line| line.contains(&gone)).collect();
    assert!(about.len() == 1 && about[0].contains("nothing ever expires"), "{told}");
    assert!(about[0].contains(" there and in "), "{told}");
    assert!(!told.contains("more problem"), "{told}");
}

#[test]
fn a_daemon_that_sees_another_directory_is_critical() {
    if !may_mount() {
        return;
    }
    let Some(patient) = Patient::new() else { return };
    let root = patient.module.root.display().to_string();
    let wrapper = patient.module.directory.join("rsync-in-unit");
    let serve = |mount: &str| {
        let inner = format!("{mount} && exec rsync \"$0\" \"$@\"");
        let text = format!("#!/bin/sh\nexec unshare --mount sh -c '{inner}' \"$@\"\n");
        fs::write(&wrapper, text).expect("it");
        tree::set_mode(&wrapper, 0o755);
        Daemon::serve_by(&patient.module, wrapper.to_str().expect("text"))
    };
    // As with `TemporaryFileSystem`, or a disk that was mounted after the daemon was started.
    let hidden = format!("mount -t tmpfs -o mode=0700 none {root} && mkdir {root}/latest");
    let daemon = serve(&hidden);
    let told = patient.is_told("daemon", "critical", "sees something else in the place of");
    assert!(told.contains(&root) && told.contains("systemctl restart"), "{told}");
    patient.push_as(&daemon, "").exits(&[0]);
    daemon.await_connections();
    assert!(patient.module.snapshots().is_empty());
    drop(daemon);
    // What its hooks have remembered is of that other directory.
    for directory in [patient.module.state_directory(), patient.module.runtime_directory()] {
        fs::remove_dir_all(&directory).expect("removed");
        fs::create_dir(&directory).expect("a directory");
    }
    // As with `ReadWritePaths`: another mount of the same directory.
    let daemon = serve(&format!("mount --bind {root} {root}"));
    patient.is_well();
    drop(daemon);
    // As with `ProtectSystem=strict`.
    let [state, run] = [patient.module.state_directory(), patient.module.runtime_directory()];
    let protect = |path: &Path| {
        let path = path.display();
        format!("mount --bind {path} {path} && mount -o remount,bind,ro {path}")
    };
    let daemon = serve(&format!("{} && {}", protect(&state), protect(&run)));
    let told = patient.is_told("daemon", "warning", "cannot remember what goes wrong");
    assert!(told.contains(&format!("ReadWritePaths={}", state.display())), "{told}");
    patient.push_as(&daemon, "").exits(&[0]);
    patient.await_snapshot(&daemon, &patient.module.root, 1);
    drop(daemon);
    let daemon = serve(&protect(&run));
    patient.is_well();
    drop(daemon);
}

/// The daemon does not run, and its unit says what it will be.
#[test]
fn the_unit_of_a_daemon_that_is_not_started_is_read() {
    if !may_mount() || !have(&["unshare"]) {
        return;
    }
    let Some(patient) = Patient::new() else { return };
    let check = |unit: &str, drop_in: &str| {
        let script = "set -e; mount -t tmpfs none /mnt; cp /etc/passwd /etc/group /mnt/; \
                      cp \"$1\" /mnt/rsyncd.conf; units=/mnt/systemd/system; \
                      mkdir -p $units/multi-user.target.wants $units/rsync.service.d; \
                      printf \"$2\" > $units/rsync.service; \
                      printf \"$3\" > $units/rsync.service.d/a.conf; \
                      ln -s ../rsync.service $units/multi-user.target.wants/rsync.service; \
                      mount --move /mnt /etc; shift 3; exec \"$@\"";
        let mut command = tool("unshare");
        crate::doctor_policies::in_environment(&patient, &mut command);
        command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
        command.arg(&patient.module.rsyncd_conf).args([unit, drop_in, BINARY]);
        Run::of(command.arg("--config").arg(&patient.module.policy).arg("check"))
    };
    let stock = "[Service]\\nExecStart=/usr/bin/rsync --daemon\\nPrivateDevices=on\\n";
    let note = "may not make device files";
    let found = check(stock, "").exits(&[0]).says(note);
    found.says("the rsync daemon of rsync.service").says("PrivateDevices=no");
    let found = check(stock, "[Service]\\nPrivateDevices=no\\n").exits(&[0]);
    assert!(!found.stdout().contains(note), "{found}");
    let found = check(stock, "[Service]\\nProtectProc=ptraceable\\n").exits(&[2]);
    found.says("rsync.service has `ProtectProc=ptraceable`").says("ProtectProc=default");
}
