//! The ledger of transfers: which clients are writing to a module now.
//!
//! pre-xfer enters a transfer before it begins; the entry names the process that serves the
//! connection. After the transfer, post-xfer renames the [entry](crate::store::ledger_entry) to its
//! own process and the status, and removes it once the snapshot is safe. Each read and each change
//! is made under one short lock, which also guards the [gate](crate::store::gate). If the disk of
//! the snapshot root is full, the entry is written to this machine's memory.
//!
//! The entry of a push is on disk before rsync writes anything, so after a crash of the machine it
//! shows that the module is torn. A crash while the entry is being synced may leave an empty file,
//! which counts as none: its push was not let in. No other change needs to be durable: an entry
//! that a crash brings back is of an earlier boot, and such a push never counts as good, because
//! its data may not have been synced.

use std::fs::DirBuilder;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use nix::errno::Errno;
use nix::fcntl::renameat;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::decide::liveness::{EntryOrigin, Liveness};
use crate::store::dir::{self, Dir, OwnedDir, TEMPORARY, c_name, names_in};
use crate::store::format::{self, to_toml};
use crate::store::layout::Subdir;
use crate::store::ledger_entry::{LedgerEntry, StoredEntry, file_name, read_name};
use crate::store::lock::DirLock;
use crate::store::root::SnapshotRoot;
use crate::store::transfer_number;
use crate::system::pid_namespace::PidNamespace;
use crate::system::process::{Census, Process};
use crate::system::syscalls::stat_entry;
use crate::tell::error::{Error, Result};

/// The ledger of a root, under its lock.
pub struct Ledger {
    /// The directory in the snapshot root.
    own: OwnedDir,
    /// The directories for entries when the root's disk is full; made when they are needed.
    elsewhere: Vec<PathBuf>,
    _guard: DirLock,
}

impl Ledger {
    /// Waits for the lock, which is never held for long. `elsewhere` are directories for entries of
    /// only this module.
    pub fn open(root: &SnapshotRoot, elsewhere: Vec<PathBuf>) -> Result<Self> {
        let own = root.subdir(Subdir::Transfers)?;
        let guard = DirLock::on_directory(own.dir())?;
        Ok(Ledger { own, elsewhere, _guard: guard })
    }

    /// The ledger of a module that has no snapshot root yet. Only transfers that write nothing are
    /// entered in it. It is in the first directory of `elsewhere` that can be made.
    ///
    /// # Errors
    /// If none can be made.
    pub fn apart(elsewhere: Vec<PathBuf>) -> Result<Self> {
        let mut opened = Err(Error::NoStateDirectory);
        for path in &elsewhere {
            opened = make_dir(path);
            if opened.is_ok() {
                break;
            }
        }
        let own = opened?;
        let guard = DirLock::on_directory(own.dir())?;
        Ok(Ledger { own, elsewhere: Vec::new(), _guard: guard })
    }

    /// Enters a transfer that writes nothing, and removes earlier entries of such transfers whose
    /// processes have ended.
    ///
    /// # Errors
    /// Also if this process cannot tell its own PID namespace.
    pub fn enter_reader(&self, entry: &LedgerEntry) -> Result<()> {
        self.clean_up()?;
        let is_over = |stored: &StoredEntry| !stored.writes() && stored.liveness == Liveness::Dead;
        self.entries()?
            .iter()
            .filter(|stored| is_over(stored))
            .try_for_each(|stored| self.strike(stored))?;
        enter(self.own.dir(), &file_name(own_namespace()?, entry.owner.pid, None), entry)
    }

    /// All entries. Names that are none of ours are left alone.
    pub fn entries(&self) -> Result<Vec<StoredEntry>> {
        entries_in(Some(&self.own), &self.elsewhere)
    }

