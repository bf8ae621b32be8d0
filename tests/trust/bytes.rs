//! Every output, byte by byte: no control byte but the ends of our own lines, no forged line, no
//! broken UTF-8, whatever names, users, hosts, files and configurations contain.

use crate::support;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::client::Machine;
use support::module::Module;
use support::run::Run;
use support::subvolumes::are_subvolumes;
use support::syslog::Syslog;
use support::{by_sweep, have, may_mount, root, tree};

/// What a stranger's line would begin with.
const FORGED: &str = "FORGED";

/// Values to put wherever a stranger may put one. None holds a NUL or a slash, so each is a name,
/// too.
fn hostile() -> Vec<Vec<u8>> {
    let all: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
    let forged = "x\nFORGED error\rFORGED\r\nFORGED Nov 26 12:00:00 host rsyncd-snapshot[1]: error: gone\u{b}FORGED\u{c}FORGED";
    vec![
        // A name has 255 bytes at most.
        all[..128].to_vec(),
        all[128..].to_vec(),
        b"\x1b[2J\x1b[1;31m\x1b]0;title\x07\x1bP1\x1b\\\x08\x7f\x9b31m".to_vec(),
        "a\u{85}\u{9b}31m\u{ad}\u{202e}gpj\u{2066}\u{2028}FORGED\u{2029}\u{200b}\u{200f}\u{2060}\u{feff}\u{61c}\u{e0001}\u{e0041}".as_bytes().to_vec(),
        forged.as_bytes().to_vec(),
        b"\xff\xfe\xc2\xc0\x80\xed\xa0\x80\xf5\x80\x80\x80\xe2\x80".to_vec(),
        b"quote\" ' ` $(touch x) %s %n {} \\x0a \\n \\".to_vec(),
    ]
}

/// Tries each of them with its number, all at the same time: most of it is waiting for the disk,
/// and for the next second that names a snapshot.
fn with_each(attempt: impl Fn(usize, Vec<u8>) + Sync) {
    let attempt = &attempt;
    std::thread::scope(|scope| {
        for (number, value) in hostile().into_iter().enumerate() {
            scope.spawn(move || attempt(number, value));
        }
    });
}

/// What the value of that number is tried with: all of `cases` in a full sweep, every second in a
/// usual one, every third in a quick one, such that each case gets some of the values.
fn cases_of<T>(number: usize, cases: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
    let stride = by_sweep(3, 2, 1);
    cases.into_iter().skip(number % stride).step_by(stride)
}

fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

/// Whether a character has no place in a line of text for people; written apart from the program's
/// own list.
fn is_foul(character: char) -> bool {
    character.is_control()
        || matches!(u32::from(character),
            0xad | 0x61c | 0x180e | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xfeff | 0xfff9..=0xfffb | 0xe0000..=0xe007f)
}

/// Fails if `bytes` hold anything but clean lines, each ended.
#[track_caller]
fn assert_clean(what: &str, bytes: &[u8]) {
    let text = std::str::from_utf8(bytes)
        .unwrap_or_else(|error| panic!("{what}: {error}: {}", bytes.escape_ascii()));
    for line in text.lines() {
        let foul: Vec<char> = line.chars().filter(|character| is_foul(*character)).collect();
        assert!(foul.is_empty(), "{what}: {foul:?} in {}", line.escape_debug());
        assert!(!line.trim_start().starts_with(FORGED), "{what}: a forged line: {text}");
    }
    assert!(!text.contains('\r'), "{what}: a carriage return");
    assert!(text.is_empty() || text.ends_with('\n'), "{what}: a line without an end: {text}");
}

/// The same of all that a run has said, and of what its JSON means.
#[track_caller]
fn clean(what: &str, run: Run) -> Run {
    assert!(run.code().is_some(), "{what}: {run}");
    assert_clean(what, &run.bytes());
    assert!(!run.stderr().contains("panicked"), "{what}: {run}");
    if let Ok(value) = serde_json::from_str::<Value>(&run.stdout()) {
        assert_clean_values(what, &value);
    }
    run
}

#[track_caller]
fn assert_clean_values(what: &str, value: &Value) {
    match value {
        Value::String(text) => {
            assert!(!text.chars().any(is_foul), "{what}: {} in JSON", text.escape_debug());
        }
        Value::Array(values) => values.iter().for_each(|value| assert_clean_values(what, value)),
        Value::Object(values) => values.iter().for_each(|(key, value)| {
            assert!(!key.chars().any(is_foul), "{what}: a key {}", key.escape_debug());
            assert_clean_values(what, value);
        }),
        _ => {}
    }
}

