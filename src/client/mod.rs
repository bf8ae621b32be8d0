//! `rsync-system-backup`: the other end of the wire. On the machine that is backed up it makes the
//! backup disk ready, runs rsync with the right options, takes and rotates snapshots where there is
//! no daemon that does, and tells the desktop.
//!
//! A successor of the Python program of that name, with its command line. What decides is pure
//! ([`location`], [`tables`], [`rsync`], [`options`]); what acts runs other programs ([`external`])
//! and undoes what it did to the disk ([`disk`]). [`backup`] is the order of the steps.

pub mod acquaintance;
pub mod backup;
mod check;
pub mod disk;
pub mod external;
pub mod failure;
pub mod fallback;
pub mod job;
pub mod location;
pub mod lock;
pub mod notify;
pub mod options;
pub mod output;
pub mod place;
mod platform;
pub mod rsync;
pub mod safety;
pub mod sight;
pub mod signals;
pub mod snapshot;
pub mod tables;
pub mod transfer;
pub mod tunnel;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::command::{self, Context};
use crate::config::settings::Settings;
use crate::confine::Reach;
use crate::store::boot::BootTime;
use crate::tell::exit::Exit;
use failure::{Failure, Result};
use options::Options;

/// Runs the program: reads the command line, and returns the exit status.
pub fn main() -> ExitCode {
    let started = BootTime::now();
    let options = match Options::try_parse() {
        Ok(options) => options,
        // Help and version are no errors.
        Err(error) => return crate::tell::usage::print::<Options>(error).into(),
    };
    if !options.has_destination() {
        let usage = Options::command().render_help();
        let _ = writeln!(
            std::io::stderr(),
            "{usage}\nNo DESTINATION is given, and RSYNC_MODULE_PATH is not set."
        );
        return Exit::Usage.into();
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let is_interactive = external::is_interactive();
    // Whoever asks for more wants to see it, cron or not.
    let to_syslog = !is_interactive && options.level() <= log::LevelFilter::Info;
    crate::tell::log::start_as("rsync-system-backup", to_syslog, options.level());
    let context = Context {
        settings: Settings::read(options.config.as_deref(), None),
        level: Some(options.level()),
        started,
        reach: Reach::Roots,
    };
    match run(&options, &context) {
        Ok(exit) => exit.into(),
        Err(failure) => tell(&failure, is_interactive).into(),
    }
}

fn run(options: &Options, context: &Context) -> Result<Exit> {
    if options.is_hook() {
        // rsyncd knows how the transfer ended, and so does its hook.
        return Ok(command::hook::run(context, command::hook::Place::Here)?);
    }
    let job = options.job()?;
    signals::watch()?;
    platform::check(options.force)?;
    match options.check {
        true => check::run(&job, context),
        false => backup::execute(&job, context),
    }
}

fn tell(failure: &Failure, is_interactive: bool) -> Exit {
    match failure {
        // A disk that is not plugged in is no news to cron.
        Failure::MissingDisk(message) if !is_interactive => {
            log::info!("skipping the backup: {message}");
            return Exit::Done;
        }
        Failure::Engine(crate::tell::error::Error::Policy(mistakes)) => {
            mistakes.iter().for_each(|mistake| log::error!("{mistake}"));
        }
        failure => log::error!("{failure}"),
    }
    failure.exit()
}
