//! What the hook makes of the environment and descriptors that it is started with.

use crate::support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use support::fingerprint::Fingerprint;
use support::module::Module;
use support::run::Run;
use support::syslog::Syslog;
use support::{fingerprint, may_mount, tree};

/// A module that never was snapshotted, and its root as it was before.
fn untouched_module() -> (Module, Fingerprint) {
    let module = Module::new();
    tree::small(&module.latest);
    let before = fingerprint::of(&module.root);
    (module, before)
}

/// Runs the hook as `spoil` leaves it, which must be refused without touching anything.
fn expect_refusal(what: &str, codes: &[i32], spoil: impl FnOnce(&Module, &mut Command)) {
    let (module, before) = untouched_module();
    let mut hook = module.hook();
    spoil(&module, &mut hook);
    let run = Run::of(&mut hook).exits(codes);
    assert!(!run.stderr().is_empty(), "{what}: refused without a word: {run}");
    assert_plain(&run.bytes());
    fingerprint::assert_equal(&before, &fingerprint::of(&module.root), what);
}

/// No control byte but the ends of lines.
fn assert_plain(bytes: &[u8]) {
    let control = bytes.iter().find(|byte| byte.is_ascii_control() && **byte != b'\n');
    assert!(control.is_none(), "a raw {control:?} in {}", bytes.escape_ascii());
}

#[test]
fn without_a_module_path_it_shows_its_usage() {
    expect_refusal("no module path", &[2], |_, hook| {
        hook.env_remove("RSYNC_MODULE_PATH");
    });
    let module = Module::new();
    let run = Run::of(module.hook().env_remove("RSYNC_MODULE_PATH")).exits(&[2]);
    assert!(run.stderr().contains("--help") || run.stderr().contains("Usage"), "{run}");
    Run::of(module.hook().env_remove("RSYNC_MODULE_PATH").arg("post-xfer"))
        .exits(&[2])
        .says("RSYNC_MODULE_PATH");
}

#[test]
fn a_module_path_that_is_none_is_refused_and_nothing_is_touched() {
    for path in ["", "latest", "./latest", "root/latest"] {
        expect_refusal(path, &[2], |module, hook| {
            hook.env("RSYNC_MODULE_PATH", path).current_dir(&module.directory);
        });
    }
    expect_refusal("a file", &[1, 2], |module, hook| {
        hook.env("RSYNC_MODULE_PATH", module.latest.join("read me"));
    });
    expect_refusal("missing", &[1, 2], |module, hook| {
        hook.env("RSYNC_MODULE_PATH", module.latest.join("missing\n\u{1b}[31m"));
    });
    expect_refusal("a FIFO", &[1, 2], |module, hook| {
        let fifo = module.directory.join("fifo");
        Run::of(support::run::tool("mkfifo").arg(&fifo)).exits(&[0]);
        hook.env("RSYNC_MODULE_PATH", fifo);
    });
}

#[test]
fn a_status_that_is_no_number_is_refused_and_nothing_is_touched() {
    for status in ["", "zero", "0x0", "1 2", "0\n", "99999999999999999999", "\u{1b}[2J"] {
        expect_refusal(status, &[1, 2], |_, hook| {
            hook.env("RSYNC_EXIT_STATUS", status);
        });
    }
    expect_refusal("no status", &[1, 2], |_, hook| {
        hook.env_remove("RSYNC_EXIT_STATUS");
    });
    expect_refusal("bytes that are no text", &[1, 2], |_, hook| {
        hook.env("RSYNC_EXIT_STATUS", OsStr::from_bytes(b"\xff0"));
    });
}

#[test]
fn a_status_of_minus_one_is_a_failed_transfer() {
    let (module, first) = Module::with_snapshot();
    tree::write(&module.latest.join("new"), "x");
    Run::of(module.hook().env("RSYNC_EXIT_STATUS", "-1").env("RSYNC_RAW_STATUS", "9")).exits(&[0]);
    assert_eq!(module.snapshots(), [first]);
    assert!(module.is_marked("torn"));
}

