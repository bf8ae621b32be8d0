//! Whether a snapshot lacks entries: another program removed some of them, as an `rm -r` does that
//! is broken off or names a directory in a snapshot. Or it has more: another program added some.
//!
//! The record of a snapshot has the number of its entries. Where as many were added as were
//! removed, or some were renamed, the times of the directory that they are in show it.
//!
//! Links that were removed move the change times of files that other snapshots share, which
//! otherwise shows a write in place. So a change time is no sign of a write if a snapshot that
//! lacks entries may have held the file, has it under fewer names than another tree, and was last
//! changed no earlier.

use crate::decide::clock_tick::STAMP_LAG_NS;
use crate::decide::damage::NameSum;

/// What a walk through a snapshot has found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TreeCount {
    /// All entries, the snapshot's own directory not counted.
    pub entries: u64,
    /// Directories that could not be read.
    pub unreadable: u64,
    /// The newest change time of a directory, nanoseconds since 1970. A removed entry moves that of
    /// the directory that it was in.
    pub last_change_ns: i64,
}

/// How many entries a snapshot lacks; `None` if it lacks none, or that cannot be told. `recorded`:
/// how many its record has, if that is exact; `is_covered`: something is mounted in it.
pub fn lacked(recorded: Option<u64>, found: TreeCount, is_covered: bool) -> Option<u64> {
    let lacked = recorded?.saturating_sub(found.entries);
    (lacked > 0 && found.unreadable == 0 && !is_covered).then_some(lacked)
}

/// How many entries a snapshot has more than its record; `None` if it has no more, or that cannot
/// be told. The arguments are those of [`lacked`]. A record of no entries is that of an earlier
/// version.
pub fn added(recorded: Option<u64>, found: TreeCount, is_covered: bool) -> Option<u64> {
    let recorded = recorded.filter(|recorded| *recorded > 0)?;
    let added = found.entries.saturating_sub(recorded);
    (added > 0 && found.unreadable == 0 && !is_covered).then_some(added)
}

/// What is known of the times of a snapshot's directory, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub struct DirectoryTimes {
    /// Its change time when the snapshot was made.
    pub made_ns: i64,
    /// Its change time now.
    pub change_ns: i64,
    /// Its modification time when the snapshot was made, which is that of the module's directory;
    /// none if that is not known.
    pub copied_mtime_ns: Option<i64>,
    /// Its modification time now.
    pub mtime_ns: i64,
}

/// What the times of a snapshot's directory say of its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntriesByTime {
    /// They are as they were when the snapshot was made.
    Unchanged,
    /// Some were added, removed, renamed or replaced.
    Changed,
    /// The directory was renamed or got other attributes; or a program that changed its entries has
    /// set the modification time back, as `rsync --times` does.
    Unclear,
}

impl DirectoryTimes {
    /// What they say of the directory's entries. The kernel sets both times if an entry changes,
    /// and only the change time if the directory itself is renamed or gets other attributes. No
    /// program can set the change time.
    pub fn entries(&self) -> EntriesByTime {
        let is_modified = match self.copied_mtime_ns {
            Some(copied) => self.mtime_ns != copied,
            None => self.mtime_ns > self.made_ns,
        };
        match (self.change_ns == self.made_ns, is_modified) {
            (true, _) => EntriesByTime::Unchanged,
            (false, true) => EntriesByTime::Changed,
            (false, false) => EntriesByTime::Unclear,
        }
    }
}

/// The links that a snapshot has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostLinks {
    /// When the run began that made the snapshot, nanoseconds since 1970.
    pub began_ns: i64,
    /// When a directory of it last changed.
    pub last_change_ns: i64,
    /// Whether it has entries, too, that it did not have when it was taken: files may have got
    /// other names there.
    pub has_others: bool,
}

