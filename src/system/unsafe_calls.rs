//! All unsafe code of the crate: calls that no maintained library wraps. Each is wrapped here so
//! that its callers need no unsafe code, and does nothing else.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use linux_raw_sys::btrfs::{
    btrfs_ioctl_fs_info_args, btrfs_ioctl_get_subvol_info_args, btrfs_ioctl_vol_args,
    btrfs_ioctl_vol_args_v2,
};
use linux_raw_sys::ioctl::{
    BTRFS_IOC_FS_INFO, BTRFS_IOC_GET_SUBVOL_INFO, BTRFS_IOC_SNAP_CREATE_V2, BTRFS_IOC_SNAP_DESTROY,
    BTRFS_IOC_SUBVOL_GETFLAGS, BTRFS_IOC_SUBVOL_SETFLAGS, BTRFS_IOC_SYNC,
};
use nix::errno::Errno;
use rustix::ioctl::{Getter, NoArg, Setter, Updater, ioctl};

use crate::system::identity::SysResult;

const WHO_PROCESS: libc::c_long = 1;

/// Lets all threads share one heap of glibc. Where it is refused, all stays as it was.
pub(crate) fn use_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes numbers only, and does no harm at any time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Sets the disk priority of the calling thread, in the form of ioprio_set(2).
pub(crate) fn set_io_priority(priority: i32) -> io::Result<()> {
    let (own, priority): (libc::c_long, libc::c_long) = (0, priority.into());
    // SAFETY: takes numbers only; the process with id 0 is the caller.
    match unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, own, priority) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The number of listxattrat(2) on these architectures. Linux has it since 6.13.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
const LISTXATTRAT: libc::c_long = 465;

