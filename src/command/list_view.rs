//! The documented JSON of `list`. Its text is in [`list_text`](crate::command::list_text).

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::decide::client::Client;
use crate::decide::duration_text::roughly;
use crate::decide::grade::Grade;
use crate::decide::snapshot::Snapshot;
use crate::decide::snapshot_size::{SnapshotSize, size_now};
use crate::decide::vanished::VanishedSnapshot;
use crate::decide::zone::Zone;
use crate::module::target::Target;
use crate::store::record::Record;
use crate::store::root::SnapshotRoot;
use crate::store::sizes_file::CountedSizes;
use crate::store::snapshots::ListedSnapshot;
use crate::tell::escape::{escape, escape_path};

/// A time as RFC 3339 in UTC, to the second.
pub(crate) fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// What a clock on the wall shows at `time`: weekday, day, hour and minute. None where clocks show
/// UTC, as names do.
pub(crate) fn local_time(zone: &Zone, time: DateTime<Utc>) -> Option<String> {
    let is_other = zone.offset_seconds(time) != 0;
    is_other.then(|| zone.to_local(time).format("%a %d %H:%M").to_string())
}

/// A snapshot that another program than this one moved or removed.
#[derive(Debug, Serialize)]
pub(crate) struct VanishedView {
    name: String,
    time: String,
    last_seen: String,
    noticed: String,
}

impl VanishedView {
    pub(crate) fn new(gone: &VanishedSnapshot) -> Self {
        VanishedView {
            name: escape(gone.name.as_bytes()),
            time: rfc3339(gone.taken),
            last_seen: rfc3339(gone.last_seen),
            noticed: rfc3339(gone.noticed),
        }
    }
}

/// The word for snapshots without a record of ours: another program made them, or they were away.
pub(crate) const ADOPTED: &str = "adopted";

/// What `list` prints for one module.
#[derive(Debug, Serialize)]
pub(crate) struct ListView {
    module: Option<String>,
    module_path: String,
    pub(crate) snapshot_root: String,
    pub(crate) snapshots: Vec<ListedSnapshotView>,
    pub vanished: Vec<VanishedView>,
    pub pins_without_snapshot: Vec<String>,
    /// Lines below those of the snapshots.
    #[serde(skip)]
    pub(crate) notes: Vec<String>,
    /// What `--sizes` has counted; none if it never did.
    #[serde(flatten)]
    pub(crate) sizes: Option<SizesView>,
    #[serde(skip)]
    pub(crate) counted_ago: Option<String>,
    pub(crate) free_bytes: Option<u64>,
    pub(crate) disk_bytes: Option<u64>,
}

/// What the snapshots take together, as counted at some time.
#[derive(Debug, Serialize)]
pub(crate) struct SizesView {
    sizes_counted: String,
    pub(crate) total_bytes: Option<u64>,
    pub(crate) history_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ListedSnapshotView {
    pub(crate) name: String,
    pub(crate) time: String,
    pub(crate) grade: Grade,
    pub(crate) origin: &'static str,
    pub(crate) verified_until: String,
    status: Option<i32>,
    pub(crate) client: Option<Client>,
    pub(crate) entries: Option<u64>,
    pub(crate) added: Option<u64>,
    pub(crate) changed: Option<u64>,
    pub(crate) removed: Option<u64>,
    /// Size of the files that no earlier snapshot has.
    pub(crate) new_bytes: Option<u64>,
    size_bytes: Option<u64>,
    alone_bytes: Option<u64>,
    /// Whether `alone_bytes` is exact; otherwise it is a lower bound.
    alone_is_exact: Option<bool>,
    #[serde(skip)]
    pub(crate) size: Option<SnapshotSize>,
    #[serde(skip)]
    pub(crate) local_time: Option<String>,
    duration_seconds: Option<f64>,
    pub(crate) copies: u64,
    skipped_mounts: Vec<String>,
    temporaries: Option<u64>,
    pub(crate) pinned: Option<String>,
    /// Why a partial snapshot is not complete; `None` for one that an earlier version made.
    pub(crate) because: Option<String>,
    /// Why the snapshot's date is not believed.
    pub(crate) undated: Option<String>,
    /// Who reads the snapshot under a lease, and since when.
    reader: Option<String>,
    read_since: Option<String>,
    #[serde(skip)]
    pub(crate) read: Option<String>,
    #[serde(skip)]
    pub(crate) age: String,
}

impl ListView {
    /// The snapshots of `target` as of `now`. `dated` are these snapshots in the order of `items`,
    /// with the dates that are not believed.
    pub(crate) fn new(
        target: &Target,
        items: &[ListedSnapshot],
        dated: &[Snapshot],
        now: DateTime<Utc>,
    ) -> Self {
        ListView {
            module: target.name.as_deref().map(escape),
            module_path: escape_path(&target.module_path),
            snapshot_root: escape_path(&target.root_path),
            snapshots: items
                .iter()
                .zip(dated)
                .map(|(item, dated)| {
                    ListedSnapshotView::new(item, dated, &target.policy.time_zone, now)
                })
                .collect(),
            vanished: Vec::new(),
            pins_without_snapshot: Vec::new(),
            notes: Vec::new(),
            sizes: None,
            counted_ago: None,
            free_bytes: None,
            disk_bytes: None,
        }
    }

