//! Whether an inode that snapshots share with the module is still what it was when it was linked.
//!
//! A record of an inode applies to the later snapshots until there is a newer record of it. So a
//! file that a client changed in place damages the snapshots from before the change. In the
//! snapshots that were made since, it is as it should be.
//!
//! Where all attributes are equal, the kernel's change time can still show that a client wrote to
//! the file, because no program can set that time. But each link that is made or removed moves it,
//! too, whether this program or a client does so. So a moved change time counts as a sign only
//! outside of the recorded [`windows`](crate::store::inode_log::windows), and only if the inode had
//! the very same names in the last tree that was read before the time moved and in the next one.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::tell::escape::escape;

/// The attributes of an inode that are recorded and compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InodeAttributes {
    /// Type and mode.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Modification time.
    pub modified: FileTime,
    /// The device number of a device file.
    pub device: u64,
    /// Extended attributes, ACLs among them.
    pub xattrs: InodeXattrs,
}

/// Seconds since 1970 and nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileTime {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// Nanoseconds of the second.
    pub nanoseconds: u32,
}

impl FileTime {
    /// Nanoseconds since 1970, limited to what an `i64` can hold.
    pub fn as_ns(self) -> i64 {
        self.seconds.saturating_mul(1_000_000_000).saturating_add(self.nanoseconds.into())
    }
}

impl FileTime {
    /// The time that is `ns` nanoseconds after the beginning of 1970.
    pub fn of_ns(ns: i64) -> Self {
        const SECOND_NS: i64 = 1_000_000_000;
        let nanoseconds = u32::try_from(ns.rem_euclid(SECOND_NS)).unwrap_or(0);
        FileTime { seconds: ns.div_euclid(SECOND_NS), nanoseconds }
    }
}

impl fmt::Display for FileTime {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match DateTime::<Utc>::from_timestamp(self.seconds, self.nanoseconds) {
            Some(time) => write!(f, "{}", time.format("%FT%T%.fZ")),
            None => write!(f, "{} s", self.seconds),
        }
    }
}

/// The extended attributes of an inode, but for those that only the system sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InodeXattrs {
    /// They could not be read.
    Unknown,
    /// All attributes, by name.
    All(BTreeMap<CString, Vec<u8>>),
    /// A digest of all attributes, which are too large to be kept.
    Digest([u8; 16]),
}

impl InodeXattrs {
    /// Their digest, unless they are unknown.
    pub fn digest(&self) -> Option<[u8; 16]> {
        match self {
            InodeXattrs::Unknown => None,
            InodeXattrs::Digest(digest) => Some(*digest),
            InodeXattrs::All(xattrs) => Some(Self::digest_of(xattrs)),
        }
    }

    /// The digest of these attributes.
    pub fn digest_of(xattrs: &BTreeMap<CString, Vec<u8>>) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        for (name, value) in xattrs {
            hasher
                .update(name.as_bytes_with_nul())
                .update(&(value.len() as u64).to_le_bytes())
                .update(value);
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        digest
    }
}

/// One difference between an inode and its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InodeChange {
    /// Permissions.
    Mode(u32, u32),
    /// Owner and group.
    Owner((u32, u32), (u32, u32)),
    /// Size in bytes.
    Size(u64, u64),
    /// Modification time.
    Modified(FileTime, FileTime),
    /// The device number of a device file.
    Device,
    /// One extended attribute, which may be an ACL.
    Xattr(CString),
    /// Extended attributes of which at least one record holds only a digest.
    Xattrs,
    /// A client wrote to the file at this time: only its change time and its content may differ.
    WrittenInPlace(FileTime),
    /// The content has another hash.
    Content,
}

impl InodeChange {
    /// Whether the record suffices to undo the change: it holds attributes, but no content.
    pub fn is_of_attributes(&self) -> bool {
        !matches!(
            self,
            InodeChange::Size(..)
                | InodeChange::WrittenInPlace(_)
                | InodeChange::Content
                | InodeChange::Device
        )
    }

    /// The time of a change that only a change time shows, nanoseconds since 1970.
    pub fn touched_ns(&self) -> Option<i64> {
        match self {
            InodeChange::WrittenInPlace(time) => Some(time.as_ns()),
            _ => None,
        }
    }