#[test]
fn names_with_control_bytes_are_escaped_everywhere() {
    const EVIL: &[u8] = b"x\x1b[31m\nFORGED line\r\x07\x7f\xff\xc2\x9b";
    let module = Module::new();
    tree::odd_names(&module.latest.join("odd"));
    let evil = OsStr::from_bytes(EVIL);
    let hook = |status: &str| {
        let mut hook = module.hook();
        hook.env("RSYNC_MODULE_NAME", evil)
            .env("RSYNC_HOST_NAME", evil)
            .env("RSYNC_USER_NAME", evil);
        hook.env("RSYNC_HOST_ADDR", evil).env("RSYNC_EXIT_STATUS", status);
        Run::of(&mut hook)
    };
    let path = module.latest.to_str().expect("UTF-8");
    let mut said = hook("0").exits(&[0]).bytes();
    tree::write(&module.latest.join("new"), "x");
    said.extend(hook("12").exits(&[0]).bytes());
    tree::write(&module.latest.join("newer"), "x");
    said.extend(hook("0").exits(&[0]).bytes());
    for arguments in [["list", path], ["plan", path], ["rotate", path], ["check", path]] {
        said.extend(module.run(&arguments).bytes());
        said.extend(module.run(&["--verbose", arguments[0], path, "--json"]).bytes());
    }
    assert_plain(&said);
    for line in said.split(|byte| *byte == b'\n') {
        assert!(!line.starts_with(b"FORGED"), "{}", line.escape_ascii());
    }
    for name in module.snapshots() {
        let record = fs::read(module.private(&format!("records/{name}.toml"))).expect("a record");
        assert_plain(&record);
        assert!(!record.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"FORGED")));
    }
}

#[test]
fn a_module_directory_of_an_odd_name_works() {
    let module = Module::new();
    let latest = module.root.join(OsStr::from_bytes(b"la\ntest \xff\x1b[31m"));
    fs::rename(&module.latest, &latest).expect("renamed");
    tree::small(&latest);
    let run = Run::of(module.hook().env("RSYNC_MODULE_PATH", &latest)).exits(&[0]);
    assert_plain(&run.bytes());
    let name: Vec<_> =
        module.snapshots().into_iter().filter(|name| name.starts_with('2')).collect();
    assert_eq!(name.len(), 1, "{name:?}");
    fingerprint::assert_same(&latest, &module.snapshot(&name[0]));
}

#[test]
fn a_trailing_slash_and_dots_name_the_same_module() {
    let (module, name) = Module::with_snapshot();
    let latest = module.latest.to_str().expect("UTF-8");
    for path in [format!("{latest}/"), format!("{latest}/."), latest.replace("/root/", "/root//./")]
    {
        Run::of(module.hook().env("RSYNC_MODULE_PATH", &path)).exits(&[0]);
        assert_eq!(module.snapshots(), [name.as_str()], "{path}");
        assert!(!module.latest.join(".rsyncd-snapshot").exists(), "{path}");
    }
}

#[test]
fn no_path_no_home_and_no_locale_are_needed() {
    let module = Module::new();
    tree::small(&module.latest);
    let mut hook = module.hook();
    for variable in [
        "PATH",
        "HOME",
        "LC_ALL",
        "RSYNC_MODULE_NAME",
        "RSYNC_USER_NAME",
        "RSYNC_PID",
        "RSYNC_RAW_STATUS",
    ] {
        hook.env_remove(variable);
    }
    Run::of(&mut hook).exits(&[0]);
    assert_eq!(module.snapshots().len(), 1);
}

#[test]
fn closed_standard_descriptors_harm_nothing() {
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let module = Module::new();
        tree::small(&module.latest);
        let script = format!("exec \"$0\" \"$@\" {closed}");
        Run::of(&mut module.hook_through(&["sh", "-c", &script])).exits(&[0]);
        let name = module.snapshots().remove(0);
        module.assert_equals_module(&name);
        for file in ["lock", "state.toml", "root.toml"] {
            let text = fs::read_to_string(module.private(file)).expect("ours");
            assert!(!text.contains("rsyncd-snapshot:"), "a message went into {file}: {text}");
        }
    }
}

#[test]
fn a_reader_that_went_away_stops_neither_snapshot_nor_list() {
    let module = Module::new();
    tree::small(&module.latest);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = |mut command: Command| {
        let descriptor = || writer.try_clone().expect("a descriptor");
        command.stdout(descriptor()).stderr(descriptor()).status().expect("it ran").code()
    };
    assert_eq!(status(module.hook()), Some(0));
    assert_eq!(module.snapshots().len(), 1);
    assert!(matches!(status(module.command(&["list", "data"])), Some(0 | 1)), "no panic");
}

#[test]
fn leaked_descriptors_and_an_odd_working_directory_harm_nothing() {
    let module = Module::new();
    tree::small(&module.latest);
    let gone = module.directory.join("gone");
    fs::create_dir(&gone).expect("a directory");
    let script = format!(
        "cd '{0}' && rmdir '{0}' && exec 3</dev/null 9>/dev/null && exec \"$0\" \"$@\"",
        gone.display()
    );
    Run::of(&mut module.hook_through(&["sh", "-c", &script])).exits(&[0]);
    assert_eq!(module.snapshots().len(), 1);
}

