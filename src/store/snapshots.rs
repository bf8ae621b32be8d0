//! The snapshots in a root: the directories, each with its record.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use nix::sys::stat::fstat;

use crate::decide::client::Client;
use crate::decide::grade::Grade;
use crate::decide::lease::SnapshotReader;
use crate::decide::name::SnapshotName;
use crate::decide::obstacle::Obstacle;
use crate::decide::snapshot::Snapshot;
use crate::decide::transfer_reason::TransferReason;
use crate::decide::zone::Zone;
use crate::engine::listing::{Listing, ListingEntry};
use crate::engine::obstacle::{device_of, obstacle_on};
use crate::store::dir::{Dir, c_name, names_in};
use crate::store::layout::Subdir;
use crate::store::leases::{LeaseTerms, Leases};
use crate::store::pin::{Pin, Pins};
use crate::store::record::{Record, snapshot_name};
use crate::store::root::SnapshotRoot;
use crate::system::identity::Identity;
use crate::system::syscalls::stat_entry;
use crate::tell::error::{Error, Result};

/// One visible snapshot.
#[derive(Debug, Clone)]
pub(crate) struct ListedSnapshot {
    /// Its name, with time and grade.
    pub name: SnapshotName,
    /// Its record; an adopted snapshot has none, or only the time when it was verified.
    pub record: Option<Record>,
    /// It has a record that cannot be read.
    pub unreadable: bool,
    /// Its pin, if it has one.
    pub pin: Option<Pin>,
    /// What keeps it from being retired, if anything does.
    pub obstacle: Option<Obstacle>,
    /// Who reads it, under a lease that holds.
    pub reader: Option<SnapshotReader>,
}

impl ListedSnapshot {
    /// Whether this program made it.
    pub(crate) fn is_recorded(&self) -> bool {
        self.unreadable || self.record.as_ref().is_some_and(|record| !record.adopted)
    }

    /// Whether its record says that a push brought it.
    pub(crate) fn is_recorded_push(&self) -> bool {
        let record = self.record.as_ref();
        record.is_some_and(|record| record.client.is_some() || record.status.is_some())
    }

    /// Whether a push may have brought it whose client `is_it` accepts. One that another program
    /// made, or that was due, counts as such, of a client that is not known.
    pub(crate) fn may_be_push(&self, is_it: &dyn Fn(&Client) -> bool) -> bool {
        match &self.record {
            None => !self.unreadable && is_it(&Client::default()),
            Some(record) if record.adopted => is_it(&Client::default()),
            Some(Record { client: Some(client), .. }) => is_it(client),
            Some(record) => {
                let is_due = record.because == Some(TransferReason::Due);
                (is_due || self.is_recorded_push()) && is_it(&Client::default())
            }
        }
    }

    /// Until when runs found the module equal to it; never before it was taken.
    pub(crate) fn verified_until(&self) -> DateTime<Utc> {
        let time = self.name.time;
        self.record.as_ref().map_or(time, |record| record.verified_until.max(time))
    }

    /// What rotation needs to know about it.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let time = self.name.time;
        let made = self.record.as_ref().filter(|record| !record.adopted);
        Snapshot {
            name: self.name.text.clone(),
            time,
            verified_until: self.verified_until(),
            grade: self.name.grade,
            recorded: self.is_recorded(),
            pinned: self.pin.as_ref().map(|pin| pin.reason.clone()),
            unreadable: self.unreadable,
            sequence: made.and_then(|record| record.sequence),
            taken_at: made.and_then(|record| record.taken_at.clone()),
            undated: None,
            obstacle: self.obstacle,
            reader: self.reader.clone(),
        }
    }
}

/// The visible snapshots, oldest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct SnapshotList {
    /// Oldest first.
    pub items: Vec<ListedSnapshot>,
    /// Problems with single records; their snapshots are kept.
    pub warnings: Vec<String>,
}

