//! The modules of rsyncd.conf that clients may write to, found by the directories that they reach.
//!
//! `check` asks for each module which other modules reach its directory or its snapshots. So the
//! directories are resolved and sorted once, and the time of `check` grows with the number of
//! modules, and not with its square.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::refused_push::offers_only_reading;
use crate::config::rsyncd_conf::RsyncdConf;
use crate::config::rsyncd_module::RsyncdModule;
use crate::decide::path_index::PathIndex;
use crate::system::mounts::Mounts;

/// The writable modules of a configuration.
pub(crate) struct Writers<'a> {
    /// The configuration.
    pub(crate) conf: &'a RsyncdConf,
    /// Sorted by the mounts of servers that the directories lie on; in most cases there are none.
    groups: Vec<WriterGroup>,
}

/// The writable modules whose directories lie on the same mounts of servers.
struct WriterGroup {
    /// Where the mounts are.
    served: Vec<PathBuf>,
    /// The directories as rsyncd.conf names them, with the places of their modules in it.
    directories: PathIndex<usize>,
    /// The same directories without symbolic links.
    resolved: OnceCell<PathIndex<usize>>,
}

impl<'a> Writers<'a> {
    /// The writable modules of `conf` whose directories it names.
    pub(crate) fn of(conf: &'a RsyncdConf) -> Self {
        let mounts = Mounts::read().unwrap_or_default();
        let mut by_mounts: BTreeMap<Vec<PathBuf>, Vec<(PathBuf, usize)>> = BTreeMap::new();
        for (place, module) in conf.modules.iter().enumerate() {
            if let (true, Ok(path)) = (!offers_only_reading(module), module.path()) {
                let served = mounts.served_above(&path).map(Path::to_path_buf).collect();
                by_mounts.entry(served).or_default().push((path, place));
            }
        }
        let group = |(served, directories): (_, Vec<_>)| WriterGroup {
            served,
            directories: directories.into_iter().collect(),
            resolved: OnceCell::new(),
        };
        Writers { conf, groups: by_mounts.into_iter().map(group).collect() }
    }

    /// The writable modules whose directories are `own`, above it or below it, in the order of
    /// rsyncd.conf. Symbolic links are resolved unless that would ask a server that the work on
    /// `own` does not need, because that server may not answer.
    pub(crate) fn overlapping<'b>(&'b self, own: &'b Path) -> Vec<(&'b Path, &'a RsyncdModule)> {
        let groups = self.groups.iter();
        let mut found: Vec<(&Path, usize)> = groups
            .flat_map(|group| group.index_for(own).overlapping(own))
            .map(|(path, place)| (path, *place))
            .collect();
        found.sort_unstable_by_key(|(_, place)| *place);
        found.into_iter().map(|(path, place)| (path, &self.conf.modules[place])).collect()
    }
}

impl WriterGroup {
    fn index_for(&self, own: &Path) -> &PathIndex<usize> {
        let may_wait = self.served.iter().any(|point| !own.starts_with(point));
        if may_wait { &self.directories } else { self.resolved.get_or_init(|| self.resolve()) }
    }

    fn resolve(&self) -> PathIndex<usize> {
        let resolved =
            |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        self.directories.all().map(|(path, place)| (resolved(path), *place)).collect()
    }
}
