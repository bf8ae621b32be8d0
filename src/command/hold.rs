//! `hold`: runs a command while leases keep snapshots as they are.
//!
//! Two processes do that. The first starts the second, and passes signals on to it. The second
//! takes the leases and then becomes the command, so the leases end with the command however that
//! ends. A process that the command has started and that outlives it is not covered. The file of a
//! lease stays until the next reader or rotation removes it.
//!
//! The first process ends as the command did. If that ended well, it looks whether the snapshots
//! are still there: a lease keeps this program from retiring them, but no other one. If the first
//! process is killed, the kernel ends the command.
//!
//! A held snapshot that has no record gets one, as a pinned one does: otherwise nothing would tell
//! that it vanished.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, id};

use nix::sys::stat::{Mode, umask};
use rustix::process::{Signal, set_parent_process_death_signal};
use signal_hook::low_level::emulate_default_handler;

use crate::command::named_snapshots::{ModuleAndSnapshots, find_visible};
use crate::module::context::Context;
use crate::module::target::Target;
use crate::run::restore_source::SnapshotSource;
use crate::store::lease_entry::LeasedSnapshots;
use crate::store::leases::Lease;
use crate::store::pinning;
use crate::store::root::SnapshotRoot;
use crate::system::clock::Clock;
use crate::system::passed_signals::run_passing_signals;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path};
use crate::tell::exit::Exit;

/// The variable that holds the snapshot's directory for the command.
const HELD: &str = "RSYNCD_SNAPSHOT_HELD";

/// What a word of the command may hold in place of a snapshot's directory.
const PLACE: &[u8] = b"{}";

/// As shells report a command that cannot be run, and one that is not found.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// This program, even if its file was replaced meanwhile.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Set in the second process: the names of the snapshots that the first has found, one a line. A
/// word such as `newest` may mean another one by now.
const FOUND: &str = "RSYNCD_SNAPSHOT_HOLD_FOUND";

/// Runs the command, and returns its exit status, or a failure if that is 0 and a snapshot was
/// removed or moved meanwhile. `inherited` is the umask for the command.
///
/// # Errors
/// If there is no such snapshot, or no lease can be taken.
pub(crate) fn run(
    context: &Context,
    named: ModuleAndSnapshots,
    words: &[OsString],
    inherited: Mode,
) -> Result<u8> {
    let mut found = find_visible(context, named)?;
    if let Ok(names) = std::env::var(FOUND) {
        for ((_, name), known) in found.iter_mut().zip(names.lines()) {
            *name = known.to_string();
        }
        return become_command(context, &found, words, inherited);
    }
    let sources = found.iter().map(|(target, name)| SnapshotSource::open(&target.root_path, name));
    let sources = sources.collect::<Result<Vec<_>>>()?;
    umask(inherited);
    let mut second = Command::new(OWN_PROGRAM);
    let names: Vec<&str> = found.iter().map(|(_, name)| name.as_str()).collect();
    second.args(std::env::args_os().skip(1)).env(FOUND, names.join("\n"));
    let failed = |cause| Error::io("run", Path::new(OWN_PROGRAM), cause);
    let status = run_passing_signals(&mut second).map_err(failed)?;
    let status = status.code().map_or_else(
        || die_by(status.signal().unwrap_or(0)),
        |code| u8::try_from(code).unwrap_or(u8::MAX),
    );
    let gone = |source: &&SnapshotSource| !source.is_still_there();
    match sources.iter().find(gone).filter(|_| status == 0) {
        None => Ok(status),
        Some(source) => {
            log::error!(
                "{} was removed or moved while the command read it, although it was held: what the \
                 command has read may be incomplete. Repeat it with a snapshot that `list` shows, \
                 and delete snapshots by `expire`, which waits for readers",
                escape_path(&source.path())
            );
            Ok(Exit::Failed.code())
        }
    }
}

/// Ends this process by the signal that ended the command. Returns the status that a shell reports
/// for it, if the signal does not end this process.
fn die_by(signal: i32) -> u8 {
    const BY_SIGNAL: i32 = 128;
    let _ = emulate_default_handler(signal);
    u8::try_from(BY_SIGNAL + signal).unwrap_or(u8::MAX)
}

