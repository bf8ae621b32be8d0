//! The ledger of transfers: who is writing to a module right now.
//!
//! pre-xfer enters a transfer before it begins, as `transfers/SIDE-PID` of the process that serves
//! the connection. When it has ended, post-xfer makes that `transfers/SIDE-PID.STATUS`, now of its
//! own process, until the snapshot is safe. The [side](crate::system::pid_namespace) is machine, boot and PID
//! namespace; earlier versions wrote `PID` alone. Every look at the ledger and every change is made
//! under one short lock, which also guards the [gate](crate::store::gate). Where the snapshot root has no
//! room for an entry, it goes to where this machine remembers things.
//!
//! An entry of a push is on disk before rsync writes anything: after a crash of the machine it
//! tells that the module is torn. All other changes need not be durable. What comes back after a
//! crash is of another boot, and no such push counts as good, however it ended: nobody has synced
//! what it wrote.

use std::fs::DirBuilder;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use nix::errno::Errno;
use nix::fcntl::renameat;
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde::{Deserialize, Serialize};

use crate::decide::arguments::{Rewriting, TransferKind};
use crate::decide::boot_time::BootTime;
use crate::decide::client::Client;
use crate::decide::failed_push::LedgerPush;
use crate::decide::liveness::{EntryOrigin, Liveness};
use crate::decide::push_job::PushJob;
use crate::decide::verdict_facts::Forbidden;
use crate::store::dir::{self, Dir, OwnedDir, TEMPORARY, c_name, names_in};
use crate::store::format::{FORMAT, to_toml};
use crate::store::layout::Subdir;
use crate::store::lock::DirLock;
use crate::store::root::SnapshotRoot;
use crate::store::transfer_number;
use crate::system::clock::Clock;
use crate::system::pid_namespace::PidNamespace;
use crate::system::process::{Census, Process};
use crate::system::syscalls::stat_entry;
use crate::tell::error::{Error, Result};

/// A transfer as pre-xfer saw it begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerEntry {
    /// Format number, at most [`FORMAT`].
    pub format: u32,
    /// What the client asked for.
    pub kind: TransferKind,
    /// pre-xfer turned it away: nothing was transferred.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
    /// When it was entered, by the wall clock.
    pub began: DateTime<Utc>,
    /// The same by the boot-time clock.
    pub began_at: BootTime,
    /// Its place in the order of all transfers of the root, whichever machine they came by; 0 in an
    /// entry that an earlier version wrote.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sequence: u64,
    /// What the client asked for, escaped: `RSYNC_REQUEST`.
    pub request: String,
    /// The options with which it rewrites files in place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewriting: Vec<Rewriting>,
    /// What it is to do; none if its arguments were not understood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<PushJob>,
    /// What `rsyncd.conf` forbids of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forbidden: Option<Forbidden>,
    /// Who transfers.
    pub client: Client,
    /// The process that serves the connection and runs the hooks; once the transfer has ended, that
    /// of its post-xfer.
    pub owner: Process,
    /// The process that transfers: it goes on if only the one is ended that serves the
    /// connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<Process>,
}

impl LedgerEntry {
    /// Of a transfer that pre-xfer has not seen, and that `owner` takes care of now.
    pub fn unannounced(client: Client, owner: Process, clock: &Clock) -> Self {
        LedgerEntry {
            format: FORMAT,
            kind: TransferKind::Push,
            refused: false,
            began: clock.exact_now(),
            began_at: BootTime::now(),
            sequence: 0,
            request: String::new(),
            rewriting: Vec::new(),
            job: None,
            forbidden: None,
            client,
            owner,
            worker: None,
        }
    }

    /// What matters of it for what it tears or mends.
    pub fn push(&self) -> LedgerPush {
        LedgerPush {
            client: self.client.identity(),
            request: self.request.clone(),
            began: self.began_at.clone(),
            began_at: self.began,
            sequence: Some(self.sequence).filter(|sequence| *sequence > 0),
            job: self.job.clone(),
            in_place: !self.rewriting.is_empty(),
            only_deletes: self.kind == TransferKind::DeletionOnly,
        }
    }

    /// Whether the transfer may change the module.
    pub fn writes(&self) -> bool {
        self.kind.writes() && !self.refused
    }

