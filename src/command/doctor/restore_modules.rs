//! Modules that show snapshots to clients that may only read.

use crate::command::doctor::Doctor;
use crate::command::doctor::hooks::{HookFacts, HookReading, ModuleHooks, PRE_XFER_COMMAND};
use crate::command::doctor::roots::reaches_snapshots;
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::config::hook_policy::{POST_XFER, PRE_XFER};
use crate::config::rsyncd_module::RsyncdModule;
use crate::decide::path_index::PathIndex;

impl Doctor<'_> {
    /// Whether the module shows snapshots to clients that may only read, without hooks.
    pub(crate) fn is_restore_module_without_hooks(&self, module: &RsyncdModule) -> bool {
        let hooks = self.hooks(module);
        let is_unset = |hook: &HookFacts| hook.reading == HookReading::Unset;
        !hooks.is_writable
            && is_unset(&hooks.pre)
            && is_unset(&hooks.post)
            && self.shows_snapshots(module)
    }

    /// Whether the module shows snapshots of another one.
    pub(super) fn shows_snapshots(&self, module: &RsyncdModule) -> bool {
        let Ok(path) = module.path() else { return false };
        let known = || -> PathIndex<()> {
            let remembered = self.settings.memory.roots_and_modules().into_iter();
            remembered.map(|(root, _)| (root, ())).collect()
        };
        let known = self.known_roots.get_or_init(known);
        self.planned().are_shown_by(&module.name, &path)
            || known.overlapping(&path).any(|(root, ())| reaches_snapshots(&path, root))
    }

    /// The note about a module that shows snapshots and has no hooks, which mark what is read.
    pub(super) fn missing_restore_hooks(
        &self,
        module: &RsyncdModule,
        hooks: &ModuleHooks,
    ) -> Option<Finding> {
        if !self.is_restore_module_without_hooks(module) {
            return None;
        }
        let this = &hooks.this_command;
        let message = format!(
            "{}: it shows snapshots and has no hooks, so a restore through it may read a snapshot \
             that is being recycled, and end well with files of two states; add \
             `{PRE_XFER} = {this} {PRE_XFER_COMMAND}` and `{POST_XFER} = {this}`",
            hooks.post.place
        );
        Some(Finding::new(FindingId::RestoreModule, Severity::Ok, message))
    }
}
