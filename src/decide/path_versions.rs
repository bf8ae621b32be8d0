//! Which of many trees hold the same version of a file or directory.
//!
//! The trees are the snapshots of a module, oldest first, and the module itself as the last one. A
//! *version* is one state of what is at a path. Two trees hold the same version
//!
//! * of a file, if both names lead to one inode. Copies of an inode, which a snapshot holds where
//!   no link could be made, are the same version if they have equal attributes and equal content;
//! * of a directory, if its own modification time, owner and mode are equal: each snapshot has
//!   directories of its own, and what is in them has versions of its own.

use crate::decide::damage::InodeAttributes;

/// What one tree has at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sighting {
    /// Nothing.
    Absent,
    /// It could not be looked at; so nothing is concluded from this tree.
    Unknown,
    /// An entry.
    Present(SightedEntry),
}

/// An entry at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SightedEntry {
    /// The device of the directory that it is in.
    pub device: u64,
    /// Its inode number.
    pub inode: u64,
    /// Its attributes; extended ones are unknown.
    pub attributes: InodeAttributes,
}

/// A kind of entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A block or character device.
    Device,
}

impl EntryKind {
    /// The kind that a mode tells.
    pub fn of(mode: u32) -> Self {
        match mode & libc::S_IFMT {
            libc::S_IFREG => EntryKind::File,
            libc::S_IFDIR => EntryKind::Directory,
            libc::S_IFLNK => EntryKind::Symlink,
            libc::S_IFIFO => EntryKind::Fifo,
            libc::S_IFSOCK => EntryKind::Socket,
            _ => EntryKind::Device,
        }
    }

    /// Its name in JSON and text.
    pub fn word(self) -> &'static str {
        match self {
            EntryKind::File => "file",
            EntryKind::Directory => "directory",
            EntryKind::Symlink => "symlink",
            EntryKind::Fifo => "fifo",
            EntryKind::Socket => "socket",
            EntryKind::Device => "device",
        }
    }
}

impl SightedEntry {
    /// Its kind.
    pub fn kind(&self) -> EntryKind {
        EntryKind::of(self.attributes.mode)
    }

    fn is_same_inode(&self, other: &SightedEntry) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Whether both look the same. The size of a directory says nothing about it.
    fn looks_like(&self, other: &SightedEntry) -> bool {
        let (one, two) = (&self.attributes, &other.attributes);
        let of_directory = |it: &InodeAttributes| (it.mode, it.uid, it.gid, it.modified);
        match self.kind() {
            EntryKind::Directory => of_directory(one) == of_directory(two),
            _ => one == two,
        }
    }
}

/// The versions at one path, and when there was none. Trees are named by their positions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathVersions {
    /// The trees that hold each version; versions are in the order of the first tree of each.
    pub versions: Vec<Vec<usize>>,
    /// The history from the first tree that has anything at the path, without gaps.
    pub stretches: Vec<Stretch>,
}

/// Trees that follow each other and hold the same version, or all nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// The version that they hold; none if there is nothing.
    pub version: Option<usize>,
    /// These trees, at least one.
    pub trees: Vec<usize>,
}

/// Finds the versions. `is_copy` compares the contents of the entries in two trees. It is called
/// for entries that have equal attributes and different inodes, and are not directories.
pub fn path_versions(
    sightings: &[Sighting],
    mut is_copy: impl FnMut(usize, usize) -> bool,
) -> PathVersions {
    let mut found = PathVersions::default();
    for (tree, sighting) in sightings.iter().enumerate() {
        let version = match sighting {
            Sighting::Unknown => continue,
            Sighting::Absent if found.versions.is_empty() => continue,
            Sighting::Absent => None,
            Sighting::Present(entry) => {
                let known = |version: &Vec<usize>| {
                    is_same_version(sightings, version, tree, entry, &mut is_copy)
                };
                // The version of the tree before is the most likely one.
                let same = found.versions.iter().rposition(known);
                let version = same.unwrap_or(found.versions.len());
                if same.is_none() {
                    found.versions.push(Vec::new());
                }
                found.versions[version].push(tree);
                Some(version)
            }
        };
        match found.stretches.last_mut() {
            Some(last) if last.version == version => last.trees.push(tree),
            _ => found.stretches.push(Stretch { version, trees: vec![tree] }),
        }
    }
    found
}