    /// The word for it in JSON.
    pub fn word(&self) -> &'static str {
        match self {
            InodeChange::Mode(..) => "mode",
            InodeChange::Owner(..) => "owner",
            InodeChange::Size(..) => "size",
            InodeChange::Modified(..) => "mtime",
            InodeChange::Device => "device",
            InodeChange::Xattr(_) | InodeChange::Xattrs => "xattr",
            InodeChange::WrittenInPlace(_) => "touched",
            InodeChange::Content => "content",
        }
    }
}

impl fmt::Display for InodeChange {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            InodeChange::Mode(was, is) => {
                write!(f, "mode {:04o} -> {:04o}", was & 0o7777, is & 0o7777)
            }
            InodeChange::Owner(was, is) => {
                write!(f, "owner {}:{} -> {}:{}", was.0, was.1, is.0, is.1)
            }
            InodeChange::Size(was, is) => write!(f, "size {was} -> {is}"),
            InodeChange::Modified(was, is) => write!(f, "mtime {was} -> {is}"),
            InodeChange::Device => f.write_str("device number"),
            InodeChange::Xattr(name) => match name.to_bytes() {
                b"system.posix_acl_access" => f.write_str("ACL"),
                name => write!(f, "xattr {}", escape(name)),
            },
            InodeChange::Xattrs => f.write_str("xattrs"),
            InodeChange::WrittenInPlace(time) => {
                write!(
                    f,
                    "touched at {time}, by a write in place or a link that was made and removed; \
                     size and time are what they were, the content may not be"
                )
            }
            InodeChange::Content => f.write_str("content"),
        }
    }
}

/// How `is` differs from `was`. If the extended attributes of either are unknown, only the rest is
/// compared.
pub fn changes(was: &InodeAttributes, is: &InodeAttributes) -> Vec<InodeChange> {
    let mut changes = Vec::new();
    if was.mode != is.mode {
        changes.push(InodeChange::Mode(was.mode, is.mode));
    }
    if (was.uid, was.gid) != (is.uid, is.gid) {
        changes.push(InodeChange::Owner((was.uid, was.gid), (is.uid, is.gid)));
    }
    if was.size_bytes != is.size_bytes {
        changes.push(InodeChange::Size(was.size_bytes, is.size_bytes));
    }
    if was.modified != is.modified {
        changes.push(InodeChange::Modified(was.modified, is.modified));
    }
    if was.device != is.device {
        changes.push(InodeChange::Device);
    }
    match (&was.xattrs, &is.xattrs) {
        (InodeXattrs::Unknown, _) | (_, InodeXattrs::Unknown) => {}
        (InodeXattrs::All(was), InodeXattrs::All(is)) => {
            let gone = was.keys().filter(|name| !is.contains_key(*name));
            let other = is
                .iter()
                .filter(|(name, value)| was.get(*name) != Some(*value))
                .map(|(name, _)| name);
            changes.extend(gone.chain(other).cloned().map(InodeChange::Xattr));
        }
        (was, is) if was != is => changes.push(InodeChange::Xattrs),
        _ => {}
    }
    changes
}

/// Whether a file was changed in place since it was recorded: something other than its extended
/// attributes differs, or its change time has moved for another reason than links that runs made or
/// removed (`is_ours`). Each state comes with its change time.
pub fn is_changed_in_place(
    (was, was_changed): (&InodeAttributes, FileTime),
    (is, changed): (&InodeAttributes, FileTime),
    is_ours: bool,
) -> bool {
    let is_attribute =
        |change: &InodeChange| !matches!(change, InodeChange::Xattr(_) | InodeChange::Xattrs);
    changes(was, is).iter().any(is_attribute) || changed != was_changed && !is_ours
}

/// Finds which of the `recorded` values, oldest first, applies to a snapshot at `position`: the
/// last one that is not newer. A snapshot that is older than all of them gets the first, because
/// nothing is known of the time before.
pub fn applicable<T>(recorded: &[(usize, T)], position: usize) -> Option<&T> {
    let older = recorded.iter().rfind(|(recorded, _)| *recorded <= position);
    older.or(recorded.first()).map(|(_, what)| what)
}

/// What is recorded of an access time, in seconds since 1970: the time itself if a client may have
/// set it, and otherwise the change time. rsync sends access times in whole seconds. A program that
/// only reads a file leaves the kernel's time, which has nanoseconds wherever the file system keeps
/// them. So a file that was only read does not count as one whose access time a client has set.
pub fn settable_access_seconds(accessed: FileTime, changed: FileTime) -> i64 {
    if accessed.nanoseconds == 0 { accessed.seconds } else { changed.seconds }
}

