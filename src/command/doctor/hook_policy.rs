//! The policy that the hooks of a module name. They take snapshots by it, so the module is judged
//! by it, too.

use std::path::Path;
use std::rc::Rc;

use crate::command::doctor::Doctor;
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::config::rsyncd_module::RsyncdModule;
use crate::config::settings::{POLICY_FILE, PolicySource, Settings};
use crate::engine::responsiveness::is_responsive;
use crate::tell::escape::escape_path;

impl Doctor<'_> {
    /// The settings that the module's hooks use, if these name another policy than this command.
    fn settings_of_hooks(&self, module: &RsyncdModule) -> Option<Rc<Settings>> {
        let hooks = self.hooks(module);
        let named = hooks.policy()?;
        let file = named.unwrap_or(Path::new(POLICY_FILE));
        let is_same = |own: &Path| {
            let canonical = |path: &Path| path.canonicalize().ok();
            own == file || canonical(own).is_some_and(|own| Some(own) == canonical(file))
        };
        // That a file is missing is told of the hook.
        let is_usable = file.is_absolute() && is_responsive(file) && file.exists();
        if is_same(&self.settings.policy_file) || !(is_usable || named.is_none()) {
            return None;
        }
        let mut known = self.hook_settings.borrow_mut();
        let read = || Rc::new(self.settings.with_policy(named));
        Some(known.entry(file.to_path_buf()).or_insert_with(read).clone())
    }

    /// The settings to judge the module by, and what is told of them: those of its hooks, unless
    /// the command line names a policy.
    pub(crate) fn judge(&self, module: &RsyncdModule) -> (Option<Rc<Settings>>, Vec<Finding>) {
        let Some(settings) = self.settings_of_hooks(module) else { return (None, Vec::new()) };
        let (is_named, _) = self.settings.are_named;
        let (own, file) = (&self.settings.policy_file, escape_path(&settings.policy_file));
        if !is_named {
            let message = format!(
                "its hooks use the policy {file}, by which it is judged here; give commands by \
                 hand and the timer the same `--config {file}`"
            );
            let note = Finding::new(FindingId::HookPolicy, Severity::Ok, message);
            return (Some(settings), vec![note]);
        }
        let message = format!(
            "its hooks use the policy {file}, and this `check` was told to judge by {}",
            escape_path(own)
        );
        let mut found = vec![Finding::new(FindingId::HookPolicy, Severity::Ok, message)];
        if let PolicySource::Trouble(mistakes) = &settings.source {
            let told = |line: &String| {
                let message = format!("nothing expires: {line}");
                Finding::new(FindingId::PolicyMistake, Severity::Critical, message)
            };
            found.extend(mistakes.iter().map(told));
        }
        (None, found)
    }
}
