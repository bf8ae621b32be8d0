//! SIGINT, SIGTERM, SIGHUP and SIGQUIT end a run: the current command is ended, no other one
//! starts, and the backup disk is unmounted and locked again.
//!
//! A thread waits for the signals, records the first and forwards it to the current command: to its
//! process group if the command leads one. A second signal kills the command, which did not react
//! to the first. A signal that was ignored when the client started stays ignored, as under nohup.
//! Commands that unmount and lock get no signal, because without them the disk stays unlocked.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicI32};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::client::error::{ClientError, Result};
use crate::system::passed_signals::is_ignored;

/// The first signal that arrived; 0 for none.
static RECEIVED: AtomicI32 = AtomicI32::new(0);
/// Whether the current command unmounts or locks.
static IS_UNDOING: AtomicBool = AtomicBool::new(false);
/// The current command.
static COMMAND: Mutex<Option<RunningCommand>> = Mutex::new(None);

#[derive(Debug, Clone, Copy)]
pub(crate) struct RunningCommand {
    pub(crate) pid: i32,
    /// Whether `pid` is also the number of a process group.
    pub(crate) leads_group: bool,
}

impl RunningCommand {
    /// Errors are ignored: the process may have ended, or belong to root.
    pub(crate) fn send(self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        let _ = match self.leads_group {
            true => kill_process_group(pid, signal),
            false => kill_process(pid, signal),
        };
    }
}

/// Starts the thread that waits for signals.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn watch() -> Result<()> {
    let failed = |cause| ClientError::Failed(format!("cannot wait for signals: {cause}"));
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let wanted = [SIGINT, SIGTERM, SIGHUP, SIGQUIT]
        .into_iter()
        .filter(|number| !is_ignored(&status, *number));
    let mut signals = Signals::new(wanted).map_err(failed)?;
    let wait = move || signals.forever().for_each(handle);
    std::thread::Builder::new().name("signals".into()).spawn(wait).map(drop).map_err(failed)
}

fn handle(number: i32) {
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
        // SIGQUIT would leave a core file of the command.
        _ => Signal::TERM,
    }
}

/// Fails if a signal has arrived.
///
/// # Errors
/// [`ClientError::Interrupted`].
pub(crate) fn check() -> Result<()> {
    match RECEIVED.load(SeqCst) {
        0 => Ok(()),
        SIGINT => Err(ClientError::Interrupted("SIGINT")),
        SIGHUP => Err(ClientError::Interrupted("SIGHUP")),
        SIGQUIT => Err(ClientError::Interrupted("SIGQUIT")),
        _ => Err(ClientError::Interrupted("SIGTERM")),
    }
}

/// Records the current command. A signal that arrived just before is forwarded to it.
pub(crate) fn set_command(running: RunningCommand) {
    *COMMAND.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
    let received = RECEIVED.load(SeqCst);
    if received != 0 && !IS_UNDOING.load(SeqCst) {
        running.send(signal(received));
    }
}

/// Forgets the current command, whose PID the kernel may give to another process from now on.
pub(crate) fn clear_command() {
    *COMMAND.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Runs `undo`. Its commands get no signals, and start although a signal has arrived.
pub(crate) fn without_interruption<T>(undo: impl FnOnce() -> T) -> T {
    let before = IS_UNDOING.swap(true, SeqCst);
    let result = undo();
    IS_UNDOING.store(before, SeqCst);
    result
}

pub(crate) fn is_undoing() -> bool {
    IS_UNDOING.load(SeqCst)
}
