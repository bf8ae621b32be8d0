//! File systems to cut the power of: made, mounted, unmounted, and looked through for damage.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::support::file_system::{self, Kind};
use crate::support::run::{Run, tool};
use crate::support::subvolumes::are_subvolumes;
use crate::support::time::wait_until;

/// The file systems that the power is cut of: only one of them has subvolumes.
pub(crate) fn kinds() -> &'static [Kind] {
    if are_subvolumes() { &[Kind::Btrfs] } else { &[Kind::Ext4, Kind::Xfs, Kind::Btrfs] }
}

/// Makes an empty file system in the new file `image`.
pub(crate) fn make(kind: Kind, image: &Path) {
    File::create(image)
        .and_then(|file| file.set_len(kind.usual_mebibytes() << 20))
        .expect("an image file");
    let options: &[&str] = match kind {
        Kind::Ext4 => &["-b", "1024", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"],
        _ => &["-K"],
    };
    file_system::make(kind, options, image);
}

/// How many bytes the file system relies on being written as a whole: sectors, and whole blocks
/// where its superblock and its journal have one checksum for a block.
pub(crate) fn unit(kind: Kind) -> usize {
    match kind {
        Kind::Ext4 => 1024,
        Kind::Xfs => 512,
        _ => 4096,
    }
}

/// A mounted file system, unmounted at the end.
pub(crate) struct Mounted {
    source: PathBuf,
    mount_point: Option<PathBuf>,
    kind: Kind,
}

impl Mounted {
    /// Mounts an image or a device.
    pub(crate) fn new(kind: Kind, source: &Path, mount_point: &Path) -> Result<Mounted, String> {
        let mut mount = tool("mount");
        mount.args(["-t", kind.name()]);
        if source.is_file() {
            mount.args(["-o", "loop"]);
        }
        let run = Run::of(mount.arg(source).arg(mount_point));
        match run.succeeded() {
            true => Ok(Mounted {
                source: source.to_path_buf(),
                mount_point: Some(mount_point.to_path_buf()),
                kind,
            }),
            false => Err(run.to_string()),
        }
    }

    /// Unmounts it, and waits until it really is: a process that has just begun may hold a copy of
    /// the mounts.
    pub(crate) fn unmount(mut self) {
        let mount_point = self.mount_point.take().expect("mounted");
        wait_until("no process is in there any more", || {
            Run::of(tool("umount").arg(&mount_point)).succeeded()
        });
        wait_until("the loop device is free", || !is_behind_loop_device(&self.source));
        if self.kind == Kind::Btrfs {
            // It takes an older state of a disk that it remembers for another disk with the same
            // name.
            let _ = tool("btrfs").args(["device", "scan", "--forget"]).output();
        }
    }
}

/// Whether a loop device shows this file.
fn is_behind_loop_device(file: &Path) -> bool {
    let devices =
        fs::read_dir("/sys/block").expect("sysfs").map(|entry| entry.expect("an entry").path());
    let mut backing =
        devices.filter_map(|path| fs::read_to_string(path.join("loop/backing_file")).ok());
    backing.any(|path| Path::new(path.trim_end()) == file)
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(mount_point) = &self.mount_point {
            let _ = tool("umount").arg("--lazy").arg(mount_point).status();
        }
    }
}

/// Looks through an image that is not mounted, and changes nothing.
pub(crate) fn fsck(kind: Kind, image: &Path) -> Result<(), String> {
    let (name, arguments): (_, &[&str]) = match kind {
        Kind::Ext4 => ("e2fsck", &["-fn"]),
        Kind::Xfs => ("xfs_repair", &["-n", "-f"]),
        _ => ("btrfs", &["check", "--readonly"]),
    };
    let run = file_system::without_race(|| Run::of(tool(name).args(arguments).arg(image)));
    if run.succeeded() { Ok(()) } else { Err(run.to_string()) }
}
