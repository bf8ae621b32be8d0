//! How long a client may wait at the gate, and whether its connection has ended.
//!
//! A client with `--timeout` gives up when it receives nothing for that long, and the only message
//! that pre-xfer can send is a refusal. So a push waits at the gate for less than the timeout, and
//! is then refused.
//!
//! A hook inherits the connection's socket from rsyncd. It is descriptor 4 of rsync 3.2.7 and
//! 3.5.0, but may have any number. Over `rsync -e ssh` there is no socket: rsync has replaced
//! standard input and output by its pipes, and standard error leads to the client.

use std::fs;
use std::io::stderr;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::parent_id;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// At least this much of the client's timeout is left, so that the refusal arrives in time.
const MIN_MARGIN: Duration = Duration::from_secs(1);

/// How long the gate may keep a client that gives up after `timeout_seconds`: a fifth less, and at
/// least one second less.
pub(crate) fn wait_within(timeout_seconds: u64) -> Duration {
    let timeout = Duration::from_secs(timeout_seconds);
    timeout.saturating_sub(MIN_MARGIN.max(timeout / 5))
}

/// A client that waits, by the inherited descriptors of its connection.
pub(crate) struct WaitingClient {
    sockets: Vec<OwnedFd>,
    parent: u32,
}

impl WaitingClient {
    pub(crate) fn new() -> Self {
        WaitingClient { sockets: sockets(), parent: parent_id() }
    }

    /// Waits for `pause`. Returns whether the connection, or the process that serves it, has ended.
    pub(crate) fn is_gone_after(&self, pause: Duration) -> bool {
        let errors = stderr();
        let mut watched: Vec<PollFd> =
            self.sockets.iter().map(|socket| PollFd::new(socket, PollFlags::RDHUP)).collect();
        if watched.is_empty() {
            watched.push(PollFd::from_borrowed_fd(errors.as_fd(), PollFlags::empty()));
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(pause.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: pause.subsec_nanos().into(),
        };
        let ended = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        match poll(&mut watched, Some(&timeout)) {
            Ok(_) => {
                watched.iter().any(|polled| polled.revents().intersects(ended))
                    || parent_id() != self.parent
            }
            Err(_) => {
                std::thread::sleep(pause);
                false
            }
        }
    }
}

/// Duplicates of the inherited descriptors that are network connections. `pidfd_getfd` duplicates
/// by number and fails on a closed one, so no unsafe code is needed.
fn sockets() -> Vec<OwnedFd> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let Ok(own) = pidfd_open(getpid(), PidfdFlags::empty()) else { return Vec::new() };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let duplicates = numbers
        .filter(|number| *number > 2)
        .filter_map(|number| pidfd_getfd(&own, number, PidfdGetfdFlags::empty()).ok());
    duplicates
        .filter_map(|duplicate| {
            let stream = TcpStream::from(duplicate);
            stream.peer_addr().is_ok().then(|| stream.into())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_waits_less_than_the_client() {
        for (timeout, waited) in [(1, 0), (2, 1), (5, 4), (10, 8), (600, 480)] {
            assert_eq!(wait_within(timeout), Duration::from_secs(waited), "--timeout={timeout}");
        }
    }
}