    fn liveness(&self, origin: EntryOrigin, census: &Census) -> Liveness {
        let worker = self.worker.as_ref().map(|worker| worker.liveness(origin, census));
        self.owner.liveness(origin, census).or(worker.unwrap_or(Liveness::Dead))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
pub(crate) fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// An entry with its place in the ledger.
#[derive(Debug, Clone)]
pub struct LedgerLine {
    file: String,
    /// The room that it is in.
    dir: usize,
    /// Where it was entered; none if an earlier version did so.
    side: Option<PidNamespace>,
    /// The number of the process that takes care of it, on that side.
    pub pid: u32,
    /// The status that the transfer ended with, if it has ended.
    pub status: Option<i32>,
    /// What it says; `None` if it cannot be read: then it is a push of somebody who is dead.
    pub entry: Option<LedgerEntry>,
    /// When the transfer began, or at least its entry was written.
    pub began: DateTime<Utc>,
    /// Whether the processes of the transfer, or of the hook after it, are running, as far as that
    /// can be seen from here.
    liveness: Liveness,
}

impl LedgerLine {
    /// Whether the transfer is running, as far as is known, and may change the module.
    pub fn is_running_push(&self) -> bool {
        self.status.is_none() && self.liveness != Liveness::Dead && self.writes()
    }

    /// What is known at `now` of the transfer, or of the hook after it, where what cannot be seen
    /// counts as dead after `limit`.
    pub fn liveness(&self, now: DateTime<Utc>, limit: TimeDelta) -> Liveness {
        self.liveness.after(self.age(now), limit)
    }

    /// Whether it cannot be seen from here if its processes are running.
    pub fn is_unseen(&self) -> bool {
        self.liveness == Liveness::Unknown
    }

    /// By the boot-time clock, where that is the same one: no person sets it.
    fn age(&self, now: DateTime<Utc>) -> TimeDelta {
        let (entered, moment) = (self.entry.as_ref().map(|entry| &entry.began_at), BootTime::now());
        match entered.filter(|entered| entered.is_certain() && entered.boot == moment.boot) {
            Some(entered) => {
                TimeDelta::nanoseconds(moment.nanoseconds.saturating_sub(entered.nanoseconds))
            }
            None => now - self.began,
        }
    }

    /// The name of its file, for a message.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Whether the transfer may change, or has changed, the module.
    pub fn writes(&self) -> bool {
        self.entry.as_ref().is_none_or(LedgerEntry::writes)
    }

    /// Whether it is a push of this boot of the machine, as far as it can be read.
    pub fn is_of_this_boot(&self) -> bool {
        self.entry.as_ref().is_some_and(|entry| entry.began_at.is_of_this_boot())
    }

    /// Who transfers, for a message.
    pub fn who(&self) -> String {
        self.entry.as_ref().map_or("an unknown client".to_string(), |entry| entry.client.identity())
    }
}

/// The ledger of a root, under its lock.
pub struct Ledger {
    /// In the snapshot root, and wherever else there may be entries.
    dirs: Vec<OwnedDir>,
    /// Where entries go that the root has no room for; made when they are needed.
    elsewhere: Vec<PathBuf>,
    _guard: DirLock,
}

impl Ledger {
    /// Waits for the lock; its holders do nothing long. `elsewhere` are directories of this module
    /// alone.
    pub fn open(root: &SnapshotRoot, elsewhere: Vec<PathBuf>) -> Result<Self> {
        let own = root.subdir(Subdir::Transfers)?;
        let guard = DirLock::on_directory(own.dir())?;
        let others = elsewhere.iter().filter_map(|path| OwnedDir::open(path).ok());
        let dirs = std::iter::once(own).chain(others).collect();
        Ok(Ledger { dirs, elsewhere, _guard: guard })
    }

    /// The ledger of a module that has no snapshot root yet: only what reads is entered in it. The
    /// first of `elsewhere` that can be used is made.
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
        Ok(Ledger { dirs: vec![own], elsewhere: Vec::new(), _guard: guard })
    }

    /// Enters a transfer that writes nothing, and strikes out those of the dead.
    ///
    /// # Errors
    /// Also if this process cannot tell its own PID namespace.
    pub fn enter_reader(&self, entry: &LedgerEntry) -> Result<()> {
        self.clean_up()?;
        let is_over = |line: &LedgerLine| !line.writes() && line.liveness == Liveness::Dead;
        self.lines()?.iter().filter(|line| is_over(line)).try_for_each(|line| self.strike(line))?;
        enter(self.dirs[0].dir(), &file_name(own_side()?, entry.owner.pid, None), entry)
    }

    /// All entries. Names that are none of ours are left alone.
    pub fn lines(&self) -> Result<Vec<LedgerLine>> {
        lines_in(&self.dirs)
    }

    /// All entries as they are at this moment, for a caller that changes nothing; none if there is
    /// no ledger.
    pub fn look(root: &SnapshotRoot, elsewhere: &[PathBuf]) -> Result<Vec<LedgerLine>> {
        if !root.is_registered() {
            return Ok(Vec::new());
        }
        let own = match root.subdir(Subdir::Transfers) {
            Ok(dir) => Some(dir),
            // A version that had none made the root.
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let others = elsewhere.iter().filter_map(|path| OwnedDir::open(path).ok());
        lines_in(&own.into_iter().chain(others).collect::<Vec<_>>())
    }

    /// Removes what was being written when its writer died.
    pub fn clean_up(&self) -> Result<()> {
        for (index, dir) in self.dirs.iter().enumerate() {
            // Under the lock nobody writes it any more.
            let names = names_in(dir.dir())?;
            names
                .iter()
                .filter(|name| name.ends_with(TEMPORARY))
                .try_for_each(|name| self.unlink(index, name))?;
        }
        Ok(())
    }

    /// The entry of the running transfer that process `pid` of this PID namespace serves.
    ///
    /// # Errors
    /// Also if this process cannot tell its own PID namespace.
    pub fn running(&self, pid: u32) -> Result<Option<LedgerLine>> {
        own_side()?;
        let is_it = |line: &LedgerLine| {
            let owner = line.entry.as_ref().map(|entry| &entry.owner);
            line.status.is_none()
                && line.pid == pid
                && PidNamespace::origin(line.side.as_ref()) == EntryOrigin::Here
                && owner.is_some_and(|owner| owner.pid == pid && owner.is_alive())
        };
        Ok(self.lines()?.into_iter().find(is_it))
    }

    /// Enters a transfer, with a number above `marked`, the highest one that a mark of the root
    /// holds; durably if it may write.
    ///
    /// # Errors
    /// Also if this process cannot tell its own PID namespace: then the entry would be another
    /// one's.
    pub fn begin(&self, root: &SnapshotRoot, entry: &LedgerEntry, marked: u64) -> Result<()> {
        let file = file_name(own_side()?, entry.owner.pid, None);
        // What writes nothing neither tears nor mends, and leaves nothing behind.
        let sequence = if entry.writes() { self.next_number(root, marked)? } else { 0 };
        let entry = &LedgerEntry { sequence, ..entry.clone() };
        let refusal = match enter(self.dirs[0].dir(), &file, entry) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let enter_at = |path: &PathBuf| enter(make_dir(path)?.dir(), &file, entry);
        // It may be there, though not durably; and two entries would be two pushes, of which one
        // never ends.
        self.unlink(0, &file)?;
        self.clean_up()?;
        let is_entered = self.elsewhere.iter().any(|path| enter_at(path).is_ok());
        if is_entered { Ok(()) } else { Err(refusal) }
    }

    /// The transfer of `line` has ended, and from now on `owner`, this process, takes care of it.
    pub fn end(&self, line: &LedgerLine, status: i32, owner: Process) -> Result<LedgerLine> {
        let dir = self.dirs[line.dir].dir();
        let (side, pid) = (own_side()?, owner.pid);
        let entry = line.entry.clone().map(|entry| LedgerEntry { owner, worker: None, ..entry });
        let file = file_name(side, pid, Some(status));
        let ended =
            LedgerLine { file, side: Some(side), pid, status: Some(status), entry, ..*line };
        let (from, to) = (c_name(&line.file), c_name(&ended.file));
        renameat(dir.directory, from.as_c_str(), dir.directory, to.as_c_str()).map_err(
            |cause| {
                let (from, to) = (dir.path.join(&line.file), dir.path.join(&ended.file));
                Error::io_pair("rename", &from, &to, cause)
            },
        )?;
        if let Some(entry) = &ended.entry {
            let text = to_toml(entry, dir)?;
            // On a full disk the old owner stands in it, who waits for this process.
            if let Err(error) = dir::write_before_syncfs(dir, &ended.file, text.as_bytes()) {
                log::debug!("{error}");
            }
        }
        Ok(ended)
    }

    /// Enters a push that had no entry when it has ended already; `entry`'s owner takes care of it.
    /// The number is above `marked`.
    pub fn enter_ended(
        &self,
        root: &SnapshotRoot,
        entry: LedgerEntry,
        status: i32,
        marked: u64,
    ) -> Result<LedgerLine> {
        let (side, pid, began) = (own_side()?, entry.owner.pid, entry.began);
        let file = file_name(side, pid, Some(status));
        let entry = LedgerEntry { sequence: self.next_number(root, marked)?, ..entry };
        enter(self.dirs[0].dir(), &file, &entry)?;
        let (side, status, entry) = (Some(side), Some(status), Some(entry));
        Ok(LedgerLine { file, dir: 0, side, pid, status, entry, began, liveness: Liveness::Alive })
    }

    /// Where the number cannot be kept, a later one may be the same; the order is then that of the
    /// boot-time clock.
    fn next_number(&self, root: &SnapshotRoot, marked: u64) -> Result<u64> {
        let numbers = self.lines()?.into_iter().filter_map(|line| Some(line.entry?.sequence));
        let highest = numbers.fold(marked, u64::max);
        let kept =
            root.subdir(Subdir::Counters).and_then(|dir| transfer_number::next(dir.dir(), highest));
        Ok(kept.unwrap_or_else(|error| {
            log::debug!("{error}");
            highest.saturating_add(1)
        }))
    }

    /// Strikes out an entry, be it there or not.
    pub fn strike(&self, line: &LedgerLine) -> Result<()> {
        self.unlink(line.dir, &line.file)
    }

    fn unlink(&self, dir: usize, file: &str) -> Result<()> {
        let dir = self.dirs[dir].dir();
        match unlinkat(dir.directory.as_fd(), c_name(file).as_c_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(cause) => Err(Error::io("remove", &dir.path.join(file), cause)),
        }
    }
}

fn make_dir(path: &Path) -> Result<OwnedDir> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|cause| Error::io("make", path, cause))?;
    OwnedDir::open(path)
}

