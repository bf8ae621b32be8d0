//! Entries of the ledger that nobody takes care of any more, and what they leave.
//!
//! A transfer whose hook never ran has left the module torn, as far as anybody knows; one whose hook was
//! killed is still owed its snapshot. Both go into the state, durably, before the entry is struck out.

use crate::clock::Clock;
use crate::config::target::Target;
use crate::decide::grade::Intent;
use crate::store::boot::BootTime;
use crate::store::ledger::{Ledger, Line};
use crate::store::root::SnapshotRoot;
use crate::store::state::{Asked, DueMark, DueReason, State};
use crate::store::torn::TornMark;
use crate::tell::error::Result;
use crate::tell::escape::one_line;

/// What stands for the status of a transfer that nobody knows the end of, as rsyncd itself tells it.
const UNKNOWN_STATUS: i32 = -1;

/// Strikes out the entries of the dead, after the state has taken over what they leave.
pub(super) fn reap(target: &Target, root: &SnapshotRoot, ledger: &Ledger, clock: &Clock) -> Result<()> {
    ledger.clean_up()?;
    let dead: Vec<Line> = ledger.lines()?.into_iter().filter(|line| !line.is_alive()).collect();
    let mut torn: Vec<TornMark> = Vec::new();
    let mut asked: Option<Asked> = None;
    for line in dead.iter().filter(|line| line.writes()) {
        let policy = &target.policy;
        let intent = match line.status {
            Some(status) => Intent::of_status(status, &policy.snapshot_on_exit, &policy.partial_on_exit),
            None => Intent::Partial,
        };
        tell(target, line);
        if intent.tears() {
            let client = line.entry.as_ref().map(|entry| entry.client.identity());
            let status = line.status.unwrap_or(UNKNOWN_STATUS);
            torn.push(TornMark::new(clock.exact_now(), status, BootTime::now(), client.as_deref()));
        }
        asked = asked.max(match intent {
            Intent::Complete => Some(Asked::GoodTransfer),
            Intent::Partial => Some(Asked::FailedTransfer),
            Intent::Nothing => None,
        });
    }
    if !torn.is_empty() || asked.is_some() {
        State::update(root.private(), |state| {
            for mark in torn {
                state.torn = Some(mark.on_top_of(state.torn.as_ref()));
            }
            if let Some(asked) = asked {
                state.due = Some(due_mark(asked, clock, state.due.take()));
            }
        })?;
    }
    dead.iter().try_for_each(|line| ledger.strike(line))
}

/// A mark that stands keeps its reason: somebody may rely on it.
fn due_mark(asked: Asked, clock: &Clock, standing: Option<DueMark>) -> DueMark {
    let fresh =
        DueMark { since: clock.now(), marked: BootTime::now(), asked, reason: DueReason::Interrupted };
    match standing {
        Some(standing) => DueMark { marked: fresh.marked, asked: asked.max(standing.asked), ..standing },
        None => fresh,
    }
}

fn tell(target: &Target, line: &Line) {
    let label = target.label();
    let who = line.who();
    let who = one_line(&who);
    match line.status {
        None => log::warn!(
            "{label}: the push of {who} (process {}) is gone and no hook followed it; the module is torn, and a snapshot is due",
            line.pid
        ),
        Some(status) => log::warn!(
            "{label}: the hook after the push of {who} (process {}, status {status}) did not get to its end; a snapshot is due",
            line.pid
        ),
    }
}
