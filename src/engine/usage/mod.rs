//! How much space the removal of whole trees would free.
//!
//! A file in several snapshots is freed with the last of its links. So each entry of all the trees
//! is examined, and the blocks of a file count only when all of its links have been found. A file
//! with another link in a tree that stays, in the module, or elsewhere does not count. Directories
//! always count.
//!
//! Only files with several links have to be remembered (`links`). If there are too many at once,
//! the trees are walked several times, so that memory is bounded.
//!
//! The numbers are those of `st_blocks`. Two cases differ from that: content within inodes is freed
//! with them, and extents that files share as reflinks are counted as freed, though they are not
//! while another file has them.
//!
//! The trees may be removed meanwhile; an entry that has gone is not counted.

mod links;

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::path::Path;

use links::{BUCKETS, LinkCounter, LinkedFile};
use nix::errno::Errno;
use nix::sys::stat::FileStat;

use crate::decide::free_space_choice::SpaceGain;
use crate::engine::descent::{Descent, DescentStart};
use crate::engine::walk::{Subtree, VisitedFile, Visitor, is_no_part_of_tree, walk_into};
use crate::system::syscalls::stat_entry;
use crate::tell::progress::{self, ProgressPhase};

/// How many files with several links are remembered at once: at most some 50 MB. The sums by trees
/// take at most twice as much.
pub(crate) const MAX_REMEMBERED: usize = 1 << 20;

/// Fewer entries are counted too quickly for a progress bar.
const SHOWN_FROM_ENTRIES: u64 = 20_000;

/// The unit of `st_blocks`, whatever the file system's own blocks are.
const BLOCK_BYTES: u64 = 512;

pub(crate) struct UsageTree<'a> {
    pub parent: BorrowedFd<'a>,
    /// For messages.
    pub parent_path: &'a Path,
    /// The tree's name in `parent`.
    pub name: CString,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Bytes in blocks that no other link holds.
    pub bytes: u64,
    /// Files and directories in the trees, counted once per name.
    pub entries: u64,
    /// Directories that could not be read; what is in them was not counted.
    pub unreadable: u64,
}

/// What the removal of all `trees` frees; `None` if they have more than `max_entries`.
pub(crate) fn freed(trees: &[UsageTree], max_entries: Option<u64>) -> Option<Usage> {
    freed_remembering(trees, max_entries, MAX_REMEMBERED)
}

fn freed_remembering(
    trees: &[UsageTree],
    max_entries: Option<u64>,
    max_remembered: usize,
) -> Option<Usage> {
    let counted = count(trees, max_entries, max_remembered);
    (counted.trees == trees.len()).then(|| {
        let bytes = counted.gains.iter().map(|gain| gain.bytes).sum();
        Usage { bytes, ..counted.usage }
    })
}

/// What the removal of each range of neighbouring trees frees.
#[derive(Debug, Default)]
pub(crate) struct UsageByTrees {
    /// How many of the trees were counted, until the limit of entries was reached.
    pub trees: usize,
    pub gains: Vec<SpaceGain>,
    /// The size of the files in each tree as their readers see it. A file with several names in a
    /// tree counts once, directories do not count.
    pub sizes: Vec<u64>,
    pub usage: Usage,
}

/// Counts as many of the `trees` as have at most `max_entries` together.
pub(crate) fn freed_by_each(trees: &[UsageTree], max_entries: u64) -> UsageByTrees {
    count(trees, Some(max_entries), MAX_REMEMBERED)
}

/// Counts all of the `trees`, however many entries they have.
pub(crate) fn freed_by_any(trees: &[UsageTree]) -> UsageByTrees {
    count(trees, None, MAX_REMEMBERED)
}

