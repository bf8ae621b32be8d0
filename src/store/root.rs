//! A snapshot root: checked before anything in it is believed.
//!
//! A program with root's rights makes and removes whole trees in it. So only the administrator may
//! control the directory, it must be on the module's file system, and it must belong to this one
//! module. Everything is checked on the opened directory and then used through that descriptor
//! only, so a path that changes in between changes nothing.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod, fstat, mkdirat};
use nix::unistd::fsync;

use crate::decide::file_system::{Expectation, FileSystemType};
use crate::decide::policy::MethodChoice;
use crate::engine::remove::Remains;
use crate::store::dir::{Dir, OwnedDir, c_name, open_followed, open_path};
use crate::store::layout::{PRIVATE, Subdir};
use crate::store::link_trial::{self, LinkTrial};
use crate::store::lock::DirLock;
use crate::store::method_of_root::{self, MethodRefusal, RootMethod, RootPlaces};
use crate::store::module_directory::missing_module;
use crate::store::registration::Registration;
use crate::store::root_checks::{self, make_root};
use crate::store::snapshot_method::{self, SealedTrees, SnapshotMethod};
use crate::system::btrfs::Subvolume;
use crate::system::mounts::note_mounts_below;
use crate::system::syscalls::{open_directory, stat_entry};
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape_path, shell_path};

/// How a root is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootAccess {
    /// Make and register what is missing.
    Register,
    /// Make the directories that are missing, but register nothing. They must exist before this
    /// process restricts itself to them.
    Prepare,
    /// Fail unless the root is registered already; make nothing but what is missing inside.
    Registered,
    /// Only look: change nothing at all.
    Look,
}

impl RootAccess {
    fn makes(self) -> bool {
        matches!(self, RootAccess::Register | RootAccess::Prepare)
    }
}

/// An opened, checked snapshot root with its module.
pub struct SnapshotRoot {
    /// The root's path.
    pub path: PathBuf,
    /// The module's path.
    pub module_path: PathBuf,
    private_path: PathBuf,
    directory: OwnedFd,
    /// The module's directory; none if it does not exist.
    module: Option<OwnedFd>,
    private: Option<OwnedFd>,
    /// The type of its file system, if the kernel tells.
    pub(crate) kind: Option<FileSystemType>,
    method: SnapshotMethod,
    /// Why no snapshot can be made in that way now.
    method_refusal: Option<MethodRefusal>,
    /// The directory that the snapshots are in, if that is not the root itself.
    snapshots: Option<OwnedDir>,
    /// The result of a trial of hard links, if one was made.
    pub(crate) trial: Option<LinkTrial>,
    has_lost_records: bool,
}

impl SnapshotRoot {
    /// Opens and checks the root at `path` for the module `name` at `module_path`, both canonical.
    ///
    /// # Errors
    /// [`Error::Root`] with the remedy if it cannot be trusted.
    pub fn open(
        path: &Path,
        module_path: &Path,
        name: Option<&[u8]>,
        access: RootAccess,
        choice: MethodChoice,
    ) -> Result<Self> {
        root_checks::check_places(path, module_path)?;
        if access.makes() {
            make_root(path).map_err(|error| root_checks::explained(path, error))?;
        }
        note_mounts_below(&[path, module_path]);
        let directory = open_path(path).map_err(|error| root_checks::explained(path, error))?;
        let module = match open_path(module_path) {
            // The history of a module whose directory was lost can still be read and kept.
            Err(error) if error.is_not_found() && !access.makes() => None,
            opened => Some(opened?),
        };
        let kind = root_checks::kind_of(path);
        root_checks::check_kind(path, kind.as_ref())?;
        root_checks::check_owner(path, &directory)?;
        if let Some(module) = &module {
            root_checks::check_outside(path, &directory, module)?;
        }
        let places = RootPlaces {
            root: (path, directory.as_fd()),
            module: (module_path, module.as_ref().map(OwnedFd::as_fd)),
        };
        let registered = || Ok(Self::registration(path)?.map(|found| found.method()));
        let RootMethod { method, refusal: method_refusal, snapshots } =
            method_of_root::of_root(places, choice, kind.as_ref(), registered)?;
        // What is in the root can be read, and expire, all the same.
        if let Some(refusal) = method_refusal.clone().filter(|_| access.makes()) {
            return Err(refusal.of_root(path));
        }
        let by_links = method == SnapshotMethod::HardLinks && method_refusal.is_none();
        if let Some(module) = module.as_ref().filter(|_| by_links) {
            root_checks::check_mounts(path, &directory, module_path, module)?;
        }
        let mut root = SnapshotRoot {
            path: path.to_path_buf(),
            module_path: module_path.to_path_buf(),
            private_path: path.join(PRIVATE),
            directory,
            module,
            private: None,
            kind,
            method,
            method_refusal,
            snapshots,
            trial: None,
            has_lost_records: false,
        };
        if let Some(advice) = root.file_system_advice().filter(|_| access == RootAccess::Register) {
            log::warn!("{advice}");
        }
        root.private = root.open_private(access)?;
        root.register(name, access)?;
        Ok(root)
    }

