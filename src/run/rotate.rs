//! Carries out what [`decide`](crate::decide::rotation) decided.
//!
//! It runs after a new snapshot is durable or proved unnecessary, or by hand; never after a failed
//! transfer, so failures alone cannot wear a history down. Everything is decided on one reading of
//! the root under the lock, told, and retired as a whole. What earlier runs retired is removed
//! after that, when its grace is over, and at last what `free_space` wants.

use chrono::{DateTime, Utc};

use super::hold::{Hold, Released};
use super::{Report, Request, room};
use crate::clock::Clock;
use crate::config::target::Target;
use crate::decide::clock_guard::Reading;
use crate::decide::grade::Grade;
use crate::decide::guards::rules;
use crate::decide::reason::Reason;
use crate::decide::rotation::{Decision, decide};
use crate::store::catalog::Catalog;
use crate::store::memory::{Failure, Work};
use crate::store::publish::clear_staging;
use crate::store::retire;
use crate::store::root::SnapshotRoot;
use crate::store::state::State;
use crate::store::unremovable;
use crate::tell::counted;
use crate::tell::error::{Error, Result};
use crate::tell::exit::Exit;

/// What rotation decided and did.
#[derive(Debug)]
pub struct Rotated {
    /// The verdict on each snapshot.
    pub decision: Decision,
    /// Problems that did not stop it; each is in the log.
    pub warnings: Vec<String>,
}

impl Rotated {
    /// The exit status that tells it.
    pub fn exit(&self) -> Exit {
        if self.warnings.is_empty() { Exit::Done } else { Exit::Warnings }
    }
}

/// A root and what is decided on it.
pub struct Examined {
    /// Its snapshots.
    pub catalog: Catalog,
    /// What earlier runs left behind.
    pub state: State,
    /// What rotation would do.
    pub decision: Decision,
}

/// Decides without doing anything, as of `now`; `reading` is of the clocks, unless `now` is another
/// time than the present.
pub fn examine(
    target: &Target,
    root: &SnapshotRoot,
    now: DateTime<Utc>,
    reading: Option<Reading>,
) -> Result<Examined> {
    let state = if root.is_registered() { State::read(root.private())? } else { State::default() };
    let mut catalog = Catalog::read(root, &target.policy.time_zone)?;
    catalog.pin(&state.pins);
    let decision = decide(&catalog.snapshots(), &state.history(reading), &target.policy, now);
    Ok(Examined { catalog, state, decision })
}

/// The same for those who need no state.
pub fn look(
    target: &Target,
    root: &SnapshotRoot,
    now: DateTime<Utc>,
    reading: Option<Reading>,
) -> Result<(Catalog, Decision)> {
    let Examined { catalog, decision, .. } = examine(target, root, now, reading)?;
    Ok((catalog, decision))
}

/// Rotates by hand. With `confirm`, a person vouches for the clock and the policy: pauses end
/// first.
///
/// # Errors
/// [`Error::Policy`] if the policy cannot be used: then nothing expires.
pub fn rotate(
    target: &Target,
    confirm: bool,
    disposal: Disposal,
    clock: &Clock,
) -> Result<Rotated> {
    if !target.trouble.is_empty() {
        return Err(Error::Policy(target.trouble.clone()));
    }
    let result = rotate_by_hand(target, confirm, disposal, clock);
    let remembered = target.memory.change(&target.module_path, |memory| match &result {
        Ok(rotated) => {
            memory.warnings.clone_from(&rotated.warnings);
            memory.failure = memory.failure.take().filter(|failure| failure.work != Work::Rotation);
        }
        Err(error) => memory.failure = Some(Failure::now(Work::Rotation, error.to_string())),
    });
    if let Err(error) = remembered {
        log::debug!("nothing remembered outside the snapshot root: {error}");
    }
    result
}

fn rotate_by_hand(
    target: &Target,
    confirm: bool,
    disposal: Disposal,
    clock: &Clock,
) -> Result<Rotated> {
    // A timer must not make the loss of a history look like a new beginning.
    if let Some(lost) = target.lost_history() {
        return Err(lost);
    }
    let root = target.open_root()?;
    super::remember_policy(target, &root)?;
    crate::resources::lower_priority(&target.policy);
    let is_covered = || Error::Usage("a rotation cannot be covered by another run".to_string());
    let mut hold =
        Hold::acquire(target, &root, &Request::rotation(), clock)?.ok_or_else(is_covered)?;
    let alone = hold.wait_for_turn(target, &root, &Request::rotation(), clock)?;
    if confirm {
        end_pauses(target, &root, &clock.reading())?;
    }
    let mut rotated = rotate_locked(target, &root, clock, disposal)?;
    rotated.warnings.extend(alone);
    if let Some(warning) = root.file_system_warning() {
        rotated.warn(&target.label(), warning);
    }
    if let Released::Due { mark, held } = hold.release_unless_due(&root)?
        && let Err(error) = super::work_and_hash(target, &root, Request::owed(&mark), clock, held)
    {
        rotated
            .warn(&target.label(), format!("the snapshot that fell due meanwhile failed: {error}"));
    }
    Ok(rotated)
}

