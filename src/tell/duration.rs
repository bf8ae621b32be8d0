//! Durations for messages.

use std::time::Duration;

/// A length of time for people: `42 s`, `3 min 12 s`, `2 h 5 min`.
pub(crate) fn span_text(span: Duration) -> String {
    let seconds = span.as_secs();
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
    fn a_span_reads_well() {
        let text = |seconds| span_text(Duration::from_secs(seconds));
        assert_eq!(
            [text(0), text(59), text(192), text(7_500)],
            ["0 s", "59 s", "3 min 12 s", "2 h 5 min"]
        );
    }
}
