//! Probes what a confined process can still do, for the tests.
//!
//! `confined POLICY MODULE STAGING DIRECTORY...` confines itself as a hook of the module at MODULE
//! does, tries everything that changes something in each DIRECTORY, and prints a line `DIRECTORY:
//! ATTEMPT: ANSWER` for each. STAGING holds a file `source`, a DIRECTORY a file `file`, a script
//! `script` that may be executed, and an empty directory `empty`.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rsyncd_snapshot::decide::root_overlap::Opener;
use rsyncd_snapshot::internals::{Settings, Target, WriteScope, confine};

fn main() {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let mut next = |what: &str| arguments.next().unwrap_or_else(|| panic!("{what} is missing"));
    let (policy, module, staging) = (next("POLICY"), next("MODULE"), next("STAGING"));
    let target = Target::of_module(&Settings::read(Some(&policy), None), None, &module)
        .expect("the module")
        .opened_by(Opener::Push);
    confine::to([&target], WriteScope::Roots);
    for directory in arguments {
        for (attempt, answer) in attempts(&directory, &staging) {
            println!("{}: {attempt}: {answer}", directory.display());
        }
    }
}

fn attempts(directory: &Path, staging: &Path) -> Vec<(&'static str, String)> {
    let at = |name: &str| directory.join(name);
    let linked = staging.join(format!("linked {}", std::process::id()));
    let mut attempts = vec![
        ("write", answer(OpenOptions::new().write(true).open(at("file")))),
        ("truncate", answer(truncate_by_path(&at("file")))),
        ("execute", answer(Command::new(at("script")).spawn().and_then(|mut child| child.wait()))),
        ("link out", answer(std::fs::hard_link(at("file"), &linked))),
        ("link in", answer(std::fs::hard_link(staging.join("source"), at("linked in")))),
        ("make and write", answer(File::create_new(at("new file")))),
        ("make a directory", answer(std::fs::create_dir(at("new directory")))),
        ("make a symlink", answer(std::os::unix::fs::symlink("file", at("new symlink")))),
        ("remove a directory", answer(std::fs::remove_dir(at("empty")))),
        ("rename", answer(std::fs::rename(at("script"), at("renamed")))),
        ("move out", answer(std::fs::rename(at("file"), staging.join("moved out")))),
        ("remove", answer(std::fs::remove_file(at("file")))),
    ];
    // Without the file, the attempt to remove it proves nothing.
    if attempts.iter().any(|(attempt, answer)| *attempt == "move out" && answer == "done") {
        attempts.pop();
    }
    let _ = std::fs::remove_file(&linked);
    attempts
}

/// By path, because `truncate` opens no descriptor.
fn truncate_by_path(path: &Path) -> io::Result<()> {
    nix::unistd::truncate(path, 0).map_err(io::Error::from)
}

fn answer<T>(result: io::Result<T>) -> String {
    match result {
        Ok(_) => "done".to_string(),
        Err(error) => error.raw_os_error().map_or_else(
            || error.to_string(),
            |number| format!("{:?}", nix::errno::Errno::from_raw(number)),
        ),
    }
}