/// What speaks for and against copying a version out of one of the trees that hold it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HolderFacts {
    /// It is the module itself, which a client may change meanwhile.
    pub is_live: bool,
    /// It is a retired snapshot, which may be removed at any time.
    pub is_retired: bool,
    /// It is a partial snapshot.
    pub is_partial: bool,
    /// The file is known to be altered in place there.
    pub is_damaged: bool,
}

/// Which of the trees that hold a version, oldest first, it is best copied from: a snapshot that is
/// not damaged, not retired and complete, as far as there is one, and the newest of those.
pub fn best_holder(holders: &[HolderFacts]) -> Option<usize> {
    let merit = |index: &usize| {
        let HolderFacts { is_live, is_retired, is_partial, is_damaged } = holders[*index];
        (!is_damaged, !is_live, !is_retired, !is_partial, *index)
    };
    (0..holders.len()).max_by_key(merit)
}

fn is_same_version(
    sightings: &[Sighting],
    version: &[usize],
    tree: usize,
    entry: &SightedEntry,
    is_copy: &mut impl FnMut(usize, usize) -> bool,
) -> bool {
    let entry_of = |tree: usize| match &sightings[tree] {
        Sighting::Present(entry) => Some(entry),
        Sighting::Absent | Sighting::Unknown => None,
    };
    let is_directory = entry.kind() == EntryKind::Directory;
    // A version can have several inodes. Most often it is that of the tree before.
    let is_linked = |of: &usize| entry_of(*of).is_some_and(|known| known.is_same_inode(entry));
    if !is_directory && version.iter().rev().any(is_linked) {
        return true;
    }
    let Some(first) = version.first() else { return false };
    let is_alike = entry_of(*first).is_some_and(|known| known.looks_like(entry));
    is_alike && (is_directory || is_copy(*first, tree))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::damage::{FileTime, InodeXattrs};

    fn entry(mode: u32, inode: u64, modified: i64) -> Sighting {
        Sighting::Present(SightedEntry {
            device: 1,
            inode,
            attributes: InodeAttributes {
                mode,
                uid: 0,
                gid: 0,
                size_bytes: if mode & libc::S_IFMT == libc::S_IFDIR { inode } else { 10 },
                modified: FileTime { seconds: modified, nanoseconds: 0 },
                device: 0,
                xattrs: InodeXattrs::Unknown,
            },
        })
    }

    fn file(inode: u64, modified: i64) -> Sighting {
        entry(libc::S_IFREG | 0o644, inode, modified)
    }

    /// Each stretch as its version, or `-`, and its trees.
    fn told(found: &PathVersions) -> Vec<(String, Vec<usize>)> {
        let version = |version: Option<usize>| version.map_or("-".to_string(), |it| it.to_string());
        found.stretches.iter().map(|one| (version(one.version), one.trees.clone())).collect()
    }

    fn of(sightings: &[Sighting]) -> Vec<(String, Vec<usize>)> {
        // Copies have equal content if the units of their inode numbers are equal.
        let inode = |tree: usize| match &sightings[tree] {
            Sighting::Present(entry) => entry.inode % 10,
            _ => panic!("nothing is at {tree}"),
        };
        told(&path_versions(sightings, |one, two| inode(one) == inode(two)))
    }

    fn stretches(expected: &[(&str, &[usize])]) -> Vec<(String, Vec<usize>)> {
        expected.iter().map(|(version, trees)| (version.to_string(), trees.to_vec())).collect()
    }

    #[test]
    fn links_of_an_inode_are_one_version() {
        use Sighting::Absent;
        for (sightings, expected) in [
            (vec![], &[][..]),
            (vec![Absent, Absent], &[]),
            (vec![file(1, 5), file(1, 5)], &[("0", &[0, 1][..])]),
            (vec![file(1, 5), file(2, 6)], &[("0", &[0]), ("1", &[1])]),
            // Later or earlier, but of another content.
            (vec![file(1, 5), file(2, 5)], &[("0", &[0]), ("1", &[1])]),
            // An inode that was changed in place, as no snapshot shows.
            (vec![file(1, 5), file(1, 6)], &[("0", &[0, 1])]),
            (vec![Absent, file(1, 5), Absent], &[("0", &[1]), ("-", &[2])]),
        ] {
            assert_eq!(of(&sightings), stretches(expected), "{sightings:?}");
        }
    }

    #[test]
    fn copies_of_equal_content_are_one_version() {
        for (sightings, expected) in [
            // A copy, and a link of either.
            (
                vec![file(1, 5), file(11, 5), file(1, 5), file(11, 5)],
                &[("0", &[0, 1, 2, 3][..])][..],
            ),
            // Equal content with another time, mode or kind was backed up as another state.
            (vec![file(1, 5), file(11, 6)], &[("0", &[0]), ("1", &[1])]),
            (vec![file(1, 5), entry(libc::S_IFREG | 0o600, 11, 5)], &[("0", &[0]), ("1", &[1])]),
            (vec![file(1, 5), entry(libc::S_IFLNK | 0o644, 11, 5)], &[("0", &[0]), ("1", &[1])]),
            // What another file system calls by that number is another file.
            (vec![file(1, 5), other_device(file(1, 6))], &[("0", &[0]), ("1", &[1])]),
        ] {
            assert_eq!(of(&sightings), stretches(expected), "{sightings:?}");
        }
    }

    fn other_device(sighting: Sighting) -> Sighting {
        let Sighting::Present(entry) = sighting else { return sighting };
        Sighting::Present(SightedEntry { device: 2, ..entry })
    }

    #[test]
    fn a_directory_has_a_version_for_each_state_of_its_own() {
        let directory = |inode, modified| entry(libc::S_IFDIR | 0o755, inode, modified);
        let closed = |inode, modified| entry(libc::S_IFDIR | 0o700, inode, modified);
        for (sightings, expected) in [
            (vec![directory(1, 5), directory(2, 5)], &[("0", &[0, 1][..])][..]),
            (vec![directory(1, 5), directory(2, 6)], &[("0", &[0]), ("1", &[1])]),
            (vec![directory(1, 5), closed(2, 5)], &[("0", &[0]), ("1", &[1])]),
            // A snapshot that was made out of a retired one may have its inode.
            (vec![directory(1, 5), directory(1, 6)], &[("0", &[0]), ("1", &[1])]),
        ] {
            assert_eq!(of(&sightings), stretches(expected), "{sightings:?}");
        }
    }

    #[test]
    fn gaps_show_and_a_version_may_come_back() {
        use Sighting::{Absent, Unknown};
        let sightings = [
            Absent,
            file(1, 5),
            Absent,
            Unknown,
            Absent,
            file(2, 6),
            Unknown,
            file(2, 6),
            file(11, 5),
            Absent,
        ];
        let found = path_versions(&sightings, |_, _| true);
        assert_eq!(
            told(&found),
            stretches(&[("0", &[1]), ("-", &[2, 4]), ("1", &[5, 7]), ("0", &[8]), ("-", &[9]),])
        );
        assert_eq!(found.versions, [vec![1, 8], vec![5, 7]]);
    }

    #[test]
    fn a_version_is_copied_from_the_newest_whole_snapshot() {
        let complete = HolderFacts::default();
        let partial = HolderFacts { is_partial: true, ..complete };
        let retired = HolderFacts { is_retired: true, ..complete };
        let live = HolderFacts { is_live: true, ..complete };
        let damaged = HolderFacts { is_damaged: true, ..complete };
        for (holders, expected) in [
            (&[][..], None),
            (&[complete, complete, live], Some(1)),
            (&[complete, partial, live], Some(0)),
            (&[retired, partial], Some(1)),
            (&[retired, live], Some(0)),
            (&[live], Some(0)),
            (&[damaged, damaged, complete, damaged], Some(2)),
            (&[damaged, retired], Some(1)),
        ] {
            assert_eq!(best_holder(holders), expected, "{holders:?}");
        }
    }
}
