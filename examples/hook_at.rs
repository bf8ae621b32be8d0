//! The hook at a simulated time, for tests that simulate a year behind a real daemon.
//!
//! `hook_at FILE POLICY` runs `rsyncd-snapshot post-xfer --config POLICY` at the time in FILE (RFC
//! 3339). After a space FILE may name a boot ID, and after another space the seconds since that
//! boot; otherwise the boot clock follows the wall clock. Only tests use it: rsyncd-snapshot itself
//! reads the system's clock.

use std::process::ExitCode;

use rsyncd_snapshot::decide::boot_time::BootTime;
use rsyncd_snapshot::internals::{
    Clock, Context, Exit, FinishedTransfer, Settings, Target, WriteScope, post_xfer,
};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(std::path::PathBuf::from);
    let (clock_file, policy_file) =
        (arguments.next().expect("FILE"), arguments.next().expect("POLICY"));
    let time = std::fs::read_to_string(clock_file).expect("the clock file");
    let mut words = time.split_whitespace();
    let time = words.next().and_then(|time| time.parse().ok()).expect("a time");
    let clock = match (words.next(), words.next()) {
        (Some(boot), Some(seconds)) => {
            let seconds: i64 = seconds.parse().expect("seconds since the boot");
            Clock::standing_at(
                time,
                BootTime { boot: boot.to_string(), nanoseconds: seconds * 1_000_000_000 },
            )
        }
        _ => Clock::standing(time),
    };
    rsyncd_snapshot::internals::log::start(false, log::LevelFilter::Warn);
    let context = Context {
        settings: Settings::read(Some(&policy_file), None),
        level: None,
        started: BootTime::now(),
        write_scope: WriteScope::Roots,
    };
    let transfer = FinishedTransfer::from_environment().expect("rsyncd's environment");
    let connection = &transfer.connection;
    let target = Target::of_module(
        &context.settings,
        connection.module_name.clone(),
        &connection.module_path,
    );
    let result = target
        .and_then(|target| post_xfer::after_transfer(&target, &transfer, None, &context, &clock));
    result
        .unwrap_or_else(|error| {
            // The library's logger passes only its own lines on.
            log::error!(target: "rsyncd_snapshot", "{error}");
            Exit::Failed
        })
        .into()
}
