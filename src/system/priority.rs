//! Limits what the program takes of the machine: priority of processor and disk, and address space.
//! A backup server should stay responsive, and a service may have limits.
//!
//! This is the only unsafe code of the crate: no maintained library wraps `ioprio_set` or
//! `mallopt`.
#![allow(unsafe_code)]

use crate::decide::policy::{IoNice, Policy};

const WHO_PROCESS: libc::c_long = 1;
const CLASS_SHIFT: u32 = 13;
const CLASS_BEST_EFFORT: libc::c_long = 2;
const CLASS_IDLE: libc::c_long = 3;
const LOWEST_LEVEL: libc::c_long = 7;

/// Lets all threads share one heap. The caller has not started a second thread yet.
///
/// glibc gives each thread its own heap, and reserves 64 MiB of address space for it. Under a limit
/// of address space, a thread that needs little memory would take it from the others.
pub(crate) fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes numbers only, and does no harm at any time. Where it is refused, all stays as
    // it was.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Lowers this process's priority as the policy asks. A failure is logged as a warning.
pub(crate) fn lower_priority(policy: &Policy) {
    if policy.nice > 0 {
        // SAFETY: takes numbers only; the process with id 0 is the caller.
        let answer = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, policy.nice) };
        warn_unless_done(answer.into(), "nice");
    }
    let ioprio = match policy.ionice {
        IoNice::None => return,
        IoNice::Idle => CLASS_IDLE << CLASS_SHIFT,
        IoNice::BestEffort => CLASS_BEST_EFFORT << CLASS_SHIFT | LOWEST_LEVEL,
    };
    // SAFETY: takes numbers only; the process with id 0 is the caller.
    let answer =
        unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0 as libc::c_long, ioprio) };
    warn_unless_done(answer, "ionice");
}

/// Lets the calling thread read and write only while no other process uses the disk.
pub(crate) fn idle() {
    let ioprio = CLASS_IDLE << CLASS_SHIFT;
    // SAFETY: takes numbers only; the process with id 0 is the calling thread.
    let answer =
        unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0 as libc::c_long, ioprio) };
    warn_unless_done(answer, "ionice");
}

fn warn_unless_done(answer: libc::c_long, setting: &str) {
    if answer != 0 {
        log::warn!("cannot set {setting}: {}", std::io::Error::last_os_error());
    }
}