fn count(trees: &[UsageTree], max_entries: Option<u64>, max_remembered: usize) -> UsageByTrees {
    let sizes = vec![0; trees.len()];
    let mut counted = UsageByTrees { trees: trees.len(), sizes, ..UsageByTrees::default() };
    let mut gains: BTreeMap<(usize, usize), u64> = BTreeMap::new();
    let whole = 0..BUCKETS;
    let mut parts = vec![whole.clone()];
    while let Some(part) = parts.pop() {
        let is_first = part == whole;
        let links = LinkCounter::new(part, max_remembered);
        let usage = Usage::default();
        let mut count = UsageCounter {
            links,
            usage,
            singles: BTreeMap::new(),
            sizes: vec![0; trees.len()],
            singles_count: is_first,
            max_entries,
            tree: 0,
            phase: None,
        };
        for (number, tree) in trees[..counted.trees].iter().enumerate() {
            count.tree = number;
            if !count.walk(tree) {
                counted.trees = number;
                break;
            }
        }
        for (tree, size) in count.links.sizes().chain(count.sizes.into_iter().enumerate()) {
            counted.sizes[tree] += size;
        }
        for (trees, bytes) in count.links.bytes().into_iter().chain(count.singles) {
            *gains.entry(trees).or_default() += bytes;
        }
        if is_first {
            counted.usage = count.usage;
        }
        parts.extend(count.links.left());
    }
    // Drops what belongs to a tree that was counted only in part.
    gains.retain(|(_, last), _| *last < counted.trees);
    counted.gains =
        gains.into_iter().map(|((first, last), bytes)| SpaceGain { first, last, bytes }).collect();
    counted
}

/// What one walk over all trees has counted so far.
struct UsageCounter {
    links: LinkCounter,
    usage: Usage,
    /// Bytes of entries with one link, by tree.
    singles: BTreeMap<(usize, usize), u64>,
    /// Size of the files with one link, by tree.
    sizes: Vec<u64>,
    /// Whether entries with one link count: on the first walk only.
    singles_count: bool,
    max_entries: Option<u64>,
    /// Number of the tree that is being walked.
    tree: usize,
    phase: Option<ProgressPhase>,
}

impl UsageCounter {
    fn add(&mut self, stat: &FileStat, is_directory: bool) {
        self.usage.entries += 1;
        match self.usage.entries {
            SHOWN_FROM_ENTRIES => {
                self.phase = Some(progress::begin("counting what would be free", None))
            }
            entries if entries > SHOWN_FROM_ENTRIES => progress::add(1),
            _ => {}
        }
        let bytes = u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK_BYTES;
        let size = if is_directory { 0 } else { u64::try_from(stat.st_size).unwrap_or(0) };
        if !is_directory && stat.st_nlink > 1 {
            let (inode, links) = (stat.st_ino, links_of(stat));
            self.links.count_link(self.tree, &LinkedFile { inode, links, bytes, size });
        } else if self.singles_count {
            self.sizes[self.tree] += size;
            *self.singles.entry((self.tree, self.tree)).or_default() += bytes;
        }
    }

    fn is_within_limit(&self) -> bool {
        self.max_entries.is_none_or(|max| self.usage.entries <= max)
    }

    /// Counts all of one tree; false if there are more entries than the limit.
    fn walk(&mut self, tree: &UsageTree) -> bool {
        match DescentStart::root(tree.parent, tree.parent_path).and_then(Descent::new) {
            // What was counted tells whether the walk has ended early.
            Ok(mut descent) => drop(walk_into(&mut descent, &tree.name, self)),
            Err(_) => self.usage.unreadable += 1,
        }
        self.is_within_limit()
    }
}

