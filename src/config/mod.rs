//! Reads what is configured: the policy file, rsyncd.conf and the hook's environment.
//!
//! Reading changes nothing. A mistake in any of them ends in a message with its place and what is
//! accepted there.

pub(crate) mod auth_users;
pub(crate) mod conf_files;
pub(crate) mod environment;
pub(crate) mod hook_command;
pub(crate) mod hook_policy;
pub(crate) mod module_settings;
pub(crate) mod own_program;
pub(crate) mod partial_dir_symlinks;
pub(crate) mod policy_file;
pub(crate) mod policy_keys;
mod policy_syntax;
pub(crate) mod policy_value;
pub(crate) mod refused_push;
pub(crate) mod rsyncd_conf;
pub(crate) mod rsyncd_module;
pub(crate) mod rsyncd_parameters;
mod rsyncd_syntax;
pub(crate) mod settings;
pub(crate) mod snapshot_rules;
pub(crate) mod time_zone;
