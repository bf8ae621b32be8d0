//! Overlap of modules with snapshot roots: refuses a module that would take snapshots of snapshots,
//! or that would become part of them.
//!
//! Two module directories may overlap, but nothing that is backed up may hold a snapshot root: each
//! snapshot would hold all snapshots before it, and clients could change them.

use std::path::{Path, PathBuf};

/// A snapshot root that is registered for a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRoot {
    /// The root's directory.
    pub root: PathBuf,
    /// The directory of the module that it is registered for.
    pub module: PathBuf,
}

/// A module of `rsyncd.conf` that some client may write to, whether or not it was ever worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfiguredModule {
    /// Its name, escaped.
    pub name: String,
    /// Its directory.
    pub directory: PathBuf,
    /// Whether it runs our hooks, so that a push makes snapshots of it.
    pub gets_snapshots: bool,
}

/// How a module conflicts with the root of another module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Overlap {
    /// The module holds another module's root.
    HoldsRoot(KnownRoot),
    /// The module lies in a snapshot or in `.rsyncd-snapshot` of another module's root.
    InsideSnapshots(KnownRoot),
    /// The module's own root would lie in another module, whose clients could change it.
    RootInsideModule(KnownRoot),
    /// The module's own root would lie in another root's snapshot or in `.rsyncd-snapshot` there.
    RootInsideSnapshots(KnownRoot),
    /// The module's own new root would lie in a module that will get snapshots, too.
    RootInsideConfigured(ConfiguredModule),
    /// The module's own new root holds another module under the name of a snapshot.
    NewRootHoldsModule(ConfiguredModule),
}

/// Whether this program made the directory of that name in a snapshot root.
type IsOurs<'a> = &'a dyn Fn(&[u8]) -> bool;

/// A module with its root.
#[derive(Debug, Clone, Copy)]
pub struct RootCandidate<'a> {
    /// The module's directory.
    pub module: &'a Path,
    /// Its root.
    pub root: &'a Path,
    /// Whether the root is yet to be registered.
    pub is_new: bool,
}

/// How a module and its root conflict with the `known` roots of other modules.
///
/// A root that is in use stays in use even if it lies in another module; that other module is
/// refused instead. A refused module does not keep other modules from getting a new root.
pub fn overlap(candidate: RootCandidate, known: &[KnownRoot], is_ours: IsOurs) -> Option<Overlap> {
    let RootCandidate { module, root, is_new } = candidate;
    let others = || known.iter().filter(|known| known.module != module);
    let holds = others().find(|known| known.root.starts_with(module));
    let inside = || others().find(|known| is_inside_snapshots(module, &known.root, is_ours));
    let is_refused = |module: &Path| {
        known.iter().any(|other| other.module != module && other.root.starts_with(module))
    };
    let holds_new_root = |known: &&KnownRoot| {
        is_new && root.starts_with(&known.module) && !is_refused(&known.module)
    };
    let root_inside_module = || others().find(holds_new_root);
    let root_inside_snapshots = || {
        others().find(|known| {
            is_new && known.root != *root && is_inside_snapshots(root, &known.root, is_ours)
        })
    };
    holds
        .map(|known| Overlap::HoldsRoot(known.clone()))
        .or_else(|| inside().map(|known| Overlap::InsideSnapshots(known.clone())))
        .or_else(|| root_inside_module().map(|known| Overlap::RootInsideModule(known.clone())))
        .or_else(|| {
            root_inside_snapshots().map(|known| Overlap::RootInsideSnapshots(known.clone()))
        })
}

/// How a new root conflicts with the other modules of `rsyncd.conf`, which may have no root yet.
///
/// Of two modules, the inner one is refused, whichever comes first: it can have its root elsewhere.
/// If it kept its root, the outer module could get no more snapshots.
pub fn overlap_with_configured(
    candidate: RootCandidate,
    configured: &[ConfiguredModule],
    is_ours: IsOurs,
) -> Option<Overlap> {
    let RootCandidate { module, root, .. } = candidate;
    let others = || configured.iter().filter(|other| other.directory != module);
    let around =
        others().find(|other| other.gets_snapshots && root.starts_with(&other.directory)).cloned();
    let within =
        || others().find(|other| is_inside_snapshots(&other.directory, root, is_ours)).cloned();
    around.map(Overlap::RootInsideConfigured).or_else(|| within().map(Overlap::NewRootHoldsModule))
}

fn is_inside_snapshots(module: &Path, root: &Path, is_ours: IsOurs) -> bool {
    let below = module.strip_prefix(root).ok().and_then(|rest| rest.components().next());
    below.is_some_and(|first| is_ours(first.as_os_str().as_encoded_bytes()))
}

/// Who opens a snapshot root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opener {
    /// A transfer that writes, or that may write.
    Push,
    /// A download, a listing, a dry run, a question for the health, or a push that rsyncd does not
    /// let write.
    Reader,
    /// An administrator who asks for a snapshot.
    Snapshot,
    /// A timer that wants only what is due.
    Due,
    /// Another command that works on a root: rotation, verification, pins.
    Upkeep,
}

