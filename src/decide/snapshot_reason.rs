//! The reasons why a snapshot stays or goes, and the pauses of expiry, as data and as text.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::decide::anomaly::Anomaly;
use crate::decide::clock_doubt::ClockDoubt;
use crate::decide::clock_jump::ClockJump;
use crate::decide::damage::Damage;
use crate::decide::duration_text::DurationText;
use crate::decide::frequency::{Frequency, SlotCount};
use crate::decide::lease::SnapshotReader;
use crate::decide::obstacle::Obstacle;
use crate::decide::policy::Prefer;
use crate::decide::slot::SlotName;
use crate::decide::snapshot::Undated;
use crate::tell::counted;

/// One reason of a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotReason {
    /// It stands for a slot that is kept.
    Slot {
        /// The slot's frequency.
        frequency: Frequency,
        /// The slot's rank among those kept, 1 for the newest.
        rank: u64,
        /// How many are kept.
        of: SlotCount,
        /// Which snapshot stands for a slot.
        prefer: Prefer,
        /// The slot's name; the newest one's when it stands for several.
        slot: SlotName,
    },
    /// It is the newest complete snapshot.
    NewestComplete,
    /// Without it there would be fewer complete snapshots than `min_keep`.
    MinKeep(usize),
    /// It is younger than `min_age`.
    TooYoung(DurationText),
    /// It is among the newest `keep_partial` partial ones.
    RecentPartial {
        /// 1 for the newest.
        rank: usize,
        /// The policy's `keep_partial`.
        of: usize,
    },
    /// It is partial and stands for a slot among those since the newest complete one.
    PartialSlot {
        /// The slot's frequency.
        frequency: Frequency,
        /// The slot's name.
        slot: SlotName,
        /// The newest complete snapshot, if there is one.
        since: Option<String>,
    },
    /// A person pinned it, for this reason.
    Pinned(String),
    /// Its record cannot be read.
    Unreadable,
    /// It is dated later than now.
    Future,
    /// Its date is not believed.
    Undated(Undated),
    /// It would go, but it cannot be retired.
    Unremovable(Obstacle),
    /// It would go, but it is being read.
    Read(SnapshotReader),
    /// It would go, but this run has expired `max_expire` already.
    Deferred(usize),
    /// It would go, but expiry is paused.
    Paused(ExpiryPause),
    /// It stays while the clock is in doubt, because it stays under one of the possible times.
    IfTime {
        /// That possible time: what time it would be now.
        time: DateTime<Utc>,
        /// Why it stays under that time.
        reason: Box<SnapshotReason>,
    },
    /// It stays while the clock is in doubt, because a doubted time says how long it was unchanged.
    VerifiedInDoubt,
    /// It goes although the clock is in doubt, because it goes under each of this many possible
    /// times.
    EveryTime(usize),
    /// It goes: another snapshot stands for its slot.
    SlotTaken {
        /// The slot's frequency.
        frequency: Frequency,
        /// The slot's name.
        slot: SlotName,
        /// The snapshot that stands for it.
        by: String,
    },
    /// It goes: its slot is older than the frequency's window or count.
    OutsideWindow {
        /// The frequency.
        frequency: Frequency,
        /// How many slots are kept.
        count: SlotCount,
    },
    /// It goes: there are `keep_partial` newer partial ones.
    OldPartial(usize),
    /// It went although the policy keeps it, because less space was free than `free_space` wants.
    SpaceWanted,
    /// It went although it is being read, because less space was free than `free_space` wants.
    SpaceWantedWhileRead(SnapshotReader),
}

/// Why nothing is expired at present, or hardly anything if the clock is in doubt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpiryPause {
    /// The clock stepped since the last run.
    ClockJump(ClockJump),
    /// The clock contradicts the boot clock, or what was believed before the boot.
    ClockDoubt(Box<ClockDoubt>),
    /// A snapshot that this program recorded is dated later than now.
    RecordedInFuture(String),
    /// The state file was damaged or missing, so what it knew about pauses is lost.
    StateLost,
    /// A push changed most of the tree.
    Anomaly(Anomaly),
    /// Files in snapshots have been altered.
    Damage(Damage),
    /// The policy has changed and would expire most of the history at once.
    MostOfHistory {
        /// Complete snapshots that would go.
        going: usize,
        /// Complete snapshots that there are.
        of: usize,
    },
}

impl fmt::Display for ExpiryPause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExpiryPause::ClockJump(jump) => jump.fmt(f),
            ExpiryPause::ClockDoubt(doubt) => doubt.fmt(f),
            ExpiryPause::RecordedInFuture(name) => {
                write!(
                    f,
                    "{name} was recorded or verified later than the clock says now; set the clock \
                     right, or if it is run `rotate --confirm`"
                )
            }
            ExpiryPause::Anomaly(anomaly) => anomaly.fmt(f),
            ExpiryPause::Damage(damage) => damage.fmt(f),
            ExpiryPause::MostOfHistory { going, of } => write!(
                f,
                "the policy has changed and would expire {going} of {of} complete snapshots; look \
                 at `plan`, then run `rotate --confirm` if that is meant"
            ),
            ExpiryPause::StateLost => f.write_str(
                "state.toml was damaged and set aside, or it was missing; marks of failed pushes \
                 and pauses are lost; pins were read back from pins.toml, or are lost if that was \
                 missing, too; look at `list`, `pin` what must stay, then run `rotate --confirm`",
            ),
        }
    }
}

