//! Runs a test in a process of its own, because the tests of one program run in threads.

use std::process::{Command, Stdio};
use std::{env, thread};

const APART: &str = "RSYNCD_SNAPSHOT_TEST_APART";

/// Whether this process runs only the present test. Otherwise the test runs in another process,
/// which must succeed, and the caller returns.
#[track_caller]
pub(crate) fn is_own_process() -> bool {
    let thread = thread::current();
    // With one test thread, the main thread runs the tests.
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
