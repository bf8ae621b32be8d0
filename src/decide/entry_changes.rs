//! In what two states of one entry differ.

use crate::decide::restore_step::EntryState;

const PERMISSIONS: u32 = 0o7_777;
const KIND: u32 = 0o170_000;

/// One way in which an entry can change, in the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryChange {
    /// It is another kind of file.
    Kind,
    /// What is in a regular file.
    Content,
    /// What a symbolic link points to.
    Target,
    /// The number of a device.
    Device,
    /// The size of a regular file.
    Size,
    /// The modification time.
    Modified,
    /// User or group.
    Owner,
    /// The permissions.
    Mode,
    /// ACLs or other extended attributes.
    Xattrs,
}

impl EntryChange {
    /// The word for it, in text and JSON.
    pub fn word(self) -> &'static str {
        match self {
            EntryChange::Kind => "type",
            EntryChange::Content => "content",
            EntryChange::Target => "target",
            EntryChange::Device => "device",
            EntryChange::Size => "size",
            EntryChange::Modified => "time",
            EntryChange::Owner => "owner",
            EntryChange::Mode => "mode",
            EntryChange::Xattrs => "xattr",
        }
    }
}

/// In what two states differ, sorted. Content of equal size, targets and extended attributes are no
/// part of a state. Of entries of different kinds, nothing else can be compared.
pub fn changes(old: &EntryState, new: &EntryState) -> Vec<EntryChange> {
    if old.mode & KIND != new.mode & KIND {
        return vec![EntryChange::Kind];
    }
    let has_other_size = old.is_regular() && old.size_bytes != new.size_bytes;
    let differences = [
        (EntryChange::Content, has_other_size),
        (EntryChange::Device, old.is_device() && old.device != new.device),
        (EntryChange::Size, has_other_size),
        (EntryChange::Modified, old.mtime_ns != new.mtime_ns),
        (EntryChange::Owner, (old.uid, old.gid) != (new.uid, new.gid)),
        // The mode of a symbolic link means nothing.
        (EntryChange::Mode, !old.is_link() && old.mode & PERMISSIONS != new.mode & PERMISSIONS),
    ];
    differences.into_iter().filter(|(_, differs)| *differs).map(|(change, _)| change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: EntryState = EntryState {
        mode: 0o100_644,
        uid: 1,
        gid: 1,
        size_bytes: 10,
        device: 0,
        mtime_ns: 5_000_000_000,
    };
    const DIRECTORY: EntryState = EntryState { mode: 0o040_755, ..FILE };
    const LINK: EntryState = EntryState { mode: 0o120_777, ..FILE };
    const TAPE: EntryState = EntryState { mode: 0o020_600, ..FILE };

    #[test]
    fn every_difference_has_its_word() {
        for (old, new, expected) in [
            (FILE, FILE, ""),
            (FILE, EntryState { size_bytes: 11, ..FILE }, "content size"),
            (FILE, EntryState { mtime_ns: 5_000_000_001, ..FILE }, "time"),
            (FILE, EntryState { uid: 2, ..FILE }, "owner"),
            (FILE, EntryState { gid: 2, ..FILE }, "owner"),
            (FILE, EntryState { mode: 0o104_644, ..FILE }, "mode"),
            (FILE, EntryState { uid: 2, mode: 0o100_600, mtime_ns: 0, ..FILE }, "time owner mode"),
            (FILE, EntryState { device: 7, ..FILE }, ""),
            (FILE, DIRECTORY, "type"),
            (LINK, EntryState { uid: 2, ..FILE }, "type"),
            // How long a directory or a link is says nothing.
            (DIRECTORY, EntryState { size_bytes: 4_096, ..DIRECTORY }, ""),
            (LINK, EntryState { size_bytes: 11, mode: 0o120_755, ..LINK }, ""),
            (TAPE, EntryState { device: 7, ..TAPE }, "device"),
        ] {
            let words: Vec<&str> = changes(&old, &new).into_iter().map(EntryChange::word).collect();
            assert_eq!(words.join(" "), expected, "{old:?} {new:?}");
        }
    }
}
