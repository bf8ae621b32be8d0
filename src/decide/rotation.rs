//! Which snapshots stay, which go, and why: a pure function of snapshots, state, policy and now.
//!
//! The rule of rotate-backups: cut time into slots per frequency, let one snapshot stand for
//! each, drop those before the window, keep the N newest slots; whoever stands for a kept slot
//! stays. Ours differs where that loses data:
//!
//! * A snapshot holds not for an instant but from its own time to *verified-until*, the last
//!   run that found nothing changed, and stands for every slot between. So a snapshot has a
//!   *range* of slots, and all arithmetic is on ranges: its cost does not depend on how long
//!   the quiet was.
//! * Complete snapshots are decided alone; partial, future-dated and [undated](super::dating) ones
//!   take no part.
//! * The newest complete one, `min_keep`, `min_age` and pins only ever add to what is kept;
//!   the pauses and `max_expire` come last and only ever turn "goes" into "stays".

use chrono::{DateTime, Utc};

use super::brake::Brake;
use super::claim::{Claim, HeldSpan, claims};
use super::clock_guard::{ClockHistory, ClockJump, Numbers, Reading};
use super::damage::Damage;
use super::dating::{self, BootMoment, Undated};
use super::doubted_expiry;
use super::grade::Grade;
use super::guards;
use super::obstacle::Obstacle;
use super::policy::Policy;
use super::reason::{Pause, Reason, pause_line};
use super::slot;

/// What rotation needs to know about a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its directory's name.
    pub name: String,
    /// When it was taken.
    pub time: DateTime<Utc>,
    /// Until when later runs found the module unchanged; never before `time`.
    pub verified_until: DateTime<Utc>,
    /// What its content is worth.
    pub grade: Grade,
    /// Whether we made it, rather than adopted it by its name.
    pub recorded: bool,
    /// Why it is pinned, if it is.
    pub pinned: Option<String>,
    /// What is known of it cannot be read, so how long it held is not known.
    pub unreadable: bool,
    /// The order in which it was taken; none for adopted ones, and for those of older versions.
    pub sequence: Option<u64>,
    /// When it was taken by the boot clock.
    pub taken_at: Option<BootMoment>,
    /// Why its date is not believed; [`decide`] notes it.
    pub undated: Option<Undated>,
    /// What keeps it from being retired, whatever is decided.
    pub obstacle: Option<Obstacle>,
}

/// What rotation needs to know about earlier runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// When the last run was.
    pub last_run: Option<DateTime<Utc>>,
    /// The pause that stands since an earlier run.
    pub clock_jump: Option<ClockJump>,
    /// What earlier runs found out about the clock.
    pub clock: ClockHistory,
    /// What both clocks show now; none for a decision about another time.
    pub reading: Option<Reading>,
    /// The sequence number of the newest snapshot that the last run knew of.
    pub sequence: u64,
    /// The state was lost and nobody has confirmed since.
    pub state_lost: bool,
    /// A person knows of recorded snapshots with wrong dates up to this one.
    pub confirmed_future: Option<DateTime<Utc>>,
    /// The pause that a push caused which changed most of the tree.
    pub brake: Option<Brake>,
    /// Files in snapshots that were found altered.
    pub damage: Option<Damage>,
    /// The [`rules`](super::guards::rules) that the last rotation went by, if there was one.
    pub rules: Option<String>,
}

impl History {
    /// What is known of the clock with its present reading.
    fn clock_now(&self, snapshots: &[Snapshot], policy: &Policy) -> ClockHistory {
        let newest = snapshots.iter().filter_map(|snapshot| snapshot.sequence).max();
        let numbers =
            Numbers { known: self.sequence, newest: newest.unwrap_or(0).max(self.sequence) };
        match &self.reading {
            Some(reading) => self.clock.observe(reading, numbers, policy.clock_jump),
            None => self.clock.clone(),
        }
    }
}

/// The fate of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Whether it stays.
    pub keep: bool,
    /// Why; never empty.
    pub reasons: Vec<Reason>,
}

/// The fate of all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// One verdict per snapshot, oldest first.
    pub verdicts: Vec<Verdict>,
    /// Why nothing is expired, if so. Then every verdict is "stays", but for what goes
    /// [under every dating](super::doubted_expiry) of a clock in doubt.
    pub pause: Option<Pause>,
    /// How many would go but for `max_expire`.
    pub deferred: usize,
}

