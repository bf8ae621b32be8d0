//! A snapshot root: checked before anything in it is believed.
//!
//! The root is where a root-run program makes and removes whole trees, so it must be a place that
//! only the administrator controls, on the module's own file system, and belong to this one
//! module. Everything is checked on the opened directory, then used through that descriptor only.

use std::fs::{self, DirBuilder, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod, fstat, mkdirat};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, fstatfs};
use nix::unistd::{fsync, geteuid};
use serde::{Deserialize, Serialize};

use super::durable::{self, Place, c_name};
use super::lock::Guard;
use super::record::{FORMAT, first_line, to_toml};
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path};
use crate::tree::syscalls::{mount_of, open_directory, stat_entry};

/// Our directory in the root.
pub const PRIVATE: &str = ".rsyncd-snapshot";
const REGISTRATION: &str = "root.toml";

/// Directories within the private one.
const ROOMS: [&str; 3] = ["records", "staging", "expired"];

/// Which module a root belongs to: `root.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// Format number, at most [`FORMAT`].
    pub format: u32,
    /// The module's name, escaped; none if it was only ever given by its path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// The module's directory, escaped.
    pub path: String,
}

/// How a root is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Make and register what is missing.
    Register,
    /// Fail unless the root is registered already; make nothing but what is missing inside.
    Registered,
    /// Only look: change nothing at all.
    Look,
}

/// An opened, checked snapshot root with its module.
pub struct SnapshotRoot {
    /// The root's path.
    pub path: PathBuf,
    /// The module's path.
    pub module_path: PathBuf,
    private_path: PathBuf,
    directory: OwnedFd,
    module: OwnedFd,
    private: Option<OwnedFd>,
}

impl SnapshotRoot {
    /// Opens and checks the root at `path` for the module `name` at `module_path`, both canonical.
    ///
    /// # Errors
    /// [`Error::Root`] with the remedy if it cannot be trusted.
    pub fn open(path: &Path, module_path: &Path, name: Option<&[u8]>, access: Access) -> Result<Self> {
        check_places(path, module_path)?;
        if access == Access::Register {
            make_root(path)?;
        }
        let directory = open_path(path)?;
        let module = open_path(module_path)?;
        check_owner(path, &directory)?;
        check_mounts(path, &directory, module_path, &module)?;
        if access == Access::Register {
            warn_of_overlay(path, &directory);
        }
        let mut root = SnapshotRoot {
            path: path.to_path_buf(),
            module_path: module_path.to_path_buf(),
            private_path: path.join(PRIVATE),
            directory,
            module,
            private: None,
        };
        root.private = root.open_private(access)?;
        root.register(name, access)?;
        Ok(root)
    }

    /// The registration of the root at `path`, if there is one that can be read.
    pub fn registration(path: &Path) -> Option<Registration> {
        let private_path = path.join(PRIVATE);
        let directory = File::open(&private_path).ok()?;
        read_registration(Place { directory: directory.as_fd(), path: &private_path }).ok()?
    }