/// Whether a client may have set the access time of a file, as `rsync --atimes` does, which moves
/// the change time, too. Both times are those of [`settable_access_seconds`]. A program that reads
/// a file leaves an access time that is about the change time, or later.
pub fn is_access_time_set(was_seconds: i64, is_seconds: i64, touched: FileTime) -> bool {
    const READING_SECONDS: i64 = 60;
    was_seconds != is_seconds && is_seconds < touched.seconds.saturating_sub(READING_SECONDS)
}

/// The names that an inode has in one tree, as one number: equal for equal sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NameSum {
    count: u32,
    sum: u64,
}

impl NameSum {
    /// Adds a name by the hash of its path.
    pub fn add(&mut self, path_hash: u64) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(path_hash);
    }
}

impl NameSum {
    /// Whether these are fewer names than `others`.
    pub fn is_fewer_than(self, others: NameSum) -> bool {
        self.count < others.count
    }
}

/// Whether an inode whose change time moved between two readings of its names was written to,
/// rather than linked or unlinked. If it had no name before, or has none after, it was renamed or
/// removed. If it had no name at either time but has one in an `older` tree, the module had no name
/// of it that a client could have removed, so the inode was written to.
pub fn is_in_place(before: NameSum, after: NameSum, older: NameSum) -> bool {
    before == after && before.count.max(older.count) > 0
}

/// Which of the moments in `began` is the last before `time`, as an index. `began` holds the
/// moments at which trees were read, in that order. `None` if no moment is earlier, or if a clock
/// was set so that the order cannot be told.
pub fn last_before(began: &[i64], time: i64) -> Option<usize> {
    let count = began.iter().filter(|began| **began <= time).count();
    let is_ordered = began[..count].iter().all(|began| *began <= time);
    count.checked_sub(1).filter(|_| is_ordered)
}

