//! What a verification works on: the snapshots of a root, and the inode log. It only reads.

use std::ffi::CString;
use std::os::fd::AsFd;

use chrono::{DateTime, Utc};
use nix::errno::Errno;

use crate::decide::damage::FileTime;
use crate::decide::lacking::TreeCount;
use crate::decide::vanished::{RemovedLinks, VanishedSnapshot};
use crate::engine::inodes::{InodeName, walk_counting};
use crate::module::target::Target;
use crate::run::vanished::UnacceptedSnapshots;
use crate::store::dir::{Dir, OwnedDir, c_name};
use crate::store::inode_log::reader::{InodeLog, LogPosition};
use crate::store::layout::Subdir;
use crate::store::record::Record;
use crate::store::retire;
use crate::store::root::SnapshotRoot;
use crate::store::shelf::{OpenShelf, Shelf, Slot};
use crate::store::snapshots::SnapshotList;
use crate::store::state::State;
use crate::store::vanished::{self, RootContent};
use crate::system::btrfs::Subvolume;
use crate::system::identity::Identity;
use crate::system::syscalls::{open_directory, stat_entry};
use crate::tell::error::{Error, Result};

pub(crate) struct CheckedSnapshot {
    pub(crate) name: String,
    pub(crate) c_name: CString,
    pub(crate) identity: Identity,
    /// Its position in the inode log, if anything was recorded with it.
    pub(crate) position: Option<LogPosition>,
    /// When the run began to link the tree, nanoseconds since 1970; the time in the snapshot's name
    /// if nothing was recorded with it.
    pub(crate) began_ns: i64,
    /// Whether it is in `expired/`.
    pub(crate) is_retired: bool,
    /// How many entries it has by its record; none if that is not known, or not exact.
    pub(crate) entries: Option<u64>,
}

pub(crate) struct Evidence<'a> {
    pub(crate) root: &'a SnapshotRoot,
    pub(crate) inodes: OwnedDir,
    pub(crate) expired: OwnedDir,
    pub(crate) inode_log: Option<InodeLog>,
    /// The visible ones, oldest first.
    pub(crate) snapshots: Vec<CheckedSnapshot>,
    /// Retired snapshots. They are not verified, but show which names an inode had.
    pub(crate) retired: Vec<CheckedSnapshot>,
    /// The links of snapshots that vanished.
    pub(crate) removed_links: Vec<RemovedLinks>,
    pub(crate) vanished: UnacceptedSnapshots,
    /// How many visible snapshots are subvolumes. They share no files with the module, and nothing
    /// of them is compared.
    pub(crate) subvolumes: usize,
    /// How many were made by CephFS.
    pub(crate) cephfs_snapshots: usize,
    /// Those of them that can be or were written to.
    pub(crate) changed_subvolumes: Vec<String>,
}

impl<'a> Evidence<'a> {
    pub(crate) fn open(
        target: &Target,
        root: &'a SnapshotRoot,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let inodes = root.subdir(Subdir::Inodes)?;
        let inode_log = InodeLog::read(inodes.dir())?;
        let expired = root.subdir(Subdir::Expired)?;
        let mut evidence = Evidence {
            root,
            inodes,
            expired,
            inode_log,
            snapshots: Vec::new(),
            retired: Vec::new(),
            removed_links: Vec::new(),
            vanished: UnacceptedSnapshots::default(),
            subvolumes: 0,
            cephfs_snapshots: 0,
            changed_subvolumes: Vec::new(),
        };
        // Visible snapshots are listed before retired ones, so a snapshot that is retired in
        // between is in at least one of the lists.
        let list = SnapshotList::read(root, &target.policy.time_zone)?;
        let retired = retire::retired(root)?;
        let state = State::read(root.private())?;
        let content = RootContent { root, state: &state, list: &list, retired: &retired };
        let gone = vanished::look(content, now)?;
        evidence.vanished = UnacceptedSnapshots::of(content, &gone);
        // What is left of a snapshot shows itself which links it has lost.
        let is_gone = |one: &VanishedSnapshot| !one.partly || !content.has(&one.name);
        let gone: Vec<VanishedSnapshot> = gone.into_iter().filter(is_gone).collect();
        for item in list.items {
            let slot = root.visible(&item.name.text);
            if slot.is_sealed(root) {
                match root.has_only_sealed() {
                    true => evidence.cephfs_snapshots += 1,
                    false => evidence.subvolumes += 1,
                }
                if !root.has_only_sealed() && !is_as_made(&slot) {
                    evidence.changed_subvolumes.push(item.name.text);
                }
                continue;
            }
            let by_name = item.name.time.timestamp_nanos_opt().unwrap_or(i64::MAX);
            let entries = item.record.as_ref().and_then(Record::exact_entries);
            let found = evidence.find(item.name.text, by_name, false)?;
            evidence.snapshots.extend(found.map(|found| CheckedSnapshot { entries, ..found }));
        }
        let shelf = OpenShelf::open(root, Shelf::Expired)?;
        for name in retired.into_iter().filter(|name| !shelf.slot(name).is_sealed(root)) {
            let entries = exact_entries(root, &name);
            let found = evidence.find(name, i64::MAX, true)?;
            evidence.retired.extend(found.map(|found| CheckedSnapshot { entries, ..found }));
        }
        evidence.removed_links = gone.iter().map(|one| evidence.removed_links_of(one)).collect();
        Ok(evidence)
    }

