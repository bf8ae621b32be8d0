//! Reads the DESTINATION of the command line. Pure.
//!
//! The syntax is rsync's. An argument with a `/` before its first colon is a local path, such as
//! `./a:b` and `/a:b`; an IPv6 address stands in brackets. An ambiguous argument is an error that
//! says how to write each meaning, because a backup must not go to an unexpected place.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::tell::escape::{escape, escape_path};

/// The daemon's port unless the destination names one.
pub(crate) const DAEMON_PORT: u16 = 873;

/// A remote machine and the account there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Without it, ssh or rsync choose the account.
    pub user: Option<String>,
    /// Name or address; an IPv6 address has no brackets.
    pub name: String,
}

/// Where the backup is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A directory of this machine.
    Local(PathBuf),
    /// A directory of an SSH server.
    Ssh {
        /// The SSH server.
        host: Host,
        /// Absolute, or relative to the account's home.
        directory: PathBuf,
    },
    /// A module of an rsync daemon.
    Daemon {
        /// The daemon's machine.
        host: Host,
        /// `None` means [`DAEMON_PORT`].
        port: Option<u16>,
        /// The name of the module.
        module: Vec<u8>,
        /// The directory in the module, without slashes at its ends; usually empty.
        directory: Vec<u8>,
    },
}

impl Destination {
    /// Reads `[user@]host:dir`, `[user@]host::module[/dir]`,
    /// `rsync://[user@]host[:port]/module[/dir]` or the path of a local directory.
    ///
    /// # Errors
    /// A message that quotes the expression and says what to write instead.
    pub fn parse(expression: &OsStr) -> Result<Self, String> {
        let bytes = expression.as_bytes();
        let wrong = |problem: &str| Err(format!("the destination '{}' {problem}", escape(bytes)));
        if bytes.is_empty() {
            return wrong("is empty: name a directory or a module");
        }
        if bytes.contains(&0) {
            return wrong("contains a zero byte");
        }
        if bytes.len() >= 8 && bytes[..8].eq_ignore_ascii_case(b"rsync://") {
            return parse_url(&bytes[8..]).or_else(|problem| wrong(&problem));
        }
        match split_host(bytes) {
            None => Ok(Destination::Local(path(bytes))),
            Some((host, rest)) => parse_remote(host, rest).or_else(|problem| wrong(&problem)),
        }
    }

    /// The remote machine; `None` for a local directory.
    pub fn host(&self) -> Option<&Host> {
        match self {
            Destination::Local(_) => None,
            Destination::Ssh { host, .. } | Destination::Daemon { host, .. } => Some(host),
        }
    }

    /// The directory that commands can use; `None` for a daemon.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Destination::Local(directory) | Destination::Ssh { directory, .. } => Some(directory),
            Destination::Daemon { .. } => None,
        }
    }

    /// Whether it is a module of a daemon. No command can run there.
    pub fn is_daemon(&self) -> bool {
        matches!(self, Destination::Daemon { .. })
    }

    /// The last argument of rsync, with a slash at its end. `address` replaces host and port of a
    /// daemon, for a tunnel.
    pub fn argument(&self, address: Option<(&str, u16)>) -> Vec<u8> {
        let mut argument = match self {
            Destination::Local(directory) => directory.as_os_str().as_bytes().to_vec(),
            Destination::Ssh { host, directory } => {
                [host.to_string().as_bytes(), b":", directory.as_os_str().as_bytes()].concat()
            }
            Destination::Daemon { host, port, module, directory } => {
                let (name, port) = match address {
                    Some((name, port)) => (name, Some(port)),
                    None => (host.name.as_str(), *port),
                };
                let host = Host { user: host.user.clone(), name: name.to_string() };
                let port = port.map(|port| format!(":{port}")).unwrap_or_default();
                let start = format!("rsync://{host}{port}/");
                match directory.is_empty() {
                    true => [start.as_bytes(), module].concat(),
                    false => [start.as_bytes(), module, b"/", directory].concat(),
                }
            }
        };
        if !argument.ends_with(b"/") {
            argument.push(b'/');
        }
        argument
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Destination::Local(directory) => f.write_str(&escape_path(directory)),
            _ => f.write_str(escape(&self.argument(None)).trim_end_matches('/')),
        }
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        match self.name.contains(':') {
            true => write!(f, "{user}[{}]", self.name),
            false => write!(f, "{user}{}", self.name),
        }
    }
}

