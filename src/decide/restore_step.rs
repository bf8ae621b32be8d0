//! What a restore does with one entry of a snapshot, by what is at the destination already.
//!
//! The rules: what equals the snapshot is left alone, so a restore that was killed can be repeated.
//! What is newer than in the snapshot is overwritten only if the administrator says so. A directory
//! is never replaced, since that would delete what is in it; and nothing else is ever deleted.

use std::fmt;

const KIND: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const BLOCK_DEVICE: u32 = 0o060_000;
const FIFO: u32 = 0o010_000;
const SOCKET: u32 = 0o140_000;
const SET_USER_ID: u32 = 0o4_000;
const SET_GROUP_ID: u32 = 0o2_000;

/// The state of an entry, as one call of the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryState {
    /// Type and mode.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The size in bytes.
    pub size_bytes: i64,
    /// The device number of a device.
    pub device: u64,
    /// The modification time, nanoseconds since 1970.
    pub mtime_ns: i128,
}

/// Which owners this process may give to a file; other owners are not compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerRights {
    /// Whether it may give files to any user.
    pub user: bool,
    /// Whether it may give files to the group in question.
    pub group: bool,
}

/// The first difference between an entry of a snapshot and the one at the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryDifference {
    /// One is another kind of file than the other.
    Kind,
    /// The size.
    Size,
    /// The content, or the target of a symbolic link.
    Content,
    /// The modification time.
    Modified,
    /// The device number.
    Device,
    /// Owner or group.
    Owner,
    /// The mode.
    Mode,
    /// ACLs or other extended attributes.
    Xattrs,
    /// The entry is missing at the destination.
    Missing,
    /// It is no hard link of the file that it is linked with in the snapshot.
    Link,
}

impl fmt::Display for EntryDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EntryDifference::Kind => "it is another kind of file",
            EntryDifference::Size => "its size differs",
            EntryDifference::Content => "its content differs",
            EntryDifference::Modified => "its modification time differs",
            EntryDifference::Device => "its device number differs",
            EntryDifference::Owner => "its owner or group differs",
            EntryDifference::Mode => "its mode differs",
            EntryDifference::Xattrs => "its ACL or other extended attributes differ",
            EntryDifference::Missing => "it is missing",
            EntryDifference::Link => {
                "it is not a hard link of the file that it should be linked with"
            }
        })
    }
}

impl EntryState {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.mode & KIND == DIRECTORY
    }

    /// Whether it is a regular file.
    pub fn is_regular(&self) -> bool {
        self.mode & KIND == REGULAR
    }

    /// Whether it is a symbolic link.
    pub fn is_link(&self) -> bool {
        self.mode & KIND == LINK
    }

    /// Whether it is a device.
    pub fn is_device(&self) -> bool {
        matches!(self.mode & KIND, CHARACTER_DEVICE | BLOCK_DEVICE)
    }

    /// The word for its kind in JSON.
    pub fn kind(&self) -> &'static str {
        match self.mode & KIND {
            REGULAR => "file",
            DIRECTORY => "directory",
            LINK => "symlink",
            FIFO => "fifo",
            SOCKET => "socket",
            CHARACTER_DEVICE => "character-device",
            BLOCK_DEVICE => "block-device",
            _ => "other",
        }
    }

    /// The mode of a copy with that owner. A regular file keeps the set-user-ID bit only with its
    /// user, and the set-group-ID bit only with its group. In a directory, the latter only says
    /// which group new files get.
    pub fn mode_for(&self, uid: u32, gid: u32) -> u32 {
        let is_lent = |bit, is_other: bool| if self.is_regular() && is_other { bit } else { 0 };
        self.mode & !is_lent(SET_USER_ID, uid != self.uid) & !is_lent(SET_GROUP_ID, gid != self.gid)
    }

    /// The first difference to the state of the entry at the destination. Content, targets of
    /// links and extended attributes are not part of a state.
    pub fn difference(&self, other: &EntryState, rights: OwnerRights) -> Option<EntryDifference> {
        let has_size = self.is_regular() || self.is_link();
        let owner_differs =
            rights.user && self.uid != other.uid || rights.group && self.gid != other.gid;
        if self.mode & KIND != other.mode & KIND {
            Some(EntryDifference::Kind)
        } else if self.is_device() && self.device != other.device {
            Some(EntryDifference::Device)
        } else if has_size && self.size_bytes != other.size_bytes {
            Some(EntryDifference::Size)
        } else if self.mtime_ns != other.mtime_ns {
            Some(EntryDifference::Modified)
        } else if owner_differs {
            Some(EntryDifference::Owner)
        } else if !self.is_link() && self.mode_for(other.uid, other.gid) != other.mode {
            Some(EntryDifference::Mode)
        } else {
            None
        }
    }
}

