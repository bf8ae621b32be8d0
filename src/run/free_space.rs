//! Makes the room that `free_space` wants: first at the cost of what is retired already, then of
//! what the policy would keep.
//!
//! It comes after rotation, so the newest snapshot is durable and everything that has to go anyway
//! is retired. What the trees that may go would free is counted first, and only as many go as are
//! needed; where all of them together are no help, none goes and that is told. Where other modules
//! share the file system and this one has not grown, its snapshots stay for a day, so that the
//! module that grew pays first. There is a look at the disk before each that goes; the floors of
//! the policy, pins and pauses hold, and no more go than `max_expire` in all.

use chrono::{DateTime, Utc};

use crate::decide::free_space::{FreeSpace, bytes_text};
use crate::decide::free_space_candidates::relief;
use crate::decide::free_space_choice::{
    ModuleGrowth, SpaceChoice, SpaceOffer, choose, waits_until,
};
use crate::decide::grade::Grade;
use crate::decide::snapshot_reason::SnapshotReason;
use crate::engine::usage::{self, UsageTree};
use crate::module::target::Target;
use crate::run::disposal::{RotationReport, remove};
use crate::store::dir::{Dir, c_name};
use crate::store::layout::Subdir;
use crate::store::neighbours::has_neighbours;
use crate::store::retire;
use crate::store::root::SnapshotRoot;
use crate::system::clock::Clock;
use crate::tell::error::{Error, Result};

/// So many trees are counted at most.
const MOST_TREES: usize = 50;

/// So many entries are counted at most, so that counting takes minutes at worst.
const MOST_ENTRIES: u64 = 10_000_000;

/// A module with more entries than this is not measured, and counts as one that has grown.
const MOST_ENTRIES_OF_MODULE: u64 = 500_000;

/// Removes snapshots until the file system has the free space that the policy wants.
pub(crate) fn make(
    target: &Target,
    root: &SnapshotRoot,
    clock: &Clock,
    rotated: &mut RotationReport,
) -> Result<()> {
    let Some(wanted) = target.policy.free_space else { return Ok(()) };
    let label = target.label();
    let shortage = Shortage { target, root, wanted, now: clock.now() };
    if shortage.missing()? == 0 {
        shortage.note_missing(false);
        return Ok(());
    }
    if let Some(pause) = &rotated.decision.pause {
        rotated.warn(
            &label,
            format!("less than free_space {wanted} is free, but nothing expires: {pause}"),
        );
        return Ok(());
    }
    let spent = rotated.decision.expired().count();
    let mut may_go = target.policy.max_expire.saturating_sub(spent);
    let mut candidates: Vec<String> = relief(&rotated.decision, target.policy.min_keep)
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
                Chosen::InVain(bytes) => {
                    rotated.warn(&label, in_vain(missing, wanted, bytes, candidates.len()));
                    return Ok(());
                }
                Chosen::Go { retired, kept, is_enough } => (retired, kept, is_enough),
            };
        if !chosen.is_empty()
            && let Some(until) = shortage.waits_until(rotated, missing)
        {
            rotated.warn(&label, waits(missing, wanted, until));
            return Ok(());
        }
        for name in early {
            if shortage.missing()? == 0 {
                break;
            }
            log::info!(
                "{label}: {name} is removed before its time, for less than free_space {wanted} \
                 is free"
            );
            remove(target, root, &[name], rotated)?;
        }
        for name in &chosen {
            let missing = shortage.missing()?;
            if missing == 0 {
                break;
            }
            let missing = bytes_text(missing);
            rotated.warn(
                &label,
                format!(
                    "{name} is expired although the policy keeps it: {missing} are missing to \
                     free_space {wanted}"
                ),
            );
            may_go -= 1;
            expire(target, root, name, clock, rotated)?;
        }
        candidates.retain(|name| !chosen.contains(name));
        let has_changed = !chosen.is_empty() || retire::retired(root)? != retired;
        if !is_enough || !has_changed {
            break;
        }
    }
    let missing = shortage.missing()?;
    if missing > 0 {
        rotated.warn(&label, none_may_go(missing, wanted));
    }
    Ok(())
}

/// Names of what goes.
enum Chosen {
    Go {
        retired: Vec<String>,
        kept: Vec<String>,
        is_enough: bool,
    },
    /// All that may go would free so many bytes.
    InVain(u64),
}

struct Shortage<'a> {
    target: &'a Target,
    root: &'a SnapshotRoot,
    wanted: FreeSpace,
    now: DateTime<Utc>,
}

