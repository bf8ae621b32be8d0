//! What a verification found, kept for a restore, and what a restore has to say of it.

use std::path::Path;

use crate::decide::damage::{InodeChange, applicable, changes};
use crate::decide::restore_paths::RestorePath;
use crate::engine::baseline::inspect_entry;
use crate::engine::index::changed_entries::changed_entries;
use crate::engine::inodes::{InodeName, walk_at};
use crate::run::restore_source::{SnapshotSource, name_of};
use crate::run::verify::verified::{AlteredPath, Verified, other_entries_text};
use crate::store::damage_file::{DamageList, DamagedFile, DifferingEntries};
use crate::store::dir::OwnedDir;
use crate::store::index_file;
use crate::store::inode_log::reader::InodeLog;
use crate::store::layout::{PRIVATE, Subdir};
use crate::store::record::Record;
use crate::store::root::SnapshotRoot;
use crate::store::state::State;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, unescape};

/// How many files are kept; of more, a restore says only that there are more.
const MAX_FILES: usize = 10_000;

/// Keeps what was found, before the state says that there is damage.
pub(crate) fn keep(root: &SnapshotRoot, verified: &Verified) -> Result<()> {
    if !verified.is_damaged() {
        return Ok(());
    }
    let file = |altered: &AlteredPath| DamagedFile {
        path: escape(&altered.path),
        change: change_text(&altered.changes),
        snapshots: altered.snapshots.clone(),
    };
    let entries = verified
        .lacking
        .iter()
        .map(|one| DifferingEntries { snapshot: one.name.clone(), text: one.text() });
    let files = verified.altered.iter().take(MAX_FILES).map(file).collect();
    let is_cut = verified.altered.len() > MAX_FILES;
    DamageList::write(root.private(), files, is_cut, entries.collect())
}

