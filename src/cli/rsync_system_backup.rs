//! `rsync-system-backup`: reads its command line and runs a backup, a check or the hook.

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::cli::backup_options::BackupOptions;
use crate::cli::rsyncd_snapshot::read_hook;
use crate::client::error::{ClientError, Result};
use crate::client::{backup, check, external_command, platform, signals};
use crate::config::settings::Settings;
use crate::decide::boot_time::BootTime;
use crate::hook::post_xfer::{self, HookMode};
use crate::module::confine::WriteScope;
use crate::module::context::Context;
use crate::tell::exit::Exit;

/// Runs the program: reads the command line, and returns the exit status.
pub fn main() -> ExitCode {
    let started = BootTime::now();
    let options = match BackupOptions::try_parse() {
        Ok(options) => options,
        // Help and version are no errors.
        Err(error) => return crate::tell::usage::print::<BackupOptions>(error).into(),
    };
    if !options.has_destination() {
        let usage = BackupOptions::command().render_help();
        let _ = writeln!(
            std::io::stderr(),
            "{usage}\nNo DESTINATION is given, and RSYNC_MODULE_PATH is not set."
        );
        return Exit::Usage.into();
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let is_interactive = external_command::is_interactive();
    // A user who asks for more output wants to see it, under cron, too.
    let to_syslog = !is_interactive && options.level() <= log::LevelFilter::Info;
    crate::tell::log::start_as("rsync-system-backup", to_syslog, options.level());
    let settings = Settings::read(options.config.as_deref(), None);
    let context = Context {
        // A destination may be a module of this machine. A hook uses what its own line names.
        settings: if options.is_hook() { settings } else { settings.reading_hooks(read_hook) },
        level: Some(options.level()),
        started,
        write_scope: WriteScope::Roots,
    };
    match run(&options, &context) {
        Ok(exit) => exit.into(),
        Err(error) => log_error(&error, is_interactive).into(),
    }
}

fn run(options: &BackupOptions, context: &Context) -> Result<Exit> {
    if options.is_hook() {
        // rsyncd knows how the transfer ended, and so does its hook.
        return Ok(post_xfer::run(context, HookMode::InHook)?);
    }
    let job = options.job()?;
    signals::watch()?;
    platform::check(options.force)?;
    match options.check {
        true => check::run(&job, context),
        false => backup::execute(&job, context),
    }
}

/// Logs the error; returns the exit status for it.
fn log_error(error: &ClientError, is_interactive: bool) -> Exit {
    match error {
        // Under cron a disk that is not plugged in is usual, and must cause no mail.
        ClientError::MissingDisk(message) if !is_interactive => {
            log::info!("skipping the backup: {message}");
            return Exit::Done;
        }
        ClientError::Engine(crate::tell::error::Error::Policy(mistakes)) => {
            mistakes.iter().for_each(|mistake| log::error!("{mistake}"));
        }
        error => log::error!("{error}"),
    }
    error.exit()
}
