//! A file system for one test, on a loop device or in memory. It is unmounted when the test ends.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::run::{Run, tool};
use super::subvolumes::are_subvolumes;
use super::{have, may_mount};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ext4,
    Xfs,
    Btrfs,
    Tmpfs,
}

impl Kind {
    /// This kind, or btrfs if modules are subvolumes.
    pub(crate) fn or_btrfs(self) -> Kind {
        if are_subvolumes() { Kind::Btrfs } else { self }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
            Kind::Btrfs => "btrfs",
            Kind::Tmpfs => "tmpfs",
        }
    }

    /// What `mkfs` accepts at least, with room to work in.
    pub(crate) fn usual_mebibytes(self) -> u64 {
        match self {
            Kind::Ext4 | Kind::Tmpfs => 64,
            Kind::Xfs => 320,
            Kind::Btrfs => 160,
        }
    }
}

/// How a btrfs for snapshots that are subvolumes is mounted.
const FOR_SUBVOLUMES: &str = "loop,noatime,user_subvol_rm_allowed";

pub(crate) struct FileSystem {
    pub(crate) mount_point: PathBuf,
    _scratch: TempDir,
}

impl FileSystem {
    /// A file system of the usual size. Where that is impossible it prints the reason and returns
    /// `None`.
    pub(crate) fn new(kind: Kind) -> Option<FileSystem> {
        FileSystem::with(kind, kind.usual_mebibytes(), &[])
    }

    /// ext4 whose inodes have no room for parts of a second in their times.
    pub(crate) fn whole_seconds() -> Option<FileSystem> {
        FileSystem::with(Kind::Ext4, Kind::Ext4.usual_mebibytes(), &["-I", "128"])
    }

    /// btrfs, mounted as the documentation advises for snapshots that are subvolumes.
    pub(crate) fn for_subvolumes() -> Option<FileSystem> {
        let (kind, directory) = (Kind::Btrfs, std::env::temp_dir());
        FileSystem::mounted(&directory, kind, kind.usual_mebibytes(), &[], FOR_SUBVOLUMES)
    }

    /// A file system of the given size, made with extra `mkfs` options.
    pub(crate) fn with(kind: Kind, mebibytes: u64, mkfs_options: &[&str]) -> Option<FileSystem> {
        FileSystem::within(&std::env::temp_dir(), kind, mebibytes, mkfs_options)
    }

    /// The same with its image and its mount point in `directory`.
    pub(crate) fn within(
        directory: &Path,
        kind: Kind,
        mebibytes: u64,
        mkfs_options: &[&str],
    ) -> Option<FileSystem> {
        let has_subvolumes = kind == Kind::Btrfs && are_subvolumes();
        let mount_options = if has_subvolumes { FOR_SUBVOLUMES } else { "loop" };
        FileSystem::mounted(directory, kind, mebibytes, mkfs_options, mount_options)
    }

    fn mounted(
        directory: &Path,
        kind: Kind,
        mebibytes: u64,
        mkfs_options: &[&str],
        mount_options: &str,
    ) -> Option<FileSystem> {
        if !may_mount() {
            return None;
        }
        let scratch = TempDir::with_prefix_in("rsyncd-snapshot-test-", directory)
            .expect("a scratch directory");
        let mount_point =
            scratch.path().canonicalize().expect("the scratch directory").join("mounted");
        fs::create_dir(&mount_point).expect("a mount point");
        let mut mount = tool("mount");
        if kind == Kind::Tmpfs {
            // Without a limit of inodes: there each link counts as one.
            mount.args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={mebibytes}m,nr_inodes=0,mode=0755"),
                "none",
            ]);
        } else {
            let mkfs = format!("mkfs.{}", kind.name());
            if !have(&[&mkfs]) {
                return None;
            }
            let image = scratch.path().join("image");
            // Less is no btrfs.
            let least = if kind == Kind::Btrfs { kind.usual_mebibytes() } else { 0 };
            let mebibytes = mebibytes.max(least);
            File::create(&image)
                .and_then(|file| file.set_len(mebibytes << 20))
                .expect("an image file");
            make(kind, mkfs_options, &image);
            mount.args(["-t", kind.name(), "-o", mount_options]).arg(&image);
        }
        Run::of(mount.arg(&mount_point)).exits(&[0]);
        Some(FileSystem { mount_point, _scratch: scratch })
    }
}

/// Makes a file system in the file `image`.
pub(crate) fn make(kind: Kind, mkfs_options: &[&str], image: &Path) {
    let run = || {
        let mut mkfs = tool(&format!("mkfs.{}", kind.name()));
        Run::of(mkfs.arg("-q").args(mkfs_options).arg(image))
    };
    without_race(run).exits(&[0]);
}

/// Runs a program of btrfs again if it has failed because a loop device went meanwhile: these
/// programs look at all of them.
pub(crate) fn without_race(run: impl Fn() -> Run) -> Run {
    let has_raced = |run: &Run| {
        let text = run.stderr();
        text.contains("cannot check mount status") || text.contains("could not check mount status")
    };
    (0..20).map(|_| run()).find(|run| !has_raced(run)).expect("no loop device goes")
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        let unmount = tool("umount").arg("--lazy").arg(&self.mount_point).status();
        if !unmount.as_ref().is_ok_and(std::process::ExitStatus::success) {
            eprintln!("cannot unmount {}: {unmount:?}", self.mount_point.display());
        }
    }
}

/// A mount over a directory of a test. It is unmounted when this value is dropped.
pub(crate) struct Mount {
    mount_point: PathBuf,
}

impl Mount {
    /// An empty file system in memory. Where that is impossible it prints the reason and returns
    /// `None`.
    pub(crate) fn tmpfs(mount_point: &Path) -> Option<Mount> {
        Mount::new(&["-t", "tmpfs", "-o", "size=1m", "none"], mount_point)
    }

    /// A bind mount of `directory`.
    pub(crate) fn bind(directory: &Path, mount_point: &Path) -> Option<Mount> {
        Mount::new(&["--bind", directory.to_str().expect("UTF-8")], mount_point)
    }

    fn new(arguments: &[&str], mount_point: &Path) -> Option<Mount> {
        if !may_mount() {
            return None;
        }
        Run::of(tool("mount").args(arguments).arg(mount_point)).exits(&[0]);
        Some(Mount { mount_point: mount_point.to_path_buf() })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = tool("umount").arg("--lazy").arg(&self.mount_point).status();
    }
}
