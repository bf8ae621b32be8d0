//! Formats durations for messages.

use std::time::Duration;

/// `42 s`, `3 min 12 s` or `2 h 5 min`.
pub(crate) fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_told_in_two_units() {
        let text = |seconds| duration_text(Duration::from_secs(seconds));
        assert_eq!(
            [text(0), text(59), text(192), text(7_500)],
            ["0 s", "59 s", "3 min 12 s", "2 h 5 min"]
        );
    }
}
