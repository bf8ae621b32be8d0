//! What a snapshot root must be before anything in it is believed.
//!
//! A program with root's rights makes and removes whole trees in it. So only the administrator may
//! be able to change it, clients must not write there, and hard links from the module must be
//! possible. Each refusal says what to do.

use std::fs::{self, DirBuilder};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{FileStat, fstat};
use nix::unistd::geteuid;

use crate::decide::file_system::{Expectation, FileSystemType, without_hard_links};
use crate::decide::name::SnapshotName;
use crate::decide::policy::MethodChoice;
use crate::decide::root_access::{self, Entrance};
use crate::decide::zone::Zone;
use crate::store::dir::open_path;
use crate::store::layout::{PRIVATE, is_private};
use crate::store::method_of_root::{self, RootPlaces};
use crate::store::root_checks;
use crate::store::snapshot_method::SnapshotMethod;
use crate::system::identity::Identity;
use crate::system::mounts::Mounts;
use crate::system::syscalls::{MountIdentity, is_privileged, open_parent};
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path, shell_path};

/// A refusal of the root at `path`.
pub(crate) fn refusal(path: &Path, problem: String, remedy: String) -> Error {
    Error::Root { path: escape_path(path), problem, remedy }
}

/// Refuses a root if the two paths alone show that it cannot serve the module.
pub(crate) fn check_places(path: &Path, module_path: &Path) -> Result<()> {
    let own_directory = "give the module a directory of its own below it, such as ROOT/latest, or \
                         set `snapshot_root`";
    if path == Path::new("/") {
        return Err(refusal(path, "is the root directory".into(), own_directory.into()));
    }
    if path.starts_with(module_path) {
        return Err(inside_module(path));
    }
    let name = module_path.file_name().unwrap_or_default().as_bytes();
    if module_path.parent() == Some(path) && is_private(name) {
        return Err(refusal(
            path,
            format!("holds the module under a name of this program's own, {}", escape(name)),
            "call the module's directory something else, such as `latest`".into(),
        ));
    }
    if module_path.parent() == Some(path) && SnapshotName::parse(name, &Zone::utc()).is_some() {
        return Err(refusal(
            path,
            format!("holds the module under the name of a snapshot, {}", escape(name)),
            "call the module's directory something else, such as `latest`".into(),
        ));
    }
    if module_path.starts_with(path) && module_path.parent() != Some(path) {
        return Err(refusal(
            path,
            format!(
                "holds the module {} deeper than as its direct child",
                escape_path(module_path)
            ),
            "set `snapshot_root` to the module's parent or to a directory beside it".into(),
        ));
    }
    Ok(())
}

/// Refuses a root that others can change.
pub(crate) fn check_owner(path: &Path, directory: &OwnedFd) -> Result<()> {
    let stat = fstat(directory).map_err(|cause| Error::io("inspect", path, cause))?;
    if stat.st_mode & 0o022 != 0 {
        let problem = format!("is writable by others (mode {:04o})", stat.st_mode & 0o7777);
        let remedy = match kind_of(path).filter(FileSystemType::may_lack_modes) {
            None => format!("run `chmod go-w {}`", shell_path(path)),
            Some(kind) => format!(
                "its file system, {kind}, may take modes from mount options: mount it with \
                 `umask=077` or so that it keeps modes of its own, or run `chmod go-w {}` if it \
                 does",
                shell_path(path)
            ),
        };
        return Err(refusal(path, problem, remedy));
    }
    if stat.st_uid != 0 && stat.st_uid != geteuid().as_raw() {
        let problem = format!("belongs to user {}, who could exchange snapshots", stat.st_uid);
        return Err(refusal(
            path,
            problem,
            format!("run `chown {} {}`", geteuid(), shell_path(path)),
        ));
    }
    Ok(())
}

/// Whether users other than root can enter the root, and so remove their files from snapshots.
/// False for an ordinary user's root, which holds that user's files.
pub(crate) fn is_open(path: &Path, directory: &OwnedFd) -> Result<bool> {
    if !is_privileged() {
        return Ok(false);
    }
    let failed = |cause| Error::io("inspect", path, cause);
    let mut way = Vec::new();
    let mut directory = directory.try_clone().map_err(|cause| Error::io("open", path, cause))?;
    loop {
        let stat = fstat(&directory).map_err(failed)?;
        way.push(Entrance {
            mode: stat.st_mode & 0o7777,
            gid: stat.st_gid,
            has_acl: rustix::fs::fgetxattr(&directory, ACCESS_LIST, &mut [0u8; 0]).is_ok(),
        });
        if !root_access::is_open(&way) {
            return Ok(false);
        }
        directory = open_parent(directory.as_fd()).map_err(failed)?;
        let above = fstat(&directory).map_err(failed)?;
        if Identity::of(&above) == Identity::of(&stat) {
            return Ok(true);
        }
    }
}

