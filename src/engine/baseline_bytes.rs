//! Baselines as bytes: little-endian, each with its length in front.

use std::collections::BTreeMap;
use std::ffi::CString;

use crate::decide::damage::{FileTime, InodeAttributes, InodeXattrs};
use crate::engine::baseline::{Baseline, BaselineOrigin, Inode};

/// Baselines are handed over in blocks of about this size.
pub(crate) const BLOCK_BYTES: usize = 64 << 10;

const FOUND: u8 = 0x10;
const NONE: u8 = 0;
const ALL: u8 = 1;
const DIGEST: u8 = 2;
const UNKNOWN: u8 = 3;

const LENGTH_BYTES: usize = 2;

/// Where the inode number lies in a baseline's bytes.
const NUMBER_AT: usize = LENGTH_BYTES + 1;

impl Baseline {
    /// Appends the baseline to `bytes`.
    pub fn write(&self, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        let Inode { number, birth_ns, accessed_seconds, attributes, .. } = &self.inode;
        let InodeAttributes { mode, uid, gid, size_bytes, modified, device, xattrs } = attributes;
        bytes.extend([0; LENGTH_BYTES]);
        let kind = match xattrs {
            InodeXattrs::All(xattrs) if xattrs.is_empty() => NONE,
            InodeXattrs::All(_) => ALL,
            InodeXattrs::Digest(_) => DIGEST,
            InodeXattrs::Unknown => UNKNOWN,
        };
        bytes.push(kind | if self.origin == BaselineOrigin::Found { FOUND } else { 0 });
        bytes.extend(number.to_le_bytes());
        bytes.extend(birth_ns.to_le_bytes());
        for number in [*mode, *uid, *gid] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(size_bytes.to_le_bytes());
        for time in [*modified, self.touched] {
            bytes.extend(time.seconds.to_le_bytes());
            bytes.extend(time.nanoseconds.to_le_bytes());
        }
        bytes.extend(accessed_seconds.to_le_bytes());
        bytes.extend(device.to_le_bytes());
        match xattrs {
            InodeXattrs::All(xattrs) => {
                for (name, value) in xattrs {
                    bytes.extend(name.as_bytes_with_nul());
                    bytes.extend((value.len() as u16).to_le_bytes());
                    bytes.extend(value);
                }
            }
            InodeXattrs::Digest(digest) => bytes.extend(digest),
            InodeXattrs::Unknown => {}
        }
        let length = (bytes.len() - start) as u16;
        bytes[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    }

    /// Reads the baseline at the start of `bytes`; `None` if these bytes are not a baseline.
    pub fn read(bytes: &[u8]) -> Option<Baseline> {
        let length = length_of(bytes)?;
        let mut rest = Bytes(bytes.get(LENGTH_BYTES..length)?);
        let kind = rest.array::<1>()?[0];
        let (number, birth_ns) = (rest.u64()?, rest.i64()?);
        let (mode, uid, gid) = (rest.u32()?, rest.u32()?, rest.u32()?);
        let size_bytes = rest.u64()?;
        let (modified, touched) = (rest.moment()?, rest.moment()?);
        let (accessed_seconds, device) = (rest.i64()?, rest.u64()?);
        let xattrs = match kind & !FOUND {
            NONE => InodeXattrs::All(BTreeMap::new()),
            ALL => InodeXattrs::All(rest.xattrs()?),
            DIGEST => InodeXattrs::Digest(rest.array()?),
            UNKNOWN => InodeXattrs::Unknown,
            _ => return None,
        };
        let attributes = InodeAttributes { mode, uid, gid, size_bytes, modified, device, xattrs };
        let changed = touched;
        let inode = Inode { number, birth_ns, changed, accessed_seconds, links: 0, attributes };
        let origin = if kind & FOUND == 0 { BaselineOrigin::Linked } else { BaselineOrigin::Found };
        Some(Baseline { inode, origin, touched })
    }
}

/// Length in bytes of the baseline that begins with these bytes.
pub(crate) fn length_of(bytes: &[u8]) -> Option<usize> {
    let length = bytes.get(..LENGTH_BYTES)?;
    Some(usize::from(u16::from_le_bytes([length[0], length[1]])))
        .filter(|length| *length > NUMBER_AT + 8)
}

/// The inode number of the baseline that begins with these bytes.
pub(crate) fn number_of(bytes: &[u8]) -> Option<u64> {
    Bytes(bytes.get(NUMBER_AT..)?).u64()
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    fn moment(&mut self) -> Option<FileTime> {
        Some(FileTime { seconds: self.i64()?, nanoseconds: self.u32()? })
    }

    fn xattrs(&mut self) -> Option<BTreeMap<CString, Vec<u8>>> {
        let mut xattrs = BTreeMap::new();
        while !self.0.is_empty() {
            let end = self.0.iter().position(|byte| *byte == 0)?;
            let name = CString::new(&self.0[..end]).ok()?;
            self.0 = &self.0[end + 1..];
            let length = usize::from(u16::from_le_bytes(self.array()?));
            let value = self.0.get(..length)?.to_vec();
            self.0 = &self.0[length..];
            xattrs.insert(name, value);
        }
        Some(xattrs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(origin: BaselineOrigin, xattrs: InodeXattrs) -> Baseline {
        let modified = FileTime { seconds: -5, nanoseconds: 999_999_999 };
        let touched = FileTime { seconds: 1 << 40, nanoseconds: 1 };
        let attributes = InodeAttributes {
            mode: 0o100_644,
            uid: 1,
            gid: u32::MAX,
            size_bytes: 1 << 50,
            modified,
            device: 9,
            xattrs,
        };
        let inode = Inode {
            number: u64::MAX - 1,
            birth_ns: 77,
            changed: touched,
            accessed_seconds: 3,
            links: 0,
            attributes,
        };
        Baseline { inode, origin, touched }
    }

    #[test]
    fn a_baseline_is_read_as_it_was_written() {
        let some =
            BTreeMap::from([(c"user.a".into(), vec![0, 1, 2]), (c"user.b".into(), Vec::new())]);
        let all = [
            InodeXattrs::All(BTreeMap::new()),
            InodeXattrs::All(some),
            InodeXattrs::Digest([7; 16]),
            InodeXattrs::Unknown,
        ];
        let mut bytes = Vec::new();
        let mut written = Vec::new();
        for xattrs in all {
            for origin in [BaselineOrigin::Linked, BaselineOrigin::Found] {
                written.push(baseline(origin, xattrs.clone()));
            }
        }
        written.iter().for_each(|one| one.write(&mut bytes));
        let mut rest = &bytes[..];
        for one in written {
            assert_eq!(number_of(rest), Some(one.inode.number));
            assert_eq!(Baseline::read(rest), Some(one));
            rest = &rest[length_of(rest).expect("a length")..];
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn garbage_is_no_baseline_and_does_not_panic() {
        let mut bytes = Vec::new();
        baseline(
            BaselineOrigin::Linked,
            InodeXattrs::All(BTreeMap::from([(c"user.a".into(), vec![1])])),
        )
        .write(&mut bytes);
        for end in 0..bytes.len() {
            assert_eq!(Baseline::read(&bytes[..end]), None, "{end}");
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                let _ = Baseline::read(&bytes);
            }
        }
    }
}
