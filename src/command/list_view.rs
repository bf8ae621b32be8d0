//! The documented JSON of `rotate` and `list`, and their text; `plan` has its own
//! ([`plan_view`](crate::command::plan_view)).

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::decide::client::Client;
use crate::decide::duration_text::roughly;
use crate::decide::grade::Grade;
use crate::decide::snapshot::Snapshot;
use crate::decide::snapshot_reason::{SnapshotReason, pause_line};
use crate::decide::snapshot_verdict::{Decision, SnapshotVerdict};
use crate::decide::vanished::VanishedSnapshot;
use crate::module::target::Target;
use crate::store::record::Record;
use crate::store::snapshots::ListedSnapshot;
use crate::tell::counted;
use crate::tell::escape::{escape, escape_path};
use crate::tell::table::TextTable;

/// A time as RFC 3339 in UTC, to the second.
pub(crate) fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// What `rotate` prints for one module.
#[derive(Debug, Serialize)]
pub(crate) struct DecisionView {
    module: Option<String>,
    snapshot_root: String,
    pause: Option<String>,
    deferred: usize,
    snapshots: Vec<VerdictView>,
}

#[derive(Debug, Serialize)]
struct VerdictView {
    name: String,
    time: String,
    grade: Grade,
    keep: bool,
    reasons: Vec<String>,
    #[serde(skip)]
    brief_reasons: Vec<String>,
}

impl DecisionView {
    /// The decision on the snapshots of `target`.
    pub(crate) fn new(target: &Target, decision: &Decision) -> Self {
        let view = |verdict: &SnapshotVerdict| VerdictView {
            name: verdict.snapshot.name.clone(),
            time: rfc3339(verdict.snapshot.time),
            grade: verdict.snapshot.grade,
            keep: verdict.keep,
            reasons: verdict.reasons.iter().map(ToString::to_string).collect(),
            brief_reasons: verdict
                .reasons
                .iter()
                .map(SnapshotReason::brief)
                .chain(verdict.reader_note())
                .collect(),
        };
        DecisionView {
            module: target.name.as_deref().map(escape),
            snapshot_root: escape_path(&target.root_path),
            pause: decision.pause.as_ref().map(ToString::to_string),
            deferred: decision.deferred,
            snapshots: decision.verdicts.iter().map(view).collect(),
        }
    }

    /// The text for a terminal.
    pub(crate) fn to_text(&self, label: &str) -> String {
        let mut table = TextTable::new(&["SNAPSHOT", "", "BECAUSE"]);
        for verdict in &self.snapshots {
            let word = if verdict.keep { "keep" } else { "expired" };
            table.push(vec![
                verdict.name.clone(),
                word.to_string(),
                verdict.brief_reasons.join("; "),
            ]);
        }
        let expired = self.snapshots.iter().filter(|verdict| !verdict.keep).count();
        let kept = self.snapshots.len() - expired;
        let mut text =
            format!("{label}: {kept} kept, {expired} expired, in {}\n", self.snapshot_root);
        if let Some(pause) = &self.pause {
            text += &(pause_line(pause, expired) + "\n");
        }
        if self.snapshots.is_empty() { text } else { text + &table.to_text() }
    }
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
const ADOPTED: &str = "adopted";

/// What `list` prints for one module.
#[derive(Debug, Serialize)]
pub(crate) struct ListView {
    module: Option<String>,
    module_path: String,
    snapshot_root: String,
    snapshots: Vec<ListedSnapshotView>,
    pub vanished: Vec<VanishedView>,
}

#[derive(Debug, Serialize)]
struct ListedSnapshotView {
    name: String,
    time: String,
    grade: Grade,
    origin: &'static str,
    verified_until: String,
    status: Option<i32>,
    client: Option<Client>,
    entries: Option<u64>,
    added: Option<u64>,
    changed: Option<u64>,
    removed: Option<u64>,
    duration_seconds: Option<f64>,
    copies: u64,
    skipped_mounts: Vec<String>,
    temporaries: Option<u64>,
    pinned: Option<String>,
    /// Why a partial snapshot is not complete; `None` for one that an earlier version made.
    because: Option<String>,
    /// Why the snapshot's date is not believed.
    undated: Option<String>,
    /// Who reads the snapshot under a lease, and since when.
    reader: Option<String>,
    read_since: Option<String>,
    #[serde(skip)]
    read: Option<String>,
    #[serde(skip)]
    age: String,
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
                .map(|(item, dated)| ListedSnapshotView::new(item, dated, now))
                .collect(),
            vanished: Vec::new(),
        }
    }

    /// The text for a terminal.
    pub(crate) fn to_text(&self, label: &str) -> String {
        let mut text = format!(
            "{label}: {} in {}\n",
            counted(self.snapshots.len(), "snapshot"),
            self.snapshot_root
        );
        // Few modules have copies, so the column is left out without any.
        let has_copies = self.snapshots.iter().any(|item| item.copies > 0);
        let copies_title = if has_copies { Some("COPIES") } else { None };
        let titles = ["SNAPSHOT", "AGE", "GRADE", "ENTRIES", "ADDED", "CHANGED", "REMOVED"];
        let more_titles = ["UNCHANGED UNTIL", "CLIENT", "PINNED"];
        let titles: Vec<&str> = titles.into_iter().chain(copies_title).chain(more_titles).collect();
        let mut table = TextTable::new(&titles);
        for item in &self.snapshots {
            let count =
                |count: Option<u64>| count.map_or("-".to_string(), |count| count.to_string());
            let unchanged =
                if item.verified_until == item.time { "-" } else { &item.verified_until };
            let mut row = vec![
                item.name.clone(),
                item.age.clone(),
                match (item.origin, item.grade) {
                    (ADOPTED, Grade::Complete) => format!("complete, {ADOPTED}"),
                    (_, grade) => grade.to_string(),
                },
                count(item.entries),
                count(item.added),
                count(item.changed),
                count(item.removed),
            ];
            row.extend(has_copies.then(|| item.copies.to_string()));
            row.extend([
                unchanged.to_string(),
                item.client.as_ref().map_or("-".to_string(), client_text),
                item.pinned
                    .as_deref()
                    .map_or("", |reason| if reason.is_empty() { "pinned" } else { reason })
                    .to_string(),
            ]);
            table.push(row);
        }
        if !self.snapshots.is_empty() {
            text += &table.to_text();
        }
        for item in &self.snapshots {
            for note in item.because.iter().chain(&item.undated).chain(&item.read) {
                text += &format!("{}: {note}\n", item.name);
            }
        }
        text
    }
}

impl ListedSnapshotView {
    fn new(item: &ListedSnapshot, dated: &Snapshot, now: DateTime<Utc>) -> Self {
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

fn client_text(client: &Client) -> String {
    match client.user.as_str() {
        "" => client.address.clone(),
        user if *client == Client::restore() => user.to_string(),
        user => format!("{user}@{}", client.address),
    }
}
