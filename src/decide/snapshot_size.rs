//! How much space a snapshot takes alone, as far as an earlier count still tells.
//!
//! What a snapshot takes *alone* is what its removal would free: its directories, and the files of
//! which it holds every link. A later count may find more, never less. A new snapshot links only
//! files that the module holds, and a file that one snapshot holds alone is not in the module. When
//! another tree goes, files that it shared with this one alone become this one's own. So the older
//! number stays a lower bound.
//!
//! A file is in the snapshots that follow each other while the module has it. So only the removal
//! of a direct neighbour changes what a snapshot takes alone: while both neighbours are the same,
//! the number is exact. The newest snapshot shares files with the module, which changes at any
//! time, so its number is a lower bound.
//!
//! What a btrfs snapshot takes alone is known only to the file system, and only while its quotas
//! are on.

use serde::{Deserialize, Serialize};

/// What a count found of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountedSnapshot {
    /// Its name.
    pub name: String,
    /// The size of its files together, each inode counted once.
    pub size_bytes: u64,
    /// What its removal would have freed; none if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone_bytes: Option<u64>,
    /// The tree before it, by time, at the time of the count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The tree after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// What is known of the size of one snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotSize {
    /// The size of its files together.
    pub size_bytes: u64,
    /// What its removal frees; none if that is not known.
    pub alone_bytes: Option<u64>,
    /// Whether that is exact; otherwise it frees at least as much.
    pub is_exact: bool,
}

/// The trees before and after `name`. `trees`: all snapshots, the retired ones too, oldest first.
pub fn neighbours<'a>(name: &str, trees: &[&'a str]) -> (Option<&'a str>, Option<&'a str>) {
    let Some(at) = trees.iter().position(|tree| *tree == name) else { return (None, None) };
    let before = at.checked_sub(1).and_then(|before| trees.get(before));
    (before.copied(), trees.get(at + 1).copied())
}

/// What `counted` tells of its snapshot among these `trees`, of which `newest` is the newest
/// visible one.
pub fn size_now(counted: &CountedSnapshot, trees: &[&str], newest: Option<&str>) -> SnapshotSize {
    let (before, after) = neighbours(&counted.name, trees);
    let is_between = before == counted.before.as_deref() && after == counted.after.as_deref();
    SnapshotSize {
        size_bytes: counted.size_bytes,
        alone_bytes: counted.alone_bytes,
        is_exact: is_between && newest != Some(counted.name.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_exact_while_both_neighbours_stay() {
        let counted = CountedSnapshot {
            name: "c".into(),
            size_bytes: 9,
            alone_bytes: Some(4),
            before: Some("b".into()),
            after: Some("d".into()),
        };
        for (trees, newest, expected) in [
            (&["a", "b", "c", "d"][..], "d", true),
            // One that is no neighbour has gone, and a new one has come.
            (&["b", "c", "d", "e"], "e", true),
            // A neighbour has gone.
            (&["a", "c", "d"], "d", false),
            (&["a", "b", "c"], "c", false),
            (&["a", "b", "c", "e"], "e", false),
            // The one after it is retired: the module may have changed since.
            (&["b", "c", "d"], "c", false),
        ] {
            let size = size_now(&counted, trees, Some(newest));
            assert_eq!(size.is_exact, expected, "{trees:?}");
            assert_eq!((size.size_bytes, size.alone_bytes), (9, Some(4)));
        }
    }

    #[test]
    fn the_newest_is_never_exact() {
        let counted = CountedSnapshot {
            name: "b".into(),
            size_bytes: 9,
            alone_bytes: Some(4),
            before: Some("a".into()),
            after: None,
        };
        assert!(!size_now(&counted, &["a", "b"], Some("b")).is_exact);
        assert!(!size_now(&counted, &["a", "b", "c"], Some("c")).is_exact);
        assert_eq!(neighbours("a", &["a", "b"]), (None, Some("b")));
        assert_eq!(neighbours("x", &["a", "b"]), (None, None));
    }
}
