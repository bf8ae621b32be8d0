//! `list --expired`: the retired snapshots, which `undelete` can bring back.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::command::list_view::rfc3339;
use crate::decide::duration_text::roughly;
use crate::decide::name::SnapshotName;
use crate::module::target::Target;
use crate::store::layout::Subdir;
use crate::store::record::Record;
use crate::store::retire;
use crate::store::root::SnapshotRoot;
use crate::store::state::State;
use crate::tell::counted;
use crate::tell::error::Result;
use crate::tell::escape::{escape, escape_path};
use crate::tell::table::TextTable;
use crate::tell::terminal::line_width;

/// What `list --expired` prints for one module.
#[derive(Debug, Serialize)]
pub(crate) struct ExpiredView {
    module: Option<String>,
    snapshot_root: String,
    grace: String,
    expired: Vec<RetiredView>,
}

#[derive(Debug, Serialize)]
struct RetiredView {
    name: String,
    time: Option<String>,
    retired: Option<String>,
    until: Option<String>,
    entries: Option<u64>,
    #[serde(skip)]
    is_over: bool,
    #[serde(skip)]
    age: String,
    #[serde(skip)]
    retired_ago: String,
}

impl ExpiredView {
    /// The retired snapshots of `target` as they are at `now`, oldest first.
    pub(crate) fn new(target: &Target, root: &SnapshotRoot, now: DateTime<Utc>) -> Result<Self> {
        let names = if root.is_registered() { retire::retired(root)? } else { Vec::new() };
        let since = State::read(root.private())?.retired;
        let view = |name: String| {
            let time = SnapshotName::parse(name.as_bytes(), &target.policy.time_zone)
                .map(|name| name.time);
            let retired = since.get(&name).copied();
            let records = root.subdir(Subdir::Records).ok();
            let record = records.and_then(|records| Record::read(records.dir(), &name).ok()?);
            let grace = target.policy.grace();
            RetiredView {
                time: time.map(rfc3339),
                retired: retired.map(rfc3339),
                until: retired.map(|retired| rfc3339(retired + grace.delta())),
                is_over: retired.is_some_and(|retired| retired + grace.delta() <= now),
                entries: record.filter(|record| !record.adopted).map(|record| record.entries),
                age: time.map_or("-".to_string(), |time| roughly(now - time)),
                retired_ago: retired
                    .map_or("-".to_string(), |retired| format!("{} ago", roughly(now - retired))),
                name: escape(name.as_bytes()),
            }
        };
        Ok(ExpiredView {
            module: target.name.as_deref().map(escape),
            snapshot_root: escape_path(&target.root_path),
            grace: target.policy.grace().to_string(),
            expired: names.into_iter().map(view).collect(),
        })
    }

    /// The text for a terminal.
    pub(crate) fn to_text(&self, label: &str) -> String {
        let count = counted(self.expired.len(), "retired snapshot");
        let text = format!("{label}: {count} in {}\n", self.snapshot_root);
        let mut table =
            TextTable::new(&["SNAPSHOT", "AGE", "RETIRED", "ENTRIES", "CAN BE BROUGHT BACK UNTIL"])
                .folding(&["CAN BE BROUGHT BACK UNTIL"])
                .sparing(&["ENTRIES"]);
        for retired in &self.expired {
            table.push(vec![
                retired.name.clone(),
                retired.age.clone(),
                retired.retired_ago.clone(),
                retired.entries.map_or("-".to_string(), |entries| entries.to_string()),
                retired
                    .until
                    .clone()
                    .filter(|_| !retired.is_over)
                    .unwrap_or_else(|| "a later run removes or recycles it".to_string()),
            ]);
        }
        if self.expired.is_empty() { text } else { text + &table.to_text(line_width()) }
    }
}
