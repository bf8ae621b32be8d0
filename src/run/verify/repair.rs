//! Restores the recorded attributes of files in snapshots whose content is unchanged.
//!
//! Snapshots and the module share the inode, and the module's file must stay as its client made it.
//! With the lock held and the gate closed to pushes, the steps are:
//!
//! 1. Find the inodes.
//! 2. Copy the module's file of each into staging, and `syncfs`.
//! 3. Rename the copy over each name that the inode has in the module, and `syncfs`.
//! 4. Apply the recorded attributes to the inode, which only snapshots share by now.
//!
//! After every step the module and all snapshots are whole. After a crash, the next repair empties
//! staging first and repeats only what is not done yet.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, renameat};
use nix::sys::stat::{
    FchmodatFlags, Mode, UtimensatFlags, fchmodat, fstat, futimens, mkdirat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, syncfs, unlinkat};
use rustix::fs::XattrFlags;

use crate::decide::damage::{InodeAttributes, InodeChange, InodeXattrs, applicable, changes};
use crate::engine::copy::Copier;
use crate::engine::inodes::{InodeName, walk};
use crate::module::target::Target;
use crate::run::dead_transfers::reap;
use crate::run::order::under_lock;
use crate::run::session::Session;
use crate::run::verify::evidence::Evidence;
use crate::run::verify::examine::examine;
use crate::run::verify::known_damage;
use crate::run::verify::verified::Verified;
use crate::store::dir::c_name;
use crate::store::gate::Gate;
use crate::store::inode_log::windows::LinkWindow;
use crate::store::layout::Subdir;
use crate::store::ledger_entry::StoredEntry;
use crate::store::leftovers::{clear_staging, discard_staging};
use crate::store::root::SnapshotRoot;
use crate::store::state::State;
use crate::system::clock::Clock;
use crate::system::identity::{Identity, SysResult};
use crate::system::syscalls::{
    is_privileged, open_directory, path_of_entry, stat_below, stat_entry,
};
use crate::tell::error::{Error, Result};
use crate::tell::progress;
use crate::tell::wait_notice::WaitNotice;

#[derive(Debug, Default)]
pub(crate) struct Repaired {
    /// How many inodes have their attributes again.
    pub restored: u64,
    /// Why inodes could not be restored.
    pub troubles: Vec<Error>,
    /// Paths that are still altered.
    pub lost: Vec<LostFile>,
    /// The verification after the repair.
    pub after: Verified,
}

/// A path that could not be repaired.
#[derive(Debug)]
pub(crate) struct LostFile {
    pub path: Vec<u8>,
    /// The newest earlier snapshot that has another file there.
    pub good: Option<String>,
    /// Only attributes differ, so snapshots recorded different ones, or they are too large.
    pub differs_in_attributes: bool,
}

/// Restores what can be restored, verifies again, and records the result in the state.
///
/// # Errors
/// If a push is running all the time, or the root cannot be read or synced.
pub(crate) fn repair(target: &Target, clock: &Clock) -> Result<Repaired> {
    let root = target.open_root()?;
    let mut repaired = Repaired::default();
    under_lock(Session { target, root: &root, clock }, || {
        progress::enter("repairing attributes");
        let _gate = close_gate(target, &root, clock)?;
        // A repair that was killed may have left copies.
        clear_staging(&root)?;
        let (verified, _) = examine(target, &root, clock.now())?;
        let wanted =
            restorable_attributes(&Evidence::open(target, &root, clock.now())?, &verified)?;
        if !wanted.is_empty() {
            let inodes = root.subdir(Subdir::Inodes)?;
            let window = LinkWindow::open(inodes.dir())?;
            let unshared = unshare_module_files(&root, &wanted, &mut repaired);
            if unshared.is_ok() {
                restore(&root, &wanted, &verified, &mut repaired);
            }
            drop(window);
            discard_staging(&root);
            unshared?;
        }
        Ok(())
    })?;
    let (mut after, _) = examine(target, &root, clock.now())?;
    known_damage::add_known(&root, &mut after)?;
    known_damage::keep(&root, &after)?;
    State::update(root.private(), |state| {
        state.damage = after.damage(clock.now(), state.damage.take())
    })?;
    repaired.lost = lost(target, &root, clock.now(), &after)?;
    repaired.after = after;
    Ok(repaired)
}

