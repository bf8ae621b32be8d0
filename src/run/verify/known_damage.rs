//! What a verification found, kept for a restore, and what a restore has to say of it.

use std::path::Path;

use crate::decide::comparison_gap::ComparisonGap;
use crate::decide::damage::{FileTime, InodeChange, applicable, changes};
use crate::decide::restore_paths::RestorePath;
use crate::engine::baseline::inspect_entry;
use crate::engine::index::changed_entries::changed_entries;
use crate::engine::inodes::{InodeName, walk_at};
use crate::run::restore_source::{SnapshotSource, name_of};
use crate::run::verify::recorded_files::{RecordedSnapshot, gap_of_walk};
use crate::run::verify::verified::{AlteredPath, LackingSnapshot, Verified, other_entries_text};
use crate::store::damage_file::{DamageList, DamagedFile, DifferingEntries};
use crate::store::dir::{OwnedDir, c_name};
use crate::store::inode_log::reader::InodeLog;
use crate::store::layout::{PRIVATE, Subdir};
use crate::store::record::Record;
use crate::store::root::SnapshotRoot;
use crate::store::state::State;
use crate::system::btrfs::Subvolume;
use crate::system::syscalls::stat_entry;
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
        inode: altered.inode,
        touched_ns: altered.changes.iter().find_map(InodeChange::touched_ns),
    };
    let entries = verified
        .lacking
        .iter()
        .map(|one| DifferingEntries { snapshot: one.name.clone(), text: one.text() });
    let files = verified.altered.iter().take(MAX_FILES).map(file).collect();
    let is_cut = verified.altered.len() > MAX_FILES;
    DamageList::write(root.private(), files, is_cut, entries.collect())
}

/// Adds what an earlier verification found and this one did not, unless it was accepted: later
/// changes in the same place hide the times that it was found by.
pub(crate) fn add_known(root: &SnapshotRoot, verified: &mut Verified) -> Result<()> {
    if State::read(root.private())?.damage.is_none() {
        return Ok(());
    }
    let list = match DamageList::read(root.private()) {
        Ok(list) => list.unwrap_or_default(),
        Err(error) => {
            log::warn!("what earlier verifications found cannot be read: {error}");
            return Ok(());
        }
    };
    let is_there = |name: &String| stat_entry(root.snapshots().directory, &c_name(name)).is_ok();
    for DifferingEntries { snapshot, text } in list.entries {
        let is_found = verified.lacking.iter().any(|one| one.name == snapshot);
        if !is_found && is_there(&snapshot) {
            verified.lacking.push(LackingSnapshot::known(snapshot, text));
        }
    }
    verified.lacking.sort_by(|one, other| one.name.cmp(&other.name));
    for DamagedFile { path, snapshots, inode, touched_ns, .. } in list.files {
        let (Some(touched_ns), Some(path)) = (touched_ns, unescape(&path)) else { continue };
        let is_found = |snapshot: &String| {
            let found = |one: &AlteredPath| one.path == path && one.snapshots.contains(snapshot);
            verified.altered.iter().any(found)
        };
        let mut snapshots = snapshots;
        snapshots.retain(|snapshot| !is_found(snapshot) && is_there(snapshot));
        if !snapshots.is_empty() {
            let changes = vec![InodeChange::WrittenInPlace(FileTime::of_ns(touched_ns))];
            verified.altered.push(AlteredPath { path, inode, changes, snapshots });
            verified.altered_inodes.insert(inode);
        }
    }
    verified.altered.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(())
}

