//! The context that every command and hook is called with.

use log::LevelFilter;

use crate::config::settings::Settings;
use crate::decide::boot_time::BootTime;
use crate::module::confine::WriteScope;
use crate::module::target::{Target, writable_modules};
use crate::store::other_modules::OtherModules;

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

    /// The other modules of this machine, read for all modules that a command works on.
    pub(crate) fn other_modules(&self) -> OtherModules {
        OtherModules::read(&self.settings.memory, writable_modules(self.settings.rsyncd().ok()))
    }

    /// The level of messages that are about no module.
    pub(crate) fn reset_level(&self) {
        log::set_max_level(self.level.unwrap_or(LevelFilter::Info));
    }

    pub(crate) fn set_level(&self, target: &Target) {
        log::set_max_level(self.level.unwrap_or(target.policy.log_level));
    }
}
