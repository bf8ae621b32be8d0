//! The text of `list`.
//!
//! A terminal gets no column without content, nor one that says *complete* of all snapshots.

use indicatif::HumanBytes;

use crate::command::decision_view::LOCAL_TIME;
use crate::command::list_view::{ADOPTED, ListView, ListedSnapshotView};
use crate::decide::client::Client;
use crate::decide::grade::Grade;
use crate::decide::snapshot_size::SnapshotSize;
use crate::tell::counted;
use crate::tell::table::TextTable;

/// What a column says of a snapshot.
type Cell = fn(&ListedSnapshotView) -> String;

const GRADE: &str = "GRADE";

const PINNED: &str = "PINNED";

const COLUMNS: [(&str, Cell); 15] = [
    ("SNAPSHOT", |item| item.name.clone()),
    (LOCAL_TIME, |item| item.local_time.clone().unwrap_or_default()),
    ("AGE", |item| item.age.clone()),
    (GRADE, grade),
    ("ALONE", |item| item.size.as_ref().map_or_else(unknown, alone)),
    ("SIZE", |item| bytes(item.size.map(|size| size.size_bytes))),
    ("NEW", |item| bytes(item.new_bytes)),
    ("ENTRIES", |item| number(item.entries)),
    ("ADDED", |item| number(item.added)),
    ("CHANGED", |item| number(item.changed)),
    ("REMOVED", |item| number(item.removed)),
    ("COPIES", |item| number(Some(item.copies).filter(|copies| *copies > 0))),
    ("UNCHANGED UNTIL", |item| match item.verified_until == item.time {
        true => unknown(),
        false => item.verified_until.clone(),
    }),
    ("CLIENT", |item| item.client.as_ref().map_or_else(unknown, client_text)),
    (PINNED, pinned),
];

/// What a narrow terminal does without, the first one first.
const SPARED: [&str; 9] = [
    "UNCHANGED UNTIL",
    "REMOVED",
    "CLIENT",
    "CHANGED",
    "ADDED",
    "ENTRIES",
    "COPIES",
    LOCAL_TIME,
    GRADE,
];

/// Columns that are left out wherever they say nothing.
const OPTIONAL: [&str; 5] = [LOCAL_TIME, "ALONE", "SIZE", "NEW", "COPIES"];

impl ListView {
    /// The text for people; `width` if it is printed on a terminal.
    pub(crate) fn to_text(&self, label: &str, width: Option<usize>) -> String {
        let count = counted(self.snapshots.len(), "snapshot");
        let all_complete = self.snapshots.len() > 1
            && width.is_some()
            && self.snapshots.iter().all(|item| grade(item) == "complete");
        let complete = if all_complete { ", all complete" } else { "" };
        let mut text = format!("{label}: {count} in {}{complete}\n", self.snapshot_root);
        if !self.snapshots.is_empty() {
            text += &self.table(all_complete).to_text(width);
        }
        for item in &self.snapshots {
            for note in item.because.iter().chain(&item.undated).chain(&item.read) {
                text += &format!("{}: {note}\n", item.name);
            }
        }
        for note in &self.notes {
            text += &format!("{note}\n");
        }
        text + &self.totals(width.is_some())
    }

    fn table(&self, all_complete: bool) -> TextTable {
        let mut table = TextTable::new(&COLUMNS.map(|(title, _)| title))
            .folding(&[PINNED])
            .sparing(&SPARED)
            .optional(&OPTIONAL);
        for item in &self.snapshots {
            let cell = |(title, cell): (&str, Cell)| match all_complete && title == GRADE {
                true => unknown(),
                false => cell(item),
            };
            table.push(COLUMNS.map(cell).to_vec());
        }
        table
    }

    /// The lines below the table: what all of it takes, and the free space.
    fn totals(&self, is_terminal: bool) -> String {
        let mut text = String::new();
        let is_bound = |size: &SnapshotSize| size.alone_bytes.is_some() && !size.is_exact;
        if self.snapshots.iter().any(|item| item.size.as_ref().is_some_and(is_bound)) {
            text += "ALONE is what a removal frees; > at least that, for the module or a neighbour \
                     may have changed since it was counted\n";
        }
        if let (Some(sizes), Some(ago)) = (&self.sizes, &self.counted_ago) {
            let when = match ago.as_str() {
                "0s" => String::new(),
                ago => format!("as counted {ago} ago, "),
            };
            text += &match (sizes.total_bytes, sizes.history_bytes) {
                (Some(total), Some(history)) => format!(
                    "{when}the module and its snapshots take {}, {} of it only in snapshots\n",
                    HumanBytes(total),
                    HumanBytes(history),
                ),
                _ => {
                    "what snapshots take that the file system makes is not known; on btrfs, ALONE \
                      is, with `btrfs quota enable`\n"
                        .to_string()
                }
            };
        } else if is_terminal && !self.snapshots.is_empty() {
            text += "(--sizes counts what each snapshot takes alone)\n";
        }
        if let (Some(free), Some(disk)) = (self.free_bytes, self.disk_bytes) {
            let percent = (u128::from(free) * 100).checked_div(u128::from(disk)).unwrap_or(0);
            text += &format!(
                "{} of {} ({percent} %) are free on this file system\n",
                HumanBytes(free),
                HumanBytes(disk)
            );
        }
        text
    }
}

fn unknown() -> String {
    "-".to_string()
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(unknown, |number| number.to_string())
}

fn bytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(unknown, |bytes| HumanBytes(bytes).to_string())
}

fn alone(size: &SnapshotSize) -> String {
    let sign = if size.is_exact { "" } else { ">" };
    size.alone_bytes.map_or_else(unknown, |bytes| format!("{sign}{}", HumanBytes(bytes)))
}

fn grade(item: &ListedSnapshotView) -> String {
    match (item.origin, item.grade) {
        (ADOPTED, Grade::Complete) => format!("complete, {ADOPTED}"),
        (_, grade) => grade.to_string(),
    }
}

fn pinned(item: &ListedSnapshotView) -> String {
    let reason = item.pinned.as_deref();
    reason.map_or("", |reason| if reason.is_empty() { "pinned" } else { reason }).to_string()
}

fn client_text(client: &Client) -> String {
    match client.user.as_str() {
        "" => client.address.clone(),
        user if *client == Client::restore() => user.to_string(),
        user => format!("{user}@{}", client.address),
    }
}
