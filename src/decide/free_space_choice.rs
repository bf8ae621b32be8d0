//! Chooses which trees go when space is short: as few as free what is missing, and none if that
//! would not help. The module that has grown loses snapshots first.

use std::ops::Range;

use chrono::{DateTime, TimeDelta, Utc};

/// Bytes that become free when all trees from the `first` to the `last` go, in the order in which
/// trees may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceGain {
    /// Index of the first tree that holds them.
    pub first: usize,
    /// Index of the last tree that holds them.
    pub last: usize,
    /// The number of bytes.
    pub bytes: u64,
}

/// The trees that may go: retired ones, and after them snapshots that the policy keeps. The
/// [`SpaceGain`]s number them in that order.
#[derive(Debug, Clone, Copy)]
pub struct SpaceCandidates<'a> {
    /// What each range of trees frees.
    pub gains: &'a [SpaceGain],
    /// How many of the trees are retired already.
    pub retired: usize,
    /// How many of them are snapshots that the policy keeps.
    pub kept: usize,
    /// How many of these may go at most.
    pub max_kept: usize,
}

/// What goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpaceChoice {
    /// These are removed.
    Remove {
        /// Of the retired trees.
        retired: Range<usize>,
        /// Of the snapshots that the policy keeps.
        kept: Range<usize>,
        /// Whether that is enough.
        is_enough: bool,
    },
    /// Nothing goes: all that may go would together free only this many bytes.
    TooLittle(u64),
}

/// If fewer bytes are free to gain than are missing, trees that would add less than one part in
/// this many of the gain stay.
const HELPS_FROM: u64 = 10;

/// Chooses what goes to free `missing` bytes: retired trees alone if they are enough; else all of
/// them and the fewest snapshots that are enough; else as much as helps, if anything does.
pub fn choose(candidates: &SpaceCandidates, missing: u64) -> SpaceChoice {
    let SpaceCandidates { gains, retired, kept, max_kept } = *candidates;
    let of_retired: Vec<SpaceGain> =
        gains.iter().filter(|gain| gain.last < retired).copied().collect();
    let (window, bytes) = best_window(&of_retired, retired, retired, missing);
    if bytes >= missing {
        return SpaceChoice::Remove { retired: window, kept: 0..0, is_enough: true };
    }
    // Bytes that a retired tree shares with a snapshot become free with the snapshot, because the
    // retired trees go before it.
    let of_kept: Vec<SpaceGain> = gains
        .iter()
        .filter(|gain| gain.last >= retired)
        .map(|gain| SpaceGain {
            first: gain.first.saturating_sub(retired),
            last: gain.last - retired,
            bytes: gain.bytes,
        })
        .collect();
    let base: u64 = of_retired.iter().map(|gain| gain.bytes).sum();
    let (window, bytes) = best_window(&of_kept, kept, max_kept, missing - base.min(missing));
    let is_enough = base.saturating_add(bytes) >= missing;
    match () {
        () if is_enough || helps(bytes, missing) => {
            SpaceChoice::Remove { retired: 0..retired, kept: window, is_enough }
        }
        () if helps(base, missing) => {
            SpaceChoice::Remove { retired: 0..retired, kept: 0..0, is_enough }
        }
        () => SpaceChoice::TooLittle(base.saturating_add(bytes)),
    }
}

/// Whether `bytes` that become free help if so many are `missing`.
pub fn helps(bytes: u64, missing: u64) -> bool {
    bytes > 0 && bytes.saturating_mul(HELPS_FROM) >= missing
}

/// The shortest range of at most `max` neighbours that frees `missing` bytes, or else the shortest
/// that frees nearly as much as any; of equal ones the first.
fn best_window(gains: &[SpaceGain], count: usize, max: usize, missing: u64) -> (Range<usize>, u64) {
    let mut ending = vec![vec![0_u64; count]; count];
    for gain in gains.iter().filter(|gain| gain.last < count) {
        ending[gain.last][gain.first] = ending[gain.last][gain.first].saturating_add(gain.bytes);
    }
    let mut windows: Vec<(Range<usize>, u64)> = Vec::new();
    for start in 0..count {
        let mut bytes = 0_u64;
        for end in start..count.min(start.saturating_add(max)) {
            let with_this: u64 = ending[end][start..=end].iter().sum();
            bytes = bytes.saturating_add(with_this);
            windows.push((start..end + 1, bytes));
        }
    }
    let most = windows.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
    // If all trees together free too little, those that would add next to nothing stay.
    let aim = missing.min(most - most / HELPS_FROM).max(1);
    let enough = windows.into_iter().filter(|(_, bytes)| *bytes >= aim);
    enough.min_by_key(|(window, _)| window.len()).unwrap_or((0..0, 0))
}