    /// Adds the free space of the root's file system.
    pub(crate) fn add_disk(&mut self, root: &SnapshotRoot) {
        if let Ok(facts) = rustix::fs::fstatvfs(root.directory()) {
            self.free_bytes = Some(facts.f_bavail.saturating_mul(facts.f_frsize));
            self.disk_bytes = Some(facts.f_blocks.saturating_mul(facts.f_frsize));
        }
    }

    /// Adds what was counted, as far as it still tells how things are. `trees`: the names of all
    /// snapshots, the retired ones too, oldest first.
    pub(crate) fn add_sizes(&mut self, sizes: &CountedSizes, trees: &[&str], now: DateTime<Utc>) {
        let newest = self.snapshots.last().map(|item| item.name.clone());
        for item in &mut self.snapshots {
            let Some(counted) = sizes.snapshots.iter().find(|one| one.name == item.name) else {
                continue;
            };
            let size = size_now(counted, trees, newest.as_deref());
            item.size = Some(size);
            item.size_bytes = Some(size.size_bytes);
            item.alone_bytes = size.alone_bytes;
            item.alone_is_exact = size.alone_bytes.map(|_| size.is_exact);
        }
        self.counted_ago = Some(roughly(now - sizes.time));
        self.sizes = Some(SizesView {
            sizes_counted: rfc3339(sizes.time),
            total_bytes: sizes.total_bytes,
            history_bytes: sizes.history_bytes,
        });
    }
}

impl ListedSnapshotView {
    fn new(item: &ListedSnapshot, dated: &Snapshot, zone: &Zone, now: DateTime<Utc>) -> Self {
        let record = item.record.as_ref();
        let made = record.filter(|record| !record.adopted);
        ListedSnapshotView {
            name: item.name.text.clone(),
            time: rfc3339(item.name.time),
            grade: item.name.grade,
            origin: if made.is_some() { "recorded" } else { ADOPTED },
            verified_until: rfc3339(item.snapshot().verified_until),
            status: made.and_then(|record| record.status),
            client: made.and_then(|record| record.client.clone()),
            entries: made.map(|record| record.entries),
            added: made.map(|record| record.added),
            changed: made.map(|record| record.changed),
            removed: made.map(|record| record.removed),
            new_bytes: made.and_then(|record| record.new_bytes),
            size_bytes: None,
            alone_bytes: None,
            alone_is_exact: None,
            size: None,
            local_time: local_time(zone, item.name.time),
            duration_seconds: made.map(|record| record.duration_seconds),
            copies: made.map_or(0, Record::copied_names),
            skipped_mounts: made.map(|record| record.skipped_mounts.clone()).unwrap_or_default(),
            temporaries: made.map(|record| record.temporaries),
            pinned: item.pin.as_ref().map(|pin| pin.reason.clone()),
            because: made
                .filter(|_| item.name.grade == Grade::Partial)
                .and_then(|record| record.because.as_ref().map(ToString::to_string)),
            undated: dated.undated.map(|why| why.to_string()),
            reader: item.reader.as_ref().map(|reader| reader.name.clone()),
            read_since: item.reader.as_ref().map(|reader| rfc3339(reader.since)),
            read: item.reader.as_ref().map(ToString::to_string),
            age: roughly(now - item.name.time),
        }
    }
}
