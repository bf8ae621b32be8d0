//! The Python programs that ours succeed, from PyPI in venvs below the target directory:
//! rotate-backups 8.1, whose decisions ours repeats, and rsync-system-backup 1.1, whose command
//! line it does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::have;
use super::run::{PATH, Run, tool};

/// What rotate-backups 8.1 and rsync-system-backup 1.1 need, so that every run compares with the
/// same programs.
const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/differential/requirements.txt");
const CLIENT: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/differential/client_requirements.txt");

type Venv = Result<PathBuf, String>;

/// The venv with rotate-backups; `None`, with the reason told, where there can be none.
pub(crate) fn original() -> Option<PathBuf> {
    static VENV: OnceLock<Venv> = OnceLock::new();
    get(&VENV, "rotate-backups", SERVER)
}

/// The venv with rsync-system-backup; `None`, with the reason told, where there can be none.
pub(crate) fn original_client() -> Option<PathBuf> {
    static VENV: OnceLock<Venv> = OnceLock::new();
    get(&VENV, "rsync-system-backup", CLIENT)
}

fn get(venv: &OnceLock<Venv>, name: &str, requirements: &str) -> Option<PathBuf> {
    if !have(&["python3"]) {
        return None;
    }
    match venv.get_or_init(|| install(name, requirements)) {
        Ok(venv) => Some(venv.clone()),
        Err(why) => {
            skipped!("{why}");
            None
        }
    }
}

/// Makes the venv unless it is there; other processes wait meanwhile.
fn install(name: &str, requirements: &str) -> Venv {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let lock =
        fs::File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.lock")));
    let lock = lock.expect("a lock file");
    fs2::FileExt::lock_exclusive(&lock).expect("locked");
    let wanted = fs::read_to_string(requirements).expect("the requirements");
    let installed = venv.join("installed");
    // It does not start after the system's Python has changed.
    let works = || {
        let import = format!("import {}", name.replace('-', "_"));
        Command::new(venv.join("bin/python"))
            .args(["-c", &import])
            .output()
            .is_ok_and(|run| run.status.success())
    };
    if fs::read_to_string(&installed).is_ok_and(|made_of| made_of == wanted) && works() {
        return Ok(venv);
    }
    let made = Run::of(tool("python3").args(["-m", "venv", "--clear"]).arg(&venv));
    if !made.succeeded() {
        return Err(format!("needs python3-venv: {}", said_last(&made)));
    }
    let options = ["-m", "pip", "install", "--quiet", "--retries", "2", "--timeout", "20"];
    let mut pip = tool("timeout");
    pip.arg("300").arg(venv.join("bin/python")).args(options).args(["-r", requirements]);
    let run = Run::of(&mut pip);
    if !run.succeeded() {
        return Err(format!("needs {name} from PyPI: {}", said_last(&run)));
    }
    if !works() {
        return Err(format!("needs {name}, which does not start"));
    }
    fs::write(installed, wanted).expect("the mark");
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
