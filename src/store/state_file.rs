//! A state file that is missing or damaged: whether there was one, and where it is kept.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use crate::store::dir::{Dir, c_name, names_in};
use crate::store::layout::{DAMAGED_STATE_FILE, PINS_FILE, STATE_FILE, Subdir};
use crate::system::syscalls::{is_gone, open_directory, stat_entry};
use crate::tell::error::{Error, Result};

pub(crate) fn exists(private: Dir, file: &str) -> Result<bool> {
    match stat_entry(private.directory, &c_name(file)) {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(cause) => Err(Error::io("inspect", &private.path.join(file), cause)),
    }
}

/// Whether a snapshot was ever recorded here. The first state is written before any of the files
/// that show this, so if one exists without a state, the state was lost.
pub(crate) fn has_history(private: Dir) -> Result<bool> {
    if exists(private, PINS_FILE)? {
        return Ok(true);
    }
    for dir in [Subdir::Records, Subdir::Index, Subdir::Inodes].map(Subdir::name) {
        let path = private.path.join(dir);
        match open_directory(private.directory, &c_name(dir)) {
            Ok(opened) => {
                let names = names_in(Dir { directory: opened.as_fd(), path: &path })?;
                if names.iter().any(|name| !name.ends_with(".tmp")) {
                    return Ok(true);
                }
            }
            Err(cause) if is_gone(cause) => {}
            Err(cause) => return Err(Error::io("open", &path, cause)),
        }
    }
    Ok(false)
}

/// Keeps the damaged file under another name, too. Under its own name it stays until the new state
/// replaces it: without a state file, the root could pass for a new one.
pub(crate) fn set_aside(private: Dir) -> Result<()> {
    let (file, damaged) = (c_name(STATE_FILE), c_name(DAMAGED_STATE_FILE));
    let directory = private.directory;
    let [from, to] = [STATE_FILE, DAMAGED_STATE_FILE].map(|name| private.path.join(name));
    match unlinkat(directory, damaged.as_c_str(), UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(cause) => return Err(Error::io("remove", &to, cause)),
    }
    linkat(directory, file.as_c_str(), directory, damaged.as_c_str(), AtFlags::empty())
        .map_err(|cause| Error::io_pair("link", &from, &to, cause))
}