/// What is at the destination under the name of an entry of the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Nothing.
    Nothing,
    /// A directory.
    Directory,
    /// Another kind of entry that equals the one in the snapshot.
    Equal,
    /// Another kind of entry that does not.
    Different {
        /// Whether it was modified later than the one in the snapshot.
        is_newer: bool,
    },
}

/// What keeps an entry from being restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreObstacle {
    /// What is there is newer than in the snapshot.
    Newer,
    /// The snapshot has a directory where there is something else.
    NoDirectory,
    /// The snapshot has something else where there is a directory.
    Directory,
    /// Another file system is mounted there.
    Mounted,
    /// The directory there holds the snapshots.
    HoldsSnapshots,
}

impl RestoreObstacle {
    /// Whether `--overwrite` ends it.
    pub fn is_overwritable(self) -> bool {
        matches!(self, RestoreObstacle::Newer | RestoreObstacle::NoDirectory)
    }

    /// The word for it in JSON.
    pub fn word(self) -> &'static str {
        match self {
            RestoreObstacle::Newer => "newer",
            RestoreObstacle::NoDirectory => "no-directory",
            RestoreObstacle::Directory => "directory",
            RestoreObstacle::Mounted => "mounted",
            RestoreObstacle::HoldsSnapshots => "holds-snapshots",
        }
    }
}

impl fmt::Display for RestoreObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RestoreObstacle::Newer => "what is there is newer than in the snapshot",
            RestoreObstacle::NoDirectory => {
                "the snapshot has a directory, and what is there is none"
            }
            RestoreObstacle::Directory => {
                "a directory is there, and the snapshot has none: move it away"
            }
            RestoreObstacle::Mounted => {
                "another file system is mounted there: restore that directory by itself, with the \
                 mount point as --to"
            }
            RestoreObstacle::HoldsSnapshots => {
                "the directory there holds the snapshots, into which nothing is restored"
            }
        })
    }
}

/// What a restore does with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreStep {
    /// Make it where nothing is.
    Make,
    /// Make it in place of what is there.
    Replace,
    /// Enter the directory that is there; its attributes become those of the snapshot.
    Enter,
    /// Leave what is there.
    Keep,
    /// Leave what is there, and say so.
    Refuse(RestoreObstacle),
}