impl Decision {
    /// What is said of the pause, if there is one.
    pub fn pause_line(&self) -> Option<String> {
        self.pause.as_ref().map(|pause| pause_line(pause, self.expired().count()))
    }

    /// The names of those that go, oldest first.
    pub fn expired(&self) -> impl Iterator<Item = &Verdict> {
        self.verdicts.iter().filter(|verdict| !verdict.keep)
    }
}

/// Decides for all `snapshots` of a root. The order of the input does not matter.
pub fn decide(
    snapshots: &[Snapshot],
    history: &History,
    policy: &Policy,
    now: DateTime<Utc>,
) -> Decision {
    let clock = history.clock_now(snapshots, policy);
    let mut snapshots = snapshots.to_vec();
    dating::mark(&mut snapshots, &clock);
    let mut decision = decide_before_guards(&snapshots, policy, now);
    guards::keep_irremovable(&mut decision.verdicts);
    decision.pause = guards::pause(&snapshots, history, &clock, policy, now)
        .or_else(|| guards::surprise(&decision, history, policy));
    if let Some(pause) = decision.pause.clone() {
        guards::apply_pause(&mut decision.verdicts, &pause);
        if let Pause::ClockDoubt(_) = pause {
            doubted_expiry::expire_under_all(&mut decision.verdicts, &clock, policy);
            guards::keep_irremovable(&mut decision.verdicts);
            if guards::surprise(&decision, history, policy).is_some() {
                guards::apply_pause(&mut decision.verdicts, &pause);
            }
        }
    }
    decision.deferred = guards::apply_max_expire(&mut decision.verdicts, policy.max_expire);
    decision
}

/// The decision before caps and guards, the one for which the laws hold.
pub fn decide_before_guards(
    snapshots: &[Snapshot],
    policy: &Policy,
    now: DateTime<Utc>,
) -> Decision {
    let mut verdicts: Vec<Verdict> = snapshots
        .iter()
        .map(|snapshot| Verdict { snapshot: snapshot.clone(), keep: false, reasons: Vec::new() })
        .collect();
    verdicts.sort_by(|a, b| {
        (a.snapshot.time, &a.snapshot.name).cmp(&(b.snapshot.time, &b.snapshot.name))
    });

    let (undated, dated): (Vec<usize>, Vec<usize>) =
        (0..verdicts.len()).partition(|&index| verdicts[index].snapshot.undated.is_some());
    let (present, future): (Vec<usize>, Vec<usize>) =
        dated.into_iter().partition(|&index| verdicts[index].snapshot.time <= now);
    let (complete, partial): (Vec<usize>, Vec<usize>) =
        present.into_iter().partition(|&index| verdicts[index].snapshot.grade == Grade::Complete);

    for index in undated {
        let verdict = &mut verdicts[index];
        if let Some(why) = verdict.snapshot.undated {
            keep(verdict, Reason::Undated(why));
        }
        keep_pinned(verdict);
    }
    for index in future {
        keep(&mut verdicts[index], Reason::Future);
    }
    keep_slots(&mut verdicts, &complete, policy, now);
    keep_floors(&mut verdicts, &complete, policy, now);
    let since = complete.last().copied();
    keep_partial_slots(&mut verdicts, &partial, since, policy, now);
    keep_recent_partials(&mut verdicts, &partial, policy, now);
    Decision { verdicts, pause: None, deferred: 0 }
}

/// A verification in the future was made by a wrong clock and proves nothing.
fn held_span(snapshot: &Snapshot, now: DateTime<Utc>) -> HeldSpan {
    let credible = snapshot.verified_until <= now;
    let until = if credible { snapshot.verified_until.max(snapshot.time) } else { snapshot.time };
    HeldSpan { from: snapshot.time, until }
}

pub(super) fn keep(verdict: &mut Verdict, reason: Reason) {
    if !verdict.keep {
        // What was said in favour of expiring it no longer matters.
        verdict.reasons.clear();
        verdict.keep = true;
    }
    verdict.reasons.push(reason);
}

