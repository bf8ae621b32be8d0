//! Finds all paths of altered inodes, in all snapshots that they damage. It only reads.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::decide::damage::{FileTime, InodeChange, applicable, changes};
use crate::engine::baseline::{Baseline, Inode};
use crate::engine::content::{HashLimit, HashResult, content_hash};
use crate::engine::inodes::InodeName;
use crate::run::verify::evidence::{CheckedSnapshot, Evidence, Touch};
use crate::run::verify::survey::present;
use crate::run::verify::verified::AlteredPath;
use crate::store::inode_log::reader::{InodeLog, LogPosition};

/// An altered inode as it is now, with its records.
struct AlteredInode {
    inode: Inode,
    baselines: Vec<(LogPosition, Baseline)>,
    touches: Vec<FileTime>,
    /// Recorded hashes of the content, and the hash of the present content.
    hashes: Vec<(LogPosition, [u8; 32])>,
    hash: Option<[u8; 32]>,
}

impl AlteredInode {
    /// How the inode differs from its records of this snapshot.
    fn changes_in(&self, snapshot: &CheckedSnapshot) -> Vec<InodeChange> {
        let was = applicable(&self.baselines, snapshot.position.unwrap_or(0));
        let mut found = was
            .map(|was| changes(&was.inode.attributes, &self.inode.attributes))
            .unwrap_or_default();
        let hash = applicable(&self.hashes, snapshot.position.unwrap_or(0));
        if self.hash.is_some_and(|now| hash.is_some_and(|hash| *hash != now)) {
            found.push(InodeChange::Content);
        }
        let last = self.touches.iter().filter(|touched| snapshot.began_ns <= touched.as_ns()).max();
        found.extend(last.copied().map(InodeChange::WrittenInPlace));
        found
    }
}

pub(crate) fn altered_paths(
    evidence: &Evidence,
    altered: &HashSet<u64>,
    touched: &[Touch],
) -> Vec<AlteredPath> {
    let Some(inode_log) = &evidence.inode_log else { return Vec::new() };
    if altered.is_empty() && touched.is_empty() {
        return Vec::new();
    }
    let mut touches: HashMap<u64, Vec<FileTime>> = HashMap::new();
    for touch in touched {
        touches.entry(touch.inode).or_default().push(touch.at);
    }
    let mut inspected: HashMap<u64, Option<AlteredInode>> = HashMap::new();
    // By path, inode and kind of change: one line of output each.
    let mut found: BTreeMap<(Vec<u8>, u64, String), AlteredPath> = BTreeMap::new();
    for snapshot in &evidence.snapshots {
        let mut here = Vec::new();
        evidence.walk(snapshot, &mut |name: &InodeName| {
            if !altered.contains(&name.inode) && !touches.contains_key(&name.inode) {
                return;
            }
            let inspected = inspected
                .entry(name.inode)
                .or_insert_with(|| inspect_altered(inode_log, &touches, name));
            let changes = inspected
                .as_ref()
                .map(|inspected| inspected.changes_in(snapshot))
                .unwrap_or_default();
            if !changes.is_empty() {
                here.push(AlteredPath {
                    path: name.path(),
                    inode: name.inode,
                    changes,
                    snapshots: Vec::new(),
                });
            }
        });
        if !evidence.is_still_there(snapshot) {
            continue;
        }
        for altered in here {
            let words: Vec<String> = altered.changes.iter().map(ToString::to_string).collect();
            let key = (altered.path.clone(), altered.inode, words.join(", "));
            found.entry(key).or_insert(altered).snapshots.push(snapshot.name.clone());
        }
    }
    found.into_values().collect()
}

/// Reads the inode of `name` and its records. `None` if it was touched again since the survey: such
/// an inode is left to the next verification.
fn inspect_altered(
    inode_log: &InodeLog,
    touches: &HashMap<u64, Vec<FileTime>>,
    name: &InodeName,
) -> Option<AlteredInode> {
    let inode = present(name).inspect_err(|error| log::warn!("{error}")).ok().flatten()?;
    let touches = touches.get(&name.inode).cloned().unwrap_or_default();
    let baselines = inode_log.baselines(inode.number, inode.birth_ns);
    let is_linked_since =
        !touches.is_empty() && inode.changed > touches.iter().copied().max().unwrap_or_default();
    let is_relinked = baselines.iter().any(|(_, baseline)| touches.contains(&baseline.touched));
    let hashes = inode_log.hashes(inode.number, inode.birth_ns);
    let hash = || match content_hash(name.directory, name.name, &inode, &mut HashLimit::none()) {
        HashResult::Hash(hash) => Some(hash),
        _ => None,
    };
    let hash = if hashes.is_empty() { None } else { hash() };
    (!is_linked_since || is_relinked).then_some(AlteredInode {
        inode,
        baselines,
        touches,
        hashes,
        hash,
    })
}
