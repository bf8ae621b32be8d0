//! The options of `diff`.

use std::ffi::OsString;

use clap::Args;

/// How `diff` is used.
pub(crate) const DIFF_USAGE: &str = "\
rsyncd-snapshot diff [OPTIONS] [MODULE] A [B] [-- PATH...]";

/// What `diff --help` says below the options.
pub(crate) const DIFF_HELP: &str = "\
A and B are snapshots; B is `live`, the module's directory, unless it is given. Each line is one
entry that B has and A lacks (added), that A has and B lacks (removed), or that differs (changed),
and in what: type, content, target (of a symbolic link), device, size, time, owner, mode, xattr.
A directory's own line comes before what is in it.

PATH is relative to the module's directory; in it, `*`, `?` and `[...]` match as in a shell, and
`**` stands for any number of directories. A PATH that is a directory means all that is in it.

    rsyncd-snapshot diff laptop yesterday
    rsyncd-snapshot diff laptop 2026-11-21 newest -- etc '**/*.conf'
    rsyncd-snapshot diff laptop newest --stat

The exit status does not say whether there are differences: 0 compared, 1 failed, 2 wrong usage,
4 something could not be compared.";

/// What the command line asks for.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct DiffOptions {
    /// Snapshot A, then B. If several modules have a snapshot of that name, put the module first
    #[arg(num_args = 1..=3, required = true, value_name = "NAME")]
    pub named: Vec<OsString>,
    /// Compare only what is there or matches
    #[arg(last = true, value_name = "PATH")]
    pub paths: Vec<OsString>,
    /// Print only how many entries and bytes differ in each top directory
    #[arg(long)]
    pub stat: bool,
}
