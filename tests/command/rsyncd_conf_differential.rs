//! The reader of rsyncd.conf beside the real rsync daemon, on random files: which modules there
//! are, whether a client may write to them, where they are and which hooks run.
//!
//! One daemon reads the file anew for each connection. The test speaks rsync's protocol itself as
//! far as the first answer to a push, which is all that is needed and takes a millisecond.

use crate::support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use rsyncd_snapshot::internals::RsyncdConf;
use support::daemon::Daemon;
use support::random::Random;
use support::server::Server;
use support::time::wait_until;
use support::{by_sweep, have, is_root};

/// What a module of one file is to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Served {
    /// rsync knows no such module, or cannot read the file.
    No,
    /// The module has no path, or one that does not exist. In the latter case post-xfer runs.
    Unusable { hooks: Vec<String> },
    Yes {
        is_writable: bool,
        /// What the hooks have noted: which one, and the module's path.
        hooks: Vec<String>,
    },
}

/// Names as clients give them; sections are written with odd blanks and cases of them.
const NAMES: [&str; 6] = ["a", "A", "b", "two words", "twowords", "c d e"];

struct Writer {
    random: Random,
    directory: String,
    /// The number of the file, in the hooks.
    number: usize,
    hooks: usize,
    files: usize,
    depth: usize,
    included: Vec<(String, String)>,
}

impl Writer {
    fn pick(&mut self, words: &[&str]) -> String {
        self.random.of(words).expect("a word").to_string()
    }

    /// A file of some lines.
    fn text(&mut self, lines: usize) -> String {
        (0..lines).map(|_| self.line()).collect()
    }

    fn line(&mut self) -> String {
        let lead = self.pick(&["", "", "  ", "\t"]);
        let end = self.pick(&["\n", "\n", "\n", " \n", "\r\n"]);
        let text = match self.random.below(20) {
            0..5 => self.header(),
            5..15 => self.parameter(),
            15 => self.pick(&["# a comment \\", "; another", "", "\\", "words alone", "#"]),
            16 => {
                self.pick(&["strange = 1", "list = no", "port = 1", "comment = x # y", "&include"])
            }
            17..19 if self.depth < 2 => self.directive(),
            _ => self.parameter(),
        };
        format!("{lead}{text}{end}")
    }

    fn header(&mut self) -> String {
        let name = self.pick(&[
            "a",
            "A",
            " a ",
            "b",
            "two words",
            "two  \t words",
            "TwoWords",
            "c d e",
            "c \\\n d e",
            "global",
            "GLO BAL",
            "a",
            "b",
        ]);
        let rest = self.pick(&["", "", "", " # ignored", " read only = no"]);
        format!("[{name}]{rest}")
    }

    fn parameter(&mut self) -> String {
        let equals = self.pick(&["=", " = ", " =", "= ", " \\\n = "]);
        match self.random.below(9) {
            0..3 => {
                let name =
                    self.pick(&["read only", "Read Only", "readonly", "READ\tONLY", "read_only"]);
                let value = self.pick(&[
                    "no",
                    "yes",
                    "NO",
                    "True",
                    "false",
                    "1",
                    "0",
                    "n o",
                    "no # really",
                    "nope",
                    "",
                    "ye\\\ns",
                    "-1",
                    "unset",
                ]);
                format!("{name}{equals}{value}")
            }
            3..5 => {
                let directory = self.pick(&[
                    "one",
                    "two",
                    "one/../two",
                    "./one/",
                    "missing",
                    "%RSYNC_MODULE_NAME%",
                ]);
                format!("path{equals}{}/{directory}", self.directory)
            }
            5 => {
                let name = self.pick(&["write only", "use chroot", "max connections", "timeout"]);
                format!("{name}{equals}0")
            }
            _ => {
                let (name, what) = match self.random.once_in(2) {
                    true => {
                        (self.pick(&["post-xfer exec", "Post-Xfer  Exec", "post-xferexec"]), "post")
                    }
                    false => {
                        (self.pick(&["pre-xfer exec", "PRE-XFER EXEC", "pre xfer exec"]), "pre")
                    }
                };
                self.hooks += 1;
                if self.random.once_in(6) {
                    return format!("{name}{equals}");
                }
                // A continued line, at times.
                let gap = self.pick(&[" ", " ", " \\\n "]);
                format!(
                    "{name}{equals}{}/note {what}{gap}{} {}",
                    self.directory, self.number, self.hooks
                )
            }
        }
    }

