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

/// Polls until `ready`, for at most half a minute.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !ready() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
