//! Least privilege: the rights that this process gives up before it reads anything that a client
//! made.
//!
//! There are two steps, in this order. *Capabilities* are dropped first and for good
//! ([`drop_capabilities`]): four are enough to link files, to change owners and to write into any
//! directory, and programs that this process starts get no more. *Landlock* follows once the
//! modules are known ([`to`]): the kernel then lets this process change those roots and this
//! machine's memory, and nothing else. Both hold for the calling thread and for the threads and
//! programs that it starts, so both come before any other thread.
//!
//! A directory must exist before it can get rights. So the roots and the memory are made first,
//! after the usual checks. The rights of a directory hold for everything below it; a subdirectory
//! can only add rights. Therefore
//!
//! * files can be opened for writing in some subdirectories of `.rsyncd-snapshot` only: not in the
//!   module, in snapshots or in staging. The kernel refuses a link with `EXDEV` if the file would
//!   gain rights by it: if files in staging could be written, nothing could be linked into it;
//! * files of the module can be linked, and no more. If the module lies in its snapshot root, the
//!   rights of the root hold there: names in the module could be changed, contents of files could
//!   not. Only a repair and a restore in place, which the administrator asks for, may put new files
//!   into a module. They make them in `.rsyncd-snapshot` and move them: a file that moves loses
//!   rights, and gains none. No file can be moved into a btrfs subvolume, so there, where snapshots
//!   share no file with the module, they are made in the module;
//! * a restore into another directory may write there, and into no root at all;
//! * `check --output` may make and remove files in the directory of that file;
//! * `setup --write` may change the directories in or below which it makes directories and files.
//!
//! Reading is not restricted; the engine follows no symbolic link. If the kernel lacks a part of
//! all this, the process works without it, and the debug log says how far the restriction goes.

use std::fs::DirBuilder;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::sync::Once;

use landlock::{
    ABI, AccessFs, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    RulesetStatus,
};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::module::target::Target;
use crate::store::dir::open_followed;
use crate::store::layout::Subdir;
use crate::store::lock::RootLock;
use crate::store::root::SnapshotRoot;
use crate::tell::error::Error;

/// The capabilities that are kept: to change owners, to enter every directory, to link and date
/// other users' files, and to keep set-group-id bits.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID);

/// How much of the file system a command is meant to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteScope {
    /// No file at all.
    Nothing,
    /// The roots of its modules, and this machine's memory of them.
    Roots,
    /// [`WriteScope::Roots`], and names in the modules.
    Modules,
    /// A directory that the administrator names, for a restore, and leases.
    Directory,
    /// A file that the administrator names for the output.
    OutputFile,
    /// Directories in which directories and files of the server's configuration are made.
    Configuration,
    /// All that the user of this process may change: it becomes another program.
    Unconfined,
}

impl WriteScope {
    /// A repair or a restore puts copies of files into a module or another directory. To equal the
    /// originals, a copy may need file capabilities (`SETFCAP`) or `trusted.` attributes
    /// (`SYS_ADMIN`), or may have to be a device (`MKNOD`).
    fn capabilities(self) -> CapabilitySet {
        let of_copies = CapabilitySet::SETFCAP | CapabilitySet::SYS_ADMIN | CapabilitySet::MKNOD;
        match self {
            WriteScope::Modules | WriteScope::Directory => KEPT.union(of_copies),
            WriteScope::Nothing
            | WriteScope::Roots
            | WriteScope::OutputFile
            | WriteScope::Configuration
            | WriteScope::Unconfined => KEPT,
        }
    }
}

/// The version of Landlock whose rights are used here; an older kernel supports fewer of them.
const VERSION: ABI = ABI::V5;

/// Gives up all capabilities but four, or but seven for a command that makes copies of files, for
/// this process and the programs that it starts. A capability that cannot be given up stays.
pub(crate) fn drop_capabilities(write_scope: WriteScope) {
    if write_scope == WriteScope::Unconfined {
        return;
    }
    static DROPPED: Once = Once::new();
    DROPPED.call_once(|| give_up_capabilities(write_scope.capabilities()));
}

