//! Snapshot names of times in the past and the future, and bounded waiting.

use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, TimeDelta, Utc};

pub(crate) fn now() -> DateTime<Utc> {
    DateTime::from(SystemTime::now())
}

/// The name of a snapshot taken `age` ago.
pub(crate) fn name_of_age(age: TimeDelta) -> String {
    name_of(now() - age)
}

pub(crate) fn name_of(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H-%M-%SZ").to_string()
}

/// Waits until the clock shows another second: snapshots have different names, and rsync sees that
/// a file of the same size has changed. The kernel stamps files by a clock that lags behind by up
/// to a tick of 10 ms, so it is that much longer.
pub(crate) fn next_second() {
    let second = now().timestamp();
    wait_until("a second is over", || now().timestamp() != second);
    std::thread::sleep(Duration::from_millis(20));
}

/// Polls until `ready`, for at most half a minute.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !ready() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
