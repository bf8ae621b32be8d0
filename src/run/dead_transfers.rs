//! Removes those entries from the ledger whose processes have ended without removing them.
//!
//! If the hook after a transfer never ran, the module may be a mixture of old and new files, so it
//! is marked torn. If the hook was killed, its snapshot is marked due. The marks are on disk before
//! the entry is struck out, so a crash in between loses nothing. After a crash of the machine every
//! push counts as failed: rsync does not sync what it writes, so part of it may be lost.
//!
//! The processes of an entry from another machine or PID namespace cannot be seen from here, so
//! such an entry is left to the runs there. Such runs may never come, as when the container was
//! removed, so after a [limit](unseen_limit) the entry counts as dead, with a warning.

use std::thread;
use std::time::Duration;

use chrono::TimeDelta;

use crate::decide::boot_time::BootTime;
use crate::decide::clock_tick::STAMP_LAG_NS;
use crate::decide::failed_push::FailedPush;
use crate::decide::liveness::{Liveness, unseen_limit};
use crate::decide::push_history::{EndedPush, PushOutcome};
use crate::decide::pushes_without_snapshot::PushesWithoutSnapshot;
use crate::decide::rsync_status::NO_HOOK;
use crate::decide::torn_mark::TornMark;
use crate::decide::verdict_facts::{AllowedSnapshot, Asked, DueReason, Reporter};
use crate::module::target::Target;
use crate::run::session::Session;
use crate::store::ledger::Ledger;
use crate::store::ledger_entry::StoredEntry;
use crate::store::root::SnapshotRoot;
use crate::store::state::{DueMark, State};
use crate::system::clock::Clock;
use crate::tell::error::Result;

/// The status of a transfer whose end is not known, since the machine was started again. rsyncd
/// passes this number to a hook, too.
const UNKNOWN_STATUS: i32 = -1;

/// Strikes out the entries of dead processes, after their marks are in the state.
pub(crate) fn reap(session: Session, ledger: &Ledger) -> Result<()> {
    reap_unseen_after(unseen_limit(session.target.policy.max_defer), session, ledger)
}

/// Ends pushes whose processes cannot be seen from here, because the administrator says so. Returns
/// how many there were.
///
/// # Errors
/// If the ledger or the state cannot be used.
pub(crate) fn end_unseen(target: &Target, clock: &Clock) -> Result<usize> {
    let root = target.open_root()?;
    let ledger = target.open_ledger(&root)?;
    let count =
        ledger.entries()?.iter().filter(|stored| stored.writes() && stored.is_unseen()).count();
    reap_unseen_after(TimeDelta::zero(), Session { target, root: &root, clock }, &ledger)?;
    Ok(count)
}

fn reap_unseen_after(limit: TimeDelta, session: Session, ledger: &Ledger) -> Result<()> {
    let Session { target, root, clock } = session;
    ledger.clean_up()?;
    let is_dead = |stored: &StoredEntry| stored.liveness(clock.now(), limit) == Liveness::Dead;
    let dead: Vec<StoredEntry> = ledger.entries()?.into_iter().filter(is_dead).collect();
    let mut torn: Vec<TornMark> = Vec::new();
    let mut asked: Option<Asked> = None;
    for stored in dead.iter().filter(|stored| stored.writes()) {
        log_dead(target, stored);
        torn.extend(tear(stored, clock));
        asked = asked.max(asked_by(target, stored));
    }
    let without_hook = dead.iter().filter(|stored| stored.writes() && is_without_hook(stored));
    let without_hook = u32::try_from(without_hook.count()).unwrap_or(u32::MAX);
    let in_place =
        dead.iter().filter_map(|stored| stored.entry.as_ref()).any(|it| !it.rewriting.is_empty());
    let ended: Vec<EndedPush> = dead
        .iter()
        .filter(|stored| stored.writes())
        .filter_map(|one| ended(target, one, clock))
        .collect();
    let has_unknown_client = torn.iter().any(|mark| mark.clients().is_empty());
    if !torn.is_empty() || asked.is_some() {
        State::update(root.private(), |state| {
            state.written_in_place |= in_place;
            for mark in torn {
                state.torn = Some(mark.merged_with(state.torn.as_ref()));
            }
            if let Some(asked) = asked {
                state.due = Some(due_mark(asked, clock, state.due.take()));
            }
            if without_hook > 0 {
                state.pushes_without_snapshot =
                    Some(PushesWithoutSnapshot::after_pushes_without_hook(
                        state.pushes_without_snapshot.take(),
                        without_hook,
                        clock.now(),
                    ));
            }
            for push in &ended {
                state.pushes.note(push, |client| target.policy.watches(client));
            }
        })?;
    }
    // A mark of a push by an unknown client is cleared only by change times after the mark. Change
    // times lag behind the clock by a tick, so the next push may begin only after a tick.
    if has_unknown_client {
        thread::sleep(Duration::from_nanos(STAMP_LAG_NS.unsigned_abs()));
    }
    dead.iter().try_for_each(|stored| ledger.strike(stored))
}

