//! The path of a module's directory as all other code uses it: absolute, without symbolic links.

use std::fs;
use std::path::{Path, PathBuf};

use crate::tell::error::{Error, Result};
use crate::tell::escape::escape_path;

/// The canonical path of the module's directory.
///
/// # Errors
/// If it does not exist or is no directory.
pub(crate) fn canonical_module(path: &Path) -> Result<PathBuf> {
    let canonical = fs::canonicalize(path)
        .map_err(|cause| Error::io("find the module directory", path, cause))?;
    let metadata = fs::metadata(&canonical).map_err(|cause| Error::io("inspect", path, cause))?;
    if !metadata.is_dir() {
        return Err(no_module_directory(path, "is not a directory"));
    }
    if canonical == Path::new("/") {
        let problem = "has no place beside it for snapshots: serve a directory below it";
        return Err(no_module_directory(&canonical, problem));
    }
    Ok(canonical)
}

/// The error of work that needs the module's directory, which does not exist.
pub(crate) fn missing_module(path: &Path) -> Error {
    let cause = std::io::Error::from_raw_os_error(libc::ENOENT);
    Error::io("find the module directory", path, cause)
}

pub(crate) fn no_module_directory(path: &Path, problem: &str) -> Error {
    Error::ModuleDirectory { path: escape_path(path), problem: problem.to_string() }
}
