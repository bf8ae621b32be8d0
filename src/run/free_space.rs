//! Makes the free space that `free_space` wants, first out of retired snapshots, then out of those
//! that the policy would keep.
//!
//! This step follows rotation, so the newest snapshot is durable, and what the policy expires is
//! retired already. It counts first what the removal of each tree would free, and removes no more
//! trees than are needed. If all of them together would not free enough, it removes none and warns.
//! What a btrfs snapshot frees is not known before: there they go one by one, until one frees next
//! to nothing. If other modules share the file system and this one has not grown, its snapshots
//! stay for a day, so the module that grew loses snapshots first. The free space is looked up
//! before each removal. The floors of the policy, pins and pauses hold, and no more than
//! `max_expire` go in one run. Leases do not hold: a reader gets errors, since what goes here is
//! removed and never recycled.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::decide::free_space::{FreeSpace, bytes_text};
use crate::decide::free_space_candidates::free_space_candidates;
use crate::decide::free_space_choice::{
    ModuleGrowth, SpaceCandidates, SpaceChoice, choose, helps, waits_until,
};
use crate::decide::grade::Grade;
use crate::decide::lease::SnapshotReader;
use crate::decide::snapshot_reason::SnapshotReason;
use crate::decide::snapshot_verdict::SnapshotVerdict;
use crate::engine::usage::Usage;
use crate::engine::usage::{self, UsageTree};
use crate::module::target::Target;
use crate::run::disposal::{RotationReport, remove, retire as retire_snapshots};
use crate::run::session::Session;
use crate::store::dir::c_name;
use crate::store::leases::Leases;
use crate::store::retire::{self, LeaseRule};
use crate::store::root::SnapshotRoot;
use crate::store::shared_disk::shares_disk;
use crate::store::shelf::{OpenShelf, Shelf, Slot};
use crate::system::btrfs::wait_for_space;
use crate::tell::error::{Error, Result};

/// A btrfs snapshot that frees less than a tenth of one part in this many of what is missing shows
/// that the others are no help either.
const LITTLE: u64 = 10;

/// How long a run waits at most until the space of removed subvolumes is free.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The largest number of trees whose space is counted.
const MOST_TREES: usize = 50;

/// The largest number of entries that is counted, so that counting takes minutes at worst.
const MOST_ENTRIES: u64 = 10_000_000;

/// The largest number of entries of a module that is counted. A larger module counts as one that
/// has grown.
const MOST_ENTRIES_OF_MODULE: u64 = 500_000;

/// Removes snapshots until the file system has the free space that the policy wants.
pub(crate) fn make(session: Session, report: &mut RotationReport) -> Result<()> {
    let Session { target, root, clock } = session;
    let Some(wanted) = target.policy.free_space else { return Ok(()) };
    let shortage = Shortage { session, wanted, now: clock.now() };
    if shortage.missing()? == 0 {
        shortage.note_missing(false);
        return Ok(());
    }
    if let Some(pause) = &report.decision.pause {
        let warning =
            format!("less than free_space {wanted} is free, but nothing expires: {pause}");
        report.warn(warning);
        return Ok(());
    }
    let spent = report.decision.expired().count();
    let mut may_go = target.policy.max_expire.saturating_sub(spent);
    let mut candidates: Vec<String> =
        free_space_candidates(&report.decision, target.policy.min_keep)
            .into_iter()
            .map(|verdict| verdict.snapshot.name.clone())
            .collect();
    loop {
        let missing = shortage.missing()?;
        if missing == 0 {
            shortage.note_missing(false);
            return Ok(());
        }
        let retired = retire::retired(root)?;
        let (early, chosen, is_enough) =
            match shortage.choose(&retired, &candidates, may_go, missing)? {
                ChosenTrees::TooLittle(bytes) => {
                    report.warn(too_little_to_help(missing, wanted, bytes, candidates.len()));
                    return Ok(());
                }
                ChosenTrees::Remove { retired, kept, is_enough } => (retired, kept, is_enough),
            };
        if !chosen.is_empty()
            && let Some(until) = shortage.waits_until(report, missing)
        {
            report.warn(waits(missing, wanted, until));
            return Ok(());
        }
        shortage.remove_retired(early, report)?;
        may_go -= shortage.expire_each(&chosen, report)?;
        if root.method().is_instant() && !chosen.is_empty() {
            let left = shortage.missing()?;
            let is_gone = |name: &String| root.visible(name).look().is_err();
            let freed = missing.saturating_sub(left).saturating_mul(LITTLE);
            if left > 0 && chosen.iter().all(is_gone) && !helps(freed, missing) {
                report.warn(no_help(left, wanted, &chosen));
                return Ok(());
            }
        }
        candidates.retain(|name| !chosen.contains(name));
        let has_changed = !chosen.is_empty() || retire::retired(root)? != retired;
        if !is_enough || !has_changed {
            break;
        }
    }
    let missing = shortage.missing()?;
    if missing > 0 {
        report.warn(none_may_go(missing, wanted));
    }
    Ok(())
}

