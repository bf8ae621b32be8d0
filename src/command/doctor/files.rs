//! What `check` finds about files and directories that a module names besides its own: without
//! them, rsync turns every push away.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::config::rsyncd_module::RsyncdModule;
use crate::engine::responsiveness::is_responsive;
use crate::tell::escape::escape_path;

/// The findings about a module that clients push to.
pub(crate) fn findings(module: &RsyncdModule) -> Vec<Finding> {
    let is_set = |value: &&[u8]| !value.is_empty();
    let mut found = Vec::new();
    if max_connections(module) < 0 {
        let message = format!(
            "{}: max connections: rsync lets no connection in with a negative number or one above \
             2147483647; write 0 for any number of them",
            module.place_of("max connections")
        );
        found.push(Finding::new(FindingId::ConfParameter, Severity::Critical, message));
    }
    if module.get("lock file") == Some(b"") && max_connections(module) > 0 {
        let message = format!(
            "{}: lock file: it is empty, so rsync cannot count connections and turns each away; \
             name a file, or take the line out",
            module.place_of("lock file")
        );
        found.push(Finding::new(FindingId::ConfFile, Severity::Critical, message));
    }
    // What is inside another root directory, or depends on the connection, is not known here.
    if module.get("daemon chroot").filter(is_set).is_some() {
        return found;
    }
    let named = |parameter| named(module, parameter);
    let absolute = |parameter| named(parameter).filter(|path| path.is_absolute());
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
    if let Some(path) = temp_dir(module).filter(|path| is_responsive(path)) {
        let other = "take it out: rsync needs no other place for what it writes";
        match is_missing(&path) {
            true if module.path().is_ok_and(|directory| directory.exists()) => {
                tell("temp dir", &path, gone, other);
            }
            true => {}
            false if !path.is_dir() => tell("temp dir", &path, "is no directory", other),
            false => {}
        }
    }
    // rsync opens the lock file only to count connections.
    if let Some(path) = absolute("lock file").filter(|_| max_connections(module) > 0) {
        match path.parent().filter(|parent| is_missing(parent)) {
            Some(parent) => tell("lock file", parent, gone, "make it, or correct the path"),
            None if is_responsive(&path) && path.is_dir() => {
                tell("lock file", &path, "is a directory", "name a file in it");
            }
            None => {}
        }
    }
    found
}

/// The directory of `temp dir`. A path in a module begins at the module's directory, whether or not
/// rsync changes its root.
pub(crate) fn temp_dir(module: &RsyncdModule) -> Option<PathBuf> {
    let has_two_parts =
        module.get("path").is_some_and(|path| path.windows(3).any(|it| it == b"/./"));
    let named = named(module, "temp dir").filter(|_| !has_two_parts)?;
    Some(module.path().ok()?.join(named.strip_prefix("/").unwrap_or(&named)))
}

/// The path that a parameter names, if it does not depend on the connection or the daemon's
/// environment.
pub(crate) fn named(module: &RsyncdModule, parameter: &str) -> Option<PathBuf> {
    let value = module.get(parameter).filter(|value| !value.is_empty())?;
    module.expanded(value).ok().map(|path| PathBuf::from(OsString::from_vec(path)))
}

/// The number of `max connections`. None are counted with 0, and with a negative number no client
/// gets in.
pub(crate) fn max_connections(module: &RsyncdModule) -> i64 {
    number(module, "max connections")
}

/// The number of a parameter as rsync reads it: its digits, and 0 if it begins with none.
pub(crate) fn number(module: &RsyncdModule, parameter: &str) -> i64 {
    let value = module.get(parameter).unwrap_or_default().trim_ascii_start();
    let (sign, digits) = match value {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        digits => (1, digits),
    };
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
    let number = sign
        * digits.fold(0i64, |all, digit| {
            all.saturating_mul(10).saturating_add(i64::from(digit - b'0'))
        });
    // rsync keeps the lower half.
    i64::from(number as i32)
}

pub(crate) fn is_missing(path: &Path) -> bool {
    let is_gone = |error: std::io::Error| {
        matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
    };
    is_responsive(path) && fs::metadata(path).is_err_and(is_gone)
}
