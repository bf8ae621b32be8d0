//! Makes the room that `free_space` wants: first at the cost of what is retired already, then of what
//! the policy would keep.
//!
//! It comes after rotation, so the newest snapshot is durable and everything that has to go anyway is
//! retired. One snapshot after the other goes, with a look at the disk before each; the floors of the
//! policy, pins and pauses hold, and no more go than `max_expire` in all.

use crate::clock::Clock;
use crate::config::target::Target;
use crate::decide::space::{FreeSpace, bytes_text, relief};
use crate::store::retire;
use crate::store::root::SnapshotRoot;
use crate::tell::error::{Error, Result};

use super::rotate::{Rotated, remove};

/// Removes snapshots until the file system has the free space that the policy wants.
pub(super) fn make(target: &Target, root: &SnapshotRoot, clock: &Clock, rotated: &mut Rotated) -> Result<()> {
    let Some(wanted) = target.policy.free_space else { return Ok(()) };
    if missing_bytes(root, wanted)? == 0 {
        return Ok(());
    }
    let label = target.label();
    if let Some(pause) = &rotated.decision.pause {
        rotated.warn(&label, format!("less than free_space {wanted} is free, but nothing expires: {pause}"));
        return Ok(());
    }
    for name in retire::retired(root)? {
        if missing_bytes(root, wanted)? == 0 {
            return Ok(());
        }
        log::info!("{label}: {name} is removed before its time, for less than free_space {wanted} is free");
        remove(target, root, &[name], rotated)?;
    }
    let spent = rotated.decision.expired().count();
    let candidates: Vec<String> = relief(&rotated.decision, target.policy.min_keep)
        .into_iter()
        .map(|verdict| verdict.snapshot.name.clone())
        .take(target.policy.max_expire.saturating_sub(spent))
        .collect();
    for name in candidates {
        let missing = missing_bytes(root, wanted)?;
        if missing == 0 {
            return Ok(());
        }
        let missing = bytes_text(missing);
        rotated.warn(
            &label,
            format!(
                "{name} is expired although the policy keeps it: {missing} are missing to free_space {wanted}"
            ),
        );
        expire(target, root, &name, clock, rotated)?;
    }
    let missing = missing_bytes(root, wanted)?;
    if missing > 0 {
        let missing = bytes_text(missing);
        rotated.warn(
            &label,
            format!("{missing} are missing to free_space {wanted}, and no snapshot may go for it; make room, or lower min_keep or free_space"),
        );
    }
    Ok(())
}

fn expire(
    target: &Target,
    root: &SnapshotRoot,
    name: &String,
    clock: &Clock,
    rotated: &mut Rotated,
) -> Result<()> {
    let name = std::slice::from_ref(name);
    // What is retired has gone by now.
    let retired = retire::retired(root)?;
    super::rotate::retire(target, root, name, &retired, clock.now(), rotated)?;
    // Unless somebody has pinned it just now.
    let retired = retire::retired(root)?.contains(&name[0]);
    if retired { remove(target, root, name, rotated) } else { Ok(()) }
}

/// How many bytes fewer than wanted are free for users without privileges. Synced before, since some
/// file systems free what was removed with the next transaction.
fn missing_bytes(root: &SnapshotRoot, wanted: FreeSpace) -> Result<u64> {
    let failed = |cause| Error::io("ask for the free space of", &root.path, cause);
    nix::unistd::syncfs(root.directory()).map_err(failed)?;
    let facts = rustix::fs::fstatvfs(root.directory())
        .map_err(|cause| Error::io("ask for the free space of", &root.path, cause))?;
    let free = facts.f_bavail.saturating_mul(facts.f_frsize);
    Ok(wanted.wanted_bytes(facts.f_blocks.saturating_mul(facts.f_frsize)).saturating_sub(free))
}
