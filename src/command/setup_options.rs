//! The options of `setup`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::module::confine::WriteScope;

/// What `setup --help` says below the options.
pub(crate) const SETUP_HELP: &str = "\
DIR is the directory for one client. The module's own directory, which clients push to, is
DIR/latest, and the snapshots appear in DIR beside it. Directories that are missing are made with
mode 0700; others are left as they are.

Without --write it prints the sections for rsyncd.conf, and says in comments what else --write
would do. With --write it makes the directories, adds a new secret for NAME to the secrets file
unless NAME has one, writes the sections into the directory `rsyncd.d` beside rsyncd.conf, and lets
rsyncd.conf include that directory; a missing rsyncd.conf is made. Then it checks the module as
`check` does. A second run changes nothing. What `check` would call critical is refused before
anything is written, and so is a module of that name with other parameters.

Exit status: as of other commands; after --write, 1 if the check finds something critical, and 4 if
it finds something else.

Examples:
    rsyncd-snapshot setup laptop --path /srv/backup/laptop --user laptop --restore
    rsyncd-snapshot setup laptop --path /srv/backup/laptop --user laptop --restore --systemd --write
    rsyncd-snapshot setup web --path /srv/backup/web --hosts 10.0.0.7 --hosts 10.0.1.0/24 --write";

/// What the command line asks for.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct SetupOptions {
    /// The name of the module
    pub(crate) module: OsString,
    /// The directory that holds the module's directory `latest` and its snapshots
    #[arg(long, value_name = "DIR")]
    pub(crate) path: PathBuf,
    /// Let only this user in, with a secret [default: no login]
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<OsString>,
    /// Let only this client or network in; repeat it for more [default: all]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) hosts: Vec<OsString>,
    /// Also make the restore module MODULE-snapshots, in which clients read the snapshots
    #[arg(long)]
    pub(crate) restore: bool,
    /// Also write drop-ins for the units of the rsync daemon, which let it make device files, and
    /// let hooks end when it is restarted
    #[arg(long)]
    pub(crate) systemd: bool,
    /// Where these drop-ins go
    #[arg(long, value_name = "DIR", requires = "systemd", default_value = "/etc/systemd/system")]
    pub(crate) unit_directory: PathBuf,
    /// Do it, and do not only print it
    #[arg(long)]
    pub(crate) write: bool,
    /// With --write: say what would be done, and change nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

impl SetupOptions {
    /// Whether anything is to be written.
    pub(crate) fn writes(&self) -> bool {
        self.write && !self.dry_run
    }

    /// How much of the file system the command is meant to change.
    pub(crate) fn write_scope(&self) -> WriteScope {
        if self.writes() { WriteScope::Configuration } else { WriteScope::Nothing }
    }
}
