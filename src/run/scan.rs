//! Compares the live tree with a snapshot, and finds the directories that failed pushes left
//! unfinished.
//!
//! The comparison trusts the snapshot's index if a full comparison has confirmed it within the
//! policy's `full_comparison`. If the index proves wrong, it is not used, and the run warns.
//!
//! A subvolume has no index. Within `full_comparison` its comparison trusts the clock instead, and
//! reads of a snapshot only what has changed since that was made. If nothing has, although the file
//! system says so, all of it is compared: a clock that was set back must not hide a change. CephFS
//! says nothing, so there the clock alone is trusted, with a margin of ten minutes for the clocks
//! of other machines, and at once all is compared when it shows a time before the newest snapshot.

use std::os::fd::{AsFd, BorrowedFd};

use crate::decide::boot_time::BootTime;
use crate::decide::failed_push::UnfinishedDirectory;
use crate::decide::torn_mark::TornMark;
use crate::engine::compare::unfinished::UnfinishedSearch;
use crate::engine::compare::{CompareContext, Comparison};
use crate::engine::index::reader::DirectoryIndex;
use crate::engine::listing_cache::ListingCache;
use crate::engine::synced_files::SyncedFiles;
use crate::run::attempt::SnapshotAttempt;
use crate::run::report::Report;
use crate::store::dir::c_name;
use crate::store::index_file;
use crate::store::inode_log::windows::wall_ns;
use crate::store::publish::ComparedTree;
use crate::store::record::Record;
use crate::store::snapshot_method::SnapshotMethod;
use crate::store::snapshots::ListedSnapshot;
use crate::system::btrfs::Subvolume;
use crate::system::identity::Twins;
use crate::system::syscalls::open_directory;
use crate::tell::counted;
use crate::tell::error::{Error, Result};

/// A comparison, and the index that it used, if any.
pub(crate) struct TreeScan {
    pub(crate) comparison: Comparison,
    pub(crate) index: Option<DirectoryIndex>,
    /// Live directories that the comparison has read.
    pub(crate) cache: ListingCache,
    /// Directories that failed pushes left unfinished, if any are searched for.
    pub(crate) unfinished: Vec<UnfinishedDirectory>,
}

impl TreeScan {
    /// What the comparison knows of the live tree.
    pub(crate) fn compared_tree(&self) -> ComparedTree<'_> {
        ComparedTree {
            index: self.index.as_ref(),
            entries: Some(self.comparison.fingerprint.entries),
            cache: Some(&self.cache),
        }
    }
}