/// The highest sequence number in the root's torn mark. The next entry gets a higher one.
pub(crate) fn highest_marked(root: &SnapshotRoot) -> u64 {
    // An unreadable state is no error here: the run that needs the state reports it.
    let torn = State::read(root.private()).ok().and_then(|state| state.torn);
    torn.map_or(0, |mark| mark.highest_sequence())
}

/// The status that the transfer ended with, unless the machine has been booted since.
fn reliable_status(stored: &StoredEntry) -> Option<i32> {
    stored.status.filter(|_| stored.is_of_this_boot())
}

/// Whether no hook followed the push, although the machine kept running.
fn is_without_hook(stored: &StoredEntry) -> bool {
    stored.status.is_none() && stored.is_of_this_boot()
}

/// The status to note for a push whose end no hook has noted.
fn unnoted_status(stored: &StoredEntry) -> i32 {
    let unknown = if is_without_hook(stored) { NO_HOOK } else { UNKNOWN_STATUS };
    stored.status.unwrap_or(unknown)
}

/// The end of a push whose hook did not get to its end. When a good one ended is not known, so it
/// counts from when it began.
fn ended(target: &Target, stored: &StoredEntry, clock: &Clock) -> Option<EndedPush> {
    let entry = stored.entry.as_ref()?;
    let asked = asked_by(target, stored).filter(|asked| *asked == Asked::GoodTransfer);
    let (time, outcome) = match (asked, reliable_status(stored)) {
        (Some(_), _) => (entry.began, PushOutcome::Good),
        (None, status) => {
            let status = status.unwrap_or_else(|| unnoted_status(stored));
            (clock.now(), PushOutcome::Failed { status, free_bytes: None })
        }
    };
    Some(EndedPush { who: entry.client.clone(), time, outcome, seconds: None })
}

/// The torn mark of a push whose hook has not noted its end. `None` if the hook has, because it
/// then wrote the mark itself.
fn tear(stored: &StoredEntry, clock: &Clock) -> Option<TornMark> {
    if reliable_status(stored).is_some() {
        return None;
    }
    let now = BootTime::now();
    let tear = stored.entry.as_ref().map(|entry| FailedPush::of(&entry.push(), now.clone()));
    Some(TornMark::new(clock.exact_now(), unnoted_status(stored), now, tear))
}

fn asked_by(target: &Target, stored: &StoredEntry) -> Option<Asked> {
    let allowed = reliable_status(stored).map_or(AllowedSnapshot::Partial, |status| {
        AllowedSnapshot::of_status(status, Reporter::Daemon, target.policy.statuses())
    });
    match allowed {
        AllowedSnapshot::Complete => Some(Asked::GoodTransfer),
        AllowedSnapshot::Partial => Some(Asked::FailedTransfer),
        AllowedSnapshot::None => None,
    }
}

/// The new due mark. The `existing` one keeps its reason, because the run that set it may rely on
/// that reason.
fn due_mark(asked: Asked, clock: &Clock, existing: Option<DueMark>) -> DueMark {
    let fresh = DueMark {
        since: clock.now(),
        marked: BootTime::now(),
        asked,
        reason: DueReason::Interrupted,
    };
    match existing {
        Some(existing) => {
            DueMark { marked: fresh.marked, asked: asked.max(existing.asked), ..existing }
        }
        None => fresh,
    }
}

fn log_dead(target: &Target, stored: &StoredEntry) {
    let (label, who, pid) = (target.label(), stored.who(), stored.pid);
    if stored.is_unseen() {
        log::warn!(
            "{label}: the push of {who} (process {pid} of another machine or PID namespace) began \
             at {}, its process cannot be seen from here, and no run there has ended it; it counts \
             as killed now",
            stored.began.format("%FT%TZ")
        );
    }
    match reliable_status(stored) {
        None => log::warn!(
            "{label}: the push of {who} (process {pid}) is gone and no hook followed it; the \
             module is torn (it may be a mixture of old and new files), and a snapshot is due"
        ),
        Some(status) => log::warn!(
            "{label}: the hook after the push of {who} (process {pid}, status {status}) did not \
             get to its end; a snapshot is due"
        ),
    }
}
