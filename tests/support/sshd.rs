//! A real sshd on a free loopback port, with keys of its own, on a [`Stage`]: what it runs sees the
//! stage's programs. Clients reach it by `RSYNC_RSH`, as a user's own settings would.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use super::BINARY;
use super::client::Stage;
use super::run::{Run, tool};
use super::tree;

pub(crate) struct Sshd {
    process: Child,
    directory: PathBuf,
}

impl Sshd {
    /// Starts it; `settings` are lines of its configuration.
    pub(crate) fn start(stage: &Stage, settings: &str) -> Sshd {
        Sshd::start_at(stage, "127.0.0.1", settings)
    }

    /// The same at another address of this machine. `server`, `gate` and the address itself lead
    /// there.
    pub(crate) fn start_at(stage: &Stage, address: &str, settings: &str) -> Sshd {
        let directory = stage.machine.directory.join("ssh");
        fs::create_dir_all(&directory).expect("a directory");
        tree::set_mode(&directory, 0o700);
        let path = |name: &str| directory.join(name).display().to_string();
        for name in ["host_key", "key"] {
            let mut keygen = tool("ssh-keygen");
            Run::of(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", &path(name)])).exits(&[0]);
        }
        fs::copy(path("key.pub"), path("authorized_keys")).expect("the key");
        // Where sshd wants to be locked in; Debian's service makes it, too.
        let _ = fs::create_dir("/run/sshd");
        let listener = TcpListener::bind((address, 0)).expect("a free port");
        let port = listener.local_addr().expect("its number").port();
        drop(listener);
        let config = format!(
            "Port {port}\nListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\n\
             StrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n{settings}\n",
            path("host_key"),
            path("authorized_keys")
        );
        fs::write(path("sshd_config"), config).expect("sshd_config");
        let public = fs::read_to_string(path("host_key.pub")).expect("the host's key");
        fs::write(path("known_hosts"), format!("test-server {public}")).expect("known_hosts");
        let client = format!(
            "Host server gate {address}\n    HostName {address}\n    Port {port}\n    User root\n    IdentityFile {}\n    \
             IdentitiesOnly yes\n    HostKeyAlias test-server\n    UserKnownHostsFile {}\n    \
             StrictHostKeyChecking yes\n    BatchMode yes\n",
            path("key"),
            path("known_hosts")
        );
        fs::write(path("config"), client).expect("the client's configuration");
        let log = fs::File::create(path("log")).expect("a log");
        let mut command = stage.enter();
        command.args(["/usr/sbin/sshd", "-D", "-e", "-f", &path("sshd_config")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        let process = command.spawn().expect("sshd");
        super::time::wait_until("sshd listens", || TcpStream::connect((address, port)).is_ok());
        Sshd { process, directory }
    }

    /// The value of `RSYNC_RSH` that leads to it as `server` and as `gate`.
    pub(crate) fn rsh(&self) -> String {
        format!("ssh -F {}", self.directory.join("config").display())
    }

    /// What it has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).expect("its log")
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let group = format!("kill -s KILL -- -{}", self.process.id());
        let _ = tool("sh").args(["-c", &group]).status();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("sshd:\n{}", self.log());
        }
    }
}

/// Installs rsyncd-snapshot on the stage, with the stage's policy and state.
pub(crate) fn install_snapshot_program(stage: &Stage) {
    let machine = stage.machine;
    let body = format!(
        "export RSYNCD_SNAPSHOT_STATE_DIRECTORY='{}' RSYNCD_SNAPSHOT_RUNTIME_DIRECTORY='{}'\nexec '{BINARY}' --config '{}' \"$@\"",
        machine.directory.join("server-state").display(),
        machine.directory.join("server-run").display(),
        machine.policy.display()
    );
    stage.script("rsyncd-snapshot", &body);
}
