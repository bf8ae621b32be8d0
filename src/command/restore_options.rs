//! The options of `restore`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::module::confine::WriteScope;

/// How `restore` is used.
pub(crate) const RESTORE_USAGE: &str = "\
rsyncd-snapshot restore [OPTIONS] [MODULE] NAME [PATH]... --to DIR
       rsyncd-snapshot restore [OPTIONS] [MODULE] NAME PATH... --in-place
       rsyncd-snapshot restore [OPTIONS] MODULE --at TIME [PATH]... --to DIR";

/// What `restore --help` says below the options.
pub(crate) const RESTORE_HELP: &str = "\
NAME is a snapshot's name or what only that name begins with, `newest` for the newest complete one,
a date or `yesterday` for the newest complete one of that day, or the absolute path of a snapshot.
MODULE may also be the path of a snapshot root, such as on a disk of another machine.

PATH is a path in the snapshot, relative to the module's directory. `--to DIR` receives it as
`cp -a SNAPSHOT/PATH DIR/` does: `home/anna` becomes DIR/anna, and what is in `home/anna/.` lands in
DIR itself. Without PATH, all that is in the snapshot lands in DIR. In place, each PATH lands where
it was in the module; `.` is the whole module.

Nothing is ever deleted: whatever else the destination has stays.

Examples:
    rsyncd-snapshot restore laptop newest home/anna/thesis.odt --to /tmp
    rsyncd-snapshot restore laptop --at '2026-11-22 18:00' --to /mnt/restored
    rsyncd-snapshot restore laptop newest home/anna --in-place --dry-run";

/// What the command line asks for.
#[derive(Debug, Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("where").args(["to", "in_place"]).required(true))]
pub(crate) struct RestoreOptions {
    /// The snapshot, then the paths to restore. If several modules have a snapshot of that name,
    /// put the module first
    #[arg(num_args = 1.., required = true, value_name = "NAME")]
    pub named: Vec<OsString>,
    /// Take the newest complete snapshot of that time or before; a date means the end of that day
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Restore into this directory; it is made if it is missing, but not the ones above it
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Restore into the module itself, as a push does, and take a snapshot afterwards
    #[arg(long)]
    pub in_place: bool,
    /// Show what would be written, replaced and refused, and write nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Also replace files that are newer than in the snapshot, and files where the snapshot has a
    /// directory
    #[arg(long)]
    pub overwrite: bool,
}

impl RestoreOptions {
    /// How much of the file system the command is meant to change.
    pub(crate) fn write_scope(&self) -> WriteScope {
        match (self.dry_run, self.in_place) {
            (true, _) => WriteScope::Nothing,
            (false, true) => WriteScope::Modules,
            (false, false) => WriteScope::Directory,
        }
    }
}
