//! An SSH tunnel to the rsync daemon: `ssh -N` with one forwarded port.
//!
//! ssh goes to the background itself once it has logged in and the port is open. So ssh can ask for
//! a password, the client needs no polling, and the account on the server needs no permission to
//! run commands. The client ends ssh through its control socket, in the runtime directory.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use crate::client::destination::{DAEMON_PORT, Destination, Host, parse_host, split_port};
use crate::client::error::{ClientError, Result};
use crate::client::external_command::ExternalCommand;
use crate::client::pipes::StderrMode;
use crate::client::signals;

/// The SSH server of `--tunnel`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tunnel {
    pub host: Host,
    /// `None` means the port that ssh chooses.
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

    /// The address of the daemon as the SSH server sees it.
    pub(crate) fn daemon_address(&self, host: &Host, port: Option<u16>) -> String {
        let name = if host.name == self.host.name { "localhost" } else { &host.name };
        let port = port.unwrap_or(DAEMON_PORT);
        if name.contains(':') { format!("[{name}]:{port}") } else { format!("{name}:{port}") }
    }

    fn open_args(
        &self,
        rsh: &[OsString],
        socket: &Path,
        local_port: u16,
        destination: &Destination,
    ) -> Vec<OsString> {
        let mut args = rsh.to_vec();
        if let Destination::Daemon { host, port, .. } = destination {
            let forward = format!("127.0.0.1:{local_port}:{}", self.daemon_address(host, *port));
            args.extend(["-f", "-N", "-T", "-M", "-S"].map(OsString::from));
            args.push(socket.into());
            // With these, success means that the port is open, and that no other is.
            args.extend(
                ["-o", "ExitOnForwardFailure=yes", "-o", "ControlPersist=no"].map(OsString::from),
            );
            args.extend(["-L".into(), OsString::from(forward)]);
        }
        args.extend(self.address_args());
        args
    }

    fn address_args(&self) -> Vec<OsString> {
        let port = self.port.map(|port| ["-p".to_string(), port.to_string()]);
        let user = self.host.user.as_ref().map(|user| ["-l".to_string(), user.clone()]);
        let options = port.into_iter().chain(user).flatten();
        options.chain(["--".to_string(), self.host.name.clone()]).map(OsString::from).collect()
    }
}

/// An open tunnel. It closes when this value is dropped.
pub(crate) struct OpenTunnel {
    close: Vec<OsString>,
    socket: PathBuf,
    /// The local port that leads to the daemon.
    pub port: u16,
}

impl OpenTunnel {
    /// Opens the tunnel to the daemon of `destination`, with its control socket in `directory`.
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
            let args = tunnel.open_args(rsh, &socket, port, destination);
            log::info!("opening a tunnel to the rsync daemon through {}", tunnel.host);
            let command = ExternalCommand {
                may_ask: true,
                stderr: StderrMode::Quote,
                ..ExternalCommand::new(&args)
            };
            match command.succeed() {
                Ok(_) => {
                    let mut close = rsh.to_vec();
                    close.extend(["-S".into(), socket.clone().into_os_string()]);
                    close.extend(["-O", "exit"].map(OsString::from));
                    close.extend(tunnel.address_args());
                    return Ok(OpenTunnel { close, socket, port });
                }
                // Another process may have taken the port meanwhile.
                Err(ClientError::Command { last_errors, .. })
                    if tries > 1 && last_errors.contains("Address already in use") =>
                {
                    tries -= 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        let close = ExternalCommand {
            limit: Some(std::time::Duration::from_secs(10)),
            ..ExternalCommand::new(&self.close)
        };
        // ssh ends itself when the connection breaks; then this command fails.
        if let Err(error) = signals::without_interruption(|| close.succeed()) {
            log::debug!("the tunnel is closed already: {error}");
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn free_port() -> Result<u16> {
    let found = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    found.map(|address| address.port()).map_err(|cause| {
        ClientError::Failed(format!("cannot find a free port for the tunnel: {cause}"))
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
    fn the_daemon_has_the_address_that_the_ssh_server_sees() {
        let tunnel = Tunnel::parse("me@server").expect("a tunnel");
        let host = |name: &str| Host { user: None, name: name.to_string() };
        assert_eq!(tunnel.daemon_address(&host("server"), None), "localhost:873");
        assert_eq!(tunnel.daemon_address(&host("localhost"), Some(8730)), "localhost:8730");
        assert_eq!(tunnel.daemon_address(&host("inner"), None), "inner:873");
        assert_eq!(tunnel.daemon_address(&host("fe80::1"), None), "[fe80::1]:873");
    }
}
