//! Examines each inode in the snapshots once, and compares it with its baselines. It only reads.

use std::collections::HashSet;

use nix::errno::Errno;

use crate::decide::damage::{FileTime, changes, is_access_time_set};
use crate::decide::lacking::TreeCount;
use crate::engine::baseline::{Baseline, BaselineOrigin, Inode, inspect_entry, xattrs};
use crate::engine::content::{HashLimit, HashResult, content_hash};
use crate::engine::inodes::InodeName;
use crate::run::verify::evidence::{Evidence, Touch};
use crate::store::inode_log::reader::{InodeLog, LogPosition};
use crate::store::inode_log::windows::LinkWindows;
use crate::tell::error::{Error, Result};
use crate::tell::progress;

#[derive(Default)]
pub(crate) struct InodeSurvey {
    pub(crate) inodes: u64,
    /// Inodes without a baseline.
    pub(crate) unknown: u64,
    /// Names whose inode number changes from call to call, or differs from the directory's listing.
    pub(crate) unstable: u64,
    /// Unknown inodes whose number has baselines of a file that no longer exists.
    pub(crate) stale: HashSet<u64>,
    /// Inodes that differ from a baseline or a hash.
    pub(crate) altered: HashSet<u64>,
    /// Times outside all windows at which other programs touched inodes that look unaltered.
    pub(crate) touches: Vec<Touch>,
    /// How many of the compared inodes each vanished snapshot may have held.
    pub(crate) held: Vec<u64>,
    pub(crate) unreadable: u64,
    /// What was found in each snapshot, in their order.
    pub(crate) counts: Vec<TreeCount>,
}

pub(crate) fn survey(evidence: &Evidence) -> InodeSurvey {
    let windows = LinkWindows::read(evidence.inodes.dir());
    let mut survey =
        InodeSurvey { held: vec![0; evidence.removed_links.len()], ..InodeSurvey::default() };
    let mut seen = vec![false; evidence.inode_log.as_ref().map_or(0, InodeLog::len)];
    let mut unknown = HashSet::new();
    let _phase = progress::begin("looking at files", None);
    for snapshot in &evidence.snapshots {
        let count = evidence.walk(snapshot, &mut |name: &InodeName| {
            progress::add(1);
            let found =
                evidence.inode_log.as_ref().map_or(0..0, |inode_log| inode_log.find(name.inode));
            let known = evidence.inode_log.as_ref().filter(|_| !found.is_empty());
            let Some(inode_log) = known else {
                if unknown.insert(name.inode) {
                    survey.note_unknown(name);
                }
                return;
            };
            if !std::mem::replace(&mut seen[found.start], true) {
                survey.compare_inode(evidence, inode_log, &windows, name);
            }
        });
        survey.unreadable += count.unreadable;
        survey.counts.push(count);
    }
    survey
}

impl InodeSurvey {
    /// Counts an inode without a baseline under the number that the directory lists.
    fn note_unknown(&mut self, name: &InodeName) {
        match inspect_entry(name.directory, name.name) {
            Ok(inode) if inode.number != name.inode => self.unstable += 1,
            _ => self.unknown += 1,
        }
    }

    /// Compares an inode with its baselines and hashes.
    fn compare_inode(
        &mut self,
        evidence: &Evidence,
        inode_log: &InodeLog,
        windows: &LinkWindows,
        name: &InodeName,
    ) {
        let inode = match present(name) {
            Ok(Some(inode)) => inode,
            Ok(None) => {
                let is_there = inspect_entry(name.directory, name.name).is_ok();
                self.unstable += u64::from(is_there);
                return;
            }
            Err(error) => {
                log::warn!("{error}");
                self.unreadable += 1;
                return;
            }
        };
        let baselines = inode_log.baselines(inode.number, inode.birth_ns);
        self.inodes += 1;
        if baselines.is_empty() {
            self.unknown += 1;
            self.stale.insert(inode.number);
        } else if baselines
            .iter()
            .any(|(_, was)| !changes(&was.inode.attributes, &inode.attributes).is_empty())
        {
            self.altered.insert(inode.number);
        } else if let Some(is_same) = is_same_content(inode_log, &inode, &baselines, name) {
            if !is_same {
                self.altered.insert(inode.number);
            }
        } else {
            let linked_ns =
                baselines.first().and_then(|(position, _)| inode_log.linked_ns(*position));
            for (held, links) in self.held.iter_mut().zip(&evidence.removed_links) {
                *held += u64::from(links.may_be_of(linked_ns));
            }
            self.touches.extend(touches(&baselines, &inode, windows, linked_ns));
        }
    }
}

/// The inode that `name` stands for; `None` if another file has the name since the listing, or the
/// name has gone.
pub(crate) fn present(name: &InodeName) -> Result<Option<Inode>> {
    let mut inode = match inspect_entry(name.directory, name.name) {
        Ok(inode) if inode.number == name.inode => inode,
        Ok(_) | Err(Errno::ENOENT | Errno::EXDEV) => return Ok(None),
        Err(cause) => return Err(Error::io_bytes("look at", &name.path(), cause)),
    };
    inode.attributes.xattrs = xattrs(name.directory, name.name);
    Ok(Some(inode))
}

/// Whether the content equals its hashes; none if there are none, or it cannot be read.
fn is_same_content(
    inode_log: &InodeLog,
    inode: &Inode,
    baselines: &[(LogPosition, Baseline)],
    name: &InodeName,
) -> Option<bool> {
    let hashes = inode_log.hashes(inode.number, inode.birth_ns);
    if hashes.is_empty() {
        return None;
    }
    let content = content_hash(name.directory, name.name, inode, &mut HashLimit::none());
    let HashResult::Hash(now) = content else { return None };
    let is_same = hashes.iter().all(|(_, hash)| *hash == now);
    // A hash that is newer than the first baseline does not show what the content was before.
    let is_whole =
        hashes.first().zip(baselines.first()).is_some_and(|(hash, baseline)| hash.0 <= baseline.0);
    (is_whole || !is_same).then_some(is_same)
}

/// When other programs touched the inode. The evidence is its change time now, and those that were
/// recorded when runs linked it again.
fn touches(
    baselines: &[(LogPosition, Baseline)],
    inode: &Inode,
    windows: &LinkWindows,
    linked_ns: Option<i64>,
) -> Vec<Touch> {
    let Some((_, first)) = baselines.first() else { return Vec::new() };
    let found = baselines.iter().filter(|(_, baseline)| baseline.origin == BaselineOrigin::Found);
    let excused = found.map(|(_, baseline)| baseline.touched).max();
    let linked =
        baselines.iter().skip(1).filter(|(_, baseline)| baseline.origin == BaselineOrigin::Linked);
    let earlier = linked.map(|(position, baseline)| {
        (baseline.touched, baseline.inode.accessed_seconds, Some(*position))
    });
    let is_sign = |at: FileTime, accessed| {
        excused.is_none_or(|excused| at > excused)
            && !windows.cover(at.as_ns())
            && !is_access_time_set(first.inode.accessed_seconds, accessed, at)
    };
    let all = earlier.chain([(inode.changed, inode.accessed_seconds, None)]);
    let signs = all.filter(|(at, accessed, _)| is_sign(*at, *accessed));
    let touch = |at, recorded| Touch { inode: inode.number, at, recorded, linked_ns };
    signs.map(|(at, _, recorded)| touch(at, recorded)).collect()
}
