//! Which directories nothing is restored into: those that hold snapshots, and the module itself,
//! for which there is `--in-place`.

use std::path::{Path, PathBuf};

use crate::decide::name::SnapshotName;
use crate::decide::zone::Zone;

/// A snapshot root at or above a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootAbove {
    /// The root.
    pub root: PathBuf,
    /// The directory of the module that it is registered for, if that can be read.
    pub module: Option<PathBuf>,
}

/// Why nothing is restored into a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetRefusal {
    /// It is a snapshot root.
    IsRoot,
    /// It is a snapshot, or lies in one, of this root.
    InSnapshot(PathBuf),
    /// It lies in the program's own directory of this root.
    InPrivate(PathBuf),
    /// It lies in the live tree of a module.
    InModule(PathBuf),
}

/// Why nothing is restored into `directory`, which is canonical. `roots`: all snapshot roots at or
/// above it; `module`: the directory of the module whose snapshot is restored; `private`: the name
/// of the program's own directory in a root.
pub fn refusal(
    directory: &Path,
    roots: &[RootAbove],
    module: Option<&Path>,
    private: &str,
) -> Option<TargetRefusal> {
    let modules = roots.iter().filter_map(|above| above.module.as_deref()).chain(module);
    let inside = modules.into_iter().find(|module| directory.starts_with(module));
    if let Some(module) = inside {
        return Some(TargetRefusal::InModule(module.to_path_buf()));
    }
    roots.iter().find_map(|above| {
        let below = directory.strip_prefix(&above.root).ok()?;
        let Some(first) = below.components().next() else { return Some(TargetRefusal::IsRoot) };
        let name = first.as_os_str().as_encoded_bytes();
        if name == private.as_bytes() {
            Some(TargetRefusal::InPrivate(above.root.clone()))
        } else if SnapshotName::parse(name, &Zone::utc()).is_some() {
            Some(TargetRefusal::InSnapshot(above.root.clone()))
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_and_live_trees_are_no_targets() {
        let laptop =
            RootAbove { root: "/b/laptop".into(), module: Some("/b/laptop/latest".into()) };
        let lost = RootAbove { root: "/b/laptop".into(), module: None };
        let apart = Path::new("/data/desk");
        let of = |directory: &str, root: &RootAbove| {
            let directory = Path::new(directory);
            let above: Vec<_> = Some(root.clone())
                .into_iter()
                .filter(|it| directory.starts_with(&it.root))
                .collect();
            refusal(directory, &above, Some(apart), ".rsyncd-snapshot")
        };
        let (root, module) = (laptop.root.clone(), PathBuf::from("/b/laptop/latest"));
        for (directory, expected) in [
            ("/tmp", None),
            ("/b", None),
            ("/b/laptop/restored", None),
            ("/b/laptop/latest2", None),
            ("/b/laptop", Some(TargetRefusal::IsRoot)),
            ("/b/laptop/latest", Some(TargetRefusal::InModule(module.clone()))),
            ("/b/laptop/latest/x/y", Some(TargetRefusal::InModule(module))),
            ("/b/laptop/2026-11-22T19-08-31Z", Some(TargetRefusal::InSnapshot(root.clone()))),
            ("/b/laptop/2026-11-22T19-08-31Z/a", Some(TargetRefusal::InSnapshot(root.clone()))),
            ("/b/laptop/2019-08-02 12:00:00/a", Some(TargetRefusal::InSnapshot(root.clone()))),
            ("/b/laptop/.rsyncd-snapshot/drafts", Some(TargetRefusal::InPrivate(root))),
            ("/data/desk/x", Some(TargetRefusal::InModule("/data/desk".into()))),
        ] {
            assert_eq!(of(directory, &laptop), expected, "{directory}");
        }
        assert_eq!(of("/b/laptop/latest/x", &lost), None);
        assert_eq!(of("/b/laptop", &lost), Some(TargetRefusal::IsRoot));
    }
}