    fn directive(&mut self) -> String {
        let (directive, suffix) =
            if self.random.once_in(2) { ("include", "conf") } else { ("merge", "inc") };
        let word = match self.random.below(3) {
            0 => format!("&{directive} "),
            1 => format!("&{}\t = ", directive.to_uppercase()),
            _ => format!("&{directive}="),
        };
        self.depth += 1;
        self.files += 1;
        let name = format!("{}-{}", self.number, self.files);
        let target = if self.random.once_in(3) {
            let lines = self.random.below(4);
            let first = self.text(lines);
            let lines = self.random.below(4);
            let second = self.text(lines);
            self.included.push((format!("{name}/1.{suffix}"), first));
            self.included.push((format!("{name}/2.{suffix}"), second));
            self.included.push((format!("{name}/3.other"), "[no".to_string()));
            if self.random.once_in(4) {
                self.included.push((format!("{name}/4.{suffix}/directory"), String::new()));
            }
            name
        } else {
            let lines = self.random.below(6);
            let mark = self.pick(&["", "", "", "\u{feff}"]);
            let text = self.text(lines);
            self.included.push((format!("{name}.file"), format!("{mark}{text}")));
            format!("{name}.file")
        };
        self.depth -= 1;
        format!("{word}{}/{target}", self.directory)
    }
}

/// What the reader says.
fn read(conf: &Result<RsyncdConf, impl std::fmt::Debug>, name: &str, number: usize) -> Served {
    let Some(module) = conf.as_ref().ok().and_then(|conf| conf.module(name.as_bytes())) else {
        return Served::No;
    };
    let Ok(path) = module.path() else { return Served::Unusable { hooks: Vec::new() } };
    let hook = |parameter: &str| {
        let command = module.get(parameter).filter(|command| !command.is_empty())?;
        let command = String::from_utf8(command.to_vec()).expect("text");
        let words: Vec<&str> = command.split_whitespace().skip(1).collect();
        assert_eq!(words[1], number.to_string());
        Some(format!("{} {} {name} {}", words[0], words[2], path.display()))
    };
    if !path.is_dir() {
        return Served::Unusable { hooks: hook("post-xfer exec").into_iter().collect() };
    }
    let hooks = [hook("post-xfer exec"), hook("pre-xfer exec")];
    let is_writable = module.get("read only").is_some_and(|value| {
        let value: String = String::from_utf8_lossy(value).split_whitespace().collect();
        ["no", "false", "0"].contains(&value.to_lowercase().as_str())
    });
    let mut hooks: Vec<String> = hooks.into_iter().flatten().collect();
    hooks.sort();
    Served::Yes { is_writable, hooks }
}

/// Asks the daemon to take a push, and hangs up.
fn ask(port: &str, name: &str) -> Served {
    let mut connection = TcpStream::connect(port).expect("the daemon");
    connection.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
    let mut line = String::new();
    let mut next = |connection: &mut TcpStream| {
        line.clear();
        let mut byte = [0];
        while connection.read(&mut byte).is_ok_and(|count| count == 1) && byte[0] != b'\n' {
            line.push(char::from(byte[0]));
        }
        line.clone()
    };
    let greeting = next(&mut connection);
    if !greeting.starts_with("@RSYNCD: ") {
        return Served::No;
    }
    let asked = connection.write_all(format!("@RSYNCD: 29.0\n{name}\n").as_bytes());
    let answer = next(&mut connection);
    if asked.is_err() || answer.starts_with("@ERROR: Unknown module") || answer.is_empty() {
        return Served::No;
    }
    if answer.starts_with("@ERROR") {
        return Served::Unusable { hooks: Vec::new() };
    }
    assert_eq!(answer, "@RSYNCD: OK");
    let arguments = format!("--server\n-r\n.\n{name}/\n\n");
    connection.write_all(arguments.as_bytes()).expect("arguments");
    let _ = connection.shutdown(std::net::Shutdown::Write);
    let mut rest = Vec::new();
    let _ = connection.read_to_end(&mut rest);
    let refusal = b"module is read only";
    let is_writable = !rest.windows(refusal.len()).any(|part| part == refusal);
    Served::Yes { is_writable, hooks: Vec::new() }
}

