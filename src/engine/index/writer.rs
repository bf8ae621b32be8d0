//! Writes an index file from its records in postorder, and links them: each record is written once,
//! after the records that it leads to.

use std::ffi::CStr;
use std::io::{self, Write};

use crate::engine::index::IndexRecord;
use crate::engine::index::block::{
    BLOCK_BYTES, BlockChecksums, CONTENT_BYTES, RecordLinks, RecordPosition, StoredRecord, header,
};

pub(crate) struct IndexWriter<W> {
    file: W,
    checksums: BlockChecksums,
    /// The number of the block that is being filled.
    number: u32,
    content: Vec<u8>,
    /// The last directory at each depth whose parent is still to come; 0 where there is none.
    last_at: Vec<RecordPosition>,
}

/// Why an index cannot be finished.
#[derive(Debug)]
pub(crate) enum IndexFailure {
    /// The file cannot be written or the draft not be read.
    Io(io::Error),
    /// It would be too large, or the records make no tree: the snapshot gets no index.
    NoIndex,
}

impl From<io::Error> for IndexFailure {
    fn from(error: io::Error) -> Self {
        IndexFailure::Io(error)
    }
}

impl<W: Write> IndexWriter<W> {
    /// Of the snapshot `name`; `file` is empty.
    pub(crate) fn new(file: W, name: &str) -> Self {
        let mut content = Vec::with_capacity(BLOCK_BYTES);
        content.extend(header(name).as_bytes());
        let checksums = BlockChecksums::new(name);
        IndexWriter { file, checksums, number: 0, content, last_at: Vec::new() }
    }

    /// Adds a directory that is `depth` levels below the tree's root. All below it was added
    /// before.
    pub(crate) fn push(
        &mut self,
        depth: u32,
        name: &CStr,
        record: IndexRecord,
    ) -> Result<(), IndexFailure> {
        let depth = depth as usize;
        if self.last_at.len() > depth + 2 {
            return Err(IndexFailure::NoIndex);
        }
        let last_child = if self.last_at.len() == depth + 2 { self.last_at.pop() } else { None };
        self.last_at.resize(depth + 1, 0);
        let links =
            RecordLinks { last_child: last_child.unwrap_or(0), previous: self.last_at[depth] };
        let stored = StoredRecord::new(record, links, name);
        if self.content.len() + stored.encoded_bytes() > CONTENT_BYTES {
            self.content.resize(CONTENT_BYTES, 0);
            self.end_block()?;
        }
        let at = self.number as usize * BLOCK_BYTES + self.content.len();
        self.last_at[depth] = RecordPosition::try_from(at).map_err(|_| IndexFailure::NoIndex)?;
        stored.encode(&mut self.content);
        Ok(())
    }

    /// Writes the rest, once the root was added.
    pub(crate) fn finish(mut self) -> Result<(), IndexFailure> {
        if self.last_at.len() != 1 {
            return Err(IndexFailure::NoIndex);
        }
        Ok(self.end_block()?)
    }

    fn end_block(&mut self) -> io::Result<()> {
        let checksum = self.checksums.of(self.number, &self.content);
        self.content.extend(checksum);
        self.file.write_all(&self.content)?;
        self.content.clear();
        self.number += 1;
        Ok(())
    }
}