/// The extended attribute that holds a file's access control list. A read without a buffer returns
/// its size.
const ACCESS_LIST: &str = "system.posix_acl_access";

/// Hard links need one file system and one mount.
pub(crate) fn check_mounts(
    path: &Path,
    directory: &OwnedFd,
    module_path: &Path,
    module: &OwnedFd,
) -> Result<()> {
    let mount = |directory: &OwnedFd, path| {
        MountIdentity::of(directory.as_fd()).map_err(|cause| Error::io("inspect", path, cause))
    };
    let (root_mount, module_mount) = (mount(directory, path)?, mount(module, module_path)?);
    if root_mount.admits(module_mount) {
        return Ok(());
    }
    let problem = match root_mount.device == module_mount.device {
        false => format!("is on another file system than the module {}", escape_path(module_path)),
        true => format!(
            "is another mount than the module {} (a bind mount?), and links cannot cross mounts",
            escape_path(module_path)
        ),
    };
    let above = open_parent(module.as_fd()).and_then(|above| MountIdentity::of(above.as_fd()));
    let own_directory = format!(
        "make a directory in it, such as {}, the module's path",
        escape_path(&module_path.join("latest"))
    );
    let remedy = match above {
        Ok(above) if module_mount.is_subvolume_below(above) => {
            format!("the module is a subvolume of its own: {own_directory}")
        }
        Ok(above) if !above.admits(module_mount) => format!(
            "the module is a mount point itself: {own_directory}, or mount the directory above \
             what is mounted there at {} instead",
            escape_path(module_path.parent().unwrap_or(module_path))
        ),
        _ => "take `snapshot_root` out of the policy, so that snapshots are beside the module, or \
              set it to a directory on the module's file system, in the same mount"
            .to_string(),
    };
    Err(refusal(path, problem, remedy))
}

/// Refuses a root that is inside the module, by walking up from the root to `/`: the two paths may
/// hide it, as with a bind mount.
pub(crate) fn check_outside(path: &Path, directory: &OwnedFd, module: &OwnedFd) -> Result<()> {
    let failed = |cause| Error::io("inspect", path, cause);
    let identity =
        |directory: &OwnedFd| fstat(directory).map(|stat| Identity::of(&stat)).map_err(failed);
    let module = identity(module)?;
    let mut directory = directory.try_clone().map_err(|cause| Error::io("open", path, cause))?;
    let mut here = identity(&directory)?;
    loop {
        if here == module {
            return Err(inside_module(path));
        }
        directory = open_parent(directory.as_fd()).map_err(failed)?;
        let above = identity(&directory)?;
        if above == here {
            return Ok(());
        }
        here = above;
    }
}

fn inside_module(path: &Path) -> Error {
    refusal(
        path,
        "is inside the module, so clients could change snapshots".into(),
        "set `snapshot_root` to a directory outside the module".into(),
    )
}

/// The type of the file system that `path` is on, if the kernel tells.
pub(crate) fn kind_of(path: &Path) -> Option<FileSystemType> {
    Mounts::read()?.kind_of(path).cloned()
}

/// Refuses a file system that is known to have no hard links.
pub(crate) fn check_kind(path: &Path, kind: Option<&FileSystemType>) -> Result<()> {
    match kind.filter(|kind| kind.expectation() == Expectation::NoHardLinks) {
        None => Ok(()),
        Some(kind) => Err(no_hard_links(path, kind)),
    }
}

/// [`no_hard_links`] for a root on the file system of the directory `place`.
pub(crate) fn no_links_at(path: &Path, place: &Path) -> Error {
    let kind = kind_of(place).unwrap_or_else(|| FileSystemType("of an unknown type".to_string()));
    no_hard_links(path, &kind)
}

/// Refuses a root that does not exist yet if it could not be used where it would be made. Returns
/// its parent directory.
pub(crate) fn check_future(
    path: &Path,
    module_path: &Path,
    choice: MethodChoice,
) -> Result<PathBuf> {
    check_places(path, module_path)?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    let kind = kind_of(parent);
    check_kind(path, kind.as_ref())?;
    let (directory, module) = (open_path(parent)?, open_path(module_path)?);
    let places =
        RootPlaces { root: (path, directory.as_fd()), module: (module_path, Some(module.as_fd())) };
    let found = method_of_root::of_root(places, choice, kind.as_ref(), || Ok(None))?;
    if let Some(refusal) = found.refusal {
        return Err(refusal.of_root(path));
    }
    if found.method == SnapshotMethod::HardLinks {
        check_mounts(path, &directory, module_path, &module)?;
    }
    Ok(parent.to_path_buf())
}

