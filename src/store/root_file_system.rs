//! What the file system of a root lacks, by its type and by a trial, and what is said of it.

use crate::decide::file_system::{Expectation, FileSystemType, without_inode_numbers};
use crate::store::link_trial::LinkTrial;
use crate::store::root::SnapshotRoot;
use crate::store::snapshot_method::SnapshotMethod;

impl SnapshotRoot {
    pub(crate) fn kind(&self) -> FileSystemType {
        self.kind.clone().unwrap_or_else(|| FileSystemType("of an unknown type".to_string()))
    }

    /// What its file system is expected to do, by its type.
    pub fn expectation(&self) -> Expectation {
        self.kind.as_ref().map_or(Expectation::Fit, FileSystemType::expectation)
    }

    /// Whether a listing of its directories may be older than their entries.
    pub fn may_list_late(&self) -> bool {
        self.kind.as_ref().is_none_or(FileSystemType::is_served)
    }

    /// The warning if its file system lacks something that snapshots need, by its type or by a
    /// trial.
    pub fn file_system_warning(&self) -> Option<String> {
        match self.expectation() {
            Expectation::Faulty(why) => Some(self.on_file_system(why)),
            _ => self.inode_number_warning(),
        }
    }

    /// The warning if a trial has shown that inode numbers change.
    pub fn inode_number_warning(&self) -> Option<String> {
        let is_shown = self.trial == Some(LinkTrial::NoInodeNumbers);
        is_shown.then(|| format!("{}: {}", self.label(), without_inode_numbers(&self.kind())))
    }

    /// Advice about a file system on which everything works.
    pub fn file_system_advice(&self) -> Option<String> {
        match self.expectation() {
            Expectation::Advised(why) => Some(self.on_file_system(why)),
            _ => None,
        }
    }

    fn on_file_system(&self, why: &str) -> String {
        format!("{} is on the file system {}: {why}", self.label(), self.kind())
    }

    /// The note about a file system on which no trial has been made yet.
    pub fn untried(&self) -> Option<String> {
        let is_linked = self.method() == SnapshotMethod::HardLinks;
        let is_untried = !self.is_registered() && self.expectation() == Expectation::Untried;
        (is_linked && is_untried).then(|| {
            format!(
                "its file system, {}, may lack hard links or inode numbers that stay: a first \
                 `snapshot` tries it",
                self.kind()
            )
        })
    }

    /// Whether what is new in the module has to be synced file by file before a snapshot is made
    /// of it, since no other call makes its content durable.
    pub(crate) fn must_sync_files(&self) -> bool {
        let is_fuse = self.kind.as_ref().is_some_and(FileSystemType::is_ceph_fuse);
        is_fuse && self.method() == SnapshotMethod::CephFs
    }
}
