//! Runs other programs: from fixed directories, in a clean environment, without a shell. Errors
//! quote the command line, the status and the end of standard error.
//!
//! Each program leads a process group of its own. So a Ctrl-C for the client does not kill the
//! program directly, and a signal that the client forwards reaches all processes of the program.
//! The exception is a command that may ask something, such as rsync over ssh, sudo or cryptsetup,
//! on a terminal: a background group cannot read from the terminal. Such a command shares the
//! client's group, and the shell's job control works as for any program.

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, stderr, stdin, stdout};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};

use crate::client::error::{ClientError, Result};
use crate::client::pipes::{PipeReader, StderrMode, StdoutMode, last_lines};
use crate::client::programs::{DIRECTORIES, find, shell_line};
use crate::client::signals::{self, RunningCommand};
use crate::tell::escape::escape;

/// The variables that programs inherit from the client, and no others: languages, terminals,
/// desktops, agents, and what rsync and ssh read themselves.
const INHERITED: [&str; 25] = [
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "KRB5CCNAME",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "LC_MESSAGES",
    "LOGNAME",
    "RSYNCD_SNAPSHOT_RUNTIME_DIRECTORY",
    "RSYNCD_SNAPSHOT_STATE_DIRECTORY",
    "RSYNC_PASSWORD",
    "RSYNC_PROXY",
    "SSH_AGENT_PID",
    "SSH_ASKPASS",
    "SSH_ASKPASS_REQUIRE",
    "SSH_AUTH_SOCK",
    "SUDO_ASKPASS",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
];

/// A program to run.
#[derive(Debug, Clone)]
pub(crate) struct ExternalCommand {
    /// The program, then its arguments.
    pub args: Vec<OsString>,
    /// Set over the inherited variables.
    pub environment: Vec<(OsString, OsString)>,
    /// Whether it may ask the user something on the terminal.
    pub may_ask: bool,
    pub stdout: StdoutMode,
    pub stderr: StderrMode,
    /// User and group ID to run as, if others than the client's.
    pub account: Option<(u32, u32)>,
    /// After this time the program is killed.
    pub limit: Option<Duration>,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct CommandOutcome {
    /// The exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    signal: Option<i32>,
    line: String,
    /// Standard output, or its end.
    pub output: Vec<u8>,
    /// The last lines of standard error, escaped.
    pub last_errors: String,
}

impl ExternalCommand {
    /// The first argument is the program.
    pub(crate) fn new<W: AsRef<OsStr>>(args: impl IntoIterator<Item = W>) -> Self {
        ExternalCommand {
            args: args.into_iter().map(|argument| argument.as_ref().to_os_string()).collect(),
            environment: Vec::new(),
            may_ask: false,
            stdout: StdoutMode::Capture,
            stderr: StderrMode::Quote,
            account: None,
            limit: None,
        }
    }

    /// The command line for messages, escaped.
    pub(crate) fn line(&self) -> String {
        let escaped: Vec<String> = self.args.iter().map(|arg| escape(arg.as_bytes())).collect();
        String::from_utf8_lossy(&shell_line(&escaped)).into_owned()
    }

    /// Runs the program and waits until it ends.
    ///
    /// # Errors
    /// If it cannot start, or the client was interrupted by a signal.
    pub(crate) fn run(&self) -> Result<CommandOutcome> {
        if !signals::is_undoing() {
            signals::check()?;
        }
        let shares_terminal = self.may_ask && stdin().is_terminal();
        let mut child = self.start(shares_terminal)?;
        let running =
            RunningCommand { pid: child.id().cast_signed(), leads_group: !shares_terminal };
        signals::set_command(running);
        let output = child.stdout.take().map(|pipe| PipeReader::stdout(pipe, self.stdout));
        let errors = child.stderr.take().map(|pipe| PipeReader::stderr(pipe, self.stderr));
        let status = self.wait(&mut child, running)?;
        let errors = errors.map(PipeReader::collect).unwrap_or_default();
        let output = output.map(PipeReader::collect).unwrap_or_default();
        let line = self.line();
        Ok(CommandOutcome {
            status: status.code(),
            signal: status.signal(),
            line,
            output,
            last_errors: last_lines(&errors),
        })
    }

    /// Runs the program and returns its standard output.
    ///
    /// # Errors
    /// If its status is not 0.
    pub(crate) fn succeed(&self) -> Result<Vec<u8>> {
        let ended = self.run()?;
        match ended.status {
            Some(0) => Ok(ended.output),
            _ => Err(ended.into_error()),
        }
    }

