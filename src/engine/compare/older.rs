//! Live directories that the clock says are as they were when the snapshot was made: of these, only
//! the files are looked at, and the snapshot's directory only where the clock leaves that open.

use std::ffi::CStr;
use std::os::fd::AsFd;

use nix::sys::stat::FileStat;

use crate::engine::children::{LEVEL_BYTES, PendingChildren};
use crate::engine::compare::{
    CompareContext, CompareFrame, CompareWalk, DirectoryToCompare, PresentIn,
};
use crate::engine::descent::Descent;
use crate::engine::index::Stamp;
use crate::system::identity::Twins;
use crate::system::syscalls::stat_entry;
use crate::tell::error::Result;

impl CompareWalk<'_> {
    /// Looks through a live directory in which no name has come or gone since the snapshot was
    /// made.
    pub(super) fn visit_older(
        &mut self,
        directory: DirectoryToCompare,
        stat: &FileStat,
    ) -> Result<()> {
        let mut pending = PendingChildren::new(LEVEL_BYTES);
        self.comparison.directories_read += 1;
        let (live, _) = self.open_live()?;
        let mut listing = std::mem::take(&mut self.listing);
        let failed = |cause| self.live.error("read", None, cause);
        let (mut entries, mut changed) = (0, 0);
        listing.read_first(live.as_fd()).map_err(failed)?;
        loop {
            entries += listing.entries().len() as u64;
            for entry in listing.entries() {
                let name = listing.name(entry);
                if entry.is_directory {
                    let below = DirectoryToCompare {
                        side: PresentIn::Both,
                        indexed: None,
                        is_replaced: false,
                    };
                    pending.push(name, below);
                    continue;
                }
                let is_same = stat_entry(live.as_fd(), name).is_ok_and(|stat| {
                    self.knowledge.is_older(&stat)
                        || has_untouched(&mut self.snapshot, name, &stat, self.knowledge)
                });
                changed += u64::from(!is_same);
                if let Some(files) = self.knowledge.new_files.filter(|_| !is_same) {
                    files.sync(&self.live, live.as_fd(), name);
                }
            }
            if !listing.read_next(live.as_fd()).map_err(failed)? {
                break;
            }
        }
        self.listing = listing;
        self.comparison.changed += changed;
        self.note_visited(&Stamp::of(stat), entries);
        self.push(CompareFrame { directory, is_unchanged: false, pending });
        Ok(())
    }
}

/// Whether the current directory of `snapshot` has the file `name` as the live tree has it. Asked
/// for only where the clock leaves that open.
fn has_untouched(
    snapshot: &mut Descent,
    name: &CStr,
    live: &FileStat,
    knowledge: &CompareContext,
) -> bool {
    let mut twin = || {
        let directory = snapshot.lookup_directory()?;
        stat_entry(directory.as_fd(), name)
    };
    knowledge.twins == Twins::OfCephFs
        && twin().is_ok_and(|twin| knowledge.is_untouched(live, &twin))
}