impl Shortage<'_> {
    /// Counts what would be freed, and chooses.
    fn choose(
        &self,
        retired: &[String],
        kept: &[String],
        max_kept: usize,
        missing: u64,
    ) -> Result<Chosen> {
        let expired = self.root.subdir(Subdir::Expired)?;
        let in_root = self.dir();
        let trees: Vec<UsageTree> = retired
            .iter()
            .take(MOST_TREES / 2)
            .map(|name| tree(expired.dir(), name))
            .chain(kept.iter().map(|name| tree(in_root, name)))
            .take(MOST_TREES)
            .collect();
        let counted = usage::freed_by_each(&trees, MOST_ENTRIES);
        let retired_counted = retired.len().min(MOST_TREES / 2).min(counted.trees);
        let offer = SpaceOffer {
            gains: &counted.gains,
            retired: retired_counted,
            kept: counted.trees - retired_counted,
            max_kept,
        };
        Ok(match choose(&offer, missing) {
            SpaceChoice::InVain(bytes) => Chosen::InVain(bytes),
            SpaceChoice::Go { retired: of_retired, kept: of_kept, is_enough } => Chosen::Go {
                retired: retired[of_retired].to_vec(),
                kept: kept[of_kept].to_vec(),
                is_enough,
            },
        })
    }

    /// Until when this module's snapshots stay, since others are to make room first.
    fn waits_until(&self, rotated: &RotationReport, missing: u64) -> Option<DateTime<Utc>> {
        let Target { memory, module_path, .. } = self.target;
        let has_others = has_neighbours(memory, module_path, &self.root.path);
        if !has_others {
            return None;
        }
        let since = memory.recall(module_path).and_then(|memory| memory.space_missing_since);
        self.note_missing(true);
        let growth = ModuleGrowth {
            has_others,
            own_bytes: self.own_bytes(rotated),
            missing,
            since: since.unwrap_or(self.now),
        };
        waits_until(&growth, self.now)
    }

    /// What only the module as it is and its newest complete snapshot take.
    fn own_bytes(&self, rotated: &RotationReport) -> Option<u64> {
        let complete = |verdict: &&crate::decide::snapshot_verdict::SnapshotVerdict| {
            verdict.snapshot.grade == Grade::Complete
        };
        let newest = rotated.decision.verdicts.iter().rfind(complete);
        let in_root = self.dir();
        let module = UsageTree {
            parent: self.root.module(),
            parent_path: &self.root.module_path,
            name: c_name("."),
        };
        let newest = newest.map(|verdict| tree(in_root, &verdict.snapshot.name));
        let trees: Vec<UsageTree> = newest.into_iter().chain([module]).collect();
        usage::freed(&trees, Some(MOST_ENTRIES_OF_MODULE)).map(|usage| usage.bytes)
    }

    /// Remembers since when space is missing, apart from the disk that is full.
    fn note_missing(&self, is_missing: bool) {
        let now = self.now;
        let noted = self.target.memory.change(&self.target.module_path, |memory| {
            let since = memory.space_missing_since.filter(|_| is_missing);
            memory.space_missing_since = since.or(is_missing.then_some(now));
        });
        if let Err(error) = noted {
            log::debug!("nothing remembered outside the snapshot root: {error}");
        }
    }

    /// How many bytes fewer than wanted are free for users without privileges. Synced before, since
    /// some file systems free what was removed with the next transaction.
    fn missing(&self) -> Result<u64> {
        let root = self.root;
        let failed = |cause| Error::io("ask for the free space of", &root.path, cause);
        nix::unistd::syncfs(root.directory()).map_err(failed)?;
        let facts = rustix::fs::fstatvfs(root.directory())
            .map_err(|cause| Error::io("ask for the free space of", &root.path, cause))?;
        let free = facts.f_bavail.saturating_mul(facts.f_frsize);
        Ok(self
            .wanted
            .wanted_bytes(facts.f_blocks.saturating_mul(facts.f_frsize))
            .saturating_sub(free))
    }

    fn dir(&self) -> Dir<'_> {
        Dir { directory: self.root.directory(), path: &self.root.path }
    }
}

fn tree<'a>(dir: Dir<'a>, name: &str) -> UsageTree<'a> {
    UsageTree { parent: dir.directory, parent_path: dir.path, name: c_name(name) }
}

fn none_may_go(missing: u64, wanted: FreeSpace) -> String {
    let missing = bytes_text(missing);
    format!(
        "{missing} are missing to free_space {wanted}, and no snapshot may go for it; make room, \
         or lower min_keep or free_space"
    )
}

fn in_vain(missing: u64, wanted: FreeSpace, bytes: u64, candidates: usize) -> String {
    if candidates == 0 {
        return none_may_go(missing, wanted);
    }
    let (missing, bytes) = (bytes_text(missing), bytes_text(bytes));
    format!(
        "{missing} are missing to free_space {wanted}; the snapshots that may go for it would \
         free {bytes} only, so they stay; the space is taken by what is in the module now or by \
         other data on that disk: make room there, or lower free_space"
    )
}

fn waits(missing: u64, wanted: FreeSpace, until: DateTime<Utc>) -> String {
    let missing = bytes_text(missing);
    format!(
        "{missing} are missing to free_space {wanted}; other modules are on that disk and this \
         one has not grown by that much, so its snapshots stay until {}; if there is no room by \
         then, they go",
        until.format("%FT%TZ")
    )
}

fn expire(
    target: &Target,
    root: &SnapshotRoot,
    name: &String,
    clock: &Clock,
    rotated: &mut RotationReport,
) -> Result<()> {
    let name = std::slice::from_ref(name);
    // What is retired has gone by now.
    let retired = retire::retired(root)?;
    crate::run::disposal::retire(target, root, name, &retired, clock.now(), rotated)?;
    // Unless somebody has pinned it just now.
    let retired = retire::retired(root)?.contains(&name[0]);
    if !retired {
        return Ok(());
    }
    let verdicts = rotated.decision.verdicts.iter_mut();
    for verdict in verdicts.filter(|verdict| verdict.snapshot.name == name[0]) {
        verdict.keep = false;
        verdict.reasons = vec![SnapshotReason::SpaceWanted];
    }
    remove(target, root, name, rotated)
}