/// Every command that tells something of a module, for people and for programs.
const COMMANDS: &[&[&str]] = &[
    &["list"],
    &["list", "--json"],
    &["verify"],
    &["verify", "--json"],
    &["list", "--expired"],
    &["list", "--expired", "--json"],
    &["versions"],
    &["versions", "--json"],
    &["plan"],
    &["plan", "--json"],
    &["plan", "--replay", "3d", "--every", "6h"],
    &["check"],
    &["check", "--json"],
    &["status"],
    &["status", "--json"],
    &["status", "--verbose"],
    &["complete"],
    &["rotate"],
    &["rotate", "--json"],
    &["rotate", "--dry-run"],
    &["snapshot"],
    &["snapshot", "--json"],
    &["snapshot", "--due"],
    &["release"],
    &["release", "--torn"],
];

/// Of these, one for each way in which trouble with a root is told.
const TROUBLED: &[&[&str]] = &[&["check"], &["list", "--json"], &["snapshot"]];

/// Runs every command on `module`, as it is named; in a quick sweep the cases of the number.
#[track_caller]
fn run_all(number: usize, what: &str, module: &Module, named: &OsStr) {
    run_each(cases_of(number, COMMANDS), what, module, named);
}

#[track_caller]
fn run_each<'a>(
    commands: impl IntoIterator<Item = &'a &'a [&'a str]>,
    what: &str,
    module: &Module,
    named: &OsStr,
) {
    for command in commands {
        let mut line = module.command(&["--verbose"]);
        clean(&format!("{what}: {command:?}"), Run::of(line.args(*command).arg(named)));
    }
}

/// A module in which every name is hostile.
fn fill(latest: &Path) {
    for value in hostile() {
        let directory = latest.join(os(&value));
        fs::create_dir_all(&directory).expect("a directory");
        fs::write(directory.join(os(&value)), "x").expect("a file");
        // As rsync names what it is receiving; a name has 255 bytes at most.
        let temporary = [b".", &value[..value.len().min(200)], b".a1B2c3"].concat();
        fs::write(directory.join(os(&temporary)), "x").expect("a file");
    }
}

#[test]
fn clients_and_their_names_cannot_foul_any_output() {
    slow!();
    with_each(|number, value| {
        let module = Module::new();
        fill(&module.latest);
        for status in ["0", "12", "23", "0"] {
            tree::write(&module.latest.join("changes"), status);
            let mut hook = module.hook();
            for variable in
                ["RSYNC_MODULE_NAME", "RSYNC_HOST_NAME", "RSYNC_USER_NAME", "RSYNC_HOST_ADDR"]
            {
                hook.env(variable, os(&value));
            }
            let run = Run::of(hook.arg("--verbose").env("RSYNC_EXIT_STATUS", status));
            clean("post-xfer", run);
        }
        assert!(!module.snapshots().is_empty());
        run_all(number, "a client's names", &module, module.latest.as_os_str());
    });
}

#[test]
fn hostile_requests_are_answered_in_clean_lines() {
    slow!();
    with_each(|_, value| {
        let (module, _) = Module::with_snapshot();
        let named = String::from_utf8_lossy(&value).into_owned();
        for arguments in [
            vec![b"--server".to_vec(), b"--inplace".to_vec(), value.clone()],
            vec![
                b"--server".to_vec(),
                [b"--", value.as_slice()].concat(),
                b".".to_vec(),
                value.clone(),
            ],
            vec![b"--server".to_vec(), b"--sender".to_vec(), [b"-", value.as_slice()].concat()],
        ] {
            let mut hook = module.hook();
            hook.args(["--verbose", "pre-xfer"]).env("RSYNC_PID", std::process::id().to_string());
            for (number, argument) in arguments.iter().enumerate() {
                hook.env(format!("RSYNC_ARG{number}"), os(argument));
            }
            for variable in ["RSYNC_REQUEST", "RSYNC_HOST_NAME", "RSYNC_USER_NAME"] {
                hook.env(variable, os(&value));
            }
            let run = clean("pre-xfer", Run::of(&mut hook));
            assert!(run.stdout().lines().count() <= 1, "one sentence for {named:?}: {run}");
        }
        for (variable, problem) in [
            ("RSYNC_MODULE_PATH", [b"/", value.as_slice()].concat()),
            ("RSYNC_MODULE_PATH", value.clone()),
            ("RSYNC_EXIT_STATUS", value.clone()),
            ("RSYNC_RAW_STATUS", value.clone()),
            ("RSYNC_PID", value.clone()),
        ] {
            for command in ["pre-xfer", "post-xfer"] {
                let mut hook = module.hook();
                clean(command, Run::of(hook.arg(command).env(variable, os(&problem))));
            }
        }
        run_each(TROUBLED, "a request", &module, OsStr::new("data"));
    });
}

