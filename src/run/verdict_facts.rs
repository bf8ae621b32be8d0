//! Collects the facts for a [verdict](crate::decide::transfer_decision) about a transfer or a run.

use std::os::fd::BorrowedFd;

use crate::decide::failed_push::UnfinishedDirectories;
use crate::decide::torn_mark::TornMark;
use crate::decide::verdict_facts::{ClientCompletion, RunningPushes, VerdictFacts, VerdictStage};
use crate::engine::compare::CompareContext;
use crate::engine::compare::unfinished::UnfinishedSearch;
use crate::engine::index::Stamp;
use crate::run::request::Request;
use crate::run::session::Session;
use crate::store::root::SnapshotRoot;
use crate::store::state::State;
use crate::system::syscalls::{is_gone, stat_below};
use crate::tell::escape::unescape;

/// The facts that the request and the state hold. The caller adds the running pushes and the due
/// mark.
pub(crate) fn facts<'a>(
    session: Session<'a>,
    request: &'a Request,
    state: &'a State,
    stage: VerdictStage<'a>,
) -> VerdictFacts<'a> {
    VerdictFacts {
        occasion: request.occasion(),
        stage,
        coverage: request.coverage,
        has_pre_xfer: state.has_pre_xfer,
        running: RunningPushes::default(),
        has_waited: false,
        has_deferred: state.deferred_since.is_some(),
        // Without the module's directory there is nothing to take a snapshot of.
        completion: session
            .root
            .module()
            .map_or(ClientCompletion::Unfinished, ClientCompletion::of_module),
        torn: state.torn.as_ref(),
        due: None,
        statuses: session.target.policy.statuses(),
    }
}

/// The modification times of the directories that the failed pushes of a mark left unfinished. If
/// no run has searched for such directories yet, the whole tree is searched.
pub(crate) fn unfinished_directories(
    root: &SnapshotRoot,
    mark: Option<&TornMark>,
) -> UnfinishedDirectories {
    let Ok(module) = root.module() else { return UnfinishedDirectories::default() };
    let times = inspect(module, mark);
    let Some(since) = mark.and_then(TornMark::search_since_ns) else { return times };
    let search = UnfinishedSearch::new(since);
    let context = CompareContext { unfinished: Some(&search), ..CompareContext::default() };
    match root.method().compare((module, &root.module_path), None, context) {
        Ok(_) => times.searched(search.found()),
        Err(error) => {
            log::warn!(
                "{}: cannot search for directories that a failed push left unfinished: {error}",
                root.label()
            );
            times
        }
    }
}

/// The present modification times of the known unfinished directories.
fn inspect(module: BorrowedFd, mark: Option<&TornMark>) -> UnfinishedDirectories {
    let mut times = UnfinishedDirectories::default();
    for path in mark.into_iter().flat_map(TornMark::unfinished_paths) {
        let Some(bytes) = unescape(path) else { continue };
        match stat_below(module, &bytes) {
            Ok(stat) => times.note(path, Some(Stamp::of(&stat).mtime_ns)),
            Err(cause) if is_gone(cause) => times.note(path, None),
            Err(cause) => log::debug!("cannot inspect {path}: {cause}"),
        }
    }
    times
}