    /// The registration of the root at `path`, if there is one that this process may read and can
    /// understand.
    ///
    /// # Errors
    /// If reading fails, so that there may be one.
    pub fn registration(path: &Path) -> Result<Option<Registration>> {
        let private_path = path.join(PRIVATE);
        let directory = match open_followed(&private_path) {
            Ok(directory) => directory,
            Err(cause)
                if matches!(
                    cause.raw_os_error(),
                    Some(libc::ENOENT | libc::ENOTDIR | libc::EACCES | libc::ELOOP)
                ) =>
            {
                return Ok(None);
            }
            Err(cause) => return Err(Error::io("open", &private_path, cause)),
        };
        match Registration::read(Dir { directory: directory.as_fd(), path: &private_path }) {
            Err(Error::Damaged { .. }) => Ok(None),
            read => read,
        }
    }

    /// Its path for messages, escaped.
    pub fn label(&self) -> String {
        escape_path(&self.path)
    }

    /// The warning if users other than root could remove their files from snapshots.
    ///
    /// # Errors
    /// If a directory on the way to the root cannot be inspected.
    pub fn open_to_users(&self) -> Result<Option<String>> {
        // Nothing can be removed from sealed snapshots.
        let is_open = !self.has_only_sealed() && root_checks::is_open(&self.path, &self.directory)?;
        let path = shell_path(&self.path);
        Ok(is_open.then(|| {
            format!(
                "users who own directories in snapshots can remove files from them, since the \
                 snapshot \
                 root lets others in: run `chmod 0700 {path}`, or if it is open on purpose (for \
                 Samba, \
                 or a restore module with another uid) set `open_root = true` in the policy"
            )
        }))
    }

    /// What its snapshots are made by.
    pub(crate) fn method(&self) -> SnapshotMethod {
        self.method
    }

    /// Fails if no snapshot can be made in that way now.
    ///
    /// # Errors
    /// [`Error::Root`] with the remedy.
    pub(crate) fn check_method(&self) -> Result<()> {
        match &self.method_refusal {
            Some(refusal) => Err(refusal.clone().of_root(&self.path)),
            None => Ok(()),
        }
    }

    /// Whether trees in it can be subvolumes.
    pub(crate) fn may_have_subvolumes(&self) -> bool {
        self.kind.as_ref().is_some_and(FileSystemType::is_btrfs)
    }

    /// The module's subvolume as it is now; none if its directory is not the root of one.
    pub(crate) fn subvolume(&self) -> Option<Subvolume> {
        let module = self.module.as_ref().filter(|_| self.may_have_subvolumes())?;
        Subvolume::of(module.as_fd()).ok().flatten()
    }