    /// The links of a snapshot that vanished. If the inode log no longer has its commit, neither
    /// does it have the first baselines of the files in older snapshots: then what is recorded up
    /// to the oldest snapshot may have been in the vanished one, too.
    fn removed_links_of(&self, gone: &VanishedSnapshot) -> RemovedLinks {
        let taken = gone.taken.timestamp_nanos_opt().unwrap_or(i64::MAX);
        let Some(inode_log) = &self.inode_log else { return RemovedLinks::of(gone, taken) };
        let held_until =
            inode_log.position(&gone.name).map(|position| inode_log.began_ns(position));
        let oldest = || {
            let all = self.snapshots.iter().chain(&self.retired);
            all.filter_map(|snapshot| snapshot.position).min()
        };
        let since_oldest =
            || oldest().map_or(taken, |oldest| inode_log.began_ns(oldest).max(taken));
        RemovedLinks::of(gone, held_until.unwrap_or_else(since_oldest))
    }

    /// The snapshot `name`, unless it has gone.
    pub(crate) fn find(
        &self,
        name: String,
        named_ns: i64,
        is_retired: bool,
    ) -> Result<Option<CheckedSnapshot>> {
        let c_name = c_name(&name);
        let Dir { directory, path } = self.parent(is_retired);
        let identity = match stat_entry(directory, &c_name) {
            Ok(stat) => Identity::of(&stat),
            Err(Errno::ENOENT) => return Ok(None),
            Err(cause) => return Err(Error::io("inspect", &path.join(&name), cause)),
        };
        let recorded = self.inode_log.as_ref().and_then(|inode_log| {
            let position = inode_log.position(&name)?;
            Some((position, inode_log.began_ns(position)))
        });
        let began_ns = recorded.map_or(named_ns, |(_, began_ns)| began_ns);
        let position = recorded.map(|(position, _)| position);
        Ok(Some(CheckedSnapshot {
            name,
            c_name,
            identity,
            position,
            began_ns,
            is_retired,
            entries: None,
        }))
    }

    pub(crate) fn dir(&self, snapshot: &CheckedSnapshot) -> Dir<'_> {
        self.parent(snapshot.is_retired)
    }

    pub(crate) fn parent(&self, is_retired: bool) -> Dir<'_> {
        match is_retired {
            true => self.expired.dir(),
            false => self.root.snapshots(),
        }
    }

    /// Whether a snapshot is still where it was. If not, a run may have recycled it meanwhile.
    pub(crate) fn is_still_there(&self, snapshot: &CheckedSnapshot) -> bool {
        let Dir { directory, path } = self.dir(snapshot);
        match stat_entry(directory, &snapshot.c_name) {
            Ok(stat) => Identity::of(&stat) == snapshot.identity,
            Err(Errno::ENOENT) => false,
            Err(cause) => {
                log::warn!("{}", Error::io("inspect", &path.join(&snapshot.name), cause));
                true
            }
        }
    }

    /// Visits all names in a snapshot, and counts its entries.
    pub(crate) fn walk(
        &self,
        snapshot: &CheckedSnapshot,
        visit: &mut dyn FnMut(&InodeName),
    ) -> TreeCount {
        let Dir { directory, path } = self.dir(snapshot);
        walk_counting(directory, path, &snapshot.c_name, visit)
    }
}

/// Whether the subvolume there is as it was made, as far as the file system tells.
fn is_as_made(slot: &Slot) -> bool {
    let directory = open_directory(slot.dir.directory, &slot.name);
    let found = directory.and_then(|directory| Subvolume::of(directory.as_fd()));
    found.is_ok_and(|found| found.is_some_and(|found| found.is_as_made()))
}

/// How many entries the retired snapshot `name` has by its record; none if that is not known.
fn exact_entries(root: &SnapshotRoot, name: &str) -> Option<u64> {
    let records = root.subdir(Subdir::Records).ok()?;
    Record::read(records.dir(), name).ok().flatten()?.exact_entries()
}

/// A time at which another program touched an inode, although the inode does not differ from its
/// baseline.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Touch {
    pub(crate) inode: u64,
    pub(crate) at: FileTime,
    /// The snapshot with which the time was recorded; none if it is the inode's present change
    /// time.
    pub(crate) recorded: Option<LogPosition>,
    /// When the run began that first linked the inode, nanoseconds since 1970; none if that is not
    /// known.
    pub(crate) linked_ns: Option<i64>,
}
