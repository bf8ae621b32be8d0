//! What is known of file systems by the names that the kernel gives to their types.
//!
//! The type does not say everything: any program may be behind `fuse` and `fuseblk`, so a
//! [trial](crate::store::link_trial) finds out what those can do.

use std::fmt;

/// What is to be expected of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    /// All that is promised of snapshots holds.
    Fit,
    /// A server or a program stands between the kernel and the disk: only a trial tells.
    Untried,
    /// It has no hard links.
    NoHardLinks,
    /// Snapshots work where the advice given is heeded.
    Advised(&'static str),
    /// Snapshots can be made, but for the reason given not all promises hold.
    Faulty(&'static str),
}

/// The type of a file system, such as `ext4` or `fuse.sshfs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystemType(pub String);

const OVERLAY: &str =
    "files of its lower layer are copied rather than linked; use a file system of its own";
const ENCFS: &str = "it renames a directory file by file, and changes times on the way, so a \
    snapshot does not appear as a whole; in its paranoia mode it has no hard links; use gocryptfs \
    instead";

impl FileSystemType {
    /// What is to be expected of it.
    pub fn expectation(&self) -> Expectation {
        match self.0.as_str() {
            "vfat" | "msdos" | "exfat" | "fuse.exfat" | "fuse.cryfs" => Expectation::NoHardLinks,
            "fuse.encfs" => Expectation::Faulty(ENCFS),
            "overlay" => Expectation::Advised(OVERLAY),
            _ if self.is_served() => Expectation::Untried,
            _ => Expectation::Fit,
        }
    }

    /// Whether trees in it can be subvolumes.
    pub fn is_btrfs(&self) -> bool {
        self.0 == "btrfs"
    }

    /// Whether it is CephFS, mounted by the kernel or by ceph-fuse: each directory then has a
    /// directory of snapshots.
    pub fn is_ceph(&self) -> bool {
        self.0 == "ceph" || self.is_ceph_fuse()
    }

    /// Whether it is CephFS, mounted by ceph-fuse, which does not pass `syncfs` on.
    pub fn is_ceph_fuse(&self) -> bool {
        self.0.starts_with("fuse.ceph")
    }

    /// Whether calls are answered by a server or a program, which may be dead.
    pub fn is_served(&self) -> bool {
        const SERVED: [&str; 14] = [
            "fuse", "fuseblk", "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "afs", "coda",
            "autofs", "virtiofs", "lustre",
        ];
        self.0.starts_with("fuse.") || SERVED.contains(&self.0.as_str())
    }

    /// Whether it may have no owners and modes of its own, but takes them from mount options.
    pub fn may_lack_modes(&self) -> bool {
        let is_windows = matches!(self.0.as_str(), "vfat" | "msdos" | "exfat" | "ntfs" | "ntfs3");
        is_windows || self.0.starts_with("fuse") || matches!(self.0.as_str(), "cifs" | "smb3")
    }
}

impl fmt::Display for FileSystemType {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What is wrong with a snapshot root whose file system has no hard links, and the remedy.
pub fn without_hard_links(kind: &FileSystemType) -> (String, String) {
    (
        format!("its file system, {kind}, has no hard links, which snapshots are made of"),
        "put the module on one that has them, such as ext4, XFS or btrfs".to_string(),
    )
}

/// The message about a file system that gives two names of one file different inode numbers, or one
/// file another number each time.
pub fn without_inode_numbers(kind: &FileSystemType) -> String {
    let remedy = match kind.0.as_str() {
        "fuse.mergerfs" => "mount it with `use_ino`",
        _ => "mount it so that it shows the numbers of the files themselves, if it can",
    };
    format!(
        "its file system, {kind}, does not keep the inode numbers of files: unchanged files may \
         be taken for changed, and `verify` cannot tell whether files were altered; {remedy}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_is_known_for_what_it_is() {
        use Expectation::{Fit, NoHardLinks, Untried};
        for (name, expected) in [
            ("ext2", Fit),
            ("ext4", Fit),
            ("xfs", Fit),
            ("btrfs", Fit),
            ("tmpfs", Fit),
            ("zfs", Fit),
            ("ntfs3", Fit),
            ("fuse", Untried),
            ("fuseblk", Untried),
            ("fuse.gocryptfs", Untried),
            ("nfs4", Untried),
            ("vfat", NoHardLinks),
            ("exfat", NoHardLinks),
            ("fuse.encfs", Expectation::Faulty(ENCFS)),
            ("overlay", Expectation::Advised(OVERLAY)),
        ] {
            assert_eq!(FileSystemType(name.to_string()).expectation(), expected, "{name}");
        }
    }

    #[test]
    fn cephfs_is_known_by_both_of_its_clients() {
        for (name, expected) in [
            ("ceph", true),
            ("fuse.ceph-fuse", true),
            ("fuse.ceph", true),
            ("ext4", false),
            ("fuse", false),
            ("fuse.sshfs", false),
            ("nfs4", false),
        ] {
            assert_eq!(FileSystemType(name.to_string()).is_ceph(), expected, "{name}");
        }
    }
}
