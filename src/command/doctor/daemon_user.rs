//! As which user the rsync daemon serves a module.
//!
//! Nearly all that can be wrong with rights depends on that user: who must own the snapshot root
//! and the secrets file, who opens the lock file and runs the hooks, and whether rsync can change
//! its root directory or become a module's `uid`. So it is decided here once, and each check asks
//! this decision. Certain are `daemon uid`, which rsync applies to each connection, and a daemon
//! that runs. Otherwise the owners of the files tell, if they agree: a daemon of root refuses roots
//! and secrets of others, and one of an ordinary user cannot use those of root. What stays open is
//! no mistake, and then nothing is told that would be wrong for one of the users.

use nix::unistd::User;

use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::config::rsyncd_module::RsyncdModule;
use crate::tell::escape::escape;

/// The kernel's numbers of capabilities.
const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;
const CAP_SYS_CHROOT: u32 = 18;

/// The user of a daemon as it serves a module, before it becomes the `uid` of the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DaemonUser {
    pub(crate) uid: u32,
    /// The groups that it has; none if they are not known.
    pub(crate) gids: Vec<u32>,
    /// The kernel's set of capabilities.
    pub(crate) capabilities: u64,
    /// How that is known, as a clause.
    pub(crate) because: String,
}

impl DaemonUser {
    pub(crate) fn is_root(&self) -> bool {
        self.uid == 0
    }

    fn may(&self, capability: u32) -> bool {
        self.capabilities & (1 << capability) != 0
    }

    pub(crate) fn may_become_user(&self, uid: u32) -> bool {
        uid == self.uid || self.may(CAP_SETUID)
    }

    pub(crate) fn may_set_groups(&self) -> bool {
        self.may(CAP_SETGID)
    }
}

/// What is known of the daemon and of those who own its files. All are numbers of users.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DaemonUserFacts {
    /// The user who runs `check`.
    pub(crate) own: u32,
    /// The user of the running daemon.
    pub(crate) running: Option<u32>,
    /// The user of `daemon uid`.
    pub(crate) set: Option<u32>,
    /// The owner of rsyncd.conf.
    pub(crate) conf: Option<u32>,
    /// The owner of the snapshot root.
    pub(crate) root: Option<u32>,
    /// The owner of its `.rsyncd-snapshot`.
    pub(crate) private: Option<u32>,
    /// The owner of the module's directory.
    pub(crate) module: Option<u32>,
    /// The owner of a secrets file that a daemon of root would refuse for another owner.
    pub(crate) secrets: Option<u32>,
    /// The user that a daemon of root becomes for the module.
    pub(crate) account: Option<u32>,
}

/// What the decision rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DaemonUserEvidence {
    DaemonUid,
    Running,
    Owners,
    /// Nothing speaks for another user than root.
    Usual,
}

/// The user of the daemon; none if that is open.
pub(crate) fn decide(facts: DaemonUserFacts) -> Option<(u32, DaemonUserEvidence)> {
    let DaemonUserFacts { own, conf, root, private, module, secrets, account, .. } = facts;
    match (facts.set, facts.running) {
        // An ordinary user's daemon cannot become another user, and then serves no connection.
        (Some(user), None | Some(0)) => return Some((user, DaemonUserEvidence::DaemonUid)),
        (_, Some(user)) => return Some((user, DaemonUserEvidence::Running)),
        (None, None) => {}
    }
    match (private, root) {
        (Some(0), _) => return Some((0, DaemonUserEvidence::Owners)),
        (Some(user), _) if Some(user) == root => return Some((user, DaemonUserEvidence::Owners)),
        // Another user may have put that there.
        (Some(_), _) => return None,
        (None, _) => {}
    }
    let is_theirs = |user: &u32| {
        let owns = |owner: Option<u32>| owner == Some(*user);
        match *user {
            0 => false,
            // The owner of the configuration starts the daemon, and so has its files.
            _ if owns(conf) => owns(root) || owns(module),
            // A daemon of root would refuse such a root, so only a mistake speaks against it.
            _ if owns(root) && (*user == own || owns(secrets)) => true,
            // A daemon of root would write as another user there.
            _ => {
                let is_others = account.is_some_and(|account| account != *user);
                owns(module) && is_others && (owns(root) || owns(secrets) || *user == own)
            }
        }
    };
    match [root, module].into_iter().flatten().find(is_theirs) {
        Some(user) => Some((user, DaemonUserEvidence::Owners)),
        None => (own == 0).then_some((0, DaemonUserEvidence::Usual)),
    }
}