/// Runs the hook in a mount namespace of its own where `/dev` is what `script` makes it.
fn hook_with_dev(module: &Module, script: &str) -> Run {
    let script = format!("mount -t tmpfs none /dev && {{ {script}; }} && exec \"$0\" \"$@\"");
    let mut hook = module.hook_through(&["unshare", "--mount", "sh", "-c", &script]);
    Run::of(hook.stdin(Stdio::null()))
}

#[test]
fn the_hook_works_where_there_is_no_syslog() {
    if !may_mount() {
        return;
    }
    let module = Module::new();
    tree::small(&module.latest);
    let run = hook_with_dev(&module, "true").exits(&[0]);
    assert_eq!(module.snapshots().len(), 1);
    assert!(
        run.stderr().contains(&module.snapshots()[0]),
        "standard error instead of syslog: {run}"
    );
}

#[test]
fn the_hook_logs_to_syslog_under_its_name() {
    if !may_mount() {
        return;
    }
    let module = Module::new();
    tree::small(&module.latest);
    let syslog = Syslog::within(&module.directory);

    hook_with_dev(&module, &format!("ln -s '{}' /dev/log", syslog.path.display())).exits(&[0]);

    let messages = syslog.received_text();
    let name = &module.snapshots()[0];
    let message = messages.iter().find(|message| message.contains(name.as_str()));
    let message = message.unwrap_or_else(|| panic!("{name} is not in {messages:?}"));
    assert!(message.contains("rsyncd-snapshot"), "{message}");
    // Facility daemon is 3; the severity of information is 6.
    assert!(message.starts_with(&format!("<{}>", 3 * 8 + 6)), "{message}");
}

#[test]
fn a_failure_of_the_hook_is_an_error_in_syslog() {
    if !may_mount() {
        return;
    }
    let module = Module::new();
    tree::small(&module.latest);
    tree::set_mode(&module.root, 0o777);
    let syslog = Syslog::within(&module.directory);

    hook_with_dev(&module, &format!("ln -s '{}' /dev/log", syslog.path.display())).exits(&[2]);

    let messages = syslog.received_text();
    assert!(
        messages.iter().any(|message| message.starts_with(&format!("<{}>", 3 * 8 + 3))),
        "{messages:?}"
    );
}

#[test]
fn the_journal_gets_a_failure_once() {
    if !may_mount() {
        return;
    }
    for is_journal in [true, false] {
        let module = Module::new();
        tree::small(&module.latest);
        tree::set_mode(&module.root, 0o777);
        let syslog = Syslog::within(&module.directory);
        // systemd names the device and inode of the stream; an inherited variable names another.
        let stream = if is_journal { "$(stat -L -c %d:%i /proc/self/fd/2)" } else { "8:12345" };
        let script =
            format!("ln -s '{}' /dev/log && export JOURNAL_STREAM={stream}", syslog.path.display());

        let run = hook_with_dev(&module, &script).exits(&[2]);

        let messages = syslog.received_text();
        assert!(
            messages.iter().any(|message| message.contains("writable by others")),
            "{messages:?}"
        );
        assert_eq!(run.stderr().contains("writable by others"), !is_journal, "{run}");
    }
}

#[test]
fn every_line_of_the_hooks_names_the_module() {
    let module = Module::new();
    tree::small(&module.latest);
    tree::set_mode(&module.root, 0o777);
    let of_module = |run: &Run| {
        let said = run.stderr();
        assert!(!said.is_empty(), "{run}");
        for line in said.lines() {
            let line = line.strip_prefix("rsyncd-snapshot: ").expect("our name");
            let line = ["error: ", "warning: "]
                .iter()
                .fold(line, |line, level| line.trim_start_matches(level));
            assert!(line.starts_with("data: "), "{line}");
        }
    };
    of_module(&module.run_hook().exits(&[2]));
    let direct: [&str; 0] = [];
    of_module(
        &Run::of(&mut module.gate_through(&direct))
            .exits(&[0])
            .says("could not be entered in the ledger"),
    );
    let elsewhere = module.directory.join("not there");
    let mut gate = module.gate_through(&direct);
    of_module(
        &Run::of(gate.env("RSYNC_MODULE_PATH", &elsewhere))
            .exits(&[0])
            .says("could not be entered in the ledger"),
    );
    let mut hook = module.hook();
    of_module(&Run::of(hook.env("RSYNC_MODULE_PATH", &elsewhere)).exits(&[1]));
}

#[test]
fn hooks_within_one_second_get_names_of_their_own() {
    let (module, _) = Module::with_snapshot();
    for number in 0..3 {
        tree::write(&module.latest.join(format!("new {number}")), "x");
        let name = module.expect_snapshot();
        assert!(Path::new(&module.snapshot(&name)).join(format!("new {number}")).exists());
    }
    assert_eq!(module.snapshots().len(), 4);
}
