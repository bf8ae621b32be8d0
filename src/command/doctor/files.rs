//! What `check` finds about files and directories that a module names besides its own: without
//! them, rsync turns every push away.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::config::rsyncd_module::RsyncdModule;
use crate::engine::responsiveness::is_responsive;
use crate::tell::escape::escape_path;

/// The findings about a module that clients push to.
pub(crate) fn findings(module: &RsyncdModule) -> Vec<Finding> {
    // What is inside another root directory, or depends on the connection, is not known here.
    let is_set = |value: &&[u8]| !value.is_empty();
    if module.get("daemon chroot").filter(is_set).is_some() {
        return Vec::new();
    }
    let named = |parameter| {
        let value = module.get(parameter).filter(is_set)?;
        (!value.contains(&b'%')).then(|| PathBuf::from(OsStr::from_bytes(value)))
    };
    let absolute = |parameter| named(parameter).filter(|path| path.is_absolute());
    let mut found = Vec::new();
    let mut tell = |parameter: &str, missing: &Path, what: &str, remedy: &str| {
        let message = format!(
            "{}: {parameter}: {} {what}, so rsync turns every push away; {remedy}",
            module.place_of(parameter),
            escape_path(missing)
        );
        found.push(Finding::new(FindingId::ConfFile, Severity::Critical, message));
    };
    let gone = "does not exist";
    for parameter in ["exclude from", "include from"] {
        if let Some(path) = absolute(parameter).filter(|path| is_missing(path)) {
            tell(parameter, &path, gone, "make it, or correct the path");
        }
    }
    // A path in a module begins at the module's directory, whether or not rsync changes its root.
    let below =
        |path: PathBuf| Some(module.path().ok()?.join(path.strip_prefix("/").unwrap_or(&path)));
    let has_two_parts =
        module.get("path").is_some_and(|path| path.windows(3).any(|it| it == b"/./"));
    if let Some(path) = named("temp dir").filter(|_| !has_two_parts).and_then(below)
        && is_missing(&path)
        && module.path().is_ok_and(|directory| directory.exists())
    {
        tell("temp dir", &path, gone, "take it out: rsync needs no other place for what it writes");
    }
    // rsync opens the lock file only to count connections.
    let counts = module
        .get("max connections")
        .is_some_and(|value| value.trim_ascii().iter().any(|byte| (b'1'..=b'9').contains(byte)));
    if let Some(path) = absolute("lock file").filter(|_| counts)
        && let Some(parent) = path.parent().filter(|parent| is_missing(parent))
    {
        tell("lock file", parent, gone, "make that directory, or correct the path");
    }
    found
}

fn is_missing(path: &Path) -> bool {
    let is_gone = |error: std::io::Error| {
        matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
    };
    is_responsive(path) && fs::metadata(path).is_err_and(is_gone)
}
