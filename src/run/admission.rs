//! The beginning of a transfer: what is let in, what waits, what is turned away.
//!
//! Order for a push: wait until no run reads the module's tree, look whether the push would rewrite history, enter it in the
//! ledger; all in one step under the ledger's lock. A run closes the gate under the same lock, so none begins to read
//! while a push is about to begin. Only the two deliberate refusals turn anybody away: whatever else goes
//! wrong here costs the snapshot its grade, not the client its backup.

use std::thread::sleep;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::reap::reap;
use crate::clock::Clock;
use crate::config::arguments::{Arguments, Rewriting};
use crate::config::target::Target;
use crate::decide::grade::Grade;
use crate::decide::refusal::{Sharing, refusal};
use crate::store::catalog::{Catalog, names_in};
use crate::store::gate::Gate;
use crate::store::ledger::{Entry, Ledger};
use crate::store::process::Process;
use crate::store::record::{Client, FORMAT};
use crate::store::retire;
use crate::store::root::SnapshotRoot;
use crate::store::state::State;
use crate::tell::error::{Error, Result};

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(200);

/// Who wants to transfer what.
#[derive(Debug, Clone)]
pub struct Applicant {
    /// What it asks for.
    pub arguments: Arguments,
    /// The same as a path, escaped: `RSYNC_REQUEST`.
    pub request: String,
    /// Who it is.
    pub client: Client,
    /// The number of the process that serves the connection.
    pub pid: u32,
}

/// The answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is in the ledger and may begin.
    Entered,
    /// It is turned away, and told this.
    Refused(String),
}

/// Lets a transfer in, or turns it away.
///
/// # Errors
/// If it cannot be entered in the ledger; it may begin all the same.
pub fn admit(target: &Target, applicant: &Applicant, clock: &Clock) -> Result<Admission> {
    let allowed = &target.policy.allow_options;
    let root = match target.open_root() {
        Ok(root) => root,
        // What cannot be looked at may hold history.
        Err(error) => match refused(applicant, allowed, Sharing::Unknown) {
            Some(why) => return Ok(Admission::Refused(why)),
            None => return Err(error),
        },
    };
    State::update(root.private(), |state| state.paired = true)?;
    let deadline = Instant::now() + Duration::from_secs(target.policy.push_wait.seconds());
    let mut pause = FIRST_PAUSE;
    loop {
        let ledger = Ledger::open(&root)?;
        let closed = if applicant.arguments.kind.writes() { Gate::notice(&root, &ledger)? } else { None };
        let Some(notice) = closed else { return enter(target, &root, &ledger, applicant, clock) };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let why = come_back(target, &root, &notice, clock.now());
            return turn_away(&ledger, applicant, why, clock);
        }
        drop(ledger);
        sleep(pause.min(left));
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

fn enter(
    target: &Target,
    root: &SnapshotRoot,
    ledger: &Ledger,
    applicant: &Applicant,
    clock: &Clock,
) -> Result<Admission> {
    if let Some(why) = refused(applicant, &target.policy.allow_options, sharing(target, root)) {
        return turn_away(ledger, applicant, why, clock);
    }
    // An earlier transfer may have been served by a process of the same number.
    reap(target, root, ledger, clock)?;
    ledger.begin(&entry(applicant, false, clock)?)?;
    Ok(Admission::Entered)
}

/// The hook that follows has to know that nothing was transferred.
fn turn_away(ledger: &Ledger, applicant: &Applicant, why: String, clock: &Clock) -> Result<Admission> {
    let entered = entry(applicant, true, clock).and_then(|entry| ledger.begin(&entry));
    if let Err(error) = entered {
        log::error!("the refusal is not in the ledger, so the module will pass for torn: {error}");
    }
    Ok(Admission::Refused(why))
}

fn entry(applicant: &Applicant, refused: bool, clock: &Clock) -> Result<Entry> {
    let Applicant { arguments, request, client, pid } = applicant;
    let owner = Process::of(*pid).ok_or_else(|| Error::Environment {
        variable: "RSYNC_PID",
        problem: format!("names process {pid}, which does not exist"),
    })?;
    Ok(Entry {
        format: FORMAT,
        kind: arguments.kind,
        refused,
        began: clock.exact_now(),
        request: request.clone(),
        rewriting: arguments.rewriting.clone(),
        client: client.clone(),
        owner,
        worker: Process::branch_of(*pid),
    })
}

/// Why an applicant is turned away who may use the options `allowed`, if it is.
pub fn refused(applicant: &Applicant, allowed: &[Rewriting], sharing: Sharing) -> Option<String> {
    let Arguments { kind, rewriting } = &applicant.arguments;
    if !kind.writes() || rewriting.is_empty() {
        return None;
    }
    refusal(rewriting, allowed, sharing)
}

/// How many snapshots share files with the module: visible, retired, or in the making.
fn sharing(target: &Target, root: &SnapshotRoot) -> Sharing {
    let count = || -> Result<usize> {
        let visible = Catalog::read(root, &target.policy.time_zone)?.items.len();
        let staged = names_in(root.room("staging")?.place())?.len();
        Ok(visible + retire::retired(root)?.len() + staged.min(1))
    };
    count().map_or(Sharing::Unknown, Sharing::Snapshots)
}

fn come_back(target: &Target, root: &SnapshotRoot, notice: &str, now: DateTime<Utc>) -> String {
    let minutes = usual_minutes(target, root, now).unwrap_or(1);
    let plural = if minutes == 1 { "" } else { "s" };
    format!("a snapshot of this module is being taken {notice}; please come back in {minutes} minute{plural}")
}

/// How long the newest snapshot took, rounded up.
fn usual_minutes(target: &Target, root: &SnapshotRoot, now: DateTime<Utc>) -> Option<u64> {
    let catalog = Catalog::read(root, &target.policy.time_zone).ok()?;
    let seconds = catalog.newest(Grade::Partial, now)?.record.as_ref()?.duration_seconds;
    Some(((seconds / 60.0).ceil() as u64).clamp(1, 24 * 60))
}
