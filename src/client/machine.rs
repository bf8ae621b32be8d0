//! Runs commands on the machine that stores the backup: this machine, or the SSH server.
//!
//! A command for the SSH server passes the login shell of the account there, so every argument is
//! quoted for it. Commands that need root use sudo: on this machine unless `--no-sudo` is given, on
//! the server without asking for a password.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::client::destination::Host;
use crate::client::error::{ClientError, Result};
use crate::client::external_command::ExternalCommand;
use crate::client::pipes::StderrMode;
use crate::client::programs::{DIRECTORIES, find, one_line, shell_line, shell_quote};
use crate::system::syscalls::is_privileged;

/// As whom a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege<'a> {
    /// The account of this process, or the account on the SSH server.
    Own,
    Root,
    /// An account that may write to this directory: root, if the backup runs as root.
    ToChange(&'a Path),
}

/// The machine that commands run on.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// The SSH server, and the arguments that begin an ssh command. `None` means this machine.
    pub remote: Option<(Host, Vec<OsString>)>,
    /// Whether the backup runs as root.
    pub uses_sudo: bool,
}

impl Machine {
    pub(crate) fn is_this_machine(&self) -> bool {
        self.remote.is_none()
    }

    /// Whether this is the local machine and commands that change the backup need sudo.
    pub(crate) fn needs_sudo_here(&self) -> bool {
        self.is_this_machine() && self.uses_sudo && !is_privileged()
    }

    /// A command that runs on this machine or on the SSH server.
    pub(crate) fn command<W: AsRef<OsStr>>(
        &self,
        args: &[W],
        privilege: Privilege,
    ) -> ExternalCommand {
        let Some((host, rsh)) = &self.remote else { return self.local_command(args, privilege) };
        let mut line = rsh.clone();
        line.extend(host.user.iter().flat_map(|user| ["-l".into(), OsString::from(user)]));
        line.extend(["--".into(), OsString::from(&host.name)]);
        line.push(OsString::from_vec(self.remote_line(args, privilege)));
        ExternalCommand { may_ask: true, ..ExternalCommand::new(line) }
    }

    fn local_command<W: AsRef<OsStr>>(&self, args: &[W], privilege: Privilege) -> ExternalCommand {
        let by_sudo = match privilege {
            Privilege::Own => false,
            Privilege::Root => !is_privileged(),
            Privilege::ToChange(_) => self.needs_sudo_here(),
        };
        let args = args.iter().map(AsRef::as_ref);
        match by_sudo {
            true => ExternalCommand {
                may_ask: true,
                ..ExternalCommand::new(std::iter::once(OsStr::new("sudo")).chain(args))
            },
            false => ExternalCommand::new(args),
        }
    }

    /// The line for the login shell of the account: `sh -c` with one quoted script, so the login
    /// shell interprets only quotes.
    fn remote_line<W: AsRef<OsStr>>(&self, args: &[W], privilege: Privilege) -> Vec<u8> {
        let command = shell_line(args);
        let by_sudo = [b"exec sudo -n ".as_slice(), &command].concat();
        let directly = [b"exec ".as_slice(), &command].concat();
        let choice = |test: &[u8]| {
            [
                b"if [ \"$(id -u)\" = 0 ]".as_slice(),
                test,
                b"; then ",
                &directly,
                b"; else ",
                &by_sudo,
                b"; fi",
            ]
            .concat()
        };
        let command = match privilege {
            Privilege::Own => directly.clone(),
            Privilege::Root => choice(b""),
            Privilege::ToChange(_) if !self.uses_sudo => directly.clone(),
            Privilege::ToChange(directory) => {
                let directory = shell_quote(directory.as_os_str().as_bytes());
                choice(
                    &[b" || [ -w ".as_slice(), &directory, b" ] || ! command -v sudo >/dev/null"]
                        .concat(),
                )
            }
        };
        let script = [format!("PATH={DIRECTORIES}; export PATH; ").as_bytes(), &command].concat();
        [b"sh -c ".as_slice(), &shell_quote(&script)].concat()
    }

