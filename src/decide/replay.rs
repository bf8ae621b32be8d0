//! What a policy holds after a while of regular pushes, with no snapshot existing.
//!
//! Push by push, as it would really happen: each makes a complete snapshot and then rotates what is
//! held by then. Only what spans several runs is left out (`max_expire`, pauses): that puts off
//! what expires, but does not change what is held in the end.

use chrono::{DateTime, TimeDelta, Utc};

use crate::decide::decision_before_guards::decide_before_guards;
use crate::decide::duration_text::DurationText;
use crate::decide::grade::Grade;
use crate::decide::name::SnapshotName;
use crate::decide::policy::Policy;
use crate::decide::snapshot::Snapshot;
use crate::decide::snapshot_verdict::Decision;

/// More pushes take too long to go through one by one.
pub const MAX_PUSHES: u64 = 200_000;

/// A replay under way.
pub struct Replay<'a> {
    policy: &'a Policy,
    every: TimeDelta,
    from: DateTime<Utc>,
    pushes: u64,
    next: Option<DateTime<Utc>>,
    end: DateTime<Utc>,
    decision: Decision,
}

impl<'a> Replay<'a> {
    /// Pushes every `every` for as long as `span`; the last of them at `end`.
    ///
    /// # Errors
    /// A message that says what is wrong with the durations: the distance is zero, or there would
    /// be more than [`MAX_PUSHES`] pushes.
    pub fn new(
        policy: &'a Policy,
        end: DateTime<Utc>,
        span: DurationText,
        every: DurationText,
    ) -> Result<Self, String> {
        let Some(distances) = span.seconds().checked_div(every.seconds()) else {
            return Err("pushes every 0s never end".to_string());
        };
        let pushes = distances + 1;
        if pushes > MAX_PUSHES {
            return Err(format!(
                "{span} of pushes every {every} are {pushes}; at most {MAX_PUSHES} can be replayed"
            ));
        }
        // At most the span, which is far shorter than the longest TimeDelta.
        let length = TimeDelta::seconds((distances * every.seconds()) as i64);
        let Some(from) = end.checked_sub_signed(length) else {
            return Err(format!("{span} before {end} there is no calendar"));
        };
        let decision = Decision { verdicts: Vec::new(), pause: None, deferred: 0 };
        Ok(Replay { policy, every: every.delta(), from, pushes, next: Some(from), end, decision })
    }

    /// When the first push is.
    pub fn from(&self) -> DateTime<Utc> {
        self.from
    }

    /// How many pushes there are altogether.
    pub fn pushes(&self) -> u64 {
        self.pushes
    }

    /// The next push; false if there was none left.
    pub fn step(&mut self) -> bool {
        let Some(now) = self.next else { return false };
        self.next = now.checked_add_signed(self.every).filter(|next| *next <= self.end);
        if self.is_due(now) {
            let verdicts = std::mem::take(&mut self.decision.verdicts);
            let mut held: Vec<Snapshot> = verdicts
                .into_iter()
                .filter(|verdict| verdict.keep)
                .map(|verdict| verdict.snapshot)
                .collect();
            held.push(pushed(SnapshotName::new(now, Grade::Complete).text, now));
            self.decision = decide_before_guards(&held, self.policy, now);
        }
        true
    }

    /// Whether a push at `now` makes a snapshot of its own.
    fn is_due(&self, now: DateTime<Utc>) -> bool {
        let newest = self.decision.verdicts.last();
        newest.is_none_or(|verdict| now - verdict.snapshot.time >= self.policy.min_interval.delta())
    }

    /// The snapshots after the pushes so far. Those that the last push expired are in it as not
    /// kept.
    pub fn decision(self) -> Decision {
        self.decision
    }
}

/// The snapshot `name` that a push at `time` makes.
pub(crate) fn pushed(name: String, time: DateTime<Utc>) -> Snapshot {
    Snapshot {
        name,
        time,
        verified_until: time,
        grade: Grade::Complete,
        recorded: true,
        pinned: None,
        unreadable: false,
        sequence: None,
        taken_at: None,
        undated: None,
        obstacle: None,
        reader: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::frequency::{Frequency, SlotCount};
    use crate::decide::zone::Zone;

    fn span(text: &str) -> DurationText {
        DurationText::parse(text).expect(text)
    }

    fn policy(keep: &[(Frequency, SlotCount)]) -> Policy {
        Policy { keep: keep.to_vec(), min_keep: 1, time_zone: Zone::utc(), ..Policy::default() }
    }

    /// What is held at last, as day and hour.
    fn held(policy: &Policy, length: &str, every: &str) -> Vec<String> {
        let end = "2026-11-22T19:00:00Z".parse().expect("a time");
        let mut replay = Replay::new(policy, end, span(length), span(every)).expect("a replay");
        while replay.step() {}
        let decision = replay.decision();
        let kept = decision.verdicts.iter().filter(|verdict| verdict.keep);
        kept.map(|verdict| verdict.snapshot.time.format("%d-%H").to_string()).collect()
    }

    #[test]
    fn what_is_held_is_what_hours_and_days_leave() {
        let two_hours = policy(&[
            (Frequency::Hourly, SlotCount::Newest(2)),
            (Frequency::Daily, SlotCount::Newest(3)),
        ]);
        assert_eq!(held(&two_hours, "30d", "1h"), ["20-00", "21-00", "22-00", "22-18", "22-19"]);
        // The last push is at the end, whatever the distance.
        assert_eq!(held(&two_hours, "5h", "2h"), ["22-15", "22-17", "22-19"]);
        assert_eq!(held(&two_hours, "1h", "2h"), ["22-19"]);
    }

    #[test]
    fn pushes_closer_than_min_interval_make_no_snapshot() {
        let rarely = Policy {
            min_interval: span("6h"),
            ..policy(&[(Frequency::Hourly, SlotCount::Always)])
        };
        assert_eq!(held(&rarely, "13h", "1h"), ["22-06", "22-12", "22-18"]);
    }

    #[test]
    fn endless_replays_are_refused() {
        let policy = Policy::default();
        let refused = |length, every| {
            Replay::new(&policy, DateTime::UNIX_EPOCH, span(length), span(every))
                .err()
                .expect("refused")
        };
        assert!(refused("1h", "0s").contains("never end"));
        assert!(refused("1000d", "1s").contains("at most 200000"));
    }
}
