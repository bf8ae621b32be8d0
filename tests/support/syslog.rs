//! A socket in place of `/dev/log`.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) struct Syslog {
    pub(crate) path: PathBuf,
    socket: UnixDatagram,
}

impl Syslog {
    /// Listens at `log` in `directory`.
    pub(crate) fn within(directory: &Path) -> Syslog {
        let path = directory.join("log");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        Syslog { path, socket }
    }

    /// All messages so far; waits for the first.
    pub(crate) fn received(&self) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        let mut buffer = [0; 8192];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            messages.push(buffer[..length].to_vec());
            self.socket.set_nonblocking(true).expect("only what is there");
        }
        messages
    }

    /// All messages as text.
    pub(crate) fn received_text(&self) -> Vec<String> {
        let text = |message: Vec<u8>| String::from_utf8_lossy(&message).into_owned();
        self.received().into_iter().map(text).collect()
    }
}
