//! How far a client says that its backup has come, and what that is worth.
//!
//! To rsyncd a push looks well even if its client could not read some of its files: the client alone knows.
//! So `rsync-system-backup` sends a file with each push that says *unfinished*, and takes it away, in a
//! small second push, when all has gone well; when rsync could not transfer everything, it puts another one
//! there that says *partial*. Whoever pushes without these files is believed as before.

use super::grade::Intent;

/// rsync's status for a transfer that could not read or write everything.
pub const PARTIAL_TRANSFER: i32 = 23;

/// What the files in the module's directory say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// Nothing is left to be done; or the client does not say.
    Done,
    /// All that could be transferred is there, but something could not.
    Partial,
    /// The client is at work, or has died.
    Unfinished,
}

impl Finish {
    /// What a backup is worth whose client saw rsync end with `status`: what the policy lists is
    /// complete, and a partial transfer is partial unless the policy lists that as complete.
    pub fn intent_of_status(status: i32, snapshot_on_exit: &[i32], partial_on_exit: &[i32]) -> Intent {
        match Intent::of_status(status, snapshot_on_exit, partial_on_exit) {
            Intent::Nothing if status == PARTIAL_TRANSFER => Intent::Partial,
            intent => intent,
        }
    }

    /// Whether a tree that says this may become a complete snapshot.
    pub fn allows_complete(self, snapshot_on_exit: &[i32]) -> bool {
        match self {
            Finish::Done => true,
            Finish::Partial => snapshot_on_exit.contains(&PARTIAL_TRANSFER),
            Finish::Unfinished => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_transfer_is_partial_unless_the_policy_wants_it_complete() {
        assert_eq!(Finish::intent_of_status(0, &[0, 24], &[]), Intent::Complete);
        assert_eq!(Finish::intent_of_status(24, &[0, 24], &[]), Intent::Complete);
        assert_eq!(Finish::intent_of_status(23, &[0, 24], &[]), Intent::Partial);
        assert_eq!(Finish::intent_of_status(23, &[0, 23, 24], &[]), Intent::Complete);
        assert_eq!(Finish::intent_of_status(12, &[0, 24], &[]), Intent::Nothing);
    }

    #[test]
    fn an_unfinished_tree_is_never_complete() {
        assert!(Finish::Done.allows_complete(&[0]));
        assert!(!Finish::Partial.allows_complete(&[0, 24]) && Finish::Partial.allows_complete(&[0, 23]));
        assert!(!Finish::Unfinished.allows_complete(&[0, 12, 23]));
    }
}