impl Opener {
    /// Whether it may register a root that is not registered yet.
    pub fn may_register(self) -> bool {
        matches!(self, Opener::Push | Opener::Snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(root: &str, module: &str) -> KnownRoot {
        KnownRoot { root: root.into(), module: module.into() }
    }

    #[test]
    fn modules_and_roots_of_others_are_kept_apart() {
        let laptop = known("/b/laptop", "/b/laptop/latest");
        let apart = known("/snapshots/desk", "/data/desk");
        let all = [laptop.clone(), apart.clone()];
        let is_ours = |name: &[u8]| name == b"2026-11-22T19-08-31Z" || name == b".rsyncd-snapshot";
        for (module, root, expected) in [
            // The module itself, and its neighbours.
            ("/b/laptop/latest", "/b/laptop", None),
            ("/b/phone/latest", "/b/phone", None),
            ("/b/laptop2/latest", "/b/laptop2", None),
            // Directories that overlap, with roots elsewhere.
            ("/b/laptop/latest/inner", "/snapshots/inner", None),
            ("/data", "/snapshots/data", None),
            // Modules that offer snapshots.
            ("/b", "/", Some(Overlap::HoldsRoot(laptop.clone()))),
            ("/b/laptop", "/b", Some(Overlap::HoldsRoot(laptop.clone()))),
            ("/snapshots", "/", Some(Overlap::HoldsRoot(apart.clone()))),
            // Modules within what we made.
            (
                "/b/laptop/2026-11-22T19-08-31Z/home",
                "/b/laptop/2026-11-22T19-08-31Z",
                Some(Overlap::InsideSnapshots(laptop.clone())),
            ),
            ("/b/laptop/.rsyncd-snapshot/x", "/r", Some(Overlap::InsideSnapshots(laptop.clone()))),
            ("/b/laptop/mine/x", "/b/laptop/mine", None),
            // A root that clients of another module could change.
            (
                "/b/laptop/latest/home",
                "/b/laptop/latest",
                Some(Overlap::RootInsideModule(laptop.clone())),
            ),
            ("/data/new", "/data/desk/roots", Some(Overlap::RootInsideModule(apart.clone()))),
        ] {
            let (module, root) = (Path::new(module), Path::new(root));
            let found = overlap(RootCandidate { module, root, is_new: true }, &all, &is_ours);
            assert_eq!(found, expected, "{module:?} with {root:?}");
        }
    }

    #[test]
    fn a_new_root_keeps_out_of_modules_that_have_none_yet() {
        let module = |name: &str, directory: &str, gets_snapshots| ConfiguredModule {
            name: name.into(),
            directory: directory.into(),
            gets_snapshots,
        };
        let homes = module("homes", "/b/homes", true);
        let dated = module("dated", "/b/laptop/2026-11-22T19-08-31Z", true);
        let all = [homes.clone(), dated.clone(), module("admin", "/b", false)];
        let is_ours = |name: &[u8]| name == b"2026-11-22T19-08-31Z";
        for (module, root, expected) in [
            // The module itself, one above it, and one within it whose root is elsewhere.
            ("/b/homes", "/b", None),
            ("/b", "/", None),
            ("/b/homes/anna/latest", "/snapshots/anna", None),
            ("/b/phone/latest", "/b/phone", None),
            (
                "/b/homes/anna/latest",
                "/b/homes/anna",
                Some(Overlap::RootInsideConfigured(homes.clone())),
            ),
            ("/b/phone", "/b/homes", Some(Overlap::RootInsideConfigured(homes.clone()))),
            ("/b/laptop/latest", "/b/laptop", Some(Overlap::NewRootHoldsModule(dated.clone()))),
        ] {
            let candidate =
                RootCandidate { module: Path::new(module), root: Path::new(root), is_new: true };
            assert_eq!(overlap_with_configured(candidate, &all, &is_ours), expected, "{module}");
        }
    }

    #[test]
    fn a_module_that_is_refused_keeps_no_root_away() {
        // An earlier version registered a module that offers snapshots.
        let all = [known("/b/laptop", "/b/laptop/latest"), known("/", "/b")];
        for (module, root, is_new, is_refused) in [
            ("/b/laptop/latest", "/b/laptop", false, false),
            ("/b/phone/latest", "/b/phone", true, false),
            ("/b", "/", false, true),
        ] {
            let candidate =
                RootCandidate { module: Path::new(module), root: Path::new(root), is_new };
            assert_eq!(overlap(candidate, &all, &|_| false).is_some(), is_refused, "{module}");
        }
        let whole = [known("/snapshots", "/data")];
        let inner = RootCandidate {
            module: Path::new("/data/x/y"),
            root: Path::new("/data/x"),
            is_new: true,
        };
        assert!(overlap(inner, &whole, &|_| false).is_some());
        assert_eq!(overlap(RootCandidate { is_new: false, ..inner }, &whole, &|_| false), None);
    }

    #[test]
    fn only_a_push_or_an_explicit_snapshot_registers_a_root() {
        for (opener, expected) in [
            (Opener::Push, true),
            (Opener::Snapshot, true),
            (Opener::Reader, false),
            (Opener::Due, false),
            (Opener::Upkeep, false),
        ] {
            assert_eq!(opener.may_register(), expected, "{opener:?}");
        }
    }
}
