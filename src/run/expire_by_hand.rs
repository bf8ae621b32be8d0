//! `expire`: retires snapshots that the administrator names, or removes them at once.
//!
//! The order is [judged](crate::decide::expire_by_hand) before anything waits for a lock, so a
//! mistake is told at once, and again under the locks of all roots that it names. Only then is the
//! first snapshot touched. From there on each goes as in rotation ([`retire`]): it is retired as a
//! whole, after a last look at its readers and pins, and only a retired one is removed. So an order
//! that is killed half-way leaves each named snapshot visible, retired, half removed in staging, or
//! gone, and it can be given again.

use chrono::{DateTime, Utc};

use crate::decide::expire_by_hand::{ExpireFacts, RetiredSnapshot, refusals};
use crate::decide::grade::Grade;
use crate::decide::snapshot::Snapshot;
use crate::decide::snapshot_reason::ExpiryPause;
use crate::engine::usage::Usage;
use crate::run::disposal::grace_unnoted;
use crate::run::free_space::freed;
use crate::run::request::Request;
use crate::run::rotate::{ExaminedRoot, examine};
use crate::run::run_lock::RunLock;
use crate::run::session::{Session, lease_terms};
use crate::run::vanished::{self, retired_names};
use crate::store::leases::Leases;
use crate::store::leftovers::clear_staging;
use crate::store::pinning::is_visible;
use crate::store::retire::{self, LeaseRule};
use crate::store::root::SnapshotRoot;
use crate::store::shelf::{OpenShelf, Shelf, Slot};
use crate::store::state::State;
use crate::store::unremovable;
use crate::system::mounts::note_mounts_below;
use crate::tell::error::{Error, Result};
use crate::tell::progress;

/// What the administrator asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExpireOrder {
    /// Remove the snapshots at once, instead of only retiring them.
    pub now: bool,
    /// Fewer complete snapshots than `min_keep` may stay.
    pub below_min_keep: bool,
}

/// What has become of a named snapshot, or would.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExpireOutcome {
    Retired,
    /// It was retired before, and nothing was to be done.
    WasRetired,
    Removed,
    /// Parts of it could not be removed, and are kept where `check` tells of them.
    SetAside,
    /// The administrator pinned it or brought it back meanwhile, or a reader has begun; or it could
    /// not be moved.
    Stays,
}

/// A named snapshot.
#[derive(Debug, Clone)]
pub(crate) struct NamedSnapshot {
    pub name: String,
    pub is_visible: bool,
    pub is_retired: bool,
    /// Whether a run that was killed had begun to remove it.
    pub is_half_removed: bool,
    /// When it was retired, if it was and that is known.
    pub retired: Option<DateTime<Utc>>,
}

/// An order for one root that may be carried out.
#[derive(Debug)]
pub(crate) struct JudgedOrder {
    pub named: Vec<NamedSnapshot>,
    /// Why rotation would expire nothing.
    pub pause: Option<ExpiryPause>,
}

/// What became of one named snapshot.
#[derive(Debug)]
pub(crate) struct ExpiredSnapshot {
    pub name: String,
    pub outcome: ExpireOutcome,
    /// When it was retired, if that is known.
    pub retired: Option<DateTime<Utc>>,
}

/// What was done in one root.
#[derive(Debug, Default)]
pub(crate) struct ExpireReport {
    pub named: Vec<ExpiredSnapshot>,
    /// What the removal has freed; none if nothing was to be removed, or something is left.
    pub freed: Option<Usage>,
    /// What went wrong.
    pub errors: Vec<Error>,
    /// Problems that did not stop the order.
    pub warnings: Vec<String>,
}

impl ExpireReport {
    /// What is done if nothing goes wrong. When a snapshot is retired is not known yet.
    pub(crate) fn expected(judged: &JudgedOrder, order: ExpireOrder) -> Self {
        let named = judged.named.iter().map(|one| ExpiredSnapshot {
            name: one.name.clone(),
            outcome: match one.is_visible {
                _ if order.now || one.is_half_removed => ExpireOutcome::Removed,
                true => ExpireOutcome::Retired,
                false => ExpireOutcome::WasRetired,
            },
            retired: one.retired,
        });
        ExpireReport { named: named.collect(), ..ExpireReport::default() }
    }
}

