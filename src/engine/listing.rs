//! The entries of one directory, read with a large buffer, as many at a time as memory allows.
//!
//! The caller acts after a whole stretch has been read. So the list is stable while a client
//! renames within the directory, and the caller can take the entries in the order of their inodes.
//! Names lie in one arena, which is used again for the next directory. A directory of millions is
//! read in several stretches, so it takes no more memory than any other.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use rustix::fs::{FileType, RawDir};

use crate::system::identity::SysResult;
use crate::system::syscalls::stat_entry;

/// A read into this buffer returns about a thousand entries.
const BUFFER_BYTES: usize = 64 * 1024;

/// The same for a directory that is read alone: most of ours have few entries.
const ONE_READ_BYTES: usize = 16 * 1024;

/// The size of a stretch: some 250,000 entries with short names. Each of the few workers holds up
/// to two of them. A directory is linked fastest in one stretch, since its inodes then follow each
/// other: 200,000 files took 7.0 s in stretches of 128 KiB, 4.6 s in 2 MiB and 4.3 s in 8 MiB.
const STRETCH_BYTES: usize = 8 << 20;

/// An entry; its name is in the [`Listing`] that it came from.
#[derive(Debug, Clone, Copy)]
pub struct ListingEntry {
    /// Of a mount point, the inode number of the directory beneath.
    pub inode: u64,
    name_start: u32,
    pub is_directory: bool,
}

/// Entries of one directory, without `.` and `..`.
#[derive(Default)]
pub struct Listing {
    names: Vec<u8>,
    entries: Vec<ListingEntry>,
    buffer: Vec<MaybeUninit<u8>>,
    is_whole: bool,
}

/// A copy of the entries of a whole directory.
pub(crate) struct CachedListing {
    names: Box<[u8]>,
    entries: Box<[ListingEntry]>,
}

impl Listing {
    /// Reads all of `directory` from its start, however large it is.
    pub fn read(directory: BorrowedFd) -> SysResult<Self> {
        Self::rewind(directory)?;
        let mut listing = Listing::default();
        // The buffer is not used again, so it needs no allocation.
        listing.fill(directory, &mut [MaybeUninit::uninit(); ONE_READ_BYTES], usize::MAX)?;
        Ok(listing)
    }

    /// Reads the first stretch of `directory`, which was just opened or rewound.
    pub fn read_first(&mut self, directory: BorrowedFd) -> SysResult<()> {
        self.read_up_to(directory, STRETCH_BYTES)?;
        Ok(())
    }

    /// Reads the next stretch; false if there was none left.
    pub fn read_next(&mut self, directory: BorrowedFd) -> SysResult<bool> {
        if self.is_whole {
            return Ok(false);
        }
        self.read_up_to(directory, STRETCH_BYTES)?;
        Ok(!self.entries.is_empty())
    }

    /// Sets the position of all reads of this descriptor to the start.
    pub fn rewind(directory: BorrowedFd) -> SysResult<()> {
        rustix::fs::seek(directory, rustix::fs::SeekFrom::Start(0)).map(drop).map_err(errno)
    }

    /// A copy of the entries of the last stretch.
    pub(crate) fn to_cached(&self) -> CachedListing {
        CachedListing {
            names: self.names.as_slice().into(),
            entries: self.entries.as_slice().into(),
        }
    }

    /// Holds the entries of `cached` instead of those read last, as a whole directory.
    pub(crate) fn restore(&mut self, cached: &CachedListing) {
        self.names.clear();
        self.names.extend_from_slice(&cached.names);
        self.entries.clear();
        self.entries.extend_from_slice(&cached.entries);
        self.is_whole = true;
    }

    /// Whether the last read has come to the directory's end.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    fn read_up_to(&mut self, directory: BorrowedFd, bytes: usize) -> SysResult<()> {
        self.names.clear();
        self.entries.clear();
        self.is_whole = false;
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.is_empty() {
            buffer = Box::new_uninit_slice(BUFFER_BYTES).into_vec();
        }
        let read = self.fill(directory, &mut buffer, bytes);
        self.buffer = buffer;
        read
    }

    fn fill(
        &mut self,
        directory: BorrowedFd,
        buffer: &mut [MaybeUninit<u8>],
        bytes: usize,
    ) -> SysResult<()> {
        let mut raw = RawDir::new(directory, buffer);
        // Entries left in the buffer would be lost, so a stretch ends with the buffer.
        while !raw.is_buffer_empty() || self.size_bytes() < bytes {
            let Some(entry) = raw.next() else {
                self.is_whole = true;
                return Ok(());
            };
            let entry = match entry.map_err(errno) {
                Err(Errno::EINTR) => continue,
                // The directory was removed since it was opened, and is empty.
                Err(Errno::ENOENT) => {
                    self.is_whole = true;
                    return Ok(());
                }
                entry => entry?,
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let is_directory = match entry.file_type() {
                FileType::Directory => true,
                FileType::Unknown => match stat_entry(directory, name) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
                    Err(Errno::ENOENT) => continue,
                    // A mount point. Entering it fails with EXDEV again.
                    Err(Errno::EXDEV) => true,
                    Err(error) => return Err(error),
                },
                _ => false,
            };
            let name_start = u32::try_from(self.names.len()).map_err(|_| Errno::EOVERFLOW)?;
            self.entries.push(ListingEntry { inode: entry.ino(), name_start, is_directory });
            self.names.extend_from_slice(name.to_bytes_with_nul());
        }
        Ok(())
    }

    /// What the last stretch takes in memory.
    pub(crate) fn size_bytes(&self) -> usize {
        self.names.len() + self.entries.len() * size_of::<ListingEntry>()
    }

    /// The entries of the last stretch, in the directory's own order unless sorted.
    pub fn entries(&self) -> &[ListingEntry] {
        &self.entries
    }

    /// The name of one of this listing's entries.
    pub fn name(&self, entry: &ListingEntry) -> &CStr {
        // Every name was stored with its NUL, so the default is never taken.
        CStr::from_bytes_until_nul(&self.names[entry.name_start as usize..]).unwrap_or_default()
    }

    /// Sorts the entries by inode number: the order in which a large directory's inodes lie on
    /// the disk and in memory.
    pub fn sort_by_inode(&mut self) {
        self.entries.sort_unstable_by_key(|entry| entry.inode);
    }
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}
