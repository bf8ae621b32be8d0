//! What other programs say: passed on, logged, or kept for the error that quotes it.
//!
//! Each pipe is read in a thread of its own, so that a program that talks on one never waits for us
//! at the other, and memory is bounded however much it says.

use std::collections::VecDeque;
use std::io::{Read, Write, stdout};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::tell::escape::escape;

/// How much of what a program said is kept.
const KEPT_BYTES: usize = 2_000;
/// How much output is captured, or kept of what is passed on.
const CAPTURED_BYTES: usize = 1 << 20;
/// How long the end of a pipe is waited for when its program has ended.
const PATIENCE: Duration = Duration::from_secs(2);

/// What becomes of a program's standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// It is kept for us.
    Capture,
    /// It is passed on to our own standard output and its end is kept.
    Relay,
    /// The same with rsync's progress, but not the statistics that follow it.
    Progress,
}

/// What becomes of its standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Complaints {
    /// Its end is quoted if the program fails.
    Quote,
    /// Each line is also logged as a warning as soon as it is said.
    Warn,
    /// It is ours: the program prompts there.
    Terminal,
}

type Tap = Box<dyn FnMut(&[u8]) + Send>;

fn relay(output: Output) -> Tap {
    // Whoever reads our output may have gone; that is no reason to stop a backup.
    let write = |piece: &[u8]| {
        let _ = stdout().write_all(piece).and_then(|()| stdout().flush());
    };
    let mut statistics = Statistics::default();
    match output {
        Output::Capture => Box::new(|_| ()),
        Output::Relay => Box::new(write),
        Output::Progress => Box::new(move |piece| write(&piece[..statistics.start_in(piece)])),
    }
}

/// Finds where rsync's statistics start: with the first line that begins with a letter.
#[derive(Default)]
struct Statistics {
    is_within_line: bool,
    have_started: bool,
}

impl Statistics {
    fn start_in(&mut self, piece: &[u8]) -> usize {
        for (at, &byte) in piece.iter().enumerate() {
            self.have_started |= !self.is_within_line && byte.is_ascii_alphabetic();
            if self.have_started {
                return at;
            }
            self.is_within_line = !b"\n\r".contains(&byte);
        }
        piece.len()
    }
}

/// Logs each line at once.
fn warn(complaints: Complaints) -> Tap {
    if complaints != Complaints::Warn {
        return Box::new(|_| ());
    }
    let mut line = Vec::new();
    Box::new(move |piece| {
        for &byte in piece {
            match byte {
                b'\n' | b'\r' if line.is_empty() => {}
                b'\n' | b'\r' => log::warn!("{}", escape(&std::mem::take(&mut line))),
                _ if line.len() < KEPT_BYTES => line.push(byte),
                _ => {}
            }
        }
        // An empty piece is the end.
        if piece.is_empty() && !line.is_empty() {
            log::warn!("{}", escape(&std::mem::take(&mut line)));
        }
    })
}

/// The end of what comes out of a pipe.
pub(crate) struct Kept {
    receiver: Receiver<Vec<u8>>,
}

impl Kept {
    /// Of a program's standard output.
    pub(crate) fn output(pipe: impl Read + Send + 'static, output: Output) -> Self {
        keep(pipe, CAPTURED_BYTES, relay(output))
    }

    /// Of its standard error.
    pub(crate) fn complaints(pipe: impl Read + Send + 'static, complaints: Complaints) -> Self {
        keep(pipe, KEPT_BYTES, warn(complaints))
    }

    /// What has come, when the program has ended. What it has left behind in the background may
    /// keep the pipe open: that is not waited for.
    pub(crate) fn collect(self) -> Vec<u8> {
        self.receiver.recv_timeout(PATIENCE).unwrap_or_default()
    }
}

/// Reads `pipe` to its end in a thread, shows each piece to `tap`, and keeps the last `limit`
/// bytes.
fn keep(mut pipe: impl Read + Send + 'static, limit: usize, mut tap: Tap) -> Kept {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut kept = VecDeque::new();
        let mut piece = [0; 8_192];
        loop {
            match pipe.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => {
                    tap(&piece[..length]);
                    kept.extend(&piece[..length]);
                    kept.drain(..kept.len().saturating_sub(limit));
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        tap(&[]);
        // Nobody may be waiting any more.
        let _ = sender.send(kept.into());
    });
    Kept { receiver }
}

/// The last lines of what was said, on one line and escaped.
pub(crate) fn last_lines(said: &[u8]) -> String {
    let lines: Vec<&[u8]> =
        said.split(|byte| b"\n\r".contains(byte)).filter(|line| !line.is_empty()).collect();
    let last = lines.iter().skip(lines.len().saturating_sub(5));
    last.map(|line| escape(line.trim_ascii())).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_passed_on_up_to_the_statistics_wherever_the_pieces_end() {
        let text = b"\r     10  5%\r  100 100%\n\nNumber of files: 5\nTotal: 7\n";
        let start = text.iter().position(|byte| *byte == b'N').expect("statistics");
        for cut in 0..=text.len() {
            let mut statistics = Statistics::default();
            let (first, second) = text.split_at(cut);
            let passed = statistics.start_in(first) + statistics.start_in(second);
            assert_eq!(passed, start, "cut at {cut}");
        }
    }

    #[test]
    fn the_last_lines_stand_on_one_line_and_are_escaped() {
        assert_eq!(last_lines(b"1\n2\n3\n4\n5\n\n 6\x1b[m \n"), "2; 3; 4; 5; 6\\x1b[m");
        assert_eq!(last_lines(b""), "");
    }

    #[test]
    fn only_the_end_of_a_long_story_is_kept() {
        let story = std::io::Cursor::new(vec![b'x'; 100_000]);
        assert_eq!(Kept::complaints(story, Complaints::Quote).collect().len(), KEPT_BYTES);
    }
}
