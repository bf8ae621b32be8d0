//! The parameters that rsync 3.5 knows in `rsyncd.conf`, as far as their kind decides what a line
//! means.

use crate::config::rsyncd_module::canonical;

/// How rsync treats a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParameterKind {
    /// Of the daemon as a whole; rsync ignores it in a module's section.
    Global,
    /// Yes or no. rsync ignores a value that it does not understand.
    Boolean,
    /// Yes, no or unset.
    BooleanOrUnset,
    /// A string that rsync looks up among the defaults at the end of the file if a module has none.
    LateString,
    /// Any other.
    Other,
}

use ParameterKind::{Boolean, BooleanOrUnset, Global, LateString, Other};

/// All names, by kind.
const PARAMETERS: [(ParameterKind, &[&str]); 5] = [
    (
        Global,
        &[
            "address",
            "bind address",
            "daemon chroot",
            "daemon gid",
            "daemon uid",
            "listen backlog",
            "motd file",
            "pid file",
            "port",
            "proxy protocol",
            "proxy protocol hosts",
            "rsync port",
            "socket options",
        ],
    ),
    (
        Boolean,
        &[
            "fake super",
            "forward lookup",
            "ignore errors",
            "ignore nonreadable",
            "insecure links",
            "list",
            "read only",
            "reverse lookup",
            "strict modes",
            "transfer logging",
            "write only",
        ],
    ),
    (BooleanOrUnset, &["munge symlinks", "numeric ids", "open noatime", "use chroot"]),
    (
        LateString,
        &[
            "auth digest",
            "auth users",
            "charset",
            "comment",
            "early exec",
            "exclude",
            "exclude from",
            "filter",
            "gid",
            "hosts allow",
            "hosts deny",
            "include",
            "include from",
            "incoming chmod",
            "log file",
            "name converter",
            "outgoing chmod",
            "path",
            "post-xfer exec",
            "pre-xfer exec",
            "refuse options",
            "secrets file",
            "temp dir",
            "uid",
        ],
    ),
    (
        Other,
        &[
            "dont compress",
            "lock file",
            "log format",
            "max connections",
            "max verbosity",
            "name",
            "syslog facility",
            "syslog tag",
            "timeout",
        ],
    ),
];

/// The kind of a parameter; none if rsync 3.5 does not know it.
pub(crate) fn kind_of(name: &[u8]) -> Option<ParameterKind> {
    let name = canonical(name);
    let is_it = |known: &&str| canonical(known.as_bytes()) == name;
    PARAMETERS.iter().find(|(_, names)| names.iter().any(is_it)).map(|(kind, _)| *kind)
}

/// The names of one kind, as rsync compares them.
pub(crate) fn of_kind(kind: ParameterKind) -> impl Iterator<Item = Vec<u8>> {
    let of_kind = PARAMETERS.iter().filter(move |(other, _)| *other == kind);
    of_kind.flat_map(|(_, names)| names.iter().map(|name| canonical(name.as_bytes())))
}

/// All names.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    PARAMETERS.iter().flat_map(|(_, names)| names.iter().copied())
}
