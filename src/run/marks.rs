//! The marks that a run writes before it waits for anything.
//!
//! A run may be killed while it waits. Therefore it first writes what it knows of its transfer into
//! the state, or, on a full disk, into this machine's memory outside the root.

use crate::decide::push_history::{EndedPush, PushOutcome};
use crate::decide::rsync_status::RsyncStatus;
use crate::decide::transfer_decision::verdict;
use crate::decide::verdict_facts::{AllowedSnapshot, VerdictStage};
use crate::module::target::Target;
use crate::run::request::{Request, Requester};
use crate::run::session::Session;
use crate::run::verdict_facts::{facts, unfinished_directories};
use crate::store::root::SnapshotRoot;
use crate::store::state::State;
use crate::tell::error::Result;
use crate::tell::escape::escape_path;

/// Writes the torn mark of a failed push, or removes it after a good push that makes up for it, and
/// notes that the root has had a policy.
pub(crate) fn mark_before_lock(session: Session, request: &Request) -> Result<()> {
    let Session { target, root, clock } = session;
    let now = clock.exact_now();
    let memory = target.memory.recall(&target.module_path);
    let (earlier, unnoted) = memory.map_or((None, None), |it| (it.torn, it.failed_push));
    let failed =
        request.ended.clone().filter(|push| matches!(push.outcome, PushOutcome::Failed { .. }));
    let is_good_push = request.push.is_some()
        && request.requester == Requester::Transfer(AllowedSnapshot::Complete);
    let existing = State::read(root.private()).ok().and_then(|state| state.torn);
    let times = unfinished_directories(root, existing.as_ref().filter(|_| is_good_push));
    let stage = VerdictStage::Ended { now, noticed: &request.started, unfinished: &times };
    let marks_on = |state: &State| verdict(&facts(session, request, state, stage)).marks;
    let new = marks_on(&State::default());
    if let (Some(_), Some(status)) = (&new, request.status) {
        log::warn!(
            "{}: the transfer ended with {}; the module is torn: it may be a mixture of old and \
             new files until that push is repeated",
            target.label(),
            RsyncStatus(status)
        );
    }
    let in_place = request.push.as_ref().is_some_and(|push| push.in_place);
    let marked = State::update(root.private(), |state| {
        if let Some(mark) = &earlier {
            state.torn = Some(mark.clone().merged_with(state.torn.as_ref()));
        }
        state.torn = marks_on(state);
        state.written_in_place |= in_place;
        // A good push is noted when its snapshot is, which costs no sync of the disk.
        for push in unnoted.iter().chain(&failed) {
            state.pushes.note(push, |client| target.policy.watches(client));
        }
    })
    .and_then(|_| remember_policy(target, root));
    let kept = match (&marked, new) {
        // On a full disk, the mark is kept outside the root until it fits into the state again.
        // There it is merged with the marks of earlier pushes.
        (Err(_), Some(mark)) => target.memory.change(&target.module_path, |memory| {
            memory.torn = Some(mark.clone().merged_with(memory.torn.as_ref()));
            memory.failed_push = failed.clone().or(memory.failed_push.take());
        }),
        (Ok(_), _) if earlier.is_some() || unnoted.is_some() => {
            target.memory.change(&target.module_path, |memory| {
                memory.torn = memory.torn.take().filter(|mark| Some(mark) != earlier.as_ref());
                let is_new = |push: &EndedPush| Some(push) != unnoted.as_ref();
                memory.failed_push = memory.failed_push.take().filter(is_new);
            })
        }
        _ => Ok(()),
    };
    if let Err(error) = kept {
        log::error!(
            "{}: a push failed and may have left a mixture of old and new files, and that cannot \
             be recorded anywhere: {error}",
            target.label()
        );
    }
    marked
}

/// Notes in the state that the root has had a policy, so that nothing expires if its file vanishes.
pub(crate) fn remember_policy(target: &Target, root: &SnapshotRoot) -> Result<()> {
    let Some(file) = target.policy_file.as_deref().map(escape_path) else { return Ok(()) };
    State::update(root.private(), |state| state.policy_file = Some(file)).map(drop)
}
