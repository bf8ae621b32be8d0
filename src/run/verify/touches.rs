//! Decides whether a touched file was written to, or whether a client only linked, renamed or
//! removed a name of it: in the latter case its names differ before and after. It only reads.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::decide::damage::{NameSum, is_in_place, last_before};
use crate::decide::lacking::LostLinks;
use crate::decide::vanished::{RemovedLinks, was_moved_first};
use crate::engine::baseline::inspect_entry;
use crate::engine::inodes::{InodeName, walk};
use crate::run::verify::evidence::{CheckedSnapshot, Evidence, Touch};
use crate::run::verify::lacking::{LackingTree, lost_trees};
use crate::store::dir::{c_name, names_in};
use crate::store::inode_log::windows::LinkWindows;
use crate::store::layout::Subdir;
use crate::tell::error::Result;

#[derive(Default)]
pub(crate) struct ConfirmedTouches {
    /// Touches that only writing in place explains.
    pub(crate) in_place: Vec<Touch>,
    /// How many inodes may have been touched by a rename or a removal, or have a link elsewhere.
    pub(crate) unprovable: u64,
    /// Inodes whose touches the links explain that a snapshot has lost.
    pub(crate) explained: HashSet<u64>,
    /// The snapshots that have lost these links.
    pub(crate) lost: Vec<(String, LostLinks)>,
}

/// A touch, and the names of its inode in the trees before and after it.
struct TouchInterval {
    touch: Touch,
    /// The number of the snapshot before it. The tree after it is the next snapshot, or the module.
    before: usize,
    names: [NameSum; 2],
    /// The most names in one of the snapshots before that.
    older: NameSum,
    /// The snapshot before that which is being read, and the names in it.
    reading: (usize, NameSum),
    /// The names in each snapshot that lacks entries.
    lacking: Vec<NameSum>,
}

impl TouchInterval {
    /// Notes a name in the snapshot `place`, which is older than those around the touch.
    fn note_older(&mut self, place: usize, path_hash: u64) {
        if self.reading.0 != place {
            self.reading = (place, NameSum::default());
        }
        self.reading.1.add(path_hash);
        if self.older.is_fewer_than(self.reading.1) {
            self.older = self.reading.1;
        }
    }
}

/// The links of the touched inodes: how many each has, and how many names were found.
type LinkCounts = HashMap<u64, (u64, u64)>;

/// The touches by inode number, each between two trees.
type TouchIntervals = HashMap<u64, Vec<TouchInterval>>;

/// Finds out which of the `touches` only writing in place explains. `held`: how many inodes each
/// vanished snapshot may have held.
pub(crate) fn confirm(
    evidence: &Evidence,
    windows: &LinkWindows,
    touches: Vec<Touch>,
    held: &[u64],
    lacking: &[LackingTree],
) -> Result<ConfirmedTouches> {
    // If a run linked the inode during the survey, a window explains that change time by now.
    let touches: Vec<Touch> =
        touches.into_iter().filter(|touch| !windows.cover(touch.at.as_ns())).collect();
    let (touches, moved_inodes) = without_removed_links(&evidence.removed_links, held, touches);
    if touches.is_empty() {
        return Ok(ConfirmedTouches { unprovable: moved_inodes, ..ConfirmedTouches::default() });
    }
    let mut recorded: Vec<&CheckedSnapshot> =
        evidence.snapshots.iter().chain(&evidence.retired).collect();
    recorded.retain(|snapshot| snapshot.position.is_some());
    recorded.sort_by_key(|snapshot| snapshot.position);
    let (mut intervals, unprovable) = intervals_of(evidence, &recorded, touches);
    collect_names(evidence, &recorded, &mut intervals);
    let lost_trees = lost_trees(evidence, lacking);
    for one in intervals.values_mut().flatten() {
        one.lacking = vec![NameSum::default(); lost_trees.len()];
    }
    for (number, tree) in lost_trees.iter().enumerate() {
        evidence.walk(tree.snapshot, &mut |name| {
            for one in intervals.get_mut(&name.inode).into_iter().flatten() {
                one.lacking[number].add(hash(name));
            }
        });
    }
    let links = count_links(evidence, &intervals)?;
    // If a snapshot has gone, this is not certain: it may have shown that a name was added and
    // removed again.
    let is_settled = names_in(evidence.root.subdir(Subdir::Staging)?.dir())?.is_empty()
        && recorded.iter().all(|snapshot| evidence.is_still_there(snapshot));
    let mut confirmed =
        ConfirmedTouches { unprovable: unprovable + moved_inodes, ..ConfirmedTouches::default() };
    let mut explains = vec![false; lost_trees.len()];
    for (inode, mut of_inode) in intervals {
        let mut is_lost_link = |one: &TouchInterval| {
            let others = [one.names[0], one.names[1], one.older];
            let (at_ns, linked_ns) = (one.touch.at.as_ns(), one.touch.linked_ns);
            let found = lost_trees
                .iter()
                .zip(&one.lacking)
                .position(|(tree, here)| tree.lost.explain(at_ns, linked_ns, *here, others));
            found.inspect(|tree| explains[*tree] = true).is_some()
        };
        let before = of_inode.len();
        of_inode.retain(|one| !is_lost_link(one));
        if of_inode.len() < before {
            confirmed.explained.insert(inode);
        }
        if of_inode.is_empty() {
            continue;
        }
        // A link that another program made outside of the snapshots and the module.
        let is_linked_elsewhere = links.get(&inode).is_some_and(|(links, names)| links > names);
        let is_proved = |one: &&TouchInterval| {
            is_settled && !is_linked_elsewhere && is_in_place(one.names[0], one.names[1], one.older)
        };
        let in_place: Vec<Touch> = of_inode.iter().filter(is_proved).map(|one| one.touch).collect();
        confirmed.unprovable += u64::from(in_place.is_empty());
        confirmed.in_place.extend(in_place);
    }
    let lost = lost_trees.iter().zip(explains).filter(|(_, explains)| *explains);
    confirmed.lost = lost.map(|(tree, _)| (tree.snapshot.name.clone(), tree.lost)).collect();
    Ok(confirmed)
}

