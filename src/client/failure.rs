//! Why a backup could not be made, or not be ended well.

use std::io;

use crate::client::programs::DIRECTORIES;
use crate::tell::error::Error;
use crate::tell::exit::Exit;

/// Shorthand for results of the client.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Why something could not be done. Each message is complete and already escaped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The library that both programs share says so.
    #[error(transparent)]
    Engine(#[from] Error),
    /// The command line asks for what would be wrong or dangerous.
    #[error("{0}")]
    Refused(String),
    /// The backup disk is not there.
    #[error("{0}")]
    MissingDisk(String),
    /// Another run is at work.
    #[error("{0}")]
    Busy(String),
    /// A program ended badly.
    #[error("`{line}` {ending}{}", quote(said))]
    Command {
        /// Its command line.
        line: String,
        /// How it ended.
        ending: String,
        /// Its status, unless a signal ended it.
        status: Option<i32>,
        /// The end of what it said on standard error.
        said: String,
    },
    /// A program is not installed.
    #[error("there is no program {program} in {DIRECTORIES}; {remedy}")]
    NoProgram {
        /// Its name.
        program: String,
        /// What to do.
        remedy: String,
    },
    /// A program does not start.
    #[error("cannot start `{line}`: {cause}")]
    Start {
        /// Its command line.
        line: String,
        /// The system's answer.
        cause: io::Error,
    },
    /// A signal asks us to end.
    #[error("interrupted by {0}")]
    Interrupted(&'static str),
    /// What was asked for did not come about, though no program said so.
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    /// The exit status that this failure ends the program with.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Failure::Engine(error) => error.exit(),
            Failure::Refused(_) => Exit::Usage,
            Failure::Busy(_) => Exit::Busy,
            _ => Exit::Failed,
        }
    }
}

fn quote(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}
