//! `rsyncd-snapshot`: reads its command line and runs the command or hook.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use log::LevelFilter;
use nix::sys::stat::Mode;

use crate::cli::shared_arguments::{
    FormatArgs, HELP, HOLD_HELP, ModuleArgs, OptionalModuleArgs, ReleaseArgs, SnapshotArgs,
};
use crate::cli::usage_status::status_of_usage;
use crate::command;
use crate::command::doctor::hooks::{HookArguments, HookPurpose};
use crate::command::doctor::prober::{self, Prober};
use crate::command::expire::ExpireOptions;
use crate::command::release::{self, Released};
use crate::command::restore_options::{RESTORE_HELP, RESTORE_USAGE, RestoreOptions};
use crate::command::rotate::RotateOptions;
use crate::command::snapshot::SnapshotOptions;
use crate::config::environment::HookConnection;
use crate::config::settings::Settings;
use crate::decide::boot_time::BootTime;
use crate::hook::post_xfer::{self, HookMode};
use crate::hook::pre_xfer;
use crate::module::confine::{self, WriteScope};
use crate::module::context::Context;
use crate::run::expire_by_hand::ExpireOrder;
use crate::tell::PROGRAM;
use crate::tell::error::Error;
use crate::tell::exit::Exit;
use crate::tell::log::has_warned;