#[test]
fn directories_of_any_name_are_told_of_in_clean_lines() {
    slow!();
    with_each(|number, value| {
        let module = Module::new();
        // Another root for each: the module, its parent, and what its machine remembers.
        let root = module.directory.join(os(&value));
        let latest = root.join(os(&value));
        fs::create_dir_all(&latest).expect("the module");
        tree::small(&latest);
        let hook = |status: &str| {
            let mut hook = module.hook();
            hook.arg("--verbose")
                .env("RSYNC_MODULE_PATH", &latest)
                .env("RSYNC_EXIT_STATUS", status);
            clean("the hook", Run::of(&mut hook))
        };
        hook("0").exits(&[0]);
        run_all(number, "a path", &module, latest.as_os_str());
        // What is damaged or a stranger's is named, too.
        let private = root.join(".rsyncd-snapshot");
        for file in ["state.toml", "root.toml"] {
            let before = fs::read(private.join(file)).expect("ours");
            let damages = [
                value.clone(),
                [b"format = 1\n", value.as_slice()].concat(),
                b"format = 99\n".to_vec(),
            ];
            for damage in cases_of(number, damages) {
                fs::write(private.join(file), damage).expect("damage");
                hook("0");
                run_each(TROUBLED, file, &module, latest.as_os_str());
            }
            fs::write(private.join(file), before).expect("ours");
        }
        for place in ["records", "transfers", "expired", "index"] {
            fs::write(private.join(place).join(os(&value)), &value).expect("a stranger's file");
        }
        fs::write(root.join("2026-01-01T00-00-00Z"), &value).expect("no snapshot");
        hook("0");
        run_all(number, "strangers' files", &module, latest.as_os_str());
        fs::remove_dir_all(&private).expect("ours");
        fs::write(&private, &value).expect("a file in its place");
        hook("0");
        run_each(TROUBLED, "no root", &module, latest.as_os_str());
    });
}

#[test]
fn text_of_people_stays_in_its_line() {
    slow!();
    with_each(|number, value| {
        let (module, name) = Module::with_snapshot();
        let with = |arguments: &[&str]| {
            let mut line: Command = module.command(arguments);
            clean(&format!("{arguments:?}"), Run::of(line.arg(os(&value))))
        };
        let lines = [
            &["list"][..],
            &["plan", "--json"],
            &["check"],
            &["check", "--json"],
            &["snapshot"],
            &["rotate"],
            &["pin"],
            &["pin", "data"],
            &["unpin", "data"],
            &["undelete", "data"],
            &["import-policy"],
            &["list", "data"],
            &["versions"],
            &["versions", "data"],
            &["versions", "--json", "data", "."],
            &["plan", "data", "--policy"],
            &["plan", "data", "--every", "1h", "--replay"],
            &["--config"],
            &[],
        ];
        for arguments in cases_of(number, lines) {
            with(arguments);
        }
        let option = [b"--", value.as_slice()].concat();
        clean("an option", Run::of(module.command(&["list"]).arg(os(&option))));
        with(&["pin", "data", &name, "--reason"]);
        run_all(number, "a pin", &module, OsStr::new("data"));
        let lock = module.hold_lock();
        module.write_policy("[defaults]\nlock_wait = \"0s\"\n");
        fs::write(module.private("lock"), &value).expect("the holder's words");
        tree::write(&module.latest.join("changed"), "x");
        clean("busy", Run::of(module.hook().arg("--verbose")));
        run_each(TROUBLED, "a busy lock", &module, OsStr::new("data"));
        drop(lock);
        // TOML can hold any character in ASCII; only root writes there, but a log is no place to
        // find out.
        let escaped: String = String::from_utf8_lossy(&value)
            .chars()
            .map(|character| format!("\\U{:08x}", u32::from(character)))
            .collect();
        let record = module.private(&format!("records/{name}.toml"));
        let text = fs::read_to_string(&record).expect("a record");
        let spoilt = text
            .lines()
            .map(|line| match line.split_once(" = \"") {
                Some((key, _)) if ["address", "name", "user"].contains(&key) => {
                    format!("{key} = \"{escaped}\"\n")
                }
                _ => format!("{line}\n"),
            })
            .collect::<String>();
        assert!(text.contains("[client]"), "{text}");
        fs::write(&record, spoilt).expect("a record");
        let state = module.private("state.toml");
        let text = fs::read_to_string(&state).expect("the state");
        let spoilt = text.replace("reason = \"", &format!("reason = \"{escaped}"));
        fs::write(&state, spoilt).expect("the state");
        run_all(number, "records", &module, OsStr::new("data"));
    });
}

