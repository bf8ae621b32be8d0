//! Which module an argument of a command line means.
//!
//! A module is meant by its name in rsyncd.conf, by the name that this machine remembers of one
//! that is no longer there, by its directory, by its snapshot root, and by the name or the
//! directory of a restore module that shows its snapshots. A directory with a history of its own
//! always means itself, so no snapshot root can take its place.

use std::path::PathBuf;

/// A module that an argument may mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleCandidate {
    /// Its name, if it has one.
    pub name: Option<Vec<u8>>,
    /// Its directory, which may be missing.
    pub directory: PathBuf,
    /// The root that it was found by; none if that is the one that is configured.
    pub root: Option<PathBuf>,
}

/// What is known of an argument.
#[derive(Debug, Clone, Default)]
pub struct ArgumentFacts {
    /// Whether it names a module of rsyncd.conf, or is a path.
    pub is_known: bool,
    /// Whether the module or directory that it names has snapshots of its own.
    pub has_history: bool,
    /// The module whose snapshot root it names.
    pub root_of: Option<ModuleCandidate>,
    /// The modules whose snapshots it shows, if it names a restore module.
    pub shown: Vec<ModuleCandidate>,
    /// The snapshot that it is the path of or lies in, with the module of that.
    pub in_snapshot: Option<(ModuleCandidate, String)>,
    /// The modules of that name that are no longer in rsyncd.conf.
    pub remembered: Vec<ModuleCandidate>,
}

/// What an argument means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeantModule {
    /// The module or the directory that it names.
    Itself,
    /// The module whose snapshot root it is, or that is no longer in rsyncd.conf.
    Other(ModuleCandidate),
    /// The module whose snapshots it shows.
    Shown(ModuleCandidate),
    /// No module but a snapshot of one.
    Snapshot(ModuleCandidate, String),
    /// One of these, and it does not say which.
    Ambiguous(Vec<ModuleCandidate>),
    /// None.
    Unknown,
}

/// What the argument with these facts means.
pub fn meant_module(facts: ArgumentFacts) -> MeantModule {
    let ArgumentFacts { is_known, has_history, root_of, mut shown, in_snapshot, mut remembered } =
        facts;
    if has_history {
        return MeantModule::Itself;
    }
    if let Some(module) = root_of {
        return MeantModule::Other(module);
    }
    match (shown.pop(), shown.is_empty()) {
        (None, _) => {}
        (Some(module), true) => return MeantModule::Shown(module),
        (Some(module), false) => {
            shown.push(module);
            return MeantModule::Ambiguous(shown);
        }
    }
    if let Some((module, name)) = in_snapshot {
        return MeantModule::Snapshot(module, name);
    }
    if is_known {
        return MeantModule::Itself;
    }
    match (remembered.pop(), remembered.is_empty()) {
        (None, _) => MeantModule::Unknown,
        (Some(module), true) => MeantModule::Other(module),
        (Some(module), false) => {
            remembered.push(module);
            MeantModule::Ambiguous(remembered)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str) -> ModuleCandidate {
        let directory = PathBuf::from(format!("/b/{name}/latest"));
        ModuleCandidate { name: Some(name.into()), directory, root: None }
    }

    #[test]
    fn a_history_of_its_own_comes_before_all_others() {
        let known = ArgumentFacts { is_known: true, ..ArgumentFacts::default() };
        let snapshot = || Some((module("a"), "2026-11-22T19-08-31Z".to_string()));
        for (what, facts, expected) in [
            ("nothing", ArgumentFacts::default(), MeantModule::Unknown),
            ("a new module", known.clone(), MeantModule::Itself),
            (
                "a module that holds the root of another one",
                ArgumentFacts { has_history: true, root_of: Some(module("a")), ..known.clone() },
                MeantModule::Itself,
            ),
            (
                "a snapshot root",
                ArgumentFacts { root_of: Some(module("a")), ..known.clone() },
                MeantModule::Other(module("a")),
            ),
            (
                "a restore module of one root",
                ArgumentFacts { shown: vec![module("a")], ..known.clone() },
                MeantModule::Shown(module("a")),
            ),
            (
                "a restore module of two roots",
                ArgumentFacts { shown: vec![module("a"), module("b")], ..known.clone() },
                MeantModule::Ambiguous(vec![module("a"), module("b")]),
            ),
            (
                "a restore module of one snapshot",
                ArgumentFacts {
                    shown: vec![module("a")],
                    in_snapshot: snapshot(),
                    ..known.clone()
                },
                MeantModule::Shown(module("a")),
            ),
            (
                "a snapshot",
                ArgumentFacts { in_snapshot: snapshot(), ..known.clone() },
                MeantModule::Snapshot(module("a"), "2026-11-22T19-08-31Z".to_string()),
            ),
            (
                "a name that rsyncd.conf has, and earlier had for another directory",
                ArgumentFacts { remembered: vec![module("a")], ..known },
                MeantModule::Itself,
            ),
            (
                "a module that is no longer in rsyncd.conf",
                ArgumentFacts { remembered: vec![module("a")], ..ArgumentFacts::default() },
                MeantModule::Other(module("a")),
            ),
            (
                "two directories of that name",
                ArgumentFacts {
                    remembered: vec![module("a"), module("b")],
                    ..ArgumentFacts::default()
                },
                MeantModule::Ambiguous(vec![module("a"), module("b")]),
            ),
        ] {
            assert_eq!(meant_module(facts), expected, "{what}");
        }
    }
}
