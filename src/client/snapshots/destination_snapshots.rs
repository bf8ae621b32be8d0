//! What the steps that take and rotate snapshots need.

use std::path::Path;

use crate::client::backup_job::BackupJob;
use crate::module::context::Context;

/// The snapshots of the destination of a job.
pub(crate) struct DestinationSnapshots<'a> {
    pub job: &'a BackupJob,
    /// Policy and settings of this machine.
    pub context: &'a Context,
    /// The absolute path of the destination, on this machine or on the SSH server.
    pub directory: &'a Path,
}
