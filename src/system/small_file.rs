//! Reads small files with few system calls.
//!
//! A hook reads dozens of small files. std begins with 32 bytes and doubles that where it does not
//! know the size, as in `/proc`, and asks for size and position where it does.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Most small files fit into this, so one call reads such a file and a second one finds its end.
const FIRST_READ_BYTES: usize = 4_096;

/// More than any small file of the system holds.
const MAX_BYTES: u64 = 64 << 20;

/// The content of the small file at `path`.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    read_opened(&File::open(path)?, MAX_BYTES)
}

/// [`read()`] for text.
pub(crate) fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(io::Error::other)
}

/// The first `max_bytes` of what follows in `file`.
pub(crate) fn read_opened(file: &File, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(FIRST_READ_BYTES);
    file.take(max_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_or_up_to_the_limit() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        for size in [0, 1, FIRST_READ_BYTES - 1, FIRST_READ_BYTES, 3 * FIRST_READ_BYTES + 1] {
            let content = vec![b'x'; size];
            std::fs::write(&path, &content).expect("written");
            assert_eq!(read(&path).expect("read"), content);
            let file = File::open(&path).expect("opened");
            let limit = FIRST_READ_BYTES + 7;
            let first = read_opened(&file, limit as u64).expect("read");
            assert_eq!(first.len(), size.min(limit));
        }
    }
}