/// The names of the extended attributes of the entry `name`; of a symbolic link, its own. Returns
/// their length, which an empty buffer only asks for.
///
/// # Errors
/// `ENOSYS` if the kernel lacks the call, or the program was built without its number.
pub(crate) fn list_xattrs_at(
    directory: BorrowedFd,
    name: &CStr,
    buffer: &mut [u8],
) -> rustix::io::Result<usize> {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
    {
        let no_follow = libc::c_long::from(libc::AT_SYMLINK_NOFOLLOW);
        let directory = libc::c_long::from(directory.as_raw_fd());
        // SAFETY: the name ends with a zero byte, and the kernel writes at most as many bytes as
        // the buffer has; both outlive the call.
        let length = unsafe {
            libc::syscall(
                LISTXATTRAT,
                directory,
                name.as_ptr(),
                no_follow,
                buffer.as_mut_ptr(),
                buffer.len(),
            )
        };
        usize::try_from(length).map_err(|_| {
            rustix::io::Errno::from_io_error(&io::Error::last_os_error())
                .unwrap_or(rustix::io::Errno::IO)
        })
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
    {
        let _ = (directory, name, buffer);
        Err(rustix::io::Errno::NOSYS)
    }
}

/// What the kernel tells of the subvolume that `directory` is in.
pub(crate) fn subvolume_info(directory: BorrowedFd) -> SysResult<btrfs_ioctl_get_subvol_info_args> {
    type Info = Getter<{ BTRFS_IOC_GET_SUBVOL_INFO }, btrfs_ioctl_get_subvol_info_args>;
    // SAFETY: the kernel's header gives this number this structure, which holds only numbers; the
    // kernel writes all of it.
    unsafe { ioctl(directory, Info::new()) }.map_err(errno)
}

/// What the kernel tells of the btrfs that `directory` is in.
pub(crate) fn btrfs_info(directory: BorrowedFd) -> SysResult<btrfs_ioctl_fs_info_args> {
    type Info = Getter<{ BTRFS_IOC_FS_INFO }, btrfs_ioctl_fs_info_args>;
    // SAFETY: as for `subvolume_info`.
    unsafe { ioctl(directory, Info::new()) }.map_err(errno)
}

/// The flags of the subvolume whose root `directory` is.
pub(crate) fn subvolume_flags(directory: BorrowedFd) -> SysResult<u64> {
    type Flags = Getter<{ BTRFS_IOC_SUBVOL_GETFLAGS }, u64>;
    // SAFETY: the kernel's header gives this call a u64, which the kernel writes.
    unsafe { ioctl(directory, Flags::new()) }.map_err(errno)
}

/// Sets the flags of the subvolume whose root `directory` is.
pub(crate) fn set_subvolume_flags(directory: BorrowedFd, flags: u64) -> SysResult<()> {
    type Flags = Setter<{ BTRFS_IOC_SUBVOL_SETFLAGS }, u64>;
    // SAFETY: the kernel's header gives this call a u64, which the kernel reads.
    unsafe { ioctl(directory, Flags::new(flags)) }.map_err(errno)
}

/// Makes `name` in `parent` a snapshot of the subvolume whose root `source` is, with these flags.
pub(crate) fn snapshot_subvolume(
    source: BorrowedFd,
    parent: BorrowedFd,
    name: &CStr,
    flags: u64,
) -> SysResult<()> {
    type Create = Setter<{ BTRFS_IOC_SNAP_CREATE_V2 }, btrfs_ioctl_vol_args_v2>;
    // SAFETY: the structure holds numbers and a pointer that may be null; all may be zero.
    let mut args: btrfs_ioctl_vol_args_v2 = unsafe { std::mem::zeroed() };
    args.fd = source.as_raw_fd().into();
    args.flags = flags;
    // SAFETY: both fields of this union are bytes at the same place.
    put_name(unsafe { &mut args.__bindgen_anon_2.name }, name)?;
    // SAFETY: the kernel's header gives this call this structure, which the kernel reads; the name
    // in it ends with a zero byte, and `source` is open during the call.
    unsafe { ioctl(parent, Create::new(args)) }.map_err(errno)
}

/// Removes the subvolume `name` from `parent` with all that is in it.
pub(crate) fn destroy_subvolume(parent: BorrowedFd, name: &CStr) -> SysResult<()> {
    type Destroy = Setter<{ BTRFS_IOC_SNAP_DESTROY }, btrfs_ioctl_vol_args>;
    let mut args = btrfs_ioctl_vol_args { fd: 0, name: [0; 4088] };
    put_name(&mut args.name, name)?;
    // SAFETY: the kernel's header gives this call this structure, which the kernel reads; the name
    // in it ends with a zero byte.
    unsafe { ioctl(parent, Destroy::new(args)) }.map_err(errno)
}

/// The argument of the call that tells of removed subvolumes (Linux 6.13).
#[repr(C)]
struct SubvolumeWait {
    subvolume: u64,
    mode: u32,
    count: u32,
}

/// Its number, by the kernel's `include/uapi/linux/btrfs.h`.
const SUBVOL_SYNC_WAIT: u32 = 0x4010_9441;

/// The mode that only counts.
const COUNT_REMOVED: u32 = 2;

/// How many removed subvolumes of the btrfs that `directory` is in still take space.
pub(crate) fn removed_subvolumes(directory: BorrowedFd) -> SysResult<u32> {
    type Wait<'a> = Updater<'a, { SUBVOL_SYNC_WAIT }, SubvolumeWait>;
    let mut wait = SubvolumeWait { subvolume: 0, mode: COUNT_REMOVED, count: 0 };
    // SAFETY: the kernel's header gives this call this structure, which the kernel reads and
    // writes.
    unsafe { ioctl(directory, Wait::new(&mut wait)) }.map_err(errno)?;
    Ok(wait.count)
}

/// Syncs the btrfs that `directory` is in, and lets it begin to free the space of what was removed.
pub(crate) fn sync_btrfs(directory: BorrowedFd) -> SysResult<()> {
    // SAFETY: this call has no argument.
    unsafe { ioctl(directory, NoArg::<{ BTRFS_IOC_SYNC }>::new()) }.map_err(errno)
}

/// Copies a name into a field that is all zero, and leaves at least one zero byte behind it.
fn put_name(field: &mut [libc::c_char], name: &CStr) -> SysResult<()> {
    let bytes = name.to_bytes();
    if bytes.len() >= field.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    for (to, from) in field.iter_mut().zip(bytes) {
        *to = from.cast_signed();
    }
    Ok(())
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}
