//! The ledger of transfers: who is writing to a module right now.
//!
//! pre-xfer enters a transfer as `transfers/PID` before it begins, and post-xfer turns that into `transfers/PID.STATUS`
//! when it has ended, until its snapshot is safe. Every look at the ledger and every change is made
//! under one short lock, which also guards the [gate](super::gate).
//!
//! An entry of a push is on disk before rsync writes anything: after a crash of the machine it tells
//! that the module is torn. All other changes need not be durable. An entry that comes back after a crash
//! belongs to a process of another boot, so it counts as one whose hook never ran, and that errs on the safe side.

use std::os::fd::AsFd;

use chrono::{DateTime, Utc};
use nix::errno::Errno;
use nix::fcntl::renameat;
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde::{Deserialize, Serialize};

use super::catalog::names_in;
use super::durable::{self, Place, TEMPORARY, c_name};
use super::lock::Guard;
use super::process::Process;
use super::record::{Client, FORMAT, to_toml};
use super::root::{Room, SnapshotRoot};
use crate::config::arguments::{Kind, Rewriting};
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
    /// When it was entered.
    pub began: DateTime<Utc>,
    /// What the client asked for, escaped: `RSYNC_REQUEST`.
    pub request: String,
    /// The options with which it rewrites files in place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewriting: Vec<Rewriting>,
    /// Who transfers.
    pub client: Client,
    /// The process that serves the connection and runs the hooks; once the transfer has ended, that of its post-xfer.
    pub owner: Process,
    /// The process that transfers: it goes on if somebody ends only the one that serves the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<Process>,
}

impl Entry {
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
    /// The number of the process that served the connection.
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
    room: Room,
    _guard: Guard,
}

impl Ledger {
    /// Waits for the lock; its holders do nothing long.
    pub fn open(root: &SnapshotRoot) -> Result<Self> {
        let room = root.room(ROOM)?;
        let guard = Guard::on_directory(room.place())?;
        Ok(Ledger { room, _guard: guard })
    }

    /// All entries. Names that are none of ours are left alone.
    pub fn lines(&self) -> Result<Vec<Line>> {
        lines_in(&self.room)
    }

    /// All entries as they are at this moment, for somebody who changes nothing; none if there is no ledger.
    pub fn look(root: &SnapshotRoot) -> Result<Vec<Line>> {
        if !root.is_registered() {
            return Ok(Vec::new());
        }
        match root.room(ROOM) {
            Ok(room) => lines_in(&room),
            // A version that had none made the root.
            Err(Error::Io { cause, .. }) if cause.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Removes what was being written when its writer died.
    pub fn clean_up(&self) -> Result<()> {
        let names = names_in(self.room.place())?;
        // Under the lock nobody writes it any more.
        names.iter().filter(|name| name.ends_with(TEMPORARY)).try_for_each(|name| self.unlink(name))
    }

    /// The entry of the running transfer that process `pid` serves.
    pub fn running(&self, pid: u32) -> Result<Option<Line>> {
        let file = pid.to_string();
        let entry =
            read(self.room.place(), &file)?.filter(|entry| entry.owner.pid == pid && entry.owner.is_alive());
        Ok(entry.map(|entry| Line { file, pid, status: None, entry: Some(entry) }))
    }

    /// Enters a transfer; durably if it may write.
    pub fn begin(&self, entry: &Entry) -> Result<()> {
        let place = self.room.place();
        let (file, text) = (entry.owner.pid.to_string(), to_toml(entry, place)?);
        match entry.writes() {
            true => durable::write(place, &file, &text),
            false => durable::write_before_syncfs(place, &file, text.as_bytes()),
        }
    }

    /// The transfer of `line` has ended, and from now on `owner` takes care of it.
    pub fn end(&self, line: &Line, status: i32, owner: Process) -> Result<Line> {
        let place = self.room.place();
        let entry = line.entry.clone().map(|entry| Entry { owner, worker: None, ..entry });
        let ended = Line { file: format!("{}.{status}", line.pid), status: Some(status), entry, ..*line };
        let text = ended.entry.as_ref().map(|entry| to_toml(entry, place)).transpose()?.unwrap_or_default();
        match durable::write_before_syncfs(place, &ended.file, text.as_bytes()) {
            Ok(()) => self.unlink(&line.file)?,
            // On a full disk there is room for a new name, and the old owner waits for this process.
            Err(error) if error.is_lack_of_space() => {
                let (from, to) = (c_name(&line.file), c_name(&ended.file));
                renameat(place.directory, from.as_c_str(), place.directory, to.as_c_str())
                    .map_err(|cause| Error::io("rename", &place.path.join(&line.file), cause))?;
            }
            Err(error) => return Err(error),
        }
        Ok(ended)
    }

    /// Strikes out an entry, be it there or not.
    pub fn strike(&self, line: &Line) -> Result<()> {
        self.unlink(&line.file)
    }

    fn unlink(&self, file: &str) -> Result<()> {
        let place = self.room.place();
        match unlinkat(place.directory.as_fd(), c_name(file).as_c_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(cause) => Err(Error::io("remove", &place.path.join(file), cause)),
        }
    }
}

fn lines_in(room: &Room) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for file in names_in(room.place())? {
        if let Some((pid, status)) = read_name(&file) {
            let entry = read(room.place(), &file)?;
            lines.push(Line { file, pid, status, entry });
        }
    }
    Ok(lines)
}

/// `None` if it is not there or cannot be understood: pre-xfer writes whole entries, but a crash may cut those
/// that were not synced.
fn read(place: Place, file: &str) -> Result<Option<Entry>> {
    match durable::read(place, file) {
        Ok(text) => {
            let entry: Option<Entry> = text.and_then(|text| toml::from_str(&text).ok());
            Ok(entry.filter(|entry| entry.format <= FORMAT))
        }
        Err(Error::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    }
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