/// The line above all snapshots while expiry is paused and `going` snapshots go all the same.
pub fn pause_line(pause: impl fmt::Display, going: usize) -> String {
    match going {
        0 => format!("nothing expires: {pause}"),
        going => format!(
            "nothing expires but {}, which would go whichever time of the clock is right: {pause}",
            counted(going, "snapshot")
        ),
    }
}

/// The reasons that all of several snapshots have, and those that are left of each, if
/// `is_wanted`.
pub fn split_shared(each: &[&[String]], is_wanted: bool) -> (Vec<String>, Vec<Vec<String>>) {
    let in_all = |reason: &&String| each.iter().all(|reasons| reasons.contains(reason));
    let shared: Vec<String> = match each {
        [first, _, ..] if is_wanted => first.iter().filter(in_all).cloned().collect(),
        _ => Vec::new(),
    };
    let left = |reasons: &&[String]| {
        reasons.iter().filter(|reason| !shared.contains(reason)).cloned().collect()
    };
    let left = each.iter().map(left).collect();
    (shared, left)
}

impl SnapshotReason {
    /// The text without the cause of a pause, which is printed once, above all snapshots.
    pub fn brief(&self) -> String {
        match self {
            SnapshotReason::Paused(_) => "expiry is paused".to_string(),
            reason => reason.to_string(),
        }
    }
}

impl fmt::Display for SnapshotReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotReason::Slot { frequency, rank, of, prefer, slot } => {
                let prefer = match prefer {
                    Prefer::Oldest => "oldest",
                    Prefer::Newest => "newest",
                };
                match of {
                    SlotCount::Newest(count) => {
                        write!(f, "{frequency} {rank} of {count}: {prefer} of {slot}")
                    }
                    SlotCount::Always => write!(f, "{frequency} always: {prefer} of {slot}"),
                }
            }
            SnapshotReason::NewestComplete => f.write_str("newest complete snapshot"),
            SnapshotReason::MinKeep(count) => {
                write!(f, "min_keep {count}: never fewer complete snapshots")
            }
            SnapshotReason::TooYoung(age) => write!(f, "younger than min_age {age}"),
            SnapshotReason::RecentPartial { rank, of } => write!(f, "partial {rank} of {of}"),
            SnapshotReason::PartialSlot { frequency, slot, since } => {
                write!(f, "stands for {frequency} slot {slot} among the partial snapshots")?;
                since.as_ref().map_or(Ok(()), |name| write!(f, " since {name}"))
            }
            SnapshotReason::Pinned(reason) if reason.is_empty() => f.write_str("pinned"),
            SnapshotReason::Pinned(reason) => write!(f, "pinned: {reason}"),
            SnapshotReason::Unreadable => f.write_str("its record cannot be read"),
            SnapshotReason::Future => f.write_str("dated in the future"),
            SnapshotReason::Undated(why) => why.fmt(f),
            SnapshotReason::Unremovable(obstacle) => write!(f, "left in place: {obstacle}"),
            SnapshotReason::Read(reader) => {
                write!(
                    f,
                    "would expire, but {reader}; it stays until that ends, or for max_lease at most"
                )
            }
            SnapshotReason::Deferred(count) => {
                write!(f, "expires in a later run: this one reached max_expire {count}")
            }
            SnapshotReason::Paused(pause) => write!(f, "expiry is paused: {pause}"),
            SnapshotReason::IfTime { time, reason } => {
                write!(f, "if the right time is {} now: {reason}", time.format("%FT%TZ"))
            }
            SnapshotReason::VerifiedInDoubt => {
                f.write_str("how long it was unchanged is not known while the clock is in doubt")
            }
            SnapshotReason::EveryTime(count) => {
                write!(f, "the clock is in doubt, but it goes whichever of {count} times is right")
            }
            SnapshotReason::SlotTaken { frequency, slot, by } => {
                write!(f, "{frequency}: {by} stands for {slot}")
            }
            SnapshotReason::OutsideWindow { frequency, count } => {
                write!(f, "{frequency}: older than the {count} kept")
            }
            SnapshotReason::OldPartial(count) => write!(f, "partial: {count} newer ones are kept"),
            SnapshotReason::SpaceWanted => {
                write!(f, "less was free than free_space wants; the policy would keep it")
            }
            SnapshotReason::SpaceWantedWhileRead(reader) => {
                write!(f, "less was free than free_space wants, though {reader}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_of_all_snapshots_is_told_apart() {
        let reasons = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (one, other) = (reasons(&["paused", "daily"]), reasons(&["paused"]));
        let split = split_shared(&[&one, &other], true);
        assert_eq!(split, (reasons(&["paused"]), vec![reasons(&["daily"]), vec![]]));
        let whole = vec![one.clone(), other.clone()];
        assert_eq!(split_shared(&[&one, &other], false), (vec![], whole));
        // Of a single snapshot, the reason stays in its row.
        assert_eq!(split_shared(&[&one], true), (vec![], vec![one.clone()]));
        assert_eq!(split_shared(&[], true), (vec![], vec![]));
    }
}
