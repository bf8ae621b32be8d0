//! Logs to syslog in a hook of rsyncd, and to standard error in a command.
//!
//! Hooks have no useful standard error, and a container may have no syslog. Neither may fail a
//! backup. So a hook logs to syslog if its socket exists, and else to standard error. Warnings and
//! errors go to standard error in any case, unless that is the journal, which has them from syslog
//! already.
//!
//! A hook, and a command that works on many modules, names the module in each line. It does so once
//! with [`set_subject`], so the layers below need not.

use std::borrow::Cow;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use log::{Level, LevelFilter, Log, Metadata, Record};
use syslog::{Facility, Formatter3164, LoggerBackend};

use crate::tell::escape::one_line;
use crate::tell::progress;

type Syslog = syslog::Logger<LoggerBackend, Formatter3164>;

struct Logger {
    ident: &'static str,
    syslog: Option<Mutex<Syslog>>,
    /// Whether the journal reads standard error.
    is_in_journal: bool,
}

/// The module for lines that do not begin with one.
static SUBJECT: Mutex<Option<String>> = Mutex::new(None);

/// Whether a warning or an error was logged.
static HAS_WARNED: AtomicBool = AtomicBool::new(false);

/// Whether this process has logged a warning or an error, so that it must not end with status 0.
pub(crate) fn has_warned() -> bool {
    HAS_WARNED.load(Ordering::Relaxed)
}

/// From now on each line names the module `label`, unless it does so already.
pub(crate) fn set_subject(label: Option<String>) {
    if let Ok(mut subject) = SUBJECT.lock() {
        *subject = label;
    }
}

fn with_subject<'a>(subject: Option<&str>, text: &'a str) -> Cow<'a, str> {
    let is_named =
        |subject: &&str| text.strip_prefix(*subject).is_some_and(|rest| rest.starts_with(':'));
    match subject.filter(|subject| !is_named(subject)) {
        Some(subject) => Cow::Owned(format!("{subject}: {text}")),
        None => Cow::Borrowed(text),
    }
}

/// Starts logging at `level`; `to_syslog` in a hook.
pub fn start(to_syslog: bool, level: LevelFilter) {
    start_as(crate::tell::PROGRAM, to_syslog, level);
}

/// [`start`] for a program of another name.
pub(crate) fn start_as(ident: &'static str, to_syslog: bool, level: LevelFilter) {
    let syslog = if to_syslog { connect(ident) } else { None };
    // Setting it fails only if a logger was set before; that one stays.
    let logger = Logger {
        ident,
        syslog: syslog.map(Mutex::new),
        is_in_journal: is_journal(std::io::stderr()),
    };
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level);
    }
}

/// Whether `output` is the stream to the journal that systemd names in `JOURNAL_STREAM`. The
/// variable is inherited, so only the device and inode in it prove something.
fn is_journal(output: impl std::os::fd::AsFd) -> bool {
    let named = std::env::var_os("JOURNAL_STREAM");
    let found = rustix::fs::fstat(output).map(|stat| format!("{}:{}", stat.st_dev, stat.st_ino));
    named.zip(found.ok()).is_some_and(|(named, found)| named.as_bytes() == found.as_bytes())
}

fn connect(ident: &str) -> Option<Syslog> {
    let formatter = Formatter3164 {
        facility: Facility::LOG_DAEMON,
        hostname: None,
        process: ident.to_string(),
        pid: std::process::id(),
    };
    // `unix` tries local sockets only; `init` would also try the network.
    syslog::unix(formatter).ok()
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= log::max_level()
            && metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        if record.level() <= Level::Warn {
            HAS_WARNED.store(true, Ordering::Relaxed);
        }
        let text = record.args().to_string();
        let subject = SUBJECT.lock().ok().and_then(|subject| subject.clone());
        let text = with_subject(subject.as_deref(), &text);
        let line = one_line(&text);
        let sent = self.syslog.as_ref().is_some_and(|syslog| send(syslog, record.level(), &line));
        if !sent || record.level() <= Level::Warn && !self.is_in_journal {
            // If standard error is closed, no output is left to report that to.
            let ident = self.ident;
            let _ = progress::pause(|| {
                writeln!(std::io::stderr(), "{ident}: {}{line}", prefix(record.level()))
            });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_its_module_once() {
        for (subject, text, expected) in [
            (None, "cannot read a", "cannot read a"),
            (Some("laptop"), "cannot read a", "laptop: cannot read a"),
            (Some("laptop"), "laptop: cannot read a", "laptop: cannot read a"),
            (Some("lap"), "laptop: cannot read a", "lap: laptop: cannot read a"),
            (Some("laptop"), "laptop", "laptop: laptop"),
        ] {
            assert_eq!(with_subject(subject, text), expected);
        }
    }
}
