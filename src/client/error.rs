//! The errors of rsync-system-backup, each with a complete message.

use std::io;

use crate::client::programs::DIRECTORIES;
use crate::tell::error::Error;
use crate::tell::exit::Exit;

/// A result whose error is [`ClientError`]. A file that imports this means it by `Result`, and
/// neither std's nor that of `tell::error`.
pub(crate) type Result<T> = std::result::Result<T, ClientError>;

/// Each message is complete and already escaped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// An error of the layers below the client.
    #[error(transparent)]
    Engine(#[from] Error),
    /// The command line contradicts itself, or would delete data.
    #[error("{0}")]
    Refused(String),
    /// The backup disk is not connected. Without a terminal, the run ends quietly with status 0.
    #[error("{0}")]
    MissingDisk(String),
    /// Another run holds a lock.
    #[error("{0}")]
    Busy(String),
    /// A program failed.
    #[error("`{line}` {ending}{}", quote(last_errors))]
    Command {
        line: String,
        /// Its status or signal, as text.
        ending: String,
        /// `None` if a signal ended it.
        status: Option<i32>,
        /// The last lines of its standard error.
        last_errors: String,
    },
    /// A program is not installed.
    #[error("there is no program {program} in {DIRECTORIES}; {remedy}")]
    NoProgram { program: String, remedy: String },
    #[error("cannot start `{line}`: {cause}")]
    Start { line: String, cause: io::Error },
    /// The name of the signal that ends the run.
    #[error("interrupted by {0}")]
    Interrupted(&'static str),
    /// A step did not have its effect, or the kernel refused it.
    #[error("{0}")]
    Failed(String),
}

impl ClientError {
    /// The exit status of the program.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            ClientError::Engine(error) => error.exit(),
            ClientError::Refused(_) => Exit::Usage,
            ClientError::Busy(_) => Exit::Busy,
            _ => Exit::Failed,
        }
    }
}

fn quote(last_errors: &str) -> String {
    if last_errors.is_empty() { String::new() } else { format!(": {last_errors}") }
}
