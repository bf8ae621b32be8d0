//! A way to the rsync daemon through an SSH server: `ssh -N` with one forwarded port.
//!
//! ssh goes to the background itself once it has logged in and the port is open, so it can ask for
//! a password before that, nothing has to be polled, and an account that may run no command will
//! do. It is ended through its control socket, which lies in a directory of our own.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use crate::client::external::Call;
use crate::client::failure::{Failure, Result};
use crate::client::location::{DAEMON_PORT, Destination, Host, parse_host, split_port};
use crate::client::rsync::output::Complaints;
use crate::client::signals;

/// The SSH server of `--tunnel`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tunnel {
    /// The server and the account on it.
    pub host: Host,
    /// The port of the SSH server, if it is not the usual one.
    pub port: Option<u16>,
}

impl Tunnel {
    /// Reads `[user@]host[:port]`.
    ///
    /// # Errors
    /// A message that quotes the expression.
    pub(crate) fn parse(text: &str) -> std::result::Result<Self, String> {
        let parsed = split_port(text.as_bytes())
            .and_then(|(host, port)| parse_host(host).map(|host| Tunnel { host, port }));
        parsed.map_err(|problem| format!("the tunnel {problem}: it is written [USER@]HOST[:PORT]"))
    }

    /// What the SSH server is asked to connect to: the daemon as *it* sees it.
    pub(crate) fn far_end(&self, host: &Host, port: Option<u16>) -> String {
        let name = if host.name == self.host.name { "localhost" } else { &host.name };
        let port = port.unwrap_or(DAEMON_PORT);
        if name.contains(':') { format!("[{name}]:{port}") } else { format!("{name}:{port}") }
    }

    /// The command that opens it.
    fn open_words(
        &self,
        rsh: &[OsString],
        socket: &Path,
        local_port: u16,
        destination: &Destination,
    ) -> Vec<OsString> {
        let mut words = rsh.to_vec();
        if let Destination::Daemon { host, port, .. } = destination {
            let forward = format!("127.0.0.1:{local_port}:{}", self.far_end(host, *port));
            words.extend(["-f", "-N", "-T", "-M", "-S"].map(OsString::from));
            words.push(socket.into());
            // With these, success means that the port is open; and it is the only one that is.
            words.extend(
                ["-o", "ExitOnForwardFailure=yes", "-o", "ControlPersist=no"].map(OsString::from),
            );
            words.extend(["-L".into(), OsString::from(forward)]);
        }
        words.extend(self.address_words());
        words
    }

    fn address_words(&self) -> Vec<OsString> {
        let port = self.port.map(|port| ["-p".to_string(), port.to_string()]);
        let user = self.host.user.as_ref().map(|user| ["-l".to_string(), user.clone()]);
        let options = port.into_iter().chain(user).flatten();
        options.chain(["--".to_string(), self.host.name.clone()]).map(OsString::from).collect()
    }
}

/// An open tunnel.
pub(crate) struct OpenTunnel {
    close: Vec<OsString>,
    socket: PathBuf,
    /// The port of this machine that leads to the daemon.
    pub port: u16,
}

impl OpenTunnel {
    /// Opens the tunnel to the daemon of `destination`; its socket lies in `directory`.
    ///
    /// # Errors
    /// If ssh cannot log in or forward the port.
    pub(crate) fn open(
        tunnel: &Tunnel,
        destination: &Destination,
        rsh: &[OsString],
        directory: &Path,
    ) -> Result<Self> {
        let socket = directory.join(format!("tunnel-{}", std::process::id()));
        let _ = std::fs::remove_file(&socket);
        let mut tries = 3;
        loop {
            let port = free_port()?;
            let words = tunnel.open_words(rsh, &socket, port, destination);
            log::info!("opening a tunnel to the rsync daemon through {}", tunnel.host);
            let call = Call { may_ask: true, complaints: Complaints::Quote, ..Call::new(&words) };
            match call.succeed() {
                Ok(_) => {
                    let mut close = rsh.to_vec();
                    close.extend(["-S".into(), socket.clone().into_os_string()]);
                    close.extend(["-O", "exit"].map(OsString::from));
                    close.extend(tunnel.address_words());
                    return Ok(OpenTunnel { close, socket, port });
                }
                // Somebody else may have taken the port meanwhile.
                Err(Failure::Command { said, .. })
                    if tries > 1 && said.contains("Address already in use") =>
                {
                    tries -= 1;
                }
                Err(failure) => return Err(failure),
            }
        }
    }
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        let close =
            Call { limit: Some(std::time::Duration::from_secs(10)), ..Call::new(&self.close) };
        // If ssh has gone already, as it does when the connection breaks, there is nothing to
        // close.
        if let Err(failure) = signals::shielded(|| close.succeed()) {
            log::debug!("the tunnel is closed already: {failure}");
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn free_port() -> Result<u16> {
    let found = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    found.map(|address| address.port()).map_err(|cause| {
        Failure::Failed(format!("cannot find a free port for the tunnel: {cause}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_is_a_host_with_an_optional_user_and_port() {
        let tunnel =
            |text: &str| Tunnel::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let host = |user: Option<&str>, name: &str| Host {
            user: user.map(str::to_string),
            name: name.to_string(),
        };
        assert_eq!(tunnel("gate"), Tunnel { host: host(None, "gate"), port: None });
        assert_eq!(
            tunnel("me@gate:2222"),
            Tunnel { host: host(Some("me"), "gate"), port: Some(2222) }
        );
        assert_eq!(tunnel("me@[::1]:22"), Tunnel { host: host(Some("me"), "::1"), port: Some(22) });
        for text in ["", "me@", "gate:", "gate:0", "gate:x", "::1", "-v", "a:b:c"] {
            assert!(Tunnel::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_daemon_is_named_as_the_ssh_server_sees_it() {
        let tunnel = Tunnel::parse("me@server").expect("a tunnel");
        let host = |name: &str| Host { user: None, name: name.to_string() };
        assert_eq!(tunnel.far_end(&host("server"), None), "localhost:873");
        assert_eq!(tunnel.far_end(&host("localhost"), Some(8730)), "localhost:8730");
        assert_eq!(tunnel.far_end(&host("inner"), None), "inner:873");
        assert_eq!(tunnel.far_end(&host("fe80::1"), None), "[fe80::1]:873");
    }
}
