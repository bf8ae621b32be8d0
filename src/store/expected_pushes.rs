//! Since when pushes are expected of modules and clients that have never pushed: `expected.toml` in
//! this machine's memory.
//!
//! `check` has to tell a client that never came from a module that is new, and it may write
//! nothing. So `snapshot --all`, which the timer runs, notes here when it first saw a module or a
//! client in the configuration, and drops what is no longer there.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::store::dir::{self, Dir};
use crate::store::format::{self, FORMAT, to_toml};
use crate::store::lock::DirLock;
use crate::store::memory::MachineMemory;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path};

const FILE: &str = "expected.toml";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ExpectedFile {
    format: u32,
    #[serde(default, rename = "expected", skip_serializing_if = "Vec::is_empty")]
    all: Vec<ExpectedPush>,
}

/// A module, or a client of one, that is to push.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ExpectedPush {
    /// The file of `rsyncd.conf` that the module's header is in, escaped.
    conf: String,
    /// The module's name, escaped.
    module: String,
    /// The client's name in the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    /// When it was first seen.
    since: DateTime<Utc>,
}

impl ExpectedPush {
    /// A module, or a client of it, as of `now`.
    pub(crate) fn new(
        conf: &Path,
        module: &[u8],
        client: Option<&str>,
        now: DateTime<Utc>,
    ) -> Self {
        let (conf, module) = (escape_path(conf), escape(module));
        ExpectedPush { conf, module, client: client.map(str::to_string), since: now }
    }

    fn is_same(&self, other: &ExpectedPush) -> bool {
        (&self.conf, &self.module, &self.client) == (&other.conf, &other.module, &other.client)
    }
}

/// The file of `rsyncd.conf`, the module, and its client if it is about one.
type Expected = (String, String, Option<String>);

/// What is noted, for a command that asks about many modules: the file has an entry for each of
/// them, so it is read only once, when it is first needed.
pub(crate) struct NotedPushes<'a> {
    memory: &'a MachineMemory,
    since: OnceCell<BTreeMap<Expected, DateTime<Utc>>>,
}

impl<'a> NotedPushes<'a> {
    /// What this memory holds.
    pub(crate) fn of(memory: &'a MachineMemory) -> Self {
        NotedPushes { memory, since: OnceCell::new() }
    }

    /// Since when a push of the module, or of this client of it, is expected; `None` if that was
    /// not noted.
    pub(crate) fn since(
        &self,
        conf: &Path,
        module: &[u8],
        client: Option<&str>,
    ) -> Option<DateTime<Utc>> {
        let wanted = (escape_path(conf), escape(module), client.map(str::to_string));
        self.since.get_or_init(|| read_all(self.memory)).get(&wanted).copied()
    }
}

/// The earliest time of each, if several directories hold one.
fn read_all(memory: &MachineMemory) -> BTreeMap<Expected, DateTime<Utc>> {
    let files = memory.directories.iter().filter_map(|directory| read_at(directory).ok().flatten());
    let mut all = BTreeMap::new();
    for ExpectedPush { conf, module, client, since } in files.flat_map(|file| file.all) {
        let earliest = all.entry((conf, module, client)).or_insert(since);
        *earliest = since.min(*earliest);
    }
    all
}

