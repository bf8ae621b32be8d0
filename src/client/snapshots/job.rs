//! What a snapshot is taken of.

use std::path::Path;

use crate::client::job::Job;
use crate::module::context::Context;

/// The snapshots of a destination.
pub(crate) struct Snapshots<'a> {
    /// What is to be done.
    pub job: &'a Job,
    /// Policy and settings of this machine.
    pub context: &'a Context,
    /// The destination's directory, absolute, where it is.
    pub directory: &'a Path,
}