#[test]
fn mistakes_in_policies_and_in_rsyncd_conf_are_told_in_clean_lines() {
    slow!();
    with_each(|number, value| {
        let (module, _) = Module::with_snapshot();
        let text =
            |before: &str, after: &str| [before.as_bytes(), &value, after.as_bytes()].concat();
        let lossy = String::from_utf8_lossy(&value);
        let escaped: String =
            lossy.chars().map(|character| format!("\\U{:08x}", u32::from(character))).collect();
        let quoted = |before: &str, after: &str| format!("{before}{escaped}{after}").into_bytes();
        let policies = [
            value.clone(),
            text("[defaults]\nkeep = ", "\n"),
            text("[defaults]\n", " = 1\n"),
            text("[", "]\n"),
            quoted("[\"", "\"]\n"),
            quoted("[module.\"", "\"]\nmin_keep = 2\n"),
            quoted("[defaults]\n\"", "\" = 1\n"),
            quoted("[defaults]\ntime_zone = \"", "\"\n"),
            quoted("[defaults]\nmin_age = \"", "\"\n"),
            quoted("[defaults]\nlog_level = \"", "\"\n"),
            quoted("[defaults]\nkeep = { hourly = \"", "\" }\n"),
            quoted("[defaults]\nallow_options = [\"", "\"]\n"),
            quoted("[defaults]\nsnapshot_root = \"/nowhere/", "\"\n"),
            quoted("[defaults]\nsnapshot_root = \"/nowhere/{module}/", "\"\n"),
        ];
        for policy in cases_of(number, policies) {
            fs::write(&module.policy, policy).expect("the policy");
            clean("the hook", Run::of(module.hook().arg("--verbose")));
            for command in
                [&["check"][..], &["check", "--json"], &["plan", "data"], &["rotate", "data"]]
            {
                clean("a policy", module.run(command));
            }
        }
        let odd_policy = module.directory.join(os(&value)).with_extension("toml");
        fs::write(&odd_policy, "nothing = 1\n").expect("a policy");
        for command in [&["check"][..], &["check", "--json"], &["plan", "data"]] {
            let mut line = Command::new(&module.program);
            module.prepare(&mut line);
            let mut odd = Command::new(&module.program);
            odd.env_clear().envs(line.get_envs().filter_map(|(key, value)| Some((key, value?))));
            clean("a policy's path", Run::of(odd.arg("--config").arg(&odd_policy).args(command)));
            odd.arg("--rsyncd-conf").arg(&odd_policy);
            clean("a path of rsyncd.conf", Run::of(&mut odd));
        }
        module.write_policy(support::server::QUIET_POLICY);
        let path = module.latest.display().to_string();
        let confs = [
            value.clone(),
            text("[", &format!("]\npath = {path}\npost-xfer exec = x\n")),
            text("[m]\npath = /", "\npost-xfer exec = x\n"),
            text(&format!("[m]\npath = {path}\n"), " = yes\n"),
            text(&format!("[m]\npath = {path}\npost-xfer exec = "), "\n"),
            text(&format!("[m]\npath = {path}\nrefuse options = "), "\npost-xfer exec = x\n"),
            text(&format!("[m]\npath = {path}\nuid = "), "\nread only = "),
            text("&include ", "\n"),
            text("&merge ", "\n"),
            text("[m]\npath = /x/%", "%\npost-xfer exec = x\n"),
        ];
        for conf in cases_of(number, confs) {
            fs::write(&module.rsyncd_conf, conf).expect("rsyncd.conf");
            for command in [
                &["check"][..],
                &["check", "--json"],
                &["status"],
                &["complete"],
                &["list"],
                &["list", "m"],
                &["plan", "--json"],
            ] {
                clean("rsyncd.conf", module.run(command));
            }
            clean("all", module.run(&["snapshot", "--all"]));
        }
        let ini = module.directory.join(os(&value)).with_extension("ini");
        for content in [
            value.clone(),
            text("[", "]\nhourly = 24\n"),
            text(&format!("[{path}]\n"), " = 24\n"),
            text(&format!("[{path}]\nhourly = "), "\n"),
            text(&format!("[{path}]\nexclude-list = "), "\n"),
            text("[host:/", "]\ndaily = 7\n"),
        ] {
            fs::write(&ini, content).expect("a configuration");
            clean("import-policy", Run::of(module.command(&["import-policy"]).arg(&ini)));
        }
    });
}

