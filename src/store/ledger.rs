//! The ledger of transfers: who is writing to a module right now.
//!
//! pre-xfer enters a transfer before it begins, as `transfers/PID` of the process that serves the connection. When it has
//! ended, post-xfer makes that `transfers/PID.STATUS`, now of its own process, until the snapshot is safe. Every look at
//! the ledger and every change is made under one short lock, which also guards the [gate](super::gate). Where the
//! snapshot root has no room for an entry, it goes to where this machine remembers things.
//!
//! An entry of a push is on disk before rsync writes anything: after a crash of the machine it tells
//! that the module is torn. All other changes need not be durable. What comes back after a crash
//! is of another boot, and no such push counts as good, however it ended: nobody has synced what it wrote.

use std::fs::DirBuilder;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use nix::errno::Errno;
use nix::fcntl::renameat;
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde::{Deserialize, Serialize};

use super::boot::BootTime;
use super::catalog::names_in;
use super::durable::{self, Place, TEMPORARY, c_name};
use super::lock::Guard;
use super::process::Process;
use super::record::{Client, FORMAT, to_toml};
use super::root::{Room, SnapshotRoot};
use crate::clock::Clock;
use crate::config::arguments::{Kind, Rewriting};
use crate::decide::job::Job;
use crate::decide::torn::Push;
use crate::decide::verdict::Forbidden;
use crate::tell::error::{Error, Result};

/// The room of the ledger.
pub const ROOM: &str = "transfers";

/// A transfer as pre-xfer saw it begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Format number, at most [`FORMAT`].
    pub format: u32,
    /// What the client asked for.
    pub kind: Kind,
    /// pre-xfer turned it away: nothing was transferred.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
    /// When it was entered, by the wall clock.
    pub began: DateTime<Utc>,
    /// The same by the boot-time clock.
    pub began_at: BootTime,
    /// What the client asked for, escaped: `RSYNC_REQUEST`.
    pub request: String,
    /// The options with which it rewrites files in place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewriting: Vec<Rewriting>,
    /// What it is to do; none if its arguments were not understood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Job>,
    /// What `rsyncd.conf` forbids of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forbidden: Option<Forbidden>,
    /// Who transfers.
    pub client: Client,
    /// The process that serves the connection and runs the hooks; once the transfer has ended, that of its post-xfer.
    pub owner: Process,
    /// The process that transfers: it goes on if somebody ends only the one that serves the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<Process>,
}