fn change_text(changes: &[InodeChange]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Calls `note` with what is known to be wrong with the `paths` of a snapshot, and with what
/// differs there from the inode log. `entries`: how many a restore met, the snapshot's own
/// directory not counted; none if it may have missed some. Nothing is known if the program's own
/// files cannot be read, as by an ordinary user.
pub(crate) fn of_restore(
    source: &SnapshotSource,
    paths: &[RestorePath],
    entries: Option<u64>,
    note: &mut dyn FnMut(Error),
) {
    let Ok(private) = OwnedDir::open(&source.root_path.join(PRIVATE)) else { return };
    let known = KnownDamage::of(&private);
    let is_restored = |file: &&DamagedFile| {
        let is_below = |path: &RestorePath| is_at_or_below(file, &path.names);
        file.snapshots.contains(&source.name) && paths.iter().any(is_below)
    };
    let altered: Vec<&DamagedFile> = known.files.iter().filter(is_restored).collect();
    for DamagedFile { path, change, .. } in &altered {
        let (path, change) = (path.clone(), change.clone());
        note(Error::AlteredInSnapshot { snapshot: source.name.clone(), path, change });
    }
    if known.is_cut {
        note(Error::OtherDamage(source.name.clone()));
    }
    altered_since(source, &private, paths, &mut |path, change| {
        if altered.iter().all(|file| file.path != path) {
            note(Error::AlteredInSnapshot { snapshot: source.name.clone(), path, change });
        }
    });
    let differs = match paths.iter().any(|path| path.names.is_empty()) {
        true => of_whole(&private, &source.name, entries),
        false => of_directory(source, &known.entries, paths),
    };
    let differs = differs.or_else(|| other_entries(source, &private, paths));
    differs.map(Error::EntriesDiffer).into_iter().for_each(note);
}

/// What is known to be wrong with the snapshots of a root.
#[derive(Default)]
pub(crate) struct KnownDamage {
    files: Vec<DamagedFile>,
    /// More files were altered than are known by name.
    pub is_cut: bool,
    /// The snapshots that have fewer or more entries than recorded.
    entries: Vec<DifferingEntries>,
}

impl KnownDamage {
    /// The damage of the snapshots in a root; none if the program's own files cannot be read, as by
    /// an ordinary user.
    pub(crate) fn read(root_path: &Path) -> Self {
        let private = OwnedDir::open(&root_path.join(PRIVATE));
        private.map(|private| Self::of(&private)).unwrap_or_default()
    }

    fn of(private: &OwnedDir) -> Self {
        let damage = State::read(private.dir()).ok().and_then(|state| state.damage);
        let Some(damage) = damage else { return KnownDamage::default() };
        let list = DamageList::read(private.dir()).unwrap_or_default();
        let entries = list.entries;
        if damage.files == 0 {
            return KnownDamage { entries, ..KnownDamage::default() };
        }
        // Of damage that an earlier version found, the files are not known.
        let is_cut = list.is_cut || list.files.is_empty();
        KnownDamage { files: list.files, is_cut, entries }
    }

    /// The files at or below a path that were altered.
    pub(crate) fn below(&self, names: &[Vec<u8>]) -> impl Iterator<Item = &DamagedFile> {
        self.files.iter().filter(move |file| is_at_or_below(file, names))
    }
}

fn is_at_or_below(file: &DamagedFile, names: &[Vec<u8>]) -> bool {
    let bytes = unescape(&file.path).unwrap_or_default();
    let own: Vec<&[u8]> = bytes.split(|byte| *byte == b'/').collect();
    names.len() <= own.len() && names.iter().zip(&own).all(|(one, other)| one == other)
}

/// Compares each file of the `paths` with what the inode log recorded of it for this snapshot, and
/// calls `note` with the escaped path and the change of each that differs. What was altered since
/// the last `verify` is found only so.
fn altered_since(
    source: &SnapshotSource,
    private: &OwnedDir,
    paths: &[RestorePath],
    note: &mut dyn FnMut(String, String),
) {
    let inodes = OwnedDir::open(&private.path.join(Subdir::Inodes.name()));
    let log = inodes.and_then(|inodes| InodeLog::read(inodes.dir()));
    let Ok(Some(log)) = log else { return };
    let Some(position) = log.position(&source.name) else { return };
    let mut found = Vec::new();
    for path in paths {
        let Ok(start) = source.start() else { return };
        let names = path.names.iter().map(|name| name_of(name)).collect::<Result<Vec<_>>>();
        let Ok(names) = names else { continue };
        // The restore has told what cannot be read.
        let _ = walk_at(start, &names, &mut |name: &InodeName| {
            let Ok(inode) = inspect_entry(name.directory, name.name) else { return };
            let baselines = log.baselines(inode.number, inode.birth_ns);
            let was = applicable(&baselines, position);
            let changes = was.map(|was| changes(&was.inode.attributes, &inode.attributes));
            let changes = changes.unwrap_or_default();
            if !changes.is_empty() {
                found.push((escape(&name.path()), change_text(&changes)));
            }
        });
    }
    // One that was retired meanwhile may have become another snapshot.
    if source.is_still_there() {
        found.into_iter().for_each(|(path, change)| note(path, change));
    }
}

/// How the entries of a whole snapshot differ from its record.
fn of_whole(private: &OwnedDir, snapshot: &str, entries: Option<u64>) -> Option<String> {
    let records = OwnedDir::open(&private.path.join(Subdir::Records.name())).ok()?;
    let recorded = Record::read(records.dir(), snapshot).ok().flatten()?.exact_entries()?;
    let (lacks, more) = (recorded.saturating_sub(entries?), entries?.saturating_sub(recorded));
    match (lacks, more) {
        (0, 0) => None,
        (0, _) if recorded == 0 => None,
        (0, more) => Some(format!(
            "{snapshot} has {more} more than the {recorded} entries that it had when it was taken, \
             since another program added them: run `verify` to see them"
        )),
        (lacks, _) => Some(format!(
            "{snapshot} lacks {lacks} of {recorded} entries that it had when it was taken, since \
             another program removed them: run `verify` to see them, and restore them from another \
             snapshot"
        )),
    }
}

/// Which directories at or below the `paths` have other entries than the snapshot's index says.
fn other_entries(
    source: &SnapshotSource,
    private: &OwnedDir,
    paths: &[RestorePath],
) -> Option<String> {
    let subdir = |subdir: Subdir| OwnedDir::open(&private.path.join(subdir.name())).ok();
    let index = index_file::open_in(subdir(Subdir::Index)?.dir(), &source.name)?;
    let record = subdir(Subdir::Records)
        .and_then(|records| Record::read(records.dir(), &source.name).ok().flatten());
    let counts = record.is_some_and(|record| record.exact_entries().is_some());
    let (mut directories, mut first) = (0, Vec::new());
    for path in paths {
        let names = path.names.iter().map(|name| name_of(name)).collect::<Result<Vec<_>>>().ok()?;
        let found = changed_entries(source.start().ok()?, &names, &index, counts);
        directories += found.directories;
        first.extend(found.first);
    }
    // One that was retired meanwhile may have become another snapshot.
    (directories > 0 && source.is_still_there()).then(|| {
        format!(
            "{}; compare it with another snapshot by `diff`",
            other_entries_text(&source.name, directories, &first)
        )
    })
}

/// What is known of the entries of a snapshot of which one of the `paths` is a directory.
fn of_directory(
    source: &SnapshotSource,
    known: &[DifferingEntries],
    paths: &[RestorePath],
) -> Option<String> {
    let differs = known.iter().find(|one| one.snapshot == source.name)?;
    let directory = paths.iter().find(|path| source.has_directory(path))?;
    Some(format!(
        "{}, and some of them may belong into {}: run `verify` to see them, and compare it with \
         another snapshot",
        differs.text,
        directory.text()
    ))
}