#[test]
fn random_files_mean_to_the_reader_what_they_mean_to_rsync() {
    slow!();
    if !have(&["rsync"]) {
        return;
    }
    let server = Server::new();
    let directory = server.directory.display().to_string();
    for name in ["one", "two", "b"] {
        fs::create_dir(server.directory.join(name)).expect("a module");
    }
    // Each hook notes itself in a file of the configuration's number.
    let line = "$1 $3 $RSYNC_MODULE_NAME $RSYNC_MODULE_PATH";
    let note =
        format!("#!/bin/sh\necho \"{line}\" >> \"{directory}/notes-$2-$RSYNC_MODULE_NAME\"\n");
    fs::write(server.directory.join("note"), note).expect("a hook");
    support::tree::set_mode(&server.directory.join("note"), 0o755);
    let account = if is_root() { "uid = root\ngid = root\n" } else { "" };
    let first = format!("use chroot = no\n{account}reverse lookup = no\n");
    server.write_rsyncd_conf(&first);
    let daemon = Daemon::serve(&server);
    let url = daemon.url("");
    let port = url.trim_start_matches("rsync://").trim_end_matches('/').to_string();

    let seed = std::env::var("RSYNCD_SNAPSHOT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or(20);
    let count = by_sweep(100, 150, 20_000);
    let mut expected: BTreeMap<(usize, String), (Served, String)> = BTreeMap::new();
    let (mut served, mut writable, mut refused) = (0, 0, 0);
    for number in 0..count {
        let mut writer = Writer {
            random: Random::new(seed.wrapping_mul(1_000_003).wrapping_add(number as u64)),
            directory: directory.clone(),
            number,
            hooks: 0,
            files: 0,
            depth: 0,
            included: Vec::new(),
        };
        let lines = 4 + writer.random.below(16);
        let text = format!("{first}{}", writer.text(lines));
        for (name, text) in &writer.included {
            let file = server.directory.join(name);
            fs::create_dir_all(file.parent().expect("a parent")).expect("a directory");
            fs::write(file, text).expect("an included file");
        }
        server.write_rsyncd_conf(&text);
        let conf = RsyncdConf::read(&server.rsyncd_conf);
        refused += usize::from(conf.is_err());
        for name in NAMES {
            let reading = read(&conf, name, number);
            let included = &writer.included;
            let told = || format!("seed {seed}, file {number}:\n{text}\n{included:#?}\n{name}");
            match (&reading, ask(&port, name)) {
                (Served::Yes { is_writable, .. }, Served::Yes { is_writable: truly, .. }) => {
                    assert_eq!(*is_writable, truly, "{}", told());
                    served += 1;
                    writable += usize::from(truly);
                }
                (Served::Unusable { .. }, Served::Unusable { .. }) => {}
                (reading, answer) => assert_eq!(*reading, answer, "{}", told()),
            }
            expected.insert((number, name.to_string()), (reading, text.clone()));
        }
    }
    println!("{served} modules of {count} files, {writable} of them writable, {refused} refused");
    assert!(served * 2 > count && writable * 10 > served && refused > 0);
    await_hooks(&server.directory, &expected);
}

/// Compares what the hooks have noted, once the last ones have ended.
fn await_hooks(directory: &Path, expected: &BTreeMap<(usize, String), (Served, String)>) {
    let noted = |number: usize, name: &str| {
        let text = fs::read_to_string(directory.join(format!("notes-{number}-{name}")));
        let mut lines: Vec<String> = text.unwrap_or_default().lines().map(str::to_string).collect();
        lines.sort();
        lines
    };
    for ((number, name), (reading, text)) in expected {
        let hooks = match reading {
            Served::Yes { hooks, .. } | Served::Unusable { hooks } => hooks.clone(),
            Served::No => Vec::new(),
        };
        let is_late = || noted(*number, name).len() < hooks.len();
        if is_late() {
            wait_until(&format!("the hooks of {name} in file {number}:\n{text}"), || !is_late());
        }
        assert_eq!(noted(*number, name), hooks, "file {number}, module {name}:\n{text}");
    }
}