/// A person has looked at the clock, the policy and the list. The brake needs a `release`.
fn end_pauses(target: &Target, root: &SnapshotRoot, reading: &Reading) -> Result<()> {
    let now = reading.time;
    let Examined { catalog, state, .. } = examine(target, root, now, Some(reading.clone()))?;
    let snapshots = catalog.snapshots();
    let future =
        snapshots.iter().map(|snapshot| snapshot.verified_until).filter(|time| *time > now).max();
    // The clock is right, so these dates cannot be.
    let misdated: Vec<u64> = snapshots
        .iter()
        .filter(|snapshot| snapshot.time > now)
        .filter_map(|snapshot| snapshot.sequence)
        .collect();
    let sequence = catalog.sequence().max(state.sequence);
    State::update(root.private(), |state| {
        state.state_lost = false;
        state.records_lost = None;
        state.clock_jump = None;
        state.clock = Some(state.clock_history().confirm(reading, sequence, &misdated));
        state.sequence = sequence;
        state.confirmed_future = future;
        state.rules = Some(rules(&target.policy));
        if let Some(run) = &mut state.last_run {
            run.time = now;
        }
    })
    .map(drop)
}

/// Rotates after a run has made its snapshot durable or found it unnecessary.
pub(super) fn rotate_after_snapshot(
    target: &Target,
    root: &SnapshotRoot,
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    if report.policy_trouble {
        return Ok(());
    }
    let rotated = rotate_locked(target, root, clock, Disposal::Later)?;
    report.warnings.extend(rotated.warnings);
    if let Err(error) = super::verify::compact_if_outgrown(target, root) {
        report.warn(
            &target.label(),
            format!(
                "the catalogue of inodes (.rsyncd-snapshot/inodes) stays as large as it is: {error}"
            ),
        );
    }
    Ok(())
}

/// Removes what is retired where its space is wanted: a transfer failed, or a snapshot for lack of
/// it. Not what is within a grace that the policy sets, and nothing while expiry is paused.
pub(super) fn free_retired(
    target: &Target,
    root: &SnapshotRoot,
    clock: &Clock,
) -> Result<Vec<String>> {
    let now = clock.now();
    let is_paused = || -> Result<bool> {
        Ok(examine(target, root, now, Some(clock.reading()))?.decision.pause.is_some())
    };
    if !target.trouble.is_empty() || is_paused()? {
        return Ok(Vec::new());
    }
    let removed = retire::remove(root, &retire::past_grace(root, target.policy.grace, now)?.names)?;
    Ok(removed.errors.iter().map(|error| format!("a retired snapshot remains: {error}")).collect())
}

/// What becomes of the retired snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposal {
    /// Those that an earlier run retired and whose grace is over go, but for one to be recycled.
    Later,
    /// All of them go, at once.
    Now,
}

