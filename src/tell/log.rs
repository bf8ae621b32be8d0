//! Where log lines go: to syslog when rsyncd runs us, to standard error when a person does.
//!
//! rsyncd's hooks have no useful standard error, and a container may have no syslog; neither
//! may fail a backup. So the hook logs to syslog if its socket is there and else to standard
//! error, where warnings and errors go in any case.

use std::io::Write;
use std::sync::Mutex;

use log::{Level, LevelFilter, Log, Metadata, Record};
use syslog::{Facility, Formatter3164, LoggerBackend};

use super::escape::one_line;
use super::progress;

type Syslog = syslog::Logger<LoggerBackend, Formatter3164>;

struct Logger {
    ident: &'static str,
    syslog: Option<Mutex<Syslog>>,
}

/// Starts logging at `level`; `to_syslog` for a hook.
pub fn start(to_syslog: bool, level: LevelFilter) {
    start_as("rsyncd-snapshot", to_syslog, level);
}

/// The same for a program of another name.
pub fn start_as(ident: &'static str, to_syslog: bool, level: LevelFilter) {
    let syslog = if to_syslog { connect(ident) } else { None };
    // Fails only if it was started before, and then that stands.
    if log::set_boxed_logger(Box::new(Logger { ident, syslog: syslog.map(Mutex::new) })).is_ok() {
        log::set_max_level(level);
    }
}

fn connect(ident: &str) -> Option<Syslog> {
    let formatter = Formatter3164 {
        facility: Facility::LOG_DAEMON,
        hostname: None,
        process: ident.to_string(),
        pid: std::process::id(),
    };
    // `unix` tries the local sockets only; `init` would go on to the network.
    syslog::unix(formatter).ok()
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= log::max_level() && metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = record.args().to_string();
        let line = one_line(&text);
        let sent = self.syslog.as_ref().is_some_and(|syslog| send(syslog, record.level(), &line));
        if !sent || record.level() <= Level::Warn {
            // Standard error may be closed; there is nowhere left to say so.
            let ident = self.ident;
            let _ =
                progress::pause(|| writeln!(std::io::stderr(), "{ident}: {}{line}", prefix(record.level())));
        }
    }

    fn flush(&self) {}
}

/// Longer lines do not fit into a syslog message.
const MAX_LINE_BYTES: usize = 4_000;

fn send(syslog: &Mutex<Syslog>, level: Level, line: &str) -> bool {
    let Ok(mut syslog) = syslog.lock() else { return false };
    let end = (0..=MAX_LINE_BYTES.min(line.len())).rev().find(|&end| line.is_char_boundary(end));
    let line = &line[..end.unwrap_or(0)];
    let sent = match level {
        Level::Error => syslog.err(line),
        Level::Warn => syslog.warning(line),
        Level::Info => syslog.info(line),
        Level::Debug | Level::Trace => syslog.debug(line),
    };
    sent.is_ok()
}

fn prefix(level: Level) -> &'static str {
    match level {
        Level::Error => "error: ",
        Level::Warn => "warning: ",
        Level::Info => "",
        Level::Debug | Level::Trace => "debug: ",
    }
}
