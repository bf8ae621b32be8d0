//! The snapshots in a root: what the directory holds, joined with what the records know.

use chrono::{DateTime, Utc};

use super::durable::{Place, text_name};
use super::record::Record;
use super::root::SnapshotRoot;
use crate::decide::grade::Grade;
use crate::decide::name::SnapshotName;
use crate::decide::rotation::Snapshot;
use crate::decide::zone::Zone;
use crate::tell::error::{Error, Result};
use crate::tree::listing::Listing;

/// One visible snapshot.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its name, with time and grade.
    pub name: SnapshotName,
    /// What is recorded of it; adopted ones have nothing or only when they were verified.
    pub record: Option<Record>,
}

impl Item {
    /// Whether we made it.
    pub fn is_recorded(&self) -> bool {
        self.record.as_ref().is_some_and(|record| !record.adopted)
    }

    /// What rotation needs to know about it.
    pub fn snapshot(&self) -> Snapshot {
        let time = self.name.time;
        Snapshot {
            name: self.name.text.clone(),
            time,
            verified_until: self.record.as_ref().map_or(time, |record| record.verified_until.max(time)),
            grade: self.name.grade,
            recorded: self.is_recorded(),
            pinned: None,
        }
    }
}

/// The visible snapshots, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Oldest first.
    pub items: Vec<Item>,
    /// Problems with single records, told once; their snapshots count as adopted.
    pub warnings: Vec<String>,
}

impl Catalog {
    /// Reads the root; only directories whose whole name is a snapshot name count.
    pub fn read(root: &SnapshotRoot, zone: &Zone) -> Result<Self> {
        let listing =
            Listing::read(root.directory()).map_err(|cause| Error::io("read", &root.path, cause))?;
        let names = listing.entries().iter().filter(|entry| entry.is_directory);
        let names = names.filter_map(|entry| SnapshotName::parse(listing.name(entry).to_bytes(), zone));
        let records = if root.is_registered() { root.room("records").ok() } else { None };
        let mut catalog = Catalog::default();
        for name in names {
            let read = records.as_ref().map_or(Ok(None), |records| Record::read(records.place(), &name.text));
            let record = read.unwrap_or_else(|error| {
                catalog.warnings.push(error.to_string());
                None
            });
            catalog.items.push(Item { name, record });
        }
        catalog.items.sort_by(|a, b| (a.name.time, &a.name.text).cmp(&(b.name.time, &b.name.text)));
        Ok(catalog)
    }

    /// What rotation decides on.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.items.iter().map(Item::snapshot).collect()
    }

    /// The newest one of at least `grade`. Those dated after `now` are set apart: after a clock was
    /// set back they are no measure of what changed since.
    pub fn newest(&self, grade: Grade, now: DateTime<Utc>) -> Option<&Item> {
        self.items.iter().rfind(|item| item.name.grade >= grade && item.name.time <= now)
    }
}

/// The names of entries in a room that are text.
pub fn names_in(place: Place) -> Result<Vec<String>> {
    let listing = Listing::read(place.directory).map_err(|cause| Error::io("read", place.path, cause))?;
    Ok(listing
        .entries()
        .iter()
        .filter_map(|entry| text_name(listing.name(entry)))
        .map(str::to_string)
        .collect())
}