/// The step for an entry that in the snapshot is a directory or is none.
pub fn restore_step(is_directory: bool, existing: Existing, overwrites: bool) -> RestoreStep {
    let unless_refused = |obstacle| match overwrites {
        true => RestoreStep::Replace,
        false => RestoreStep::Refuse(obstacle),
    };
    match (is_directory, existing) {
        (_, Existing::Nothing) => RestoreStep::Make,
        (true, Existing::Directory) => RestoreStep::Enter,
        (true, Existing::Equal | Existing::Different { .. }) => {
            unless_refused(RestoreObstacle::NoDirectory)
        }
        (false, Existing::Directory) => RestoreStep::Refuse(RestoreObstacle::Directory),
        (false, Existing::Equal) => RestoreStep::Keep,
        (false, Existing::Different { is_newer: true }) => unless_refused(RestoreObstacle::Newer),
        (false, Existing::Different { is_newer: false }) => RestoreStep::Replace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_entry_has_one_step() {
        use Existing::{Different, Directory, Equal, Nothing};
        use RestoreStep::{Enter, Keep, Make, Refuse, Replace};
        let (newer, older) = (Different { is_newer: true }, Different { is_newer: false });
        let no_directory = Refuse(RestoreObstacle::NoDirectory);
        for (is_directory, existing, careful, overwriting) in [
            (false, Nothing, Make, Make),
            (false, Equal, Keep, Keep),
            (false, older, Replace, Replace),
            (false, newer, Refuse(RestoreObstacle::Newer), Replace),
            (
                false,
                Directory,
                Refuse(RestoreObstacle::Directory),
                Refuse(RestoreObstacle::Directory),
            ),
            (true, Nothing, Make, Make),
            (true, Directory, Enter, Enter),
            (true, older, no_directory, Replace),
            (true, newer, no_directory, Replace),
        ] {
            let step = |overwrites| restore_step(is_directory, existing, overwrites);
            assert_eq!(
                (step(false), step(true)),
                (careful, overwriting),
                "{is_directory} {existing:?}"
            );
        }
    }

    #[test]
    fn every_part_of_a_state_is_compared() {
        let file =
            EntryState { mode: 0o100_644, uid: 1, gid: 2, size_bytes: 3, device: 0, mtime_ns: 4 };
        let all = OwnerRights { user: true, group: true };
        let none = OwnerRights { user: false, group: false };
        for (other, expected) in [
            (file, None),
            (EntryState { mode: 0o040_644, ..file }, Some(EntryDifference::Kind)),
            (EntryState { mode: 0o100_600, ..file }, Some(EntryDifference::Mode)),
            (EntryState { mode: 0o104_644, ..file }, Some(EntryDifference::Mode)),
            (EntryState { size_bytes: 0, ..file }, Some(EntryDifference::Size)),
            (EntryState { mtime_ns: 5, ..file }, Some(EntryDifference::Modified)),
            (EntryState { uid: 9, ..file }, Some(EntryDifference::Owner)),
            (EntryState { gid: 9, ..file }, Some(EntryDifference::Owner)),
            (EntryState { device: 9, ..file }, None),
        ] {
            assert_eq!(file.difference(&other, all), expected, "{other:?}");
        }
        assert_eq!(file.difference(&EntryState { uid: 9, gid: 9, ..file }, none), None);
        let lending = EntryState { mode: 0o106_777, ..file };
        for (uid, gid, mode) in
            [(1, 2, 0o106_777), (9, 2, 0o102_777), (1, 9, 0o104_777), (9, 9, 0o100_777)]
        {
            assert_eq!(lending.mode_for(uid, gid), mode);
            let copy = EntryState { mode, uid, gid, ..file };
            assert_eq!(lending.difference(&copy, none), None);
            let lent = lending.difference(&EntryState { mode: 0o106_777, ..copy }, none);
            assert_eq!(lent, (mode != 0o106_777).then_some(EntryDifference::Mode));
        }
        let link = EntryState { mode: LINK | 0o777, ..file };
        assert_eq!(link.difference(&EntryState { mode: LINK | 0o755, ..link }, all), None);
        let device = EntryState { mode: BLOCK_DEVICE | 0o600, ..file };
        let other = EntryState { device: 9, size_bytes: 7, ..device };
        assert_eq!(device.difference(&other, all), Some(EntryDifference::Device));
        let directory = EntryState { mode: DIRECTORY | 0o700, ..file };
        assert_eq!(
            directory.difference(&EntryState { size_bytes: 9, ..directory }, all),
            None,
            "the size of a directory is the file system's own"
        );
    }
}
