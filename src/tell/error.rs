//! The error type of the whole program: what was attempted, on which files, why it failed, and what
//! the administrator can do.

use std::io;
use std::path::Path;

use crate::tell::error_hints::hint;
use crate::tell::escape::{escape, escape_path};
use crate::tell::exit::Exit;

/// A result whose error is [`Error`]. A file that imports this means it by `Result`, and not std's;
/// the client's files import that of `client::error`.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Why something could not be done. Each message is complete on one line and already escaped.
///
/// A variant stands for what the caller does about it, such as waiting, or telling the
/// administrator to correct a file. Only [`exit`](Error::exit) knows the exit statuses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("cannot {operation} {path}{}: {cause}{}", onto(to), hint(operation, cause))]
    Io {
        /// The operation as a verb phrase, such as `link` or `sync the file system of`.
        operation: &'static str,
        /// The path that it was done to, escaped.
        path: String,
        /// The second path of a rename or a link, escaped.
        to: Option<String>,
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
    /// The command line names something that does not exist or cannot be used.
    #[error("{0}")]
    Usage(String),
    /// `rsyncd.conf`, or a file that it includes, cannot be read or is wrong.
    #[error("{place}: {problem}")]
    RsyncdConf {
        /// The file, and the line if the error has one, escaped.
        place: String,
        /// What is wrong, and what to do about it.
        problem: String,
        /// Whether rsync stops there, too, so that no client gets in.
        stops_rsync: bool,
    },
    /// The policy file cannot be read without error; one line per mistake.
    #[error("{}", .0.join("; "))]
    Policy(Vec<String>),
    /// No snapshots can be made of the module directory.
    #[error("the module directory {path} {problem}")]
    ModuleDirectory {
        /// The directory, escaped.
        path: String,
        /// What is wrong with it, and what to do about it.
        problem: String,
    },
    /// The module directory does not exist, though its snapshots do.
    #[error("the module directory {path} is gone, though {root} has its snapshots: {remedy}")]
    LostDirectory {
        /// The directory, escaped.
        path: String,
        /// Its snapshot root, escaped.
        root: String,
        /// What the administrator can do.
        remedy: String,
    },
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
    /// A snapshot that was named is not there, or is not in the state that the command needs.
    #[error("{root}: {problem}; {remedy}")]
    Snapshot {
        /// The snapshot root, escaped.
        root: String,
        /// What is wrong, with the snapshot's name, escaped.
        problem: String,
        /// What the administrator can do.
        remedy: &'static str,
    },
    /// Another run held the lock of the root for as long as this one may wait.
    #[error(
        "the lock of {root} stayed busy for {waited_seconds} s: held by {holder}; {consequence}"
    )]
    Busy {
        /// The root, escaped.
        root: String,
        /// What the holder wrote into the lock file about itself.
        holder: String,
        /// How long this run waited, in seconds.
        waited_seconds: u64,
        /// What that means for the work that was asked for.
        consequence: &'static str,
    },
    /// Other runs on this machine were ahead in the job queue for as long as this one may wait.
    #[error(
        "{root}: waited {waited_seconds} s in the queue for other runs on this machine; {} still \
         ahead of this one (max_parallel = {max_parallel}); {consequence}",
        if *before == 1 { "1 job is".to_string() } else { format!("{before} jobs are") }
    )]
    Queue {
        /// The root, escaped.
        root: String,
        /// How long this run waited, in seconds.
        waited_seconds: u64,
        /// How many jobs were still ahead of this one.
        before: usize,
        /// How many may work at once.
        max_parallel: usize,
        /// What that means for the work that was asked for.
        consequence: &'static str,
    },
    /// Pushes were running for as long as this run may wait, and its work needs a tree at rest.
    #[error(
        "{root}: a push of {clients} was still running after {waited_seconds} s; {consequence}"
    )]
    PushRunning {
        /// The root, escaped.
        root: String,
        /// How long this run waited, in seconds.
        waited_seconds: u64,
        /// The clients that push, escaped.
        clients: String,
        /// What that means for the work that was asked for.
        consequence: &'static str,
    },
    /// An entry is not as in the snapshot after it was restored.
    #[error(
        "{path} is not as in the snapshot: {difference}; possible causes: another program changed \
         it, the file system cannot store it, this process may not set it, or the disk is faulty"
    )]
    NotAsInSnapshot {
        /// The entry at the destination, escaped.
        path: String,
        /// What differs.
        difference: String,
    },
    /// A snapshot, or an entry of it, has changed while it was read.
    #[error(
        "{path} was changed or removed while it was read: it was retired, or another program works \
         on it; what was read may be wrong, so repeat this, or name another snapshot"
    )]
    SnapshotChanged {
        /// The entry in the snapshot, escaped.
        path: String,
    },
    /// A file of a snapshot was restored that had been altered before.
    #[error(
        "{path} was altered in {snapshot} after that snapshot was taken ({change}), so what was \
         restored is not what was backed up: `verify` names the snapshots that are damaged"
    )]
    AlteredInSnapshot {
        /// The snapshot.
        snapshot: String,
        /// The path in it, escaped.
        path: String,
        /// How it differs from what was recorded of it.
        change: String,
    },
    /// More files were altered than are known by name; the snapshot that was restored.
    #[error(
        "more files of snapshots were altered than are known by name, and {0} may hold some of \
         them: run `verify` to see them"
    )]
    OtherDamage(String),
    /// A snapshot was restored that has fewer or more entries than when it was taken.
    #[error("{0}")]
    EntriesDiffer(String),
    /// Entries at the destination are in the way of a restore.
    #[error("{problem}; nothing was restored: {remedy}")]
    InTheWay {
        /// How many, and at which destination.
        problem: String,
        /// What the administrator can do.
        remedy: String,
    },
    /// The module directory cannot be used, and the administrator may have given it up.
    #[error("{error}; if this directory was given up, remove {}", .files.join(" and "))]
    Forgettable {
        /// What is wrong with it.
        error: Box<Error>,
        /// The files for which the program goes on to work on that directory, escaped.
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
        "the file system of {path} has not answered for {seconds} s: its server or disk may be \
         gone; no run can work on this module until it is back or unmounted"
    )]
    NoAnswer {
        /// The path that was looked up, escaped.
        path: String,
        /// How long this process waited, in seconds.
        seconds: u64,
    },
    /// A newer version of this program wrote one of our files.
    #[error(
        "{path} was written by a newer version of rsyncd-snapshot (its format is {format}, this \
         version reads up to {known}); nothing was changed: install that version again"
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
        "a snapshot cannot be removed and was moved to {path}: {cause}; after that, run `rotate \
         --purge` for the module"
    )]
    SetAside {
        /// Where it is now, escaped.
        path: String,
        /// Why it cannot be removed.
        cause: String,
    },
    /// One of our own files holds something that this program did not write.
    #[error("{path}: {problem}")]
    Damaged {
        /// The file, escaped.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// This machine has no directory for what it remembers.
    #[error(
        "there is no directory for what this machine has to remember: set HOME, XDG_RUNTIME_DIR \
         or RSYNCD_SNAPSHOT_STATE_DIRECTORY"
    )]
    NoStateDirectory,
    /// Something that cannot happen.
    #[error("{0}: this is an error in rsyncd-snapshot itself, please report it")]
    Bug(&'static str),
}

