//! Least privilege: what this process gives up before it looks at anything that a client made.
//!
//! Two steps, in this order. *Capabilities*, first of all and for good ([`drop_capabilities`]):
//! four are enough to link, to give directories away and to write where we may not; a program that
//! is started gets no more either. *Landlock*, as soon as it is known which modules the work is on
//! ([`to`]): the kernel then lets this process change those roots, its own memory, and nothing
//! else. Both hold for the calling thread and for whatever it starts, so both come before any other
//! thread.
//!
//! What is written later needs a place with rights of its own, which must be there before: so the
//! roots and the memory are made first, by the same checks as ever. Rights are by directory, hold
//! below it, and only add up. Therefore
//!
//! * files can be opened for writing in some rooms of our own directory, and in no other place: not
//!   in the module, not in snapshots, not in staging. A link must not give a file rights that it
//!   lacks where it comes from, or it fails with `EXDEV`: if staging could be written to, nothing
//!   could be linked into it;
//! * the module can be linked from, and no more, unless it lies in its snapshot root, whose rights
//!   it then has: names in it could be changed, contents not. Only a repair that a person asks for
//!   may put files of its own making into a module.
//!
//! Reading is not restricted: that nothing else is read is for the engine to see to, which follows
//! no link. What the kernel lacks of all this is done without: the hook works as before, and the
//! debug log tells how far the restriction goes.

use std::fs::{DirBuilder, File};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Once;

use landlock::{
    ABI, AccessFs, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    RulesetStatus,
};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::module::target::Target;
use crate::store::layout::Subdir;
use crate::store::lock::RootLock;
use crate::store::root::SnapshotRoot;
use crate::tell::error::Error;

/// What is kept: to give away, to go everywhere, to link and date what is others', to keep
/// set-group-id bits.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID);

/// How much of the file system a command is meant to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteScope {
    /// Nothing.
    Nothing,
    /// The roots of its modules, and this machine's memory of them.
    Roots,
    /// The same, and names in the modules.
    Modules,
}

impl WriteScope {
    /// To leave a module as its client has made it, a copy of a file there needs the file's own
    /// capabilities and its `trusted.` attributes, and may be a device.
    fn capabilities(self) -> CapabilitySet {
        let of_copies = CapabilitySet::SETFCAP | CapabilitySet::SYS_ADMIN | CapabilitySet::MKNOD;
        if self == WriteScope::Modules { KEPT.union(of_copies) } else { KEPT }
    }
}

/// The newest version of Landlock whose rights are meant here; an older kernel has fewer.
const VERSION: ABI = ABI::V5;

/// Gives up all capabilities but four, seven for what changes modules, and that anything started
/// from here has more. What cannot be given up stays.
pub(crate) fn drop_capabilities(write_scope: WriteScope) {
    static DROPPED: Once = Once::new();
    DROPPED.call_once(|| give_up_capabilities(write_scope.capabilities()));
}

fn give_up_capabilities(kept: CapabilitySet) {
    let given_up = rustix::thread::set_no_new_privs(true).and_then(|()| {
        drop_bounding(kept);
        let held = rustix::thread::capabilities(None)?;
        drop_ambient(kept);
        let sets = CapabilitySets {
            effective: held.effective & kept,
            permitted: held.permitted & kept,
            inheritable: held.inheritable & kept,
        };
        rustix::thread::set_capabilities(None, sets)
    });
    match given_up {
        Ok(()) => log::debug!("keeps no more capabilities than {}", names_of(kept)),
        // As where the kernel has none of it: the work is done all the same.
        Err(error) => log::info!("works with all capabilities that it was given: {error}"),
    }
}

/// As setpriv and others name them.
fn names_of(capabilities: CapabilitySet) -> String {
    let names: Vec<String> =
        capabilities.iter_names().map(|(name, _)| name.to_lowercase()).collect();
    names.join(", ")
}

/// Each single capability but those kept, known to us or not; the kernel ignores those that it does
/// not know.
fn others(kept: CapabilitySet) -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS)
        .map(|bit| CapabilitySet::from_bits_retain(1 << bit))
        .filter(move |one| !kept.contains(*one))
}

/// Before the permitted set, since it takes a capability; an ordinary user lacks that, and what it
/// limits.
fn drop_bounding(kept: CapabilitySet) {
    for one in others(kept) {
        // Beyond the last one that the kernel knows.
        let Ok(is_present) = rustix::thread::capability_is_in_bounding_set(one) else { break };
        if is_present && rustix::thread::remove_capability_from_bounding_set(one).is_err() {
            break;
        }
    }
}

fn drop_ambient(kept: CapabilitySet) {
    for one in others(kept) {
        let Ok(is_present) = rustix::thread::capability_is_in_ambient_set(one) else { break };
        if is_present {
            // What is no longer permitted is no longer ambient either.
            let _ = rustix::thread::configure_capability_in_ambient_set(one, false);
        }
    }
}

/// Confines this process to work on `targets`, whose roots and memory are made if they are not
/// there yet. Without any, it can change nothing.
///
/// What a root's trouble is, is for the work to tell: here it only gets no rights.
pub fn to<'a>(targets: impl IntoIterator<Item = &'a Target>, write_scope: WriteScope) {
    drop_capabilities(write_scope);
    let targets: Vec<&Target> = targets.into_iter().collect();
    match restrict(&targets, write_scope) {
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
    write_scope: WriteScope,
) -> Result<RestrictionStatus, RulesetError> {
    let mut ruleset = Ruleset::default()
        // Without this right nothing could be linked between two directories: then rather no
        // restriction at all.
        .set_compatibility(CompatLevel::SoftRequirement)
        .handle_access(AccessFs::Refer)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_write(VERSION) | AccessFs::Execute)?
        .create()?;
    for target in targets {
        ruleset = allow_memory(ruleset, target)?;
        // On a full disk something of it may be missing; what there is, is enough to say so.
        if let Some(root) =
            insist(|| target.prepare_root()).or_else(|| insist(|| target.look_at_root()))
        {
            ruleset = allow_root(ruleset, &root, write_scope)?;
        }
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
    let of_module =
        if write_scope == WriteScope::Modules { names() } else { AccessFs::Refer.into() };
    ruleset = allow(ruleset, root.module(), of_module)?;
    // Without a directory of ours there is nothing of ours to be written.
    if !root.is_registered() {
        return Ok(ruleset);
    }
    for subdir in Subdir::ALL.into_iter().filter(|subdir| subdir.holds_files()) {
        if let Some(room) = insist(|| root.subdir(subdir)) {
            ruleset = allow(ruleset, room.dir().directory, contents())?;
        }
    }
    match insist(|| RootLock::open(root.private())) {
        Some(lock) => allow(ruleset, lock.file(), contents()),
        None => Ok(ruleset),
    }
}

/// Where this machine remembers things of its own.
fn allow_memory(
    mut ruleset: RulesetCreated,
    target: &Target,
) -> Result<RulesetCreated, RulesetError> {
    for path in &target.memory.directories {
        // One of them is enough, and whoever needs one says what is wrong with both.
        let _ = DirBuilder::new().recursive(true).mode(0o700).create(path);
        if let Some(directory) =
            insist(|| File::open(path).map_err(|cause| Error::io("open", path, cause)))
        {
            ruleset = allow(ruleset, directory, names() | contents())?;
        }
    }
    Ok(ruleset)
}

/// Tries twice, since what is not allowed now is forbidden later, whatever the reason: only here it
/// can be seen.
fn insist<T>(attempt: impl Fn() -> Result<T, Error>) -> Option<T> {
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
