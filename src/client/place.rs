//! The machine that stores the backup, as far as commands can be run on it: this one, or another by
//! ssh.
//!
//! Commands for another machine pass a shell there, whichever the account has, so every word is
//! quoted for it. What needs root gets it by sudo: here as long as `--no-sudo` is not given, there
//! without asking for a password.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::client::external::{Call, find, shell_quote};
use crate::client::failure::{Failure, Result};
use crate::client::location::Host;
use crate::client::programs::DIRECTORIES;
use crate::client::rsync::output::Complaints;
use crate::system::syscalls::is_privileged;

/// As whom a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege<'a> {
    /// As whoever we are.
    Own,
    /// As root.
    Root,
    /// As somebody who may change this directory: root, where the backup is made as root.
    ToChange(&'a Path),
}

/// Where commands are run.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The other machine and the words that begin an ssh command; none for this machine.
    pub remote: Option<(Host, Vec<OsString>)>,
    /// Whether the backup is made as root.
    pub uses_sudo: bool,
}

impl Place {
    /// Whether it is this machine.
    pub(crate) fn is_here(&self) -> bool {
        self.remote.is_none()
    }

    /// Whether what needs the backup's privilege has to go through sudo here.
    pub(crate) fn needs_sudo_here(&self) -> bool {
        self.is_here() && self.uses_sudo && !is_privileged()
    }

    /// A command to be run there.
    pub(crate) fn call<W: AsRef<OsStr>>(&self, words: &[W], privilege: Privilege) -> Call {
        let Some((host, rsh)) = &self.remote else { return self.call_here(words, privilege) };
        let mut line = rsh.clone();
        line.extend(host.user.iter().flat_map(|user| ["-l".into(), OsString::from(user)]));
        line.extend(["--".into(), OsString::from(&host.name)]);
        line.push(OsString::from_vec(self.remote_line(words, privilege)));
        Call { may_ask: true, ..Call::new(line) }
    }

    fn call_here<W: AsRef<OsStr>>(&self, words: &[W], privilege: Privilege) -> Call {
        let by_sudo = match privilege {
            Privilege::Own => false,
            Privilege::Root => !is_privileged(),
            Privilege::ToChange(_) => self.needs_sudo_here(),
        };
        let words = words.iter().map(AsRef::as_ref);
        match by_sudo {
            true => Call {
                may_ask: true,
                ..Call::new(std::iter::once(OsStr::new("sudo")).chain(words))
            },
            false => Call::new(words),
        }
    }

    /// What the shell there gets: `sh -c` with our words, so that the account's own shell has
    /// nothing to interpret but quotes.
    fn remote_line<W: AsRef<OsStr>>(&self, words: &[W], privilege: Privilege) -> Vec<u8> {
        let command = quoted(words);
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

    /// The first of `programs` that is installed there.
    ///
    /// # Errors
    /// If nobody there can be asked.
    pub(crate) fn first_installed(
        &self,
        programs: &[&'static str],
    ) -> Result<Option<&'static str>> {
        for program in programs {
            let is_there = match self.is_here() {
                true => find(OsStr::new(program)).is_some(),
                // A builtin of the shell, so it needs one.
                false => self.answers_yes(&[
                    "sh",
                    "-c",
                    "command -v \"$1\" >/dev/null || exit 1",
                    "sh",
                    program,
                ])?,
            };
            if is_there {
                return Ok(Some(program));
            }
        }
        Ok(None)
    }

    /// Whether something of this path exists there.
    ///
    /// # Errors
    /// If nobody there can be asked.
    pub(crate) fn exists(&self, path: &Path) -> Result<bool> {
        match self.is_here() {
            true => Ok(path.exists()),
            false => self.answers_yes(&[OsStr::new("test"), OsStr::new("-e"), path.as_os_str()]),
        }
    }

    /// The text of a file there; none if it does not exist.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn read(&self, path: &Path) -> Result<Option<String>> {
        let failed = |cause| Failure::Engine(crate::tell::error::Error::io("read", path, cause));
        if self.is_here() {
            return match std::fs::read(path) {
                Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(failed(error)),
            };
        }
        if !self.exists(path)? {
            return Ok(None);
        }
        let output = self.call(&[OsStr::new("cat"), path.as_os_str()], Privilege::Own).succeed()?;
        Ok(Some(String::from_utf8_lossy(&output).into_owned()))
    }

    /// Runs a command that answers with 0 or 1.
    ///
    /// # Errors
    /// If it ends otherwise.
    pub(crate) fn answers_yes<W: AsRef<OsStr>>(&self, words: &[W]) -> Result<bool> {
        self.call(words, Privilege::Own).answers_yes(1)
    }

    /// A call that may prompt on our standard error.
    pub(crate) fn prompting_call<W: AsRef<OsStr>>(
        &self,
        words: &[W],
        privilege: Privilege,
    ) -> Call {
        Call { may_ask: true, complaints: Complaints::Terminal, ..self.call(words, privilege) }
    }
}

/// Words for a POSIX shell.
fn quoted<W: AsRef<OsStr>>(words: &[W]) -> Vec<u8> {
    let words: Vec<Vec<u8>> =
        words.iter().map(|word| shell_quote(word.as_ref().as_bytes())).collect();
    words.join(&b' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(uses_sudo: bool) -> Place {
        let host = Host { user: Some("me".into()), name: "server".into() };
        Place { remote: Some((host, vec!["ssh".into(), "-F".into(), "/x".into()])), uses_sudo }
    }

    #[test]
    fn a_remote_command_reaches_a_posix_shell_whole() {
        let call = remote(true).call(&["echo", "it's", "$HOME *"], Privilege::Own);
        let words: Vec<_> = call.words.iter().map(|word| word.to_string_lossy()).collect();
        assert_eq!(words[..6], ["ssh", "-F", "/x", "-l", "me", "--"].map(String::from));
        assert_eq!(words[6], "server");
        // What sshd does with it: a shell takes it apart, and the sh in it does so once more.
        let output = Call::new(["sh", "-c", &words[7]]).succeed().expect("a shell");
        assert_eq!(String::from_utf8(output).expect("UTF-8"), "it's $HOME *\n");
    }

    #[test]
    fn what_needs_root_there_uses_sudo_only_if_it_must() {
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
