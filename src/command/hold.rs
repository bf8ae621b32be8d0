//! `hold`: runs a command while a lease keeps a snapshot as it is.
//!
//! This process takes the lease and then becomes the command. So the command gets signals, the
//! terminal and the environment as if it had been started by itself, its exit status is the one
//! that the caller sees, and the lease ends with the command however that ends. A process that the
//! command has started and that outlives it is not covered. The file of the lease stays until the
//! next reader or rotation removes it.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, id};

use nix::sys::stat::{Mode, umask};

use crate::command::named_snapshots::{ModuleAndSnapshots, find_visible};
use crate::module::context::Context;
use crate::store::lease_entry::LeasedSnapshots;
use crate::store::leases::Lease;
use crate::system::clock::Clock;
use crate::tell::error::Result;
use crate::tell::escape::escape;

/// The variable that holds the snapshot's directory for the command.
const HELD: &str = "RSYNCD_SNAPSHOT_HELD";

/// What a word of the command may hold in place of the snapshot's directory.
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
    let (target, name) = &find_visible(context, named)?;
    context.set_level(target);
    let root = target.open_root()?;
    let [program, arguments @ ..] = words else { return Ok(CANNOT_RUN) };
    let reader = format!("`hold {}` (process {})", escape(program.as_bytes()), id());
    let lease = match Lease::take(&root, LeasedSnapshots::one(name), &reader, &Clock::System) {
        Err(error) if error.is_read_only() => {
            log::warn!(
                "no lease on {name}, since its disk is read-only here ({error}); the command runs, \
                 and a machine that can write to that disk may still remove the snapshot"
            );
            None
        }
        taken => Some(taken?),
    };
    let directory = root.path.join(name);
    let with_directory = |word: &OsString| put_in_place(word, directory.as_os_str());
    umask(inherited);
    let error = Command::new(with_directory(program))
        .args(arguments.iter().map(with_directory))
        .env(HELD, &directory)
        .exec();
    // The command was not run.
    if let Some(Err(error)) = lease.map(Lease::end) {
        log::debug!("the lease could not be removed, and lasts until this process ends: {error}");
    }
    log::error!("cannot run {}: {error}", escape(program.as_bytes()));
    Ok(if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN })
}

/// `word` with `directory` for each `{}`.
fn put_in_place(word: &OsStr, directory: &OsStr) -> OsString {
    let mut put = Vec::new();
    let mut rest = word.as_bytes();
    while let Some(at) = rest.windows(PLACE.len()).position(|part| part == PLACE) {
        put.extend_from_slice(&rest[..at]);
        put.extend_from_slice(directory.as_bytes());
        rest = &rest[at + PLACE.len()..];
    }
    put.extend_from_slice(rest);
    OsString::from_vec(put)
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
            assert_eq!(put_in_place(OsStr::new(word), OsStr::new("/b/S")), expected, "{word}");
        }
    }
}