fn enter(dir: Dir, file: &str, entry: &LedgerEntry) -> Result<()> {
    let text = to_toml(entry, dir)?;
    match entry.writes() {
        true => dir::write(dir, file, &text),
        false => dir::write_before_syncfs(dir, file, text.as_bytes()),
    }
}

fn lines_in(dirs: &[OwnedDir]) -> Result<Vec<LedgerLine>> {
    let mut lines = Vec::new();
    let census = Census::default();
    for (index, dir) in dirs.iter().enumerate() {
        for file in names_in(dir.dir())? {
            let Some((side, pid, status)) = read_name(&file) else { continue };
            let entry = match dir::read(dir.dir(), &file) {
                // Without the lock, an entry may go between the two looks.
                Ok(None) => continue,
                Ok(Some(text)) => {
                    toml::from_str(&text).ok().filter(|entry: &LedgerEntry| entry.format <= FORMAT)
                }
                // A crash may cut what was not synced.
                Err(Error::Damaged { .. }) => None,
                Err(error) => return Err(error),
            };
            let origin = PidNamespace::origin(side.as_ref());
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
            lines.push(LedgerLine { file, dir: index, side, pid, status, entry, began, liveness });
        }
    }
    Ok(lines)
}

/// When a file was written; one that is gone, or has an impossible time, long ago.
fn modified(dir: Dir, file: &str) -> DateTime<Utc> {
    let stat = stat_entry(dir.directory, &c_name(file)).ok();
    stat.and_then(|stat| DateTime::from_timestamp(stat.st_mtime, 0)).unwrap_or_default()
}

