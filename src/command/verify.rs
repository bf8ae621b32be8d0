//! `verify`: finds files in snapshots that were altered in place, and repairs their attributes if
//! asked to.

use std::ffi::OsStr;

use serde::Serialize;

use crate::command::list_view::VanishedView;
use crate::command::print_json;
use crate::decide::comparison_gap::ComparisonGap;
use crate::decide::root_overlap::Opener;
use crate::module::context::Context;
use crate::module::target::Target;
use crate::run::verify::commands;
use crate::run::verify::repair::{self, Repaired};
use crate::run::verify::verified::{AlteredPath, LackingSnapshot, SnapshotGap, Verified};
use crate::system::clock::Clock;
use crate::tell::counted;
use crate::tell::error::Result;
use crate::tell::escape::{escape, escape_path};
use crate::tell::exit::Exit;
use crate::tell::output::print;

/// Verifies each module, after a repair if `repairs`. The exit status is a failure if any file is
/// altered.
pub(crate) fn run(
    context: &Context,
    module: Option<&OsStr>,
    repairs: bool,
    json: bool,
) -> Result<Exit> {
    let mut views = Vec::new();
    let exit = context.change_each(module, None, Opener::Upkeep, |target| {
        let (verified, repaired) = match repairs {
            true => {
                let mut repaired = repair::repair(target, &Clock::System)?;
                (std::mem::take(&mut repaired.after), Some(repaired))
            }
            false => (commands::verify(target, &Clock::System)?, None),
        };
        for trouble in repaired.iter().flat_map(|repaired| &repaired.troubles) {
            log::warn!("{}: {trouble}", target.label());
        }
        if let Some(line) = &verified.vanished.message {
            log::warn!("{}: {line}", target.label());
        }
        let is_incomplete = verified.unreadable > 0
            || verified.lost_bytes > 0
            || verified.lost_windows
            || verified.is_uncertain()
            || verified.gaps.iter().any(|one| one.gap.is_loss);
        let is_damaged = verified.is_damaged();
        let view = VerifyView::new(target, &verified, repaired.as_ref());
        let has_news = is_damaged || is_incomplete || repaired.is_some();
        if !json && (has_news || !context.is_quiet()) {
            print(&view.to_text(target))?;
        }
        views.push(view);
        Ok(match (is_damaged, is_incomplete) {
            (true, _) => Exit::Failed,
            (false, true) => Exit::Warnings,
            (false, false) => Exit::Done,
        })
    })?;
    if json {
        print_json(module.is_some(), &views)?;
    }
    Ok(exit)
}

/// The JSON that docs describe.
#[derive(Serialize)]
struct VerifyView {
    module: Option<String>,
    snapshot_root: String,
    snapshots: usize,
    subvolumes: usize,
    cephfs_snapshots: usize,
    changed_subvolumes: Vec<String>,
    damaged_snapshots: usize,
    files: u64,
    new_in_catalogue: u64,
    unprovable: u64,
    unstable: u64,
    unreadable: u64,
    lost_catalogue_bytes: u64,
    change_times: bool,
    #[serde(skip)]
    has_lost_windows: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_system: Option<String>,
    altered_files: usize,
    altered: Vec<AlteredView>,
    lacking: Vec<LackingView>,
    vanished: Vec<VanishedView>,
    not_compared: Vec<GapView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repaired: Option<RepairView>,
}

/// What of some snapshots could not be compared with what was recorded.
#[derive(Serialize)]
struct GapView {
    snapshots: Vec<String>,
    lost: bool,
    why: String,
}

#[derive(Serialize)]
struct RepairView {
    restored_files: u64,
    lost: Vec<LostView>,
}

#[derive(Serialize)]
struct LostView {
    path: String,
    last_good_snapshot: Option<String>,
    #[serde(skip)]
    why: &'static str,
}

impl RepairView {
    fn new(repaired: &Repaired) -> Self {
        let lost = repaired.lost.iter().map(|lost| LostView {
            path: escape(&lost.path),
            last_good_snapshot: lost.good.clone(),
            why: match lost.differs_in_attributes {
                true => ", since snapshots recorded different attributes of it, or too large ones",
                false => "",
            },
        });
        RepairView { restored_files: repaired.restored, lost: lost.collect() }
    }

    fn to_text(&self, label: &str) -> String {
        let mut text = String::new();
        for LostView { path, last_good_snapshot, why } in &self.lost {
            text += &match last_good_snapshot {
                Some(good) => format!("{path}: not restored{why}; {good} has an earlier file\n"),
                None => {
                    format!("{path}: not restored{why}; no earlier snapshot has another file\n")
                }
            };
        }
        text + &format!("{label}: attributes of {} restored\n", files(self.restored_files))
    }
}

