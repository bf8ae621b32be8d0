//! `rsyncd-snapshot`: reads its command line and runs the command or hook.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use log::LevelFilter;
use nix::sys::stat::Mode;

use crate::cli::commands::{Command, output_file};
use crate::cli::examples;
use crate::cli::shared_arguments::HELP;
use crate::cli::usage_status::status_of_usage;
use crate::cli::version::DETAILS;
use crate::command;
use crate::command::check::CheckOptions;
use crate::command::doctor::prober::Prober;
use crate::command::doctor::prober_process;
use crate::command::expire::ExpireOptions;
use crate::command::finding::Severity;
use crate::command::release::{self, Released};
use crate::command::rotate::RotateOptions;
use crate::command::snapshot::SnapshotOptions;
use crate::command::snapshot_limit;
use crate::config::environment::HookConnection;
use crate::config::hook_policy::{HookArguments, HookPurpose};
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
#[command(name = "rsyncd-snapshot", version, long_version = DETAILS.as_str())]
#[command(about, long_about = None)]
#[command(args_conflicts_with_subcommands = false)]
#[command(after_help = HELP)]
struct CommandLine {
    /// The policy file [default: that of the module's hooks, or /etc/rsyncd-snapshot.toml]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// rsyncd's configuration [default: /etc/rsyncd.conf]
    #[arg(long, value_name = "FILE", global = true)]
    rsyncd_conf: Option<PathBuf>,
    /// Log more: also debug lines, such as why each snapshot is kept
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    verbose: bool,
    /// Log only warnings and errors, and print nothing that is well; the result of a command such
    /// as list or plan is still printed
    #[arg(short, long, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Runs the program: reads the command line and environment, and returns the exit status.
pub fn main() -> ExitCode {
    let started = BootTime::now();
    let line = match examples::parse::<CommandLine>(std::env::args_os()) {
        Ok(line) => line,
        // Help and version are no errors.
        Err(error) => {
            let exit = crate::tell::usage::print::<CommandLine>(error);
            return status_of_usage::<CommandLine>(exit);
        }
    };
    if matches!(line.command, Some(Command::Check { prober: true, .. })) {
        prober_process::run();
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
    let probes = is_check || matches!(line.command, Some(Command::Setup { .. }));
    let prober = probes.then(Prober::start).flatten();
    confine::drop_capabilities(write_scope);
    let mut settings = Settings::read(line.config.as_deref(), line.rsyncd_conf.as_deref());
    if line.command.as_ref().is_some_and(Command::only_looks) {
        settings.memory = settings.memory.read_once();
    }
    let context = Context {
        // A hook uses what its own line names.
        settings: if is_hook { settings } else { settings.reading_hooks(read_hook) },
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
            match is_check {
                // A plugin ends with another status only for what it has found.
                true => Severity::Unknown.code().into(),
                false => error.exit().into(),
            }
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
    if matches!(
        command,
        Some(Command::Check { .. } | Command::Plan { .. } | Command::Status { .. })
    ) {
        snapshot_limit::ask_cluster();
    }
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
            command::snapshot::run(context, modules.name(), options, format.apply())?
        }
        Some(Command::Rotate { modules, dry_run, confirm, purge, format }) => {
            let options = RotateOptions { dry_run, confirm, purge };
            command::rotate::run(context, modules.name(), options, format.apply())?
        }
        Some(Command::Plan { options, format }) => {
            command::plan::run_with(context, &options, format.apply())?
        }
        Some(Command::Complete { module, expired }) => {
            command::complete::run(context, module.as_deref(), expired)?
        }
        Some(Command::Status { modules, format, .. }) => {
            command::status::run(context, &modules, format.apply())?
        }
        Some(Command::List { arguments: given }) => match given.expired {
            true => command::list::expired(context, given.modules.name(), given.format.apply())?,
            false => command::list::run(
                context,
                given.modules.name(),
                given.sizes,
                given.format.apply(),
            )?,
        },
        Some(Command::Pin { snapshot, reason, format }) => {
            command::pin::pin(context, &snapshot.named, &reason, format.apply())?
        }
        Some(Command::Unpin { snapshot, format }) => {
            command::pin::unpin(context, &snapshot.named, format.apply())?
        }
        Some(Command::Expire { snapshot, now, below_min_keep, dry_run, format }) => {
            let options = ExpireOptions { order: ExpireOrder { now, below_min_keep }, dry_run };
            command::expire::run(context, &snapshot.named, options, format.apply())?
        }
        Some(Command::Undelete { snapshot, format }) => {
            command::pin::undelete(context, &snapshot.named, format.apply())?
        }
        Some(Command::Hold { snapshot, command }) => {
            return command::hold::run(context, &snapshot.named, &command, umask);
        }
        Some(Command::Diff { options, format }) => {
            command::diff::run(context, &options, format.apply())?
        }
        Some(Command::Restore { options, format }) => {
            command::restore::run(context, &options, format.apply())?
        }
        Some(Command::Versions { options, format }) => {
            command::versions::run(context, &options, format.apply())?
        }
        Some(Command::Verify { modules, repair_attributes, format }) => {
            command::verify::run(context, modules.name(), repair_attributes, format.apply())?
        }
        Some(Command::Release { arguments: given }) => {
            match (Released { module: given.modules.name(), json: given.format.apply() }) {
                released if given.vanished => release::release_vanished(context, released)?,
                released if given.damage => release::release_damage(context, released)?,
                released if given.unseen => release::release_unseen(context, released)?,
                released if given.torn => release::release_torn(context, released)?,
                released => release::release_anomaly(context, released)?,
            }
        }
        Some(Command::Check { modules, format, prometheus, output, .. }) => {
            let output = output_file(output.as_deref());
            let (module, json) = (modules.name(), format.apply());
            let options = CheckOptions { module, json, prometheus, output };
            return command::check::run(context, &options, prober);
        }
        Some(Command::Setup { options, format }) => {
            command::setup::run(context, &options, format.apply(), prober)?
        }
        Some(Command::ImportPolicy { file }) => command::import_policy::run(context, &file)?,
    };
    Ok(exit.code())
}

/// What the arguments of a hook mean to this program.
pub(crate) fn read_hook(arguments: &[OsString]) -> Result<HookArguments, String> {
    let program = OsString::from(PROGRAM);
    let line = CommandLine::try_parse_from(std::iter::once(&program).chain(arguments));
    let line = line.map_err(|error| crate::tell::usage::summary(&error))?;
    let purpose = match line.command {
        None => HookPurpose::PostXfer { detach: false },
        Some(Command::PostXfer { detach, .. }) => HookPurpose::PostXfer { detach },
        Some(Command::PreXfer) => HookPurpose::PreXfer,
        Some(_) => HookPurpose::Other,
    };
    let text = |file: Option<PathBuf>| file.map(PathBuf::into_os_string);
    Ok(HookArguments { purpose, config: text(line.config), rsyncd_conf: text(line.rsyncd_conf) })
}

/// The command line with its examples.
pub(crate) fn command_line() -> clap::Command {
    examples::added_to(CommandLine::command())
}

/// Prints the help, and why nothing is done.
fn print_help() -> Exit {
    let why = "Nothing to do: RSYNC_MODULE_PATH is not set, and no command was given.";
    crate::tell::usage::print_help::<CommandLine>(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        super::CommandLine::command().debug_assert();
    }

    /// The words of a line as a shell reads them, up to a comment or a redirection.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut is_quoted) = (vec![String::new()], false);
        for letter in line.split(" # ").next().unwrap_or(line).trim().chars() {
            match (letter, is_quoted) {
                ('\'', _) => is_quoted = !is_quoted,
                (' ', false) => words.push(String::new()),
                _ => words.last_mut().expect("a word").push(letter),
            }
        }
        words.retain(|word| !word.is_empty());
        words.into_iter().take_while(|word| word != ">").collect()
    }

    #[test]
    fn each_command_has_an_example_and_each_example_is_accepted() {
        let line = command_line();
        for command in line.get_subcommands().filter(|command| !command.is_hide_set()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let lines = help.lines().filter_map(|line| {
                let line = line.split(" exec = /usr/bin/").last()?.trim_start();
                line.starts_with("rsyncd-snapshot ").then_some(line)
            });
            let lines: Vec<&str> = lines.collect();
            assert!(!lines.is_empty(), "{}: no example", command.get_name());
            for line in lines {
                let parsed = CommandLine::try_parse_from(words(line));
                assert!(parsed.is_ok(), "{line}: {}", parsed.expect_err("just seen"));
            }
            assert!(help.lines().all(|line| line.len() <= 100), "{help}");
        }
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
