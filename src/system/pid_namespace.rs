//! The PID namespace that an entry of the ledger comes from, with its machine and boot.
//!
//! Two daemons in two containers may share a module, and their processes may have equal numbers. So
//! an entry's name holds machine, boot and PID namespace, and a process is looked up only where its
//! number is valid. Containers often share `/etc/machine-id` or have none, so the host name counts,
//! too. The kernel's boot id tells running kernels apart.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use crate::decide::boot_time::BootTime;
use crate::decide::liveness::EntryOrigin;
use crate::system::small_file;

/// The inode of the PID namespace that the kernel starts with, `PROC_PID_INIT_INO`: it sees all
/// processes.
const INITIAL_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Machine, boot and PID namespace, short enough for a file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PidNamespace {
    /// Machine id and host name, hashed.
    machine: u32,
    /// The boot id, hashed.
    boot: u32,
    /// The inode of `/proc/self/ns/pid`.
    namespace: u64,
}

impl PidNamespace {
    /// The PID namespace of this process.
    ///
    /// # Errors
    /// A text that says what is wrong with `/proc`, and which command helps.
    pub(crate) fn own() -> Result<Self, &'static str> {
        // Only a success is kept: a later call may succeed.
        static OWN: OnceLock<PidNamespace> = OnceLock::new();
        match OWN.get() {
            Some(own) => Ok(*own),
            None => PidNamespace::look().map(|own| *OWN.get_or_init(|| own)),
        }
    }

    fn look() -> Result<Self, &'static str> {
        const ABSENT: &str = "no /proc is mounted, so running pushes cannot be told from dead \
                              ones: `mount -t proc proc /proc`";
        const FOREIGN: &str = "the /proc that is mounted shows another PID namespace than this \
                               process is in, so running pushes cannot be told from dead ones: \
                               `mount -t proc proc /proc` in this one (`unshare` does so with \
                               `--mount-proc`)";
        const UNREADABLE: &str =
            "it cannot be read, so running pushes cannot be told from dead ones";
        let problem = |cause: std::io::Error| match cause.kind() {
            ErrorKind::NotFound => ABSENT,
            _ => UNREADABLE,
        };
        let shown = fs::read_link("/proc/self").map_err(problem)?;
        if shown.to_str() != Some(&std::process::id().to_string()) {
            return Err(FOREIGN);
        }
        let namespace = fs::metadata("/proc/self/ns/pid").map_err(problem)?.ino();
        let boot = BootTime::now();
        if !boot.is_certain() {
            return Err(UNREADABLE);
        }
        let machine = small_file::read_text("/etc/machine-id").unwrap_or_default();
        let uname = rustix::system::uname();
        let machine = [machine.trim().as_bytes(), b"\0", uname.nodename().to_bytes()].concat();
        Ok(PidNamespace {
            machine: short_hash(&machine),
            boot: short_hash(boot.boot.as_bytes()),
            namespace,
        })
    }

    /// Where an entry of `side` was written, as seen from this process. An entry without one is of
    /// an earlier version, which ran here.
    pub(crate) fn origin(side: Option<&PidNamespace>) -> EntryOrigin {
        match (PidNamespace::own(), side) {
            (Err(_), _) => EntryOrigin::Unclear,
            (Ok(_), None) => EntryOrigin::Here,
            (Ok(own), Some(side)) => side.seen_from(&own),
        }
    }

    fn seen_from(&self, own: &PidNamespace) -> EntryOrigin {
        match self {
            side if side == own => EntryOrigin::Here,
            // The boot id is the kernel's; a container may show another machine id.
            side if side.boot == own.boot => match side.namespace == own.namespace {
                true => EntryOrigin::Here,
                false => EntryOrigin::OtherNamespace,
            },
            side if side.machine == own.machine => EntryOrigin::EarlierBoot,
            _ => EntryOrigin::OtherMachine,
        }
    }

    /// Whether each process of the running kernel can be seen from here.
    pub(crate) fn sees_all(&self) -> bool {
        self.namespace == INITIAL_NAMESPACE
    }

    /// The beginning of an entry's file name.
    pub(crate) fn to_name(self) -> String {
        format!("{:08x}-{:08x}-{}", self.machine, self.boot, self.namespace)
    }

    /// The inverse of [`to_name`](Self::to_name); none for any other text.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        let machine = u32::from_str_radix(parts.next()?, 16).ok()?;
        let boot = u32::from_str_radix(parts.next()?, 16).ok()?;
        let namespace = parts.next()?.parse().ok()?;
        let side = PidNamespace { machine, boot, namespace };
        (side.to_name() == name).then_some(side)
    }
}

/// A hash, since systemd asks programs not to reveal the machine id.
fn short_hash(bytes: &[u8]) -> u32 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"rsyncd-snapshot ledger").update(bytes);
    let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_told_by_its_name() {
        let side = PidNamespace { machine: 0xab, boot: 0xffff_0000, namespace: INITIAL_NAMESPACE };
        assert_eq!(side.to_name(), "000000ab-ffff0000-4026531836");
        assert_eq!(PidNamespace::from_name(&side.to_name()), Some(side));
        for other in [
            "",
            "-",
            "ab-ffff0000-1",
            "000000AB-ffff0000-1",
            "000000ab-ffff0000-01",
            "000000ab-ffff0000",
        ] {
            assert_eq!(PidNamespace::from_name(other), None, "{other}");
        }
    }

    #[test]
    fn boots_tell_machines_apart_that_share_an_id() {
        let own = PidNamespace { machine: 1, boot: 2, namespace: 3 };
        assert_eq!(own.seen_from(&own), EntryOrigin::Here);
        assert_eq!(
            PidNamespace { namespace: 4, ..own }.seen_from(&own),
            EntryOrigin::OtherNamespace
        );
        assert_eq!(
            PidNamespace { machine: 9, namespace: 4, ..own }.seen_from(&own),
            EntryOrigin::OtherNamespace
        );
        assert_eq!(PidNamespace { boot: 9, ..own }.seen_from(&own), EntryOrigin::EarlierBoot);
        assert_eq!(
            PidNamespace { machine: 9, boot: 9, namespace: 3 }.seen_from(&own),
            EntryOrigin::OtherMachine
        );
    }
}
