//! Reads the output of other programs: passes it on, logs it, or keeps it for the error that quotes
//! it.
//!
//! Each pipe is read in a thread of its own, so a program that writes to one pipe never waits until
//! the client reads the other. Only the end is kept, so memory is bounded.

use std::collections::VecDeque;
use std::io::{Read, Write, stdout};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::tell::escape::escape;

/// How many bytes of standard error are kept.
const QUOTED_BYTES: usize = 2_000;
/// How many bytes of standard output are kept.
const CAPTURED_BYTES: usize = 1 << 20;
/// How long a pipe may stay open after its program has ended.
const PIPE_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What happens to the standard output of a program. Its end is kept in each mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StdoutMode {
    /// It is not shown.
    Capture,
    /// It is passed on to the client's standard output.
    Relay,
    /// rsync's progress is passed on, but not the statistics that follow it.
    Progress,
}

/// What happens to the standard error of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StderrMode {
    /// Its end is quoted if the program fails.
    Quote,
    /// Each line is also logged as a warning at once.
    Warn,
    /// The program shares the client's standard error, to prompt there.
    Terminal,
}

/// Gets each piece of the output; an empty piece at its end.
type PieceHandler = Box<dyn FnMut(&[u8]) + Send>;

fn stdout_handler(mode: StdoutMode) -> PieceHandler {
    // A backup goes on if the reader of the client's output has ended.
    let write = |piece: &[u8]| {
        let _ = stdout().write_all(piece).and_then(|()| stdout().flush());
    };
    let mut statistics = StatisticsStart::default();
    match mode {
        StdoutMode::Capture => Box::new(|_| ()),
        StdoutMode::Relay => Box::new(write),
        StdoutMode::Progress => Box::new(move |piece| write(&piece[..statistics.start_in(piece)])),
    }
}

/// Finds the start of rsync's statistics: the first line that begins with a letter.
#[derive(Default)]
struct StatisticsStart {
    is_within_line: bool,
    have_started: bool,
}

impl StatisticsStart {
    /// How many bytes of the next piece come before the statistics.
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

/// Logs each line at once in [`StderrMode::Warn`].
fn stderr_handler(mode: StderrMode) -> PieceHandler {
    if mode != StderrMode::Warn {
        return Box::new(|_| ());
    }
    let mut line = Vec::new();
    Box::new(move |piece| {
        for &byte in piece {
            match byte {
                b'\n' | b'\r' if line.is_empty() => {}
                b'\n' | b'\r' => log::warn!("{}", escape(&std::mem::take(&mut line))),
                _ if line.len() < QUOTED_BYTES => line.push(byte),
                _ => {}
            }
        }
        // An empty piece marks the end of the pipe.
        if piece.is_empty() && !line.is_empty() {
            log::warn!("{}", escape(&std::mem::take(&mut line)));
        }
    })
}

/// The end of what comes out of a pipe.
pub(crate) struct PipeReader {
    receiver: Receiver<Vec<u8>>,
}

impl PipeReader {
    pub(crate) fn stdout(pipe: impl Read + Send + 'static, mode: StdoutMode) -> Self {
        read_in_thread(pipe, CAPTURED_BYTES, stdout_handler(mode))
    }

    pub(crate) fn stderr(pipe: impl Read + Send + 'static, mode: StderrMode) -> Self {
        read_in_thread(pipe, QUOTED_BYTES, stderr_handler(mode))
    }

    /// The bytes that were kept, after the program has ended. A process that the program left in
    /// the background may keep the pipe open; then the result is empty.
    pub(crate) fn collect(self) -> Vec<u8> {
        self.receiver.recv_timeout(PIPE_CLOSE_TIMEOUT).unwrap_or_default()
    }
}

/// Reads `pipe` to its end in a thread, hands each piece to `handle`, and keeps the last `limit`
/// bytes.
fn read_in_thread(
    mut pipe: impl Read + Send + 'static,
    limit: usize,
    mut handle: PieceHandler,
) -> PipeReader {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut kept = VecDeque::new();
        let mut piece = [0; 8_192];
        loop {
            match pipe.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => {
                    handle(&piece[..length]);
                    kept.extend(&piece[..length]);
                    kept.drain(..kept.len().saturating_sub(limit));
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        handle(&[]);
        // `collect` may have given up already.
        let _ = sender.send(kept.into());
    });
    PipeReader { receiver }
}

/// The last five lines of a program's output, on one line and escaped.
pub(crate) fn last_lines(output: &[u8]) -> String {
    let lines: Vec<&[u8]> =
        output.split(|byte| b"\n\r".contains(byte)).filter(|line| !line.is_empty()).collect();
    let last = lines.iter().skip(lines.len().saturating_sub(5));
    last.map(|line| escape(line.trim_ascii())).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_passed_on_up_to_the_statistics() {
        let text = b"\r     10  5%\r  100 100%\n\nNumber of files: 5\nTotal: 7\n";
        let start = text.iter().position(|byte| *byte == b'N').expect("statistics");
        for cut in 0..=text.len() {
            let mut statistics = StatisticsStart::default();
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
    fn only_the_end_of_long_output_is_kept() {
        let output = std::io::Cursor::new(vec![b'x'; 100_000]);
        assert_eq!(PipeReader::stderr(output, StderrMode::Quote).collect().len(), QUOTED_BYTES);
    }
}