/// Waits until no push is running, and closes the gate to new ones.
fn close_gate(target: &Target, root: &SnapshotRoot, clock: &Clock) -> Result<Gate> {
    let deadline = Instant::now() + Duration::from_secs(target.policy.lock_wait.seconds());
    let notice = WaitNotice::begin();
    loop {
        let ledger = target.open_ledger(root)?;
        reap(Session { target, root, clock }, &ledger)?;
        let running: Vec<String> = ledger
            .entries()?
            .iter()
            .filter(|stored| stored.is_running_push())
            .map(StoredEntry::who)
            .collect();
        if running.is_empty() {
            return Gate::close(root, &ledger);
        }
        drop(ledger);
        if Instant::now() >= deadline {
            return Err(Error::PushRunning {
                root: root.label(),
                waited_seconds: target.policy.lock_wait.seconds(),
                clients: running.join(", "),
                consequence: "nothing was repaired: try again later",
            });
        }
        notice.tell_once(|| {
            let (label, limit) = (target.label(), target.policy.lock_wait);
            format!("{label}: waits for up to {limit} for a push of {}", running.join(", "))
        });
        sleep(Duration::from_millis(200));
    }
}

/// The attributes to restore, by inode number. These are inodes of which only attributes have
/// changed, and for which all snapshots recorded the same attributes.
fn restorable_attributes(
    evidence: &Evidence,
    verified: &Verified,
) -> Result<HashMap<u64, InodeAttributes>> {
    let is_lost = |change: &InodeChange| !change.is_of_attributes();
    let lost: HashSet<u64> = verified
        .altered
        .iter()
        .filter(|altered| altered.changes.iter().any(is_lost))
        .map(|altered| altered.inode)
        .collect();
    let mut wanted: HashMap<u64, Option<InodeAttributes>> = HashMap::new();
    let Some(inode_log) = &evidence.inode_log else { return Ok(HashMap::new()) };
    for snapshot in &evidence.snapshots {
        evidence.walk(snapshot, &mut |name: &InodeName| {
            if !verified.altered_inodes.contains(&name.inode) || lost.contains(&name.inode) {
                return;
            }
            let inode = match crate::run::verify::survey::present(name) {
                Ok(Some(inode)) => inode,
                Ok(None) => return,
                Err(error) => return log::warn!("{error}"),
            };
            let baselines = inode_log.baselines(inode.number, inode.birth_ns);
            let Some(was) = applicable(&baselines, snapshot.position.unwrap_or(0)) else { return };
            let was = &was.inode.attributes;
            let one = wanted.entry(name.inode).or_insert_with(|| Some(was.clone()));
            if one.as_ref().is_some_and(|one| !changes(one, was).is_empty())
                || matches!(was.xattrs, InodeXattrs::Digest(_))
            {
                *one = None;
            }
        });
    }
    inode_log.check()?;
    Ok(wanted.into_iter().filter_map(|(inode, attributes)| Some((inode, attributes?))).collect())
}

