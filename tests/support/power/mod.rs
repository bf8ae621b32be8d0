//! Power cuts: a history of pushes and hooks on a disk of our own, what the disk may hold if the
//! power goes in the middle, and what has to be true of that after the next boot.

pub(crate) mod clone_rig;
pub(crate) mod disk;
pub(crate) mod history;
pub(crate) mod judge;
pub(crate) mod manifest;
pub(crate) mod medium;
pub(crate) mod pusher;
pub(crate) mod reboot;
pub(crate) mod write_log;
pub(crate) mod write_log_rig;

use std::fmt;

use crate::support::run::tool;
use crate::support::{have, may_mount};

/// Makes a system call of the hook do nothing and report success. The program itself is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    None,
    /// What was written is not made durable before the snapshot becomes visible.
    Syncfs,
    /// Neither the name of the snapshot nor any mark is made durable.
    Fsync,
}

impl Sabotage {
    /// What the hook is run through.
    pub(crate) fn wrapper(self) -> &'static [&'static str] {
        match self {
            Sabotage::None => &["env"],
            Sabotage::Syncfs => &SYNCFS,
            Sabotage::Fsync => &FSYNC,
        }
    }
}

const SYNCFS: [&str; 8] =
    ["strace", "-f", "-qq", "-o", "/dev/null", "--seccomp-bpf", "-e", "inject=syncfs:retval=0"];
const FSYNC: [&str; 8] =
    ["strace", "-f", "-qq", "-o", "/dev/null", "--seccomp-bpf", "-e", "inject=fsync:retval=0"];

/// When the power went, by the clock of the rig: not before `from`, and before `to` at the latest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// The results of a rig.
#[derive(Default)]
pub(crate) struct Findings {
    /// How many power cuts there were.
    pub(crate) images: usize,
    /// So many of them while a hook was running.
    pub(crate) in_hooks: usize,
    /// Visible snapshots that were compared with what they have to hold.
    pub(crate) snapshots: usize,
    /// Snapshots that had to be there.
    pub(crate) acknowledged: usize,
    /// Retired snapshots that were compared with what they have to hold.
    pub(crate) retired: usize,
    /// Images whose module had to be known as torn.
    pub(crate) torn: usize,
    /// Images on which the next push of the same client got a complete snapshot.
    pub(crate) mended: usize,
    /// What was wrong.
    pub(crate) violations: Vec<Violation>,
}

impl Findings {
    pub(crate) fn add(&mut self, other: Findings) {
        self.images += other.images;
        self.in_hooks += other.in_hooks;
        self.snapshots += other.snapshots;
        self.acknowledged += other.acknowledged;
        self.retired += other.retired;
        self.torn += other.torn;
        self.mended += other.mended;
        self.violations.extend(other.violations);
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} images ({} cut in a hook): {} visible snapshots compared, {} acknowledged, {} retired, {} torn modules, {} mended by the next push; {} violations",
            self.images,
            self.in_hooks,
            self.snapshots,
            self.acknowledged,
            self.retired,
            self.torn,
            self.mended,
            self.violations.len()
        )
    }
}

/// A violation after a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// The image does not mount, or cannot be read.
    Mount,
    /// `fsck` complains.
    Fsck,
    /// A visible snapshot does not hold what it has to.
    Content,
    /// A retired snapshot does not hold what it has to.
    Retired,
    /// A snapshot is visible that cannot be.
    Unexpected,
    /// An acknowledged snapshot is not there.
    Missing,
    /// A torn module counts as whole, or a good push does not repair it.
    Torn,
    /// `list` or `check` fails.
    Command,
    /// The next hooks fail, or do not take a snapshot of what is there.
    Next,
}

#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) wrong: Wrong,
    pub(crate) what: String,
}

/// Whether this machine can run the rigs; prints the reason if not.
pub(crate) fn is_possible() -> bool {
    let tools = [
        "losetup",
        "mkfs.ext4",
        "mkfs.xfs",
        "mkfs.btrfs",
        "e2fsck",
        "xfs_repair",
        "btrfs",
        "unshare",
        "strace",
    ];
    if !may_mount() || !have(&tools) {
        return false;
    }
    if std::fs::File::open("/dev/fuse").is_err() {
        skipped!("needs FUSE, and /dev/fuse cannot be opened");
        return false;
    }
    let free = tool("losetup").arg("--find").output().expect("losetup");
    if !free.status.success() {
        skipped!("needs a loop device");
        return false;
    }
    true
}
