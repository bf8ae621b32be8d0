//! What this machine remembers of a module apart from its snapshot root.
//!
//! When the backup disk is full, read-only or gone, nothing can be written to it; yet `check` must
//! know that the last run failed, and no later run may take a tree for complete that a failed
//! transfer tore. When the policy file is gone, the program must still find a module's snapshots.
//! So each module has a small file in `/var/lib/rsyncd-snapshot`, or if that cannot be written in
//! `/run/rsyncd-snapshot`; users without privileges have theirs below `HOME` and `XDG_RUNTIME_DIR`.
//! `RSYNCD_SNAPSHOT_STATE_DIRECTORY` and `RSYNCD_SNAPSHOT_RUNTIME_DIRECTORY` name other
//! directories. systemd's `STATE_DIRECTORY` is ignored: in a hook it would be that of rsync's
//! service.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::decide::push_history::EndedPush;
use crate::decide::torn_mark::TornMark;
use crate::store::dir::{self, Dir, remove_file};
use crate::store::format::to_toml;
use crate::store::lock::DirLock;
use crate::store::memory_name;
use crate::system::syscalls::is_privileged;
use crate::tell::PROGRAM;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape_path, unescape};

/// The variable that names another directory for what is remembered durably.
pub(crate) const STATE_DIRECTORY_VARIABLE: &str = "RSYNCD_SNAPSHOT_STATE_DIRECTORY";

/// The same for what is remembered until the machine is started again.
pub(crate) const RUNTIME_DIRECTORY_VARIABLE: &str = "RSYNCD_SNAPSHOT_RUNTIME_DIRECTORY";

/// What is remembered of one module directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleMemory {
    /// The module's directory, escaped.
    pub module_path: String,
    /// Its name, escaped, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// Its snapshot root, escaped, once it was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_root: Option<String>,
    /// Its earlier snapshot roots, escaped. Snapshots in them may go on sharing files with the
    /// module.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier_roots: Vec<String>,
    /// When this was written.
    pub updated: DateTime<Utc>,
    /// The last failure, unless a run has succeeded since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<RunFailure>,
    /// What the last run warned of.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Since when runs have found less free space than `free_space` asks for, although other
    /// modules on the disk could remove snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space_missing_since: Option<DateTime<Utc>>,
    /// A torn mark that could not be written into the root, as on a full disk, on which transfers
    /// fail, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub torn: Option<TornMark>,
    /// The last failed push, if that could not be written into the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_push: Option<EndedPush>,
}

/// A failed run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFailure {
    pub time: DateTime<Utc>,
    /// What the run was to do.
    pub work: RunKind,
    /// The error's message.
    pub message: String,
}

/// What a run was to do. A success at one kind does not end a failure at the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunKind {
    /// A run that was to make a snapshot.
    Snapshot,
    /// A rotation by hand.
    Rotation,
}

impl RunFailure {
    /// The failure of a run at this moment.
    pub fn now(work: RunKind, message: String) -> Self {
        RunFailure { time: Utc::now(), work, message }
    }
}

impl ModuleMemory {
    fn new(module_path: &Path) -> Self {
        ModuleMemory {
            module_path: escape_path(module_path),
            module: None,
            snapshot_root: None,
            earlier_roots: Vec::new(),
            updated: Utc::now(),
            failure: None,
            warnings: Vec::new(),
            space_missing_since: None,
            torn: None,
            failed_push: None,
        }
    }

    /// Notes that `root` is the module's snapshot root now.
    pub fn set_root(&mut self, root: &Path) {
        let root = escape_path(root);
        if let Some(before) = self.snapshot_root.replace(root.clone())
            && !self.earlier_roots.contains(&before)
        {
            self.earlier_roots.push(before);
        }
        self.earlier_roots.retain(|earlier| *earlier != root);
    }

    /// Every root that the module has had.
    fn roots(&self) -> impl Iterator<Item = PathBuf> {
        let all = self.snapshot_root.iter().chain(&self.earlier_roots);
        all.filter_map(|root| path_of(root))
    }

