//! Identifies a process beyond its number, since the kernel reuses numbers.
//!
//! A process is identified by the boot, its number, and the tick of that boot at which it started.
//! If the kernel has reused the number, the tick differs; after a crash of the machine, the boot
//! differs.

use std::cell::OnceCell;
use std::fs;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

use crate::decide::boot_time::BootTime;
use crate::decide::liveness::{EntryOrigin, Liveness, ProcessLookup, liveness};
use crate::system::boot::namespace_offset;
use crate::system::pid_namespace::PidNamespace;
use crate::system::small_file;
use crate::tell::error::{Error, Result};

/// A process of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// The kernel's random id of the boot.
    pub boot: String,
    /// The process number.
    pub pid: u32,
    /// When it started, in clock ticks since the boot, by the kernel's own clock.
    pub started_ticks: u64,
}

/// Of the ticks in `/proc/PID/stat`. There are 100 a second on each Linux that Rust supports; the
/// kernel's timer ticks (`decide::clock_tick`) are others.
const NANOSECONDS_PER_TICK: i64 = 10_000_000;

struct ProcessStat {
    is_dead: bool,
    parent: u32,
    started_ticks: u64,
}

impl Process {
    /// The process with this number, if it is alive.
    ///
    /// # Errors
    /// If it exists and cannot be read, or if `/proc` does not show this PID namespace.
    pub fn of(pid: u32) -> Result<Option<Self>> {
        check_proc()?;
        let stat = ProcessStat::read(pid)?.filter(|stat| !stat.is_dead);
        Ok(stat.map(|stat| Process {
            boot: BootTime::now().boot,
            pid,
            started_ticks: stat.started_ticks,
        }))
    }

    /// This process.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn own() -> Result<Option<Self>> {
        Process::of(std::process::id())
    }

    /// Whether the process is still alive. One that cannot be read counts as alive, since it must
    /// not be taken for dead.
    pub fn is_alive(&self) -> bool {
        Process::of(self.pid).map_or(true, |found| found.as_ref() == Some(self))
    }

    /// Whether the process is alive, if its entry was written at `origin`. `census` is used if the
    /// number belongs to another PID namespace.
    pub(crate) fn liveness(&self, origin: EntryOrigin, census: &Census) -> Liveness {
        let origin = match origin {
            EntryOrigin::Here if self.boot != BootTime::now().boot => EntryOrigin::EarlierBoot,
            origin => origin,
        };
        let found = match origin {
            EntryOrigin::Here if self.is_alive() => ProcessLookup::Running,
            EntryOrigin::Here => ProcessLookup::Gone,
            EntryOrigin::OtherNamespace => census.find(self),
            EntryOrigin::EarlierBoot | EntryOrigin::OtherMachine | EntryOrigin::Unclear => {
                ProcessLookup::NotSeen
            }
        };
        liveness(origin, found)
    }

    /// Whether a transfer is alive that `owner` and `worker` serve, if its entry was written at
    /// `origin`.
    pub(crate) fn liveness_of_any(
        owner: &Process,
        worker: Option<&Process>,
        origin: EntryOrigin,
        census: &Census,
    ) -> Liveness {
        let worker = worker.map(|worker| worker.liveness(origin, census));
        owner.liveness(origin, census).or(worker.unwrap_or(Liveness::Dead))
    }

    /// The process `pid`, which serves a connection of rsyncd, and the child of it that this
    /// process descends from: the one that transfers.
    ///
    /// # Errors
    /// As [`of`](Self::of), and [`Error::Environment`] if the connection has ended.
    pub(crate) fn of_connection(pid: u32) -> Result<(Self, Option<Self>)> {
        // This look-up comes first: once the connection's process is dead, this process no longer
        // descends from it.
        let worker = Process::branch_of(pid)?;
        let owner = Process::of(pid)?.ok_or_else(|| Error::Environment {
            variable: "RSYNC_PID",
            problem: format!("names process {pid}, which does not exist"),
        })?;
        Ok((owner, worker))
    }

    /// The child of `ancestor` that this process descends from, or is.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn branch_of(ancestor: u32) -> Result<Option<Self>> {
        check_proc()?;
        let mut pid = std::process::id();
        // More levels would mean a loop.
        for _ in 0..64 {
            let Some(stat) = ProcessStat::read(pid)? else { return Ok(None) };
            if stat.parent == ancestor {
                return Process::of(pid);
            }
            pid = stat.parent;
        }
        Ok(None)
    }
}

impl ProcessStat {
    fn read(pid: u32) -> Result<Option<Self>> {
        let path = format!("/proc/{pid}/stat");
        match small_file::read(&path) {
            Ok(bytes) => Ok(ProcessStat::parse(&bytes).map(ProcessStat::by_kernel_clock)),
            Err(cause) if cause.raw_os_error() == Some(libc::ENOENT) && exists(pid) => {
                // rsyncd's processes have capabilities that this process has given up.
                let hidden = "it is hidden: mount /proc without `hidepid` and `ProtectProc`";
                Err(Error::io("read", Path::new(&path), std::io::Error::other(hidden)))
            }
            Err(cause)
                if matches!(
                    cause.raw_os_error(),
                    Some(libc::ENOENT | libc::ESRCH | libc::EACCES)
                ) =>
            {
                Ok(None)
            }
            Err(cause) => Err(Error::io("read", Path::new(&path), cause)),
        }
    }

    /// Converts the start, which the kernel shows by the clock of the reader's time namespace.
    fn by_kernel_clock(self) -> Self {
        let offset = namespace_offset() / NANOSECONDS_PER_TICK;
        ProcessStat { started_ticks: self.started_ticks.saturating_add_signed(-offset), ..self }
    }

