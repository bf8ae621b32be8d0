//! A trial of hard links: whether a file system has them, and shows two names of one file with the
//! same inode number.
//!
//! The trial uses a file of this program, so that a refusal comes from the file system and not from
//! a flag of a client's file.

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use crate::engine::baseline::inspect_entry;
use crate::engine::listing::Listing;
use crate::store::dir::{Dir, c_name};
use crate::system::identity::SysResult;

/// Both names end like temporary ones, so that the clean-up removes them if a run was killed.
const FILE: &str = "trial.tmp";
const LINK: &str = "trial-link.tmp";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkTrial {
    /// Hard links work.
    Links,
    /// The file system has no hard links.
    NoLinks,
    /// Hard links work, but inode numbers do not show which names belong to one file.
    NoInodeNumbers,
}

/// Tries in a directory of ours, under the lock of the private directory.
///
/// # Errors
/// If not even a file can be made there.
pub(crate) fn of_links(dir: Dir) -> SysResult<LinkTrial> {
    remove_both(dir);
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    drop(openat(dir.directory, c_name(FILE).as_c_str(), flags, Mode::from_bits_truncate(0o600))?);
    let linked = linkat(
        dir.directory,
        c_name(FILE).as_c_str(),
        dir.directory,
        c_name(LINK).as_c_str(),
        AtFlags::empty(),
    );
    let trial = match linked {
        Ok(()) if are_same(dir) => Ok(LinkTrial::Links),
        Ok(()) => Ok(LinkTrial::NoInodeNumbers),
        Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EMLINK) => {
            Ok(LinkTrial::NoLinks)
        }
        Err(cause) => Err(cause),
    };
    remove_both(dir);
    trial
}

fn remove_both(dir: Dir) {
    for name in [FILE, LINK] {
        // The next trial, or the next run's clean-up, removes what remains.
        let _ = unlinkat(dir.directory, c_name(name).as_c_str(), UnlinkatFlags::NoRemoveDir);
    }
}

/// Whether both names show the same inode number, each time and in the directory's listing, too.
fn are_same(dir: Dir) -> bool {
    let number = |name| inspect_entry(dir.directory, &c_name(name)).ok().map(|inode| inode.number);
    let Some(file) = number(FILE) else { return false };
    // A listing may be too old to have the names.
    let is_listed = |listing: &Listing| {
        let ours = listing.entries().iter().filter(|entry| {
            [FILE, LINK].iter().any(|name| listing.name(entry).to_bytes() == name.as_bytes())
        });
        ours.map(|entry| entry.inode).all(|inode| inode == file)
    };
    number(LINK) == Some(file)
        && Listing::read(dir.directory).is_ok_and(|listing| is_listed(&listing))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_trial_leaves_nothing_and_clears_what_another_left() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join(LINK), "left by a killed run").expect("a file");
        let opened = std::fs::File::open(directory.path()).expect("the directory");
        let dir = Dir { directory: opened.as_fd(), path: directory.path() };
        assert_eq!(of_links(dir), Ok(LinkTrial::Links));
        assert_eq!(std::fs::read_dir(directory.path()).expect("the directory").count(), 0);
    }
}