/// The user who alone can tell how a history is; none if the user who runs `check` can, or if the
/// owner is a mistake. `daemon`: the user of the daemon.
pub(crate) fn seen_by(facts: DaemonUserFacts, daemon: Option<u32>) -> Option<u32> {
    let DaemonUserFacts { own, root, private, .. } = facts;
    if own != 0 {
        return private.filter(|owner| *owner != own);
    }
    root.filter(|owner| *owner != 0 && daemon == Some(*owner))
}

/// The name of a user for `sudo -u`, escaped.
pub(crate) fn name_of(uid: u32) -> String {
    let known = User::from_uid(uid.into()).ok().flatten();
    known.map_or(format!("#{uid}"), |known| escape(known.name.as_bytes()))
}

/// A module with `use chroot` whose daemon may not change its root directory.
pub(crate) fn chroot_finding(module: &RsyncdModule, user: &DaemonUser) -> Option<Finding> {
    // Unset, rsync tries, and goes on without; but not if the path has two parts.
    let is_needed = match module.get("use chroot") {
        Some(_) => module.boolean("use chroot", false) == Some(true),
        None => module.get("path").is_some_and(|path| path.windows(3).any(|it| it == b"/./")),
    };
    if user.may(CAP_SYS_CHROOT) || !is_needed {
        return None;
    }
    let message = format!(
        "{}: {}, without the right to change its root directory, so rsync turns every connection \
         away; set `use chroot = no`",
        module.place_of("use chroot"),
        user.because
    );
    Some(Finding::new(FindingId::ModuleChroot, Severity::Critical, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: u32 = 0;
    const USER: u32 = 1000;
    const OTHER: u32 = 1001;

    #[test]
    fn the_user_of_the_daemon_is_decided_by_what_is_certain_and_then_by_owners() {
        let none = DaemonUserFacts { conf: Some(ROOT), ..DaemonUserFacts::default() };
        let by_user = DaemonUserFacts { own: USER, ..none };
        let owned = DaemonUserFacts { root: Some(USER), module: Some(USER), ..none };
        let other = Some(OTHER);
        for (facts, expected) in [
            (none, Some((ROOT, DaemonUserEvidence::Usual))),
            (by_user, None),
            (
                DaemonUserFacts { running: Some(USER), ..none },
                Some((USER, DaemonUserEvidence::Running)),
            ),
            (
                DaemonUserFacts { running: Some(ROOT), ..owned },
                Some((ROOT, DaemonUserEvidence::Running)),
            ),
            (
                DaemonUserFacts { running: Some(ROOT), set: Some(USER), ..none },
                Some((USER, DaemonUserEvidence::DaemonUid)),
            ),
            (
                DaemonUserFacts { set: Some(USER), ..none },
                Some((USER, DaemonUserEvidence::DaemonUid)),
            ),
            (
                DaemonUserFacts { running: Some(USER), set: other, ..none },
                Some((USER, DaemonUserEvidence::Running)),
            ),
            // Histories.
            (
                DaemonUserFacts { private: Some(USER), ..owned },
                Some((USER, DaemonUserEvidence::Owners)),
            ),
            (
                DaemonUserFacts { private: Some(ROOT), ..owned },
                Some((ROOT, DaemonUserEvidence::Owners)),
            ),
            (DaemonUserFacts { private: Some(USER), root: Some(ROOT), ..none }, None),
            // The first push is still to come.
            (
                DaemonUserFacts { conf: Some(USER), ..owned },
                Some((USER, DaemonUserEvidence::Owners)),
            ),
            (
                DaemonUserFacts { conf: Some(USER), root: Some(ROOT), ..owned },
                Some((USER, DaemonUserEvidence::Owners)),
            ),
            (
                DaemonUserFacts { secrets: Some(USER), ..owned },
                Some((USER, DaemonUserEvidence::Owners)),
            ),
            (DaemonUserFacts { account: other, ..owned }, Some((USER, DaemonUserEvidence::Owners))),
            (
                DaemonUserFacts { root: Some(ROOT), secrets: Some(USER), account: other, ..owned },
                Some((USER, DaemonUserEvidence::Owners)),
            ),
            (
                DaemonUserFacts {
                    root: Some(ROOT),
                    secrets: Some(USER),
                    account: Some(USER),
                    ..owned
                },
                Some((ROOT, DaemonUserEvidence::Usual)),
            ),
            // A client's user that was given the root by mistake.
            (
                DaemonUserFacts { account: Some(USER), ..owned },
                Some((ROOT, DaemonUserEvidence::Usual)),
            ),
            // A client's user in a module of root.
            (
                DaemonUserFacts { root: Some(ROOT), account: other, ..owned },
                Some((ROOT, DaemonUserEvidence::Usual)),
            ),
            (DaemonUserFacts { conf: other, ..none }, Some((ROOT, DaemonUserEvidence::Usual))),
            // `check` by an ordinary user.
            (
                DaemonUserFacts { root: Some(USER), ..by_user },
                Some((USER, DaemonUserEvidence::Owners)),
            ),
            (
                DaemonUserFacts { root: Some(ROOT), own: USER, account: other, ..owned },
                Some((USER, DaemonUserEvidence::Owners)),
            ),
            (DaemonUserFacts { root: Some(ROOT), own: USER, account: Some(USER), ..owned }, None),
            (DaemonUserFacts { root: Some(OTHER), module: None, own: USER, ..owned }, None),
        ] {
            assert_eq!(decide(facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn a_history_is_judged_by_its_own_user() {
        for (own, daemon, root, private, expected) in [
            (ROOT, None, Some(ROOT), Some(ROOT), None),
            (ROOT, Some(ROOT), Some(USER), Some(USER), None),
            (ROOT, Some(ROOT), Some(USER), None, None),
            (ROOT, Some(USER), Some(USER), Some(USER), Some(USER)),
            (ROOT, Some(USER), Some(USER), None, Some(USER)),
            (ROOT, Some(OTHER), Some(USER), Some(USER), None),
            (ROOT, None, Some(USER), Some(USER), Some(USER)),
            // A client's user that was given the root by mistake.
            (ROOT, None, Some(USER), None, None),
            (ROOT, None, Some(USER), Some(ROOT), None),
            (ROOT, None, None, None, None),
            (ROOT, Some(ROOT), Some(OTHER), None, None),
            (USER, Some(USER), Some(USER), Some(USER), None),
            (USER, None, None, None, None),
            (USER, None, Some(ROOT), Some(ROOT), Some(ROOT)),
        ] {
            let conf = Some(ROOT);
            let facts = DaemonUserFacts {
                own,
                running: daemon,
                conf,
                root,
                private,
                ..DaemonUserFacts::default()
            };
            let user = decide(facts).map(|(user, _)| user);
            assert_eq!(seen_by(facts, user), expected, "{facts:?}");
        }
        let theirs =
            DaemonUserFacts { conf: Some(USER), root: Some(USER), ..DaemonUserFacts::default() };
        assert_eq!(seen_by(theirs, Some(USER)), Some(USER), "the first push is still to come");
        assert_eq!(seen_by(DaemonUserFacts { running: Some(ROOT), ..theirs }, Some(ROOT)), None);
    }

    fn user(uid: u32, capabilities: u64) -> DaemonUser {
        DaemonUser { uid, gids: vec![uid], capabilities, because: String::new() }
    }

    #[test]
    fn only_a_capability_lets_rsync_become_what_a_module_says() {
        let all = user(ROOT, u64::MAX);
        let none = user(USER, 0);
        assert!(all.may_become_user(OTHER) && all.may_set_groups());
        assert!(none.may_become_user(USER) && !none.may_become_user(OTHER));
        assert!(!none.may_set_groups() && user(USER, 1 << CAP_SETGID).may_set_groups());
    }

    #[test]
    fn a_daemon_that_may_not_change_its_root_directory_is_told() {
        use crate::config::rsyncd_conf::RsyncdConf;
        let without = !(1 << CAP_SYS_CHROOT);
        let (yes, two) = ("use chroot = yes\npath = /m", "path = /srv/./m");
        for (lines, daemon, expected) in [
            (yes, user(ROOT, u64::MAX), false),
            (yes, user(ROOT, without), true),
            (yes, user(USER, 0), true),
            // Some units give a user that right.
            (yes, user(USER, 1 << CAP_SYS_CHROOT), false),
            ("path = /m", user(USER, 0), false),
            ("use chroot = no\npath = /srv/./m", user(USER, 0), false),
            (two, user(USER, 0), true),
            (two, user(ROOT, u64::MAX), false),
        ] {
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), format!("[m]\n{lines}\n")).expect("written");
            let conf = RsyncdConf::read(file.path()).expect("read");
            let found = chroot_finding(&conf.modules[0], &daemon);
            assert_eq!(found.is_some(), expected, "{lines} {daemon:?}");
        }
    }
}
