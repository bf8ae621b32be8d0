//! The kernel's clock tick, and how far a change time may lie behind the clock because of it.
//!
//! The kernel stamps files by a clock that it advances once per tick. So a change time may lie up
//! to one tick before the moment that `clock_gettime` showed, and two changes within one tick get
//! equal change times. Longer margins than one tick cost little and allow for a busy machine.

/// The longest tick in nanoseconds: Linux is built with `HZ` of at least 100.
pub(crate) const TICK_NS: i64 = 10_000_000;

/// How far, in nanoseconds, a change time may lie before the moment of the change.
pub(crate) const STAMP_LAG_NS: i64 = 2 * TICK_NS;

/// A change time that is older than this, in nanoseconds, differs from that of any later change.
pub(crate) const SETTLED_AFTER_NS: i64 = 10 * TICK_NS;
