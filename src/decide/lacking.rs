//! Whether a snapshot lacks entries: another program removed some of them, as an `rm -r` does that
//! is broken off or names a directory in a snapshot. Or it has more: another program added some.
//!
//! The record of a snapshot has the number of its entries. As many added ones as removed ones are
//! not noticed. Links that were removed move the change
//! times of files that other snapshots share, which otherwise shows a write in place. So a change
//! time is no sign of a write if a snapshot that lacks entries may have held the file, has it under
//! fewer names than another tree, and was last changed no earlier.

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

/// The links that a snapshot has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostLinks {
    /// When the run began that made the snapshot, nanoseconds since 1970.
    pub began_ns: i64,
    /// When a directory of it last changed.
    pub last_change_ns: i64,
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
        (self.began_ns..=self.last_change_ns).contains(&at_ns)
            && linked_ns.is_none_or(|linked| linked <= self.began_ns)
            && others.iter().any(|other| here.is_fewer_than(*other))
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
    fn only_a_link_that_the_snapshot_may_have_had_is_lost() {
        let lost = LostLinks { began_ns: 10, last_change_ns: 20 };
        let (mut one, none) = (NameSum::default(), NameSum::default());
        one.add(7);
        for (at, linked, names, expected) in [
            (20, Some(10), (none, [one, one, none]), true),
            (20, Some(10), (none, [none, one, none]), true),
            (10, None, (none, [one, one, none]), true),
            (15, Some(10), (none, [none, none, one]), true),
            (21, Some(10), (none, [one, one, none]), false),
            (9, Some(10), (none, [one, one, none]), false),
            (15, Some(11), (none, [one, one, none]), false),
            (15, Some(10), (one, [one, one, one]), false),
        ] {
            let found = lost.explain(at, linked, names.0, names.1);
            assert_eq!(found, expected, "{at} {linked:?} {names:?}");
        }
    }
}
