//! Looks at what there is to compare a snapshot with: its record, its directory index, the inode
//! log.

use std::io;
use std::path::Path;

use crate::decide::comparison_gap::{ComparisonGap, OwnFile, RecordedFiles};
use crate::engine::index::changed_entries::ChangedEntries;
use crate::engine::index::reader::DirectoryIndex;
use crate::run::verify::evidence::{CheckedSnapshot, Evidence};
use crate::run::verify::verified::{SnapshotGap, directory_text};
use crate::store::dir::OwnedDir;
use crate::store::index_file;
use crate::store::inode_log::reader::InodeLog;
use crate::store::layout::Subdir;
use crate::store::record::Record;
use crate::tell::counted;
use crate::tell::error::Result;

/// What was recorded of one snapshot, as far as it can be read.
pub(crate) struct RecordedSnapshot {
    pub(crate) record: Option<Record>,
    pub(crate) index: Option<DirectoryIndex>,
    pub(crate) files: RecordedFiles,
}

impl RecordedSnapshot {
    /// What the directory `private` of a root has of the snapshot `name`. `inode_log`: as it was
    /// read.
    pub(crate) fn read(private: &Path, name: &str, inode_log: &Result<Option<InodeLog>>) -> Self {
        let log_file = own_file(inode_log);
        Self::read_with(private, name, inode_log.as_ref().ok().and_then(Option::as_ref), log_file)
    }

    fn read_with(private: &Path, name: &str, log: Option<&InodeLog>, inode_log: OwnFile) -> Self {
        let open = |subdir: Subdir| OwnedDir::open(&private.join(subdir.name()));
        let record = open(Subdir::Records).and_then(|dir| Record::read(dir.dir(), name));
        let index = open(Subdir::Index).and_then(|dir| index_file::read(dir.dir(), name));
        let is_of_another_version = || {
            open(Subdir::Index).is_ok_and(|dir| index_file::is_of_another_version(dir.dir(), name))
        };
        let index_file = match &index {
            Err(_) if is_of_another_version() => OwnFile::OfAnotherVersion,
            index => own_file(index),
        };
        let record_file = own_file(&record);
        let record = record.ok().flatten();
        let files = RecordedFiles {
            is_adopted: record.as_ref().is_some_and(|record| record.adopted),
            has_index: record.as_ref().is_some_and(|record| record.has_index),
            record: record_file,
            index: index_file,
            inode_log,
            is_in_log: log.is_some_and(|log| log.position(name).is_some()),
            damaged_log_bytes: log.map_or(0, |log| log.lost_bytes),
        };
        RecordedSnapshot { record, index: index.ok().flatten(), files }
    }
}

/// What cannot be compared of the snapshots. Damage of the inode log is told once for all.
pub(crate) fn gaps(evidence: &Evidence) -> Vec<SnapshotGap> {
    let log = evidence.inode_log.as_ref();
    let of_snapshot = |snapshot: &CheckedSnapshot| {
        let name = &snapshot.name;
        let log_file = log.map_or(OwnFile::Missing, |_| OwnFile::Readable);
        let recorded =
            RecordedSnapshot::read_with(evidence.root.private().path, name, log, log_file);
        let files = RecordedFiles { damaged_log_bytes: 0, ..recorded.files };
        let of = |gap, is_of_entries| SnapshotGap { snapshot: name.clone(), gap, is_of_entries };
        let of_entries = files.gaps_of_entries().into_iter().map(|gap| of(gap, true));
        of_entries.chain(files.gap_of_files().map(|gap| of(gap, false))).collect::<Vec<_>>()
    };
    evidence.snapshots.iter().flat_map(of_snapshot).collect()
}

fn own_file<T>(read: &Result<Option<T>>) -> OwnFile {
    match read {
        Ok(Some(_)) => OwnFile::Readable,
        Ok(None) => OwnFile::Missing,
        Err(error) if error.is_not_found() => OwnFile::Missing,
        Err(error) => OwnFile::Unreadable(error.to_string()),
    }
}

/// What a comparison with the index could not compare.
pub(crate) fn gap_of_walk(found: &ChangedEntries) -> Option<ComparisonGap> {
    if found.is_copy {
        return Some(ComparisonGap::loss(
            "it is a copy: its directories are others than those of its index, so added, removed \
             or renamed files may not be found"
                .to_string(),
        ));
    }
    let first = match &found.first_failure {
        Some((path, cause)) => {
            format!(": cannot read {}: {}", directory_text(path), io::Error::from(*cause))
        }
        None => String::new(),
    };
    (found.unread > 0).then(|| {
        ComparisonGap::loss(format!(
            "its directory index is damaged, or directories cannot be read, in {}, so added, \
             removed or renamed files may not be found there{first}",
            counted(usize::try_from(found.unread).unwrap_or(usize::MAX), "place")
        ))
    })
}