/// A snapshot in which another program removed, added or exchanged entries.
#[derive(Serialize)]
struct LackingView {
    snapshot: String,
    entries: u64,
    lacks: u64,
    added: u64,
    changed_directories: Vec<String>,
    first: Vec<String>,
    #[serde(skip)]
    text: String,
}

#[derive(Serialize)]
struct AlteredView {
    path: String,
    changes: Vec<InodeChangeView>,
    snapshots: Vec<String>,
}

#[derive(Serialize)]
struct InodeChangeView {
    what: &'static str,
    text: String,
}

impl VerifyView {
    fn new(target: &Target, verified: &Verified, repaired: Option<&Repaired>) -> Self {
        VerifyView {
            module: target.name.as_deref().map(escape),
            snapshot_root: escape_path(&target.root_path),
            snapshots: verified.snapshots,
            subvolumes: verified.subvolumes,
            cephfs_snapshots: verified.cephfs_snapshots,
            changed_subvolumes: verified.changed_subvolumes.clone(),
            damaged_snapshots: verified.damaged_snapshots(),
            files: verified.inodes,
            new_in_catalogue: verified.unknown,
            unprovable: verified.unprovable,
            unstable: verified.unstable,
            file_system: verified.file_system.clone(),
            unreadable: verified.unreadable,
            lost_catalogue_bytes: verified.lost_bytes,
            change_times: verified.has_windows,
            has_lost_windows: verified.lost_windows,
            altered_files: verified.altered_inodes.len(),
            altered: verified.altered.iter().map(AlteredView::new).collect(),
            lacking: verified.lacking.iter().map(LackingView::new).collect(),
            vanished: verified.vanished.snapshots.iter().map(VanishedView::new).collect(),
            not_compared: gap_views(&verified.gaps),
            repaired: repaired.map(RepairView::new),
        }
    }

    fn to_text(&self, target: &Target) -> String {
        let label = &target.label();
        let mut text =
            self.repaired.as_ref().map(|repaired| repaired.to_text(label)).unwrap_or_default();
        for LackingView { text: differs, lacks, added, first, .. } in &self.lacking {
            let named =
                if first.is_empty() { String::new() } else { format!(": {}", first.join(", ")) };
            let is_more = !first.is_empty() && (first.len() as u64) < lacks + added;
            text += &format!("{differs}{named}{}\n", if is_more { " ..." } else { "" });
        }
        for AlteredView { path, changes, snapshots } in &self.altered {
            let changes: Vec<&str> = changes.iter().map(|change| change.text.as_str()).collect();
            text += &format!("{path}: {}\n    in {}\n", changes.join(", "), snapshots.join(", "));
        }
        let next = self.next_step(target);
        let gaps = self.not_compared.iter().map(GapView::to_text);
        for line in std::iter::once(self.summary()).chain(self.notes()).chain(gaps).chain(next) {
            text += &format!("{label}: {line}\n");
        }
        text
    }

    /// What to do about damage.
    fn next_step(&self, target: &Target) -> Option<String> {
        let is_of_attributes = |one: &AlteredView| {
            one.changes
                .iter()
                .all(|change| ["mode", "owner", "mtime", "xattr"].contains(&change.what))
        };
        let repair = match self.repaired.is_none() && self.altered.iter().any(is_of_attributes) {
            true => format!(
                "`{}` restores attributes; ",
                target.command("verify", "--repair-attributes")
            ),
            false => String::new(),
        };
        let release = || target.command("release", "--damage");
        if self.damaged_snapshots > 0 {
            let release = release();
            return Some(format!(
                "expiry is paused: {repair}`{release}` accepts the files as they are"
            ));
        }
        let has_lost = self.not_compared.iter().any(|one| one.lost);
        has_lost.then(|| format!("`{}` accepts that, and ends the warning", release()))
    }

    /// How many files were looked at, and how many of them are altered.
    fn summary(&self) -> String {
        let result = match self.altered_files {
            0 if self.unstable > 0 => "whether any was altered cannot be told".to_string(),
            0 => match self.damaged_snapshots {
                0 => "none altered".to_string(),
                count => {
                    let all = |is_one: fn(&LackingView) -> bool| self.lacking.iter().all(is_one);
                    let what = match () {
                        () if all(|one| one.lacks > 0) => "are missing in",
                        () if all(|one| one.added > 0) => "were added to",
                        () if all(|one| one.lacks + one.added == 0) => "were exchanged in",
                        () => "are missing in or were added to",
                    };
                    format!("none altered, but entries {what} {}", counted(count, "snapshot"))
                }
            },
            count => format!(
                "{count} altered, which damages {}",
                counted(self.damaged_snapshots, "snapshot")
            ),
        };
        let snapshots = counted(self.snapshots, "snapshot");
        format!("{} in {snapshots} looked at, {result}", files(self.files))
    }

