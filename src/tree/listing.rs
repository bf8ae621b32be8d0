//! The entries of one directory, read at once with a large buffer.
//!
//! Reading everything before acting on anything keeps the list stable while a client renames
//! within the directory. Names lie in one arena: a million of them are two allocations.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use rustix::fs::{FileType, RawDir};

use super::syscalls::{Answer, stat_entry};

/// A read of this size returns about a thousand entries per call.
const BUFFER_BYTES: usize = 64 * 1024;

/// One entry; its name is in the [`Listing`] it came from.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    name_start: usize,
    /// Inode number; of a mount point, that of the directory beneath.
    pub inode: u64,
    /// Whether it is a directory, as opposed to anything else.
    pub is_directory: bool,
}

/// The entries of one directory, without `.` and `..`.
#[derive(Debug, Default)]
pub struct Listing {
    names: Vec<u8>,
    entries: Vec<Entry>,
}

impl Listing {
    /// Reads `directory` from its start.
    pub fn read(directory: BorrowedFd) -> Answer<Self> {
        // The descriptor's position is shared by all reads of it.
        rustix::fs::seek(directory, rustix::fs::SeekFrom::Start(0)).map_err(errno)?;
        let mut buffer = Box::<[u8]>::new_uninit_slice(BUFFER_BYTES);
        let mut listing = Listing::default();
        listing.fill(directory, &mut buffer)?;
        Ok(listing)
    }

    fn fill(&mut self, directory: BorrowedFd, buffer: &mut [MaybeUninit<u8>]) -> Answer<()> {
        let mut raw = RawDir::new(directory, buffer);
        while let Some(entry) = raw.next() {
            let entry = entry.map_err(errno)?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let is_directory = match entry.file_type() {
                FileType::Directory => true,
                FileType::Unknown => match stat_entry(directory, name) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
                    Err(Errno::ENOENT) => continue,
                    Err(error) => return Err(error),
                },
                _ => false,
            };
            self.entries.push(Entry { name_start: self.names.len(), inode: entry.ino(), is_directory });
            self.names.extend_from_slice(name.to_bytes_with_nul());
        }
        Ok(())
    }

    /// The entries, in the directory's own order unless sorted.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The name of one of this listing's entries.
    pub fn name(&self, entry: &Entry) -> &CStr {
        // Every name was stored with its NUL, so the default is never taken.
        CStr::from_bytes_until_nul(&self.names[entry.name_start..]).unwrap_or_default()
    }

    /// Sorts the entries by name.
    pub fn sort(&mut self) {
        let names = &self.names;
        let name = |entry: &Entry| CStr::from_bytes_until_nul(&names[entry.name_start..]).unwrap_or_default();
        self.entries.sort_unstable_by(|a, b| name(a).cmp(name(b)));
    }
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}
