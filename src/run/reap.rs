//! Entries of the ledger whose processes have ended, and what they leave.
//!
//! An entry of another PID namespace or machine whose processes cannot be seen from here is left to
//! its own side. That may never come again (a container that was removed), so after a
//! [limit](unseen_limit) it counts as dead, with a warning.
//!
//! A transfer whose hook never ran has left the module torn, as far as is known; one whose
//! hook was killed is still owed its snapshot. Both go into the state, durably, before the entry is
//! struck out. After a crash of the machine no push is a good one any more: rsync does not sync
//! what it writes, so part of it may be lost.

use crate::decide::failed_push::FailedPush;
use std::thread;
use std::time::Duration;

use chrono::TimeDelta;

use crate::decide::boot_time::BootTime;
use crate::decide::clock_tick::STAMP_LAG_NS;
use crate::decide::liveness::{Liveness, unseen_limit};
use crate::decide::torn_mark::TornMark;
use crate::decide::verdict_facts::{Asked, DueReason, Reporter, Worth};
use crate::module::target::Target;
use crate::store::ledger::{Ledger, LedgerLine};
use crate::store::root::SnapshotRoot;
use crate::store::state::{DueMark, State};
use crate::system::clock::Clock;
use crate::tell::error::Result;

/// What stands for the status of a transfer whose end is not known, as rsyncd itself tells
/// it.
const UNKNOWN_STATUS: i32 = -1;

/// Strikes out the entries of the dead, after the state has taken over what they leave.
pub(crate) fn reap(
    target: &Target,
    root: &SnapshotRoot,
    ledger: &Ledger,
    clock: &Clock,
) -> Result<()> {
    reap_unseen_after(unseen_limit(target.policy.max_defer), target, root, ledger, clock)
}

/// Counts pushes whose processes cannot be seen from here as dead, on an administrator's word, and
/// returns how many there were.
///
/// # Errors
/// If the ledger or the state cannot be used.
pub(crate) fn end_unseen(target: &Target, clock: &Clock) -> Result<usize> {
    let root = target.open_root()?;
    let ledger = target.open_ledger(&root)?;
    let count = ledger.lines()?.iter().filter(|line| line.writes() && line.is_unseen()).count();
    reap_unseen_after(TimeDelta::zero(), target, &root, &ledger, clock)?;
    Ok(count)
}

fn reap_unseen_after(
    limit: TimeDelta,
    target: &Target,
    root: &SnapshotRoot,
    ledger: &Ledger,
    clock: &Clock,
) -> Result<()> {
    ledger.clean_up()?;
    let is_dead = |line: &LedgerLine| line.liveness(clock.now(), limit) == Liveness::Dead;
    let dead: Vec<LedgerLine> = ledger.lines()?.into_iter().filter(is_dead).collect();
    let mut torn: Vec<TornMark> = Vec::new();
    let mut asked: Option<Asked> = None;
    for line in dead.iter().filter(|line| line.writes()) {
        tell(target, line);
        torn.extend(tear(line, clock));
        asked = asked.max(debt(target, line));
    }
    let in_place =
        dead.iter().filter_map(|line| line.entry.as_ref()).any(|it| !it.rewriting.is_empty());
    let is_nameless = torn.iter().any(|mark| mark.clients().is_empty());
    if !torn.is_empty() || asked.is_some() {
        State::update(root.private(), |state| {
            state.written_in_place |= in_place;
            for mark in torn {
                state.torn = Some(mark.on_top_of(state.torn.as_ref()));
            }
            if let Some(asked) = asked {
                state.due = Some(due_mark(asked, clock, state.due.take()));
            }
        })?;
    }
    // What mends such a mark is told by the kernel's change times alone, and those lag behind the
    // clock.
    if is_nameless {
        thread::sleep(Duration::from_nanos(STAMP_LAG_NS.unsigned_abs()));
    }
    dead.iter().try_for_each(|line| ledger.strike(line))
}

/// The highest number that a mark of the root holds: what is entered next gets a higher one.
pub(crate) fn highest_marked(root: &SnapshotRoot) -> u64 {
    // A state that cannot be read is told by the run that needs it.
    let torn = State::read(root.private()).ok().and_then(|state| state.torn);
    torn.map_or(0, |mark| mark.highest_sequence())
}

/// The status that the transfer ended with, as far as that still says something.
fn reliable_status(line: &LedgerLine) -> Option<i32> {
    line.status.filter(|_| line.is_of_this_boot())
}

/// The mark of a push that nobody has marked yet: its hook does so before it notes the end.
fn tear(line: &LedgerLine, clock: &Clock) -> Option<TornMark> {
    if reliable_status(line).is_some() {
        return None;
    }
    let now = BootTime::now();
    let tear = line.entry.as_ref().map(|entry| FailedPush::of(&entry.push(), now.clone()));
    Some(TornMark::new(clock.exact_now(), line.status.unwrap_or(UNKNOWN_STATUS), now, tear))
}

fn debt(target: &Target, line: &LedgerLine) -> Option<Asked> {
    let worth = reliable_status(line).map_or(Worth::Partial, |status| {
        Worth::of_status(status, Reporter::Daemon, target.policy.statuses())
    });
    match worth {
        Worth::Complete => Some(Asked::GoodTransfer),
        Worth::Partial => Some(Asked::FailedTransfer),
        Worth::Nothing => None,
    }
}

/// A mark that stands keeps its reason: somebody may rely on it.
fn due_mark(asked: Asked, clock: &Clock, standing: Option<DueMark>) -> DueMark {
    let fresh = DueMark {
        since: clock.now(),
        marked: BootTime::now(),
        asked,
        reason: DueReason::Interrupted,
    };
    match standing {
        Some(standing) => {
            DueMark { marked: fresh.marked, asked: asked.max(standing.asked), ..standing }
        }
        None => fresh,
    }
}

fn tell(target: &Target, line: &LedgerLine) {
    let (label, who, pid) = (target.label(), line.who(), line.pid);
    if line.is_unseen() {
        log::warn!(
            "{label}: the push of {who} (process {pid} of another machine or PID namespace) began at {}, its process cannot be seen from here, and no run of its own side has ended it; it counts as dead now",
            line.began.format("%FT%TZ")
        );
    }
    match reliable_status(line) {
        None => log::warn!(
            "{label}: the push of {who} (process {pid}) is gone and no hook followed it; the module is torn (it may be a mixture of old and new files), and a snapshot is due"
        ),
        Some(status) => log::warn!(
            "{label}: the hook after the push of {who} (process {pid}, status {status}) did not get to its end; a snapshot is due"
        ),
    }
}
