//! What is configured: the policy file, rsyncd.conf, the hook's environment, and from these
//! the module that a command works on.
//!
//! Reading never changes anything, and garbage in any of them ends in a message that says
//! where it is and what would be right.

pub mod arguments;
pub mod environment;
pub mod forbidden;
mod found_on_disk;
pub mod import;
pub mod partial_links;
pub mod policy_file;
mod policy_syntax;
mod policy_value;
pub mod rsyncd_conf;
mod rsyncd_syntax;
pub mod settings;
pub mod target;
pub mod worked_on;
