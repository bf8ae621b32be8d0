//! The files by which a client tells how far its backup has come: see [`Finish`].
//!
//! They say *unfinished* rather than *complete* so that a finished backup holds nothing but what was backed
//! up, and one that changed nothing leaves the very same inodes as before: it counts as unchanged. A file
//! that vouches for each backup would be a new file each time.

use std::os::fd::BorrowedFd;

use super::durable::c_name;
use crate::decide::finish::Finish;
use crate::tree::syscalls::stat_entry;

/// In a module whose client is at work, or has died.
pub const UNFINISHED: &str = ".rsync-system-backup-unfinished";

/// In a module to which not everything could be transferred.
pub const PARTIAL: &str = ".rsync-system-backup-partial";

impl Finish {
    /// Looks into the module's directory; only the names count.
    pub fn of_module(module: BorrowedFd) -> Finish {
        let exists = |name| stat_entry(module, &c_name(name)).is_ok();
        match (exists(UNFINISHED), exists(PARTIAL)) {
            (true, _) => Finish::Unfinished,
            (false, true) => Finish::Partial,
            (false, false) => Finish::Done,
        }
    }
}