    /// Removes the trees `names` in `parent`, a directory of this root, as
    /// [`snapshot_method::remove`] does.
    ///
    /// # Errors
    /// If `parent` cannot be opened.
    pub(crate) fn remove(&self, parent: Dir, names: &[CString]) -> Result<(u64, Vec<Remains>)> {
        let sealed = match &self.snapshots {
            Some(snapshots) if snapshots.path == parent.path => SealedTrees::AllOfCephFs,
            _ if self.may_have_subvolumes() => SealedTrees::Subvolumes(self.subvolume()),
            _ => SealedTrees::None,
        };
        snapshot_method::remove(parent, names, sealed)
    }

    /// The directory that its snapshots are in: the root itself, or that of CephFS in the module.
    pub(crate) fn snapshots(&self) -> Dir<'_> {
        self.snapshots.as_ref().map_or_else(|| self.dir(), OwnedDir::dir)
    }

    /// Whether all trees in [`snapshots`](Self::snapshots) are sealed, and none lies elsewhere.
    pub(crate) fn has_only_sealed(&self) -> bool {
        self.snapshots.is_some()
    }

    /// The root directory, with its path.
    pub(crate) fn dir(&self) -> Dir<'_> {
        Dir { directory: self.directory.as_fd(), path: &self.path }
    }

    /// The root directory.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// The module's directory.
    ///
    /// # Errors
    /// If it did not exist when the root was opened. So no run takes a lost tree for an empty one.
    pub fn module(&self) -> Result<BorrowedFd<'_>> {
        let missing = || missing_module(&self.module_path);
        self.module.as_ref().map(OwnedFd::as_fd).ok_or_else(missing)
    }

    /// Whether there is a private directory that is in use: always, but for [`RootAccess::Look`].
    pub fn is_registered(&self) -> bool {
        self.private.is_some()
    }

    /// `.rsyncd-snapshot` in the root. If [`RootAccess::Look`] found none, the root itself, in
    /// which none of our files exist.
    pub fn private(&self) -> Dir<'_> {
        match &self.private {
            Some(private) => Dir { directory: private.as_fd(), path: &self.private_path },
            None => Dir { directory: self.directory.as_fd(), path: &self.path },
        }
    }

    /// A directory within the private one.
    pub fn subdir(&self, subdir: Subdir) -> Result<OwnedDir> {
        let name = subdir.name();
        let path = self.private().path.join(name);
        let opened = open_directory(self.private().directory, &c_name(name));
        let directory = opened.map_err(|cause| Error::io("open", &path, cause))?;
        Ok(OwnedDir { directory, path })
    }

    /// The warning that `records` is missing.
    pub fn lost_records(&self) -> String {
        format!(
            "{} was missing: what was recorded of snapshots (client, status, counts, how long they \
             stayed current) is lost; they are kept and rotated by their names alone. Bring it \
             back \
             from a backup of the disk if there is one; otherwise the next run makes it anew and \
             `rotate --confirm` ends this warning",
            escape_path(&self.private_path.join(Subdir::Records.name()))
        )
    }

    /// Whether opening it has made a `records` anew that a registered root should have had.
    pub fn has_lost_records(&self) -> bool {
        self.has_lost_records
    }

    fn open_private(&mut self, access: RootAccess) -> Result<Option<OwnedFd>> {
        let name = c_name(PRIVATE);
        let failed = |cause| Error::io("open", &self.private_path, cause);
        match stat_entry(self.directory(), &name) {
            Ok(stat) => root_checks::check_private(&self.path, &stat)?,
            Err(Errno::ENOENT) => match access {
                RootAccess::Look => return Ok(None),
                RootAccess::Registered => return Err(self.not_registered()),
                RootAccess::Register | RootAccess::Prepare => self.make_private()?,
            },
            Err(cause) => return Err(failed(cause)),
        }
        let private = open_directory(self.directory(), &name).map_err(failed)?;
        if access != RootAccess::Look {
            for subdir in Subdir::ALL {
                let name = subdir.name();
                match mkdirat(&private, c_name(name).as_c_str(), Mode::S_IRWXU) {
                    // A root is registered only after all subdirectories were made, so this one was
                    // removed.
                    Ok(()) if subdir == Subdir::Records => {
                        let dir = Dir { directory: private.as_fd(), path: &self.private_path };
                        self.has_lost_records = Registration::is_there(dir);
                    }
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(cause) => {
                        return Err(Error::io("make", &self.private_path.join(name), cause));
                    }
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
        // The mode is set once more, because a set-gid bit or a default ACL of the root may have
        // opened the new directory to others.
        let private = open_directory(self.directory(), &c_name(PRIVATE)).map_err(failed)?;
        fchmod(&private, Mode::S_IRWXU).map_err(failed)?;
        // The directory is made durable now: a torn mark may soon be in it, and must not be lost
        // with it.
        fsync(self.directory()).map_err(|cause| Error::io("sync", &self.path, cause))
    }

    fn register(&mut self, name: Option<&[u8]>, access: RootAccess) -> Result<()> {
        if !self.is_registered() {
            return Ok(());
        }
        // Several hooks may find a new root at once.
        let may_write = !matches!(access, RootAccess::Look | RootAccess::Prepare);
        let _guard = may_write.then(|| DirLock::on_directory(self.private())).transpose()?;
        let inode = self.module.as_ref().filter(|_| self.has_only_sealed());
        let inode = inode.and_then(|module| Some(fstat(module).ok()?.st_ino));
        let wanted = Registration::new(name, &self.module_path)
            .with_method(self.method)
            .with_module_inode(inode);
        let found = Registration::read(self.private())?;
        if let Some((problem, remedy)) =
            found.as_ref().and_then(|found| found.refuses(&wanted, self.private()))
        {
            return Err(root_checks::refusal(&self.path, problem, remedy));
        }
        let gains_name =
            found.as_ref().is_some_and(|found| found.module.is_none() && wanted.module.is_some());
        let gains_method = access == RootAccess::Register
            && found.as_ref().is_some_and(|found| {
                found.method() != self.method || found.lacks_inode_of(&wanted)
            });
        match (found, access) {
            // A run was killed, or power failed, while the root was being made: subdirectories may
            // be missing. All are empty, because files are written only after the registration.
            (None, RootAccess::Look) => {
                self.private = None;
                Ok(())
            }
            (Some(_), RootAccess::Look) | (_, RootAccess::Prepare) => Ok(()),
            (None, RootAccess::Registered) => Err(self.not_registered()),
            (None, RootAccess::Register) => {
                self.trial = self.try_links()?;
                wanted.write(self.private())
            }
            (Some(_), _) if gains_name || gains_method => wanted.write(self.private()),
            (Some(_), _) => Ok(()),
        }?;
        if access == RootAccess::Register
            && self.trial.is_none()
            && self.expectation() == Expectation::Untried
        {
            self.trial = self.try_links()?;
        }
        Ok(())
    }

    /// A trial of hard links, under the lock of the private directory; none if the disk is full.
    fn try_links(&self) -> Result<Option<LinkTrial>> {
        if self.method != SnapshotMethod::HardLinks {
            return Ok(None);
        }
        match link_trial::of_links(self.subdir(Subdir::Drafts)?.dir()) {
            Ok(LinkTrial::NoLinks) => Err(root_checks::no_hard_links(&self.path, &self.kind())),
            Ok(trial) => Ok(Some(trial)),
            Err(cause) => {
                log::debug!("{}: hard links could not be tried: {cause}", self.label());
                Ok(None)
            }
        }
    }

    /// `error`, or the refusal of the root if its file system has no hard links.
    pub(crate) fn explained(&self, error: Error) -> Error {
        if !error.is_refusal() {
            return error;
        }
        let tried = DirLock::on_directory(self.private()).and_then(|_guard| self.try_links());
        tried.err().filter(|refusal| matches!(refusal, Error::Root { .. })).unwrap_or(error)
    }

    fn not_registered(&self) -> Error {
        Error::Unregistered { path: escape_path(&self.path) }
    }
}