    /// The first of `programs` that is installed on the machine.
    ///
    /// # Errors
    /// If the SSH server cannot be reached.
    pub(crate) fn first_installed(
        &self,
        programs: &[&'static str],
    ) -> Result<Option<&'static str>> {
        for program in programs {
            let is_there = match self.is_this_machine() {
                true => find(OsStr::new(program)).is_some(),
                // `command` is a builtin of the shell.
                false => self
                    .script("command -v \"$1\" >/dev/null || exit 1", &[program], Privilege::Own)
                    .answers_yes(1)?,
            };
            if is_there {
                return Ok(Some(program));
            }
        }
        Ok(None)
    }

    /// Whether `path` exists on the machine.
    ///
    /// # Errors
    /// If the SSH server cannot be reached.
    pub(crate) fn exists(&self, path: &Path) -> Result<bool> {
        match self.is_this_machine() {
            true => Ok(path.exists()),
            false => {
                let args = [OsStr::new("test"), OsStr::new("-e"), path.as_os_str()];
                self.command(&args, Privilege::Own).answers_yes(1)
            }
        }
    }

    /// The text of a file on the machine; `None` if the file does not exist.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn read(&self, path: &Path) -> Result<Option<String>> {
        let failed =
            |cause| ClientError::Engine(crate::tell::error::Error::io("read", path, cause));
        if self.is_this_machine() {
            return match std::fs::read(path) {
                Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(failed(error)),
            };
        }
        if !self.exists(path)? {
            return Ok(None);
        }
        let output =
            self.command(&[OsStr::new("cat"), path.as_os_str()], Privilege::Own).succeed()?;
        Ok(Some(String::from_utf8_lossy(&output).into_owned()))
    }

    /// A command that may prompt on the client's standard error.
    pub(crate) fn prompting_command<W: AsRef<OsStr>>(
        &self,
        args: &[W],
        privilege: Privilege,
    ) -> ExternalCommand {
        let command = self.command(args, privilege);
        ExternalCommand { may_ask: true, stderr: StderrMode::Terminal, ..command }
    }

    /// A shell script with arguments. It passes as one line, see [`one_line`].
    pub(crate) fn script<W: AsRef<OsStr>>(
        &self,
        script: &str,
        args: &[W],
        privilege: Privilege,
    ) -> ExternalCommand {
        let script = one_line(script);
        let mut line = ["sh", "-c", &script, "sh"].map(OsStr::new).to_vec();
        line.extend(args.iter().map(AsRef::as_ref));
        self.command(&line, privilege)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(uses_sudo: bool) -> Machine {
        let host = Host { user: Some("me".into()), name: "server".into() };
        Machine { remote: Some((host, vec!["ssh".into(), "-F".into(), "/x".into()])), uses_sudo }
    }

    #[test]
    fn a_remote_command_reaches_a_posix_shell_unchanged() {
        let call = remote(true).command(&["echo", "it's", "$HOME *"], Privilege::Own);
        let args: Vec<_> = call.args.iter().map(|word| word.to_string_lossy()).collect();
        assert_eq!(args[..6], ["ssh", "-F", "/x", "-l", "me", "--"].map(String::from));
        assert_eq!(args[6], "server");
        // sshd hands the line to a login shell, and the sh in the line parses it once more.
        let output = ExternalCommand::new(["sh", "-c", &args[7]]).succeed().expect("a shell");
        assert_eq!(String::from_utf8(output).expect("UTF-8"), "it's $HOME *\n");
    }

    #[test]
    fn remote_root_commands_use_sudo_only_if_needed() {
        let line = |uses_sudo, privilege| {
            String::from_utf8(remote(uses_sudo).remote_line(&["x"], privilege)).expect("UTF-8")
        };
        assert!(!line(true, Privilege::Own).contains("sudo"));
        assert!(line(false, Privilege::Root).contains("then exec x; else exec sudo -n x; fi"));
        let change = Privilege::ToChange(Path::new("/backup"));
        assert!(
            line(true, change).contains("[ -w /backup ]")
                && line(true, change).contains("sudo -n x")
        );
        assert!(!line(false, change).contains("sudo"));
    }
}