impl SnapshotAttempt<'_> {
    pub(crate) fn compare(
        &self,
        item: Option<&ListedSnapshot>,
        report: &mut Report,
    ) -> Result<TreeScan> {
        let live = self.tree_to_read()?;
        let since = self.before.torn.as_ref().and_then(TornMark::search_since_ns);
        let search = since.map(UnfinishedSearch::new);
        let cache = ListingCache::default();
        let new_files = self.session.root.must_sync_files().then(SyncedFiles::default);
        let Some(item) = item else {
            self.is_full.set(true);
            let context = CompareContext {
                unfinished: search.as_ref(),
                cache: Some(&cache),
                new_files: new_files.as_ref(),
                ..CompareContext::default()
            };
            let comparison = self.session.root.method().compare(live, None, context)?;
            tell_synced(new_files, report)?;
            let unfinished = search.map(UnfinishedSearch::found).unwrap_or_default();
            return Ok(TreeScan { comparison, index: None, cache, unfinished });
        };
        let name = &item.name.text;
        let snapshots = self.session.root.snapshots();
        let path = snapshots.path.join(name);
        let directory = open_directory(snapshots.directory, &c_name(name))
            .map_err(|cause| Error::io("open the snapshot", &path, cause))?;
        let record = item.record.as_ref().filter(|record| !record.adopted);
        let index = record.and_then(|_| index_file::open(self.session.root, name));
        let is_index_check = self.is_full_comparison_due();
        let frozen_ns = record.and_then(|record| record.frozen_ns.as_ref()?.parse::<i64>().ok());
        let method = self.session.root.method();
        // A clone reads what it links once more; no other method does.
        let cached = (!method.is_instant()).then_some(&cache);
        let compare = |search, trusts_clock| {
            let context = CompareContext {
                known: item.record.as_ref().map(Record::known).unwrap_or_default(),
                index: index.as_ref(),
                is_index_check,
                entries: record.map(|record| record.entries),
                unfinished: search,
                cache: cached,
                new_files: new_files.as_ref(),
                twins: Twins::default(),
                frozen_ns,
                trusts_clock,
            };
            method.compare(live, Some((directory.as_fd(), &path)), context)
        };
        let mut trusts_clock = !is_index_check
            && frozen_ns.is_some_and(|ns| ns <= wall_ns())
            && self.is_of_module(directory.as_fd());
        let mut comparison = compare(search.as_ref(), trusts_clock)?;
        // Of CephFS, nothing has said that there is a change.
        if trusts_clock && !comparison.differs() && method == SnapshotMethod::Subvolumes {
            trusts_clock = false;
            comparison = compare(None, trusts_clock)?;
        }
        tell_synced(new_files, report)?;
        let is_full = is_index_check || index.is_none() && !trusts_clock;
        self.is_full.set(self.is_full.get() || is_full);
        let unfinished = search.map(UnfinishedSearch::found).unwrap_or_default();
        if comparison.index_errors == 0 {
            return Ok(TreeScan { comparison, index, cache, unfinished });
        }
        let count = comparison.index_errors;
        report.warn(format!(
            "the index of {name} was wrong about {count} of its directories: that snapshot was \
             changed, or the file system's change times cannot be trusted; compare it with the \
             others"
        ));
        Ok(TreeScan { comparison, index: None, cache, unfinished })
    }

    /// Whether a snapshot is one of the subvolume that the module is now. After a rollback, the
    /// module is another one, whose files changed before that snapshot was made.
    fn is_of_module(&self, snapshot: BorrowedFd) -> bool {
        if self.session.root.method() == SnapshotMethod::CephFs {
            // It is in the module's own directory of snapshots.
            return true;
        }
        let snapshot = Subvolume::of(snapshot).ok().flatten();
        let both = snapshot.zip(self.session.root.subvolume());
        both.is_some_and(|(snapshot, module)| snapshot.is_of(&module))
    }

    /// Whether it is time to check the index by a full comparison. A last time in the future comes
    /// from a wrong clock and is ignored.
    fn is_full_comparison_due(&self) -> bool {
        let last = self.before.full_comparison.filter(|last| *last <= self.now);
        last.is_none_or(|last| {
            self.now - last >= self.session.target.policy.full_comparison.delta()
        })
    }

    pub(crate) fn log_scan(&self, comparison: &Comparison) {
        log::debug!(
            "{}: {} entries in {} directories; {} added, {} changed, {} removed; decided {:.3} ms \
             after the start",
            self.session.target.label(),
            comparison.fingerprint.entries,
            comparison.fingerprint.directories,
            comparison.added,
            comparison.changed,
            comparison.removed,
            BootTime::now().milliseconds_since(&self.request.started),
        );
    }
}

/// # Errors
/// If something that is new could not be synced.
fn tell_synced(new_files: Option<SyncedFiles>, report: &mut Report) -> Result<()> {
    let Some(files) = new_files else { return Ok(()) };
    let (synced, denied) = files.finish()?;
    log::debug!("{synced} files and directories that are new were synced");
    if denied > 0 {
        report.warn(format!(
            "{} may not be opened by this user, so the content is on the disks of the cluster \
             only once the client has written it, within seconds",
            counted(usize::try_from(denied).unwrap_or(usize::MAX), "new file")
        ));
    }
    Ok(())
}