/// Splits at the colon after the host; `None` for a local path.
fn split_host(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let start =
        bytes.iter().position(|&byte| byte == b'[').filter(|&at| at == 0 || bytes[at - 1] == b'@');
    let colon = match start {
        Some(start) if !bytes[..start].contains(&b'/') => {
            let end = start + bytes[start..].iter().position(|&byte| byte == b']')?;
            (bytes.get(end + 1) == Some(&b':')).then_some(end + 1)?
        }
        _ => bytes.iter().position(|&byte| byte == b':')?,
    };
    (!bytes[..colon].contains(&b'/')).then_some((&bytes[..colon], &bytes[colon + 1..]))
}

fn parse_remote(host: &[u8], rest: &[u8]) -> Result<Destination, String> {
    if host.is_empty() && rest.starts_with(b":") && rest[1..].contains(&b':') {
        return Err("looks like an IPv6 address: write it in brackets, as in [::1]:/backup".into());
    }
    if host.is_empty() {
        return Err("has no host before the colon: a local path is written ./: or absolute".into());
    }
    let host = parse_host(host)?;
    let Some(rest) = rest.strip_prefix(b":") else {
        // A relative path is below the account's home, with and without `~/`.
        let rest = rest.strip_prefix(b"~/").unwrap_or(rest);
        if rest.is_empty() || rest == b"~" {
            return Err(
                "names no directory on the host; a backup deletes all other files in the directory"
                    .into(),
            );
        }
        refuse_patterns(rest)?;
        // The shell on the server would expand it to the home of another account.
        if rest.starts_with(b"~") {
            return Err(
                "begins with a ~, which only means the account's own home, as in HOST:~/DIR".into(),
            );
        }
        if rest.contains(&b'\n') {
            return Err("has a line break in a path on a server, and some shells drop it".into());
        }
        return Ok(Destination::Ssh { host, directory: path(rest) });
    };
    let (module, directory) = parse_module(rest)?;
    if module.contains(&b':') {
        return Err("has a colon in the module: an IPv6 address is written in brackets, as in \
                    [::1]:/backup or [::1]::module"
            .into());
    }
    Ok(Destination::Daemon { host, port: None, module, directory })
}

fn parse_url(rest: &[u8]) -> Result<Destination, String> {
    let slash = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(slash);
    let (host, port) = split_port(authority)?;
    let host = parse_host(host)?;
    let (module, directory) = parse_module(rest.get(1..).unwrap_or_default())?;
    Ok(Destination::Daemon { host, port, module, directory })
}

/// Splits `host:port`, where the host may be an IPv6 address in brackets.
pub(crate) fn split_port(authority: &[u8]) -> Result<(&[u8], Option<u16>), String> {
    let after_brackets = authority.iter().rposition(|&byte| byte == b']').map_or(0, |at| at + 1);
    let Some(colon) = authority[after_brackets..].iter().position(|&byte| byte == b':') else {
        return Ok((authority, None));
    };
    let (host, port) =
        (&authority[..after_brackets + colon], &authority[after_brackets + colon + 1..]);
    if port.contains(&b':') {
        return Err(
            "has several colons: an IPv6 address is written in brackets, as in [::1]:873".into()
        );
    }
    let number = std::str::from_utf8(port)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match number.and_then(|text| text.parse::<u16>().ok()).filter(|&port| port > 0) {
        Some(port) => Ok((host, Some(port))),
        None => {
            Err(format!("has the port '{}', which is not a number from 1 to 65535", escape(port)))
        }
    }
}