fn rotate_locked(
    target: &Target,
    root: &SnapshotRoot,
    clock: &Clock,
    disposal: Disposal,
) -> Result<Rotated> {
    let now = clock.now();
    let over = retire::past_grace(root, target.policy.grace, now)?;
    let Examined { catalog, state, decision } = examine(target, root, now, Some(clock.reading()))?;
    let mut rotated = Rotated { decision, warnings: Vec::new() };
    let mut just_retired = Vec::new();
    if let Some(error) = over.unnoted {
        rotated
            .warn(&target.label(), format!("for how long retired snapshots can be brought back (grace) is counted from a later run on: {error}"));
    }
    for warning in &catalog.warnings {
        rotated.warn(&target.label(), warning.clone());
    }
    tell_decision(&target.label(), &mut rotated, target.policy.max_expire);
    if rotated.decision.pause.is_none()
        && let Err(error) = remember_rules(target, root, &catalog, &state)
    {
        // It has to be possible to make room; the next run remembers them.
        match error.is_lack_of_space() {
            true => rotated.warn(&target.label(), error.to_string()),
            false => return Err(error),
        }
    }
    let names: Vec<String> =
        rotated.decision.expired().map(|verdict| verdict.snapshot.name.clone()).collect();
    if !names.is_empty() {
        // What goes in this run anyway must not keep a snapshot of the same name.
        let going = match (disposal, &rotated.decision.pause) {
            (Disposal::Now, _) => retire::retired(root)?,
            (Disposal::Later, Some(_)) => Vec::new(),
            (Disposal::Later, None) => over.names.clone(),
        };
        just_retired = retire(target, root, &names, &going, now, &mut rotated)?;
    }
    if disposal == Disposal::Now
        && let Err(error) = clear_staging(root)
    {
        rotated.warn(
            &target.label(),
            format!(
                "what an earlier run left in .rsyncd-snapshot/staging cannot be removed: {error}"
            ),
        );
    }
    if disposal == Disposal::Now {
        for cause in unremovable::remove_all(root)? {
            let message = format!("a tree that was set aside still cannot be removed: {cause}");
            rotated.warn(&target.label(), message);
        }
    }
    let names = match (disposal, &rotated.decision.pause) {
        (Disposal::Now, _) => retire::retired(root)?,
        (Disposal::Later, Some(_)) => Vec::new(),
        (Disposal::Later, None) => {
            let spare = retire::recyclable(root, target.policy.grace, now)?;
            let is_left =
                |name: &String| spare.as_ref() != Some(name) && !just_retired.contains(name);
            over.names.into_iter().filter(is_left).collect()
        }
    };
    remove(target, root, &names, &mut rotated)?;
    room::make(target, root, clock, &mut rotated)?;
    Ok(rotated)
}

/// Retires `names`. Of those that a retired snapshot within its grace stands in the way of, the
/// visible one stays; `past_grace` names the retired ones that may go. Returns what was retired.
pub(super) fn retire(
    target: &Target,
    root: &SnapshotRoot,
    names: &[String],
    past_grace: &[String],
    now: DateTime<Utc>,
    rotated: &mut Rotated,
) -> Result<Vec<String>> {
    let label = target.label();
    let way = retire::make_way(root, names, past_grace)?;
    for name in way.taken {
        rotated.warn(
            &label,
            format!(
                "{name} stays: a retired snapshot of that name can still be brought back; \
                 `rotate --purge` removes what is retired"
            ),
        );
    }
    let errors = way.errors.into_iter().chain(retire::retire(root, &way.free, now)?);
    errors.for_each(|error| rotated.warn(&label, error.to_string()));
    Ok(way.free)
}

/// Removes the retired snapshots `names` for good, and says so.
pub(super) fn remove(
    target: &Target,
    root: &SnapshotRoot,
    names: &[String],
    rotated: &mut Rotated,
) -> Result<()> {
    let label = target.label();
    let removed = retire::remove(root, names)?;
    for error in removed.errors {
        rotated.warn(&label, format!("a retired snapshot remains: {error}"));
    }
    if removed.trees > 0 {
        log::info!(
            "{label}: removed {} with {} entries",
            counted(removed.trees, "retired snapshot"),
            removed.entries
        );
    }
    Ok(())
}

/// Remembers by which rules this root is rotated: others may have to be confirmed first. As long as
/// the floors keep everything, rules have proved nothing.
fn remember_rules(
    target: &Target,
    root: &SnapshotRoot,
    catalog: &Catalog,
    state: &State,
) -> Result<()> {
    let rules = rules(&target.policy);
    let complete = catalog.items.iter().filter(|item| item.name.grade == Grade::Complete).count();
    if state.rules.as_ref() == Some(&rules) || complete <= target.policy.min_keep.max(1) {
        return Ok(());
    }
    State::update(root.private(), |state| state.rules = Some(rules)).map(drop)
}

/// One line per decision with its reasons.
fn tell_decision(label: &str, rotated: &mut Rotated, max_expire: usize) {
    for verdict in &rotated.decision.verdicts {
        let reasons: Vec<String> = verdict.reasons.iter().map(Reason::brief).collect();
        let level = if verdict.keep { log::Level::Debug } else { log::Level::Info };
        let word = if verdict.keep { "keep" } else { "expire" };
        log::log!(level, "{label}: {word} {}: {}", verdict.snapshot.name, reasons.join(", "));
    }
    if let Some(line) = rotated.decision.pause_line() {
        rotated.warn(label, line);
    }
    if rotated.decision.deferred > 0 {
        let deferred = rotated.decision.deferred;
        rotated.warn(
            label,
            format!("max_expire {max_expire} reached; {deferred} more expire in later runs"),
        );
    }
}

impl Rotated {
    /// Logs a problem that does not stop the rotation.
    pub(super) fn warn(&mut self, label: &str, message: String) {
        log::warn!("{label}: {message}");
        self.warnings.push(message);
    }
}
