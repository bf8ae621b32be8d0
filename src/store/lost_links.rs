//! Notes that another program has removed entries of a retired snapshot, before this program
//! removes or recycles the rest. The links that were removed have moved the change times of files
//! in other snapshots, and nothing else explains that once the snapshot is gone.

use chrono::Utc;

use crate::decide::lacking::LostLinks;
use crate::decide::name::SnapshotName;
use crate::decide::vanished::VanishedSnapshot;
use crate::decide::zone::Zone;
use crate::engine::descent::DescentStart;
use crate::engine::index::changed_entries::changed_entries;
use crate::store::dir::{Dir, c_name};
use crate::store::index_file;
use crate::store::root::SnapshotRoot;
use crate::store::vanished::note_partly;
use crate::system::syscalls::open_directory;

/// Looks at the snapshots `names` in the directory `dir`, which are about to be removed and still
/// have their indexes.
pub(crate) fn note_before_removal(root: &SnapshotRoot, dir: Dir, names: &[&String]) {
    for name in names {
        let Some(index) = index_file::open(root, name) else { continue };
        let start = open_directory(dir.directory, &c_name(name))
            .and_then(|opened| DescentStart::root(opened, &dir.path.join(name)));
        let Ok(start) = start else { continue };
        note(root, name, changed_entries(start, &[], &index, false).last_change_ns);
    }
}

/// Notes that another program last changed entries of the snapshot `name` at that time, nanoseconds
/// since 1970.
pub(crate) fn note(root: &SnapshotRoot, name: &str, last_change_ns: Option<i64>) {
    let Some(last_change_ns) = last_change_ns else { return };
    // A snapshot with an index has a name of ours, whose time is in UTC.
    let Some(name) = SnapshotName::parse(name.as_bytes(), &Zone::utc()) else { return };
    let began_ns = name.time.timestamp_nanos_opt().unwrap_or(i64::MIN);
    let lost = LostLinks { began_ns, last_change_ns, has_others: true };
    if let Err(error) = note_partly(root, &[VanishedSnapshot::partly(&name.text, lost, Utc::now())])
    {
        log::warn!(
            "{}: another program has changed {}, and that cannot be noted, so `verify` may report \
             files of other snapshots: {error}",
            root.label(),
            name.text
        );
    }
}