    fn read(directory: &Path, file: &str) -> Option<Self> {
        let opened = dir::open_followed(directory).ok()?;
        let text = dir::read(Dir { directory: opened.as_fd(), path: directory }, file).ok()??;
        toml::from_str(&text).ok()
    }

    fn changed(&self, change: &impl Fn(&mut ModuleMemory)) -> Self {
        let mut memory = self.clone();
        change(&mut memory);
        memory
    }
}

/// The memory of this machine: directories with a file for each module, in the order of preference.
#[derive(Debug, Clone)]
pub struct MachineMemory {
    /// They are made when they are needed.
    pub directories: Vec<PathBuf>,
    /// The files that a command has read, if it reads each only once.
    kept: Option<Arc<KeptFiles>>,
}

/// What files of the memory held, by their paths; none if there was no such file. To compare paths
/// as text takes far less time than to compare their parts.
type KeptFiles = Mutex<BTreeMap<OsString, Option<ModuleMemory>>>;

impl MachineMemory {
    /// The memory in these directories.
    pub fn new(directories: Vec<PathBuf>) -> Self {
        MachineMemory { directories, kept: None }
    }

    /// The same for a command that changes nothing and waits for no lock: it reads each file once,
    /// and asks for the memory of a module a dozen times.
    #[must_use]
    pub(crate) fn read_once(self) -> Self {
        MachineMemory { kept: Some(Arc::default()), ..self }
    }

    /// The directories by this process's user and environment.
    pub fn from_environment() -> Self {
        let named = |variable: &str| {
            let value = env::var_os(variable).map(PathBuf::from);
            value.filter(|path| path.is_absolute())
        };
        let (state, runtime) = match is_privileged() {
            true => {
                (Some(Path::new("/var/lib").join(PROGRAM)), Some(Path::new("/run").join(PROGRAM)))
            }
            false => {
                let state = named("XDG_STATE_HOME")
                    .or_else(|| named("HOME").map(|home| home.join(".local/state")));
                (
                    state.map(|path| path.join(PROGRAM)),
                    named("XDG_RUNTIME_DIR").map(|path| path.join(PROGRAM)),
                )
            }
        };
        let state = named(STATE_DIRECTORY_VARIABLE).or(state);
        let runtime = named(RUNTIME_DIRECTORY_VARIABLE).or(runtime);
        MachineMemory::new(state.into_iter().chain(runtime).collect())
    }

    /// The memory of the module at `module_path`: the newest, if several directories hold one.
    pub fn recall(&self, module_path: &Path) -> Option<ModuleMemory> {
        let files = [Some(file_name(module_path)), earlier_file_name(module_path)];
        let read = |directory: &PathBuf| {
            let found = files.iter().flatten().map(|file| self.read(directory, file));
            found.flatten().collect::<Vec<_>>()
        };
        let own = |memory: &ModuleMemory| memory.module_path == escape_path(module_path);
        self.directories.iter().flat_map(read).filter(own).max_by_key(|memory| memory.updated)
    }

    /// What a file holds, or held when this command has read it.
    fn read(&self, directory: &Path, file: &str) -> Option<ModuleMemory> {
        let Some(kept) = &self.kept else { return ModuleMemory::read(directory, file) };
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let read = || ModuleMemory::read(directory, file);
        kept.entry(directory.join(file).into_os_string()).or_insert_with(read).clone()
    }