/// Refuses a root of which nothing but the directories above it may exist yet, if it could not be
/// used. `path` and `module_path` are without symbolic links.
pub(crate) fn check_planned(path: &Path, module_path: &Path) -> Result<()> {
    check_places(path, module_path)?;
    let is_there = |above: &&Path| above.symlink_metadata().is_ok();
    let nearest = path.ancestors().find(is_there).unwrap_or(Path::new("/"));
    check_kind(path, kind_of(nearest).as_ref())?;
    match nearest == path {
        true => check_owner(path, &open_path(path)?),
        false => open_path(nearest).map(|_| ()),
    }
    .map_err(|error| explained(path, error))
}

pub(crate) fn no_hard_links(path: &Path, kind: &FileSystemType) -> Error {
    let (problem, remedy) = without_hard_links(kind);
    refusal(path, problem, remedy)
}

/// `error`, or a refusal with the remedy if a file is in the place of the root or of a directory
/// above it.
pub(crate) fn explained(path: &Path, error: Error) -> Error {
    if !error.is_not_a_directory() {
        return error;
    }
    let is_file = |path: &&Path| fs::metadata(path).is_ok_and(|found| !found.is_dir());
    let problem = match path.ancestors().find(is_file) {
        Some(file) if file != path => format!("{} is not a directory", escape_path(file)),
        Some(_) => "is not a directory".to_string(),
        None => return error,
    };
    refusal(path, problem, "move that file away, or correct `snapshot_root`".into())
}

/// The root at `path` is that of the user `owner`, and this process is not root.
pub(crate) fn of_another_user(path: &Path, owner: u32) -> Error {
    refusal(
        path,
        format!("its {PRIVATE} belongs to user {owner}, and you are user {}", geteuid()),
        format!(
            "run this command as that user, such as with sudo; if that user has no business there, \
             find out who made {}",
            shell_path(&path.join(PRIVATE))
        ),
    )
}

/// Refuses a `.rsyncd-snapshot` that other users may enter or own.
pub(crate) fn check_private(path: &Path, stat: &FileStat) -> Result<()> {
    let is_directory = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
    if is_directory && stat.st_mode & 0o777 == 0o700 && stat.st_uid == geteuid().as_raw() {
        return Ok(());
    }
    let own = shell_path(&path.join(PRIVATE));
    if stat.st_uid != geteuid().as_raw() && !geteuid().is_root() {
        return Err(of_another_user(path, stat.st_uid));
    }
    let kind = match stat.st_mode & libc::S_IFMT {
        libc::S_IFDIR => None,
        libc::S_IFREG => Some("a file"),
        libc::S_IFLNK => Some("a symbolic link"),
        libc::S_IFIFO => Some("a pipe"),
        _ => Some("neither a file nor a directory"),
    };
    if let Some(kind) = kind {
        return Err(refusal(
            path,
            format!("its {PRIVATE} is {kind}, and not the directory of this program"),
            format!("find out who made it, and move it away: `mv {own} {own}.other`"),
        ));
    }
    Err(refusal(
        path,
        format!("its {PRIVATE} is not a directory of ours with mode 0700"),
        format!(
            "find out who made it; if it is yours, run `chmod 0700 {own}` and `chown {} {own}`, \
             else \
             move it away",
            geteuid()
        ),
    ))
}

/// Makes a configured root if it does not exist. Its parent must exist.
pub(crate) fn make_root(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && !path.is_symlink() => {
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(root_checks::refusal(
                path,
                "is a symbolic link that leads nowhere".into(),
                "make what it points to (is its disk mounted?), or correct `snapshot_root`".into(),
            ))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(without_parent(path)),
        Err(error) => Err(Error::io("make the snapshot root", path, error)),
    }
}

/// The refusal of a root whose parent directory does not exist.
pub(crate) fn without_parent(path: &Path) -> Error {
    let remedy = format!(
        "mount its disk, or make the parent (`install -d -m 0700 {}`), or correct `snapshot_root`",
        shell_path(path.parent().unwrap_or(path))
    );
    refusal(path, "does not exist, nor does its parent".into(), remedy)
}