impl LostLinks {
    /// Whether a link of a file was lost at `at_ns`. `linked_ns`: when a run first linked the file,
    /// if that is known; `here`: its names in the snapshot; `others`: those in the trees before and
    /// after that time and in older ones, of which the snapshot itself may be one.
    pub fn explain(
        &self,
        at_ns: i64,
        linked_ns: Option<i64>,
        here: NameSum,
        others: [NameSum; 3],
    ) -> bool {
        let was_renamed =
            |other: NameSum| self.has_others && other != NameSum::default() && other != here;
        // The kernel stamps the directory first, and then the file whose link it removes.
        let last_ns = self.last_change_ns.saturating_add(STAMP_LAG_NS);
        (self.began_ns..=last_ns).contains(&at_ns)
            && linked_ns.is_none_or(|linked| linked <= self.began_ns)
            && others.iter().any(|other| here.is_fewer_than(*other) || was_renamed(*other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_counts_than_recorded_are_told_where_all_was_seen() {
        let found = |entries, unreadable| TreeCount { entries, unreadable, last_change_ns: 0 };
        for (recorded, found, is_covered, expected) in [
            (Some(21), found(19, 0), false, Some(2)),
            (Some(21), found(21, 0), false, None),
            (Some(21), found(22, 0), false, None),
            (Some(21), found(19, 1), false, None),
            (Some(21), found(19, 0), true, None),
            (None, found(0, 0), false, None),
        ] {
            assert_eq!(lacked(recorded, found, is_covered), expected, "{recorded:?} {found:?}");
        }
        for (recorded, found, is_covered, expected) in [
            (Some(21), found(22, 0), false, Some(1)),
            (Some(21), found(21, 0), false, None),
            (Some(21), found(20, 0), false, None),
            (Some(21), found(22, 1), false, None),
            (Some(21), found(22, 0), true, None),
            (Some(0), found(22, 0), false, None),
            (None, found(22, 0), false, None),
        ] {
            assert_eq!(added(recorded, found, is_covered), expected, "{recorded:?} {found:?}");
        }
    }

    #[test]
    fn the_times_of_a_directory_tell_whether_its_entries_changed() {
        use EntriesByTime::{Changed, Unchanged, Unclear};
        for (change_ns, copied_mtime_ns, mtime_ns, expected, what) in [
            (50, Some(20), 20, Unchanged, "as it was"),
            (50, Some(90), 90, Unchanged, "the client set a time in the future"),
            (70, Some(20), 70, Changed, "an entry was added"),
            (40, Some(20), 40, Changed, "an entry was added after the clock was set back"),
            (70, Some(20), 20, Unclear, "it was renamed, or got another mode"),
            (50, None, 20, Unchanged, "as it was, and the module's directory had just changed"),
            (70, None, 70, Changed, "an entry was added there"),
            (70, None, 20, Unclear, "it was renamed there"),
        ] {
            let times = DirectoryTimes { made_ns: 50, change_ns, copied_mtime_ns, mtime_ns };
            assert_eq!(times.entries(), expected, "{what}");
        }
    }

    #[test]
    fn only_a_link_that_the_snapshot_may_have_had_is_lost() {
        let lost = LostLinks { began_ns: 10, last_change_ns: 20, has_others: false };
        let (mut one, none) = (NameSum::default(), NameSum::default());
        one.add(7);
        for (at, linked, names, expected) in [
            (20, Some(10), (none, [one, one, none]), true),
            (20, Some(10), (none, [none, one, none]), true),
            (10, None, (none, [one, one, none]), true),
            (15, Some(10), (none, [none, none, one]), true),
            // The clock went on between the directory's stamp and the file's.
            (21, Some(10), (none, [one, one, none]), true),
            (21 + STAMP_LAG_NS, Some(10), (none, [one, one, none]), false),
            (9, Some(10), (none, [one, one, none]), false),
            (15, Some(11), (none, [one, one, none]), false),
            (15, Some(10), (one, [one, one, one]), false),
        ] {
            let found = lost.explain(at, linked, names.0, names.1);
            assert_eq!(found, expected, "{at} {linked:?} {names:?}");
        }
        let renamed = LostLinks { has_others: true, ..lost };
        let mut other = NameSum::default();
        other.add(8);
        for (here, others, expected) in [
            (other, [one, one, none], true),
            (none, [one, one, none], true),
            (one, [one, one, none], false),
            (one, [none, none, none], false),
        ] {
            assert_eq!(renamed.explain(15, Some(10), here, others), expected, "{here:?}");
        }
        assert!(!lost.explain(15, Some(10), other, [one, one, none]));
    }
}
