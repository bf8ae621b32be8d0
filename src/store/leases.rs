//! Leases: which snapshots are being read, so that none of them changes under its reader.
//!
//! A reader writes a [lease](crate::store::lease_entry) before it opens anything of a snapshot, and
//! removes it when it has finished. A run reads the leases before it retires, recycles or removes a
//! snapshot. Both happen under the lock of the [ledger](crate::store::ledger): so a lease on a
//! visible snapshot is either seen by the run that would retire it, or finds that it is gone.
//!
//! A lease ends at the latest with the processes that it names. So a reader may be killed at any
//! moment, and the file that it leaves holds nothing; the next reader or rotation removes it. For
//! the same reason a lease need not survive a crash of the machine, and is never synced.
//!
//! On a full disk a lease may be an empty file. Like any that cannot be understood, it is one on
//! all snapshots, by the process of its name.

use chrono::{DateTime, TimeDelta, Utc};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::decide::lease::{LeaseStanding, SnapshotReader};
use crate::decide::liveness::{EntryOrigin, Liveness};
use crate::store::dir::{self, Dir, OwnedDir, TEMPORARY, c_name, names_in, remove_file};
use crate::store::format::{FORMAT, to_toml};
use crate::store::layout::Subdir;
use crate::store::lease_entry::{LeaseEntry, LeasedSnapshots, StoredLease};
use crate::store::ledger::{modified, own_namespace};
use crate::store::ledger_entry::{file_name, read_name};
use crate::store::lock::DirLock;
use crate::store::pinning::is_visible;
use crate::store::root::SnapshotRoot;
use crate::system::clock::Clock;
use crate::system::pid_namespace::PidNamespace;
use crate::system::process::{Census, Process};
use crate::system::syscalls::stat_entry;
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape;

/// The leases of a root, as they were when they were read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leases {
    stored: Vec<StoredLease>,
}

/// By what a run measures leases: the policy's `max_lease`, and the time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaseTerms {
    pub max_lease: TimeDelta,
    pub now: DateTime<Utc>,
}

impl Leases {
    /// Reads them without the lock, for a caller that changes nothing.
    pub(crate) fn look(root: &SnapshotRoot) -> Result<Self> {
        match root.is_registered() {
            true => Ok(Leases { stored: stored_in(leases_dir(root)?.as_ref())? }),
            false => Ok(Leases::default()),
        }
    }

    /// The first reader that keeps the snapshot `name` from being retired.
    pub(crate) fn holder(&self, name: &str, terms: LeaseTerms) -> Option<SnapshotReader> {
        let holds = |lease: &&StoredLease| {
            lease.standing(terms.now, terms.max_lease) == LeaseStanding::Holds
        };
        self.stored.iter().filter(|lease| lease.covers(name)).find(holds).map(StoredLease::reader)
    }

    /// Whether a process may be reading the snapshot `name`, so that it must not be recycled.
    pub(crate) fn may_be_read(&self, name: &str) -> bool {
        self.stored.iter().any(|lease| lease.liveness != Liveness::Dead && lease.covers(name))
    }

    /// All leases whose processes have not ended, as far as can be seen.
    pub(crate) fn present(&self) -> impl Iterator<Item = &StoredLease> {
        self.stored.iter().filter(|lease| lease.liveness != Liveness::Dead)
    }

    /// The leases whose processes cannot be seen from here.
    pub(crate) fn unseen(&self) -> impl Iterator<Item = &StoredLease> {
        self.stored.iter().filter(|lease| lease.is_unseen())
    }
}

/// The leases of a root, under the ledger's lock. The caller may not hold the ledger or the state's
/// lock.
pub(crate) struct LockedLeases {
    /// None if an earlier version made the root, and no run of this one has worked on it.
    dir: Option<OwnedDir>,
    _guard: DirLock,
}

impl LockedLeases {
    /// Waits for the lock, which is never held for long.
    pub(crate) fn open(root: &SnapshotRoot) -> Result<Self> {
        let guard = DirLock::on_directory(root.subdir(Subdir::Transfers)?.dir())?;
        Ok(LockedLeases { dir: leases_dir(root)?, _guard: guard })
    }

