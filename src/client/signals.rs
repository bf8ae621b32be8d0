//! INT, TERM, HUP and QUIT: the command at work is ended, no other is begun, and what was done is
//! undone.
//!
//! A thread waits for the signals, notes the first and hands it on to the command that runs: to its
//! whole process group if it has one of its own. A second one means that it does not listen: then
//! it is killed. A signal that is ignored when we start stays so, as under nohup. Commands that
//! undo are left alone, for without them a disk stays unlocked.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicI32};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::client::failure::{Failure, Result};

/// The first signal that came; 0 for none.
static RECEIVED: AtomicI32 = AtomicI32::new(0);
/// Whether what runs now undoes something.
static IS_UNDOING: AtomicBool = AtomicBool::new(false);
/// The command that runs now.
static COMMAND: Mutex<Option<Running>> = Mutex::new(None);

/// A command that runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Running {
    pub(crate) pid: i32,
    /// Whether it leads a process group of its own.
    pub(crate) leads_group: bool,
}

impl Running {
    /// Sends `signal` to it. It may be gone, or belong to root: then there is nothing to be done.
    pub(crate) fn send(self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        let _ = match self.leads_group {
            true => kill_process_group(pid, signal),
            false => kill_process(pid, signal),
        };
    }
}

/// Waits for signals from now on, in a thread of its own.
///
/// # Errors
/// If the system refuses.
pub(crate) fn watch() -> Result<()> {
    let failed = |cause| Failure::Failed(format!("cannot wait for signals: {cause}"));
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let wanted = [SIGINT, SIGTERM, SIGHUP, SIGQUIT]
        .into_iter()
        .filter(|number| !is_ignored(&status, *number));
    let mut signals = Signals::new(wanted).map_err(failed)?;
    let wait = move || signals.forever().for_each(note);
    std::thread::Builder::new().name("signals".into()).spawn(wait).map(drop).map_err(failed)
}

/// Whether a process with this `/proc/PID/status` ignores the signal.
fn is_ignored(status: &str, number: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (number - 1) & 1 == 1
}

fn note(number: i32) {
    let is_first = RECEIVED.compare_exchange(0, number, SeqCst, SeqCst).is_ok();
    if IS_UNDOING.load(SeqCst) {
        return;
    }
    if let Some(running) = *COMMAND.lock().unwrap_or_else(PoisonError::into_inner) {
        running.send(if is_first { signal(number) } else { Signal::KILL });
    }
}

fn signal(number: i32) -> Signal {
    match number {
        SIGINT => Signal::INT,
        SIGHUP => Signal::HUP,
        // Nobody needs to see the core of what runs.
        _ => Signal::TERM,
    }
}

/// Fails if a signal has come.
///
/// # Errors
/// [`Failure::Interrupted`].
pub(crate) fn check() -> Result<()> {
    match RECEIVED.load(SeqCst) {
        0 => Ok(()),
        SIGINT => Err(Failure::Interrupted("SIGINT")),
        SIGHUP => Err(Failure::Interrupted("SIGHUP")),
        SIGQUIT => Err(Failure::Interrupted("SIGQUIT")),
        _ => Err(Failure::Interrupted("SIGTERM")),
    }
}

/// Notes the command that runs now. A signal that came just before it is handed on after all.
pub(crate) fn begin(running: Running) {
    *COMMAND.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
    let received = RECEIVED.load(SeqCst);
    if received != 0 && !IS_UNDOING.load(SeqCst) {
        running.send(signal(received));
    }
}

/// It has ended: its number may be another process's from now on.
pub(crate) fn end() {
    *COMMAND.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Runs `undo` without letting signals disturb its commands.
pub(crate) fn shielded<T>(undo: impl FnOnce() -> T) -> T {
    let before = IS_UNDOING.swap(true, SeqCst);
    let result = undo();
    IS_UNDOING.store(before, SeqCst);
    result
}

/// Whether commands that are run now undo something.
pub(crate) fn is_undoing() -> bool {
    IS_UNDOING.load(SeqCst)
}
