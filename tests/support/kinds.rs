//! All kinds of file systems that root can mount: how to make them, and what rsyncd-snapshot
//! supports on them.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::run::{Run, tool};

/// Which promises of the program hold on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    /// All.
    Everything,
    /// All but certainty about altered files. Each run prints this text.
    NoInodeNumbers(&'static str),
    /// Only that snapshots can be restored. `check` and each run print this text.
    Restore(&'static str),
    /// None: every run is refused with this text.
    Nothing(&'static str),
}

/// A kind of file system.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// The program that makes or mounts it.
    pub(crate) tool: &'static str,
    /// Shell commands that mount it on `$M`, with the directories `$A` and `$B` and the file `$I`
    /// to put it on.
    mount: &'static str,
    /// Whether normal runs of the tests try it, too, not only full sweeps.
    pub(crate) is_usual: bool,
    pub(crate) promise: Promise,
}

const fn kind(
    name: &'static str,
    tool: &'static str,
    mount: &'static str,
    promise: Promise,
) -> Kind {
    Kind { name, tool, mount, is_usual: false, promise }
}

const fn usual(name: &'static str, tool: &'static str, mount: &'static str) -> Kind {
    Kind { name, tool, mount, is_usual: true, promise: Promise::Everything }
}

const NO_LINKS: Promise = Promise::Nothing("has no hard links");

pub(crate) const KINDS: [Kind; 19] = [
    usual("ext2", "mkfs.ext2", "truncate -s 64M $I; mkfs.ext2 -q $I; mount -o loop $I $M"),
    usual("ext4", "mkfs.ext4", "truncate -s 64M $I; mkfs.ext4 -q $I; mount -o loop $I $M"),
    usual("xfs", "mkfs.xfs", "truncate -s 320M $I; mkfs.xfs -q $I; mount -o loop $I $M"),
    usual("btrfs", "mkfs.btrfs", "truncate -s 160M $I; mkfs.btrfs -q $I; mount -o loop $I $M"),
    usual("tmpfs", "mount", "mount -t tmpfs -o size=64m,nr_inodes=0 none $M"),
    usual(
        "overlay",
        "mount",
        "mount -t tmpfs none $B; mkdir $B/upper $B/work
         mount -t overlay -o lowerdir=$A,upperdir=$B/upper,workdir=$B/work none $M",
    ),
    kind("bindfs", "bindfs", "bindfs $A $M", Promise::Everything),
    kind(
        "gocryptfs",
        "gocryptfs",
        "echo secret > $I; gocryptfs -q -init -scryptn 10 -passfile $I $A; gocryptfs -q -passfile $I $A $M",
        Promise::Everything,
    ),
    kind(
        "mergerfs use_ino",
        "mergerfs",
        "mergerfs -o allow_other,use_ino $A:$B $M",
        Promise::Everything,
    ),
    kind(
        "mergerfs",
        "mergerfs",
        "mergerfs -o allow_other $A:$B $M",
        Promise::NoInodeNumbers("mount it with `use_ino`"),
    ),
    kind(
        "sshfs",
        "sshfs",
        "sshfs -o ssh_command='sh -c /usr/lib/openssh/sftp-server' server:$A $M",
        Promise::NoInodeNumbers("fuse.sshfs, does not keep the inode numbers"),
    ),
    kind(
        "encfs",
        "encfs",
        "echo secret | encfs --standard -S $A $M",
        Promise::Restore("renames a directory file by file"),
    ),
    kind("encfs --paranoia", "encfs", "echo secret | encfs --paranoia -S $A $M", NO_LINKS),
    kind(
        "exfat",
        "mount.exfat-fuse",
        "truncate -s 64M $I; mkfs.exfat $I; mount.exfat-fuse -o umask=077 $(losetup -f --show $I) $M",
        NO_LINKS,
    ),
    kind(
        "exfat for all",
        "mount.exfat-fuse",
        "truncate -s 64M $I; mkfs.exfat $I; mount.exfat-fuse $(losetup -f --show $I) $M",
        Promise::Nothing("mount it with `umask=077`"),
    ),
    kind(
        "ntfs permissions",
        "ntfs-3g",
        "truncate -s 64M $I; mkfs.ntfs -q -F $I; ntfs-3g -o permissions $I $M; chmod 755 $M",
        Promise::Everything,
    ),
    kind(
        "ntfs for all",
        "ntfs-3g",
        "truncate -s 64M $I; mkfs.ntfs -q -F $I; ntfs-3g $I $M",
        Promise::Nothing("mount it with `umask=077`"),
    ),
    kind(
        "vfat",
        "mkfs.vfat",
        "truncate -s 64M $I; mkfs.vfat $I; mount -o loop,umask=077 $I $M",
        NO_LINKS,
    ),
    kind(
        "nfs",
        "exportfs",
        "exportfs -o rw,no_root_squash,fsid=9 localhost:$A; mount localhost:$A $M",
        Promise::Everything,
    ),
];

/// A file system of some kind, mounted until it is dropped.
pub(crate) struct Mounted {
    pub(crate) mount_point: PathBuf,
    scratch: TempDir,
}

impl Mounted {
    /// Where it cannot be mounted, this prints the reason and returns `None`.
    pub(crate) fn new(kind: &Kind) -> Option<Mounted> {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let at = |name: &str| scratch.path().join(name);
        for name in ["mounted", "a", "b"] {
            std::fs::create_dir(at(name)).expect("a directory");
        }
        let mut shell = tool("sh");
        shell.args(["-ec", kind.mount]).env("M", at("mounted")).env("I", at("image"));
        let run = Run::of(shell.env("A", at("a")).env("B", at("b")));
        let mounted = Mounted { mount_point: at("mounted"), scratch };
        if !run.succeeded() || !is_mounted(&mounted.mount_point) {
            let first = run.stderr().lines().next().unwrap_or_default().to_string();
            if kind.is_usual {
                skipped!("needs {}, which cannot be mounted here: {first}", kind.name);
            } else {
                eprintln!("not tried: {}: cannot be mounted here: {first}", kind.name);
            }
            return None;
        }
        Some(mounted)
    }
}

fn is_mounted(path: &Path) -> bool {
    tool("mountpoint").arg("-q").arg(path).status().is_ok_and(|status| status.success())
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for name in ["mounted", "b"] {
            let path = self.scratch.path().join(name);
            if is_mounted(&path) {
                let _ = tool("umount").arg("--lazy").arg(&path).status();
            }
        }
        // A loop device that is not mounted.
        let script = "losetup -j \"$I\" | cut -d: -f1 | xargs -r losetup -d";
        let _ =
            tool("sh").args(["-c", script]).env("I", self.scratch.path().join("image")).status();
    }
}