    pub(crate) fn read(&self) -> Result<Leases> {
        Ok(Leases { stored: stored_in(self.dir.as_ref())? })
    }

    /// Removes leases that are over, and files that were being written when their writer died.
    pub(crate) fn clean_up(&self, terms: LeaseTerms) -> Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let stored = self.read()?.stored.into_iter();
        let is_over =
            |lease: &StoredLease| lease.standing(terms.now, terms.max_lease) == LeaseStanding::Over;
        let over = stored.filter(is_over).map(|lease| lease.file);
        let drafts = names_in(dir.dir())?.into_iter().filter(|name| name.ends_with(TEMPORARY));
        drafts.chain(over).try_for_each(|file| remove_file(dir.dir(), &file).map(drop))
    }

    /// Writes a lease, and returns the name of its file.
    fn enter(&self, entry: &LeaseEntry) -> Result<String> {
        let dir = self.dir.as_ref().ok_or(Error::Bug("an opened root has no leases"))?.dir();
        let namespace = own_namespace()?;
        let is_free =
            |file: &String| matches!(stat_entry(dir.directory, &c_name(file)), Err(Errno::ENOENT));
        let file = (0..1_000)
            .map(|number| file_name(namespace, entry.owner.pid, Some(number)))
            .find(is_free)
            .ok_or_else(|| Error::io("write", dir.path, Errno::EEXIST))?;
        let text = to_toml(entry, dir)?;
        match dir::write_before_syncfs(dir, &file, text.as_bytes()) {
            Err(error) if error.is_lack_of_space() => {
                remove_file(dir, &format!("{file}{TEMPORARY}"))?;
                // An entry of a directory may still have space where a file's content has none.
                make_empty(dir, &file).map_err(|_| error)?;
                Ok(file)
            }
            written => written.map(|()| file),
        }
    }
}

/// A lease that this process has taken. It ends when this value is dropped.
#[must_use = "a lease ends when it is dropped"]
pub(crate) struct Lease {
    dir: OwnedDir,
    file: String,
    is_left: bool,
}

impl Lease {
    /// Takes a lease on visible snapshots for this process. `reader` says who reads them, escaped,
    /// so that "`reader` has been reading it" is a sentence.
    ///
    /// # Errors
    /// [`Error::Snapshot`] if one of them is not there; or if the lease cannot be written, as on a
    /// read-only disk or by an ordinary user.
    pub(crate) fn take(
        root: &SnapshotRoot,
        snapshots: LeasedSnapshots,
        reader: &str,
        clock: &Clock,
    ) -> Result<Self> {
        let locked = LockedLeases::open(root)?;
        if let LeasedSnapshots::Named(names) = &snapshots {
            for name in names {
                if !is_visible(root, name)? {
                    return Err(missing(root, name));
                }
            }
        }
        let entry = LeaseEntry::of_own_process(snapshots, reader, clock)?;
        Lease::enter(root, &locked, &entry)
    }

    /// Takes a lease for a client of rsyncd. Whether the snapshots are there is for rsyncd to find
    /// out.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn take_for_client(root: &SnapshotRoot, entry: &LeaseEntry) -> Result<Self> {
        Lease::enter(root, &LockedLeases::open(root)?, entry)
    }

    fn enter(root: &SnapshotRoot, locked: &LockedLeases, entry: &LeaseEntry) -> Result<Self> {
        // By the present moment only leases of dead processes are over, whatever `max_lease` is.
        locked.clean_up(LeaseTerms { max_lease: TimeDelta::MAX / 4, now: entry.began })?;
        let file = locked.enter(entry)?;
        Ok(Lease { dir: root.subdir(Subdir::Leases)?, file, is_left: false })
    }

    /// Ends the lease.
    ///
    /// # Errors
    /// If its file cannot be removed. It holds nothing once this process has ended.
    pub(crate) fn end(mut self) -> Result<()> {
        self.is_left = true;
        remove_file(self.dir.dir(), &self.file).map(drop)
    }

    /// Leaves the lease to the processes that it names.
    pub(crate) fn leave(mut self) {
        self.is_left = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.is_left
            && let Err(error) = remove_file(self.dir.dir(), &self.file)
        {
            log::debug!("a lease could not be removed, and lasts until this process ends: {error}");
        }
    }
}

