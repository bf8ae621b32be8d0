//! The directory `.snap`, by which CephFS shows the snapshots of each directory, and the words of a
//! client that name it.
//!
//! No listing shows `.snap`, but a client that names it reaches it. A directory that is made in it
//! is a snapshot, and removing that directory deletes the snapshot. rsync does both there as in any
//! other directory: it makes directories that a client sends or names, and removes a partial
//! directory once it is done with it. So a push that names `.snap` is turned away.
//!
//! A client that only reads is let in: snapshots are read-only, and their files can be restored
//! that way.

use crate::decide::arguments::options::LETTERS_WITH_VALUES;

/// The name of the directory.
pub const SNAPSHOT_DIRECTORY: &str = ".snap";

/// Whether a word of a command line holds `.snap` as a component of a path: the word itself, or the
/// value of the option that it is. rsyncd expands patterns, which removes backslashes, so those do
/// not count.
pub fn names_snapshots(word: &[u8]) -> bool {
    let name = SNAPSHOT_DIRECTORY.as_bytes();
    // Nearly no word gets further.
    if !word.contains(&name[0]) {
        return false;
    }
    let word: Vec<u8> = word.iter().copied().filter(|byte| *byte != b'\\').collect();
    let begins_path = |before: &[u8]| match (before, before.last()) {
        (_, None | Some(b'/')) => true,
        ([b'-', b'-', ..], Some(last)) => *last == b'=',
        // `-T.snap`
        ([b'-', ..], Some(last)) => *last == b'=' || LETTERS_WITH_VALUES.contains(last),
        _ => false,
    };
    let is_component = |at: usize| {
        let behind = &word[at + name.len()..];
        begins_path(&word[..at]) && matches!(behind.first(), None | Some(b'/'))
    };
    word.windows(name.len()).enumerate().any(|(at, found)| found == name && is_component(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_names_snapshots_if_a_component_is_the_directory() {
        for word in [
            ".snap",
            ".snap/",
            ".snap/x",
            "/.snap/x",
            "./.snap//x",
            "a/.snap",
            "a/./.snap/../b",
            "a/../.snap",
            "data/.snap/x/y",
            ".snap/.snap",
            ".snaps/.snap",
            "-.snap/.snap",
            "--partial-dir=.snap/x",
            "--partial-dir=/.snap/x",
            "--partial-dir=./a//.snap",
            "--backup-dir=a/.snap",
            "--temp-dir=.snap",
            "--link-dest=../.snap/x",
            "--compare-dest=.snap",
            "--copy-dest=.snap/x",
            "--log-file=.snap/log",
            "--unheard-of=.snap",
            "-T.snap/x",
            "-T=.snap",
            "-rT.snap",
            "-M--partial-dir=.snap",
            r".sn\ap/x",
            r"\.snap",
            r"--partial-dir=\.\s\n\a\p/x",
        ] {
            assert!(names_snapshots(word.as_bytes()), "{word}");
        }
        assert!(names_snapshots(b"\xff/.snap/\xfe"));
    }

    #[test]
    fn other_names_are_free() {
        for word in [
            "",
            ".",
            "-logDtpre.iLsfxCIvu",
            "snap",
            ".snapshot",
            ".snaps/x",
            "a.snap",
            "a.snap/b",
            "..snap",
            ".snap.d",
            ".SNAP",
            "x=.snap",
            "/srv/.snapshots/x",
            "--partial-dir=a.snap",
            "--partial-dir=.snap%2fx",
            "-Tx.snap",
            "%2esnap",
            ".snap\n",
        ] {
            assert!(!names_snapshots(word.as_bytes()), "{word}");
        }
        assert!(!names_snapshots(b".snap\xff"));
        assert!(!names_snapshots(b"\xff.snap"));
    }
}
