//! A client's process, which may be interrupted.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::event::Ending;
use super::process;

/// After this time a client counts as hanging.
const PATIENCE: Duration = Duration::from_secs(120);

/// A signal that a client gets in the middle of its work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interruption {
    pub(crate) after: Duration,
    pub(crate) signal: Signal,
}

/// Runs a client, and returns its exit and its output. Its standard error goes to the file
/// `complaints`.
pub(crate) fn run(
    command: &mut Command,
    complaints: &Path,
    interruption: Option<Interruption>,
) -> (Ending, String) {
    let stderr = File::create(complaints).expect("a file for its errors");
    let mut child = command.stdout(Stdio::null()).stderr(stderr).spawn().expect("a client");
    let ending = wait(&mut child, interruption);
    let said = fs::read(complaints).expect("its errors");
    (ending, String::from_utf8_lossy(&said).trim().replace('\n', " / "))
}

fn wait(child: &mut Child, mut interruption: Option<Interruption>) -> Ending {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a status") {
            return status.code().map_or(Ending::Killed, Ending::Exited);
        }
        if let Some(Interruption { signal, .. }) =
            interruption.take_if(|due| began.elapsed() >= due.after)
        {
            process::signal(child.id(), signal);
        }
        if began.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return Ending::Hung;
        }
        std::thread::sleep(Duration::from_millis(4));
    }
}
