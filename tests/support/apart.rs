//! A test that needs a process of its own, since other tests of its program run beside it.

use std::process::{Command, Stdio};
use std::{env, thread};

const APART: &str = "RSYNCD_SNAPSHOT_TEST_APART";

/// Whether no other test runs in this process. If one may, the present test is run in another
/// process, which has to succeed; the caller has nothing left to do.
#[track_caller]
pub(crate) fn is_own_process() -> bool {
    let thread = thread::current();
    // The main thread runs tests only if they run one after the other.
    let Some(test) = thread.name().filter(|name| *name != "main") else { return true };
    if env::var_os(APART).is_some() {
        return true;
    }
    let this = env::current_exe().expect("this program");
    let run = Command::new(this)
        .args(["--exact", test, "--include-ignored", "--nocapture"])
        .env(APART, "1")
        .stdin(Stdio::null())
        .output()
        .expect("this program once more");
    let text = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
    let passed = run.status.success() && text.contains("1 passed");
    assert!(passed, "{test} failed in its own process:\n{text}");
    text.lines().filter(|line| line.starts_with("skipped: ")).for_each(|line| println!("{line}"));
    false
}
