//! Text and JSON of `versions`.

use chrono::DateTime;
use serde::Serialize;

use crate::command::list_view::rfc3339;
use crate::command::snapshot_choice::Place;
use crate::decide::damage::FileTime;
use crate::decide::free_space::bytes_text;
use crate::decide::grade::Grade;
use crate::decide::name::SnapshotName;
use crate::decide::path_patterns::path_text;
use crate::decide::path_versions::{
    EntryKind, HolderFacts, PathVersions, SightedEntry, Sighting, Stretch, best_holder,
};
use crate::decide::snapshot_choice::LIVE;
use crate::decide::zone::Zone;
use crate::run::path_history::{HistoryTree, PathHistory, TreeKind, joined};
use crate::run::verify::known_damage::KnownDamage;
use crate::store::damage_file::DamagedFile;
use crate::tell::counted;
use crate::tell::escape::{escape, escape_path, shell_path};
use crate::tell::table::TextTable;
use crate::tell::terminal::line_width;

/// The JSON that docs describe.
#[derive(Serialize)]
pub(crate) struct VersionsView {
    module: Option<String>,
    snapshot_root: String,
    snapshots: usize,
    retired: usize,
    paths: Vec<PathView>,
}

/// The versions at one path.
#[derive(Serialize)]
pub(crate) struct PathView {
    path: String,
    versions: Vec<VersionView>,
    missing: Vec<Holders>,
    /// The history for the text: whether it is a version or a gap, by its number, and its trees.
    #[serde(skip)]
    stretches: Vec<(Option<usize>, Holders)>,
}

#[derive(Serialize)]
struct VersionView {
    first: Option<String>,
    last: Option<String>,
    snapshots: Vec<String>,
    retired: Vec<String>,
    live: bool,
    grade: Option<Grade>,
    kind: &'static str,
    size: Option<u64>,
    changed: Option<String>,
    mode: String,
    uid: u32,
    gid: u32,
    target: Option<String>,
    copy_from: String,
    damaged: Vec<String>,
    compared: bool,
    #[serde(skip)]
    damage: Option<String>,
    #[serde(skip)]
    modified: FileTime,
    /// The path to copy from, as a shell takes it.
    #[serde(skip)]
    word: String,
}

/// Some of the trees, oldest first.
#[derive(Serialize, Default)]
struct Holders {
    first: Option<String>,
    last: Option<String>,
    snapshots: Vec<String>,
    retired: Vec<String>,
    live: bool,
}

impl Holders {
    fn of<'a>(trees: impl Iterator<Item = &'a HistoryTree>) -> Self {
        let mut holders = Holders::default();
        for tree in trees {
            match &tree.kind {
                TreeKind::Live => holders.live = true,
                TreeKind::Snapshot(name) => holders.snapshots.push(name.text.clone()),
                TreeKind::Retired(name) => {
                    holders.snapshots.push(name.text.clone());
                    holders.retired.push(name.text.clone());
                }
            }
        }
        holders.first = holders.snapshots.first().cloned();
        holders.last = holders.snapshots.last().cloned();
        holders
    }
}

impl VersionsView {
    pub(crate) fn new(place: &Place, history: &PathHistory, paths: Vec<PathView>) -> Self {
        let name = place.target.as_ref().and_then(|target| target.name.as_deref());
        let all = Holders::of(history.trees.iter());
        VersionsView {
            module: name.map(escape),
            snapshot_root: escape_path(&place.root_path),
            snapshots: all.snapshots.len(),
            retired: all.retired.len(),
            paths,
        }
    }

    /// The text for a terminal.
    pub(crate) fn to_text(&self, place: &Place) -> String {
        let retired = match self.retired {
            0 => String::new(),
            count => format!(", {count} of them retired"),
        };
        let snapshots = counted(self.snapshots, "snapshot") + &retired;
        let text = |path: &PathView| {
            let versions = counted(path.versions.len(), "version");
            let heading = format!("{}: {versions} of {} in {snapshots}\n", place.label, path.path);
            heading + &path.to_text(&place.zone)
        };
        let mut text = self.paths.iter().map(text).collect::<Vec<_>>().join("\n");
        let versions = self.paths.iter().flat_map(|path| &path.versions);
        if versions.into_iter().any(|version| !version.retired.is_empty()) {
            text += "\n`undelete` brings a retired snapshot back, for as long as it is there.\n";
        }
        text
    }
}

