//! The other modules of this machine, as far as a module or its root may overlap with them: the
//! roots that this machine remembers, and the modules that `rsyncd.conf` has.
//!
//! A command that works on all modules reads this once for all of them, because each module is
//! compared with the others. So the time of the command grows with the number of modules, and not
//! with its square. What a command found here may be older than a root that a push registers
//! meanwhile; so before a root is registered, it is read again.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::decide::path_index::PathIndex;
use crate::decide::root_overlap::{ConfiguredModule, KnownRoot};
use crate::engine::responsiveness::is_responsive;
use crate::store::memory::{MachineMemory, path_of};
use crate::store::registration::Registration;
use crate::store::root::SnapshotRoot;
use crate::system::mounts::Mounts;

/// The remembered roots and the configured modules. Each of their directories is looked at only
/// when a module may overlap with it, and then once.
pub(crate) struct OtherModules {
    mounts: Arc<Mounts>,
    remembered: Vec<RememberedRoot>,
    /// The places of the roots in `remembered`.
    by_root: PathIndex<usize>,
    configured: Vec<ConfiguredModule>,
    /// The directories of the configured modules without symbolic links.
    resolved: Vec<OnceCell<PathBuf>>,
}

/// A root that this machine remembers, and the directory of its module.
struct RememberedRoot {
    root: PathBuf,
    module: PathBuf,
    /// What is registered on disk; none if the root is gone.
    registered: OnceCell<Option<KnownRoot>>,
}

impl OtherModules {
    /// Reads what the machine remembers now. `configured`: the modules that clients may write to.
    pub(crate) fn read(memory: &MachineMemory, configured: Vec<ConfiguredModule>) -> Self {
        let remembered: Vec<RememberedRoot> = memory
            .roots_and_modules()
            .into_iter()
            .map(|(root, module)| RememberedRoot { root, module, registered: OnceCell::new() })
            .collect();
        let numbered = remembered.iter().enumerate();
        OtherModules {
            mounts: Mounts::read().unwrap_or_default(),
            by_root: numbered.map(|(place, one)| (one.root.clone(), place)).collect(),
            remembered,
            resolved: configured.iter().map(|_| OnceCell::new()).collect(),
            configured,
        }
    }

    /// Every existing root. The wait for a file system is limited, unless the work on the module
    /// at `own` needs that file system anyway; this holds for the functions below, too.
    pub(crate) fn all_roots(&self, own: &Path) -> Vec<KnownRoot> {
        self.existing(0..self.remembered.len(), own)
    }

    /// The existing roots that are the module at `own`, above it or below it.
    pub(crate) fn overlapping_roots(&self, own: &Path) -> Vec<KnownRoot> {
        let mut places: Vec<usize> =
            self.by_root.overlapping(own).map(|(_, place)| *place).collect();
        // The first overlap is the one that messages name, so the order is always the same.
        places.sort_unstable();
        self.existing(places, own)
    }

    /// The existing roots that are `directory` or lie below it.
    pub(crate) fn roots_below(&self, directory: &Path, own: &Path) -> Vec<KnownRoot> {
        let overlapping = self.by_root.overlapping(directory);
        let below = overlapping.filter(|(root, _)| root.starts_with(directory));
        let mut places: Vec<usize> = below.map(|(_, place)| *place).collect();
        places.sort_unstable();
        self.existing(places, own)
    }

    fn existing(&self, places: impl IntoIterator<Item = usize>, own: &Path) -> Vec<KnownRoot> {
        let places = places.into_iter().filter_map(|place| self.remembered.get(place));
        places.filter_map(|one| self.known_root(one, own)).collect()
    }

    /// The root if it exists. A root whose server does not answer counts as one that does, because
    /// it must not keep other modules from their first snapshot.
    fn known_root(&self, one: &RememberedRoot, own: &Path) -> Option<KnownRoot> {
        let RememberedRoot { root, module, registered } = one;
        let as_remembered = || KnownRoot { root: root.clone(), module: module.clone() };
        if registered.get().is_none() && self.mounts.may_wait_for(root, own) && !is_responsive(root)
        {
            return Some(as_remembered());
        }
        let read = || match SnapshotRoot::registration(root) {
            Ok(None) => None,
            // A module may have moved since.
            Ok(Some(registration)) => known(root, &registration),
            // A root that cannot be read, or that a newer version wrote, still exists and counts.
            Err(_) => Some(as_remembered()),
        };
        registered.get_or_init(read).clone()
    }

    /// The modules that `rsyncd.conf` has, with their directories without symbolic links.
    pub(crate) fn configured(&self, own: &Path) -> Vec<ConfiguredModule> {
        let resolved = |(other, resolved): (&ConfiguredModule, &OnceCell<PathBuf>)| {
            let directory = match resolved.get() {
                Some(directory) => directory.clone(),
                // A server that another module is on must not keep this module waiting.
                None if self.mounts.may_wait_for(&other.directory, own) => other.directory.clone(),
                None => {
                    let found = std::fs::canonicalize(&other.directory);
                    resolved.get_or_init(|| found.unwrap_or(other.directory.clone())).clone()
                }
            };
            ConfiguredModule { directory, ..other.clone() }
        };
        self.configured.iter().zip(&self.resolved).map(resolved).collect()
    }
}

/// The root at `root` with the module that it is registered for.
pub(crate) fn known(root: &Path, registration: &Registration) -> Option<KnownRoot> {
    Some(KnownRoot { root: root.to_path_buf(), module: path_of(&registration.path)? })
}
