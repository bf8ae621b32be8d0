//! Exit statuses, one meaning each.

/// How a run of any command but `check` ended. Worse outcomes compare greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Everything asked for was done, or there was nothing to do.
    Done,
    /// Done, but the log holds a warning that the administrator should read. Each logged warning or
    /// error turns [`Exit::Done`] into this, except for hooks and `check`.
    Warnings,
    /// The lock stayed busy for the whole of `lock_wait`; a snapshot that was asked for is marked
    /// due.
    Busy,
    /// The command line, environment, `rsyncd.conf` or policy is wrong.
    Usage,
    /// The work failed.
    Failed,
}

impl Exit {
    /// The process exit status.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Busy => 3,
            Exit::Warnings => 4,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}
