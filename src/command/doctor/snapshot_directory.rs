//! What `check` finds about modules on CephFS whose clients reach the snapshots in `.snap`.
//!
//! Two things keep clients out: the rules of the module, or a mount whose Ceph user lacks the right
//! `s`, such as one with `allow rw`. Whether it has that right shows without a change: CephFS looks
//! at the right first, and then refuses a snapshot whose name begins with `_`.

use std::path::Path;

use crate::command::doctor::Doctor;
use crate::command::doctor::accounts;
use crate::command::doctor::prober::SnapshotRight;
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::command::writers::Writers;
use crate::config::hook_policy::PRE_XFER;
use crate::config::partial_dir_symlinks::missing_for_munged_links;
use crate::config::refused_push::offers_only_reading;
use crate::config::rsyncd_module::RsyncdModule;
use crate::config::snapshot_rules::{SnapshotRules, filter_line, may_clear_rules};
use crate::decide::file_system::FileSystemType;
use crate::module::target::Target;
use crate::system::mounts::Mounts;
use crate::tell::escape::escape;

/// How clients reach snapshots through a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WayToSnapshots {
    Closed,
    /// They name `.snap`, or send a directory of that name.
    ByName,
    /// They send a symbolic link that leads there.
    ByLink,
}

fn way_to_snapshots(rules: SnapshotRules, right: SnapshotRight) -> WayToSnapshots {
    match (right, rules) {
        (SnapshotRight::Lacking, _) => WayToSnapshots::Closed,
        (_, SnapshotRules { are_excluded: false, .. }) => WayToSnapshots::ByName,
        (_, SnapshotRules { are_links_harmless: false, .. }) => WayToSnapshots::ByLink,
        _ => WayToSnapshots::Closed,
    }
}

impl Doctor<'_> {
    /// The modules through which clients reach the snapshots that CephFS shows in the directory of
    /// `own`: that module, and others that no hook of ours guards.
    pub(crate) fn snapshot_directory_findings(
        &self,
        writers: &Writers,
        own: &RsyncdModule,
        target: &Target,
    ) -> Vec<Finding> {
        let mounts = Mounts::read();
        let kind = mounts.as_ref().and_then(|mounts| mounts.kind_of(&target.module_path));
        if !kind.is_some_and(FileSystemType::is_ceph) {
            return Vec::new();
        }
        let is_guarded = |module: &RsyncdModule| module.runs_this_program(PRE_XFER);
        let overlapping = writers.overlapping(&target.module_path).into_iter();
        let others = overlapping
            .map(|(_, module)| module)
            .filter(|module| module.name != own.name && !is_guarded(module));
        let own = Some(own).filter(|own| !offers_only_reading(own));
        let finding = |module| self.snapshot_directory_finding(module, &target.module_path);
        own.into_iter().chain(others).filter_map(finding).collect()
    }

    fn snapshot_directory_finding(
        &self,
        module: &RsyncdModule,
        directory: &Path,
    ) -> Option<Finding> {
        let rules = SnapshotRules::of(module);
        if way_to_snapshots(rules, SnapshotRight::Unknown) == WayToSnapshots::Closed {
            return None;
        }
        let right = self.snapshot_right(module, directory);
        let message = message(module, rules, way_to_snapshots(rules, right))?;
        Some(Finding::new(FindingId::SnapshotDirectory, Severity::Critical, message))
    }

    /// Whether the daemon may make snapshots of the directory as the user that it becomes for the
    /// module, on the mount that it sees.
    fn snapshot_right(&self, module: &RsyncdModule, directory: &Path) -> SnapshotRight {
        let user = self.daemon_user(module);
        let Ok(account) = accounts::of(module, user.as_ref()) else {
            return SnapshotRight::Unknown;
        };
        let daemon = self.daemon().map(|daemon| daemon.pid);
        let mut prober = self.prober.borrow_mut();
        prober.as_mut().map_or(SnapshotRight::Unknown, |prober| {
            prober.snapshot_right(daemon, directory, account.uid, &account.gids)
        })
    }
}

fn message(module: &RsyncdModule, rules: SnapshotRules, way: WayToSnapshots) -> Option<String> {
    let (parameter, how) = match way {
        WayToSnapshots::Closed => return None,
        WayToSnapshots::ByName => ("filter", ""),
        WayToSnapshots::ByLink => ("use chroot", " by a symbolic link that they send"),
    };
    let filter = (!rules.are_excluded).then(|| format!("`{}`", filter_line(module)));
    let of_links = missing_for_munged_links(module).into_iter().map(|line| format!("`{line}`"));
    let lines: Vec<String> = filter.into_iter().chain(of_links).collect();
    let clears = match !rules.are_excluded && may_clear_rules(module) {
        true => {
            ", take out `!`, `include from` and `exclude from`, which could take that rule back"
        }
        false => "",
    };
    Some(format!(
        "{}: clients of module '{}' can make and delete snapshots of CephFS in .snap{how}; write \
         {} there{clears}, or serve the module through a mount whose Ceph user lacks the right `s`",
        module.place_of(parameter),
        escape(&module.name),
        lines.join(" and "),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_or_the_lack_of_the_right_close_the_way() {
        use WayToSnapshots::{ByLink, ByName, Closed};
        for (are_excluded, are_links_harmless, otherwise) in [
            (false, false, ByName),
            (false, true, ByName),
            (true, false, ByLink),
            (true, true, Closed),
        ] {
            let rules = SnapshotRules { are_excluded, are_links_harmless };
            for right in [SnapshotRight::Held, SnapshotRight::Unknown] {
                assert_eq!(way_to_snapshots(rules, right), otherwise, "{rules:?}");
            }
            assert_eq!(way_to_snapshots(rules, SnapshotRight::Lacking), Closed, "{rules:?}");
        }
    }
}
