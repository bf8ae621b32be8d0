//! `rsync-system-backup` on a machine of its own: its lock, its state and, where a test needs it,
//! its own `/etc`, `/dev` and programs, in a mount namespace that ends with the run.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::run::{PATH, Run, tool};
use super::server::Server;
use super::tree;

pub(crate) const BACKUP_BINARY: &str = env!("CARGO_BIN_EXE_rsync-system-backup");

/// Moments in the past: rsync takes times within one second for equal.
const OLD: &str = "2026-01-02 03:04:05.678901234";

/// A machine that is backed up.
pub(crate) struct Machine {
    pub(crate) server: Server,
    /// The source: notes, a directory and a link, as in the tests of the Python program.
    pub(crate) source: PathBuf,
    /// The destination.
    pub(crate) latest: PathBuf,
}

impl Deref for Machine {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Machine {
    pub(crate) fn new() -> Machine {
        let server = Server::new();
        let source = server.directory.join("source");
        let latest = server.directory.join("backups/latest");
        fs::create_dir_all(source.join("subdirectory")).expect("a source");
        tree::write(&source.join("notes.txt"), "This file should be included in the backup.\n");
        std::os::unix::fs::symlink("../include-me.txt", source.join("subdirectory/symbolic-link"))
            .expect("a link");
        let machine = Machine { server, source, latest };
        machine.age_source();
        machine
    }

    /// Gives all directories and files of the source a time in the past.
    pub(crate) fn age_source(&self) {
        let touch = "find \"$1\" -exec touch --no-dereference --date=\"$2\" {} +";
        Run::of(tool("sh").args(["-c", touch, "sh"]).arg(&self.source).arg(OLD)).exits(&[0]);
    }

    /// The program with `arguments`, in the environment of this machine only.
    pub(crate) fn backup_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BACKUP_BINARY);
        self.prepare_backup(&mut command);
        // So that all messages go to standard error, with and without a syslog.
        command.arg("-v");
        // An ordinary user has no sudo to run tests with.
        if !super::is_root() {
            command.arg("--no-sudo");
        }
        command.args(arguments);
        command
    }

    /// Gives `command` the environment of this machine.
    pub(crate) fn prepare_backup(&self, command: &mut Command) {
        command.env_clear().env("PATH", PATH).env("HOME", &self.directory).env("LC_ALL", "C");
        command.env("RSYNCD_SNAPSHOT_STATE_DIRECTORY", self.state_directory());
        command.env("RSYNCD_SNAPSHOT_RUNTIME_DIRECTORY", self.runtime_directory());
        command.stdin(std::process::Stdio::null()).current_dir("/");
    }

    pub(crate) fn backup(&self, arguments: &[&str]) -> Run {
        Run::of(&mut self.backup_command(arguments))
    }

    /// Backs up the source to `destination`.
    pub(crate) fn back_up_to(&self, destination: &str, options: &[&str]) -> Run {
        let source = self.source.to_str().expect("UTF-8");
        let fixed = ["--disable-notifications", "--config", self.policy.to_str().expect("UTF-8")];
        self.backup(&[&fixed, options, &[source, destination]].concat())
    }

    /// Backs up the source to the local destination.
    pub(crate) fn back_up(&self, options: &[&str]) -> Run {
        self.back_up_to(self.latest.to_str().expect("UTF-8"), options)
    }

    /// The names of the snapshots beside the local destination.
    pub(crate) fn snapshots(&self) -> Vec<String> {
        match self.latest.parent() {
            Some(parent) if parent.exists() => super::module::visible(parent),
            _ => Vec::new(),
        }
    }

    /// Fails unless `directory` is a backup of the source as [`Machine::new`] made it.
    #[track_caller]
    pub(crate) fn verify(&self, directory: &Path) {
        let notes = fs::read_to_string(directory.join("notes.txt")).expect("the notes");
        assert_eq!(notes, "This file should be included in the backup.\n");
        assert!(directory.join("subdirectory").is_dir());
        assert!(directory.join("subdirectory/symbolic-link").is_symlink());
        let contents = super::fingerprint::contents;
        assert_eq!(
            contents(&self.source),
            contents(directory),
            "source and {}",
            directory.display()
        );
    }
}

/// Directories of the test that are mounted over those of the machine while a program runs.
pub(crate) struct Stage<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) directory: PathBuf,
}

impl<'a> Stage<'a> {
    /// `/etc` with accounts and nothing else, `/usr/local/sbin` empty, `/dev` with the usual
    /// devices and an empty `mapper`.
    pub(crate) fn new(machine: &'a Machine) -> Stage<'a> {
        let directory = machine.directory.join("stage");
        for name in ["etc", "sbin", "dev", "mapper", "mnt"] {
            fs::create_dir_all(directory.join(name)).expect("a directory of the stage");
        }
        for name in ["passwd", "group", "nsswitch.conf", "hosts", "ld.so.cache", "localtime"] {
            let from = Path::new("/etc").join(name);
            if from.exists() {
                fs::copy(from, directory.join("etc").join(name)).expect("a copy");
            }
        }
        let stage = Stage { machine, directory };
        // An account without a password is not a locked one.
        stage.write("shadow", "root:x:20000:0:99999:7:::\nnobody:x:20000:0:99999:7:::\n");
        stage.write("fstab", "");
        stage.write("crypttab", "");
        stage
    }

    /// Writes a file of `/etc`.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.directory.join("etc").join(name), text).expect("a file of /etc");
    }

    /// Installs a shell script that is found before the machine's program of this name. The script
    /// first logs its command line.
    pub(crate) fn script(&self, name: &str, body: &str) {
        let path = self.directory.join("sbin").join(name);
        let stage = self.directory.display();
        let text =
            format!("#!/bin/sh\nstage='{stage}'\necho \"{name} $*\" >> '{stage}/log'\n{body}\n");
        fs::write(&path, text).expect("a script");
        tree::set_mode(&path, 0o755);
    }

    /// Returns the command lines that the scripts logged, and clears the log.
    pub(crate) fn log(&self) -> Vec<String> {
        let path = self.directory.join("log");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        text.lines().map(str::to_string).collect()
    }

    /// The arguments of `unshare` that set up the stage. A program and its arguments follow.
    pub(crate) fn enter(&self) -> Command {
        let script = "set -e
            mount -t tmpfs -o mode=0755 none \"$1/dev\"
            for node in null zero full random urandom tty ptmx loop-control; do cp -a /dev/$node \"$1/dev/\"; done
            for node in /dev/loop[0-9]*; do [ ! -e \"$node\" ] || cp -a \"$node\" \"$1/dev/\"; done
            mkdir \"$1/dev/pts\" \"$1/dev/shm\" \"$1/dev/mapper\"
            mount --bind /dev/pts \"$1/dev/pts\"
            mount --bind \"$1/mapper\" \"$1/dev/mapper\"
            mount --bind \"$1/etc\" /etc
            mount --bind \"$1/sbin\" /usr/local/sbin
            mount --rbind \"$1/dev\" /dev
            shift
            exec env --default-signal=INT,HUP,QUIT \"$@\"";
        let mut command = tool("unshare");
        self.machine.prepare_backup(&mut command);
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
            .arg(&self.directory);
        command
    }

    /// The program on the stage.
    pub(crate) fn backup_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.enter();
        command
            .arg(BACKUP_BINARY)
            .args(["-v", "--config"])
            .arg(&self.machine.policy)
            .args(arguments);
        command
    }

    pub(crate) fn backup(&self, arguments: &[&str]) -> Run {
        Run::of(&mut self.backup_command(arguments))
    }

    /// The path of something on the stage.
    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }
}
