//! Fixtures: a backup server in a scratch directory, the module it serves, the rsync daemon
//! that serves it, file systems to put it on, and trees to fill it with.
//!
//! A test that this machine cannot run says so with `skipped!` and passes; with
//! `RSYNCD_SNAPSHOT_TEST_ALL=1` it fails instead.

#![allow(dead_code, reason = "every test file uses another part of the fixtures")]

/// Says that a test, or a part of it, cannot run here, and why: `skipped!("needs {tool}")`.
///
/// `RSYNCD_SNAPSHOT_TEST_ALL=1` makes it fail the test. `tests/run` lists what was skipped.
macro_rules! skipped {
    ($($why:tt)*) => { $crate::support::skip(&format!($($why)*)) };
}

/// Ends a test that takes seconds, in a run of all tests that is meant to be quick: `cargo test`
/// alone. `tests/run` runs it, and so does `cargo test` with a part of its name.
#[allow(unused_macros, reason = "not each test program has such tests")]
macro_rules! slow {
    () => {
        if $crate::support::leaves_out_slow() {
            skipped!("takes seconds; `sh tests/run` runs it, or `cargo test` with its name");
            return;
        }
    };
}

#[macro_use]
pub(crate) mod subvolumes;

pub(crate) mod aftermath;
pub(crate) mod apart;
pub(crate) mod ceph;
pub(crate) mod client;
pub(crate) mod daemon;
pub(crate) mod disk_use;
pub(crate) mod edits;
pub(crate) mod exact;
pub(crate) mod file_system;
pub(crate) mod fingerprint;
pub(crate) mod history;
pub(crate) mod import;
pub(crate) mod kinds;
pub(crate) mod module;
pub(crate) mod monitoring;
pub(crate) mod original;
pub(crate) mod outside;
pub(crate) mod random;
pub(crate) mod recorded;
pub(crate) mod run;
pub(crate) mod scene;
pub(crate) mod server;
pub(crate) mod simulated;
pub(crate) mod snapshots;
pub(crate) mod sshd;
pub(crate) mod swapper;
pub(crate) mod sweep;
pub(crate) mod syslog;
pub(crate) mod terminal;
pub(crate) mod time;
pub(crate) mod tree;

use std::path::Path;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_rsyncd-snapshot");

/// The account that tests of ordinary users run as.
pub(crate) const ORDINARY_USER: u32 = 65534;

/// Runs the command behind it as [`ORDINARY_USER`].
pub(crate) const AS_ORDINARY_USER: [&str; 4] =
    ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// Whether all `tools` are installed.
pub(crate) fn have(tools: &[&str]) -> bool {
    let missing: Vec<_> = tools.iter().filter(|tool| !is_installed(tool)).copied().collect();
    if missing.is_empty() {
        return true;
    }
    skipped!("needs {}", missing.join(", "));
    false
}

/// Whether this process is root and so may mount, chown and make devices.
pub(crate) fn root() -> bool {
    let root = is_root();
    if !root {
        skipped!("needs root");
    }
    root
}

/// [`root`], since only root's runs make a snapshot out of a retired one.
pub(crate) fn may_recycle() -> bool {
    root()
}

/// [`root`], and the right to mount, which root in a container may lack.
pub(crate) fn may_mount() -> bool {
    if !root() || !have(&["mount", "umount", "unshare"]) {
        return false;
    }
    let may = run::Run::of(
        run::tool("unshare").args(["--mount", "mount", "-t", "tmpfs", "none", "/mnt"]),
    );
    if !may.succeeded() {
        skipped!("needs the right to mount: {}", may.stderr().trim());
    }
    may.succeeded()
}

pub(crate) fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// Whether the tests try all cases instead of a sample.
pub(crate) fn is_full_sweep() -> bool {
    by_sweep(false, false, true)
}

/// How much a test tries: the first by default, so that `cargo test` takes a few minutes, the
/// second with `RSYNCD_SNAPSHOT_SWEEP=usual` as in `tests/run`, the third with
/// `RSYNCD_SNAPSHOT_SWEEP=full`.
pub(crate) fn by_sweep<T>(quick: T, usual: T, full: T) -> T {
    match std::env::var("RSYNCD_SNAPSHOT_SWEEP").as_deref() {
        Ok("full") => full,
        Ok("usual") => usual,
        Ok("quick") | Err(_) => quick,
        Ok(other) => panic!("RSYNCD_SNAPSHOT_SWEEP={other}: it is quick, usual or full"),
    }
}

/// Whether tests that take seconds are left out: no sweep is asked for, and no test by its name.
pub(crate) fn leaves_out_slow() -> bool {
    let is_option = |argument: String| argument.starts_with('-');
    by_sweep(true, false, false)
        && std::env::var_os("RSYNCD_SNAPSHOT_SWEEP").is_none()
        && std::env::args().skip(1).all(is_option)
}

/// What `skipped!` does.
#[track_caller]
pub(crate) fn skip(why: &str) {
    let all = std::env::var_os("RSYNCD_SNAPSHOT_TEST_ALL").is_some_and(|value| value == "1");
    assert!(!all, "RSYNCD_SNAPSHOT_TEST_ALL=1, but this test {why}");
    eprintln!("skipped: {why}");
}

/// Says that a test cannot run because the kernel lacks `what`, which no installation changes.
pub(crate) fn skip_in_this_kernel(what: &str) {
    eprintln!("skipped: needs a kernel with {what}");
}

/// Whether `tool` is installed, for what may be missing.
pub(crate) fn is_installed(tool: &str) -> bool {
    run::PATH.split(':').any(|directory| Path::new(directory).join(tool).exists())
}
