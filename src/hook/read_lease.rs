//! The leases of a client that reads snapshots through a restore module.
//!
//! pre-xfer takes them before rsyncd opens a file, and leaves them to the processes of the
//! connection; post-xfer removes their files. If a lease cannot be taken, the client may read all
//! the same: for an administrator who restores in an emergency, a restore that a run may break off
//! is better than none. The log says so.

use std::path::Path;

use crate::hook::transfer_request::{NOTHING, TransferRequest};
use crate::module::shown_roots::{nearest_root, shown_roots};
use crate::store::lease_entry::{LeaseEntry, LeasedSnapshots};
use crate::store::leases::{self, Lease};
use crate::store::memory::MachineMemory;
use crate::store::module_directory::canonical_module;
use crate::store::root::SnapshotRoot;
use crate::system::clock::Clock;
use crate::system::process::Process;
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape_path;

/// The roots that a client is going to read, opened, with the snapshots of each.
#[derive(Default)]
pub(crate) struct ReadRoots {
    roots: Vec<(SnapshotRoot, LeasedSnapshots)>,
}

impl ReadRoots {
    /// Finds and opens the roots that the client reads through the module at `module_path`. A root
    /// that cannot be opened is left out, with a warning.
    pub(crate) fn open(
        label: &str,
        module_path: &Path,
        request: &TransferRequest,
        memory: &MachineMemory,
    ) -> Self {
        if request.path == NOTHING {
            return ReadRoots::default();
        }
        let module_path = match canonical_module(module_path) {
            Ok(path) => path,
            // There is nothing to read.
            Err(error) if error.is_not_found() => return ReadRoots::default(),
            Err(error) => {
                warn(label, request, &escape_path(module_path), &error);
                return ReadRoots::default();
            }
        };
        let shown = shown_roots(&module_path, &request.arguments.read_paths(), memory);
        for error in &shown.errors {
            warn(label, request, &escape_path(&module_path), error);
        }
        let mut roots = Vec::new();
        for shown in shown.roots {
            match shown.open() {
                Ok(root) => roots.push((root, shown.snapshots)),
                Err(error) => warn(label, request, &escape_path(&shown.path), &error),
            }
        }
        ReadRoots { roots }
    }

    /// The roots, in whose `leases` this process needs to write.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &SnapshotRoot> {
        self.roots.iter().map(|(root, _)| root)
    }

    /// Takes a lease in each root, and leaves them to the processes of the connection.
    pub(crate) fn lease(self, label: &str, request: &TransferRequest, clock: &Clock) {
        for (root, snapshots) in self.roots {
            let take = || -> Result<()> {
                let processes = Process::of_connection(request.pid)?;
                let reader = request.client.identity();
                let entry = LeaseEntry::new(snapshots, &reader, processes, clock);
                Lease::take_for_client(&root, &entry).map(Lease::leave)
            };
            if let Err(error) = take() {
                warn(label, request, &root.label(), &error);
            }
        }
    }
}

fn warn(label: &str, request: &TransferRequest, root: &str, error: &Error) {
    log::warn!(
        "{label}: {} reads snapshots in {root} without a lease, so a run that can write there may \
         remove them meanwhile: {error}",
        request.client.identity()
    );
}

/// The root in which post-xfer ends the leases of the connection that process `pid` serves. None if
/// the module shows no root, or several: then the leases end with that process.
pub(crate) fn finished_root(
    module_path: &Path,
    memory: &MachineMemory,
    pid: u32,
) -> Option<SnapshotRoot> {
    // A detached hook may be at work when the process has ended and its number was used again.
    let is_hook = Process::branch_of(pid).is_ok_and(|branch| branch.is_some());
    let shown = nearest_root(module_path, memory).ok()?.filter(|_| is_hook)?;
    shown
        .open()
        .inspect_err(|error| log::debug!("leases last until their processes end: {error}"))
        .ok()
}

/// Ends the leases of the connection.
pub(crate) fn end(root: &SnapshotRoot, pid: u32) {
    if let Err(error) = leases::end_of(root, pid) {
        log::debug!("leases could not be removed, and last until their processes end: {error}");
    }
}
