//! Output of many lines, of which a reader may take only the first ones.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::tell::error::{Error, Result};
use crate::tell::progress;

/// Lines are written together when there are so many bytes of them.
const BUFFER_BYTES: usize = 64 << 10;

/// On a terminal, no line waits for longer than this for the next ones.
const LONGEST_WAIT: Duration = Duration::from_millis(200);

/// Lines for standard output. The caller ends with [`finish`](Self::finish).
pub(crate) struct LineOutput {
    buffer: String,
    written: Instant,
    /// Why nothing more can be written; `BrokenPipe` if the reader, such as `head`, wants no more.
    failure: Option<io::Error>,
}

impl LineOutput {
    pub(crate) fn new() -> Self {
        LineOutput { buffer: String::new(), written: Instant::now(), failure: None }
    }

    /// Prints a line. `Break` if no further one can be printed.
    pub(crate) fn line(&mut self, line: &str) -> ControlFlow<()> {
        self.buffer.push_str(line);
        self.buffer.push('\n');
        if self.buffer.len() >= BUFFER_BYTES || self.written.elapsed() >= LONGEST_WAIT {
            self.flush();
        }
        if self.failure.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn flush(&mut self) {
        let mut output = io::stdout().lock();
        let written = progress::pause(|| {
            output.write_all(self.buffer.as_bytes()).and_then(|()| output.flush())
        });
        self.buffer.clear();
        self.written = Instant::now();
        self.failure = written.err();
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// If standard output cannot be written to. A reader that has gone away is no failure.
    pub(crate) fn finish(mut self) -> Result<()> {
        if self.failure.is_none() {
            self.flush();
        }
        match self.failure {
            Some(cause) if cause.kind() != io::ErrorKind::BrokenPipe => {
                Err(Error::io_bytes("write to", b"standard output", cause))
            }
            _ => Ok(()),
        }
    }
}
