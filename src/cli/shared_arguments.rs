//! Arguments that several commands of rsyncd-snapshot have: modules, snapshots, the form of output.

use std::ffi::{OsStr, OsString};

use clap::Args;

use crate::tell::terminal::leave_lines_whole;

/// The end of `--help`.
pub(crate) const HELP: &str = "\
Without a command, and with RSYNC_MODULE_PATH set, it is the post-xfer hook:
    pre-xfer exec = /usr/bin/rsyncd-snapshot pre-xfer
    post-xfer exec = /usr/bin/rsyncd-snapshot

MODULE is a module's name in rsyncd.conf, the name that it had there, or the absolute path of its
directory or its snapshot root. NAME is a snapshot's name or what only that name begins with,
`newest`, a date, `yesterday`, or the absolute path of a snapshot.

Exit status: 0 done or nothing to do, 1 failed, 2 wrong usage or configuration,
3 gave up waiting for another run, the job queue or a push,
4 done, but read the lines that begin with \"warning:\".
`check`: 0 ok, 1 warning, 2 critical, 3 unknown or wrong usage; with --prometheus 0 or 3.";

/// Below the help of `hold`.
pub(crate) const HOLD_HELP: &str = "\
Each {} in COMMAND and its arguments becomes the path of the snapshot's directory. Of several
snapshots, a word with {} is repeated for each. The environment variable RSYNCD_SNAPSHOT_HELD has
the paths, too, one a line:
    rsyncd-snapshot hold laptop 2026-11-22T19-08-31Z -- rsync -a {}/home/ /mnt/home/
    rsyncd-snapshot hold laptop yesterday newest -- diff -r {}/etc
COMMAND has all rights of the user who runs `hold`: it is not confined as other commands are. The
exit status is that of COMMAND; 126 if it cannot be run, 127 if it is not found.";

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ModuleArgs {
    /// A module's name in rsyncd.conf, or the absolute path of its directory
    module: Option<OsString>,
    /// Every module that a run has worked on before
    #[arg(long)]
    all: bool,
}

impl ModuleArgs {
    /// The module's name or path; `None` means all.
    pub(crate) fn name(&self) -> Option<&OsStr> {
        self.module.as_deref()
    }
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    /// Names of snapshots. If several modules have a snapshot of such a name, put the module first
    #[arg(num_args = 1.., required = true, value_name = "NAME")]
    pub(crate) named: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct OptionalModuleArgs {
    /// A module's name in rsyncd.conf, or the absolute path of its directory [default: all]
    #[arg(conflicts_with = "all")]
    module: Option<OsString>,
    /// All modules, as without MODULE
    #[arg(long)]
    all: bool,
}

impl OptionalModuleArgs {
    /// The module's name or path; `None` means all.
    pub(crate) fn name(&self) -> Option<&OsStr> {
        self.module.as_deref()
    }
}

#[derive(Debug, Args)]
pub(crate) struct FormatArgs {
    /// Print JSON, which docs/json.md describes
    #[arg(long)]
    pub(crate) json: bool,
    /// On a terminal, show all columns, and leave long lines as they are
    #[arg(long, conflicts_with = "json")]
    pub(crate) wide: bool,
}

impl FormatArgs {
    /// Begins the output of the command; returns whether it is JSON.
    pub(crate) fn apply(&self) -> bool {
        if self.wide {
            leave_lines_whole();
        }
        self.json
    }
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) modules: OptionalModuleArgs,
    /// List the snapshots that are retired and can still be brought back
    #[arg(long)]
    pub(crate) expired: bool,
    /// Count what each snapshot takes alone, which its removal would free, and remember it; that
    /// reads every directory and file once
    #[arg(long, conflicts_with = "expired")]
    pub(crate) sizes: bool,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    pub(crate) modules: ModuleArgs,
    /// Accept the module as whole, though the clients whose pushes failed have not pushed again
    #[arg(long)]
    pub(crate) torn: bool,
    /// Accept altered files in snapshots as they are now
    #[arg(long, conflicts_with = "torn")]
    pub(crate) damage: bool,
    /// Count pushes and readers as ended whose processes cannot be seen from here, such as those of
    /// a removed container
    #[arg(long, conflicts_with_all = ["torn", "damage"])]
    pub(crate) unseen: bool,
    /// Accept that another program removed snapshots
    #[arg(long, conflicts_with_all = ["torn", "damage", "unseen"])]
    pub(crate) vanished: bool,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}