fn give_up_capabilities(kept: CapabilitySet) {
    let given_up = rustix::thread::set_no_new_privs(true).and_then(|()| {
        drop_bounding(kept);
        let held = rustix::thread::capabilities(None)?;
        // No capability is ambient unless it is inheritable, too.
        if !kept.contains(held.inheritable) {
            drop_ambient(kept);
        }
        let sets = CapabilitySets {
            effective: held.effective & kept,
            permitted: held.permitted & kept,
            inheritable: held.inheritable & kept,
        };
        rustix::thread::set_capabilities(None, sets)
    });
    match given_up {
        Ok(()) => log::debug!("keeps no more capabilities than {}", names_of(kept)),
        // A kernel may refuse this. Then the work goes on with all capabilities that it gave.
        Err(error) => log::info!("works with all capabilities that it was given: {error}"),
    }
}

/// The names that setpriv uses.
fn names_of(capabilities: CapabilitySet) -> String {
    let names: Vec<String> =
        capabilities.iter_names().map(|(name, _)| name.to_lowercase()).collect();
    names.join(", ")
}

/// Each capability that is not kept, one at a time, those without a name here included. The kernel
/// ignores bits that it does not know.
fn others(kept: CapabilitySet) -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS)
        .map(|bit| CapabilitySet::from_bits_retain(1 << bit))
        .filter(move |one| !kept.contains(*one))
}

/// Reduces the bounding set. That needs a capability, so it precedes the reduction of the permitted
/// set. An ordinary user lacks the capability, and has none that the bounding set would limit.
fn drop_bounding(kept: CapabilitySet) {
    for one in others(kept) {
        // The call fails for the first capability that the kernel does not know.
        if rustix::thread::remove_capability_from_bounding_set(one).is_err() {
            break;
        }
    }
}

fn drop_ambient(kept: CapabilitySet) {
    for one in others(kept) {
        let Ok(is_present) = rustix::thread::capability_is_in_ambient_set(one) else { break };
        if is_present {
            // An error here does no harm: a capability that is no longer permitted is not ambient
            // either.
            let _ = rustix::thread::configure_capability_in_ambient_set(one, false);
        }
    }
}

/// Confines this process to work on `targets`, whose roots and memory are made if they are not
/// there yet. Without targets, it can change nothing.
///
/// A root with an error only gets no rights here; the work that follows reports the error.
pub fn to<'a>(targets: impl IntoIterator<Item = &'a Target>, write_scope: WriteScope) {
    to_reading(targets, [], write_scope);
}

/// [`to`], with the right to write leases in `read`, roots of other modules.
pub(crate) fn to_reading<'a>(
    targets: impl IntoIterator<Item = &'a Target>,
    read: impl IntoIterator<Item = &'a SnapshotRoot>,
    write_scope: WriteScope,
) {
    if write_scope != WriteScope::Unconfined {
        confine(targets, read, write_scope, &[]);
    }
}

/// Confines this process to a restore into `directory`, with the right to write leases in the root
/// `read`.
pub(crate) fn to_directory(read: Option<&SnapshotRoot>, directory: BorrowedFd) {
    confine([], read, WriteScope::Directory, &[directory]);
}

/// Confines this process to replacing a file in `directory`.
pub(crate) fn to_output(directory: BorrowedFd) {
    confine([], [], WriteScope::OutputFile, &[directory]);
}

/// Confines this process to changing what is in these directories and below them.
pub(crate) fn to_configuration(directories: &[BorrowedFd]) {
    confine([], [], WriteScope::Configuration, directories);
}

fn confine<'a>(
    targets: impl IntoIterator<Item = &'a Target>,
    read: impl IntoIterator<Item = &'a SnapshotRoot>,
    write_scope: WriteScope,
    directories: &[BorrowedFd],
) {
    drop_capabilities(write_scope);
    let targets: Vec<&Target> = targets.into_iter().collect();
    match restrict(&targets, read.into_iter().collect(), write_scope, directories) {
        Ok(status) => log::debug!("Landlock: {}", describe(&status)),
        Err(error) => log::info!("works without Landlock: {error}"),
    }
}

fn describe(status: &RestrictionStatus) -> String {
    let version = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => {
            format!("version {}", effective_abi as i32)
        }
        LandlockStatus::NotEnabled => "not enabled in this kernel".to_string(),
        LandlockStatus::NotImplemented => "not in this kernel".to_string(),
    };
    let level = match status.ruleset {
        RulesetStatus::FullyEnforced => "changes nothing but its roots and its memory",
        RulesetStatus::PartiallyEnforced => {
            "changes nothing but its roots and its memory, as far as this version goes"
        }
        RulesetStatus::NotEnforced => "not restricted",
    };
    format!("{version}, {level}")
}

