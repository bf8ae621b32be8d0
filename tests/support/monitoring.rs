//! Programs of monitoring systems, which the tests find installed or only unpacked.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use super::run::tool;

/// Where the packages are unpacked that `tests/run` does not install, since some of them start a
/// daemon.
const UNPACKED: &str = "RSYNCD_SNAPSHOT_UNPACKED";

/// A program of a monitoring system, such as `usr/bin/promtool`. Without it this prints the reason
/// and returns `None`.
pub(crate) fn monitoring_tool(path: &str) -> Option<Command> {
    let unpacked = std::env::var_os(UNPACKED).map(PathBuf::from);
    let roots: Vec<PathBuf> = unpacked.into_iter().chain([PathBuf::from("/")]).collect();
    let Some(root) = roots.iter().find(|root| root.join(path).is_file()) else {
        skipped!("needs {path}");
        return None;
    };
    let mut command = tool(root.join(path).to_str().expect("a plain path"));
    // Libraries that come with an unpacked program.
    if root.as_path() != Path::new("/") {
        let listed = |directory: &str| fs::read_dir(root.join(directory)).into_iter().flatten();
        let libraries = listed("lib").chain(listed("usr/lib")).flatten();
        let libraries: Vec<String> =
            libraries.map(|entry| entry.path().display().to_string()).collect();
        command.env("LD_LIBRARY_PATH", libraries.join(":"));
    }
    Some(command)
}

/// A daemon that ends with the test.
pub(crate) struct Service(pub(crate) Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What an HTTP server on this machine answers, with the head; none if it does not answer.
pub(crate) fn http_get(port: u16, path: &str) -> Option<String> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(connection, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}