impl PathView {
    pub(crate) fn new(
        history: &PathHistory,
        path: &[Vec<u8>],
        sightings: &[Sighting],
        found: &PathVersions,
        damage: &KnownDamage,
        is_compared: bool,
    ) -> Self {
        let facts = PathFacts { history, path, sightings, damage, is_compared };
        let versions = found.versions.iter().filter_map(|trees| facts.version(trees));
        let holders =
            |stretch: &Stretch| Holders::of(stretch.trees.iter().map(|tree| &history.trees[*tree]));
        let gaps = found.stretches.iter().filter(|stretch| stretch.version.is_none()).map(holders);
        PathView {
            path: path_text(path),
            versions: versions.collect(),
            missing: gaps.collect(),
            stretches: found
                .stretches
                .iter()
                .map(|stretch| (stretch.version, holders(stretch)))
                .collect(),
        }
    }

    fn to_text(&self, zone: &Zone) -> String {
        let mut table = TextTable::new(&["FIRST", "LAST", "COUNT", "SIZE", "CHANGED"]);
        // What follows each row of the table, the heading included.
        let mut notes = vec![String::new()];
        let mut told = 0;
        for (number, holders) in &self.stretches {
            let Some(version) = number.and_then(|number| self.versions.get(number)) else {
                if let Some(notes) = notes.last_mut() {
                    *notes += &missing_text(holders);
                }
                continue;
            };
            table.push(version.row(holders, zone));
            let before = number.and_then(|number| self.versions.get(number.checked_sub(1)?));
            // A version that comes back was told before.
            let of_version = match number.is_some_and(|number| number < told) {
                true => vec![format!("the version of {} again", version.since())],
                false => version.notes(before),
            };
            told = told.max(number.map_or(0, |number| number + 1));
            notes.push(of_version.iter().map(|note| format!("    {note}\n")).collect());
        }
        let rows = table.fit(line_width()).rows;
        rows.into_iter().zip(notes).map(|(row, notes)| row + &notes).collect()
    }
}

fn missing_text(holders: &Holders) -> String {
    let of_snapshots = match holders.snapshots.is_empty() {
        true => String::new(),
        false => format!("missing in {}\n", range(&holders.snapshots)),
    };
    let of_module = if holders.live { "missing in the module now\n" } else { "" };
    of_snapshots + of_module
}

/// The first and the last of some snapshots, and how many they are.
fn range(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first, .., last] => format!("{}, {first} to {last}", counted(names.len(), "snapshot")),
    }
}

impl VersionView {
    fn since(&self) -> &str {
        self.first.as_deref().unwrap_or(LIVE)
    }

    fn row(&self, holders: &Holders, zone: &Zone) -> Vec<String> {
        let last = if holders.live { LIVE } else { holders.last.as_deref().unwrap_or_default() };
        let moment = DateTime::from_timestamp(self.modified.seconds, 0);
        vec![
            holders.first.clone().unwrap_or_else(|| LIVE.to_string()),
            last.to_string(),
            holders.snapshots.len().to_string(),
            self.size.map_or_else(|| self.kind.to_string(), bytes_text),
            moment.map_or_else(
                || "-".to_string(),
                |moment| zone.to_local(moment).format("%Y-%m-%d %H:%M").to_string(),
            ),
        ]
    }

