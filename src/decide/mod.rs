//! What is decided: pure functions over data, without a clock or a file system.
//!
//! Everything that keeps or loses a snapshot is settled here and tested as data;
//! [`store`](crate::store) and [`tree`](crate::tree) only carry it out.

pub mod because;
pub mod boot_time;
pub mod brake;
pub mod claim;
pub mod clock_guard;
mod clock_reading;
pub mod damage;
pub mod dating;
mod doubt;
mod doubted_expiry;
pub mod facts;
pub mod file_system;
pub mod fingerprint;
pub mod forecast;
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
pub mod space;
pub mod space_choice;
pub mod span;
pub mod tear;
pub mod time_text;
pub mod torn;
pub mod verdict;
pub mod zone;
