//! Limits what the program takes of the machine: priority of processor and disk, and address space.
//! A backup server should stay responsive, and a service may have limits.

use std::io;

use crate::decide::policy::{IoNice, Policy};
use crate::system::unsafe_calls::{set_io_priority, use_one_heap};

const CLASS_SHIFT: u32 = 13;
const CLASS_BEST_EFFORT: i32 = 2;
const CLASS_IDLE: i32 = 3;
const LOWEST_LEVEL: i32 = 7;

/// Lets all threads share one heap. The caller has not started a second thread yet.
///
/// glibc gives each thread its own heap, and reserves 64 MiB of address space for it. Under a limit
/// of address space, a thread that needs little memory would take it from the others.
pub(crate) fn share_one_heap() {
    use_one_heap();
}

/// Lowers this process's priority as the policy asks. A failure is logged as a warning.
pub(crate) fn lower_priority(policy: &Policy) {
    if policy.nice > 0 {
        let answer = rustix::process::setpriority_process(None, policy.nice);
        warn_unless_done(answer.map_err(Into::into), "nice");
    }
    let priority = match policy.ionice {
        IoNice::None => return,
        IoNice::Idle => CLASS_IDLE << CLASS_SHIFT,
        IoNice::BestEffort => CLASS_BEST_EFFORT << CLASS_SHIFT | LOWEST_LEVEL,
    };
    warn_unless_done(set_io_priority(priority), "ionice");
}

/// Lets the calling thread read and write only while no other process uses the disk.
pub(crate) fn idle() {
    warn_unless_done(set_io_priority(CLASS_IDLE << CLASS_SHIFT), "ionice");
}

fn warn_unless_done(answer: io::Result<()>, setting: &str) {
    if let Err(error) = answer {
        log::warn!("cannot set {setting}: {error}");
    }
}
