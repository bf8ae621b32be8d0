//! The one error type: what was attempted, on what, why it failed, what to do.

use std::io;
use std::path::Path;

use crate::tell::escape::{escape, escape_path};
use crate::tell::exit::Exit;

/// Shorthand for results of this crate.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Why something could not be done. Each message is complete on one line and already escaped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("cannot {operation} {path}: {cause}{}", hint(operation, cause))]
    Io {
        /// The operation as a verb phrase, such as `link` or `sync the file system of`.
        operation: &'static str,
        /// What it was done to, escaped.
        path: String,
        /// The system's answer.
        cause: io::Error,
    },
    /// rsyncd's environment is not what a hook gets.
    #[error(
        "{variable} {problem}: this command expects the environment that rsyncd gives to its hooks"
    )]
    Environment {
        /// The variable's name.
        variable: &'static str,
        /// What is wrong with its value.
        problem: String,
    },
    /// The command line or a configuration file asks for something impossible.
    #[error("{0}")]
    Usage(String),
    /// The policy file cannot be read without error; one line per mistake.
    #[error("{}", .0.join("; "))]
    Policy(Vec<String>),
    /// The snapshot root cannot be trusted or used.
    #[error("snapshot root {path}: {problem}; {remedy}")]
    Root {
        /// The root, escaped.
        path: String,
        /// What is wrong with it.
        problem: String,
        /// What the administrator can do.
        remedy: String,
    },
    /// Somebody else held the lock all the time.
    #[error(
        "the lock of {root} stayed busy for {waited_seconds} s: held by {holder}; {consequence}"
    )]
    Busy {
        /// The root, escaped.
        root: String,
        /// The holder's own words about itself.
        holder: String,
        /// How long we waited, in seconds.
        waited_seconds: u64,
        /// What that means for the work that was asked for.
        consequence: &'static str,
    },
    /// Others on this machine were before us all the time.
    #[error(
        "{root}: waited {waited_seconds} s for other runs on this machine to end, and {} before this one (max_parallel = {max_parallel}); {consequence}",
        if *before == 1 { "1 job is still".to_string() } else { format!("{before} jobs are still") }
    )]
    Queue {
        /// The root, escaped.
        root: String,
        /// How long we waited, in seconds.
        waited_seconds: u64,
        /// How many jobs were still before us.
        before: usize,
        /// How many may work at once.
        max_parallel: usize,
        /// What that means for the work that was asked for.
        consequence: &'static str,
    },
    /// Of a module directory that may have been given up.
    #[error("{error}; if this directory was given up, remove {}", .files.join(" and "))]
    Forgettable {
        /// What is wrong with it.
        error: Box<Error>,
        /// What makes the program work on that directory, escaped.
        files: Vec<String>,
    },
    /// The snapshot root has never been used.
    #[error("snapshot root {path} has never been used")]
    Unregistered {
        /// The root, escaped.
        path: String,
    },
    /// A file system does not answer.
    #[error(
        "the file system of {path} has not answered for {seconds} s: its server or disk may be gone; no run can work on this module until it is back or unmounted"
    )]
    NoAnswer {
        /// What was asked for, escaped.
        path: String,
        /// How long we waited, in seconds.
        seconds: u64,
    },
    /// A newer version of this program wrote one of our files.
    #[error(
        "{path} was written by a newer version of rsyncd-snapshot (its format is {format}, this version \
         reads up to {known}); nothing was changed: install that version again"
    )]
    Newer {
        /// The file, escaped.
        path: String,
        /// Its format number.
        format: u64,
        /// The highest number that this version reads.
        known: u32,
    },
    /// A tree that cannot be removed was moved out of the way.
    #[error(
        "{path} cannot be removed and was set aside there: {cause}; then run `rotate --purge` for the module"
    )]
    SetAside {
        /// Where it is now, escaped.
        path: String,
        /// Why it cannot be removed.
        cause: String,
    },
    /// One of our own files holds something that we did not write.
    #[error("{path}: {problem}")]
    Damaged {
        /// The file, escaped.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Error {
    /// The failure of `operation` on `path`.
    pub fn io(operation: &'static str, path: &Path, cause: impl Into<io::Error>) -> Self {
        Error::Io { operation, path: escape_path(path), cause: cause.into() }
    }

    /// The same for something that is bytes rather than a path.
    pub fn io_bytes(operation: &'static str, path: &[u8], cause: impl Into<io::Error>) -> Self {
        Error::Io { operation, path: escape(path), cause: cause.into() }
    }

    /// The same error, and the files without which the program no longer works on that directory.
    #[must_use]
    pub fn ended_without(self, files: Vec<String>) -> Self {
        Error::Forgettable { error: Box::new(self), files }
    }

    /// Whether the file system or a quota has no room left.
    pub fn is_lack_of_space(&self) -> bool {
        let Error::Io { cause, .. } = self else { return false };
        matches!(cause.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
    }

    /// Whether the same would fail again as long as an administrator changes nothing.
    pub fn is_lasting(&self) -> bool {
        let Error::Io { cause, .. } = self else { return false };
        matches!(cause.raw_os_error(), Some(libc::EPERM | libc::EXDEV | libc::EROFS | libc::EBUSY))
    }

    /// Whether the system refused the call as such, as one that a file system does not have.
    pub fn is_refusal(&self) -> bool {
        let Error::Io { cause, .. } = self else { return false };
        matches!(cause.raw_os_error(), Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS))
    }

    /// Whether something else is where a directory should be.
    pub fn is_no_directory(&self) -> bool {
        let Error::Io { cause, .. } = self else { return false };
        cause.kind() == io::ErrorKind::NotADirectory
    }

    /// Whether what was asked for does not exist.
    pub fn is_absence(&self) -> bool {
        let Error::Io { cause, .. } = self else { return false };
        cause.kind() == io::ErrorKind::NotFound
    }

    /// The exit status that this error ends a command with.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Io { .. }
            | Error::NoAnswer { .. }
            | Error::Newer { .. }
            | Error::Damaged { .. }
            | Error::SetAside { .. } => Exit::Failed,
            Error::Environment { .. }
            | Error::Usage(_)
            | Error::Policy(_)
            | Error::Unregistered { .. }
            | Error::Root { .. } => Exit::Usage,
            Error::Forgettable { error, .. } => error.exit(),
            Error::Busy { .. } | Error::Queue { .. } => Exit::Busy,
        }
    }
}

/// What an administrator can do about the causes that are not self-explaining.
fn hint(operation: &str, cause: &io::Error) -> &'static str {
    // What is opened or read is no link between module and root.
    let only_looks =
        ["open", "read", "inspect", "return to"].iter().any(|look| operation.starts_with(look));
    match cause.raw_os_error() {
        Some(libc::EXDEV) if only_looks => {
            " (another file system is mounted there: `umount` it; or it is a btrfs subvolume)"
        }
        Some(libc::EBUSY) if operation.starts_with("remove") => {
            " (something may be mounted on it: `umount` it)"
        }
        Some(libc::EXDEV) => {
            " (module and snapshot root must be on one file system and one mount: no bind mount, separate ReadWritePaths= or project quota between them)"
        }
        Some(libc::ENOSPC) => " (free space or inodes; existing snapshots were not touched)",
        Some(libc::EDQUOT) => " (raise the quota; existing snapshots were not touched)",
        Some(libc::EPERM) => {
            " (an immutable or append-only flag, or fs.protected_hardlinks for a user without CAP_FOWNER)"
        }
        _ => "",
    }
}
