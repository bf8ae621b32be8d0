//! A storm: many clients and many modules, with everything that goes wrong on a backup server.
//!
//! The clients push, pull, list and die at random while the server side suffers faults. What has to
//! be true whatever happened is looked at while it lasts and when it is over.
//!
//! Each client writes into a directory of its own within its module, and last of all a manifest of
//! what that directory has to hold: so a tree on the server shows by itself whether it is a state
//! that a client finished.

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
