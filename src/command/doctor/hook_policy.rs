//! The policy that the hooks of a module name, where that is not the one of the command line.

use crate::command::doctor::{Doctor, hooks};
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::config::rsyncd_module::RsyncdModule;
use crate::tell::escape::escape_path;

impl Doctor<'_> {
    fn has_wrong_hook(&self, module: &RsyncdModule) -> bool {
        hooks::findings(&self.hooks(module)).iter().any(|found| found.level > Severity::Ok)
    }

    /// What is told of the policy that the module's hooks use. Its mistakes are told besides.
    pub(crate) fn policy_of_hooks(&self, module: &RsyncdModule) -> Option<Finding> {
        let follows = self.settings.follows_hooks();
        let (severity, message) = match self.settings.of_hooks(module) {
            Ok(None) => return None,
            // Then nothing expires, which is told of the module's policy.
            Err(_) if follows => return None,
            // A mistake in one of the lines may be the reason, and is told of it.
            Err(_) if self.has_wrong_hook(module) => return None,
            Err(why) => (Severity::Warning, why),
            Ok(Some(settings)) => {
                let file = escape_path(&settings.policy_file);
                let message = match follows {
                    true => format!(
                        "its hooks use the policy {file}, and so do commands without `--config`"
                    ),
                    false => format!(
                        "its hooks use the policy {file}, and this `check` was told to judge by {}",
                        escape_path(&self.settings.policy_file)
                    ),
                };
                (Severity::Ok, message)
            }
        };
        Some(Finding::new(FindingId::HookPolicy, severity, message))
    }
}
