//! Which process somebody is, beyond its number: numbers come again.
//!
//! A process is known by the boot, its number and the tick of that boot at which it started. A number
//! that came again shows another tick, and after a crash of the machine the boot is another one.

use std::fs;

use serde::{Deserialize, Serialize};

use super::boot::BootTime;

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
    /// The process with this number, if it lives.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = Stat::read(pid).filter(|stat| !stat.is_dead)?;
        Some(Process { boot: BootTime::now().boot, pid, started_ticks: stat.started_ticks })
    }

    /// This process.
    pub fn own() -> Option<Self> {
        Process::of(std::process::id())
    }

    /// Whether it still lives.
    pub fn is_alive(&self) -> bool {
        Process::of(self.pid).as_ref() == Some(self)
    }

    /// The child of `ancestor` that this process descends from, or is.
    pub fn branch_of(ancestor: u32) -> Option<Self> {
        let mut pid = std::process::id();
        // More levels than that would be a loop.
        for _ in 0..64 {
            let parent = Stat::read(pid)?.parent;
            if parent == ancestor {
                return Process::of(pid);
            }
            pid = parent;
        }
        None
    }
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
        Stat::parse(&bytes)
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
        let own = Process::own().expect("this process");
        assert!(own.is_alive());
        assert!(!Process { started_ticks: own.started_ticks + 1, ..own.clone() }.is_alive());
        assert!(!Process { boot: "another".to_string(), ..own }.is_alive());
    }

    #[test]
    fn a_process_that_nobody_has_waited_for_is_dead() {
        let mut child = std::process::Command::new("/bin/true").spawn().expect("a child");
        let process = Process::of(child.id());
        while Process::of(child.id()).is_some() {
            std::thread::yield_now();
        }
        assert!(process.is_none_or(|process| !process.is_alive()));
        child.wait().expect("its status");
    }
}