/// Judges the order for the snapshots `names` of one root. Changes nothing.
///
/// # Errors
/// [`Error::Policy`] without a usable policy: then `min_keep` is not known. [`Error::Usage`] if one
/// of the snapshots has to stay, or is not there any more.
pub(crate) fn judge(session: Session, names: &[&str], order: ExpireOrder) -> Result<JudgedOrder> {
    let Session { target, root, clock } = session;
    if !target.trouble.is_empty() {
        return Err(Error::Policy(target.trouble.clone()));
    }
    let now = clock.now();
    let ExaminedRoot { list, state, decision } = examine(target, root, now, Some(clock.reading()))?;
    let (retired, half_removed) = (retired_names(root)?, half_removed(root)?);
    let snapshots: Vec<Snapshot> =
        decision.verdicts.iter().map(|verdict| verdict.snapshot.clone()).collect();
    let named: Vec<NamedSnapshot> = names
        .iter()
        .map(|name| NamedSnapshot {
            name: (*name).to_string(),
            is_visible: snapshots.iter().any(|snapshot| snapshot.name == *name),
            is_retired: retired.iter().any(|retired| retired == name),
            is_half_removed: half_removed.iter().any(|staged| staged == name),
            retired: state
                .retired
                .get(*name)
                .copied()
                .filter(|_| retired.iter().any(|it| it == name)),
        })
        .collect();
    let guarded = state.pins.iter().filter(|(_, pin)| pin.is_of_anomaly());
    let leases = Leases::look(root)?;
    let terms = lease_terms(target, now);
    let removed = retired.iter().filter(|_| order.now).map(|name| RetiredSnapshot {
        name,
        pin: state.pins.get(name).map(|pin| pin.reason.as_str()),
        reader: leases.holder(name, terms),
    });
    let removed: Vec<RetiredSnapshot> = removed.collect();
    let facts = ExpireFacts {
        snapshots: &snapshots,
        compared: list.newest(Grade::Complete, now).map(|newest| newest.name.text.as_str()),
        guarded: &guarded.map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        retired: &removed,
        root: &root.label(),
        named: names,
        min_keep: target.policy.min_keep,
        below_min_keep: order.below_min_keep,
        now,
    };
    let is_gone = |one: &&NamedSnapshot| !one.is_visible && !one.is_retired && !one.is_half_removed;
    let gone = named.iter().filter(is_gone);
    let gone = gone.map(|one| format!("{} no longer exists", one.name));
    let doubled = named.iter().filter(|one| one.is_visible && one.is_retired && !order.now);
    let doubled = doubled.map(|one| {
        format!(
            "{} stays: a retired snapshot has the same name, so this one cannot be retired; \
             `--now` removes both",
            one.name
        )
    });
    let blocked = if order.now { blocked(root, &named)? } else { Vec::new() };
    let refusals: Vec<String> =
        refusals(&facts).into_iter().chain(gone).chain(doubled).chain(blocked).collect();
    match refusals.is_empty() {
        true => Ok(JudgedOrder { named, pause: decision.pause }),
        false => Err(Error::Usage(format!(
            "{}: nothing was expired: {}",
            target.label(),
            refusals.join("; ")
        ))),
    }
}

/// The snapshots that a run was removing, or making into another one, when it was killed. While
/// another run works on the root, that run's are among them.
///
/// # Errors
/// If they cannot be read.
pub(crate) fn half_removed(root: &SnapshotRoot) -> Result<Vec<String>> {
    if !root.is_registered() {
        return Ok(Vec::new());
    }
    OpenShelf::open(root, Shelf::Staging)?.names()
}

/// The named snapshots that cannot be removed as a whole, with what is in the way.
fn blocked(root: &SnapshotRoot, named: &[NamedSnapshot]) -> Result<Vec<String>> {
    let expired = expired_if_registered(root)?;
    let mut blocked = Vec::new();
    for one in named {
        let name = &one.name;
        for slot in slots(root, expired.as_ref(), one) {
            let path = slot.path();
            note_mounts_below(&[&path]);
            let obstacles = unremovable::obstacles_in_slot(root, &slot, usize::MAX);
            if !obstacles.is_empty() {
                blocked.push(format!("{name} stays: {obstacles}"));
            }
        }
    }
    Ok(blocked)
}

/// Takes the lock of the root.
///
/// # Errors
/// [`Error::Busy`] if another run holds it all the time.
pub(crate) fn lock(session: Session) -> Result<RunLock> {
    let is_covered = || Error::Bug("an expiry was covered by another run");
    RunLock::acquire(session, &Request::rotation())?.ok_or_else(is_covered)
}

