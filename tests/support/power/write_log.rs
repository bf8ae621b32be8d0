//! The log of a disk, and the states that the disk may have after a power cut.
//!
//! The model is that of a disk with a volatile cache: what was written before the last flush that
//! ended is there. Of what came later any part may be, in any order, down to the smallest unit that
//! the disk writes as a whole.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::support::random::Random;

/// The grain in which an image is held; blocks that hold nothing but zeros are left out.
const BLOCK: usize = 4096;

pub(crate) enum Event {
    Write { offset: usize, bytes: Vec<u8> },
    Flush,
}

/// The content of a disk.
#[derive(Clone)]
pub(crate) struct Image {
    length: usize,
    blocks: BTreeMap<usize, Vec<u8>>,
}

impl Image {
    pub(crate) fn read(path: &Path) -> Image {
        let bytes = fs::read(path).expect("an image");
        let mut image = Image { length: bytes.len(), blocks: BTreeMap::new() };
        for (index, block) in bytes.chunks(BLOCK).enumerate() {
            if block.iter().any(|byte| *byte != 0) {
                image.write(index * BLOCK, block);
            }
        }
        image
    }

    pub(crate) fn length(&self) -> usize {
        self.length
    }

    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        for piece in pieces(offset, bytes, BLOCK) {
            let (offset, bytes) = piece;
            let block = self.blocks.entry(offset / BLOCK).or_insert_with(|| vec![0; BLOCK]);
            block[offset % BLOCK..][..bytes.len()].copy_from_slice(bytes);
        }
    }

    pub(crate) fn bytes_at(&self, offset: usize, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count);
        let end = (offset + count).min(self.length);
        let mut at = offset;
        while at < end {
            let next = end.min((at / BLOCK + 1) * BLOCK);
            match self.blocks.get(&(at / BLOCK)) {
                Some(block) => bytes.extend_from_slice(&block[at % BLOCK..][..next - at]),
                None => bytes.resize(bytes.len() + (next - at), 0),
            }
            at = next;
        }
        bytes
    }

    pub(crate) fn save(&self, path: &Path) {
        let file = File::create(path).expect("an image file");
        file.set_len(self.length as u64).expect("room");
        for (index, block) in &self.blocks {
            file.write_all_at(block, (index * BLOCK) as u64).expect("room");
        }
    }
}

/// `bytes` cut at the multiples of `unit`.
fn pieces(offset: usize, bytes: &[u8], unit: usize) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        at = bytes.len().min(((offset + start) / unit + 1) * unit - offset);
        (start < at).then(|| (offset + start, &bytes[start..at]))
    })
}

/// The states that power cuts leave, in the order of time.
pub(crate) struct Replay<'a> {
    events: &'a [Event],
    /// The durable part.
    image: Image,
    flushed: usize,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(before: Image, events: &'a [Event]) -> Replay<'a> {
        Replay { events, image: before, flushed: 0 }
    }

    /// What the disk may hold when the power goes after the first `position` events, which must not
    /// be fewer than the last time. It writes `unit` bytes as a whole.
    pub(crate) fn cut(&mut self, position: usize, unit: usize, random: &mut Random) -> Image {
        let is_flush = |event: &Event| matches!(event, Event::Flush);
        let flushed =
            self.events[..position].iter().rposition(is_flush).map_or(0, |flush| flush + 1);
        for event in &self.events[self.flushed..flushed] {
            if let Event::Write { offset, bytes } = event {
                self.image.write(*offset, bytes);
            }
        }
        self.flushed = flushed;
        let mut cached: Vec<(usize, &[u8])> = Vec::new();
        for event in &self.events[flushed..position] {
            if let Event::Write { offset, bytes } = event {
                cached.extend(pieces(*offset, bytes, unit));
            }
        }
        // Half of it as a rule; now and then nothing or all.
        let quarters = [2, 2, 2, 1, 3, 0, 4][random.below(7)];
        cached.retain(|_| random.below(4) < quarters);
        for last in (1..cached.len()).rev() {
            cached.swap(last, random.below(last + 1));
        }
        let mut image = self.image.clone();
        cached.into_iter().for_each(|(offset, bytes)| image.write(offset, bytes));
        image
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_flushed_survives_every_cut() {
        let write = |offset, byte, count| Event::Write { offset, bytes: vec![byte; count] };
        let events =
            [write(0, b'a', 8192), Event::Flush, write(512, b'b', 1024), write(9000, b'c', 10)];
        let before = Image { length: 16384, blocks: BTreeMap::new() };
        let mut random = Random::new(1);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..200 {
            let mut replay = Replay::new(before.clone(), &events);
            assert!(replay.cut(0, 512, &mut random).blocks.is_empty());
            assert_eq!(replay.cut(2, 512, &mut random).bytes_at(0, 8192), [b'a'; 8192]);
            let image = replay.cut(4, 512, &mut random);
            assert_eq!(image.bytes_at(1536, 6656), [b'a'; 6656]);
            let first = |offset| image.bytes_at(offset, 1)[0];
            seen.insert([first(512), first(1024), first(9000)]);
            assert_eq!(image.bytes_at(512, 512), [first(512); 512], "a torn unit");
        }
        assert_eq!(seen.len(), 8, "{seen:?}");
    }
}