/// The touches that no removal of a vanished snapshot's links explains, and how many inodes lost
/// their links to a snapshot that seems to have been moved away first. Of these, nothing is proved.
fn without_removed_links(
    removed: &[RemovedLinks],
    held: &[u64],
    mut touches: Vec<Touch>,
) -> (Vec<Touch>, u64) {
    let mut moved_inodes = HashSet::new();
    for (links, held) in removed.iter().zip(held) {
        let of_links: Vec<&Touch> =
            touches.iter().filter(|touch| links.may_be_of(touch.linked_ns)).collect();
        let is_later = |touch: &Touch| {
            touch.recorded.is_none()
                && links.may_be_of(touch.linked_ns)
                && links.ended_before(touch.at.as_ns())
        };
        let touched = of_links.iter().filter(|touch| links.cover(touch.at.as_ns())).count() as u64;
        let later: HashSet<u64> =
            of_links.iter().filter(|touch| is_later(touch)).map(|touch| touch.inode).collect();
        let was_moved = links.is_whole() && was_moved_first(*held, touched, later.len() as u64);
        touches.retain(|touch| {
            let is_removed_link = links.may_be_of(touch.linked_ns) && links.cover(touch.at.as_ns());
            let is_explained = is_removed_link || was_moved && is_later(touch);
            !is_explained
        });
        moved_inodes.extend(later.into_iter().filter(|_| was_moved));
    }
    (touches, moved_inodes.len() as u64)
}

/// Finds the snapshot before each touch among the `recorded` ones, oldest first. Returns the number
/// of touches, too, for which there is none that proves anything.
fn intervals_of(
    evidence: &Evidence,
    recorded: &[&CheckedSnapshot],
    touches: Vec<Touch>,
) -> (TouchIntervals, u64) {
    let began: Vec<i64> = recorded.iter().map(|snapshot| snapshot.began_ns).collect();
    // A recorded touch counts only while both snapshots next to it exist: a name that was removed
    // in between would have moved the inode's present change time, but not the recorded one.
    let is_next = |before: usize, position| {
        let (before, after) =
            (recorded[before].position, recorded.get(before + 1).and_then(|after| after.position));
        let is_followed = |before| {
            evidence
                .inode_log
                .as_ref()
                .is_some_and(|inode_log| inode_log.is_followed_by(before, position))
        };
        after == Some(position) && before.is_some_and(is_followed)
    };
    let (mut intervals, mut unprovable) = (TouchIntervals::new(), 0);
    for touch in touches {
        let before = last_before(&began, touch.at.as_ns())
            .filter(|before| touch.recorded.is_none_or(|position| is_next(*before, position)));
        match before {
            Some(before) => intervals.entry(touch.inode).or_default().push(TouchInterval {
                touch,
                before,
                names: Default::default(),
                older: NameSum::default(),
                reading: Default::default(),
                lacking: Vec::new(),
            }),
            None => unprovable += 1,
        }
    }
    (intervals, unprovable)
}

/// Notes the names of the touched inodes in all `recorded` snapshots and in the module.
fn collect_names(
    evidence: &Evidence,
    recorded: &[&CheckedSnapshot],
    intervals: &mut TouchIntervals,
) {
    for (place, snapshot) in recorded.iter().enumerate() {
        collect(intervals, place, |visit| {
            evidence.walk(snapshot, visit);
        });
    }
    if let Ok(module) = evidence.root.module() {
        collect(intervals, recorded.len(), |visit| {
            walk(module, &evidence.root.module_path, c".", visit);
        });
    }
}

/// Counts the links of the touched inodes, and their names in all trees that may have some.
fn count_links(evidence: &Evidence, intervals: &TouchIntervals) -> Result<LinkCounts> {
    let mut counts = LinkCounts::new();
    let mut count = |name: &InodeName| {
        if !intervals.contains_key(&name.inode) {
            return;
        }
        let links = inspect_entry(name.directory, name.name).map_or(0, |inode| inode.links);
        let counted = counts.entry(name.inode).or_default();
        *counted = (links.max(counted.0), counted.1 + 1);
    };
    for snapshot in evidence.snapshots.iter().chain(&evidence.retired) {
        evidence.walk(snapshot, &mut count);
    }
    let root = evidence.root;
    if let Ok(module) = root.module() {
        walk(module, &root.module_path, c".", &mut count);
    }
    let unremovable = root.subdir(Subdir::Unremovable)?;
    for name in names_in(unremovable.dir())? {
        walk(unremovable.dir().directory, unremovable.dir().path, &c_name(&name), &mut count);
    }
    Ok(counts)
}

/// Notes the names in one tree of inodes that were touched just after or just before it. `place`
/// is the number of the snapshot; that of the module is one more than the last.
fn collect(
    intervals: &mut TouchIntervals,
    place: usize,
    walk: impl FnOnce(&mut dyn FnMut(&InodeName)),
) {
    walk(&mut |name| {
        for one in intervals.get_mut(&name.inode).into_iter().flatten() {
            if one.before == place {
                one.names[0].add(hash(name));
            } else if one.before + 1 == place {
                one.names[1].add(hash(name));
            } else if one.before > place {
                one.note_older(place, hash(name));
            }
        }
    });
}

fn hash(name: &InodeName) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.path().hash(&mut hasher);
    hasher.finish()
}
