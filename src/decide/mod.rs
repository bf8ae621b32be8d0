//! What is decided: pure functions over data, without a clock or a file system.
//!
//! Everything that keeps or loses a snapshot is settled here and tested as data;
//! [`store`](crate::store) and [`tree`](crate::engine) only carry it out.

pub mod anomaly;
pub mod arguments;
pub mod because;
pub mod boot_time;
pub mod claim;
pub mod client;
pub mod clock_guard;
pub mod damage;
pub mod dating;
pub mod decision;
pub mod facts;
pub mod file_system;
pub mod fingerprint;
pub mod forecast;
pub mod free_space;
pub mod frequency;
pub mod grade;
pub mod guards;
pub mod job;
pub mod liveness;
pub mod name;
pub mod obstacle;
pub mod own_output;
pub mod partial_dirs;
pub mod policy;
pub mod reason;
pub mod refusal;
pub mod replay;
pub mod root_access;
pub mod rotation;
pub mod shortfall;
pub mod slot;
pub mod snapshot;
pub mod space;
pub mod space_choice;
pub mod span;
pub mod tear;
pub mod time_text;
pub mod torn;
pub mod transfer_verdict;
pub mod verdict;
pub mod zone;