    /// All memories, by file.
    fn files(&self) -> Vec<ModuleMemory> {
        let mut all = Vec::new();
        for directory in &self.directories {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let file = name.to_str().filter(|file| file.ends_with(".toml"));
                all.extend(file.and_then(|file| self.read(directory, file)));
            }
        }
        all
    }

    /// The memory of each module, by path: the newest, if several directories hold one.
    pub fn all(&self) -> Vec<ModuleMemory> {
        let mut all: BTreeMap<String, ModuleMemory> = BTreeMap::new();
        for memory in self.files() {
            let known = all.entry(memory.module_path.clone()).or_insert_with(|| memory.clone());
            if known.updated < memory.updated {
                *known = memory;
            }
        }
        all.into_values().collect()
    }

    /// Every root that any module has had, with the directory of that module.
    pub fn roots_and_modules(&self) -> Vec<(PathBuf, PathBuf)> {
        let pairs = |memory: &ModuleMemory| {
            let module = path_of(&memory.module_path)?;
            Some(memory.roots().map(|root| (root, module.clone())).collect::<Vec<_>>())
        };
        self.files().iter().filter_map(pairs).flatten().collect()
    }

    /// Every root of the module directories that are `module_path`, above it or below it.
    pub fn roots_reaching(&self, module_path: &Path) -> Vec<PathBuf> {
        self.roots_of(|path| path.starts_with(module_path) || module_path.starts_with(path))
    }

    /// Every root that another module directory than `module_path` has had.
    pub fn roots_of_others(&self, module_path: &Path) -> Vec<PathBuf> {
        self.roots_of(|path| path != module_path)
    }

    /// The roots of the selected module directories.
    fn roots_of(&self, is_selected: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
        let all = self.roots_and_modules().into_iter();
        all.filter(|(_, module)| is_selected(module)).map(|(root, _)| root).collect()
    }

    /// The files in which the module at `module_path` is remembered.
    pub fn files_of(&self, module_path: &Path) -> Vec<PathBuf> {
        let names = [Some(file_name(module_path)), earlier_file_name(module_path)];
        let paths = |directory: &PathBuf| {
            names.iter().flatten().map(|name| directory.join(name)).collect::<Vec<_>>()
        };
        self.directories.iter().flat_map(paths).filter(|path| path.is_file()).collect()
    }

    /// The directories for entries of the module's ledger when the root's disk is full;
    /// [`Ledger`](crate::store::ledger::Ledger) makes them when it needs them.
    pub fn ledgers(&self, module_path: &Path) -> Vec<PathBuf> {
        let dir = |directory: &PathBuf, name| directory.join("transfers").join(name);
        let name = memory_name::name(module_path);
        let present = self.directories.iter().map(|directory| dir(directory, name.clone()));
        // An entry of an earlier version may belong to another module whose path ends alike. Then a
        // push counts for both, which may make a snapshot partial and loses none.
        let earlier = memory_name::earlier_name(module_path);
        let earlier = earlier
            .iter()
            .flat_map(|name| self.directories.iter().map(|directory| dir(directory, name.clone())));
        present.chain(earlier.filter(|path| path.is_dir())).collect()
    }

    /// Changes what is remembered of the module at `module_path`; `change` may be called more
    /// than once, on what is remembered at that moment.
    ///
    /// # Errors
    /// If none of the directories can be written.
    pub fn change(&self, module_path: &Path, change: impl Fn(&mut ModuleMemory)) -> Result<()> {
        if self.kept.is_some() {
            // What was read before may have changed since.
            return MachineMemory::new(self.directories.clone()).change(module_path, change);
        }
        // Most runs change nothing here, and syncing the file would take longer than such a run.
        if self.recall(module_path).is_some_and(|before| before == before.changed(&change)) {
            return Ok(());
        }
        let mut result = Ok(());
        for directory in &self.directories {
            result = self.change_in(directory, module_path, &change);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Reads, changes and writes under one lock: another hook may have a torn mark to add.
    fn change_in(
        &self,
        directory: &Path,
        module_path: &Path,
        change: &impl Fn(&mut ModuleMemory),
    ) -> Result<()> {
        let failed = |cause| Error::io("make", directory, cause);
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let opened = dir::open_followed(directory).map_err(failed)?;
        let dir = Dir { directory: opened.as_fd(), path: directory };
        let _guard = DirLock::on_directory(dir)?;
        let before = self.recall(module_path).unwrap_or_else(|| ModuleMemory::new(module_path));
        let memory = ModuleMemory { updated: Utc::now(), ..before.changed(change) };
        dir::write(dir, &file_name(module_path), &to_toml(&memory, dir)?)?;
        // The memory is in the file of the new name now. The file of the old name is removed only
        // if it is this module's, because another module may have the same old name.
        match earlier_file_name(module_path) {
            Some(earlier)
                if ModuleMemory::read(directory, &earlier)
                    .is_some_and(|found| found.module_path == memory.module_path) =>
            {
                remove_file(dir, &earlier).map(drop)
            }
            _ => Ok(()),
        }
    }
}

pub(crate) fn path_of(escaped: &str) -> Option<PathBuf> {
    unescape(escaped).map(|bytes| PathBuf::from(OsString::from_vec(bytes)))
}

fn file_name(module_path: &Path) -> String {
    format!("{}.toml", memory_name::name(module_path))
}

/// The file in which an earlier version remembered the module, where that is another one.
fn earlier_file_name(module_path: &Path) -> Option<String> {
    memory_name::earlier_name(module_path).map(|name| format!("{name}.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two module directories whose long paths end alike.
    fn alike() -> [PathBuf; 2] {
        let end = "directory/".repeat(40);
        ["/srv/one/", "/srv/other/"].map(|start| PathBuf::from(format!("{start}{end}latest")))
    }

    fn dirs(directory: &Path) -> MachineMemory {
        MachineMemory::new(vec![directory.join("state"), directory.join("run")])
    }

    fn fail(memory: &mut ModuleMemory, message: &str) {
        memory.failure = Some(RunFailure::now(RunKind::Snapshot, message.to_string()));
    }

    fn told(dirs: &MachineMemory, path: &Path) -> Option<String> {
        dirs.recall(path)?.failure.map(|failure| failure.message)
    }

    #[test]
    fn modules_whose_paths_end_alike_are_remembered_apart() {
        let directory = tempfile::tempdir().expect("a directory");
        let dirs = dirs(directory.path());
        let [one, other] = alike();
        dirs.change(&one, |memory| fail(memory, "one")).expect("remembered");
        dirs.change(&other, |memory| fail(memory, "other")).expect("remembered");
        assert_eq!(told(&dirs, &one).as_deref(), Some("one"));
        assert_eq!(told(&dirs, &other).as_deref(), Some("other"));
        assert_ne!(dirs.ledgers(&one), dirs.ledgers(&other));
    }

    #[test]
    fn the_file_of_an_earlier_version_is_taken_over_by_its_own_module() {
        let directory = tempfile::tempdir().expect("a directory");
        let dirs = dirs(directory.path());
        let [one, other] = alike();
        dirs.change(&one, |memory| fail(memory, "one")).expect("remembered");
        let (new, old) = (file_name(&one), earlier_file_name(&one).expect("a long path"));
        let state = &dirs.directories[0];
        std::fs::rename(state.join(&new), state.join(&old)).expect("renamed");
        assert_eq!(told(&dirs, &one).as_deref(), Some("one"));
        assert_eq!(told(&dirs, &other), None);

        dirs.change(&other, |memory| fail(memory, "other")).expect("remembered");
        assert!(state.join(&old).exists(), "it is the other module's");
        assert_eq!(told(&dirs, &one).as_deref(), Some("one"));
        dirs.change(&one, |memory| fail(memory, "again")).expect("remembered");
        assert!(state.join(&new).exists() && !state.join(&old).exists());
        assert_eq!(told(&dirs, &one).as_deref(), Some("again"));
    }
    #[test]
    fn what_is_read_once_stays_and_a_change_reads_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let dirs = dirs(directory.path());
        let [one, other] = alike();
        dirs.change(&other, |memory| fail(memory, "before")).expect("remembered");
        let kept = dirs.clone().read_once();
        assert_eq!((told(&kept, &one), kept.all().len()), (None, 1));
        dirs.change(&one, |memory| fail(memory, "one")).expect("remembered");
        dirs.change(&other, |memory| fail(memory, "other")).expect("remembered");
        assert_eq!(told(&kept.clone(), &one), None);
        assert_eq!(told(&kept, &other).as_deref(), Some("before"));
        kept.change(&one, |memory| memory.module = Some("a".to_string())).expect("remembered");
        assert_eq!(told(&dirs, &one).as_deref(), Some("one"));
        assert_eq!(dirs.recall(&one).and_then(|memory| memory.module).as_deref(), Some("a"));
    }
}
