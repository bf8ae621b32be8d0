//! A backup server in a scratch directory: policy, `rsyncd.conf`, and the directories where the
//! program remembers things, so that no run touches those of the machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::run::{PATH, Run, tool};
use super::{BINARY, is_root};

/// A policy that expires nothing unless a test asks for it, and in which no run waits long.
pub(crate) const QUIET_POLICY: &str = "[defaults]\nlock_wait = \"20s\"\n";

pub(crate) struct Server {
    pub(crate) directory: PathBuf,
    /// Our program, or a copy of it where others may run it.
    pub(crate) program: PathBuf,
    pub(crate) policy: PathBuf,
    pub(crate) rsyncd_conf: PathBuf,
    scratch: TempDir,
    is_kept: bool,
}

impl Server {
    pub(crate) fn new() -> Server {
        // Readable by all, for the tests that run as another user.
        let scratch = tempfile::Builder::new()
            .prefix("rsyncd-snapshot-test-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .expect("a scratch directory");
        let directory = scratch.path().canonicalize().expect("the scratch directory");
        let server = Server {
            program: PathBuf::from(BINARY),
            policy: directory.join("policy.toml"),
            rsyncd_conf: directory.join("rsyncd.conf"),
            directory,
            scratch,
            is_kept: false,
        };
        for directory in [server.state_directory(), server.runtime_directory()] {
            fs::create_dir_all(directory).expect("a directory of the server");
        }
        server.write_policy(QUIET_POLICY);
        server.write_rsyncd_conf("");
        server
    }

    pub(crate) fn state_directory(&self) -> PathBuf {
        self.directory.join("state")
    }

    pub(crate) fn runtime_directory(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// Keeps the scratch directory for inspection, and returns it.
    pub(crate) fn keep(&mut self) -> &Path {
        self.scratch.disable_cleanup(true);
        self.is_kept = true;
        &self.directory
    }

    pub(crate) fn write_policy(&self, text: &str) {
        fs::write(&self.policy, text).expect("the policy");
    }

    pub(crate) fn write_rsyncd_conf(&self, text: &str) {
        fs::write(&self.rsyncd_conf, text).expect("rsyncd.conf");
    }

    /// The program with `arguments`, in the environment of this server only.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        self.prepare(&mut command);
        command.args(arguments);
        command
    }

    /// Gives `command`, whose last argument so far is our program, the options and the
    /// environment of this server.
    pub(crate) fn prepare(&self, command: &mut Command) {
        command.env_clear().env("PATH", PATH).env("HOME", "/").env("LC_ALL", "C");
        // Where a program that is built to measure what tests cover writes what it has counted.
        if let Some(file) = std::env::var_os("LLVM_PROFILE_FILE") {
            command.env("LLVM_PROFILE_FILE", file);
        }
        command.env("RSYNCD_SNAPSHOT_STATE_DIRECTORY", self.state_directory());
        command.env("RSYNCD_SNAPSHOT_RUNTIME_DIRECTORY", self.runtime_directory());
        command.arg("--config").arg(&self.policy).arg("--rsyncd-conf").arg(&self.rsyncd_conf);
        command.current_dir("/");
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        Run::of(&mut self.command(arguments))
    }

    /// The JSON of a command that is expected to succeed, with warnings or without.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        self.run(arguments).exits(&[0, 4]).json()
    }
}

impl Drop for Server {
    /// Makes the scratch directory removable: an ordinary user cannot empty a read-only one.
    fn drop(&mut self) {
        // Most tests have none.
        if !is_root() && !self.is_kept && fs::remove_dir_all(&self.directory).is_err() {
            let _ = tool("chmod").args(["-R", "u+rwX"]).arg(&self.directory).status();
        }
    }
}