    /// The path to copy from, and what there is to know of this version; `before` is the one before
    /// it.
    fn notes(&self, before: Option<&VersionView>) -> Vec<String> {
        let mut notes = vec![self.word.clone()];
        notes.extend(self.target.as_ref().map(|target| format!("leads to {target}")));
        let access = |version: &VersionView| (version.mode.clone(), version.uid, version.gid);
        if before.is_some_and(|before| access(before) != access(self)) {
            notes.push(format!("mode {}, owner {}:{}", self.mode, self.uid, self.gid));
        }
        if self.grade == Some(Grade::Partial) && !self.live {
            notes.push("only in partial snapshots, which may be a mixture".to_string());
        }
        if !self.retired.is_empty() {
            notes.push(format!("retired: {}", range(&self.retired)));
        }
        if let Some(damage) = &self.damage {
            notes.push(damage.clone());
            notes.push(format!("in {}", range(&self.damaged)));
        }
        if !self.compared {
            let by = "some copies are compared only by size, time, mode and owner";
            notes.push(by.to_string());
        }
        notes
    }
}

/// What the views of one path are made of.
struct PathFacts<'a> {
    history: &'a PathHistory,
    path: &'a [Vec<u8>],
    sightings: &'a [Sighting],
    damage: &'a KnownDamage,
    is_compared: bool,
}

impl PathFacts<'_> {
    fn version(&self, trees: &[usize]) -> Option<VersionView> {
        let newest = *trees.last()?;
        let Sighting::Present(entry) = &self.sightings[newest] else { return None };
        let trees: Vec<&HistoryTree> =
            trees.iter().map(|tree| &self.history.trees[*tree]).collect();
        let altered = self.altered(&trees);
        let damaged: Vec<String> = trees
            .iter()
            .filter_map(|tree| tree.kind.snapshot())
            .filter(|name| altered.iter().any(|file| file.snapshots.contains(&name.text)))
            .map(|name| name.text.clone())
            .collect();
        let facts = |tree: &&HistoryTree| HolderFacts {
            is_live: tree.kind == TreeKind::Live,
            is_retired: matches!(tree.kind, TreeKind::Retired(_)),
            is_partial: tree.kind.snapshot().is_some_and(|name| name.grade == Grade::Partial),
            is_damaged: tree.kind.snapshot().is_some_and(|name| damaged.contains(&name.text)),
        };
        let best = best_holder(&trees.iter().map(facts).collect::<Vec<_>>())?;
        let path = joined(&trees[best].path, self.path);
        let Holders { first, last, snapshots, retired, live } = Holders::of(trees.iter().copied());
        let grades = trees.iter().filter_map(|tree| tree.kind.snapshot());
        let SightedEntry { attributes, .. } = entry;
        let kind = entry.kind();
        let is_link = kind == EntryKind::Symlink;
        let target = is_link.then(|| self.history.link_target(trees[best], self.path)).flatten();
        Some(VersionView {
            first,
            last,
            snapshots,
            retired,
            live,
            grade: grades.map(|name: &SnapshotName| name.grade).max(),
            kind: kind.word(),
            size: (kind == EntryKind::File).then_some(attributes.size_bytes),
            changed: DateTime::from_timestamp(attributes.modified.seconds, 0).map(rfc3339),
            mode: format!("{:04o}", attributes.mode & 0o7777),
            uid: attributes.uid,
            gid: attributes.gid,
            target: target.map(|target| escape(&target)),
            copy_from: escape_path(&path),
            damage: damage_text(kind, &altered),
            damaged,
            compared: self.is_compared,
            modified: attributes.modified,
            word: shell_path(&path),
        })
    }

    /// The files at or below the path that were altered in one of these trees.
    fn altered(&self, trees: &[&HistoryTree]) -> Vec<&DamagedFile> {
        let is_in = |file: &&DamagedFile| {
            let names = trees.iter().filter_map(|tree| tree.kind.snapshot());
            names.into_iter().any(|name| file.snapshots.contains(&name.text))
        };
        self.damage.below(self.path).filter(is_in).collect()
    }
}

fn damage_text(kind: EntryKind, altered: &[&DamagedFile]) -> Option<String> {
    let first = altered.first()?;
    Some(match kind {
        EntryKind::Directory => {
            format!("{} in it altered in place after the backup", counted(altered.len(), "file"))
        }
        _ => format!("altered in place after the backup ({})", first.change),
    })
}