fn restrict(
    targets: &[&Target],
    read: Vec<&SnapshotRoot>,
    write_scope: WriteScope,
    directories: &[BorrowedFd],
) -> Result<RestrictionStatus, RulesetError> {
    let mut ruleset = Ruleset::default()
        // Without this right nothing could be linked between two directories. A kernel that lacks
        // it gets no restriction at all.
        .set_compatibility(CompatLevel::SoftRequirement)
        .handle_access(AccessFs::Refer)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_write(VERSION) | AccessFs::Execute)?
        .create()?;
    for target in targets {
        ruleset = allow_memory(ruleset, target)?;
        // On a full disk a directory may be missing. Those that exist suffice to report that.
        if let Some(root) =
            retry_once(|| target.prepare_root()).or_else(|| retry_once(|| target.look_at_root()))
        {
            ruleset = allow_root(ruleset, &root, write_scope)?;
        }
    }
    for root in read {
        if let Some(leases) = retry_once(|| root.subdir(Subdir::Leases)) {
            ruleset = allow(ruleset, leases.dir().directory, names() | contents())?;
        }
    }
    for directory in directories {
        let rights = match write_scope {
            WriteScope::OutputFile => AccessFs::MakeReg | AccessFs::RemoveFile | contents(),
            // Files are made in it and linked within it.
            _ => names() | contents(),
        };
        ruleset = allow(ruleset, directory, rights)?;
    }
    ruleset.restrict_self()
}

/// To change names: make, link, move and remove entries of every kind.
fn names() -> BitFlags<AccessFs> {
    AccessFs::from_write(VERSION) & !contents() & !AccessFs::IoctlDev
}

/// To change what is in files.
fn contents() -> BitFlags<AccessFs> {
    AccessFs::WriteFile | AccessFs::Truncate
}

fn allow_root(
    mut ruleset: RulesetCreated,
    root: &SnapshotRoot,
    write_scope: WriteScope,
) -> Result<RulesetCreated, RulesetError> {
    ruleset = allow(ruleset, root.directory(), names())?;
    if root.has_only_sealed() {
        ruleset = allow(ruleset, root.snapshots().directory, names())?;
    }
    let of_module = match (write_scope, root.method().is_instant()) {
        // New files are made in a subvolume itself, which shares none with snapshots.
        (WriteScope::Modules, true) => names() | contents(),
        (WriteScope::Modules, false) => names(),
        _ => AccessFs::Refer.into(),
    };
    if let Ok(module) = root.module() {
        ruleset = allow(ruleset, module, of_module)?;
    }
    // Without `.rsyncd-snapshot` this program writes no files.
    if !root.is_registered() {
        return Ok(ruleset);
    }
    for subdir in Subdir::ALL.into_iter().filter(|subdir| subdir.holds_files()) {
        if let Some(subdir) = retry_once(|| root.subdir(subdir)) {
            ruleset = allow(ruleset, subdir.dir().directory, contents())?;
        }
    }
    match retry_once(|| RootLock::open(root.private())) {
        Some(lock) => allow(ruleset, lock.file(), contents()),
        None => Ok(ruleset),
    }
}

fn allow_memory(
    mut ruleset: RulesetCreated,
    target: &Target,
) -> Result<RulesetCreated, RulesetError> {
    for path in &target.memory.directories {
        // One directory of the memory is enough. If none can be made, the code that needs one
        // reports the errors.
        let _ = DirBuilder::new().recursive(true).mode(0o700).create(path);
        if let Some(directory) =
            retry_once(|| open_followed(path).map_err(|cause| Error::io("open", path, cause)))
        {
            ruleset = allow(ruleset, directory, names() | contents())?;
        }
    }
    Ok(ruleset)
}

/// Tries twice, because a passing error would cost the directory its rights for the whole run.
fn retry_once<T>(attempt: impl Fn() -> Result<T, Error>) -> Option<T> {
    attempt()
        .or_else(|_| attempt())
        .inspect_err(|error| log::debug!("it gets no rights: {error}"))
        .ok()
}

fn allow(
    ruleset: RulesetCreated,
    place: impl AsFd,
    rights: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    ruleset.add_rule(PathBeneath::new(place, rights))
}