/// Ends all leases of process `pid` of this PID namespace, which has finished reading.
pub(crate) fn end_of(root: &SnapshotRoot, pid: u32) -> Result<()> {
    let Some(dir) = leases_dir(root)? else { return Ok(()) };
    let namespace = own_namespace()?;
    let is_its = |file: &&String| {
        read_name(file).is_some_and(|(its, its_pid, _)| (its, its_pid) == (Some(namespace), pid))
    };
    names_in(dir.dir())?
        .iter()
        .filter(is_its)
        .try_for_each(|file| remove_file(dir.dir(), file).map(drop))
}

/// Ends the leases whose processes cannot be seen from here, because the administrator says that
/// those have ended. Returns how many there were.
pub(crate) fn end_unseen(root: &SnapshotRoot) -> Result<usize> {
    let locked = LockedLeases::open(root)?;
    let Some(dir) = &locked.dir else { return Ok(0) };
    let leases = locked.read()?;
    for lease in leases.unseen() {
        log::warn!(
            "{}: {} counts as ended, though its process cannot be seen from here",
            root.label(),
            lease.reader().name
        );
        remove_file(dir.dir(), &lease.file)?;
    }
    Ok(leases.unseen().count())
}

fn missing(root: &SnapshotRoot, name: &str) -> Error {
    Error::Snapshot {
        root: root.label(),
        problem: format!("no snapshot {}", escape(name.as_bytes())),
        remedy: "`list` shows those that there are, `list --expired` those that `undelete` brings \
                 back",
    }
}

fn leases_dir(root: &SnapshotRoot) -> Result<Option<OwnedDir>> {
    match root.subdir(Subdir::Leases) {
        Ok(dir) => Ok(Some(dir)),
        // An earlier version made the root, and this process may not make the directory.
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn stored_in(dir: Option<&OwnedDir>) -> Result<Vec<StoredLease>> {
    let Some(dir) = dir.map(OwnedDir::dir) else { return Ok(Vec::new()) };
    let census = Census::default();
    let mut stored = Vec::new();
    for file in names_in(dir)? {
        let Some((namespace, pid, _)) = read_name(&file) else { continue };
        let entry = match dir::read(dir, &file) {
            // Its reader has finished since the directory was listed.
            Ok(None) => continue,
            Ok(Some(text)) => {
                toml::from_str(&text).ok().filter(|entry: &LeaseEntry| entry.format <= FORMAT)
            }
            Err(Error::Damaged { .. }) => None,
            Err(error) => return Err(error),
        };
        let origin = PidNamespace::origin(namespace.as_ref());
        let liveness = match (&entry, origin) {
            (Some(LeaseEntry { owner, worker, .. }), origin) => {
                Process::liveness_of_any(owner, worker.as_ref(), origin, &census)
            }
            (None, EntryOrigin::EarlierBoot) => Liveness::Dead,
            (None, EntryOrigin::Here) if matches!(Process::of(pid), Ok(None)) => Liveness::Dead,
            // The number may have been used again since.
            (None, _) => Liveness::Unknown,
        };
        let began = entry.as_ref().map_or_else(|| modified(dir, &file), |entry| entry.began);
        stored.push(StoredLease { file, entry, began, liveness });
    }
    Ok(stored)
}

fn make_empty(dir: Dir, file: &str) -> Result<()> {
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(dir.directory, c_name(file).as_c_str(), flags, Mode::from_bits_truncate(0o600))
        .map(drop)
        .map_err(|cause| Error::io("write", &dir.path.join(file), cause))
}
