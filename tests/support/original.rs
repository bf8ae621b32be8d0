//! rotate-backups 8.1, the program whose decisions ours repeats, from PyPI in a venv below the target
//! directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::run::{PATH, Run, tool};
use super::{have, skip_unless_all};

const PACKAGE: &str = "rotate-backups==8.1";

/// The venv with the original; `None`, with the reason told, where there can be none.
pub(crate) fn original() -> Option<PathBuf> {
    static VENV: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    if !have(&["python3"]) {
        return None;
    }
    match VENV.get_or_init(install) {
        Ok(venv) => Some(venv.clone()),
        Err(why) => {
            skip_unless_all(why);
            None
        }
    }
}

/// Makes the venv unless it is there; other processes wait meanwhile.
fn install() -> Result<PathBuf, String> {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rotate-backups-8.1");
    let lock = fs::File::create(venv.with_extension("lock")).expect("a lock file");
    fs2::FileExt::lock_exclusive(&lock).expect("locked");
    let complete = venv.join("complete");
    if complete.exists() {
        return Ok(venv);
    }
    let made = Run::of(tool("python3").args(["-m", "venv", "--clear"]).arg(&venv));
    if !made.succeeded() {
        return Err(format!("needs python3-venv: {}", said_last(&made)));
    }
    let options = ["-m", "pip", "install", "--quiet", "--retries", "1", "--timeout", "20", PACKAGE];
    let installed = Run::of(tool("timeout").arg("300").arg(venv.join("bin/python")).args(options));
    if !installed.succeeded() {
        return Err(format!("needs {PACKAGE} from PyPI: {}", said_last(&installed)));
    }
    fs::write(complete, "").expect("the mark");
    Ok(venv)
}

fn said_last(run: &Run) -> String {
    let said = run.stdout() + &run.stderr();
    said.lines().last().unwrap_or("without a word").to_string()
}

/// A program of the venv, in an environment that nothing of the machine reaches.
pub(crate) fn python(venv: &Path, program: &str) -> Command {
    let mut command = Command::new(venv.join("bin").join(program));
    command.env_clear().env("PATH", PATH).env("HOME", "/x").env("LC_ALL", "C.UTF-8");
    command.env("COLOREDLOGS_LOG_FORMAT", "%(message)s").env("PYTHONWARNINGS", "ignore");
    command.current_dir("/");
    command
}