    /// The process name may hold any bytes, also blanks and parentheses. The other fields follow
    /// its last parenthesis.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end_of_name = bytes.iter().rposition(|byte| *byte == b')')?;
        let mut words =
            std::str::from_utf8(&bytes[end_of_name + 1..]).ok()?.split_ascii_whitespace();
        let state = words.next()?;
        let parent = words.next()?.parse().ok()?;
        // Field 22 of all, where the state is field 3 and the parent field 4.
        let started_ticks = words.nth(17)?.parse().ok()?;
        Some(ProcessStat { is_dead: matches!(state, "Z" | "X" | "x"), parent, started_ticks })
    }
}

/// Fails, with the remedy, if `/proc` does not show this PID namespace.
fn check_proc() -> Result<()> {
    let failed = |problem| Error::io("use", Path::new("/proc"), std::io::Error::other(problem));
    PidNamespace::own().map(drop).map_err(failed)
}

/// The processes of PID namespaces below this one, as `/proc` shows them here. They are read when
/// first asked for.
#[derive(Default)]
pub(crate) struct Census {
    nested: OnceCell<NestedProcesses>,
}

struct NestedProcesses {
    /// Number in the process's own namespace, and the tick at which it started.
    processes: Vec<(u32, u64)>,
    /// Whether these are all processes of the running kernel.
    is_whole: bool,
}

impl Census {
    /// Finds a process by number and start. This process lacks the capability to read which
    /// namespace another one is in.
    fn find(&self, process: &Process) -> ProcessLookup {
        let nested = self.nested.get_or_init(NestedProcesses::count);
        // The clock of another time namespace rounds the start differently.
        let is_it = |&(pid, start): &(u32, u64)| {
            pid == process.pid && start.abs_diff(process.started_ticks) <= 1
        };
        match nested.processes.iter().any(is_it) {
            true => ProcessLookup::Running,
            false if nested.is_whole => ProcessLookup::Gone,
            false => ProcessLookup::NotSeen,
        }
    }
}

impl NestedProcesses {
    fn count() -> Self {
        let Ok(entries) = fs::read_dir("/proc") else {
            return NestedProcesses { processes: Vec::new(), is_whole: false };
        };
        let numbers = entries.map_while(|entry| entry.ok()?.file_name().into_string().ok());
        let mut is_whole = true;
        let mut processes = Vec::new();
        for number in numbers.filter_map(|name| name.parse().ok()) {
            match NestedProcesses::look(number) {
                Ok(found) => processes.extend(found),
                Err(_) => is_whole = false,
            }
        }
        // If /proc hides processes of other users, it hides process 1.
        let shows_all = PidNamespace::own().is_ok_and(|side| side.sees_all())
            && Path::new("/proc/1/stat").exists();
        NestedProcesses { processes, is_whole: is_whole && shows_all }
    }

    /// None if the process is in this namespace, or has ended.
    fn look(pid: u32) -> Result<Option<(u32, u64)>> {
        let path = format!("/proc/{pid}/status");
        let status = match small_file::read(&path) {
            Ok(status) => status,
            Err(cause) if matches!(cause.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {
                return Ok(None);
            }
            Err(cause) => return Err(Error::io("read", Path::new(&path), cause)),
        };
        let Some(inner) = innermost_number(&status) else { return Ok(None) };
        let stat = ProcessStat::read(pid)?.filter(|stat| !stat.is_dead);
        Ok(stat.map(|stat| (inner, stat.started_ticks)))
    }
}

/// The number of a process in its own PID namespace, if that is below the one of `/proc`.
fn innermost_number(status: &[u8]) -> Option<u32> {
    // Only the process name, on another line, may be no text, and the kernel escapes its line
    // breaks.
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"NSpid:"))?;
    let numbers: Vec<&str> = std::str::from_utf8(line).ok()?.split_ascii_whitespace().collect();
    if numbers.len() < 2 { None } else { numbers.last()?.parse().ok() }
}

/// Whether a process with this number exists, whatever `/proc` shows.
fn exists(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| matches!(test_kill_process(pid), Ok(()) | Err(Errno::PERM)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_hides_nothing() {
        let line =
            b"4711 (a) Z 1 (\xff) b) S 42 4711 4711 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 100 200\n";
        let stat = ProcessStat::parse(line).expect("a line of /proc/PID/stat");
        assert_eq!((stat.is_dead, stat.parent, stat.started_ticks), (false, 42, 987_654));
        assert!(ProcessStat::parse(b"4711 (x) Z 42").is_none());
    }

    #[test]
    fn a_process_of_a_nested_namespace_shows_its_number_there() {
        assert_eq!(innermost_number(b"Name:\tx\\nNSpid:\t1\t2\nNSpid:\t4711\t7\n"), Some(7));
        assert_eq!(innermost_number(b"NSpid:\t4711\t30\t7\nx:\n"), Some(7));
        for none in [&b"Name:\tx\nNSpid:\t4711\n"[..], b"", b"NSpid:\n", b"NSpid:\t1\tx\n"] {
            assert_eq!(innermost_number(none), None);
        }
    }

    #[test]
    fn a_number_that_came_again_is_another_process() {
        let own = Process::own().expect("/proc").expect("this process");
        assert!(own.is_alive());
        assert!(!Process { started_ticks: own.started_ticks + 1, ..own.clone() }.is_alive());
        assert!(!Process { boot: "another".to_string(), ..own }.is_alive());
    }

    #[test]
    fn a_process_not_yet_waited_for_is_dead() {
        let mut child = std::process::Command::new("/bin/true").spawn().expect("a child");
        let process = Process::of(child.id()).expect("/proc");
        while Process::of(child.id()).expect("/proc").is_some() {
            std::thread::yield_now();
        }
        assert!(process.is_none_or(|process| !process.is_alive()));
        child.wait().expect("its status");
    }
}