/// Damage that was found in snapshots. Expiry is paused until it is gone or the administrator
/// accepts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Damage {
    /// When it was first noticed.
    pub since: DateTime<Utc>,
    /// How many files were altered.
    pub files: u64,
    /// How many snapshots contain them, or lack entries or have more.
    pub snapshots: u64,
    /// The first of the files, escaped; then the snapshots that lack entries or have more, and how
    /// many.
    pub first: Vec<String>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Damage { since, files, snapshots, first } = self;
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        let since = since.format("%FT%TZ");
        let shown = first.first().map_or("unnamed", String::as_str);
        if *files == 0 {
            return write!(
                f,
                "since {since} it is known that another program removed or added entries in \
                 {snapshots} snapshot{}, the first: {shown}; run `verify` to see all of it, or \
                 `release --damage` to accept it",
                plural(*snapshots),
            );
        }
        write!(
            f,
            "since {} it is known that {files} file{} in {snapshots} snapshot{} {} been altered \
             in place, the first {}; run `verify` to see all of it, `verify --repair-attributes` \
             to restore what can be, or `release --damage` to accept it",
            since,
            plural(*files),
            plural(*snapshots),
            if *files == 1 { "has" } else { "have" },
            shown,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes() -> InodeAttributes {
        let modified = FileTime { seconds: 1_700_000_000, nanoseconds: 5 };
        let xattrs = InodeXattrs::All(BTreeMap::from([(c"user.a".into(), b"1".to_vec())]));
        InodeAttributes {
            mode: 0o100_644,
            uid: 1,
            gid: 2,
            size_bytes: 10,
            modified,
            device: 0,
            xattrs,
        }
    }

    fn words(is: InodeAttributes) -> Vec<String> {
        changes(&attributes(), &is).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_attribute_is_compared_and_named() {
        let was = attributes;
        assert!(words(was()).is_empty());
        assert_eq!(words(InodeAttributes { mode: 0o100_600, ..was() }), ["mode 0644 -> 0600"]);
        assert_eq!(words(InodeAttributes { gid: 7, ..was() }), ["owner 1:2 -> 1:7"]);
        assert_eq!(words(InodeAttributes { size_bytes: 0, ..was() }), ["size 10 -> 0"]);
        let modified = FileTime { nanoseconds: 6, ..was().modified };
        assert_eq!(
            words(InodeAttributes { modified, ..was() }),
            ["mtime 2023-11-14T22:13:20.000000005Z -> 2023-11-14T22:13:20.000000006Z"]
        );
        assert_eq!(words(InodeAttributes { device: 1, ..was() }), ["device number"]);
        let acl = InodeXattrs::All(BTreeMap::from([(c"system.posix_acl_access".into(), vec![2])]));
        assert_eq!(words(InodeAttributes { xattrs: acl, ..was() }), ["xattr user.a", "ACL"]);
        assert_eq!(
            words(InodeAttributes { xattrs: InodeXattrs::Digest([1; 16]), ..was() }),
            ["xattrs"]
        );
        assert!(words(InodeAttributes { xattrs: InodeXattrs::Unknown, ..was() }).is_empty());
    }

    #[test]
    fn any_sign_outside_our_own_windows_is_a_change_in_place() {
        let was = attributes;
        let at = |seconds| FileTime { seconds, nanoseconds: 0 };
        let table = [
            (was(), at(5), false, false, "nothing moved"),
            (was(), at(6), true, false, "we have linked it"),
            (was(), at(6), false, true, "written to at equal size and time"),
            (
                InodeAttributes { size_bytes: 11, ..was() },
                at(6),
                true,
                true,
                "written to, then linked",
            ),
            (
                InodeAttributes { modified: at(9), ..was() },
                at(6),
                true,
                true,
                "the same with another time",
            ),
            (InodeAttributes { mode: 0o100_600, ..was() }, at(6), true, true, "another mode"),
            (
                InodeAttributes { xattrs: InodeXattrs::All(BTreeMap::new()), ..was() },
                at(5),
                false,
                false,
                "not asked",
            ),
        ];
        for (is, changed, is_ours, expected, what) in table {
            let found = is_changed_in_place((&was(), at(5)), (&is, changed), is_ours);
            assert_eq!(found, expected, "{what}");
        }
    }

    #[test]
    fn what_was_recorded_last_before_a_snapshot_holds_for_it() {
        let recorded = [(2, "a"), (5, "b"), (5, "c")];
        let holds = |position| applicable(&recorded, position).copied();
        assert_eq!([0, 2, 4, 5, 9].map(holds), ["a", "a", "a", "c", "c"].map(Some));
        assert_eq!(applicable::<()>(&[], 3), None);
    }

    #[test]
    fn an_access_time_from_long_before_was_set() {
        let touched = FileTime { seconds: 1_000, nanoseconds: 0 };
        assert!(is_access_time_set(10, 20, touched));
        assert!(!is_access_time_set(10, 10, touched), "it is what it was");
        assert!(!is_access_time_set(10, 995, touched), "it was read and written to");
        assert!(!is_access_time_set(10, 2_000, touched), "it was read later");
    }

    #[test]
    fn only_an_access_time_in_whole_seconds_can_be_one_of_rsync() {
        let at = |seconds, nanoseconds| FileTime { seconds, nanoseconds };
        assert_eq!(settable_access_seconds(at(10, 0), at(1_000, 7)), 10);
        let read = settable_access_seconds(at(20, 5), at(1_000, 7));
        assert!(!is_access_time_set(10, read, at(1_000, 7)), "it was read, and written to later");
    }

    #[test]
    fn only_equal_names_show_that_a_file_was_written_to() {
        let names = |hashes: &[u64]| {
            let mut names = NameSum::default();
            hashes.iter().for_each(|hash| names.add(*hash));
            names
        };
        let none = NameSum::default();
        assert!(is_in_place(names(&[7]), names(&[7]), none));
        assert!(is_in_place(names(&[7, 9]), names(&[9, 7]), none));
        assert!(is_in_place(none, none, names(&[7])), "only older snapshots have it");
        for (before, after) in [
            (&[7][..], &[8][..]),
            (&[7, 9], &[7]),
            (&[7], &[7, 9]),
            (&[7], &[]),
            (&[], &[7]),
            (&[], &[]),
        ] {
            assert!(!is_in_place(names(before), names(after), none), "{before:?} {after:?}");
        }
    }

    #[test]
    fn the_last_look_before_a_moment_needs_a_steady_clock() {
        assert_eq!(last_before(&[10, 20, 30], 25), Some(1));
        assert_eq!(last_before(&[10, 20, 30], 30), Some(2));
        assert_eq!(last_before(&[10, 20, 30], 9), None);
        assert_eq!(last_before(&[], 9), None);
        assert_eq!(last_before(&[10, 40, 20], 25), None, "the clock was set back");
    }
}
