//! Which directories nothing is restored into: those that hold snapshots, and the live trees of
//! modules, for which there is `--in-place`.
//!
//! The program's own records may be lost, so names decide too: a root may be known from the command
//! line or from `rsyncd.conf` alone. A directory can be reached by several paths, since a bind
//! mount shows it under another one; each of them is judged.

use std::path::{Path, PathBuf};

use crate::decide::name::SnapshotName;
use crate::decide::zone::Zone;

/// A directory that holds, or may hold, snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRoot {
    /// The root.
    pub root: PathBuf,
    /// The directory of its module, if that is known.
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
    /// It lies in this root, and which directory there is the live tree is not known.
    InRootOfUnknownModule(PathBuf),
}

/// Why nothing is restored into a directory. `paths`: all canonical paths that lead to it;
/// `private`: the name of the program's own directory in a root.
pub fn refusal(paths: &[PathBuf], roots: &[KnownRoot], private: &str) -> Option<TargetRefusal> {
    let modules = roots.iter().filter_map(|known| known.module.as_deref());
    let in_module = modules.into_iter().find(|it| paths.iter().any(|path| path.starts_with(it)));
    if let Some(module) = in_module {
        return Some(TargetRefusal::InModule(module.to_path_buf()));
    }
    let refusals = paths.iter().flat_map(|path| {
        roots.iter().filter_map(move |known| refusal_of_root(path, known, private))
    });
    // Two facts about one root may differ in whether its module is known.
    let (mut unknown, mut known): (Vec<_>, Vec<_>) =
        refusals.partition(|why| matches!(why, TargetRefusal::InRootOfUnknownModule(_)));
    let is_known = |why: &TargetRefusal| {
        let TargetRefusal::InRootOfUnknownModule(root) = why else { return false };
        roots.iter().any(|it| it.root == *root && it.module.is_some())
    };
    unknown.retain(|why| !is_known(why));
    known.drain(..).chain(unknown).next()
}

fn refusal_of_root(path: &Path, known: &KnownRoot, private: &str) -> Option<TargetRefusal> {
    let below = path.strip_prefix(&known.root).ok()?;
    let Some(first) = below.components().next() else { return Some(TargetRefusal::IsRoot) };
    let name = first.as_os_str().as_encoded_bytes();
    if name == private.as_bytes() {
        Some(TargetRefusal::InPrivate(known.root.clone()))
    } else if SnapshotName::parse(name, &Zone::utc()).is_some() {
        Some(TargetRefusal::InSnapshot(known.root.clone()))
    } else if known.module.is_none() {
        Some(TargetRefusal::InRootOfUnknownModule(known.root.clone()))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(root: &str, module: Option<&str>) -> KnownRoot {
        KnownRoot { root: root.into(), module: module.map(PathBuf::from) }
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
            ("/b/laptop", Some(TargetRefusal::IsRoot)),
            ("/b/laptop/latest", Some(TargetRefusal::InModule(module.clone()))),
            ("/b/laptop/latest/x/y", Some(TargetRefusal::InModule(module))),
            ("/b/laptop/2026-11-22T19-08-31Z", Some(TargetRefusal::InSnapshot(root.clone()))),
            ("/b/laptop/2026-11-22T19-08-31Z/a", Some(TargetRefusal::InSnapshot(root.clone()))),
            ("/b/laptop/2019-08-02 12:00:00/a", Some(TargetRefusal::InSnapshot(root.clone()))),
            ("/b/laptop/.rsyncd-snapshot/drafts", Some(TargetRefusal::InPrivate(root))),
            ("/data/desk/x", Some(TargetRefusal::InModule("/data/desk".into()))),
        ] {
            assert_eq!(of(directory), expected, "{directory}");
        }
    }

    #[test]
    fn a_root_of_an_unknown_module_takes_nothing() {
        let lost = known("/b/laptop", None);
        let of = |directory: &str, roots: &[KnownRoot]| {
            refusal(&[directory.into()], roots, ".rsyncd-snapshot")
        };
        let unknown = Some(TargetRefusal::InRootOfUnknownModule(lost.root.clone()));
        let roots = [lost.clone()];
        assert_eq!(of("/b/laptop/latest/x", &roots), unknown);
        assert_eq!(of("/b/laptop/restored", &roots), unknown);
        assert_eq!(of("/b/laptop", &roots), Some(TargetRefusal::IsRoot));
        let in_snapshot = Some(TargetRefusal::InSnapshot(lost.root.clone()));
        assert_eq!(of("/b/laptop/2026-11-22T19-08-31Z/a", &roots), in_snapshot);
        // rsyncd.conf says which directory it is.
        let roots = [lost, known("/b/laptop", Some("/b/laptop/latest"))];
        assert_eq!(of("/b/laptop/restored", &roots), None);
        assert_eq!(
            of("/b/laptop/latest", &roots),
            Some(TargetRefusal::InModule("/b/laptop/latest".into()))
        );
    }

    #[test]
    fn each_path_that_leads_to_a_directory_is_judged() {
        let roots = [known("/b/laptop", Some("/b/laptop/latest"))];
        let of =
            |other: &str| refusal(&["/mnt/x".into(), other.into()], &roots, ".rsyncd-snapshot");
        assert_eq!(of("/b/x"), None);
        let in_snapshot = Some(TargetRefusal::InSnapshot("/b/laptop".into()));
        assert_eq!(of("/b/laptop/2026-11-22T19-08-31Z/a/b"), in_snapshot);
        let in_module = Some(TargetRefusal::InModule("/b/laptop/latest".into()));
        assert_eq!(of("/b/laptop/latest/a"), in_module);
    }
}