/// Notes what is expected now, in the first directory of the memory that can be written. Entries
/// of the same files of rsyncd.conf that are no longer expected are dropped.
///
/// # Errors
/// If no directory can be written, or a newer version has written the file.
pub(crate) fn note(memory: &MachineMemory, expected: &[ExpectedPush]) -> Result<()> {
    let mut result = Ok(());
    for directory in &memory.directories {
        result = note_in(directory, expected);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn note_in(directory: &PathBuf, expected: &[ExpectedPush]) -> Result<()> {
    if read_at(directory)?.unwrap_or_default().with(expected).is_none() {
        return Ok(());
    }
    let failed = |cause| Error::io("make", directory, cause);
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let opened = dir::open_followed(directory).map_err(failed)?;
    let dir = Dir { directory: opened.as_fd(), path: directory };
    let _guard = DirLock::on_directory(dir)?;
    match read_at(directory)?.unwrap_or_default().with(expected) {
        Some(changed) => dir::write(dir, FILE, &to_toml(&changed, dir)?),
        None => Ok(()),
    }
}

/// A file that cannot be understood counts as none; one of a newer version is an error.
fn read_at(directory: &Path) -> Result<Option<ExpectedFile>> {
    let Ok(opened) = dir::open_followed(directory) else { return Ok(None) };
    let dir = Dir { directory: opened.as_fd(), path: directory };
    match dir::read(dir, FILE)?.map(|text| format::read(&directory.join(FILE), &text)).transpose() {
        Err(Error::Damaged { .. }) => Ok(None),
        read => read,
    }
}

impl ExpectedFile {
    /// The file with what is expected now; `None` if that changes nothing.
    fn with(&self, expected: &[ExpectedPush]) -> Option<Self> {
        let is_of_other_file =
            |known: &&ExpectedPush| expected.iter().all(|one| one.conf != known.conf);
        let mut all: Vec<ExpectedPush> =
            self.all.iter().filter(is_of_other_file).cloned().collect();
        for one in expected {
            let known = self.all.iter().find(|known| known.is_same(one));
            all.push(known.unwrap_or(one).clone());
        }
        all.sort();
        let changed = ExpectedFile { format: FORMAT, all };
        (changed.all != self.all).then_some(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).expect("a time")
    }

    fn one(conf: &str, module: &str, client: Option<&str>, second: i64) -> ExpectedPush {
        ExpectedPush::new(Path::new(conf), module.as_bytes(), client, at(second))
    }

    #[test]
    fn the_first_time_is_kept_until_the_module_is_taken_out() {
        let directory = tempfile::tempdir().expect("a directory");
        let memory = MachineMemory::new(vec![directory.path().join("state")]);
        let found = |module: &str, client| {
            NotedPushes::of(&memory).since(Path::new("/a"), module.as_bytes(), client)
        };
        assert_eq!(found("laptop", None), None);
        note(&memory, &[one("/a", "laptop", None, 1), one("/a", "laptop", Some("anna"), 1)])
            .expect("noted");
        note(&memory, &[one("/b", "laptop", None, 2)]).expect("another rsyncd.conf");
        let all = [one("/a", "laptop", None, 5), one("/a", "server", None, 5)];
        note(&memory, &all).expect("noted");
        assert_eq!(found("laptop", None), Some(at(1)));
        assert_eq!(found("laptop", Some("anna")), None, "it was taken out");
        assert_eq!(found("server", None), Some(at(5)));
        let noted = NotedPushes::of(&memory);
        assert_eq!(noted.since(Path::new("/b"), b"laptop", None), Some(at(2)));
    }

    #[test]
    fn what_does_not_change_is_not_written_and_a_newer_file_is_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let memory = MachineMemory::new(vec![directory.path().to_path_buf()]);
        let file = directory.path().join(FILE);
        note(&memory, &[one("/a", "laptop", None, 1)]).expect("noted");
        let inode =
            |path: &Path| std::os::unix::fs::MetadataExt::ino(&path.metadata().expect("it"));
        let before = inode(&file);
        note(&memory, &[one("/a", "laptop", None, 9)]).expect("noted");
        assert_eq!(inode(&file), before);
        let newer = "format = 2\nnew = true\n";
        std::fs::write(&file, newer).expect("written");
        assert!(note(&memory, &[one("/a", "x", None, 9)]).is_err());
        assert_eq!(std::fs::read_to_string(&file).expect("it"), newer);
        std::fs::write(&file, "%").expect("written");
        note(&memory, &[one("/a", "x", None, 9)]).expect("a damaged file is replaced");
        assert_eq!(NotedPushes::of(&memory).since(Path::new("/a"), b"x", None), Some(at(9)));
    }
}