/// Replaces each file of the module that is one of the `wanted` inodes by a copy, so that only
/// snapshots share the inode.
fn unshare_module_files(
    root: &SnapshotRoot,
    wanted: &HashMap<u64, InodeAttributes>,
    repaired: &mut Repaired,
) -> Result<()> {
    let staging = root.subdir(Subdir::Staging)?;
    let place = staging.dir();
    let failed = |name: &InodeName, cause| Error::io_bytes("copy", &name.path(), cause);
    let drafts = root.subdir(Subdir::Drafts)?;
    let mut copier = Copier::new(drafts.dir().directory);
    // `None` if copying failed: it would fail again under each other name of the inode.
    let mut copies: HashMap<u64, Option<CString>> = HashMap::new();
    // A subdirectory, so that names chosen by a client cannot collide with ours.
    let subdirectory = c_name("repair");
    let made = mkdirat(place.directory, subdirectory.as_c_str(), Mode::S_IRWXU);
    let opened = made.and_then(|()| open_directory(place.directory, &subdirectory));
    let making = opened.map_err(|cause| Error::io("make", &place.path.join("repair"), cause))?;
    let mut copied = Vec::new();
    walk(root.module()?, &root.module_path, c".", &mut |name: &InodeName| {
        if !wanted.contains_key(&name.inode) || copies.contains_key(&name.inode) {
            return;
        }
        let own = c_name(&format!("own-{}", name.inode));
        let made = copy_whole(&mut copier, name, making.as_fd()).and_then(|()| {
            let moved = renameat(&making, name.name, place.directory, own.as_c_str());
            moved.map_err(|cause| failed(name, cause))
        });
        if made.is_err() {
            let _ = unlinkat(&making, name.name, UnlinkatFlags::NoRemoveDir);
        }
        copies.insert(name.inode, made.map(|()| own).map_err(|error| copied.push(error)).ok());
    });
    copier
        .finish()
        .map_err(|cause| Error::io("clean up the copies in", drafts.dir().path, cause))?;
    syncfs(root.directory())
        .map_err(|cause| Error::io("sync the file system of", &root.path, cause))?;
    walk(root.module()?, &root.module_path, c".", &mut |name: &InodeName| {
        let Some(Some(copy)) = copies.get(&name.inode) else { return };
        if let Err(cause) = replace(place.directory, copy, name) {
            copied.push(failed(name, cause));
        }
    });
    syncfs(root.directory())
        .map_err(|cause| Error::io("sync the file system of", &root.path, cause))?;
    repaired.troubles.append(&mut copied);
    Ok(())
}

/// Copies a file of the module; fails if any attribute would be lost.
fn copy_whole(copier: &mut Copier, name: &InodeName, target: BorrowedFd) -> Result<()> {
    let lost_before = copier.attributes_lost;
    let copied = copier.copy(name.directory, name.name, target);
    copied.map_err(|cause| Error::io_bytes("copy", &name.path(), cause))?;
    if copier.attributes_lost == lost_before {
        return Ok(());
    }
    let cause = std::io::Error::other(
        "this process may not give the copy the owner, the device or the attributes of the file",
    );
    Err(Error::io_bytes("copy", &name.path(), cause))
}

/// Replaces a name in the module by the copy, and keeps the directory's times.
fn replace(staging: BorrowedFd, copy: &CString, name: &InodeName) -> SysResult<()> {
    let next = c"next";
    if Identity::of(&stat_entry(name.directory, name.name)?).inode != name.inode {
        return Ok(());
    }
    let times = fstat(name.directory)?;
    match unlinkat(staging, next, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(cause) => return Err(cause),
    }
    linkat(staging, copy.as_c_str(), staging, next, AtFlags::empty())?;
    renameat(staging, next, name.directory, name.name)?;
    futimens(
        name.directory,
        &TimeSpec::new(times.st_atime, times.st_atime_nsec),
        &TimeSpec::new(times.st_mtime, times.st_mtime_nsec),
    )
}

/// Restores the attributes of the inodes, which the module no longer shares.
fn restore(
    root: &SnapshotRoot,
    wanted: &HashMap<u64, InodeAttributes>,
    verified: &Verified,
    repaired: &mut Repaired,
) {
    let mut shared = HashSet::new();
    if let Ok(module) = root.module() {
        walk(module, &root.module_path, c".", &mut |name: &InodeName| {
            if wanted.contains_key(&name.inode) {
                shared.insert(name.inode);
            }
        });
    }
    let snapshots: HashSet<&String> =
        verified.altered.iter().flat_map(|altered| &altered.snapshots).collect();
    let mut done = HashSet::new();
    for snapshot in snapshots {
        walk(
            root.snapshots().directory,
            root.snapshots().path,
            &c_name(snapshot),
            &mut |name: &InodeName| {
                let Some(attributes) = wanted.get(&name.inode) else { return };
                if shared.contains(&name.inode) || !done.insert(name.inode) {
                    return;
                }
                match apply(name, attributes) {
                    Ok(()) => repaired.restored += 1,
                    Err(cause) => {
                        repaired.troubles.push(Error::io_bytes(
                            "restore the attributes of",
                            &name.path(),
                            cause,
                        ));
                    }
                }
            },
        );
    }
}

