//! Snapshots on a server without `rsyncd-snapshot`, with `cp` and `rm` as the original made them.
//!
//! A poor replacement, and it says so: nothing is known of what changed, nothing is synced to the disk, and each
//! run costs all of the tree. Still no name of a snapshot is ever half a tree: it is made under another name
//! first. What expires is decided here, by the same rules and this machine's policy.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use chrono::{SubsecRound, Utc};

use super::failure::{Failure, Result};
use super::place::Privilege;
use super::snapshot::Snapshots;
use crate::command::snapshot::Orders;
use crate::config::settings::Source;
use crate::decide::finish::Finish;
use crate::decide::grade::{Grade, Intent};
use crate::decide::name::SnapshotName;
use crate::decide::rotation::{History, Snapshot, decide};
use crate::tell::error::Error;
use crate::tell::exit::Exit;

/// What to do about it.
pub const REMEDY: &str = "the server has no rsyncd-snapshot; install it there as /usr/bin/rsyncd-snapshot, with the policy in /etc/rsyncd-snapshot.toml";

/// Makes a snapshot, and rotates if that is wanted.
///
/// # Errors
/// If one of the commands fails.
pub fn take(snapshots: &Snapshots, orders: Orders) -> Result<Exit> {
    log::warn!("making the snapshot with `cp --archive --link`: {REMEDY}");
    let policy = snapshots.context.settings.policy(None);
    let status = orders.status.unwrap_or(0);
    let grade = match Finish::intent_of_status(status, &policy.snapshot_on_exit, &policy.partial_on_exit) {
        Intent::Complete => Grade::Complete,
        Intent::Partial | Intent::Nothing => Grade::Partial,
    };
    let name = SnapshotName::new(Utc::now().trunc_subsecs(0), grade).text;
    let parent = parent(snapshots)?;
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
        rotate(snapshots)?;
    }
    Ok(Exit::Warnings)
}

/// Removes what the policy no longer keeps.
///
/// # Errors
/// If one of the commands fails, or the policy has a mistake.
pub fn rotate(snapshots: &Snapshots) -> Result<Exit> {
    if let Source::Trouble(mistakes) = &snapshots.context.settings.source {
        return Err(Error::Policy(mistakes.clone()).into());
    }
    log::warn!("rotating with `rm`: {REMEDY}");
    let parent = parent(snapshots)?;
    for name in expired(snapshots, &parent)? {
        log::info!("removing {name}");
        let mut words = snapshots.job.ionice_words();
        words.extend(["rm", "--recursive", "--force", "--one-file-system", "--"].map(OsString::from));
        words.push(parent.join(name).into());
        run(snapshots, &words)?;
    }
    Ok(Exit::Warnings)
}

/// The names of the snapshots to remove.
fn expired(snapshots: &Snapshots, parent: &Path) -> Result<Vec<String>> {
    let policy = snapshots.context.settings.policy(None);
    // Directories only, each name ended by a zero byte.
    let words = ["find", "-H"].map(OsStr::new).into_iter().chain([parent.as_os_str()]);
    let tests = ["-mindepth", "1", "-maxdepth", "1", "-type", "d", "-printf", "%f\\0"].map(OsStr::new);
    let words: Vec<&OsStr> = words.chain(tests).collect();
    let privilege = Privilege::ToChange(parent);
    let listing = snapshots.job.place.call(&words, privilege).succeed()?;
    let names = listing.split(|&byte| byte == 0);
    let mut found: Vec<Snapshot> = names
        .filter_map(|name| SnapshotName::parse(name, &policy.time_zone))
        .map(|name| Snapshot {
            time: name.time,
            verified_until: name.time,
            grade: name.grade,
            recorded: false,
            pinned: None,
            unreadable: false,
            name: name.text,
        })
        .collect();
    found.sort_by(|a, b| (a.time, &a.name).cmp(&(b.time, &b.name)));
    let decision = decide(&found, &History::default(), &policy, Utc::now().trunc_subsecs(0));
    if let Some(pause) = &decision.pause {
        log::warn!("nothing expires: {pause}");
    }
    Ok(decision.expired().map(|verdict| verdict.snapshot.name.clone()).collect())
}

fn parent(snapshots: &Snapshots) -> Result<PathBuf> {
    let parent = snapshots.directory.parent().map(Path::to_path_buf);
    parent.ok_or_else(|| Failure::Refused("the destination has no parent directory for snapshots".into()))
}

fn run(snapshots: &Snapshots, words: &[OsString]) -> Result<()> {
    let parent = parent(snapshots)?;
    snapshots.job.place.call(words, Privilege::ToChange(&parent)).succeed().map(drop)
}