/// Carries out an order that was judged under the lock.
///
/// # Errors
/// If nothing could be done at all; the report holds what failed later.
pub(crate) fn carry_out(
    session: Session,
    judged: &JudgedOrder,
    order: ExpireOrder,
) -> Result<ExpireReport> {
    let Session { root, clock, .. } = session;
    let mut report = ExpireReport::default();
    progress::enter("expiring");
    report.warnings.extend(vanished::read_and_note(session)?);
    let names_of = |is_wanted: &dyn Fn(&NamedSnapshot) -> bool| -> Vec<String> {
        judged.named.iter().filter(|one| is_wanted(one)).map(|one| one.name.clone()).collect()
    };
    // A reader that came since keeps what it reads.
    let leases = LeaseRule::Hold(session.lease_terms());
    let left_before = unremovable::names(root);
    // The space is counted before anything is removed.
    let usage = if order.now { would_free(root, judged, None)? } else { None };
    if judged.named.iter().any(|one| one.is_half_removed) {
        report.errors.extend(clear_staging(root).err());
    }
    if order.now {
        // A snapshot cannot be retired as long as a retired one has its name.
        let retired = names_of(&|one| one.is_retired);
        report.errors.extend(retire::remove(root, &retired, leases)?.errors);
    }
    let visible = names_of(&|one| one.is_visible);
    // On a full disk the time of retirement cannot be written, and the space is needed.
    let (unnoted, failed): (Vec<Error>, Vec<Error>) =
        retire::retire(root, &visible, leases, clock.now())?
            .errors
            .into_iter()
            .partition(Error::is_lack_of_space);
    report.errors.extend(failed);
    if order.now {
        let retired = retire::retired(root)?;
        let going: Vec<String> =
            visible.into_iter().filter(|name| retired.contains(name)).collect();
        report.errors.extend(retire::remove(root, &going, leases)?.errors);
    }
    let (state, retired) = (State::read(root.private())?, retire::retired(root)?);
    let left: Vec<String> =
        unremovable::names(root).into_iter().filter(|left| !left_before.contains(left)).collect();
    for NamedSnapshot { name, is_visible: was_visible, .. } in &judged.named {
        let outcome = match () {
            () if is_visible(root, name)? => ExpireOutcome::Stays,
            () if left.iter().any(|left| is_left_of(name, left)) => ExpireOutcome::SetAside,
            () if !retired.contains(name) => ExpireOutcome::Removed,
            () if order.now => ExpireOutcome::Stays,
            () if *was_visible => ExpireOutcome::Retired,
            () => ExpireOutcome::WasRetired,
        };
        let retired = if retired.contains(name) { state.retired.get(name).copied() } else { None };
        report.named.push(ExpiredSnapshot { name: name.clone(), outcome, retired });
    }
    let is_done = report.named.iter().all(|one| one.outcome != ExpireOutcome::Stays);
    match is_done {
        true if order.now => {}
        true => report.warnings.extend(unnoted.iter().map(grace_unnoted)),
        false => report.errors.extend(unnoted),
    }
    report.freed = usage.filter(|_| is_done && report.errors.is_empty());
    Ok(report)
}

/// Whether `left`, a name in `unremovable/`, is that of the snapshot `name`: the same, or with a
/// number after it.
fn is_left_of(name: &str, left: &str) -> bool {
    let rest = left.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// What the removal of all of the named snapshots would free, up to `max_entries`.
pub(crate) fn would_free(
    root: &SnapshotRoot,
    judged: &JudgedOrder,
    max_entries: Option<u64>,
) -> Result<Option<Usage>> {
    let expired = expired_if_registered(root)?;
    let trees = judged.named.iter().flat_map(|one| slots(root, expired.as_ref(), one));
    Ok(freed(root, trees.collect(), max_entries))
}

fn expired_if_registered(root: &SnapshotRoot) -> Result<Option<OpenShelf<'_>>> {
    root.is_registered().then(|| OpenShelf::open(root, Shelf::Expired)).transpose()
}

/// Where the snapshot is: in the root, among the retired ones, or both.
fn slots<'a>(
    root: &'a SnapshotRoot,
    expired: Option<&'a OpenShelf>,
    NamedSnapshot { name, is_visible, is_retired, .. }: &NamedSnapshot,
) -> Vec<Slot<'a>> {
    let here = is_visible.then(|| root.visible(name));
    let there = expired.filter(|_| *is_retired).map(|expired| expired.slot(name));
    here.into_iter().chain(there).collect()
}
