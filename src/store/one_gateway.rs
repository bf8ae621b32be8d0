//! One machine at a time serves a module on CephFS.
//!
//! Several machines can mount one CephFS, and so reach one root. The locks of CephFS hold between
//! them, but whether a push that came by another machine still runs cannot be seen from here, and
//! its data may not have left that machine's memory. So while the ledger has a push of another
//! machine, pushes and runs are refused here. `docs/design.md` says what several gateways would
//! need.

use std::path::Path;

use crate::decide::liveness::EntryOrigin;
use crate::store::ledger_entry::StoredEntry;
use crate::store::root::SnapshotRoot;
use crate::system::pid_namespace::PidNamespace;
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape_path;

/// Makes sure that no other machine serves a push to the module.
///
/// # Errors
/// [`Error::Root`] if one does, or did and left the push unsettled.
pub(crate) fn check(root: &SnapshotRoot, entries: &[StoredEntry]) -> Result<()> {
    let is_elsewhere = |stored: &&StoredEntry| {
        stored.elsewhere.is_none()
            && stored.writes()
            && PidNamespace::origin(stored.namespace.as_ref()) == EntryOrigin::OtherMachine
    };
    match entries.iter().find(is_elsewhere).filter(|_| root.has_only_sealed()) {
        None => Ok(()),
        Some(stored) => Err(refusal(&root.path, stored)),
    }
}

fn refusal(root_path: &Path, stored: &StoredEntry) -> Error {
    Error::Root {
        path: escape_path(root_path),
        problem: format!(
            "another machine serves this module, too: a push from {} came by it at {}, and has not \
             been settled there",
            stored.who(),
            stored.began.format("%FT%TZ"),
        ),
        remedy:
            "let only one machine run rsyncd and this program for it; if the other one is gone \
                 for good, run `rsyncd-snapshot release --unseen` for the module, and repeat the \
                 push"
                .to_string(),
    }
}
