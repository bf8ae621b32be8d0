//! Snapshots on a server without `rsyncd-snapshot`, with `cp` as the original made them.
//!
//! A poor replacement, and it says so: nothing is known of what changed, nothing is synced to the
//! disk, and each run costs all of the tree. Still no name of a snapshot is ever half a tree: it is
//! made under another name first. Nothing expires: what may go is for those to decide who know pins
//! and records.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use chrono::{SubsecRound, Utc};

use crate::client::failure::{Failure, Result};
use crate::client::place::Privilege;
use crate::client::snapshots::job::Snapshots;
use crate::command::snapshot::SnapshotOptions;
use crate::decide::name::SnapshotName;
use crate::decide::verdict;
use crate::decide::verdict_facts::ClientCompletion;
use crate::store::completion;
use crate::store::layout::PRIVATE;
use crate::tell::escape::escape_path;
use crate::tell::exit::Exit;

/// What to do about it.
pub(crate) const REMEDY: &str = "the server has no rsyncd-snapshot; install it there as /usr/bin/rsyncd-snapshot, with the policy in /etc/rsyncd-snapshot.toml";

/// Makes a snapshot.
///
/// # Errors
/// If one of the commands fails, or rsyncd-snapshot has been there: who knows of its pins and
/// records is missing.
pub(crate) fn take(snapshots: &Snapshots, orders: SnapshotOptions) -> Result<Exit> {
    let parent = parent(snapshots)?;
    if snapshots.job.place.exists(&parent.join(PRIVATE))? {
        return Err(Failure::Refused(format!(
            "no snapshot is made: rsyncd-snapshot has worked in {} and is gone; {REMEDY}",
            escape_path(&parent)
        )));
    }
    log::warn!("making the snapshot with `cp --archive --link`: {REMEDY}");
    let policy = snapshots.context.settings.policy(None);
    let status = orders.status.unwrap_or(0);
    let grade = verdict::grade_alone(status, completion(snapshots)?, policy.statuses());
    let name = SnapshotName::new(Utc::now().trunc_subsecs(0), grade).text;
    let staging = parent.join(format!(".{name}.unfinished"));
    let mut words = snapshots.job.ionice_words();
    words.extend(["cp", "--archive", "--link", "--no-target-directory", "--"].map(OsString::from));
    words.extend([snapshots.directory.into(), staging.clone().into_os_string()]);
    run(snapshots, &words)?;
    let published = parent.join(&name);
    let words = ["mv", "--no-clobber", "--no-target-directory", "--"].map(OsString::from);
    let words = [words.as_slice(), &[staging.into(), published.into()]].concat();
    run(snapshots, &words)?;
    log::info!("made {name}");
    if orders.rotates {
        log::warn!("nothing is rotated: {REMEDY}");
    }
    Ok(Exit::Warnings)
}

fn completion(snapshots: &Snapshots) -> Result<ClientCompletion> {
    let exists = |name| snapshots.job.place.exists(&snapshots.directory.join(name));
    Ok(match (exists(completion::UNFINISHED)?, exists(completion::PARTIAL)?) {
        (true, _) => ClientCompletion::Unfinished,
        (false, true) => ClientCompletion::Partial,
        (false, false) => ClientCompletion::Done,
    })
}

fn parent(snapshots: &Snapshots) -> Result<PathBuf> {
    let parent = snapshots.directory.parent().map(Path::to_path_buf);
    parent.ok_or_else(|| {
        Failure::Refused("the destination has no parent directory for snapshots".into())
    })
}

fn run(snapshots: &Snapshots, words: &[OsString]) -> Result<()> {
    let parent = parent(snapshots)?;
    snapshots.job.place.call(words, Privilege::ToChange(&parent)).succeed().map(drop)
}
