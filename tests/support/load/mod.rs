//! A storm: many clients push to many modules, while faults of a backup server are simulated.
//!
//! The clients push, pull, list and are killed at random, while faults occur on the server. The
//! invariants are checked during the storm and after it.
//!
//! Each client writes into a directory of its own within its module. The last file of a push is a
//! manifest of that directory. So each tree on the server shows whether a client finished pushing
//! it.

pub(crate) mod client;
pub(crate) mod command;
pub(crate) mod connection;
pub(crate) mod event;
pub(crate) mod fault;
pub(crate) mod manifest;
pub(crate) mod note;
pub(crate) mod observer;
pub(crate) mod process;
pub(crate) mod shown;
pub(crate) mod site;
pub(crate) mod size;
pub(crate) mod source;
pub(crate) mod storm;
pub(crate) mod verdict;
