//! The policy that the hooks of a module name, where that is not the one of the command line.

use crate::command::doctor::{Doctor, hooks};
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::config::rsyncd_module::RsyncdModule;
use crate::config::settings::PolicySource;
use crate::module::target::Target;
use crate::tell::escape::escape_path;

impl Doctor<'_> {
    fn has_wrong_hook(&self, module: &RsyncdModule) -> bool {
        hooks::findings(&self.hooks(module)).iter().any(|found| found.level > Severity::Ok)
    }

    /// What is told of the policy that the module's hooks use. Its mistakes are told besides.
    pub(crate) fn policy_of_hooks(&self, module: &RsyncdModule) -> Option<Finding> {
        let follows = self.settings.follows_hooks();
        let (severity, message) = match self.settings.of_hooks(module) {
            Ok(None) => return self.unseen_policy(module),
            Ok(Some(_)) if self.is_policy_missing(module) => return None,
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
    /// The note about a script as hook: which policy it names cannot be seen.
    fn unseen_policy(&self, module: &RsyncdModule) -> Option<Finding> {
        if !self.settings.follows_hooks() || self.settings.sees_policy_of_hooks(module) {
            return None;
        }
        let hooks = self.hooks(module);
        let script = [&hooks.post, &hooks.pre].into_iter().find(|hook| hook.may_name_policy())?;
        let used = match self.settings.source {
            PolicySource::BuiltIn => "the built-in defaults".to_string(),
            _ => escape_path(&self.settings.policy_file),
        };
        let message = format!(
            "{}: {}: which policy this command names cannot be seen, so commands by hand use \
             {used}; if it names another one, add `--config FILE` to them and to the timer",
            script.place, script.parameter
        );
        Some(Finding::new(FindingId::HookPolicy, Severity::Ok, message))
    }

    /// Whether a finding about the hooks tells all of the trouble with their policy: it is missing.
    pub(crate) fn tells_missing_policy(&self, module: &RsyncdModule, target: &Target) -> bool {
        target.trouble.len() == 1 && self.is_policy_missing(module)
    }

    fn is_policy_missing(&self, module: &RsyncdModule) -> bool {
        let hooks = self.hooks(module);
        let missing =
            [&hooks.post, &hooks.pre].into_iter().find_map(|hook| hook.missing_config().cloned());
        let used = self.settings.of_hooks(module).ok().flatten();
        let used = used.filter(|_| self.settings.follows_hooks());
        used.is_some_and(|used| Some(escape_path(&used.policy_file)) == missing)
    }
}