/// [`SpaceChoice`] with the names of the trees.
enum ChosenTrees {
    /// These are removed.
    Remove { retired: Vec<String>, kept: Vec<String>, is_enough: bool },
    /// Nothing goes, because all that may go would free only this number of bytes.
    TooLittle(u64),
}

struct Shortage<'a> {
    session: Session<'a>,
    wanted: FreeSpace,
    now: DateTime<Utc>,
}

impl Shortage<'_> {
    /// Counts what each tree would free, and chooses.
    fn choose(
        &self,
        retired: &[String],
        kept: &[String],
        max_kept: usize,
        missing: u64,
    ) -> Result<ChosenTrees> {
        let root = self.session.root;
        if root.method().is_instant() {
            return Ok(one_by_one(retired, kept, max_kept));
        }
        let expired = OpenShelf::open(root, Shelf::Expired)?;
        let trees: Vec<UsageTree> = retired
            .iter()
            .take(MOST_TREES / 2)
            .map(|name| expired.slot(name))
            .chain(kept.iter().map(|name| root.visible(name)))
            .take(MOST_TREES)
            .map(UsageTree::from)
            .collect();
        let counted = usage::freed_by_each(&trees, MOST_ENTRIES);
        let retired_counted = retired.len().min(MOST_TREES / 2).min(counted.trees);
        let candidates = SpaceCandidates {
            gains: &counted.gains,
            retired: retired_counted,
            kept: counted.trees - retired_counted,
            max_kept,
        };
        Ok(match choose(&candidates, missing) {
            SpaceChoice::TooLittle(bytes) => ChosenTrees::TooLittle(bytes),
            SpaceChoice::Remove { retired: of_retired, kept: of_kept, is_enough } => {
                ChosenTrees::Remove {
                    retired: retired[of_retired].to_vec(),
                    kept: kept[of_kept].to_vec(),
                    is_enough,
                }
            }
        })
    }

    /// Removes retired snapshots before their grace is over, one by one, until enough space is
    /// free.
    fn remove_retired(&self, names: Vec<String>, report: &mut RotationReport) -> Result<()> {
        for name in names {
            if self.missing()? == 0 {
                break;
            }
            log::info!(
                "{}: {name} is removed before its time, because less than free_space {} is free",
                self.session.label(),
                self.wanted
            );
            remove(self.session.root, &[name], LeaseRule::Override, report)?;
        }
        Ok(())
    }

    /// Expires snapshots one after the other, as long as space is missing. Returns how many.
    fn expire_each(&self, names: &[String], report: &mut RotationReport) -> Result<usize> {
        let mut count = 0;
        for name in names {
            let missing = self.missing()?;
            if missing == 0 {
                break;
            }
            let reader = Leases::look(self.session.root)?.holder(name, self.session.lease_terms());
            let although = reader.as_ref().map_or_else(
                || "the policy keeps it".to_string(),
                |reader| format!("{reader}, which now fails"),
            );
            report.warn(format!(
                "{name} is expired although {although}: {} less than free_space {} is free",
                bytes_text(missing),
                self.wanted
            ));
            count += 1;
            self.expire(name, reader, report)?;
        }
        Ok(count)
    }

    /// Retires and removes one visible snapshot, unless it has been pinned meanwhile.
    fn expire(
        &self,
        name: &String,
        reader: Option<SnapshotReader>,
        report: &mut RotationReport,
    ) -> Result<()> {
        let Session { root, clock, .. } = self.session;
        let names = std::slice::from_ref(name);
        // A retired snapshot of this name may go: for lack of space, retired ones go first.
        let retired = retire::retired(root)?;
        retire_snapshots(root, names, &retired, LeaseRule::Override, clock.now(), report)?;
        if !retire::retired(root)?.contains(name) {
            return Ok(());
        }
        let verdicts = report.decision.verdicts.iter_mut();
        for verdict in verdicts.filter(|verdict| verdict.snapshot.name == *name) {
            verdict.keep = false;
            let while_read = reader.clone().map(SnapshotReason::SpaceWantedWhileRead);
            verdict.reasons = vec![while_read.unwrap_or(SnapshotReason::SpaceWanted)];
        }
        remove(root, names, LeaseRule::Override, report)
    }

    /// Until when this module's snapshots stay, so that modules that grew free space first. `None`
    /// if they need not stay.
    fn waits_until(&self, report: &RotationReport, missing: u64) -> Option<DateTime<Utc>> {
        let Target { memory, module_path, .. } = self.session.target;
        let has_others = shares_disk(memory, module_path, &self.session.root.path);
        if !has_others {
            return None;
        }
        let since = memory.recall(module_path).and_then(|memory| memory.space_missing_since);
        self.note_missing(true);
        let growth = ModuleGrowth {
            has_others,
            own_bytes: self.own_bytes(report),
            missing,
            since: since.unwrap_or(self.now),
        };
        waits_until(&growth, self.now)
    }

    /// The bytes that the live tree and the newest complete snapshot take, and no older snapshot
    /// shares; none if they are not known, as those of a subvolume.
    fn own_bytes(&self, report: &RotationReport) -> Option<u64> {
        if self.session.root.method().is_instant() {
            return None;
        }
        let complete = |verdict: &&SnapshotVerdict| verdict.snapshot.grade == Grade::Complete;
        let newest = report.decision.verdicts.iter().rfind(complete);
        let module = UsageTree {
            parent: self.session.root.module().ok()?,
            parent_path: &self.session.root.module_path,
            name: c_name("."),
        };
        let root = self.session.root;
        let newest = newest.map(|verdict| UsageTree::from(root.visible(&verdict.snapshot.name)));
        let trees: Vec<UsageTree> = newest.into_iter().chain([module]).collect();
        usage::freed(&trees, Some(MOST_ENTRIES_OF_MODULE)).map(|usage| usage.bytes)
    }

    /// Notes since when space is missing. The note is outside the root, whose disk may be full.
    fn note_missing(&self, is_missing: bool) {
        let now = self.now;
        let noted = self.session.target.memory.change(&self.session.target.module_path, |memory| {
            let since = memory.space_missing_since.filter(|_| is_missing);
            memory.space_missing_since = since.or(is_missing.then_some(now));
        });
        if let Err(error) = noted {
            log::debug!("what this machine remembers of the module cannot be written: {error}");
        }
    }

    /// How many bytes fewer than wanted are free for users without privileges. Syncs first: some
    /// file systems free what was removed only with the next transaction.
    fn missing(&self) -> Result<u64> {
        let root = self.session.root;
        let failed = |cause| Error::io("ask for the free space of", &root.path, cause);
        if root.method().is_instant() {
            wait_for_space(root.directory(), LONGEST_WAIT);
        }
        nix::unistd::syncfs(root.directory()).map_err(failed)?;
        let facts = rustix::fs::fstatvfs(root.directory())
            .map_err(|cause| Error::io("ask for the free space of", &root.path, cause))?;
        let free = facts.f_bavail.saturating_mul(facts.f_frsize);
        Ok(self
            .wanted
            .wanted_bytes(facts.f_blocks.saturating_mul(facts.f_frsize))
            .saturating_sub(free))
    }
}