impl Error {
    /// The failure of `operation` on `path`.
    pub fn io(operation: &'static str, path: &Path, cause: impl Into<io::Error>) -> Self {
        Error::Io { operation, path: escape_path(path), to: None, cause: cause.into() }
    }

    /// [`Error::io`] for a path that is bytes.
    pub fn io_bytes(operation: &'static str, path: &[u8], cause: impl Into<io::Error>) -> Self {
        Error::Io { operation, path: escape(path), to: None, cause: cause.into() }
    }

    /// [`Error::io`] for a rename or a link of `from` to `to`.
    pub fn io_pair(
        operation: &'static str,
        from: &Path,
        to: &Path,
        cause: impl Into<io::Error>,
    ) -> Self {
        let (path, to) = (escape_path(from), Some(escape_path(to)));
        Error::Io { operation, path, to, cause: cause.into() }
    }

    /// Adds the `files` whose removal makes the program give up the module directory.
    #[must_use]
    pub fn or_forget(self, files: Vec<String>) -> Self {
        Error::Forgettable { error: Box::new(self), files }
    }

    /// The error number of a failed system call.
    fn errno(&self) -> Option<i32> {
        let Error::Io { cause, .. } = self else { return None };
        cause.raw_os_error()
    }

    /// Whether the file system or a quota has no space left.
    pub fn is_lack_of_space(&self) -> bool {
        matches!(self.errno(), Some(libc::ENOSPC | libc::EDQUOT))
    }

