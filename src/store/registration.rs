//! Which module a root belongs to: `root.toml`.
//!
//! Snapshots of two modules in one root would expire each other. So the first module registers the
//! root, and every other module is refused.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::engine::responsiveness::is_responsive;
use crate::store::dir::{self, Dir, c_name};
use crate::store::format::{FORMAT, FORMAT_WITH_METHOD, ParsedTexts, to_toml};
use crate::store::layout::REGISTRATION_FILE;
use crate::store::snapshot_method::SnapshotMethod;
use crate::system::syscalls::stat_entry;
use crate::tell::error::Result;
use crate::tell::escape::{escape, escape_path, unescape};

/// The module that a root belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// Format number: [`FORMAT_WITH_METHOD`] if it has a method.
    pub format: u32,
    /// The module's name, escaped; none if it was only ever given by its path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// The module's directory, escaped.
    pub path: String,
    /// What snapshots are made by; none for hard links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<OtherMethod>,
    /// The inode number of the module's directory, if its snapshots are in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    module_inode: Option<u64>,
}

/// A method that earlier versions did not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OtherMethod {
    Btrfs,
    CephFs,
}

/// Whether a directory of that path exists, without waiting for a server that does not answer.
fn is_there(path: &[u8]) -> bool {
    let path = Path::new(OsStr::from_bytes(path));
    is_responsive(path) && path.is_dir()
}

static KNOWN: ParsedTexts<Registration> = ParsedTexts::up_to(FORMAT_WITH_METHOD, 1, 8 << 10);

impl Registration {
    /// The registration of the module `name` in the directory `path`.
    pub fn new(name: Option<&[u8]>, path: &Path) -> Self {
        Registration {
            format: FORMAT,
            module: name.map(escape),
            path: escape_path(path),
            method: None,
            module_inode: None,
        }
    }

    /// The same for a module whose directory has this inode number and holds the snapshots.
    pub(crate) fn with_module_inode(self, module_inode: Option<u64>) -> Self {
        Registration { module_inode, ..self }
    }

    /// Whether it lacks what `wanted` says of the module's directory.
    pub(crate) fn lacks_inode_of(&self, wanted: &Registration) -> bool {
        self.module_inode.is_none() && wanted.module_inode.is_some()
    }

    /// The same with snapshots that are made by `method`.
    pub(crate) fn with_method(self, method: SnapshotMethod) -> Self {
        let (format, method) = match method {
            SnapshotMethod::HardLinks => (FORMAT, None),
            SnapshotMethod::Subvolumes => (FORMAT_WITH_METHOD, Some(OtherMethod::Btrfs)),
            SnapshotMethod::CephFs => (FORMAT_WITH_METHOD, Some(OtherMethod::CephFs)),
        };
        Registration { format, method, ..self }
    }

    /// What its snapshots are made by.
    pub(crate) fn method(&self) -> SnapshotMethod {
        match self.method {
            None => SnapshotMethod::HardLinks,
            Some(OtherMethod::Btrfs) => SnapshotMethod::Subvolumes,
            Some(OtherMethod::CephFs) => SnapshotMethod::CephFs,
        }
    }

    /// Whether both are of the same module: they have the same directory, and no different names.
    pub fn admits(&self, other: &Registration) -> bool {
        let same_name =
            self.module.is_none() || other.module.is_none() || self.module == other.module;
        self.path == other.path && same_name
    }

    /// Why `other` may not use the root, and the remedy; none if it may.
    pub(crate) fn refuses(&self, other: &Registration, private: Dir) -> Option<(String, String)> {
        if self.admits(other) {
            let is_other_directory =
                self.module_inode.zip(other.module_inode).is_some_and(|(old, new)| old != new);
            return is_other_directory.then(|| self.other_directory());
        }
        let file = escape_path(&private.path.join(REGISTRATION_FILE));
        let is_one_module = self.module.is_some() && self.module == other.module;
        if self.path != other.path {
            return Some((
                format!("is registered for the module directory {}", self.path),
                if is_one_module {
                    format!(
                        "if the module has moved here, change `path` in {file}; if its path \
                         depends \
                         on the user, its directories cannot share a root: let the path end below \
                         the user's directory, such as %RSYNC_USER_NAME%/latest, and set no \
                         `snapshot_root` for it"
                    )
                } else if unescape(&self.path).is_some_and(|path| is_there(&path)) {
                    "that directory is there, so its module keeps this root: give this module a \
                     `snapshot_root` of its own in the policy, or a `path` with a parent \
                     directory of its own"
                        .to_string()
                } else {
                    format!(
                        "give this module a `snapshot_root` of its own; if it is the same module, \
                         and its directory has moved, change `path` in {file}"
                    )
                },
            ));
        }
        let module = self.module.clone().unwrap_or_default();
        Some((
            format!("is registered for the module '{module}'"),
            format!(
                "two modules on one directory: let only one of them run the hook; if the module \
                 was renamed, change `module` in {file}"
            ),
        ))
    }

    fn other_directory(&self) -> (String, String) {
        (
            format!(
                "the directory {} is another one than its snapshots were made of, and they are in \
                 that one",
                self.path
            ),
            "move that directory back to its place; if it is gone for good, give the module a new \
             `snapshot_root`"
                .to_string(),
        )
    }

    /// Reads the registration of a root; `None` if it has none.
    pub fn read(private: Dir) -> Result<Option<Self>> {
        let Some(text) = dir::read(private, REGISTRATION_FILE)? else { return Ok(None) };
        KNOWN.read(&private.path.join(REGISTRATION_FILE), &text).map(Some)
    }

    /// Whether a root has the file, readable or not.
    pub(crate) fn is_there(private: Dir) -> bool {
        stat_entry(private.directory, &c_name(REGISTRATION_FILE)).is_ok()
    }

    /// Writes it, durably; for a caller who holds the state's lock.
    pub(crate) fn write(&self, private: Dir) -> Result<()> {
        dir::write_drafted(private, REGISTRATION_FILE, &to_toml(self, private)?)
    }
}