    /// The root directory.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// The module's directory.
    pub fn module(&self) -> BorrowedFd<'_> {
        self.module.as_fd()
    }

    /// Whether there is a private directory: always, unless the root was only looked at.
    pub fn is_registered(&self) -> bool {
        self.private.is_some()
    }

    /// Our directory in the root. Of a root that was only looked at and has none, the root itself,
    /// in which none of our files exist.
    pub fn private(&self) -> Place<'_> {
        match &self.private {
            Some(private) => Place { directory: private.as_fd(), path: &self.private_path },
            None => Place { directory: self.directory.as_fd(), path: &self.path },
        }
    }

    /// A directory within the private one.
    pub fn room(&self, name: &'static str) -> Result<Room> {
        let path = self.private().path.join(name);
        let opened = open_directory(self.private().directory, &c_name(name));
        let directory = opened.map_err(|cause| Error::io("open", &path, cause))?;
        Ok(Room { directory, path })
    }

    fn open_private(&self, access: Access) -> Result<Option<OwnedFd>> {
        let name = c_name(PRIVATE);
        let failed = |cause| Error::io("open", &self.private_path, cause);
        match stat_entry(self.directory(), &name) {
            Ok(stat) => self.check_private(&stat)?,
            Err(Errno::ENOENT) => match access {
                Access::Look => return Ok(None),
                Access::Registered => return Err(self.not_registered()),
                Access::Register => self.make_private()?,
            },
            Err(cause) => return Err(failed(cause)),
        }
        let private = open_directory(self.directory(), &name).map_err(failed)?;
        if access != Access::Look {
            for room in ROOMS {
                match mkdirat(&private, c_name(room).as_c_str(), Mode::S_IRWXU) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(cause) => return Err(Error::io("make", &self.private_path.join(room), cause)),
                }
            }
        }
        Ok(Some(private))
    }

    fn make_private(&self) -> Result<()> {
        let failed = |cause| Error::io("make", &self.private_path, cause);
        match mkdirat(self.directory(), c_name(PRIVATE).as_c_str(), Mode::S_IRWXU) {
            // Another hook was first.
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(cause) => return Err(failed(cause)),
        }
        // A set-gid bit or a default ACL of the root must not open it to others.
        let private = open_directory(self.directory(), &c_name(PRIVATE)).map_err(failed)?;
        fchmod(&private, Mode::S_IRWXU).map_err(failed)?;
        // A torn mark may soon be all that is in it, and must not be lost with it.
        fsync(self.directory()).map_err(|cause| Error::io("sync", &self.path, cause))
    }

    fn check_private(&self, stat: &nix::sys::stat::FileStat) -> Result<()> {
        let is_directory = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
        if is_directory && stat.st_mode & 0o777 == 0o700 && stat.st_uid == geteuid().as_raw() {
            return Ok(());
        }
        Err(refusal(
            &self.path,
            format!("its {PRIVATE} is not a directory of ours with mode 0700"),
            format!(
                "find out who made it; if it is yours, `chmod 0700` and `chown {}` it, else move it away",
                geteuid()
            ),
        ))
    }

    fn register(&self, name: Option<&[u8]>, access: Access) -> Result<()> {
        if !self.is_registered() {
            return Ok(());
        }
        let path = escape_path(&self.module_path);
        let module = name.map(escape);
        // Several hooks may find a new root at once.
        let _guard = (access != Access::Look).then(|| Guard::on_directory(self.private())).transpose()?;
        match read_registration(self.private())? {
            Some(found) if found.path != path => Err(refusal(
                &self.path,
                format!("is registered for the module directory {}", found.path),
                format!(
                    "give the other module a `snapshot_root` of its own; if the module has moved here, change `path` in {}",
                    self.private_path.join(REGISTRATION).display()
                ),
            )),
            Some(found) if module.is_some() && found.module.is_some() && found.module != module => {
                Err(refusal(
                    &self.path,
                    format!("is registered for the module '{}'", found.module.unwrap_or_default()),
                    format!(
                        "two modules on one directory: let only one of them run the hook; if the module was renamed, change `module` in {}",
                        self.private_path.join(REGISTRATION).display()
                    ),
                ))
            }
            Some(found) if found.module.is_some() || module.is_none() || access == Access::Look => Ok(()),
            Some(_) => self.write_registration(module, path),
            None => match access {
                Access::Register => self.write_registration(module, path),
                Access::Registered => Err(self.not_registered()),
                Access::Look => Ok(()),
            },
        }
    }

    fn write_registration(&self, module: Option<String>, path: String) -> Result<()> {
        let registration = Registration { format: FORMAT, module, path };
        durable::write(self.private(), REGISTRATION, &to_toml(&registration, self.private())?)
    }

    fn not_registered(&self) -> Error {
        refusal(
            &self.path,
            "has never been used, and the policy cannot be read".to_string(),
            "mend the policy first: it says where snapshots belong".to_string(),
        )
    }
}

/// An open directory within the private one.
pub struct Room {
    directory: OwnedFd,
    path: PathBuf,
}

impl Room {
    /// For work on its files.
    pub fn place(&self) -> Place<'_> {
        Place { directory: self.directory.as_fd(), path: &self.path }
    }
}

fn refusal(path: &Path, problem: String, remedy: String) -> Error {
    Error::Root { path: escape_path(path), problem, remedy }
}

/// Refuses what can be told from the two paths alone.
fn check_places(path: &Path, module_path: &Path) -> Result<()> {
    let own_directory =
        "give the module a directory of its own below it, such as ROOT/latest, or set `snapshot_root`";
    if path == Path::new("/") {
        return Err(refusal(path, "is the root directory".into(), own_directory.into()));
    }
    if path.starts_with(module_path) {
        return Err(refusal(
            path,
            "is inside the module, so clients could change snapshots".into(),
            "set `snapshot_root` to a directory outside the module".into(),
        ));
    }
    if module_path.starts_with(path) && module_path.parent() != Some(path) {
        return Err(refusal(
            path,
            format!("holds the module {} deeper than as its direct child", escape_path(module_path)),
            "set `snapshot_root` to the module's parent or to a directory beside it".into(),
        ));
    }
    Ok(())
}

