//! The processes of a server: its daemon, their connections, and our program.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::BINARY;
use crate::support::server::Server;

/// The role of a process on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The listening daemon, a connection, or what transfers for it.
    Rsync,
    PreXfer,
    PostXfer,
    /// Our program, run by hand or by the timer.
    Command,
    Shell,
}

#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) role: Role,
    pub(crate) line: String,
}

impl Process {
    pub(crate) fn is_hook(&self) -> bool {
        matches!(self.role, Role::PreXfer | Role::PostXfer)
    }
}

/// What a server runs besides our program.
const SHARED: [&str; 4] = ["rsync", "sh", "dash", "bash"];

/// The processes with the environment of this server: its daemon and all of its children.
pub(crate) fn of(server: &Server) -> Vec<Process> {
    let mark = format!("RSYNCD_SNAPSHOT_STATE_DIRECTORY={}", server.state_directory().display());
    let numbers = fs::read_dir("/proc").expect("/proc").flatten();
    numbers
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| describe(pid, mark.as_bytes()))
        .collect()
}

/// Sends a signal. The process may have ended meanwhile.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
}

/// Waits until only the process `daemon` is left. Returns those that do not end.
pub(crate) fn await_quiet(server: &Server, daemon: u32, patience: Duration) -> Vec<Process> {
    let deadline = Instant::now() + patience;
    loop {
        let left: Vec<_> = of(server).into_iter().filter(|process| process.pid != daemon).collect();
        if left.is_empty() || Instant::now() >= deadline {
            return left;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn has(pid: u32, mark: &[u8]) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == mark)
}

fn describe(pid: u32, mark: &[u8]) -> Option<Process> {
    // Cheaper than reading the environment of each process, and called often.
    let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let is_candidate =
        program == Path::new(BINARY) || SHARED.iter().any(|name| program.ends_with(name));
    if !is_candidate || !has(pid, mark) {
        return None;
    }
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    let role = match (program == Path::new(BINARY), program.file_name()?.to_str()?) {
        (true, _) if line.contains(" pre-xfer") => Role::PreXfer,
        (true, _) if line.contains(" post-xfer") => Role::PostXfer,
        (true, _) => Role::Command,
        (false, "rsync") => Role::Rsync,
        (false, _) => Role::Shell,
    };
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let parent = status.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(Process { pid, parent, role, line })
}
