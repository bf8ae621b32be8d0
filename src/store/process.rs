//! Which process somebody is, beyond its number: numbers come again.
//!
//! A process is known by the boot, its number and the tick of that boot at which it started. A number
//! that came again shows another tick, and after a crash of the machine the boot is another one.

use std::fs;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

use super::boot::BootTime;
use crate::tell::error::{Error, Result};

/// A process of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// The kernel's random id of the boot.
    pub boot: String,
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since the boot.
    pub started_ticks: u64,
}

/// What `/proc/PID/stat` says.
struct Stat {
    is_dead: bool,
    parent: u32,
    started_ticks: u64,
}

impl Process {
    /// The process with this number, if it lives; none where no process can be looked up.
    ///
    /// # Errors
    /// If it is there, and cannot be read.
    pub fn of(pid: u32) -> Result<Option<Self>> {
        let stat = Stat::read(pid)?.filter(|stat| !stat.is_dead);
        Ok(stat.map(|stat| Process { boot: BootTime::now().boot, pid, started_ticks: stat.started_ticks }))
    }

    /// This process.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn own() -> Result<Option<Self>> {
        Process::of(std::process::id())
    }

    /// Whether it still lives. Of one that cannot be read that is not known, and it must not pass for dead.
    pub fn is_alive(&self) -> bool {
        Process::of(self.pid).map_or(true, |found| found.as_ref() == Some(self))
    }

    /// The child of `ancestor` that this process descends from, or is.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn branch_of(ancestor: u32) -> Result<Option<Self>> {
        let mut pid = std::process::id();
        // More levels than that would be a loop.
        for _ in 0..64 {
            let Some(stat) = Stat::read(pid)? else { return Ok(None) };
            if stat.parent == ancestor {
                return Process::of(pid);
            }
            pid = stat.parent;
        }
        Ok(None)
    }
}

impl Stat {
    fn read(pid: u32) -> Result<Option<Self>> {
        let path = format!("/proc/{pid}/stat");
        match fs::read(&path) {
            Ok(bytes) => Ok(Stat::parse(&bytes)),
            Err(cause) if cause.raw_os_error() == Some(libc::ENOENT) && exists(pid) => {
                // rsyncd's processes have capabilities that this one has given up.
                let hidden = "it is hidden: mount /proc without `hidepid` and `ProtectProc`";
                Err(Error::io("read", Path::new(&path), std::io::Error::other(hidden)))
            }
            Err(cause) if matches!(cause.raw_os_error(), Some(libc::ENOENT | libc::ESRCH | libc::EACCES)) => {
                Ok(None)
            }
            Err(cause) => Err(Error::io("read", Path::new(&path), cause)),
        }
    }

    /// The name in it may hold anything, also blanks and parentheses; after the last one come numbers.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end_of_name = bytes.iter().rposition(|byte| *byte == b')')?;
        let mut words = std::str::from_utf8(&bytes[end_of_name + 1..]).ok()?.split_ascii_whitespace();
        let state = words.next()?;
        let parent = words.next()?.parse().ok()?;
        // Field 22 of all, where the state is field 3 and the parent field 4.
        let started_ticks = words.nth(17)?.parse().ok()?;
        Some(Stat { is_dead: matches!(state, "Z" | "X" | "x"), parent, started_ticks })
    }
}

/// Whether there is a process of that number, whatever `/proc` shows.
fn exists(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    Path::new("/proc/self").exists()
        && pid.is_some_and(|pid| matches!(test_kill_process(pid), Ok(()) | Err(Errno::PERM)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_hides_nothing() {
        let line =
            b"4711 (a) Z 1 (\xff) b) S 42 4711 4711 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 100 200\n";
        let stat = Stat::parse(line).expect("a line of /proc/PID/stat");
        assert_eq!((stat.is_dead, stat.parent, stat.started_ticks), (false, 42, 987_654));
        assert!(Stat::parse(b"4711 (x) Z 42").is_none());
    }

    #[test]
    fn a_number_that_came_again_is_another_process() {
        let own = Process::own().expect("/proc").expect("this process");
        assert!(own.is_alive());
        assert!(!Process { started_ticks: own.started_ticks + 1, ..own.clone() }.is_alive());
        assert!(!Process { boot: "another".to_string(), ..own }.is_alive());
    }

    #[test]
    fn a_process_that_nobody_has_waited_for_is_dead() {
        let mut child = std::process::Command::new("/bin/true").spawn().expect("a child");
        let process = Process::of(child.id()).expect("/proc");
        while Process::of(child.id()).expect("/proc").is_some() {
            std::thread::yield_now();
        }
        assert!(process.is_none_or(|process| !process.is_alive()));
        child.wait().expect("its status");
    }
}
