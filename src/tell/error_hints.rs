//! What an administrator can do about errors of the system that do not explain themselves.

use std::io;

/// What failed if a subvolume has got no snapshot.
pub(crate) const MAKE_SNAPSHOT: &str = "make the snapshot";

/// What failed if the directory of a module has got no snapshot by CephFS.
pub(crate) const MAKE_CEPHFS_SNAPSHOT: &str = "make the CephFS snapshot";

/// What failed if such a snapshot is still there.
pub(crate) const REMOVE_CEPHFS_SNAPSHOT: &str = "remove the CephFS snapshot";

/// What an administrator can do about the causes that do not explain themselves.
pub(super) fn hint(operation: &str, cause: &io::Error) -> &'static str {
    // To open or read a file needs no link between module and root.
    let only_looks =
        ["open", "read", "inspect", "return to"].iter().any(|look| operation.starts_with(look));
    match cause.raw_os_error() {
        Some(libc::EXDEV) if only_looks => {
            " (another file system is mounted there: `umount` it; or it is a btrfs subvolume)"
        }
        Some(libc::EBUSY) if operation.starts_with("remove") => {
            " (something may be mounted on it: `umount` it)"
        }
        Some(libc::EXDEV) => {
            " (module and snapshot root must be on one file system and one mount: no bind mount, \
             separate ReadWritePaths= or project quota between them)"
        }
        Some(libc::ENOSPC) => " (free space or inodes; existing snapshots were not touched)",
        Some(libc::EDQUOT) => " (raise the quota; existing snapshots were not touched)",
        Some(libc::EMLINK) if operation == MAKE_CEPHFS_SNAPSHOT => {
            " (`mds_max_snaps_per_dir`, 100 by default; snapshots of directories above count, too, \
             and retired ones: raise it by `ceph config set mds mds_max_snaps_per_dir N`, or keep \
             fewer by `keep` or a shorter `grace` and run `rotate --confirm`)"
        }
        Some(libc::EACCES)
            if operation == MAKE_CEPHFS_SNAPSHOT || operation == REMOVE_CEPHFS_SNAPSHOT =>
        {
            " (the key that it is mounted with needs the right `s`, as in `allow rws`)"
        }
        Some(libc::EPERM) if operation == MAKE_CEPHFS_SNAPSHOT => {
            " (snapshots may be turned off: `ceph fs set NAME allow_new_snaps true`)"
        }
        Some(libc::EPERM) if operation.ends_with("device") => {
            " (to make a device needs CAP_MKNOD: restore it as root)"
        }
        Some(libc::EPERM) if operation == MAKE_SNAPSHOT => {
            " (only root and the owner of a subvolume can make a snapshot of it)"
        }
        Some(libc::ETXTBSY) if operation == MAKE_SNAPSHOT => {
            " (a swap file in the module is in use: run `swapoff`, and keep it elsewhere)"
        }
        Some(libc::EPERM) => {
            " (an immutable or append-only flag, or fs.protected_hardlinks for a user without \
             CAP_FOWNER)"
        }
        _ => "",
    }
}