    /// Whether CephFS allows no further snapshot of the directory.
    pub(crate) fn is_snapshot_limit(&self) -> bool {
        self.errno() == Some(libc::EMLINK)
    }

    /// Whether the file system is read-only.
    pub fn is_read_only(&self) -> bool {
        self.errno() == Some(libc::EROFS)
    }

    /// Whether something uses what the call was about.
    pub(crate) fn is_busy(&self) -> bool {
        self.errno() == Some(libc::EBUSY)
    }

    /// Whether the call fails again until an administrator changes something.
    pub fn is_lasting(&self) -> bool {
        matches!(self.errno(), Some(libc::EPERM | libc::EXDEV | libc::EROFS | libc::EBUSY))
    }

    /// Whether the file system refused the call, as it does with one that it lacks.
    pub fn is_refusal(&self) -> bool {
        matches!(self.errno(), Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS))
    }

    /// Whether the path, or a directory on the way to it, is no directory.
    pub fn is_not_a_directory(&self) -> bool {
        self.errno() == Some(libc::ENOTDIR)
    }

    /// Whether this process lacks the rights for it, and another user may have them.
    pub(crate) fn is_denied(&self) -> bool {
        match self {
            Error::Forgettable { error, .. } => error.is_denied(),
            error => error.errno() == Some(libc::EACCES),
        }
    }

    /// Whether the path does not exist.
    pub fn is_not_found(&self) -> bool {
        self.errno() == Some(libc::ENOENT)
    }

    /// Whether rsyncd.conf has a mistake with which the daemon lets no client in.
    pub(crate) fn stops_rsync(&self) -> bool {
        matches!(self, Error::RsyncdConf { stops_rsync: true, .. })
    }

    /// The exit status that this error ends a command with.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Io { .. }
            | Error::NoAnswer { .. }
            | Error::LostDirectory { .. }
            | Error::Newer { .. }
            | Error::Damaged { .. }
            | Error::SetAside { .. }
            | Error::NotAsInSnapshot { .. }
            | Error::SnapshotChanged { .. }
            | Error::AlteredInSnapshot { .. }
            | Error::OtherDamage(_)
            | Error::EntriesDiffer(_)
            | Error::InTheWay { .. }
            | Error::Bug(_) => Exit::Failed,
            Error::Environment { .. }
            | Error::Usage(_)
            | Error::RsyncdConf { .. }
            | Error::Policy(_)
            | Error::ModuleDirectory { .. }
            | Error::Root { .. }
            | Error::Snapshot { .. }
            | Error::Unregistered { .. }
            | Error::NoStateDirectory => Exit::Usage,
            Error::Forgettable { error, .. } => error.exit(),
            Error::Busy { .. } | Error::Queue { .. } | Error::PushRunning { .. } => Exit::Busy,
        }
    }
}

fn onto(to: &Option<String>) -> String {
    to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default()
}
