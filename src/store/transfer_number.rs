//! The numbers that order the ledger's entries. They only grow, whichever machine serves a
//! transfer.
//!
//! The last number is in a file of its own, which is written in place and not synced, so that a
//! push waits for the disk only once, for its entry. If a crash undoes a write, the number is still
//! in an entry or in the torn mark, which are durable, and the next number is higher than those.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::store::dir::{Dir, c_name};
use crate::tell::error::{Error, Result};

const FILE: &str = "transfers";

/// The next number: greater than the last one that was given, and than `highest`, the highest that
/// is in use. For a caller who holds the ledger's lock.
pub(crate) fn next(dir: Dir, highest: u64) -> Result<u64> {
    let failed = |cause: std::io::Error| Error::io("count in", &dir.path.join(FILE), cause);
    let flags =
        OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let opened =
        openat(dir.directory, c_name(FILE).as_c_str(), flags, Mode::from_bits_truncate(0o600));
    let file = File::from(opened.map_err(|cause| failed(cause.into()))?);
    let mut text = Vec::new();
    (&file).take(64).read_to_end(&mut text).map_err(failed)?;
    let next = last(&text).max(highest).saturating_add(1);
    // The text always has the same length, so it overwrites the old number as a whole.
    file.write_all_at(format!("{next:020}\n").as_bytes(), 0).map_err(failed)?;
    Ok(next)
}

fn last(text: &[u8]) -> u64 {
    std::str::from_utf8(text).ok().and_then(|text| text.trim_end().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn numbers_grow_whatever_the_file_says() {
        let directory = tempfile::tempdir().expect("a directory");
        let opened = File::open(directory.path()).expect("opened");
        let dir = Dir { directory: opened.as_fd(), path: directory.path() };
        assert_eq!(next(dir, 0).expect("a number"), 1);
        assert_eq!(next(dir, 0).expect("a number"), 2);
        assert_eq!(next(dir, 41).expect("a number"), 42);
        assert_eq!(next(dir, 0).expect("a number"), 43);
        for garbage in ["", "x", "-1", "99999999999999999999999\n"] {
            fs::write(directory.path().join(FILE), garbage).expect("written");
            assert_eq!(next(dir, 7).expect("a number"), 8, "{garbage}");
        }
    }
}
