//! Commands that the administrator runs by hand: `check`, `plan`, `rotate`, `expire`, `release`,
//! `status`, `import-policy`, and the example configuration.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod check;
mod compatibility;
mod completion;
mod diff;
mod doctor;
mod doctor_conf;
mod doctor_connections;
mod doctor_daemon_user;
mod doctor_hooks;
mod doctor_paths;
mod doctor_policies;
mod doctor_remedies;
mod examples;
mod expire;
mod hold;
mod hook_policies;
mod import_policy;
mod import_policy_decision;
mod import_policy_modules;
mod import_policy_original;
mod monitoring;
mod names;
mod plan;
mod progress;
mod release;
mod restore;
mod restore_damage;
mod restore_destination;
mod restore_in_place;
mod restore_lost_roots;
mod rotate;
mod rotate_guards;
mod rsyncd_conf_differential;
mod samba;
mod setup;
mod sizes;
mod status;
mod terminal;
mod timeline;
mod versions;
mod waiting;
