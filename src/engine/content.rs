//! Hashes of the contents of files, within bounds of time and bytes.
//!
//! A file can be far larger than what it holds: a hole of 15 TiB takes no space, but days to read.
//! So only data is read, where the file system says that it lies, and a hole is hashed as zeros
//! without reading it. Hashing zeros takes time, too, so a file with larger holes than
//! [`MAX_HOLES_BYTES`] gets no hash.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::fs::SeekFrom;

use crate::engine::baseline::{Inode, inspect_open};
use crate::engine::copied::open_regular;

/// Holes of one file up to this size are hashed: some minutes of work at most.
pub(crate) const MAX_HOLES_BYTES: u64 = 16 << 30;

const BUFFER_BYTES: usize = 256 << 10;

/// How long hashing may take, and how much it may read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HashLimit {
    pub deadline: Option<Instant>,
    /// How many bytes of data may still be read.
    pub bytes: u64,
}

impl HashLimit {
    pub(crate) fn none() -> Self {
        HashLimit { deadline: None, bytes: u64::MAX }
    }

    /// `time` from now, and `bytes` of data.
    pub(crate) fn of(time: Duration, bytes: u64) -> Self {
        HashLimit { deadline: Instant::now().checked_add(time), bytes }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.bytes == 0 || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HashResult {
    /// BLAKE3 of the content.
    Hash([u8; 32]),
    /// The file is not regular, cannot be read, or has changed meanwhile.
    None,
    /// The holes exceed [`MAX_HOLES_BYTES`].
    Holes,
    /// The limit was reached.
    OverLimit,
}

/// Hashes the content of a regular file, unless the name stands for another inode by now, or the
/// file changes while it is read.
pub(crate) fn content_hash(
    directory: BorrowedFd,
    name: &CStr,
    inode: &Inode,
    limit: &mut HashLimit,
) -> HashResult {
    const REGULAR: u32 = 0o100_000;
    if inode.attributes.mode & 0o170_000 != REGULAR {
        return HashResult::None;
    }
    if limit.is_over() {
        return HashResult::OverLimit;
    }
    let Ok(file) = open_regular(directory, name, inode.number) else {
        return HashResult::None;
    };
    let is_same = || {
        inspect_open(file.as_fd())
            .is_ok_and(|now| now.number == inode.number && now.changed == inode.changed)
    };
    if !is_same() {
        return HashResult::None;
    }
    match hash(&file, inode.attributes.size_bytes, limit) {
        HashResult::Hash(_) if !is_same() => HashResult::None,
        content => content,
    }
}

fn hash(file: &File, size: u64, limit: &mut HashLimit) -> HashResult {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut at, mut holes) = (0, 0);
    loop {
        let data = next_data(file, at, size);
        holes += data - at;
        if holes > MAX_HOLES_BYTES {
            return HashResult::Holes;
        }
        if let Err(content) = zeros(&mut hasher, &mut buffer, data - at, limit) {
            return content;
        }
        at = data;
        let end = next_hole(file, at);
        while at < end {
            if limit.is_over() {
                return HashResult::OverLimit;
            }
            let most = (end - at).min(limit.bytes).min(BUFFER_BYTES as u64) as usize;
            match file.read_at(&mut buffer[..most], at) {
                Ok(0) => return HashResult::Hash(*hasher.finalize().as_bytes()),
                Ok(read) => {
                    hasher.update(&buffer[..read]);
                    at += read as u64;
                    limit.bytes -= read as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return HashResult::None,
            }
        }
        if at >= size {
            return HashResult::Hash(*hasher.finalize().as_bytes());
        }
    }
}

fn zeros(
    hasher: &mut blake3::Hasher,
    buffer: &mut [u8],
    mut count: u64,
    limit: &HashLimit,
) -> Result<(), HashResult> {
    if count > 0 {
        buffer.fill(0);
    }
    while count > 0 {
        if limit.is_over() {
            return Err(HashResult::OverLimit);
        }
        let most = count.min(buffer.len() as u64) as usize;
        hasher.update(&buffer[..most]);
        count -= most as u64;
    }
    Ok(())
}

/// Where data begins at or after `at`; the end of the file if only a hole follows.
fn next_data(file: &File, at: u64, size: u64) -> u64 {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) => data.max(at),
        Err(rustix::io::Errno::NXIO) => size.max(at),
        // A file system without SEEK_DATA: all is data.
        Err(_) => at,
    }
}

/// Where the data at `at` ends; the file's end counts as a hole.
fn next_hole(file: &File, at: u64) -> u64 {
    match rustix::fs::seek(file, SeekFrom::Hole(at)) {
        Ok(hole) if hole > at => hole,
        // Beyond the end, or a file system without SEEK_HOLE: the read finds the end.
        _ => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom as Std, Write};

    use super::*;
    use crate::engine::baseline::inspect_entry;

    fn of(directory: &tempfile::TempDir, limit: &mut HashLimit) -> HashResult {
        let opened = File::open(directory.path()).expect("the directory");
        let inode = inspect_entry(opened.as_fd(), c"file").expect("the file");
        content_hash(opened.as_fd(), c"file", &inode, limit)
    }

    fn with_file(parts: &[(u64, &[u8])], size: u64) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        let mut file = File::create(directory.path().join("file")).expect("a file");
        for (at, text) in parts {
            file.seek(Std::Start(*at)).expect("a position");
            file.write_all(text).expect("written");
        }
        file.set_len(size).expect("a size");
        directory
    }

    #[test]
    fn holes_count_as_the_zeros_that_they_read_as() {
        for (parts, size) in [
            (vec![], 0),
            (vec![], 3_000_000),
            (vec![(0, &b"begin"[..])], 5),
            (vec![(0, &b"begin"[..]), (1 << 20, b"middle")], 3 << 20),
            (vec![(2 << 20, &b"end"[..])], (2 << 20) + 3),
        ] {
            let directory = with_file(&parts, size);
            let bytes = std::fs::read(directory.path().join("file")).expect("its bytes");
            let expected = HashResult::Hash(*blake3::hash(&bytes).as_bytes());
            assert_eq!(of(&directory, &mut HashLimit::none()), expected, "{parts:?} {size}");
        }
    }

    #[test]
    fn what_is_too_much_has_no_hash() {
        let hole = with_file(&[(0, b"x")], MAX_HOLES_BYTES + (1 << 20));
        assert_eq!(of(&hole, &mut HashLimit::none()), HashResult::Holes);
        let large = with_file(&[(0, &vec![1; 600_000])], 600_000);
        let mut limit = HashLimit::of(Duration::from_secs(60), 300_000);
        assert_eq!(of(&large, &mut limit), HashResult::OverLimit);
        assert!(limit.is_over());
        assert_eq!(of(&large, &mut HashLimit::of(Duration::ZERO, u64::MAX)), HashResult::OverLimit);
    }
}
