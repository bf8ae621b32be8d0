//! Which directories `restore --to` may not write into: those that hold snapshots, and the live
//! trees of modules, for which there is `--in-place`.
//!
//! The program's own records may be lost, so names decide too: a root may be known from the command
//! line or from `rsyncd.conf` alone. A directory can be reached by several paths, since a bind
//! mount shows it under another one; each of them is judged.

use std::path::{Path, PathBuf};

use crate::decide::name::SnapshotName;
use crate::decide::zone::Zone;

/// A directory that holds, or may hold, snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtectedRoot {
    /// The root.
    pub root: PathBuf,
    /// The directory of its module, if that is known.
    pub module: Option<PathBuf>,
}

/// Why nothing is restored into a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DestinationRefusal {
    /// It is a snapshot root.
    IsRoot,
    /// It is a snapshot, or lies in one, of this root.
    InSnapshot(PathBuf),
    /// It lies in the program's own directory of this root.
    InPrivate(PathBuf),
    /// It lies in the live tree of a module.
    InModule(PathBuf),
    /// It lies in this root, and which directory there is the live tree is not known.
    InRootOfUnknownModule(PathBuf),
}

/// Why nothing is restored into a directory. `paths`: all canonical paths that lead to it;
/// `private`: the name of the program's own directory in a root.
pub fn refusal(
    paths: &[PathBuf],
    roots: &[ProtectedRoot],
    private: &str,
) -> Option<DestinationRefusal> {
    let modules = roots.iter().filter_map(|known| known.module.as_deref());
    let in_module = modules.into_iter().find(|it| paths.iter().any(|path| path.starts_with(it)));
    if let Some(module) = in_module {
        return Some(DestinationRefusal::InModule(module.to_path_buf()));
    }
    let refusals = paths.iter().flat_map(|path| {
        roots.iter().filter_map(move |known| refusal_of_root(path, known, private))
    });
    // Two facts about one root may differ in whether its module is known.
    let (mut unknown, mut known): (Vec<_>, Vec<_>) =
        refusals.partition(|why| matches!(why, DestinationRefusal::InRootOfUnknownModule(_)));
    let is_known = |why: &DestinationRefusal| {
        let DestinationRefusal::InRootOfUnknownModule(root) = why else { return false };
        roots.iter().any(|it| it.root == *root && it.module.is_some())
    };
    unknown.retain(|why| !is_known(why));
    known.drain(..).chain(unknown).next()
}

fn refusal_of_root(
    path: &Path,
    known: &ProtectedRoot,
    private: &str,
) -> Option<DestinationRefusal> {
    let below = path.strip_prefix(&known.root).ok()?;
    let Some(first) = below.components().next() else { return Some(DestinationRefusal::IsRoot) };
    let name = first.as_os_str().as_encoded_bytes();
    if name == private.as_bytes() {
        Some(DestinationRefusal::InPrivate(known.root.clone()))
    } else if SnapshotName::parse(name, &Zone::utc()).is_some() {
        Some(DestinationRefusal::InSnapshot(known.root.clone()))
    } else if known.module.is_none() {
        Some(DestinationRefusal::InRootOfUnknownModule(known.root.clone()))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(root: &str, module: Option<&str>) -> ProtectedRoot {
        ProtectedRoot { root: root.into(), module: module.map(PathBuf::from) }
    }

    #[test]
    fn snapshots_and_live_trees_are_no_targets() {
        let laptop = known("/b/laptop", Some("/b/laptop/latest"));
        let desk = known("/snapshots/desk", Some("/data/desk"));
        let of = |directory: &str| {
            refusal(&[directory.into()], &[laptop.clone(), desk.clone()], ".rsyncd-snapshot")
        };
        let (root, module) = (laptop.root.clone(), PathBuf::from("/b/laptop/latest"));
        for (directory, expected) in [
            ("/tmp", None),
            ("/tmp/2026-11-22T19-08-31Z", None),
            ("/b", None),
            ("/b/laptop/restored", None),
            ("/b/laptop/latest2", None),
            ("/b/laptop", Some(DestinationRefusal::IsRoot)),
            ("/b/laptop/latest", Some(DestinationRefusal::InModule(module.clone()))),
            ("/b/laptop/latest/x/y", Some(DestinationRefusal::InModule(module))),
            ("/b/laptop/2026-11-22T19-08-31Z", Some(DestinationRefusal::InSnapshot(root.clone()))),
            (
                "/b/laptop/2026-11-22T19-08-31Z/a",
                Some(DestinationRefusal::InSnapshot(root.clone())),
            ),
            ("/b/laptop/2019-08-02 12:00:00/a", Some(DestinationRefusal::InSnapshot(root.clone()))),
            ("/b/laptop/.rsyncd-snapshot/drafts", Some(DestinationRefusal::InPrivate(root))),
            ("/data/desk/x", Some(DestinationRefusal::InModule("/data/desk".into()))),
        ] {
            assert_eq!(of(directory), expected, "{directory}");
        }
    }

    #[test]
    fn a_root_of_an_unknown_module_takes_nothing() {
        let lost = known("/b/laptop", None);
        let of = |directory: &str, roots: &[ProtectedRoot]| {
            refusal(&[directory.into()], roots, ".rsyncd-snapshot")
        };
        let unknown = Some(DestinationRefusal::InRootOfUnknownModule(lost.root.clone()));
        let roots = [lost.clone()];
        assert_eq!(of("/b/laptop/latest/x", &roots), unknown);
        assert_eq!(of("/b/laptop/restored", &roots), unknown);
        assert_eq!(of("/b/laptop", &roots), Some(DestinationRefusal::IsRoot));
        let in_snapshot = Some(DestinationRefusal::InSnapshot(lost.root.clone()));
        assert_eq!(of("/b/laptop/2026-11-22T19-08-31Z/a", &roots), in_snapshot);
        // rsyncd.conf says which directory it is.
        let roots = [lost, known("/b/laptop", Some("/b/laptop/latest"))];
        assert_eq!(of("/b/laptop/restored", &roots), None);
        assert_eq!(
            of("/b/laptop/latest", &roots),
            Some(DestinationRefusal::InModule("/b/laptop/latest".into()))
        );
    }

    #[test]
    fn each_path_that_leads_to_a_directory_is_judged() {
        let roots = [known("/b/laptop", Some("/b/laptop/latest"))];
        let of =
            |other: &str| refusal(&["/mnt/x".into(), other.into()], &roots, ".rsyncd-snapshot");
        assert_eq!(of("/b/x"), None);
        let in_snapshot = Some(DestinationRefusal::InSnapshot("/b/laptop".into()));
        assert_eq!(of("/b/laptop/2026-11-22T19-08-31Z/a/b"), in_snapshot);
        let in_module = Some(DestinationRefusal::InModule("/b/laptop/latest".into()));
        assert_eq!(of("/b/laptop/latest/a"), in_module);
    }
}