/// What the removal of all these trees of `root` frees; `None` if they have more than
/// `max_entries`, or if one is a subvolume: how much of its content others share is known to the
/// file system only.
pub(crate) fn freed(
    root: &SnapshotRoot,
    slots: Vec<Slot>,
    max_entries: Option<u64>,
) -> Option<Usage> {
    if slots.iter().any(|slot| slot.is_sealed(root)) {
        return None;
    }
    let trees: Vec<UsageTree> = slots.into_iter().map(UsageTree::from).collect();
    usage::freed(&trees, max_entries)
}

/// What is removed next where nothing says how much that frees: all retired snapshots, one after
/// the other, until enough is free; then the oldest that may go.
fn one_by_one(retired: &[String], kept: &[String], max_kept: usize) -> ChosenTrees {
    let next = kept.iter().take(max_kept.min(1)).cloned().collect();
    let (retired, kept) = match retired.is_empty() {
        false => (retired.to_vec(), Vec::new()),
        true => (Vec::new(), next),
    };
    ChosenTrees::Remove { retired, kept, is_enough: true }
}

fn no_help(missing: u64, wanted: FreeSpace, gone: &[String]) -> String {
    format!(
        "{} less than free_space {wanted} is free, and the removal of {} freed next to nothing, so \
         the others stay; the space is taken by what is in the module now or by other data on that \
         disk: make space there, or lower free_space",
        bytes_text(missing),
        gone.join(", ")
    )
}

fn none_may_go(missing: u64, wanted: FreeSpace) -> String {
    let missing = bytes_text(missing);
    format!(
        "{missing} less than free_space {wanted} is free, and no snapshot may expire for it; make \
         space, or lower min_keep or free_space"
    )
}

fn too_little_to_help(missing: u64, wanted: FreeSpace, bytes: u64, candidates: usize) -> String {
    if candidates == 0 {
        return none_may_go(missing, wanted);
    }
    let (missing, bytes) = (bytes_text(missing), bytes_text(bytes));
    format!(
        "{missing} less than free_space {wanted} is free; the snapshots that may expire for it \
         would free {bytes} only, so they stay; the space is taken by what is in the module now or \
         by other data on that disk: make space there, or lower free_space"
    )
}

fn waits(missing: u64, wanted: FreeSpace, until: DateTime<Utc>) -> String {
    let missing = bytes_text(missing);
    format!(
        "{missing} less than free_space {wanted} is free; other modules are on that disk and this \
         one has not grown by that much, so its snapshots stay until {}; if too little is still \
         free then, they expire",
        until.format("%FT%TZ")
    )
}