fn change_text(changes: &[InodeChange]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Calls `note` with what is known to be wrong with the `paths` of a snapshot, and with what
/// differs there from the inode log. `entries`: how many a restore met, the snapshot's own
/// directory not counted; none if it may have missed some. Returns what could not be compared: all
/// of it if the program's own files cannot be read, as by an ordinary user.
pub(crate) fn of_restore(
    source: &SnapshotSource,
    paths: &[RestorePath],
    entries: Option<u64>,
    note: &mut dyn FnMut(Error),
) -> Vec<ComparisonGap> {
    // Nothing can be altered in a sealed snapshot, and nothing is recorded of its files.
    if source.is_of_cephfs() {
        return Vec::new();
    }
    if matches!(Subvolume::of(source.directory()), Ok(Some(found)) if found.is_read_only) {
        return Vec::new();
    }
    let private = match OwnedDir::open(&source.root_path.join(PRIVATE)) {
        Ok(private) => private,
        Err(error) => return vec![nothing_compared(&error)],
    };
    let known = KnownDamage::of(&private);
    let inodes = OwnedDir::open(&private.path.join(Subdir::Inodes.name()));
    let log = inodes.and_then(|inodes| InodeLog::read(inodes.dir()));
    let recorded = RecordedSnapshot::read(&private.path, &source.name, &log);
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
    let log = log.ok().flatten();
    let unrecorded = altered_since(source, log.as_ref(), paths, &mut |path, change| {
        if altered.iter().all(|file| file.path != path) {
            note(Error::AlteredInSnapshot { snapshot: source.name.clone(), path, change });
        }
    });
    let differs = match paths.iter().any(|path| path.names.is_empty()) {
        true => of_whole(recorded.record.as_ref(), &source.name, entries),
        false => of_directory(source, &known.entries, paths),
    };
    let mut of_walk = Vec::new();
    let differs = differs.or_else(|| other_entries(source, &recorded, paths, &mut of_walk));
    differs.map(Error::EntriesDiffer).into_iter().for_each(note);
    let has_directory = paths.iter().any(|path| source.has_directory(path));
    let of_entries = has_directory.then(|| recorded.files.gaps_of_entries());
    let failed = log.as_ref().and_then(|log| log.check().err());
    let of_files = recorded.files.gap_of_files().or_else(|| match (failed, unrecorded) {
        (Some(error), _) => Some(ComparisonGap::loss(error.to_string())),
        (None, 0) => None,
        (None, number) => Some(unrecorded_gap(number, recorded.files.is_in_log)),
    });
    let of_entries =
        of_entries.into_iter().flatten().chain(of_walk.into_iter().filter(|_| has_directory));
    known.unread.into_iter().chain(of_entries).chain(of_files).collect()
}

/// That the inode log does not have these many names of files. `is_lost`: it had some of that
/// snapshot.
fn unrecorded_gap(number: u64, is_lost: bool) -> ComparisonGap {
    let text = format!(
        "{} not in the inode log, as in a copy of a snapshot root, so altered ones are not found: \
         run `verify`, which records what it finds",
        match number {
            1 => "1 file is".to_string(),
            number => format!("{number} files are"),
        }
    );
    ComparisonGap { text, is_loss: is_lost }
}

/// That nothing is compared, since the program's own directory cannot be opened.
fn nothing_compared(error: &Error) -> ComparisonGap {
    if error.is_denied() {
        return ComparisonGap::known("an ordinary user cannot read what was recorded of it");
    }
    if error.is_not_found() {
        return ComparisonGap::known("nothing was recorded of it in its directory");
    }
    ComparisonGap::loss(format!("what was recorded of it cannot be read: {error}"))
}

/// What is known to be wrong with the snapshots of a root.
#[derive(Default)]
pub(crate) struct KnownDamage {
    files: Vec<DamagedFile>,
    /// More files were altered than are known by name.
    pub is_cut: bool,
    /// The snapshots that have fewer or more entries than recorded.
    entries: Vec<DifferingEntries>,
    /// Why it is not known what `verify` found.
    pub unread: Option<ComparisonGap>,
}

impl KnownDamage {
    /// The damage of the snapshots in a root; none if the program's own files cannot be read, as by
    /// an ordinary user.
    pub(crate) fn read(root_path: &Path) -> Self {
        let private = OwnedDir::open(&root_path.join(PRIVATE));
        private.map(|private| Self::of(&private)).unwrap_or_default()
    }

    fn of(private: &OwnedDir) -> Self {
        let unread = |error: Error| {
            let text = format!("what `verify` found in it cannot be read: {error}");
            KnownDamage { unread: Some(ComparisonGap::loss(text)), ..KnownDamage::default() }
        };
        let damage = match State::read(private.dir()) {
            Ok(state) => state.damage,
            Err(error) => return unread(error),
        };
        let Some(damage) = damage else { return KnownDamage::default() };
        let list = match DamageList::read(private.dir()) {
            Ok(list) => list.unwrap_or_default(),
            Err(error) => return unread(error),
        };
        let entries = list.entries;
        if damage.files == 0 {
            return KnownDamage { entries, ..KnownDamage::default() };
        }
        // Of damage that an earlier version found, the files are not known.
        let is_cut = list.is_cut || list.files.is_empty();
        KnownDamage { files: list.files, is_cut, entries, unread: None }
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
/// the last `verify` is found only so. Returns how many names of files the inode log does not have.
fn altered_since(
    source: &SnapshotSource,
    log: Option<&InodeLog>,
    paths: &[RestorePath],
    note: &mut dyn FnMut(String, String),
) -> u64 {
    let Some(log) = log else { return 0 };
    let position = log.position(&source.name).unwrap_or(0);
    let (mut found, mut unrecorded) = (Vec::new(), 0);
    for path in paths {
        let Ok(start) = source.start() else { return 0 };
        let names = path.names.iter().map(|name| name_of(name)).collect::<Result<Vec<_>>>();
        let Ok(names) = names else { continue };
        // The restore has told what cannot be read.
        let _ = walk_at(start, &names, &mut |name: &InodeName| {
            let Ok(inode) = inspect_entry(name.directory, name.name) else { return };
            let baselines = log.baselines(inode.number, inode.birth_ns);
            unrecorded += u64::from(baselines.is_empty());
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
    unrecorded
}

/// How the entries of a whole snapshot differ from its record.
fn of_whole(record: Option<&Record>, snapshot: &str, entries: Option<u64>) -> Option<String> {
    let recorded = record?.exact_entries()?;
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
/// Adds to `gaps` what could not be compared.
fn other_entries(
    source: &SnapshotSource,
    recorded: &RecordedSnapshot,
    paths: &[RestorePath],
    gaps: &mut Vec<ComparisonGap>,
) -> Option<String> {
    let index = recorded.index.as_ref()?;
    let record = recorded.record.as_ref();
    let counts = record.is_some_and(|record| record.exact_entries().is_some());
    let (mut directories, mut first) = (0, Vec::new());
    for path in paths {
        let names = path.names.iter().map(|name| name_of(name)).collect::<Result<Vec<_>>>().ok()?;
        let found = changed_entries(source.start().ok()?, &names, index, counts);
        directories += found.directories;
        gaps.extend(gap_of_walk(&found).filter(|gap| !gaps.contains(gap)));
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
