//! The settings for one module: those of the command line or, where that names no policy, those
//! with the policy that the module's hooks use.
//!
//! So a command decides as the hooks do, whatever its message or a timer's line leaves out. Only
//! hooks themselves never ask: they use what their own command line names.

use std::ops::Deref;
use std::path::Path;
use std::rc::Rc;

use crate::config::hook_policy::{self, HookPolicy, HooksPolicy};
use crate::config::rsyncd_module::RsyncdModule;
use crate::config::settings::{POLICY_FILE, PolicySource, Settings};
use crate::engine::responsiveness::is_responsive;
use crate::tell::escape::escape_path;

/// The settings for one module.
pub(crate) enum ModuleSettings<'a> {
    /// Those of the command line.
    Own(&'a Settings),
    /// Those with the policy that the module's hooks use.
    OfHooks(Rc<Settings>),
}

impl Deref for ModuleSettings<'_> {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        match self {
            ModuleSettings::Own(settings) => settings,
            ModuleSettings::OfHooks(settings) => settings,
        }
    }
}

impl Settings {
    /// The settings for the module of this name in this directory. A module of the same name
    /// elsewhere is another daemon's.
    pub(crate) fn of_module(&self, name: Option<&[u8]>, directory: &Path) -> ModuleSettings<'_> {
        let follows = self.follows_hooks();
        let conf = follows.then(|| self.rsyncd().ok()).flatten();
        let module = name.zip(conf).and_then(|(name, conf)| conf.module(name));
        match module.filter(|module| module.may_be_at(directory)) {
            Some(module) => self.of_configured(module),
            None => ModuleSettings::Own(self),
        }
    }

    /// The settings for a module of rsyncd.conf.
    pub(crate) fn of_configured(&self, module: &RsyncdModule) -> ModuleSettings<'_> {
        if !self.follows_hooks() {
            return ModuleSettings::Own(self);
        }
        match self.of_hooks(module) {
            Ok(None) => ModuleSettings::Own(self),
            Ok(Some(other)) => ModuleSettings::OfHooks(other),
            Err(why) => ModuleSettings::OfHooks(Rc::new(self.without_policy(why))),
        }
    }

    /// Whether it can be seen which policy the module's hooks use, or that they use different ones.
    pub(crate) fn sees_policy_of_hooks(&self, module: &RsyncdModule) -> bool {
        self.policy_of_hooks(module) != HooksPolicy::Unknown
    }

    fn policy_of_hooks(&self, module: &RsyncdModule) -> HooksPolicy {
        hook_policy::of_module(module, |arguments| self.read_hook(arguments), are_same)
    }

    /// The settings with the policy that the module's hooks use, if that is another one than here.
    ///
    /// # Errors
    /// If the hooks do not say which policy counts; the text says why.
    pub(crate) fn of_hooks(&self, module: &RsyncdModule) -> Result<Option<Rc<Settings>>, String> {
        match self.policy_of_hooks(module) {
            HooksPolicy::Unknown => Ok(None),
            HooksPolicy::Undecided(why) => Err(why),
            HooksPolicy::Known(policy) => {
                let own = HookPolicy::File(self.policy_file.clone());
                // Without a file, it matters whether one was named.
                let is_own = match self.source {
                    PolicySource::BuiltIn => policy == HookPolicy::Default,
                    _ => are_same(&policy, &own),
                };
                Ok((!is_own).then(|| self.known_with(policy)))
            }
        }
    }

    fn known_with(&self, policy: HookPolicy) -> Rc<Settings> {
        let mut known = self.of_hooks.borrow_mut();
        let read = || match &policy {
            HookPolicy::Default => Rc::new(self.with_policy(None)),
            HookPolicy::File(file) => {
                // To open a pipe would wait for its writer.
                let is_other = |file: &Path| file.metadata().is_ok_and(|found| !found.is_file());
                let problem = match is_responsive(file) {
                    false => "its file system does not answer",
                    true if is_other(file) => "is no file",
                    true => return Rc::new(self.with_policy(Some(file))),
                };
                Rc::new(self.without_policy(format!("{}: {problem}", escape_path(file))))
            }
        };
        let file = file_of(&policy).to_path_buf();
        known.entry(file).or_insert_with(read).clone()
    }
}

fn file_of(policy: &HookPolicy) -> &Path {
    match policy {
        HookPolicy::Default => Path::new(POLICY_FILE),
        HookPolicy::File(file) => file,
    }
}

fn are_same(one: &HookPolicy, other: &HookPolicy) -> bool {
    let (one, other) = (file_of(one), file_of(other));
    let canonical = |path: &Path| is_responsive(path).then(|| path.canonicalize().ok()).flatten();
    one == other || canonical(one).is_some_and(|it| Some(it) == canonical(other))
}
