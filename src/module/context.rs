//! The context that every command and hook is called with.

use log::LevelFilter;

use crate::config::settings::Settings;
use crate::decide::boot_time::BootTime;
use crate::module::confine::WriteScope;
use crate::module::target::{Target, writable_modules};
use crate::store::other_modules::OtherModules;
use crate::tell::escape::escape_path;

/// Configuration and options of this process.
pub struct Context {
    /// Policy and rsyncd.conf.
    pub settings: Settings,
    /// The log level that the command line asks for; it overrides the policy's.
    pub level: Option<LevelFilter>,
    /// When this process was started.
    pub started: BootTime,
    /// How much of the file system it may change.
    pub write_scope: WriteScope,
}

impl Context {
    /// Whether only errors and warnings are printed. Commands whose purpose is output, such as
    /// `list`, print that output all the same.
    pub(crate) fn is_quiet(&self) -> bool {
        self.level == Some(LevelFilter::Warn)
    }

    /// The same with its files read anew.
    pub(crate) fn reading_again(&self) -> Self {
        Context {
            settings: self.settings.read_again(),
            level: self.level,
            started: self.started.clone(),
            write_scope: self.write_scope,
        }
    }

    /// The other modules of this machine, read for all modules that a command works on.
    pub(crate) fn other_modules(&self) -> OtherModules {
        OtherModules::read(&self.settings.memory, writable_modules(self.settings.rsyncd().ok()))
    }

    /// Says so if `--config` names another policy than the one by which the module's hooks rotate.
    pub(crate) fn tell_other_policy(&self, target: &Target) {
        let settings = &self.settings;
        if settings.follows_hooks() {
            return;
        }
        let conf = settings.rsyncd().ok();
        let module = target.name.as_deref().and_then(|name| conf?.module(name));
        let module = module.filter(|module| module.may_be_at(&target.module_path));
        if let Some(Ok(Some(of_hooks))) = module.map(|module| settings.of_hooks(module)) {
            log::info!(
                "this rotates by the policy {}, as `--config` says; the module's hooks rotate by \
                 {}",
                escape_path(&settings.policy_file),
                escape_path(&of_hooks.policy_file)
            );
        }
    }

    /// The level of messages that are about no module.
    pub(crate) fn reset_level(&self) {
        log::set_max_level(self.level.unwrap_or(LevelFilter::Info));
    }

    pub(crate) fn set_level(&self, target: &Target) {
        log::set_max_level(self.level.unwrap_or(target.policy.log_level));
    }
}