/// Reads `[user@]host`.
pub(crate) fn parse_host(bytes: &[u8]) -> Result<Host, String> {
    let text =
        std::str::from_utf8(bytes).map_err(|_| "has a host that is not UTF-8".to_string())?;
    let (user, name) = match text.rsplit_once('@') {
        Some((user, name)) => (Some(user), name),
        None => (None, text),
    };
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let is_odd = |text: &str| text.chars().any(|c| c.is_control() || c.is_whitespace());
    match (user, name) {
        (_, "") => Err("has no host".into()),
        (Some(""), _) => Err("has no user before the @".into()),
        // ssh would read it as an option.
        (_, name) if name.starts_with('-') => Err("has a host that begins with a -".into()),
        (Some(user), _) if user.starts_with('-') => Err("has a user that begins with a -".into()),
        (user, name) if is_odd(name) || user.is_some_and(is_odd) => {
            Err("has a blank or a control character in its host or user".into())
        }
        (user, name) => Ok(Host { user: user.map(str::to_string), name: name.to_string() }),
    }
}

/// Reads `module[/dir]`.
fn parse_module(rest: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
    let mut parts = rest.splitn(2, |&byte| byte == b'/');
    let module = parts.next().unwrap_or_default();
    if module.is_empty() {
        return Err("names no module of the daemon".into());
    }
    let directory = parts.next().unwrap_or_default();
    let start = directory.iter().position(|&byte| byte != b'/').unwrap_or(directory.len());
    let end = directory.iter().rposition(|&byte| byte != b'/').map_or(start, |at| at + 1);
    refuse_patterns(&directory[start..end])?;
    Ok((module.to_vec(), directory[start..end].to_vec()))
}

