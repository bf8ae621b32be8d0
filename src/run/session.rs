//! What a run works with from its first mark to its last.

use crate::module::target::Target;
use crate::store::root::SnapshotRoot;
use crate::system::clock::Clock;

/// A module, its open snapshot root, and the clock.
#[derive(Clone, Copy)]
pub(crate) struct Session<'a> {
    pub(crate) target: &'a Target,
    pub(crate) root: &'a SnapshotRoot,
    pub(crate) clock: &'a Clock,
}

impl Session<'_> {
    /// How messages name the module.
    pub(crate) fn label(&self) -> String {
        self.target.label()
    }
}
