//! What is configured: the policy file, rsyncd.conf, the hook's environment, and from these
//! the module that a command works on.
//!
//! Reading never changes anything, and garbage in any of them ends in a message that says
//! where it is and what would be right.

pub(crate) mod environment;
pub(crate) mod forbidden;
pub(crate) mod partial_links;
pub(crate) mod policy_file;
pub(crate) mod policy_keys;
mod policy_syntax;
mod policy_value;
pub(crate) mod rsyncd_conf;
pub(crate) mod rsyncd_module;
mod rsyncd_syntax;
pub(crate) mod settings;
pub(crate) mod time_zone;