/// On a server, rsync expands the path as a pattern, even if a directory of exactly this name
/// exists. The backup would replace the content of another directory that matches.
fn refuse_patterns(directory: &[u8]) -> Result<(), String> {
    match directory.iter().find(|byte| b"*?[".contains(byte)) {
        Some(&byte) => Err(format!(
            "has a {} in a path on a server, where rsync takes it for a pattern of names; choose \
             a directory without",
            char::from(byte)
        )),
        None => Ok(()),
    }
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(bytes.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Destination {
        Destination::parse(OsStr::new(text)).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn host(user: Option<&str>, name: &str) -> Host {
        Host { user: user.map(str::to_string), name: name.to_string() }
    }

    fn daemon(host: Host, port: Option<u16>, module: &str, directory: &str) -> Destination {
        Destination::Daemon { host, port, module: module.into(), directory: directory.into() }
    }

    fn ssh(host: Host, directory: &str) -> Destination {
        Destination::Ssh { host, directory: directory.into() }
    }

    #[test]
    fn destinations_of_the_python_program_keep_their_meaning() {
        assert_eq!(parse("/mnt/backups/laptop"), Destination::Local("/mnt/backups/laptop".into()));
        assert_eq!(
            parse("backup-server:/backups/laptop"),
            ssh(host(None, "backup-server"), "/backups/laptop")
        );
        assert_eq!(
            parse("backup-user@backup-server:/backups/laptop"),
            ssh(host(Some("backup-user"), "backup-server"), "/backups/laptop")
        );
        assert_eq!(
            parse("backup-user@backup-server::laptop_backups"),
            daemon(host(Some("backup-user"), "backup-server"), None, "laptop_backups", "")
        );
        assert_eq!(
            parse("rsync://backup-user@backup-server:12345/laptop_backups/some-directory"),
            daemon(
                host(Some("backup-user"), "backup-server"),
                Some(12345),
                "laptop_backups",
                "some-directory"
            )
        );
    }

    #[test]
    fn a_colon_after_a_slash_belongs_to_a_local_path() {
        for text in
            ["./a:b", "/a:b", "/a::b", "a/b:c", "../x:/y", "relative", "./[x]:y", "/mnt/[::1]:x"]
        {
            assert_eq!(parse(text), Destination::Local(text.into()), "{text}");
        }
    }

    #[test]
    fn ipv6_addresses_stand_in_brackets() {
        assert_eq!(parse("host:~/backup/latest"), parse("host:backup/latest"));
        assert_eq!(parse("[fe80::1]:/backup"), ssh(host(None, "fe80::1"), "/backup"));
        assert_eq!(parse("me@[::1]:dir"), ssh(host(Some("me"), "::1"), "dir"));
        assert_eq!(
            parse("me@[::1]::mod/dir/"),
            daemon(host(Some("me"), "::1"), None, "mod", "dir")
        );
        assert_eq!(parse("rsync://[::1]/mod"), daemon(host(None, "::1"), None, "mod", ""));
        assert_eq!(
            parse("rsync://me@[::1]:8730/mod"),
            daemon(host(Some("me"), "::1"), Some(8730), "mod", "")
        );
        for text in ["::1:/backup", "fe80::1:/backup", "rsync://::1/mod"] {
            let error = Destination::parse(OsStr::new(text)).expect_err(text);
            assert!(error.contains("in brackets"), "{text}: {error}");
        }
    }

    #[test]
    fn incomplete_destinations_are_refused_with_a_reason() {
        for (text, part) in [
            ("", "is empty"),
            ("host:", "names no directory"),
            ("host:~", "names no directory"),
            ("host:~/", "names no directory"),
            (":/dir", "no host"),
            ("host::", "names no module"),
            ("host::/dir", "names no module"),
            ("rsync://host", "names no module"),
            ("rsync://host/", "names no module"),
            ("rsync:///module", "no host"),
            ("rsync://host:0/module", "not a number from 1"),
            ("rsync://host:65536/module", "not a number from 1"),
            ("rsync://host:x/module", "not a number from 1"),
            ("@host:/dir", "no user"),
            ("user@:/dir", "no host"),
            ("-oProxyCommand=x:/dir", "begins with a -"),
            ("me@-oProxyCommand=x:/dir", "begins with a -"),
            ("a b:/dir", "blank"),
            ("host:~root/dir", "begins with a ~"),
            ("host:~/~root/dir", "begins with a ~"),
            ("host:/a\nb", "line break"),
            ("host:/srv/lapt?p", "takes it for a pattern"),
            ("host:srv/*", "takes it for a pattern"),
            ("host::module/laptop [old]", "takes it for a pattern"),
            ("rsync://host/module/a?", "takes it for a pattern"),
        ] {
            let error = Destination::parse(OsStr::new(text)).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn rsync_gets_an_argument_that_ends_in_one_slash() {
        for (text, argument) in [
            ("/mnt/latest", "/mnt/latest/"),
            ("/mnt/latest/", "/mnt/latest/"),
            ("me@host:dir", "me@host:dir/"),
            ("[::1]:/dir/", "[::1]:/dir/"),
            ("host::mod", "rsync://host/mod/"),
            ("me@host::mod/dir", "rsync://me@host/mod/dir/"),
            ("RSYNC://host:8730/mod//dir//", "rsync://host:8730/mod/dir/"),
            ("[::1]::mod", "rsync://[::1]/mod/"),
        ] {
            assert_eq!(String::from_utf8(parse(text).argument(None)).expect("UTF-8"), argument);
        }
        let tunneled = parse("me@server::mod").argument(Some(("127.0.0.1", 4711)));
        assert_eq!(tunneled, b"rsync://me@127.0.0.1:4711/mod/");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_kept_and_shown_escaped() {
        let destination = Destination::parse(OsStr::from_bytes(b"host:/a\xff\t")).expect("a path");
        assert_eq!(destination.to_string(), "host:/a\\xff\\x09");
        assert_eq!(destination.argument(None), b"host:/a\xff\t/");
    }
}