/// Makes a configured root that does not exist yet; its parent must.
fn make_root(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Error::io("make the snapshot root", path, error)),
    }
}

fn open_path(path: &Path) -> Result<OwnedFd> {
    let opened =
        fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path);
    opened.map(OwnedFd::from).map_err(|cause| Error::io("open the directory", path, cause))
}

fn check_owner(path: &Path, directory: &OwnedFd) -> Result<()> {
    let stat = fstat(directory).map_err(|cause| Error::io("inspect", path, cause))?;
    if stat.st_mode & 0o022 != 0 {
        let problem = format!("is writable by others (mode {:04o})", stat.st_mode & 0o7777);
        return Err(refusal(path, problem, "run `chmod go-w` on it".into()));
    }
    if stat.st_uid != 0 && stat.st_uid != geteuid().as_raw() {
        let problem = format!("belongs to user {}, who could exchange snapshots", stat.st_uid);
        return Err(refusal(path, problem, format!("run `chown {}` on it", geteuid())));
    }
    Ok(())
}

/// Hard links need one file system and one mount.
fn check_mounts(path: &Path, directory: &OwnedFd, module_path: &Path, module: &OwnedFd) -> Result<()> {
    let mount = |directory: &OwnedFd, path| {
        mount_of(directory.as_fd()).map_err(|cause| Error::io("inspect", path, cause))
    };
    let (root_mount, module_mount) = (mount(directory, path)?, mount(module, module_path)?);
    if root_mount == module_mount {
        return Ok(());
    }
    let problem = match root_mount.0 == module_mount.0 {
        false => format!("is on another file system than the module {}", escape_path(module_path)),
        true => format!(
            "is another mount than the module {} (a bind mount?), and links cannot cross mounts",
            escape_path(module_path)
        ),
    };
    let is_mount_point = fs::metadata(module_path)
        .and_then(|module| Ok(module.dev() != fs::metadata(module_path.join(".."))?.dev()))
        .unwrap_or(false);
    let remedy = match is_mount_point {
        true => format!(
            "the module is a mount point itself: make a directory in it, such as {}/latest, the module's path",
            escape_path(module_path)
        ),
        false => {
            "set `snapshot_root` to a directory on the module's file system, in the same mount".to_string()
        }
    };
    Err(refusal(path, problem, remedy))
}

/// Linking on an overlay copies files up from the layer below, which splits groups of hard links.
fn warn_of_overlay(path: &Path, directory: &OwnedFd) {
    if fstatfs(directory).is_ok_and(|stat| stat.filesystem_type() == OVERLAYFS_SUPER_MAGIC) {
        log::warn!(
            "{} is on an overlay: files of its lower layer are copied rather than linked; use a file system of its own",
            escape_path(path)
        );
    }
}

fn read_registration(private: Place) -> Result<Option<Registration>> {
    let Some(text) = durable::read(private, REGISTRATION)? else { return Ok(None) };
    let path = private.path.join(REGISTRATION).display().to_string();
    let damaged = |problem| Error::Damaged { path, problem };
    let registration: Registration =
        toml::from_str(&text).map_err(|error| damaged.clone()(first_line(&error)))?;
    if registration.format > FORMAT {
        return Err(damaged(format!(
            "has format {}, this version reads up to {FORMAT}: a newer version has used this root",
            registration.format
        )));
    }
    Ok(Some(registration))
}

/// The module's directory as everything else here names it: absolute, without symbolic links.
///
/// # Errors
/// If it does not exist or is no directory.
pub fn canonical_module(path: &Path) -> Result<PathBuf> {
    let canonical =
        fs::canonicalize(path).map_err(|cause| Error::io("find the module directory", path, cause))?;
    let metadata = fs::metadata(&canonical).map_err(|cause| Error::io("inspect", path, cause))?;
    if !metadata.is_dir() || canonical.as_os_str().as_bytes() == b"/" {
        return Err(Error::Usage(format!(
            "the module path {} is not a directory of its own",
            escape_path(path)
        )));
    }
    Ok(canonical)
}
