//! The commands of rsyncd-snapshot with their arguments.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Subcommand;

use crate::cli::shared_arguments::{
    FormatArgs, HOLD_HELP, ListArgs, ModuleArgs, OptionalModuleArgs, ReleaseArgs, SnapshotArgs,
};
use crate::command::diff_options::{DIFF_HELP, DIFF_USAGE, DiffOptions};
use crate::command::plan_options::PlanOptions;
use crate::command::restore_options::{RESTORE_HELP, RESTORE_USAGE, RestoreOptions};
use crate::command::setup_options::{SETUP_HELP, SetupOptions};
use crate::command::versions::{VERSIONS_HELP, VERSIONS_USAGE, VersionsOptions};
use crate::module::confine::WriteScope;

/// What `rsyncd-snapshot` is asked to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The hook that rsyncd runs before a transfer: refuse a push that would write into snapshots,
    /// and let it wait while a snapshot is being taken
    PreXfer,
    /// The hook that rsyncd runs after a transfer: take a snapshot if the transfer changed the
    /// module, then rotate
    PostXfer {
        /// Do the work in a background process, so that the connection ends at once
        #[arg(long)]
        detach: bool,
        /// Be that background process
        #[arg(long, hide = true, conflicts_with = "detach")]
        detached: bool,
    },
    /// Take a snapshot now, unless nothing changed, then rotate
    Snapshot {
        #[command(flatten)]
        modules: ModuleArgs,
        /// Only if one is due: a hook was killed or gave up waiting, min_interval put it off, or
        /// another push was running
        #[arg(long)]
        due: bool,
        /// Record a push without a daemon: N is the exit status of the rsync that has just filled
        /// the directory
        #[arg(long, value_name = "N", conflicts_with = "due")]
        status: Option<i32>,
        /// Expire nothing
        #[arg(long)]
        no_rotate: bool,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Rotate now: expire what the policy no longer keeps
    Rotate {
        #[command(flatten)]
        modules: ModuleArgs,
        /// Decide and explain, but delete nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
        /// Confirm that the clock, the list of snapshots and the policy are right, and end the
        /// pause of expiry
        #[arg(long, conflicts_with = "dry_run")]
        confirm: bool,
        /// Remove retired snapshots at once: then none can be brought back
        #[arg(long, conflicts_with = "dry_run")]
        purge: bool,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Explain what rotation would do: each snapshot, keep or expire, every reason
    Plan {
        #[command(flatten)]
        options: PlanOptions,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// List snapshots with age, grade, counts and sizes
    List {
        #[command(flatten)]
        arguments: ListArgs,
    },
    /// Keep snapshots whatever the policy says
    #[command(override_usage = "rsyncd-snapshot pin [OPTIONS] [MODULE] NAME...")]
    Pin {
        #[command(flatten)]
        snapshot: SnapshotArgs,
        /// Why; `list` shows it
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Leave pinned snapshots to the policy again
    #[command(override_usage = "rsyncd-snapshot unpin [OPTIONS] [MODULE] NAME...")]
    Unpin {
        #[command(flatten)]
        snapshot: SnapshotArgs,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Delete snapshots: retire them, so that `undelete` can bring them back, or remove them now
    #[command(override_usage = "rsyncd-snapshot expire [OPTIONS] [MODULE] NAME...")]
    Expire {
        #[command(flatten)]
        snapshot: SnapshotArgs,
        /// Remove them at once, also if they are retired already: then none can be brought back
        #[arg(long)]
        now: bool,
        /// Let fewer complete snapshots stay than min_keep; the newest always stays
        #[arg(long)]
        below_min_keep: bool,
        /// Say what would be done, and change nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Bring retired snapshots back, and pin them
    #[command(override_usage = "rsyncd-snapshot undelete [OPTIONS] [MODULE] NAME...")]
    Undelete {
        #[command(flatten)]
        snapshot: SnapshotArgs,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Run a command on snapshots, which neither expire nor change until the command ends
    #[command(override_usage = "rsyncd-snapshot hold [OPTIONS] [MODULE] NAME... -- COMMAND...")]
    #[command(after_help = HOLD_HELP)]
    Hold {
        #[command(flatten)]
        snapshot: SnapshotArgs,
        /// The command with its arguments
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Show what changed between two snapshots, or between a snapshot and the module as it is now
    #[command(override_usage = DIFF_USAGE, after_help = DIFF_HELP)]
    Diff {
        #[command(flatten)]
        options: DiffOptions,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Copy files out of a snapshot with all attributes and hard links, and verify the copy
    #[command(override_usage = RESTORE_USAGE, after_help = RESTORE_HELP)]
    Restore {
        #[command(flatten)]
        options: RestoreOptions,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// List the versions of files and directories that snapshots hold, with the paths to copy from
    #[command(override_usage = VERSIONS_USAGE, after_help = VERSIONS_HELP)]
    Versions {
        #[command(flatten)]
        options: VersionsOptions,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Check whether files in snapshots were altered in place; exit 1 if so
    Verify {
        #[command(flatten)]
        modules: ModuleArgs,
        /// Give snapshots back the modes, owners, times and extended attributes that were altered
        #[arg(long)]
        repair_attributes: bool,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Accept a push that changed most of the tree: expiry goes on, and the automatic pin is taken
    /// off; an option ends another alert instead
    Release {
        #[command(flatten)]
        arguments: ReleaseArgs,
    },
    /// Show what is going on, the worst first: newest snapshots, pushes, runs, space, what is wrong
    Status {
        /// Modules: names in rsyncd.conf, or absolute paths of their directories [default: all]
        #[arg(value_name = "MODULE", conflicts_with = "all")]
        modules: Vec<OsString>,
        /// All modules, as without MODULE
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Report problems, for monitoring, and find mistakes in rsyncd.conf and policy
    Check {
        #[command(flatten)]
        modules: OptionalModuleArgs,
        #[command(flatten)]
        format: FormatArgs,
        /// Print metrics for Prometheus instead, and end with 0
        #[arg(long, conflicts_with_all = ["json", "wide"])]
        prometheus: bool,
        /// Replace this file by the metrics, as a whole, so that node_exporter can read it; `-` is
        /// standard output
        #[arg(long, value_name = "FILE", requires = "prometheus")]
        output: Option<PathBuf>,
        /// Be the process that tries what needs rights that `check` gives up
        #[arg(long, hide = true, exclusive = true)]
        prober: bool,
    },
    /// Print the names that a shell offers: of modules, or of the snapshots of MODULE
    #[command(hide = true)]
    Complete {
        module: Option<OsString>,
        /// Of its retired snapshots
        #[arg(long)]
        expired: bool,
    },
    /// Set up a module that clients can push to, with hooks, directories and a secret; or only show
    /// how
    #[command(after_help = SETUP_HELP)]
    Setup {
        #[command(flatten)]
        options: SetupOptions,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Print the policy that takes over from a configuration of rotate-backups
    ImportPolicy {
        /// The configuration, such as /etc/rotate-backups.ini
        #[arg(value_name = "FILE.ini")]
        file: PathBuf,
    },
}

impl Command {
    /// Whether it shows what there is, waits for no lock and keeps nothing.
    pub(crate) fn only_looks(&self) -> bool {
        let is_look = matches!(
            self,
            Command::Check { .. }
                | Command::Status { .. }
                | Command::List { .. }
                | Command::Plan { .. }
        );
        is_look && self.write_scope() != WriteScope::Roots
    }

    /// How much of the file system the command is meant to change.
    pub(crate) fn write_scope(&self) -> WriteScope {
        match self {
            Command::Plan { .. }
            | Command::List { arguments: ListArgs { sizes: false, .. } }
            | Command::Diff { .. }
            | Command::Status { .. }
            | Command::Complete { .. }
            | Command::Versions { .. }
            | Command::ImportPolicy { .. }
            | Command::Expire { dry_run: true, .. }
            | Command::Rotate { dry_run: true, .. } => WriteScope::Nothing,
            Command::Check { output, .. } => match output_file(output.as_deref()) {
                Some(_) => WriteScope::OutputFile,
                None => WriteScope::Nothing,
            },
            Command::Restore { options, .. } => options.write_scope(),
            Command::Setup { options, .. } => options.write_scope(),
            Command::Verify { repair_attributes: true, .. } => WriteScope::Modules,
            Command::Hold { .. } => WriteScope::Unconfined,
            _ => WriteScope::Roots,
        }
    }
}

/// The file that `--output` names; none if that is standard output.
pub(crate) fn output_file(named: Option<&Path>) -> Option<&Path> {
    named.filter(|path| *path != Path::new("-"))
}