/// Snapshots and rotation for rsync daemon modules.
#[derive(Debug, Parser)]
#[command(name = "rsyncd-snapshot", version, about, long_about = None)]
#[command(args_conflicts_with_subcommands = false)]
#[command(after_help = HELP)]
struct CommandLine {
    /// The policy file [default: /etc/rsyncd-snapshot.toml, built-in defaults without it]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// rsyncd's configuration [default: /etc/rsyncd.conf]
    #[arg(long, value_name = "FILE", global = true)]
    rsyncd_conf: Option<PathBuf>,
    /// Log more: also debug lines, such as why each snapshot is kept
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    verbose: bool,
    /// Log only warnings and errors; the result of a command such as list or plan is still printed,
    /// but check prints nothing that is well
    #[arg(short, long, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
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
        options: command::plan_options::PlanOptions,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// List snapshots with age, grade and counts
    List {
        #[command(flatten)]
        modules: OptionalModuleArgs,
        /// List the snapshots that are retired and can still be brought back
        #[arg(long)]
        expired: bool,
        #[command(flatten)]
        format: FormatArgs,
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
    /// Run a command on a snapshot; the snapshot neither expires nor changes until the command ends
    #[command(override_usage = "rsyncd-snapshot hold [OPTIONS] [MODULE] NAME -- COMMAND...")]
    #[command(after_help = HOLD_HELP)]
    Hold {
        /// Name of the snapshot. If several modules have a snapshot of that name, put the module
        /// first
        #[arg(num_args = 1..=2, required = true, value_name = "NAME")]
        named: Vec<OsString>,
        /// The command with its arguments
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Copy files out of a snapshot with all attributes and hard links, and verify the copy
    #[command(override_usage = RESTORE_USAGE, after_help = RESTORE_HELP)]
    Restore {
        #[command(flatten)]
        options: RestoreOptions,
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
    /// Report problems, for monitoring, and find mistakes in rsyncd.conf and policy
    Check {
        #[command(flatten)]
        modules: OptionalModuleArgs,
        #[command(flatten)]
        format: FormatArgs,
        /// Be the process that tries what needs rights that `check` gives up
        #[arg(long, hide = true, exclusive = true)]
        prober: bool,
    },
    /// Print the policy that takes over from a configuration of rotate-backups
    ImportPolicy {
        /// The configuration, such as /etc/rotate-backups.ini
        #[arg(value_name = "FILE.ini")]
        file: PathBuf,
    },
}

impl Command {
    fn write_scope(&self) -> WriteScope {
        match self {
            Command::Plan { .. }
            | Command::List { .. }
            | Command::Check { .. }
            | Command::ImportPolicy { .. }
            | Command::Expire { dry_run: true, .. }
            | Command::Rotate { dry_run: true, .. } => WriteScope::Nothing,
            Command::Restore { options, .. } => options.write_scope(),
            Command::Verify { repair_attributes: true, .. } => WriteScope::Modules,
            Command::Hold { .. } => WriteScope::Unconfined,
            _ => WriteScope::Roots,
        }
    }
}

/// Runs the program: reads the command line and environment, and returns the exit status.
pub fn main() -> ExitCode {
    let started = BootTime::now();
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        // Help and version are no errors.
        Err(error) => return status_of_usage(crate::tell::usage::print::<CommandLine>(error)),
    };
    if matches!(line.command, Some(Command::Check { prober: true, .. })) {
        prober::run();
        return Exit::Done.into();
    }
    // What is inherited from rsyncd must not open our files to others.
    let umask = nix::sys::stat::umask(Mode::from_bits_truncate(0o077));
    let is_hook = matches!(line.command, None | Some(Command::PreXfer | Command::PostXfer { .. }));
    // pre-xfer's status lets the transfer in, rsyncd discards that of post-xfer, and `check` has
    // statuses of its own.
    let is_check = matches!(line.command, Some(Command::Check { .. }));
    let tells_warnings = !is_hook && !is_check;
    // pre-xfer sees by the connection's socket whether the client is still connected.
    let needs_socket = matches!(line.command, Some(Command::PreXfer));
    if is_hook && !needs_socket && HookConnection::is_in_environment() {
        crate::system::descriptors::close();
    }
    let level = match (line.verbose, line.quiet) {
        (true, _) => Some(LevelFilter::Debug),
        (_, true) => Some(LevelFilter::Warn),
        (false, false) => None,
    };
    crate::tell::log::start(
        is_hook && HookConnection::is_in_environment(),
        level.unwrap_or(LevelFilter::Info),
    );
    if !is_hook && level != Some(LevelFilter::Warn) {
        crate::tell::progress::start();
    }
    let write_scope = line.command.as_ref().map_or(WriteScope::Roots, Command::write_scope);
    let prober = is_check.then(Prober::start).flatten();
    confine::drop_capabilities(write_scope);
    let context = Context {
        settings: Settings::read(line.config.as_deref(), line.rsyncd_conf.as_deref()),
        level,
        started,
        write_scope,
    };
    match dispatch(line.command, &context, umask, prober) {
        Ok(code) if code == Exit::Done.code() && tells_warnings && has_warned() => {
            Exit::Warnings.into()
        }
        Ok(code) => code.into(),
        Err(error) => {
            match &error {
                Error::Policy(mistakes) => {
                    mistakes.iter().for_each(|mistake| log::error!("{mistake}"))
                }
                error => log::error!("{error}"),
            }
            error.exit().into()
        }
    }
}

/// Runs the hook or command; returns the exit status. `umask` is the one that this process was
/// started with.
fn dispatch(
    command: Option<Command>,
    context: &Context,
    umask: Mode,
    prober: Option<Prober>,
) -> Result<u8, Error> {
    if context.write_scope == WriteScope::Nothing {
        confine::to([], context.write_scope);
    }
    let exit = match command {
        None if !HookConnection::is_in_environment() => print_help(),
        None => post_xfer::run(context, HookMode::InHook)?,
        Some(Command::PostXfer { detach: true, .. }) => post_xfer::run(context, HookMode::Detach)?,
        Some(Command::PostXfer { detached: true, .. }) => {
            post_xfer::run(context, HookMode::Detached)?
        }
        Some(Command::PostXfer { .. }) => post_xfer::run(context, HookMode::InHook)?,
        Some(Command::PreXfer) => pre_xfer::run(context)?,
        Some(Command::Snapshot { modules, due, status, no_rotate, format }) => {
            let options = SnapshotOptions { due, status, rotates: !no_rotate };
            command::snapshot::run(context, modules.name(), options, format.json)?
        }
        Some(Command::Rotate { modules, dry_run, confirm, purge, format }) => {
            let options = RotateOptions { dry_run, confirm, purge };
            command::rotate::run(context, modules.name(), options, format.json)?
        }
        Some(Command::Plan { options, format }) => {
            command::plan::run_with(context, &options, format.json)?
        }
        Some(Command::List { modules, expired: true, format }) => {
            command::list::expired(context, modules.name(), format.json)?
        }
        Some(Command::List { modules, expired: false, format }) => {
            command::list::run(context, modules.name(), format.json)?
        }
        Some(Command::Pin { snapshot, reason, format }) => {
            command::pin::pin(context, &snapshot.named, &reason, format.json)?
        }
        Some(Command::Unpin { snapshot, format }) => {
            command::pin::unpin(context, &snapshot.named, format.json)?
        }
        Some(Command::Expire { snapshot, now, below_min_keep, dry_run, format }) => {
            let options = ExpireOptions { order: ExpireOrder { now, below_min_keep }, dry_run };
            command::expire::run(context, &snapshot.named, options, format.json)?
        }
        Some(Command::Undelete { snapshot, format }) => {
            command::pin::undelete(context, &snapshot.named, format.json)?
        }
        Some(Command::Hold { named, command }) => {
            return command::hold::run(context, &named, &command, umask);
        }
        Some(Command::Restore { options, format }) => {
            command::restore::run(context, &options, format.json)?
        }
        Some(Command::Verify { modules, repair_attributes, format }) => {
            command::verify::run(context, modules.name(), repair_attributes, format.json)?
        }
        Some(Command::Release { arguments: given }) => {
            match (Released { module: given.modules.name(), json: given.format.json }) {
                released if given.vanished => release::release_vanished(context, released)?,
                released if given.damage => release::release_damage(context, released)?,
                released if given.unseen => release::release_unseen(context, released)?,
                released if given.torn => release::release_torn(context, released)?,
                released => release::release_anomaly(context, released)?,
            }
        }
        Some(Command::Check { modules, format, .. }) => {
            return command::check::run(context, modules.name(), format.json, read_hook, prober);
        }
        Some(Command::ImportPolicy { file }) => command::import_policy::run(context, &file)?,
    };
    Ok(exit.code())
}

/// What the arguments of a hook mean to this program.
fn read_hook(arguments: &[OsString]) -> Result<HookArguments, String> {
    let program = OsString::from(PROGRAM);
    let line = CommandLine::try_parse_from(std::iter::once(&program).chain(arguments));
    let line = line.map_err(|error| crate::tell::usage::summary(&error))?;
    let purpose = match line.command {
        None => HookPurpose::PostXfer { detach: false },
        Some(Command::PostXfer { detach, .. }) => HookPurpose::PostXfer { detach },
        Some(Command::PreXfer) => HookPurpose::PreXfer,
        Some(_) => HookPurpose::Other,
    };
    Ok(HookArguments { purpose, config: line.config.map(PathBuf::into_os_string) })
}

/// Prints the help, and why nothing is done.
fn print_help() -> Exit {
    let why = "Nothing to do: RSYNC_MODULE_PATH is not set, and no command was given.";
    crate::tell::usage::print_help::<CommandLine>(why)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        super::CommandLine::command().debug_assert();
    }

    #[test]
    fn a_missing_argument_is_named_with_what_can_replace_it() {
        let parse = |words: &[&str]| {
            CommandLine::try_parse_from(std::iter::once(&PROGRAM).chain(words))
                .map_err(|error| error.render().to_string())
        };
        for (words, expected) in [
            (&["rotate"][..], "<MODULE|--all>"),
            (&["release", "--torn"], "<MODULE|--all>"),
            (&["plan"], "<MODULE|--all|--replay <DURATION>>"),
            (&["restore", "laptop", "newest"], "<--to <DIR>|--in-place>"),
        ] {
            let message = parse(words).expect_err("incomplete");
            assert!(message.contains(expected), "{words:?}: {message}");
        }
        for words in [
            &["rotate", "laptop", "--all"][..],
            &["plan", "laptop", "--all"],
            &["restore", "laptop", "newest", "--to", "/x", "--in-place"],
        ] {
            let message = parse(words).expect_err("a contradiction");
            assert!(message.contains("cannot be used with"), "{words:?}: {message}");
        }
        for words in [
            &["plan", "--replay", "2y"][..],
            &["plan", "laptop", "--replay", "30d", "--every", "1h"],
            &["plan", "--all", "--sizes"],
            &["list"],
            &["check", "--all"],
        ] {
            assert!(parse(words).is_ok(), "{words:?}");
        }
    }

    #[test]
    fn the_arguments_of_a_hook_are_read_as_in_the_hook() {
        let read = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            read_hook(&words)
        };
        let purpose = |words: &[&str]| read(words).map(|read| read.purpose);
        for (words, expected) in [
            (&[][..], HookPurpose::PostXfer { detach: false }),
            (&["post-xfer"], HookPurpose::PostXfer { detach: false }),
            (&["post-xfer", "--detach", "-q"], HookPurpose::PostXfer { detach: true }),
            (&["--config", "/x", "pre-xfer"], HookPurpose::PreXfer),
            (&["snapshot", "laptop"], HookPurpose::Other),
        ] {
            assert_eq!(purpose(words), Ok(expected), "{words:?}");
        }
        assert_eq!(read(&["--config=/x"]).expect("read").config, Some("/x".into()));
        assert_eq!(purpose(&["--help"]), Err("it only prints help".to_string()));
        let wrong = purpose(&["post-xfer", "--now"]).expect_err("no such option");
        assert!(wrong.contains("--now"), "{wrong}");
    }
}
