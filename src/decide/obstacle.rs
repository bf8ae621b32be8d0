//! What keeps a snapshot from being retired or removed, whatever the policy says.

use std::fmt;

/// Why a directory cannot be moved away and removed like others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// It is a btrfs subvolume, which another program made.
    Subvolume,
    /// Something is mounted on it.
    Mount,
    /// It has the immutable flag.
    Immutable,
    /// It has the append-only flag.
    AppendOnly,
}

impl Obstacle {
    /// The command that ends it, for the directory at `path`, which is quoted for a shell.
    pub fn command(self, path: &str) -> String {
        match self {
            Obstacle::Subvolume => format!("btrfs subvolume delete {path}"),
            Obstacle::Mount => format!("umount {path}"),
            Obstacle::Immutable => format!("chattr -R -i {path}"),
            Obstacle::AppendOnly => format!("chattr -R -a {path}"),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Obstacle::Subvolume => {
                "it is a btrfs subvolume, which `btrfs subvolume delete` removes"
            }
            Obstacle::Mount => "something is mounted on it",
            Obstacle::Immutable => "it has the immutable flag, which `chattr -i` takes away",
            Obstacle::AppendOnly => "it has the append-only flag, which `chattr -a` takes away",
        })
    }
}