/// How long a module that did not grow waits for others to make room.
pub const OTHERS_FIRST: TimeDelta = TimeDelta::days(1);

/// What decides whose snapshots go first.
#[derive(Debug, Clone, Copy)]
pub struct ModuleGrowth {
    /// Whether other modules have snapshots on the same file system.
    pub has_others: bool,
    /// Bytes that only the live tree and the newest snapshot of the module hold; `None` if there
    /// were too many entries to count.
    pub own_bytes: Option<u64>,
    /// How much is missing.
    pub missing: u64,
    /// Since when runs of this module have found too little space.
    pub since: DateTime<Utc>,
}

/// Until when the snapshots of a module stay that has not grown itself, so that the module that has
/// grown loses snapshots first; `None` if they may go now.
pub fn waits_until(growth: &ModuleGrowth, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let ModuleGrowth { has_others, own_bytes, missing, since } = *growth;
    // A time in the future was noted by a wrong clock.
    let until = since.min(now) + OTHERS_FIRST;
    let has_grown = own_bytes.is_none_or(|own| own.saturating_mul(2) >= missing);
    (has_others && !has_grown && now < until).then_some(until)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gain(first: usize, last: usize, bytes: u64) -> SpaceGain {
        SpaceGain { first, last, bytes }
    }

    #[test]
    fn as_few_go_as_are_enough_and_none_in_vain() {
        let each: Vec<SpaceGain> = (0..5).map(|tree| gain(tree, tree, 4)).collect();
        let shared = [gain(0, 0, 1), gain(1, 3, 50), gain(4, 4, 1)];
        let crumbs: Vec<SpaceGain> = (0..5).map(|tree| gain(tree, tree, 1)).collect();
        let go =
            |kept: Range<usize>, is_enough| SpaceChoice::Remove { retired: 0..0, kept, is_enough };
        for (gains, max_kept, missing, expected) in [
            (&each[..], 5, 3, go(0..1, true)),
            (&each, 5, 6, go(0..2, true)),
            (&each, 5, 30, go(0..5, false)),
            (&each, 2, 30, go(0..2, false)),
            (&each, 2, 100, SpaceChoice::TooLittle(8)),
            (&shared, 5, 20, go(1..4, true)),
            (&shared, 2, 20, SpaceChoice::TooLittle(1)),
            (&crumbs, 5, 1_000, SpaceChoice::TooLittle(5)),
            (&crumbs, 0, 1, SpaceChoice::TooLittle(0)),
            (&[], 5, 1, SpaceChoice::TooLittle(0)),
        ] {
            let candidates = SpaceCandidates { gains, retired: 0, kept: 5, max_kept };
            assert_eq!(choose(&candidates, missing), expected, "{gains:?}, {max_kept}, {missing}");
        }
    }

    #[test]
    fn retired_trees_go_first_and_only_if_that_helps() {
        // Two retired, two kept; 10 bytes are shared by a retired and a kept one.
        let gains = [gain(0, 0, 4), gain(1, 1, 4), gain(1, 2, 10), gain(3, 3, 4)];
        let candidates = SpaceCandidates { gains: &gains, retired: 2, kept: 2, max_kept: 2 };
        for (missing, retired, kept, is_enough) in [
            (3, 0..1, 0..0, true),
            (8, 0..2, 0..0, true),
            (18, 0..2, 0..1, true),
            (22, 0..2, 0..2, true),
            (100, 0..2, 0..2, false),
        ] {
            assert_eq!(
                choose(&candidates, missing),
                SpaceChoice::Remove { retired, kept, is_enough },
                "{missing}"
            );
        }
        assert_eq!(choose(&candidates, 1_000), SpaceChoice::TooLittle(22));
        let candidates = SpaceCandidates { max_kept: 0, ..candidates };
        let all_retired = SpaceChoice::Remove { retired: 0..2, kept: 0..0, is_enough: false };
        assert_eq!(choose(&candidates, 20), all_retired, "max_expire is spent");
    }

    #[test]
    fn the_module_that_grew_pays_first() {
        let since = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        let growth = ModuleGrowth { has_others: true, own_bytes: Some(10), missing: 100, since };
        let (hour, day) = (TimeDelta::hours(1), TimeDelta::days(1));
        assert_eq!(waits_until(&growth, since + hour), Some(since + day));
        assert_eq!(waits_until(&growth, since + day), None, "for a day only");
        assert_eq!(
            waits_until(&growth, since - hour),
            Some(since - hour + day),
            "a clock set back"
        );
        for may_go in [
            ModuleGrowth { has_others: false, ..growth },
            ModuleGrowth { own_bytes: Some(50), ..growth },
            ModuleGrowth { own_bytes: None, ..growth },
        ] {
            assert_eq!(waits_until(&may_go, since), None, "{may_go:?}");
        }
    }
}