impl Entry {
    /// Of a transfer that pre-xfer has not seen, and that `owner` takes care of now.
    pub fn unannounced(client: Client, owner: Process, clock: &Clock) -> Self {
        Entry {
            format: FORMAT,
            kind: Kind::Push,
            refused: false,
            began: clock.exact_now(),
            began_at: BootTime::now(),
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
    pub fn push(&self) -> Push {
        Push {
            client: self.client.identity(),
            request: self.request.clone(),
            began: self.began_at.clone(),
            began_at: self.began,
            sequence: None,
            job: self.job.clone(),
            in_place: !self.rewriting.is_empty(),
            only_deletes: self.kind == Kind::DeletionOnly,
        }
    }

    /// Whether the transfer may change the module.
    pub fn writes(&self) -> bool {
        self.kind.writes() && !self.refused
    }

    fn is_alive(&self) -> bool {
        self.owner.is_alive() || self.worker.as_ref().is_some_and(Process::is_alive)
    }
}

/// An entry with its place in the ledger.
#[derive(Debug, Clone)]
pub struct Line {
    file: String,
    /// The room that it is in.
    room: usize,
    /// The number of the process that takes care of it.
    pub pid: u32,
    /// The status that the transfer ended with, if it has ended.
    pub status: Option<i32>,
    /// What it says; `None` if it cannot be read: then it is a push of somebody who is dead.
    pub entry: Option<Entry>,
}

impl Line {
    /// Whether the transfer is running and may change the module.
    pub fn is_running_push(&self) -> bool {
        self.status.is_none() && self.is_alive() && self.writes()
    }

    /// Whether the transfer may change, or has changed, the module.
    pub fn writes(&self) -> bool {
        self.entry.as_ref().is_none_or(Entry::writes)
    }

    /// Whether it is a push of this boot of the machine, as far as it can be read.
    pub fn is_of_this_boot(&self) -> bool {
        self.entry.as_ref().is_some_and(|entry| entry.began_at.is_of_this_boot())
    }

    /// Whether anybody still takes care of it.
    pub fn is_alive(&self) -> bool {
        self.entry.as_ref().is_some_and(Entry::is_alive)
    }

    /// Who transfers, for a message.
    pub fn who(&self) -> String {
        self.entry.as_ref().map_or("an unknown client".to_string(), |entry| entry.client.identity())
    }
}

/// The ledger of a root, under its lock.
pub struct Ledger {
    /// In the snapshot root, and wherever else there may be entries.
    rooms: Vec<Room>,
    /// Where entries go that the root has no room for; made when they are needed.
    elsewhere: Vec<PathBuf>,
    _guard: Guard,
}

impl Ledger {
    /// Waits for the lock; its holders do nothing long. `elsewhere` are directories of this module alone.
    pub fn open(root: &SnapshotRoot, elsewhere: Vec<PathBuf>) -> Result<Self> {
        let own = root.room(ROOM)?;
        let guard = Guard::on_directory(own.place())?;
        let others = elsewhere.iter().filter_map(|path| Room::open(path).ok());
        let rooms = std::iter::once(own).chain(others).collect();
        Ok(Ledger { rooms, elsewhere, _guard: guard })
    }

    /// All entries. Names that are none of ours are left alone.
    pub fn lines(&self) -> Result<Vec<Line>> {
        lines_in(&self.rooms)
    }

    /// All entries as they are at this moment, for somebody who changes nothing; none if there is no ledger.
    pub fn look(root: &SnapshotRoot, elsewhere: &[PathBuf]) -> Result<Vec<Line>> {
        if !root.is_registered() {
            return Ok(Vec::new());
        }
        let own = match root.room(ROOM) {
            Ok(room) => Some(room),
            // A version that had none made the root.
            Err(error) if error.is_absence() => None,
            Err(error) => return Err(error),
        };
        let others = elsewhere.iter().filter_map(|path| Room::open(path).ok());
        lines_in(&own.into_iter().chain(others).collect::<Vec<_>>())
    }

    /// Removes what was being written when its writer died.
    pub fn clean_up(&self) -> Result<()> {
        for (index, room) in self.rooms.iter().enumerate() {
            // Under the lock nobody writes it any more.
            let names = names_in(room.place())?;
            names
                .iter()
                .filter(|name| name.ends_with(TEMPORARY))
                .try_for_each(|name| self.unlink(index, name))?;
        }
        Ok(())
    }

    /// The entry of the running transfer that process `pid` serves.
    pub fn running(&self, pid: u32) -> Result<Option<Line>> {
        let is_it = |line: &Line| {
            let owner = line.entry.as_ref().map(|entry| &entry.owner);
            line.status.is_none()
                && line.pid == pid
                && owner.is_some_and(|owner| owner.pid == pid && owner.is_alive())
        };
        Ok(self.lines()?.into_iter().find(is_it))
    }

    /// Enters a transfer; durably if it may write.
    pub fn begin(&self, entry: &Entry) -> Result<()> {
        let file = entry.owner.pid.to_string();
        let refusal = match enter(self.rooms[0].place(), &file, entry) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let enter_at = |path: &PathBuf| -> Result<()> {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|cause| Error::io("make", path, cause))?;
            enter(Room::open(path)?.place(), &file, entry)
        };
        // It may be there, though not durably; and two entries would be two pushes, of which one never ends.
        self.unlink(0, &file)?;
        self.clean_up()?;
        let is_entered = self.elsewhere.iter().any(|path| enter_at(path).is_ok());
        if is_entered { Ok(()) } else { Err(refusal) }
    }

    /// The transfer of `line` has ended, and from now on `owner`, this process, takes care of it.
    pub fn end(&self, line: &Line, status: i32, owner: Process) -> Result<Line> {
        let place = self.rooms[line.room].place();
        let pid = owner.pid;
        let entry = line.entry.clone().map(|entry| Entry { owner, worker: None, ..entry });
        let ended = Line { file: format!("{pid}.{status}"), pid, status: Some(status), entry, ..*line };
        let (from, to) = (c_name(&line.file), c_name(&ended.file));
        renameat(place.directory, from.as_c_str(), place.directory, to.as_c_str())
            .map_err(|cause| Error::io("rename", &place.path.join(&line.file), cause))?;
        if let Some(entry) = &ended.entry {
            let text = to_toml(entry, place)?;
            // On a full disk the old owner stands in it, who waits for this process.
            if let Err(error) = durable::write_before_syncfs(place, &ended.file, text.as_bytes()) {
                log::debug!("{error}");
            }
        }
        Ok(ended)
    }

    /// Enters a push that nobody had entered when it has ended already; `entry`'s owner takes care of it.
    pub fn enter_ended(&self, entry: Entry, status: i32) -> Result<Line> {
        let (place, pid) = (self.rooms[0].place(), entry.owner.pid);
        let file = format!("{pid}.{status}");
        enter(place, &file, &entry)?;
        Ok(Line { file, room: 0, pid, status: Some(status), entry: Some(entry) })
    }

    /// Strikes out an entry, be it there or not.
    pub fn strike(&self, line: &Line) -> Result<()> {
        self.unlink(line.room, &line.file)
    }

    fn unlink(&self, room: usize, file: &str) -> Result<()> {
        let place = self.rooms[room].place();
        match unlinkat(place.directory.as_fd(), c_name(file).as_c_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(cause) => Err(Error::io("remove", &place.path.join(file), cause)),
        }
    }
}

fn enter(place: Place, file: &str, entry: &Entry) -> Result<()> {
    let text = to_toml(entry, place)?;
    match entry.writes() {
        true => durable::write(place, file, &text),
        false => durable::write_before_syncfs(place, file, text.as_bytes()),
    }
}

fn lines_in(rooms: &[Room]) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (index, room) in rooms.iter().enumerate() {
        for file in names_in(room.place())? {
            let Some((pid, status)) = read_name(&file) else { continue };
            let entry = match durable::read(room.place(), &file) {
                // Somebody who does not hold the lock may see it go.
                Ok(None) => continue,
                Ok(Some(text)) => toml::from_str(&text).ok().filter(|entry: &Entry| entry.format <= FORMAT),
                // A crash may cut what was not synced.
                Err(Error::Damaged { .. }) => None,
                Err(error) => return Err(error),
            };
            lines.push(Line { file, room: index, pid, status, entry });
        }
    }
    Ok(lines)
}

/// `PID` or `PID.STATUS`.
fn read_name(file: &str) -> Option<(u32, Option<i32>)> {
    let (pid, status) = match file.split_once('.') {
        Some((pid, status)) => (pid, Some(status.parse().ok()?)),
        None => (file, None),
    };
    let (pid, status) = (pid.parse().ok()?, status);
    // `+1` and `01` parse, too, but are not what we write.
    let written = status.map_or(format!("{pid}"), |status: i32| format!("{pid}.{status}"));
    (written == file).then_some((pid, status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_a_process_and_a_status_or_none_of_ours() {
        assert_eq!(read_name("4711"), Some((4711, None)));
        assert_eq!(read_name("4711.0"), Some((4711, Some(0))));
        assert_eq!(read_name("4711.-1"), Some((4711, Some(-1))));
        for foreign in ["", ".", "x", "4711.", ".0", "+1", "01", "-1", "4711.0.0", "4711.00", "99999999999"] {
            assert_eq!(read_name(foreign), None, "{foreign}");
        }
    }
}
