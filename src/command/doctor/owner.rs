//! As which user `check` has to be run to see a history.
//!
//! A daemon of root has histories of root, and a daemon of an ordinary user has that user's. No
//! other user may look into them: an ordinary user cannot, and root does not believe what another
//! user could have put there. What is not known is no mistake, so `check` says how to know it, and
//! asks for no other owner: a history that works would end with it.

use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::tell::escape::shell_word;

/// Who has to do with a history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OwnerFacts {
    /// The user who runs `check`.
    pub(crate) own: u32,
    /// The user that the running daemon has; none if no daemon is known.
    pub(crate) daemon: Option<u32>,
    /// The owner of rsyncd.conf, who starts the daemon unless that is root.
    pub(crate) conf: Option<u32>,
    /// The owner of the snapshot root, if that can be seen.
    pub(crate) root: Option<u32>,
    /// The owner of its `.rsyncd-snapshot`, if that can be seen.
    pub(crate) private: Option<u32>,
}

/// The other user who alone can tell how the history is; none if this user can, or if the owner is
/// a mistake.
pub(crate) fn seen_by(facts: OwnerFacts) -> Option<u32> {
    let OwnerFacts { own, daemon, conf, root, private } = facts;
    if own != 0 {
        return private.filter(|owner| *owner != own);
    }
    let user = root.filter(|owner| *owner != 0)?;
    let is_theirs = match daemon {
        Some(daemon) => daemon == user,
        None => private.or(conf) == Some(user),
    };
    is_theirs.then_some(user)
}

/// The finding for the administrator. `check`: the command for this module.
pub(crate) fn finding(facts: OwnerFacts, check: &str) -> Option<Finding> {
    let user = seen_by(facts)?;
    let known = nix::unistd::User::from_uid(user.into()).ok().flatten();
    let name = known.map_or(format!("#{user}"), |known| known.name);
    let why = match (facts.own, facts.daemon) {
        (0, Some(_)) => {
            format!("the rsync daemon runs as user {user}, and so this history is theirs")
        }
        (0, None) => format!(
            "this history belongs to user {user}, as it should if the rsync daemon runs as that \
             user (if it runs as root, no push works: give the snapshot root to root)"
        ),
        _ => format!("this history belongs to user {user}, and this process is user {}", facts.own),
    };
    let message = format!(
        "cannot tell how the backups are: {why}; run `sudo -u {} {check}`",
        shell_word(name.as_bytes())
    );
    Some(Finding::new(FindingId::Root, Severity::Unknown, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_judged_by_its_own_user() {
        let (root, user, other) = (0, 1000, 1001);
        for (own, daemon, of_root, of_private, expected) in [
            (root, None, Some(root), Some(root), None),
            (root, Some(root), Some(user), Some(user), None),
            (root, Some(root), Some(user), None, None),
            (root, Some(user), Some(user), Some(user), Some(user)),
            (root, Some(user), Some(user), None, Some(user)),
            (root, Some(other), Some(user), Some(user), None),
            (root, None, Some(user), Some(user), Some(user)),
            // A client's user that was given the root by mistake.
            (root, None, Some(user), None, None),
            (root, None, Some(user), Some(root), None),
            (root, None, None, None, None),
            (root, Some(root), Some(other), None, None),
            (user, Some(user), Some(user), Some(user), None),
            (user, None, None, None, None),
            (user, None, Some(root), Some(root), Some(root)),
        ] {
            let facts =
                OwnerFacts { own, daemon, conf: Some(root), root: of_root, private: of_private };
            assert_eq!(seen_by(facts), expected, "{facts:?}");
        }
        let theirs = OwnerFacts { conf: Some(user), root: Some(user), ..OwnerFacts::default() };
        assert_eq!(seen_by(theirs), Some(user), "the first push is still to come");
        assert_eq!(seen_by(OwnerFacts { daemon: Some(root), ..theirs }), None);
    }
}
