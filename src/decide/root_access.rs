//! Who may enter a snapshot root, and so change history.
//!
//! Snapshots keep owners. A user who reaches a directory of their own inside a snapshot can remove
//! files from it; what stops that is a directory above the snapshots that only root may enter.

/// The permissions of a directory on the way to the snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entrance {
    /// Its permission bits.
    pub mode: u32,
    /// Its group.
    pub gid: u32,
    /// Whether an access control list extends its permissions.
    pub has_acl: bool,
}

impl Entrance {
    /// Whether other users than root may pass. The group bits are the mask of an access control
    /// list, where there is one.
    fn lets_users_in(self) -> bool {
        let by_group = self.mode & 0o010 != 0 && (self.gid != 0 || self.has_acl);
        self.mode & 0o001 != 0 || by_group
    }
}

/// Whether other users than root reach the snapshots, past the root and each directory above it.
pub fn is_open(way: &[Entrance]) -> bool {
    way.iter().all(|entrance| entrance.lets_users_in())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_closed_directory_on_the_way_is_enough() {
        let of = |mode, gid| Entrance { mode, gid, has_acl: false };
        let with_acl = |mode| Entrance { mode, gid: 0, has_acl: true };
        for (way, expected) in [
            (&[of(0o755, 0), of(0o755, 0)][..], true),
            (&[of(0o711, 0)], true),
            (&[of(0o700, 0), of(0o755, 0)], false),
            (&[of(0o755, 0), of(0o700, 0)], false),
            (&[of(0o750, 0)], false),
            (&[of(0o750, 34)], true),
            (&[with_acl(0o750)], true),
            (&[with_acl(0o700)], false),
            (&[of(0o744, 0)], false),
        ] {
            assert_eq!(is_open(way), expected, "{way:?}");
        }
    }
}