    /// What the verification could not find out, one line for each cause.
    fn notes(&self) -> Vec<String> {
        // Of sealed snapshots alone, no change times are needed.
        let sealed = self.subvolumes + self.cephfs_snapshots;
        let lacks_change_times = !self.change_times && (self.snapshots > 0 || sealed == 0);
        let of_files =
            |count: u64, message: &str| (count > 0).then(|| format!("{} {message}", files(count)));
        let notes = [
            of_files(
                self.new_in_catalogue,
                "not recorded before: recorded now as found, so nothing is known of what they were",
            ),
            of_files(
                self.unstable,
                "whose inode numbers change each time they are read: cannot tell whether they \
                 were altered",
            ),
            of_files(
                self.unprovable,
                "touched in a way that may have been a rename or a deletion: no proof of harm",
            ),
            (self.unreadable > 0).then(|| {
                format!("files and directories that could not be read: {}", self.unreadable)
            }),
            (self.lost_catalogue_bytes > 0).then(|| {
                format!(
                    "{} bytes of the inode log are damaged; what they held is recorded anew as \
                     found",
                    self.lost_catalogue_bytes
                )
            }),
            self.file_system.clone(),
            (self.subvolumes > 0).then(|| {
                format!(
                    "{} of btrfs not compared: nothing can be changed there, and `btrfs scrub` \
                     checks the content on the disk",
                    counted(self.subvolumes, "read-only snapshot")
                )
            }),
            (self.cephfs_snapshots > 0).then(|| {
                format!(
                    "{} of CephFS not compared: nothing can be changed there, and the deep scrubs \
                     of the cluster check the content on its disks",
                    counted(self.cephfs_snapshots, "snapshot")
                )
            }),
            (!self.changed_subvolumes.is_empty()).then(|| {
                format!(
                    "these btrfs snapshots can be or were written to, so they may not be what was \
                     backed up: {}",
                    self.changed_subvolumes.join(", ")
                )
            }),
            lacks_change_times.then(|| {
                let why = match self.has_lost_windows {
                    true => {
                        ", since it is not known when earlier runs made links: inodes/windows is \
                         damaged, cannot be read, or a run could not write it, as on a full disk"
                    }
                    false => "",
                };
                format!("change times count only from the next snapshot on{why}")
            }),
        ];
        notes.into_iter().flatten().collect()
    }
}

/// The gaps, with all snapshots of which the same is true together.
fn gap_views(gaps: &[SnapshotGap]) -> Vec<GapView> {
    let mut views: Vec<GapView> = Vec::new();
    for SnapshotGap { snapshot, gap: ComparisonGap { text, is_loss }, .. } in gaps {
        match views.iter_mut().find(|view| view.why == *text) {
            Some(view) => view.snapshots.push(snapshot.clone()),
            None => views.push(GapView {
                snapshots: vec![snapshot.clone()],
                lost: *is_loss,
                why: text.clone(),
            }),
        }
    }
    views
}

impl GapView {
    fn to_text(&self) -> String {
        const NAMED: usize = 3;
        let more = self.snapshots.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let named: Vec<&str> = self.snapshots.iter().take(NAMED).map(String::as_str).collect();
        let each = if self.snapshots.len() > 1 { "each of " } else { "" };
        format!("not everything can be compared in {each}{}{more}: {}", named.join(", "), self.why)
    }
}

fn files(count: u64) -> String {
    counted(usize::try_from(count).unwrap_or(usize::MAX), "file")
}

impl LackingView {
    fn new(lacking: &LackingSnapshot) -> Self {
        LackingView {
            snapshot: lacking.name.clone(),
            entries: lacking.recorded,
            lacks: lacking.lacks,
            added: lacking.added,
            changed_directories: lacking.changed_first.iter().map(|path| escape(path)).collect(),
            text: lacking.text(),
            first: lacking.first.iter().map(|path| escape(path)).collect(),
        }
    }
}

impl AlteredView {
    fn new(altered: &AlteredPath) -> Self {
        let change = |change: &crate::decide::damage::InodeChange| InodeChangeView {
            what: change.word(),
            text: change.to_string(),
        };
        AlteredView {
            path: escape(&altered.path),
            changes: altered.changes.iter().map(change).collect(),
            snapshots: altered.snapshots.clone(),
        }
    }
}