impl SnapshotList {
    /// Reads the root; only directories whose whole name is a snapshot name count.
    pub(crate) fn read(root: &SnapshotRoot, zone: &Zone) -> Result<Self> {
        let here = root.snapshots();
        let listing =
            Listing::read(here.directory).map_err(|cause| Error::io("read", here.path, cause))?;
        let identify = |module| {
            let stat = fstat(module);
            stat.map_err(|cause| Error::io("inspect", &root.module_path, cause))
        };
        let module = root.module().ok().map(identify).transpose()?;
        let module = module.map(|stat| Identity::of(&stat));
        // The live tree is no snapshot, whatever its name is.
        let is_module = |entry: &&ListingEntry| {
            // Another device can have the same number: each btrfs subvolume is one.
            module.is_some_and(|module| {
                entry.inode == module.inode
                    && stat_entry(here.directory, listing.name(entry))
                        .is_ok_and(|stat| Identity::of(&stat) == module)
            })
        };
        let directories =
            listing.entries().iter().filter(|entry| entry.is_directory && !is_module(entry));
        let listed = directories
            .filter_map(|entry| SnapshotName::parse(listing.name(entry).to_bytes(), zone));
        let mut names: Vec<SnapshotName> = listed.collect();
        let mut catalog = SnapshotList::default();
        let records = match root.is_registered().then(|| root.subdir(Subdir::Records)).transpose() {
            Ok(records) => records,
            // `RootAccess::Look` does not make the directory again.
            Err(error) if error.is_not_found() => {
                catalog.warnings.push(root.lost_records());
                None
            }
            Err(error) => return Err(error),
        };
        if let Some(records) = records.as_ref().filter(|_| root.may_list_late()) {
            let unlisted = unlisted(root, records.dir(), &names, zone)?;
            let texts: Vec<&String> = unlisted.iter().map(|name| &name.text).collect();
            catalog.warnings.extend(late_listing(&texts));
            names.extend(unlisted);
        }
        // Snapshots of CephFS may each have a device number of their own, and no obstacles.
        let device = device_of(here.directory).filter(|_| !root.has_only_sealed());
        for name in names {
            let read_record = || match &records {
                Some(records) => Record::read(records.dir(), &name.text),
                None => Ok(None),
            };
            // A passing error would keep a snapshot of another program without a record.
            let read = read_record().or_else(|_| read_record());
            let obstacle = device
                .and_then(|device| obstacle_on(device, here.directory, &c_name(&name.text)))
                .filter(|obstacle| {
                    // A subvolume in the root is retired and removed as a whole.
                    *obstacle != Obstacle::Subvolume || !root.visible(&name.text).is_sealed(root)
                });
            let item = match read {
                Ok(record) => {
                    let reader = None;
                    ListedSnapshot { name, record, unreadable: false, pin: None, obstacle, reader }
                }
                Err(error) => {
                    catalog.warnings.push(format!(
                        "{} stays, since its record cannot be read: {error}",
                        name.text
                    ));
                    ListedSnapshot {
                        name,
                        record: None,
                        unreadable: true,
                        pin: None,
                        obstacle,
                        reader: None,
                    }
                }
            };
            catalog.items.push(item);
        }
        catalog.items.sort_by(|a, b| (a.name.time, &a.name.text).cmp(&(b.name.time, &b.name.text)));
        Ok(catalog)
    }

    /// Notes the pins.
    pub(crate) fn pin(&mut self, pins: &Pins) {
        for item in &mut self.items {
            item.pin = pins.get(&item.name.text).cloned();
        }
    }

    /// Notes who reads the snapshots.
    pub(crate) fn note_readers(&mut self, leases: &Leases, terms: LeaseTerms) {
        for item in &mut self.items {
            item.reader = leases.holder(&item.name.text, terms);
        }
    }

    /// What rotation decides on.
    pub(crate) fn snapshots(&self) -> Vec<Snapshot> {
        self.items.iter().map(ListedSnapshot::snapshot).collect()
    }

    /// The highest sequence number, or the number of records where none has one.
    pub(crate) fn sequence(&self) -> u64 {
        let recorded = self.items.iter().filter(|item| item.is_recorded()).count() as u64;
        let numbers = self.items.iter().filter_map(|item| item.record.as_ref()?.sequence);
        numbers.max().unwrap_or(0).max(recorded)
    }

    /// The newest snapshot of at least `grade`. That is the last one that was made, whatever date a
    /// wrong clock gave it. Snapshots dated after `now` are left out: after a clock was set back,
    /// they do not show what changed since.
    pub(crate) fn newest(&self, grade: Grade, now: DateTime<Utc>) -> Option<&ListedSnapshot> {
        let is_one = |item: &&ListedSnapshot| item.name.grade >= grade && item.name.time <= now;
        let number =
            |item: &&ListedSnapshot| item.record.as_ref().and_then(|record| record.sequence);
        // A snapshot without a number, such as one whose record cannot be read, has only its date.
        let last = self.items.iter().rfind(is_one)?;
        match number(&last) {
            None => Some(last),
            Some(_) => self.items.iter().filter(is_one).max_by_key(number),
        }
    }
}

/// Records the snapshots of other programs, so that a later run can tell that one of them vanished.
/// A crash may lose such a record; then the next run writes it again.
pub(crate) fn adopt(root: &SnapshotRoot, list: &SnapshotList) -> Result<()> {
    let without: Vec<&ListedSnapshot> =
        list.items.iter().filter(|item| item.record.is_none() && !item.unreadable).collect();
    // On a network file system, a record may be there though it cannot be read yet.
    if without.is_empty() || root.may_list_late() {
        return Ok(());
    }
    let records = root.subdir(Subdir::Records)?;
    for ListedSnapshot { name, .. } in without {
        Record::adopted(name.time, name.grade).write_before_syncfs(records.dir(), &name.text)?;
    }
    Ok(())
}

/// Snapshots with a record that a listing of the root lacks, though they are there by name.
fn unlisted(
    root: &SnapshotRoot,
    records: Dir,
    listed: &[SnapshotName],
    zone: &Zone,
) -> Result<Vec<SnapshotName>> {
    let listed: HashSet<&str> = listed.iter().map(|name| name.text.as_str()).collect();
    let is_there = |name: &str| {
        stat_entry(root.snapshots().directory, &c_name(name))
            .is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR)
    };
    let files = names_in(records)?;
    let recorded =
        files.iter().filter_map(|file| snapshot_name(file)).filter(|name| !listed.contains(name));
    Ok(recorded
        .filter(|name| is_there(name))
        .filter_map(|name| SnapshotName::parse(name.as_bytes(), zone))
        .collect())
}

/// What to say of snapshots that a listing lacked.
pub(crate) fn late_listing(unlisted: &[&String]) -> Option<String> {
    let first = unlisted.first()?;
    Some(format!(
        "the file system lists directories late: {} there, but not listed, the first is {first}; \
         mount it without a cache of directories (sshfs: `-o dir_cache=no`)",
        if unlisted.len() == 1 {
            "1 snapshot is".to_string()
        } else {
            format!("{} snapshots are", unlisted.len())
        },
    ))
}
