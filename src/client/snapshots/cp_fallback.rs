//! Makes snapshots with `cp` on an SSH server without `rsyncd-snapshot`, as rsync-system-backup 1.1
//! did.
//!
//! Servers on which the program cannot be installed, such as a NAS with only SSH and rsync, get
//! snapshots only in this way. It is worse than `rsyncd-snapshot`, and each run warns of that: an
//! unchanged tree makes a snapshot, too, nothing is synced to disk, and each run links the whole
//! tree. The tree is linked under a temporary name and renamed last, so a name of a snapshot is
//! never half a tree. Nothing expires, because this file cannot read pins and records.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use chrono::{SubsecRound, Utc};

use crate::client::error::{ClientError, Result};
use crate::client::machine::Privilege;
use crate::client::snapshots::destination_snapshots::DestinationSnapshots;
use crate::command::snapshot::SnapshotOptions;
use crate::decide::name::SnapshotName;
use crate::decide::transfer_decision;
use crate::decide::verdict_facts::ClientCompletion;
use crate::store::completion;
use crate::store::layout::PRIVATE;
use crate::tell::escape::escape_path;
use crate::tell::exit::Exit;

pub(crate) const REMEDY: &str = "the server has no rsyncd-snapshot; install it there as \
    /usr/bin/rsyncd-snapshot, with the policy in /etc/rsyncd-snapshot.toml";

/// # Errors
/// If a command fails; or if the root has a `.rsyncd-snapshot`, whose pins and records only
/// rsyncd-snapshot may read.
pub(crate) fn take(snapshots: &DestinationSnapshots, options: SnapshotOptions) -> Result<Exit> {
    let parent = parent(snapshots)?;
    if snapshots.job.machine.exists(&parent.join(PRIVATE))? {
        return Err(ClientError::Refused(format!(
            "no snapshot is made: rsyncd-snapshot has worked in {} and is gone; {REMEDY}",
            escape_path(&parent)
        )));
    }
    log::warn!("making the snapshot with `cp --archive --link`: {REMEDY}");
    let policy = snapshots.context.settings.policy(None);
    let status = options.status.unwrap_or(0);
    let grade = transfer_decision::grade_alone(status, completion(snapshots)?, policy.statuses());
    let name = SnapshotName::new(Utc::now().trunc_subsecs(0), grade).text;
    let staging = parent.join(format!(".{name}.unfinished"));
    let mut args = snapshots.job.ionice_args();
    args.extend(["cp", "--archive", "--link", "--no-target-directory", "--"].map(OsString::from));
    args.extend([snapshots.directory.into(), staging.clone().into_os_string()]);
    run(snapshots, &args)?;
    let published = parent.join(&name);
    let args = ["mv", "--no-clobber", "--no-target-directory", "--"].map(OsString::from);
    let args = [args.as_slice(), &[staging.into(), published.into()]].concat();
    run(snapshots, &args)?;
    log::info!("made {name}");
    if options.rotates {
        log::warn!("nothing is rotated: {REMEDY}");
    }
    Ok(Exit::Warnings)
}

fn completion(snapshots: &DestinationSnapshots) -> Result<ClientCompletion> {
    let exists = |name| snapshots.job.machine.exists(&snapshots.directory.join(name));
    Ok(match (exists(completion::UNFINISHED)?, exists(completion::PARTIAL)?) {
        (true, _) => ClientCompletion::Unfinished,
        (false, true) => ClientCompletion::Partial,
        (false, false) => ClientCompletion::Done,
    })
}

fn parent(snapshots: &DestinationSnapshots) -> Result<PathBuf> {
    let parent = snapshots.directory.parent().map(Path::to_path_buf);
    parent.ok_or_else(|| {
        ClientError::Refused("the destination has no parent directory for snapshots".into())
    })
}

fn run(snapshots: &DestinationSnapshots, args: &[OsString]) -> Result<()> {
    let parent = parent(snapshots)?;
    snapshots.job.machine.command(args, Privilege::ToChange(&parent)).succeed().map(drop)
}