    /// All entries, read without the lock, for a caller that changes nothing; none if there is no
    /// ledger.
    pub fn look(root: &SnapshotRoot, elsewhere: &[PathBuf]) -> Result<Vec<StoredEntry>> {
        if !root.is_registered() {
            return Ok(Vec::new());
        }
        let own = match root.subdir(Subdir::Transfers) {
            Ok(dir) => Some(dir),
            // An earlier version, which had no ledger, made the root.
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        entries_in(own.as_ref(), elsewhere)
    }

    /// Removes files that were being written when their writer died.
    pub fn clean_up(&self) -> Result<()> {
        let others = self.elsewhere.iter().filter_map(|path| OwnedDir::open(path).ok());
        let clean_up = |dir: Dir| {
            // A writer holds the lock, so the writers of these files have ended.
            let is_dead = |name: &String| name.ends_with(TEMPORARY) || never_began(dir, name);
            names_in(dir)?
                .iter()
                .filter(|name| is_dead(name))
                .try_for_each(|name| unlink(dir, name))
        };
        clean_up(self.own.dir())?;
        others.into_iter().try_for_each(|other| clean_up(other.dir()))
    }

    /// The entry of the running transfer that process `pid` of this PID namespace serves.
    ///
    /// # Errors
    /// Also if this process cannot tell its own PID namespace.
    pub fn running(&self, pid: u32) -> Result<Option<StoredEntry>> {
        own_namespace()?;
        let is_it = |stored: &StoredEntry| {
            let owner = stored.entry.as_ref().map(|entry| &entry.owner);
            stored.status.is_none()
                && stored.pid == pid
                && PidNamespace::origin(stored.namespace.as_ref()) == EntryOrigin::Here
                && owner.is_some_and(|owner| owner.pid == pid && owner.is_alive())
        };
        Ok(self.entries()?.into_iter().find(is_it))
    }

    /// Enters a transfer that is running, with a number above `marked`, the highest one that a mark
    /// of the root holds; durably if it may write.
    ///
    /// # Errors
    /// Also if this process cannot tell its own PID namespace: the entry would name a process of
    /// another one.
    pub fn begin(
        &self,
        root: &SnapshotRoot,
        entry: LedgerEntry,
        marked: u64,
    ) -> Result<StoredEntry> {
        // A transfer that writes nothing needs no place in the order.
        let sequence = if entry.writes() { self.next_number(root, marked)? } else { 0 };
        let entry = LedgerEntry { sequence, ..entry };
        let stored = StoredEntry::of_living(own_namespace()?, entry, None);
        let refusal = match enter_stored(self.own.dir(), &stored) {
            Ok(()) => return Ok(stored),
            Err(error) => error,
        };
        // The file may exist, though not durably. It is removed, because two entries would count as
        // two pushes, of which one never ends.
        // On a disk that is read-only, the reason is that of the refusal.
        if unlink(self.own.dir(), &stored.file).is_err() {
            return Err(refusal);
        }
        self.clean_up()?;
        let enter_at = |path: &PathBuf| enter_stored(make_dir(path)?.dir(), &stored);
        let elsewhere = self.elsewhere.iter().find(|path| enter_at(path).is_ok()).cloned();
        if elsewhere.is_none() { Err(refusal) } else { Ok(StoredEntry { elsewhere, ..stored }) }
    }

    /// The transfer of the `stored` entry has ended, and from now on `owner`, this process, takes
    /// care of it.
    pub fn end(&self, stored: &StoredEntry, status: i32, owner: Process) -> Result<StoredEntry> {
        let elsewhere = stored.elsewhere.as_deref().map(OwnedDir::open).transpose()?;
        let dir = elsewhere.as_ref().unwrap_or(&self.own).dir();
        let (namespace, pid) = (own_namespace()?, owner.pid);
        let entry = stored.entry.clone().map(|entry| LedgerEntry { owner, worker: None, ..entry });
        let file = file_name(namespace, pid, Some(status));
        let ended = StoredEntry {
            file,
            namespace: Some(namespace),
            pid,
            status: Some(status),
            entry,
            ..stored.clone()
        };
        let (from, to) = (c_name(&stored.file), c_name(&ended.file));
        renameat(dir.directory, from.as_c_str(), dir.directory, to.as_c_str()).map_err(
            |cause| {
                let (from, to) = (dir.path.join(&stored.file), dir.path.join(&ended.file));
                Error::io_pair("rename", &from, &to, cause)
            },
        )?;
        if let Some(entry) = &ended.entry {
            let text = to_toml(entry, dir)?;
            // On a full disk the entry keeps its old owner, a process that waits for this one.
            if let Err(error) = dir::write_before_syncfs(dir, &ended.file, text.as_bytes()) {
                log::debug!("{error}");
            }
        }
        Ok(ended)
    }

    /// Enters a push that has ended and had no entry; the owner in `entry` takes care of it. The
    /// number is above `marked`.
    pub fn enter_ended(
        &self,
        root: &SnapshotRoot,
        entry: LedgerEntry,
        status: i32,
        marked: u64,
    ) -> Result<StoredEntry> {
        let entry = LedgerEntry { sequence: self.next_number(root, marked)?, ..entry };
        let stored = StoredEntry::of_living(own_namespace()?, entry, Some(status));
        enter_stored(self.own.dir(), &stored)?;
        Ok(stored)
    }

    /// If the number cannot be written, a later transfer may get the same one. Then the boot clock
    /// orders the two.
    fn next_number(&self, root: &SnapshotRoot, marked: u64) -> Result<u64> {
        let numbers = self.entries()?.into_iter().filter_map(|stored| Some(stored.entry?.sequence));
        let highest = numbers.fold(marked, u64::max);
        let kept =
            root.subdir(Subdir::Counters).and_then(|dir| transfer_number::next(dir.dir(), highest));
        Ok(kept.unwrap_or_else(|error| {
            log::debug!("{error}");
            highest.saturating_add(1)
        }))
    }

    /// Removes an entry; one that is gone already is no error.
    pub fn strike(&self, stored: &StoredEntry) -> Result<()> {
        let Some(path) = &stored.elsewhere else { return unlink(self.own.dir(), &stored.file) };
        match OwnedDir::open(path) {
            Ok(elsewhere) => unlink(elsewhere.dir(), &stored.file),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn unlink(dir: Dir, file: &str) -> Result<()> {
    match unlinkat(dir.directory.as_fd(), c_name(file).as_c_str(), UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(cause) => Err(Error::io("remove", &dir.path.join(file), cause)),
    }
}

fn make_dir(path: &Path) -> Result<OwnedDir> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|cause| Error::io("make", path, cause))?;
    OwnedDir::open(path)
}

fn enter_stored(dir: Dir, stored: &StoredEntry) -> Result<()> {
    stored.entry.iter().try_for_each(|entry| enter(dir, &stored.file, entry))
}

fn enter(dir: Dir, file: &str, entry: &LedgerEntry) -> Result<()> {
    let text = to_toml(entry, dir)?;
    match entry.writes() {
        true => dir::write_new(dir, file, &text),
        false => dir::write_before_syncfs(dir, file, text.as_bytes()),
    }
}

/// Whether the machine crashed while the entry was being synced, before its transfer was let in: it
/// is of an earlier boot and of a transfer that has not ended, and it is empty, or holds what no
/// version of this program writes, such as zeros.
fn never_began(dir: Dir, file: &str) -> bool {
    let Some((namespace, _, None)) = read_name(file) else { return false };
    let has_format = |text: String| {
        toml::from_str::<toml::Table>(&text).is_ok_and(|table| table.contains_key("format"))
    };
    let is_unwritten = || match dir::read(dir, file) {
        Ok(text) => text.is_some_and(|text| !has_format(text)),
        Err(error) => matches!(error, Error::Damaged { .. }),
    };
    PidNamespace::origin(namespace.as_ref()) == EntryOrigin::EarlierBoot && is_unwritten()
}

/// The entries of the root's `own` directory, and of those `elsewhere` that exist.
fn entries_in(own: Option<&OwnedDir>, elsewhere: &[PathBuf]) -> Result<Vec<StoredEntry>> {
    let mut entries = Vec::new();
    let census = Census::default();
    let others: Vec<OwnedDir> =
        elsewhere.iter().filter_map(|path| OwnedDir::open(path).ok()).collect();
    let own = own.map(|dir| (dir, None));
    for (dir, elsewhere) in own.into_iter().chain(others.iter().map(|dir| (dir, Some(&dir.path)))) {
        for file in names_in(dir.dir())? {
            let Some((namespace, pid, status)) = read_name(&file) else { continue };
            if never_began(dir.dir(), &file) {
                continue;
            }
            let path = dir.dir().path.join(&file);
            let entry = match dir::read(dir.dir(), &file) {
                // If the caller holds no lock, an entry may be removed after its name was listed.
                Ok(None) => continue,
                // A newer version says there what is left to do, so such an entry is an error.
                Ok(Some(text)) => match format::read::<LedgerEntry>(&path, &text) {
                    Ok(entry) => Some(entry),
                    Err(Error::Damaged { .. }) => None,
                    Err(error) => return Err(error),
                },
                // A crash may cut a file that was not synced.
                Err(Error::Damaged { .. }) => None,
                Err(error) => return Err(error),
            };
            let origin = PidNamespace::origin(namespace.as_ref());
            let liveness = match (&entry, origin) {
                (Some(entry), origin) => entry.liveness(origin, &census),
                (None, EntryOrigin::Here | EntryOrigin::EarlierBoot) => Liveness::Dead,
                (
                    None,
                    EntryOrigin::OtherNamespace | EntryOrigin::OtherMachine | EntryOrigin::Unclear,
                ) => Liveness::Unknown,
            };
            let began =
                entry.as_ref().map_or_else(|| modified(dir.dir(), &file), |entry| entry.began);
            entries.push(StoredEntry {
                file,
                elsewhere: elsewhere.cloned(),
                namespace,
                pid,
                status,
                entry,
                began,
                liveness,
            });
        }
    }
    Ok(entries)
}

/// When a file was written; 1970 if it is gone or has an impossible time.
pub(crate) fn modified(dir: Dir, file: &str) -> DateTime<Utc> {
    let stat = stat_entry(dir.directory, &c_name(file)).ok();
    stat.and_then(|stat| DateTime::from_timestamp(stat.st_mtime, 0)).unwrap_or_default()
}

/// The PID namespace of this process.
///
/// # Errors
/// If it cannot tell.
pub(crate) fn own_namespace() -> Result<PidNamespace> {
    PidNamespace::own()
        .map_err(|problem| Error::io("use", Path::new("/proc"), std::io::Error::other(problem)))
}
