//! What rsync's exit statuses mean to the administrator of the server, for messages.
//!
//! The daemon gives its hooks the status of its own side. It may differ from the client's: if a
//! source on the command line does not exist, the client ends with 23 and the daemon with 0.

use std::fmt;

use crate::decide::free_space::bytes_text;

/// A status that rsync ends with; as text, the number with its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RsyncStatus(pub i32);

/// Stands for the status of a push after which no hook ran. No rsync ends with it.
pub const NO_HOOK: i32 = -2;

/// rsync's status after an error in file I/O.
const FILE_IO: i32 = 11;

/// rsync's statuses as its manual lists them, with what leads to them on a server.
const MEANINGS: [(i32, &str); 24] = [
    (0, "ended well"),
    (1, "a mistake in the command line, or the module may only be read"),
    (2, "the two rsyncs speak different protocols"),
    (3, "an input or output file or directory could not be used"),
    (4, "an option was refused, or a hook turned the client away"),
    (5, "the protocol could not start, as after a wrong password"),
    (6, "the daemon cannot write its log file"),
    (10, "error in socket I/O, the network failed"),
    (FILE_IO, "error in file I/O, often a full disk"),
    (12, "the connection broke, or the client was stopped"),
    (13, "rsync could not write its own messages"),
    (14, "rsync's own processes could not talk to each other"),
    (19, "rsync got the signal SIGUSR1"),
    (20, "the client or its user stopped rsync by a signal"),
    (21, "rsync could not wait for one of its processes"),
    (22, "out of memory"),
    (23, "some files could not be read or written"),
    (24, "some files vanished while the client read them"),
    (25, "--max-delete kept files from being deleted"),
    (30, "timeout, nothing came from the other side for too long"),
    (35, "timeout while connecting to the daemon"),
    (124, "the remote command failed"),
    (127, "the remote command was not found"),
    (255, "often rsyncd refused the connection before the transfer; its log says why"),
];

impl RsyncStatus {
    /// What the status means; none for a number that rsync's manual does not list. A negative
    /// number does not come from rsync: rsyncd gives it to the hook if a signal killed the process
    /// that transferred, and this program notes it if no hook ran.
    pub fn meaning(self) -> Option<&'static str> {
        match self.0 {
            NO_HOOK => Some("the hook after it did not run"),
            ..0 => Some("its process was killed, or its end is not known"),
            status => MEANINGS.iter().find(|(known, _)| *known == status).map(|(_, text)| *text),
        }
    }

    /// The status as text, with the space that was free on the disk where that matters.
    pub fn with_space(self, free_bytes: Option<u64>) -> String {
        match free_bytes.filter(|_| self.0 == FILE_IO) {
            Some(free) => format!("{self}; {} free", bytes_text(free)),
            None => self.to_string(),
        }
    }
}

impl fmt::Display for RsyncStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.meaning() {
            Some(meaning) if self.0 == NO_HOOK => write!(f, "an unknown status: {meaning}"),
            Some(meaning) => write!(f, "status {}: {meaning}", self.0),
            None => write!(f, "status {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_told_with_its_meaning() {
        assert_eq!(RsyncStatus(77).to_string(), "status 77");
        assert_eq!(RsyncStatus(22).to_string(), "status 22: out of memory");
        assert!(RsyncStatus(-1).to_string().starts_with("status -1: its process was killed"));
        let unseen = RsyncStatus(NO_HOOK).to_string();
        assert_eq!(unseen, "an unknown status: the hook after it did not run");
        let full = RsyncStatus(11).with_space(Some(4 << 20));
        assert_eq!(full, "status 11: error in file I/O, often a full disk; 4 MiB free");
        assert_eq!(RsyncStatus(12).with_space(Some(1)), RsyncStatus(12).to_string());
        let numbers: Vec<i32> = MEANINGS.iter().map(|(status, _)| *status).collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
    }
}