fn own_side() -> Result<PidNamespace> {
    PidNamespace::own()
        .map_err(|problem| Error::io("use", Path::new("/proc"), std::io::Error::other(problem)))
}

fn file_name(side: PidNamespace, pid: u32, status: Option<i32>) -> String {
    let side = side.to_name();
    status.map_or_else(|| format!("{side}-{pid}"), |status| format!("{side}-{pid}.{status}"))
}

/// `SIDE-PID` or `SIDE-PID.STATUS`, or the same without a side.
fn read_name(file: &str) -> Option<(Option<PidNamespace>, u32, Option<i32>)> {
    let (process, status) = match file.split_once('.') {
        Some((process, status)) => (process, Some(status.parse().ok()?)),
        None => (file, None),
    };
    let (side, pid) = match process.rsplit_once('-') {
        Some((side, pid)) => (Some(PidNamespace::from_name(side)?), pid),
        None => (None, process),
    };
    let pid: u32 = pid.parse().ok()?;
    // `+1` and `01` parse, too, but are not what we write.
    let written = match side {
        Some(side) => file_name(side, pid, status),
        None => status.map_or_else(|| pid.to_string(), |status: i32| format!("{pid}.{status}")),
    };
    (written == file).then_some((side, pid, status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_a_process_and_a_status_or_none_of_ours() {
        assert_eq!(read_name("4711"), Some((None, 4711, None)));
        assert_eq!(read_name("4711.0"), Some((None, 4711, Some(0))));
        assert_eq!(read_name("4711.-1"), Some((None, 4711, Some(-1))));
        for foreign in
            ["", ".", "x", "4711.", ".0", "+1", "01", "-1", "4711.0.0", "4711.00", "99999999999"]
        {
            assert_eq!(read_name(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn names_tell_the_side_that_wrote_them() {
        let side = PidNamespace::own().expect("/proc");
        for status in [None, Some(0), Some(-1), Some(23)] {
            assert_eq!(read_name(&file_name(side, 7, status)), Some((Some(side), 7, status)));
        }
        let name = file_name(side, 7, None);
        for foreign in
            [format!("{name}."), format!("{name}-7"), format!("-{name}"), format!("{name}.00")]
        {
            assert_eq!(read_name(&foreign), None, "{foreign}");
        }
    }
}
