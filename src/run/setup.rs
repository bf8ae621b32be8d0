//! Carries out what `setup` has planned.
//!
//! rsyncd reads its configuration for each connection, so every step counts at once. The order
//! keeps a daemon from serving a module that is not ready, wherever this process is killed:
//! directories first, then the secrets file, then the drop-ins of systemd, which nothing reads
//! before a restart, then the file with the module's sections, and the line of `rsyncd.conf` that
//! includes it last. So a module that a client reaches has its directory and its secret. After a
//! kill the next `setup` finds the steps that are done, and does the rest.

use std::path::PathBuf;

use crate::store::configuration_file as file;
use crate::tell::error::Result;

/// One step.
#[derive(Debug)]
pub(crate) struct SetupStep {
    pub(crate) path: PathBuf,
    pub(crate) change: SetupChange,
    /// What is done there, as a clause for people.
    pub(crate) what: String,
}

/// What a step changes.
#[derive(Debug)]
pub(crate) enum SetupChange {
    /// Nothing: it is as it should be.
    None,
    /// A directory that is missing is made with this mode.
    MakeDirectory { mode: u32 },
    /// The file at `real` gets this text, and this mode if it is new.
    Write { real: PathBuf, text: Vec<u8>, mode: u32 },
}

impl SetupStep {
    pub(crate) fn changes(&self) -> bool {
        !matches!(self.change, SetupChange::None)
    }

    /// The path that is written.
    pub(crate) fn written(&self) -> &PathBuf {
        match &self.change {
            SetupChange::Write { real, .. } => real,
            SetupChange::None | SetupChange::MakeDirectory { .. } => &self.path,
        }
    }
}

/// Does the steps in their order. Returns how many are done, and the error that ended that.
pub(crate) fn carry_out(steps: &[SetupStep]) -> (usize, Result<()>) {
    for (number, step) in steps.iter().enumerate() {
        let done = match &step.change {
            SetupChange::None => Ok(()),
            SetupChange::MakeDirectory { mode } => file::make_directory(&step.path, *mode),
            SetupChange::Write { real, text, mode } => file::write(real, text, *mode),
        };
        if done.is_err() {
            return (number, done);
        }
    }
    (steps.len(), Ok(()))
}