    /// Runs a program that answers yes with status 0 and no with status `no`.
    ///
    /// # Errors
    /// If it ends with another status.
    pub(crate) fn answers_yes(&self, no: i32) -> Result<bool> {
        let ended = self.run()?;
        match ended.status {
            Some(0) => Ok(true),
            Some(status) if status == no => Ok(false),
            _ => Err(ended.into_error()),
        }
    }

    fn start(&self, shares_terminal: bool) -> Result<Child> {
        let program = self.args.first().cloned().unwrap_or_default();
        let path = find(&program).ok_or_else(|| ClientError::NoProgram {
            program: escape(program.as_bytes()),
            remedy: "install it".into(),
        })?;
        let mut command = Command::new(path);
        command.args(&self.args[1..]).env_clear().env("PATH", DIRECTORIES).current_dir("/");
        let inherited = INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        command.envs(inherited).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(if shares_terminal { Stdio::inherit() } else { Stdio::null() });
        command.stdout(Stdio::piped());
        let prompts = self.stderr == StderrMode::Terminal && shares_terminal;
        command.stderr(if prompts { Stdio::inherit() } else { Stdio::piped() });
        if !shares_terminal {
            command.process_group(0);
        }
        if let Some((user, group)) = self.account {
            command.uid(user).gid(group);
        }
        log::debug!("running {}", self.line());
        command.spawn().map_err(|cause| ClientError::Start { line: self.line(), cause })
    }

    /// Waits until the process has ended, or kills it at its limit. The PID is released last, so
    /// that a forwarded signal cannot reach another process of the same number.
    fn wait(&self, child: &mut Child, running: RunningCommand) -> Result<std::process::ExitStatus> {
        let failed = |cause: std::io::Error| {
            ClientError::Failed(format!("cannot wait for `{}`: {cause}", self.line()))
        };
        let deadline = self.limit.map(|limit| Instant::now() + limit);
        let pid = Pid::from_raw(running.pid).map(WaitId::Pid).unwrap_or(WaitId::All);
        let mut options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        options.set(WaitIdOptions::NOHANG, deadline.is_some());
        loop {
            match waitid(pid.clone(), options) {
                Ok(Some(_)) => break,
                Ok(None) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                    running.send(Signal::KILL);
                    break;
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(20)),
                Err(rustix::io::Errno::INTR) => {}
                Err(cause) => return Err(failed(cause.into())),
            }
        }
        signals::clear_command();
        child.wait().map_err(failed)
    }
}

impl CommandOutcome {
    /// The error that quotes command line, status and last output.
    pub(crate) fn into_error(self) -> ClientError {
        let ending = match (self.status, self.signal) {
            (Some(status), _) => format!("ended with status {status}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended".to_string(),
        };
        // Some programs print errors on standard output, as cryptdisks_start does.
        let last_errors =
            if self.last_errors.is_empty() { last_lines(&self.output) } else { self.last_errors };
        // The program may have been ended by a signal for the client.
        match signals::is_undoing() {
            false if signals::check().is_err() => signals::check().expect_err("just seen"),
            _ => ClientError::Command { line: self.line, ending, status: self.status, last_errors },
        }
    }
}

/// Whether a terminal is there to read messages and to answer prompts.
pub(crate) fn is_interactive() -> bool {
    stdin().is_terminal() || stdout().is_terminal() || stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_quotes_command_status_and_the_end_of_standard_error() {
        let script = "echo first >&2; printf 'a\\033[1mb' >&2; exit 7";
        let error = ExternalCommand::new(["sh", "-c", script]).succeed().expect_err("status 7");
        let text = error.to_string();
        assert!(text.contains("ended with status 7: first; a\\x1b[1mb"), "{text}");
        assert!(text.starts_with("`sh -c 'echo first"), "{text}");
    }

    #[test]
    fn programs_get_only_inherited_and_given_variables() {
        let mut call = ExternalCommand::new(["env"]);
        call.environment.push(("HOME".into(), "".into()));
        let output = String::from_utf8(call.succeed().expect("env")).expect("UTF-8");
        assert!(
            output.contains(&format!("PATH={DIRECTORIES}\n")) && output.contains("HOME=\n"),
            "{output}"
        );
        assert!(!output.contains("CARGO"), "{output}");
    }

    #[test]
    fn a_program_is_killed_at_its_limit() {
        let mut call = ExternalCommand::new(["sleep", "60"]);
        call.limit = Some(Duration::from_millis(100));
        assert!(call.succeed().expect_err("killed").to_string().contains("was ended by signal 9"));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error =
            ExternalCommand::new(["no-such-program-anywhere"]).succeed().expect_err("missing");
        assert!(
            error.to_string().contains("no program no-such-program-anywhere in /usr/local/sbin:")
        );
    }
}