/// The second process: takes the leases and becomes the command; returns only if that is not
/// possible.
fn become_command(
    context: &Context,
    found: &[(Target, String)],
    words: &[OsString],
    inherited: Mode,
) -> Result<u8> {
    // The first process was killed, and nothing else is going to look after this one.
    if let Err(cause) = set_parent_process_death_signal(Some(Signal::TERM)) {
        log::debug!("the command goes on if `hold` is killed: {cause}");
    }
    let Some(program) = words.first() else { return Ok(CANNOT_RUN) };
    let reader = format!("`hold {}` (process {})", escape(program.as_bytes()), id());
    let mut leases = Vec::new();
    let mut directories = Vec::new();
    for (target, name) in found {
        context.set_level(target);
        let root = target.open_root()?;
        leases.extend(take_lease(target, &root, name, &reader)?);
        directories.push(root.visible(name).path().into_os_string());
    }
    let words: Vec<OsString> =
        words.iter().flat_map(|word| put_in_place(word, &directories)).collect();
    let [program, arguments @ ..] = words.as_slice() else { return Ok(CANNOT_RUN) };
    umask(inherited);
    let error = Command::new(program)
        .args(arguments)
        .env(HELD, directories.join(OsStr::new("\n")))
        .env_remove(FOUND)
        .exec();
    // The command was not run.
    for lease in leases {
        if let Err(error) = lease.end() {
            log::debug!("a lease could not be removed, and lasts until this process ends: {error}");
        }
    }
    log::error!("cannot run {}: {error}", escape(program.as_bytes()));
    Ok(if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN })
}

/// A lease on the snapshot; none on a read-only disk.
fn take_lease(
    target: &Target,
    root: &SnapshotRoot,
    name: &str,
    reader: &str,
) -> Result<Option<Lease>> {
    let lease = match Lease::take(root, LeasedSnapshots::one(name), reader, &Clock::System) {
        Err(error) if error.is_read_only() => {
            log::warn!(
                "no lease on {name}, since its disk is read-only here ({error}); the command runs, \
                 and a machine that can write to that disk may still remove the snapshot"
            );
            return Ok(None);
        }
        taken => taken?,
    };
    if let Err(error) = pinning::record_visible(root, &target.policy.time_zone, name) {
        log::info!("{name} is held, but has no record: {error}");
    }
    Ok(Some(lease))
}

/// `word` with a directory for each `{}`; of several directories, once for each.
fn put_in_place(word: &OsStr, directories: &[OsString]) -> Vec<OsString> {
    let bytes = word.as_bytes();
    let parts: Vec<&[u8]> = parts_around(bytes);
    match parts.len() {
        1 => vec![word.to_os_string()],
        _ => directories
            .iter()
            .map(|directory| OsString::from_vec(parts.join(directory.as_bytes())))
            .collect(),
    }
}

/// The parts of a word before, between and after each `{}`.
fn parts_around(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some(at) = rest.windows(PLACE.len()).position(|part| part == PLACE) {
        parts.push(&rest[..at]);
        rest = &rest[at + PLACE.len()..];
    }
    parts.push(rest);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_takes_the_place_of_each_pair_of_braces() {
        for (word, expected) in [
            ("{}", "/b/S"),
            ("{}/etc:{}", "/b/S/etc:/b/S"),
            ("{ }", "{ }"),
            ("{{}}", "{/b/S}"),
            ("", ""),
            ("-a", "-a"),
        ] {
            let directories = [OsString::from("/b/S")];
            assert_eq!(put_in_place(OsStr::new(word), &directories), [expected], "{word}");
        }
    }

    #[test]
    fn a_word_is_repeated_for_each_directory() {
        let directories = ["/b/S", "/b/T"].map(OsString::from);
        for (word, expected) in [
            ("{}/etc", &["/b/S/etc", "/b/T/etc"][..]),
            ("{}:{}", &["/b/S:/b/S", "/b/T:/b/T"]),
            ("-r", &["-r"]),
        ] {
            assert_eq!(put_in_place(OsStr::new(word), &directories), expected, "{word}");
        }
    }
}