/// Applies the owner first, since that clears mode bits, and extended attributes before the mode,
/// since an ACL changes it.
fn apply(name: &InodeName, attributes: &InodeAttributes) -> SysResult<()> {
    const LINK: u32 = 0o120_000;
    let InodeAttributes { mode, uid, gid, modified, xattrs, .. } = attributes;
    let owner = (Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)));
    match fchownat(name.directory, name.name, owner.0, owner.1, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::EPERM) if !is_privileged() => {}
        answer => answer?,
    }
    if let InodeXattrs::All(wanted) = xattrs {
        apply_xattrs(name, wanted)?;
    }
    if mode & 0o170_000 != LINK {
        // Only this program may replace an entry of a snapshot, so no symbolic link is followed.
        let mode = Mode::from_bits_truncate(mode & 0o7777);
        fchmodat(name.directory, name.name, mode, FchmodatFlags::FollowSymlink)?;
    }
    let modified = TimeSpec::new(modified.seconds, modified.nanoseconds.into());
    utimensat(
        name.directory,
        name.name,
        &TimeSpec::UTIME_OMIT,
        &modified,
        UtimensatFlags::NoFollowSymlink,
    )
}

fn apply_xattrs(name: &InodeName, wanted: &BTreeMap<CString, Vec<u8>>) -> SysResult<()> {
    let InodeXattrs::All(present) = crate::engine::baseline::xattrs(name.directory, name.name)
    else {
        return Err(Errno::ENOTSUP);
    };
    let path = path_of_entry(name.directory, name.name)?;
    let errno = |error: rustix::io::Errno| Errno::from_raw(error.raw_os_error());
    for gone in present.keys().filter(|name| !wanted.contains_key(*name)) {
        rustix::fs::lremovexattr(path.as_c_str(), gone.as_c_str()).map_err(errno)?;
    }
    for (name, value) in wanted.iter().filter(|(name, value)| present.get(*name) != Some(*value)) {
        rustix::fs::lsetxattr(path.as_c_str(), name.as_c_str(), value, XattrFlags::empty())
            .map_err(errno)?;
    }
    Ok(())
}

/// Paths that are still altered, each once.
fn lost(
    target: &Target,
    root: &SnapshotRoot,
    now: DateTime<Utc>,
    after: &Verified,
) -> Result<Vec<LostFile>> {
    let evidence = Evidence::open(target, root, now)?;
    let inode_in = |name: &str, path: &[u8]| {
        let directory = open_directory(root.snapshots().directory, &c_name(name)).ok()?;
        stat_below(directory.as_fd(), path).ok().map(|stat| Identity::of(&stat).inode)
    };
    let good = |altered: &crate::run::verify::verified::AlteredPath| {
        let first = altered.snapshots.first()?;
        let earlier =
            evidence.snapshots.iter().rev().skip_while(|snapshot| snapshot.name != *first).skip(1);
        let mut other = earlier.filter(|snapshot| {
            inode_in(&snapshot.name, &altered.path).is_some_and(|inode| inode != altered.inode)
        });
        other.next().map(|snapshot| snapshot.name.clone())
    };
    let lost = |altered: &crate::run::verify::verified::AlteredPath| LostFile {
        path: altered.path.clone(),
        good: good(altered),
        differs_in_attributes: altered.changes.iter().all(InodeChange::is_of_attributes),
    };
    let mut files: Vec<LostFile> = after.altered.iter().map(lost).collect();
    // A file is altered in two ways where two snapshots recorded different attributes.
    files.dedup_by(|one, other| one.path == other.path);
    Ok(files)
}