/// Keeps what stands for a slot, and notes for the others who stands for theirs.
fn keep_slots(verdicts: &mut [Verdict], complete: &[usize], policy: &Policy, now: DateTime<Utc>) {
    for &(frequency, count) in &policy.keep {
        let spans: Vec<HeldSpan> =
            complete.iter().map(|&index| held_span(&verdicts[index].snapshot, now)).collect();
        let claims = claims(&spans, frequency, count, policy);
        for (position, claim) in claims.into_iter().enumerate() {
            let verdict = &mut verdicts[complete[position]];
            match claim {
                Claim::Kept { rank } => {
                    let slot = slot::label(
                        frequency,
                        held_span(&verdict.snapshot, now).until,
                        &policy.time_zone,
                    );
                    keep(
                        verdict,
                        Reason::Slot { frequency, rank, of: count, prefer: policy.prefer, slot },
                    );
                }
                Claim::Taken { .. } | Claim::Outside if verdict.keep => {}
                Claim::Taken { by } => {
                    let slot = slot::label(frequency, verdict.snapshot.time, &policy.time_zone);
                    let by = verdicts[complete[by]].snapshot.name.clone();
                    verdicts[complete[position]].reasons.push(Reason::SlotTaken {
                        frequency,
                        slot,
                        by,
                    });
                }
                Claim::Outside => verdict.reasons.push(Reason::OutsideWindow { frequency, count }),
            }
        }
    }
}

/// Keeps the newest, the young, the pinned and the last `min_keep`.
fn keep_floors(verdicts: &mut [Verdict], complete: &[usize], policy: &Policy, now: DateTime<Utc>) {
    if let Some(&newest) = complete.last() {
        keep(&mut verdicts[newest], Reason::NewestComplete);
    }
    for &index in complete {
        keep_young_and_pinned(&mut verdicts[index], policy, now);
    }
    let mut kept = complete.iter().filter(|&&index| verdicts[index].keep).count();
    for &index in complete.iter().rev() {
        if kept >= policy.min_keep {
            break;
        }
        if !verdicts[index].keep {
            keep(&mut verdicts[index], Reason::MinKeep(policy.min_keep));
            kept += 1;
        }
    }
}

fn keep_pinned(verdict: &mut Verdict) {
    if let Some(reason) = verdict.snapshot.pinned.clone() {
        keep(verdict, Reason::Pinned(reason));
    }
}

fn keep_young_and_pinned(verdict: &mut Verdict, policy: &Policy, now: DateTime<Utc>) {
    keep_pinned(verdict);
    if verdict.snapshot.unreadable {
        keep(verdict, Reason::Unreadable);
    }
    if now - held_span(&verdict.snapshot, now).until < policy.min_age.delta() {
        keep(verdict, Reason::TooYoung(policy.min_age));
    }
}

/// Thins the partial snapshots since the newest complete one as complete ones are thinned: where no
/// push ends well for weeks, they are all the history there is.
fn keep_partial_slots(
    verdicts: &mut [Verdict],
    partial: &[usize],
    newest_complete: Option<usize>,
    policy: &Policy,
    now: DateTime<Utc>,
) {
    let since = newest_complete.map(|index| {
        let snapshot = &verdicts[index].snapshot;
        (snapshot.name.clone(), held_span(snapshot, now).until)
    });
    let is_newer = |index: &usize| {
        let time = verdicts[*index].snapshot.time;
        since.as_ref().is_none_or(|(_, until)| time > *until)
    };
    let newer: Vec<usize> = partial.iter().copied().filter(is_newer).collect();
    let spans: Vec<HeldSpan> =
        newer.iter().map(|&index| held_span(&verdicts[index].snapshot, now)).collect();
    let since = since.map(|(name, _)| name);
    for &(frequency, count) in &policy.keep {
        for (position, claim) in claims(&spans, frequency, count, policy).into_iter().enumerate() {
            if matches!(claim, Claim::Kept { .. }) {
                let slot = slot::label(frequency, spans[position].until, &policy.time_zone);
                let reason = Reason::PartialSlot { frequency, slot, since: since.clone() };
                keep(&mut verdicts[newer[position]], reason);
            }
        }
    }
}

fn keep_recent_partials(
    verdicts: &mut [Verdict],
    partial: &[usize],
    policy: &Policy,
    now: DateTime<Utc>,
) {
    for (newer, &index) in partial.iter().rev().enumerate() {
        let verdict = &mut verdicts[index];
        if newer < policy.keep_partial {
            keep(verdict, Reason::RecentPartial { rank: newer + 1, of: policy.keep_partial });
        } else if !verdict.keep {
            verdict.reasons.push(Reason::OldPartial(policy.keep_partial));
        }
        keep_young_and_pinned(verdict, policy, now);
    }
}
