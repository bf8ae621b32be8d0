//! The files by which a client tells how far its backup has come: see [`ClientCompletion`].
//!
//! They say *unfinished* rather than *complete*, so a finished backup holds only what was backed
//! up. A backup that changed nothing leaves the inodes of the one before and counts as unchanged; a
//! file that says *complete* would be a new file each time.

use std::os::fd::BorrowedFd;

use chrono::{DateTime, Utc};

use crate::decide::verdict_facts::ClientCompletion;
use crate::store::dir::c_name;
use crate::system::syscalls::stat_entry;

/// This file is in a module while its client is backing up, and stays there if the client was
/// killed.
pub(crate) const UNFINISHED: &str = ".rsync-system-backup-unfinished";

/// This file is in a module to which not everything could be transferred.
pub(crate) const PARTIAL: &str = ".rsync-system-backup-partial";

impl ClientCompletion {
    /// Looks into the module's directory; only the names count.
    pub fn of_module(module: BorrowedFd) -> Self {
        let exists = |name| stat_entry(module, &c_name(name)).is_ok();
        match (exists(UNFINISHED), exists(PARTIAL)) {
            (true, _) => ClientCompletion::Unfinished,
            (false, true) => ClientCompletion::Partial,
            (false, false) => ClientCompletion::Done,
        }
    }
}

/// The times of the file [`UNFINISHED`] in a module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UnfinishedFile {
    /// By the client's clock: the file's time.
    pub begun: DateTime<Utc>,
    /// By the server's: when the file was last changed.
    pub arrived: DateTime<Utc>,
}

impl UnfinishedFile {
    /// Looks into the module's directory; none if the file is not there.
    pub(crate) fn of_module(module: BorrowedFd) -> Option<UnfinishedFile> {
        let stat = stat_entry(module, &c_name(UNFINISHED)).ok()?;
        let time = |seconds, nanoseconds| {
            DateTime::from_timestamp(seconds, u32::try_from(nanoseconds).ok()?)
        };
        Some(UnfinishedFile {
            begun: time(stat.st_mtime, stat.st_mtime_nsec)?,
            arrived: time(stat.st_ctime, stat.st_ctime_nsec)?,
        })
    }
}
