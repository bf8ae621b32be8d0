//! The directory of a module.

use std::fs::{self, DirBuilder, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{fchmod, mkdirat, Mode};
use nix::unistd::fsync;

use crate::decide::file_system::{without_inode_numbers, Expectation, FileSystemType};
use crate::store::dir::{c_name, open_path, Dir, OwnedDir};
use crate::store::layout::{PRIVATE, Subdir};
use crate::store::link_trial::{self, LinkTrial};
use crate::store::lock::DirLock;
use crate::store::registration::Registration;
use crate::store::root_checks;
use crate::system::mounts::note_mounts_below;
use crate::system::syscalls::{open_directory, stat_entry};
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape_path, shell_path};

/// The module's directory as everything else here names it: absolute, without symbolic links.
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

pub(crate) fn no_module_directory(path: &Path, problem: &str) -> Error {
    Error::ModuleDirectory { path: escape_path(path), problem: problem.to_string() }
}