impl Visitor for UsageCounter {
    fn go_on(&mut self) -> ControlFlow<()> {
        match self.is_within_limit() {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }

    fn entered(&mut self, _: &mut Descent, _: &CStr, stat: &FileStat) -> Subtree {
        self.add(stat, true);
        Subtree::Visit
    }

    fn file(&mut self, file: &VisitedFile) -> ControlFlow<()> {
        match stat_entry(file.directory, file.name) {
            Ok(stat) if file.descent.is_on_same_device(&stat) => self.add(&stat, false),
            Ok(_) => {}
            Err(cause) if is_no_part_of_tree(cause) => {}
            Err(_) => self.usage.unreadable += 1,
        }
        ControlFlow::Continue(())
    }

    fn failed(&mut self, _: &Descent, _: Option<&CStr>, _: Errno) -> ControlFlow<()> {
        self.usage.unreadable += 1;
        ControlFlow::Continue(())
    }
}

#[allow(clippy::useless_conversion, reason = "the width of the field differs by platform")]
fn links_of(stat: &FileStat) -> u64 {
    stat.st_nlink.into()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn freed_of(directory: &Path, names: &[&str], max_remembered: usize) -> Usage {
        let parent = fs::File::open(directory).expect("the directory");
        let tree = |name: &&str| UsageTree {
            parent: parent.as_fd(),
            parent_path: directory,
            name: CString::new(*name).expect("a name"),
        };
        let trees: Vec<UsageTree> = names.iter().map(tree).collect();
        freed_remembering(&trees, None, max_remembered).expect("no limit")
    }

    /// Two trees that share 200 files with each other, and 100 of them with a third.
    fn shared_trees() -> tempfile::TempDir {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let path = |tree: &str, name: String| scratch.path().join(tree).join("sub").join(name);
        for tree in ["a", "b", "stays"] {
            fs::create_dir_all(scratch.path().join(tree).join("sub")).expect("a directory");
        }
        for number in 0..200 {
            let name = format!("file {number}");
            fs::write(path("a", name.clone()), vec![1; 5_000]).expect("a file");
            fs::hard_link(path("a", name.clone()), path("b", name.clone())).expect("a link");
            if number % 2 == 0 {
                fs::hard_link(path("a", name.clone()), path("stays", name)).expect("a link");
            }
        }
        scratch
    }

    fn blocks(path: &Path) -> u64 {
        fs::symlink_metadata(path).expect("metadata").blocks() * BLOCK_BYTES
    }

    #[test]
    fn a_file_is_freed_with_its_last_link() {
        let scratch = shared_trees();
        let directories: u64 = ["a", "a/sub", "b", "b/sub"]
            .map(|name| blocks(&scratch.path().join(name)))
            .iter()
            .sum();
        let file = blocks(&scratch.path().join("a/sub/file 1"));
        let both = freed_of(scratch.path(), &["a", "b"], MAX_REMEMBERED);
        assert_eq!(both, Usage { bytes: directories + 100 * file, entries: 404, unreadable: 0 });
        let all = freed_of(scratch.path(), &["a", "b", "stays"], MAX_REMEMBERED);
        assert!(all.bytes >= both.bytes + 100 * file, "{all:?}");
        let one = freed_of(scratch.path(), &["a", "gone"], MAX_REMEMBERED);
        assert_eq!(one.entries, 202);
        assert!(one.bytes <= directories, "{one:?}");
    }

    /// Adds 50 files with both their links in one tree, so that they are done with early.
    fn add_twins(directory: &Path) {
        for number in 0..50 {
            let name = |which: &str| directory.join(format!("{which} {number}"));
            fs::write(name("twin"), vec![1; 5_000]).expect("a file");
            fs::hard_link(name("twin"), name("brother")).expect("a link");
        }
    }

    #[test]
    fn the_answer_does_not_depend_on_how_much_is_remembered() {
        let scratch = shared_trees();
        add_twins(&scratch.path().join("a"));
        let expected = freed_of(scratch.path(), &["a", "b"], MAX_REMEMBERED);
        for max_remembered in [1, 7, 100, 199] {
            assert_eq!(
                freed_of(scratch.path(), &["a", "b"], max_remembered),
                expected,
                "{max_remembered}"
            );
        }
    }

    #[test]
    fn each_range_of_trees_frees_what_no_other_holds() {
        let scratch = shared_trees();
        let parent = fs::File::open(scratch.path()).expect("the directory");
        let tree = |name: &str| UsageTree {
            parent: parent.as_fd(),
            parent_path: scratch.path(),
            name: CString::new(name).expect("a name"),
        };
        let counted = freed_by_each(&[tree("a"), tree("b")], 1_000);
        let shared = counted.gains.iter().find(|gain| (gain.first, gain.last) == (0, 1));
        let file = blocks(&scratch.path().join("a/sub/file 1"));
        assert_eq!((counted.trees, shared.map(|gain| gain.bytes)), (2, Some(100 * file)));
        let counted = freed_by_each(&[tree("a"), tree("b")], 300);
        assert_eq!(counted.trees, 1, "the second was too much");
        assert!(counted.gains.iter().all(|gain| gain.last == 0), "{:?}", counted.gains);
    }

    #[test]
    fn too_many_entries_are_not_counted_to_the_end() {
        let scratch = shared_trees();
        let parent = fs::File::open(scratch.path()).expect("the directory");
        let tree = || {
            vec![UsageTree {
                parent: parent.as_fd(),
                parent_path: scratch.path(),
                name: c"a".into(),
            }]
        };
        assert_eq!(freed_remembering(&tree(), Some(201), MAX_REMEMBERED), None);
        assert!(freed_remembering(&tree(), Some(202), MAX_REMEMBERED).is_some());
    }
}
