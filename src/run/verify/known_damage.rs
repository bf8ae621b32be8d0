//! What a verification found, kept for a restore, and what a restore has to say of it.

use std::path::Path;

use crate::decide::restore_paths::RestorePath;
use crate::run::verify::verified::{AlteredPath, Verified};
use crate::store::damage_file::{DamageList, DamagedFile};
use crate::store::dir::OwnedDir;
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
    if verified.altered.is_empty() {
        return Ok(());
    }
    let file = |altered: &AlteredPath| DamagedFile {
        path: escape(&altered.path),
        change: altered.changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        snapshots: altered.snapshots.clone(),
    };
    let files = verified.altered.iter().take(MAX_FILES).map(file).collect();
    DamageList::write(root.private(), files, verified.altered.len() > MAX_FILES)
}

/// What is known to be wrong with the `paths` of a snapshot. `entries`: how many a restore met, the
/// snapshot's own directory not counted; none if it may have missed some. Empty if the program's
/// own files cannot be read, as by an ordinary user.
pub(crate) fn of_restore(
    root_path: &Path,
    snapshot: &str,
    paths: &[RestorePath],
    entries: Option<u64>,
) -> Vec<Error> {
    let Ok(private) = OwnedDir::open(&root_path.join(PRIVATE)) else { return Vec::new() };
    let altered = altered(&private, snapshot, paths).into_iter();
    altered.chain(lack(&private, snapshot, paths, entries)).collect()
}

fn altered(private: &OwnedDir, snapshot: &str, paths: &[RestorePath]) -> Vec<Error> {
    let known = KnownDamage::of(private);
    let is_restored = |file: &&DamagedFile| {
        let is_below = |path: &RestorePath| is_at_or_below(file, &path.names);
        file.snapshots.iter().any(|name| name == snapshot) && paths.iter().any(is_below)
    };
    let error = |file: &DamagedFile| Error::AlteredInSnapshot {
        snapshot: snapshot.to_string(),
        path: file.path.clone(),
        change: file.change.clone(),
    };
    let more = known.is_cut.then(|| Error::OtherDamage(snapshot.to_string()));
    known.files.iter().filter(is_restored).map(error).chain(more).collect()
}

/// The files that are known to be altered.
#[derive(Default)]
pub(crate) struct KnownDamage {
    files: Vec<DamagedFile>,
    /// More files were altered than are known by name.
    pub is_cut: bool,
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
        if damage.is_none_or(|damage| damage.files == 0) {
            return KnownDamage::default();
        }
        match DamageList::read(private.dir()) {
            Some(list) => KnownDamage { files: list.files, is_cut: list.is_cut },
            None => KnownDamage { files: Vec::new(), is_cut: true },
        }
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

fn lack(
    private: &OwnedDir,
    snapshot: &str,
    paths: &[RestorePath],
    entries: Option<u64>,
) -> Option<Error> {
    let is_whole = paths.iter().any(|path| path.names.is_empty());
    let records = OwnedDir::open(&private.path.join(Subdir::Records.name())).ok()?;
    let record = Record::read(records.dir(), snapshot).ok().flatten()?;
    let is_exact = is_whole && !record.adopted && record.vanished == 0;
    let lacks = record.entries.saturating_sub(entries?);
    (is_exact && lacks > 0).then(|| Error::Lacking {
        snapshot: snapshot.to_string(),
        lacks,
        entries: record.entries,
    })
}
