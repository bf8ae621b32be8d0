//! Finds out whether other modules of this machine have their snapshots on the same file system.
//!
//! It reads the kernel's mount table, because a system call on another file system may wait for a
//! server.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::store::layout::PRIVATE;
use crate::store::memory::MachineMemory;
use crate::system::small_file;

/// Whether a module other than that at `module_path` has a snapshot root on the file system of
/// `root`.
pub(crate) fn shares_disk(memory: &MachineMemory, module_path: &Path, root: &Path) -> bool {
    let Ok(table) = small_file::read("/proc/self/mountinfo") else { return false };
    let own = device_of(&table, root);
    let is_there = |other: &PathBuf| fs::symlink_metadata(other.join(PRIVATE)).is_ok();
    own.is_some()
        && memory
            .roots_of_others(module_path)
            .iter()
            .any(|other| other != root && device_of(&table, other) == own && is_there(other))
}

/// The device of the mount that `path` is on, by the mount table.
fn device_of<'a>(table: &'a [u8], path: &Path) -> Option<&'a [u8]> {
    let mounts = table.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let (device, mount_point) = (fields.nth(2)?, fields.nth(1)?);
        let mount_point = PathBuf::from(OsString::from_vec(unescape(mount_point)));
        path.starts_with(&mount_point).then_some((mount_point.components().count(), device))
    });
    // Of two mounts at the same path the later one hides the earlier one.
    mounts.max_by_key(|(depth, _)| *depth).map(|(_, device)| device)
}

/// The kernel writes blanks and the like as a backslash and three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match digits {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_says_the_device() {
        let table = b"20 1 8:1 / / rw - ext4 /dev/a rw\n21 20 8:2 / /srv rw - ext4 /dev/b rw\n\
                      22 21 8:3 / /srv/with\\040blank rw - ext4 /dev/c rw\n\
                      23 21 8:4 / /srv/with\\040blank rw - ext4 /dev/d rw\n";
        for (path, device) in
            [("/etc", "8:1"), ("/srv/b", "8:2"), ("/srvx", "8:1"), ("/srv/with blank/x", "8:4")]
        {
            assert_eq!(device_of(table, Path::new(path)), Some(device.as_bytes()), "{path}");
        }
    }
}
