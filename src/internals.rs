//! What tests, fuzzers and benchmarks use of the inside. Nothing here is promised to anyone else.
//!
//! Whatever else is `pub` in this crate is not reachable from outside, so the compiler finds what
//! nothing uses.

pub use crate::cli::command_lines;
pub use crate::client::destination::Destination;
pub use crate::config::environment::FinishedTransfer;
pub use crate::config::policy_file::Policies;
pub use crate::config::rsyncd_conf::RsyncdConf;
pub use crate::config::settings::Settings;
pub use crate::engine::baseline::Baseline;
pub use crate::engine::clone::{CloneContext, CloneTarget, clone_tree};
pub use crate::engine::compare::Comparison;
pub use crate::engine::index::reader::DirectoryIndex;
pub use crate::engine::remove::remove_trees;
pub use crate::module::confine::WriteScope;
pub use crate::module::context::Context;
pub use crate::module::target::Target;
pub use crate::run::report::Ending;
pub use crate::run::request::Request;
pub use crate::store::dir::Dir;
pub use crate::store::inode_log::changed_in_place::{InPlaceChanges, in_place_changes};
pub use crate::store::inode_log::compact::{KeptBaselines, rewrite};
pub use crate::store::inode_log::reader::InodeLog;
pub use crate::store::inode_log::recorder::Recorder;
pub use crate::store::inode_log::windows::{LinkWindow, LinkWindows, wall_ns};
pub use crate::store::ledger_entry::LedgerEntry;
pub use crate::store::memory::MachineMemory;
pub use crate::store::publish::{ComparedTree, StagedSnapshot};
pub use crate::store::record::Record;
pub use crate::store::registration::Registration;
pub use crate::store::root::SnapshotRoot;
pub use crate::store::state::State;
pub use crate::system::clock::Clock;
pub use crate::tell::escape::{escape, one_line, unescape};
pub use crate::tell::exit::Exit;

pub mod confine {
    pub use crate::module::confine::to;
}

pub mod log {
    pub use crate::tell::log::start;
}

pub mod migrate {
    pub use crate::migrate::read;
}

pub mod order {
    pub use crate::run::order::run;
}

pub mod post_xfer {
    pub use crate::hook::post_xfer::after_transfer;
}

pub mod time_zone {
    pub use crate::config::time_zone::named;
}
