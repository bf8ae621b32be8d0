//! Runs a command in the place of this process: what this process is told to do by a signal, the
//! command is told as well.

use std::io;
use std::process::{Command, ExitStatus};

use rustix::process::{Pid, Signal, getpgrp, kill_process};
use rustix::termios::tcgetpgrp;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

/// Runs `command` until it ends.
///
/// # Errors
/// If it cannot be run, or the kernel does not tell how it ended.
pub(crate) fn run_passing_signals(command: &mut Command) -> io::Result<ExitStatus> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let wanted = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];
    let wanted = wanted.into_iter().filter(|number| !is_ignored(&status, *number));
    let mut signals = Signals::new(wanted)?;
    let mut child = command.spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pass_on = move || {
        for number in signals.forever() {
            if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(number)) {
                // A terminal sends these two to the command, too.
                let is_of_terminal = [SIGINT, SIGQUIT].contains(&number)
                    && tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == getpgrp());
                if !is_of_terminal {
                    let _ = kill_process(pid, signal);
                }
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(pass_on)?;
    child.wait()
}

/// Whether a process with this `/proc/PID/status` ignores the signal, as under nohup.
pub(crate) fn is_ignored(status: &str, number: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (number - 1) & 1 == 1
}