#[test]
fn each_loss_is_told_in_one_message() {
    if !may_mount() || !have(&["strace"]) {
        return;
    }
    with_each(|_, value| {
        let module = Module::new();
        fill(&module.latest);
        let mounted = module.latest.join(os(&value)).join("mounted").into_os_string();
        let mounted = [mounted, os(&value).to_os_string()].join(OsStr::new(" "));
        fs::create_dir(&mounted).expect("a mount point");
        let syslog = Syslog::within(&module.directory);
        let script = "mount -t tmpfs none /dev && mount -t tmpfs none \"$1\" && ln -s \"$2\" /dev/log && : >/dev/null && shift 2 && exec \"$@\"";
        let mut wrapper: Vec<OsString> =
            ["unshare", "--mount", "sh", "-c", script, "sh"].iter().map(OsString::from).collect();
        wrapper.extend([mounted, syslog.path.clone().into_os_string()]);
        let strace =
            ["strace", "-f", "-o", "/dev/trace", "-e", "inject=linkat:error=EPERM:when=2+3"];
        wrapper.extend(strace.iter().map(OsString::from));
        let mut hook = module.hook_through(&wrapper);
        hook.stdin(std::process::Stdio::null()).env("RSYNC_USER_NAME", os(&value));
        let run = clean("the hook", Run::of(hook.arg("--verbose")).exits(&[4]));
        let run = run.says("left out what is mounted");
        let run = match are_subvolumes() {
            true => run,
            false => run.says("could not be linked and were copied"),
        };
        let messages = syslog.received();
        assert!(messages.len() > 4, "{run}");
        for message in messages {
            // One datagram is one line, whichever daemon writes it down.
            assert!(!message.contains(&b'\n'), "{}", message.escape_ascii());
            let line = [message.as_slice(), b"\n"].concat();
            assert_clean("syslog", &line);
            assert!(message.starts_with(b"<"), "{}", message.escape_ascii());
        }
        run_each(TROUBLED, "losses", &module, module.latest.as_os_str());
    });
}

#[test]
fn the_client_tells_of_hostile_names_in_clean_lines() {
    if !root() || !have(&["rsync"]) {
        return;
    }
    with_each(|number, value| {
        let machine = Machine::new();
        let source = machine.source.join(os(&value));
        fs::create_dir(&source).expect("a directory");
        fs::write(source.join(os(&value)), "x").expect("a file");
        let at = |place: &Path| place.join(os(&value)).into_os_string();
        let remote = |before: &str| OsString::from_vec([before.as_bytes(), &value].concat());
        let latest = machine.directory.join(os(&value)).join("latest").into_os_string();
        let source = source.into_os_string();
        let lines = [
            vec![source.clone(), latest.clone()],
            vec![source.clone(), latest.clone()],
            vec!["--check".into(), source.clone(), latest.clone()],
            vec!["--dry-run".into(), source.clone(), latest.clone()],
            vec![latest.clone(), source.clone()],
            vec![at(Path::new("/nowhere")), latest.clone()],
            vec![source.clone(), at(Path::new("/nowhere"))],
            vec![source.clone(), remote("rsync://127.0.0.1:1/")],
            vec!["--check".into(), source.clone(), remote("127.0.0.1::")],
            vec![source.clone(), remote("")],
            vec!["--crypto".into(), os(&value).into(), source.clone(), latest.clone()],
            vec!["--mount".into(), at(Path::new("/mnt")), source.clone(), latest.clone()],
            vec!["--tunnel".into(), os(&value).into(), source.clone(), "localhost::x".into()],
            vec!["--ionice".into(), os(&value).into(), source.clone(), latest.clone()],
            vec!["--config".into(), at(&machine.directory), source.clone(), latest.clone()],
            vec![remote("--")],
            vec![os(&value).into(), os(&value).into(), os(&value).into()],
        ];
        for arguments in cases_of(number, lines) {
            let what = format!(
                "the client: {}",
                arguments.join(OsStr::new(" ")).as_bytes().escape_ascii()
            );
            let mut command =
                machine.backup_command(&["--disable-notifications", "--retries", "0"]);
            clean(&what, Run::of(command.args(&arguments)));
        }
    });
}
