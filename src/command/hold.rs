//! `hold`: runs a command while leases keep snapshots as they are.
//!
//! This process takes the leases and then becomes the command. So the command gets signals, the
//! terminal and the environment as if it had been started by itself, its exit status is the one
//! that the caller sees, and the leases end with the command however that ends. A process that the
//! command has started and that outlives it is not covered. The file of a lease stays until the
//! next reader or rotation removes it.
//!
//! A held snapshot that has no record gets one, as a pinned one does: otherwise nothing would tell
//! that it vanished.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, id};

use nix::sys::stat::{Mode, umask};

use crate::command::named_snapshots::{ModuleAndSnapshots, find_visible};
use crate::module::context::Context;
use crate::module::target::Target;
use crate::store::lease_entry::LeasedSnapshots;
use crate::store::leases::Lease;
use crate::store::pinning;
use crate::store::root::SnapshotRoot;
use crate::system::clock::Clock;
use crate::tell::error::Result;
use crate::tell::escape::escape;

/// The variable that holds the snapshot's directory for the command.
const HELD: &str = "RSYNCD_SNAPSHOT_HELD";

/// What a word of the command may hold in place of a snapshot's directory.
const PLACE: &[u8] = b"{}";

/// As shells report a command that cannot be run, and one that is not found.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Runs the command; returns only if that is not possible. `inherited` is the umask for it.
///
/// # Errors
/// If there is no such snapshot, or no lease can be taken.
pub(crate) fn run(
    context: &Context,
    named: ModuleAndSnapshots,
    words: &[OsString],
    inherited: Mode,
) -> Result<u8> {
    let found = find_visible(context, named)?;
    let Some(program) = words.first() else { return Ok(CANNOT_RUN) };
    let reader = format!("`hold {}` (process {})", escape(program.as_bytes()), id());
    let mut leases = Vec::new();
    let mut directories = Vec::new();
    for (target, name) in &found {
        context.set_level(target);
        let root = target.open_root()?;
        leases.extend(take_lease(target, &root, name, &reader)?);
        directories.push(root.path.join(name).into_os_string());
    }
    let words: Vec<OsString> =
        words.iter().flat_map(|word| put_in_place(word, &directories)).collect();
    let [program, arguments @ ..] = words.as_slice() else { return Ok(CANNOT_RUN) };
    umask(inherited);
    let error =
        Command::new(program).args(arguments).env(HELD, directories.join(OsStr::new("\n"))).exec();
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
