//! Probes the destination before a run: one shell script lists what is in it and beside it, on this
//! machine or on the SSH server.
//!
//! The script runs before anything is changed, as the account that rsync will use there. It only
//! reads. A list that the script could not finish is marked as incomplete, so that it never counts
//! as empty.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::client::backup_job::BackupJob;
use crate::client::error::{ClientError, Result};
use crate::client::machine::Privilege;
use crate::decide::name::SnapshotName;
use crate::decide::zone::Zone;
use crate::store::completion;
use crate::store::layout::PRIVATE;
use crate::store::registration::Registration;
use crate::tell::escape::escape_path;

/// The files that mark a backup as unfinished or partial.
pub(crate) const TOKENS: [&str; 2] = [completion::UNFINISHED, completion::PARTIAL];

/// Its comment describes the answer.
const SCRIPT: &str = include_str!("probe.sh");

/// The registration in `.rsyncd-snapshot` beside the destination.
#[derive(Debug, PartialEq, Eq)]
enum AdjacentRegistration {
    /// There is no `.rsyncd-snapshot`.
    Missing,
    /// There is one, but its `root.toml` could not be read.
    Unreadable,
    /// The registered path of the module or destination, escaped.
    Of(String),
}

/// A destination as the probe found it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ProbedDestination {
    /// The path of the destination. Symbolic links are resolved in the part that exists.
    pub path: PathBuf,
    /// Whether it is a directory of this machine, even if it is reached by SSH.
    pub is_this_machine: bool,
    /// The names in the destination.
    pub names: Vec<OsString>,
    /// Whether `names` is the whole list.
    pub is_complete: bool,
    /// Inode and time of birth of the destination. `None` if it does not exist, or if its file
    /// system has no time of birth.
    pub birth: Option<String>,
    /// Snapshot roots that are the destination or a parent of it.
    roots: Vec<PathBuf>,
    registration: AdjacentRegistration,
    /// Directories beside the destination whose names begin with a digit.
    siblings: Vec<OsString>,
}

impl ProbedDestination {
    /// Probes `directory`, the destination of the job.
    ///
    /// # Errors
    /// If the script fails, or its answer is not understood.
    pub(crate) fn probe(job: &BackupJob, directory: &Path) -> Result<Self> {
        let parent = directory.parent().unwrap_or(directory);
        let (privilege, sudo) = match job.machine.is_this_machine() {
            true => (Privilege::ToChange(parent), ""),
            false => (Privilege::Own, if job.machine.uses_sudo { "sudo" } else { "" }),
        };
        let args = [directory.as_os_str(), OsStr::new(sudo)];
        let output = job.machine.script(SCRIPT, &args, privilege).succeed()?;
        let unreadable_answer = || {
            ClientError::Failed(format!(
                "cannot list the destination {}: the output of the script is not understood",
                escape_path(directory)
            ))
        };
        ProbedDestination::parse(&output, directory, is_same_directory)
            .ok_or_else(unreadable_answer)
    }

    fn parse(
        output: &[u8],
        directory: &Path,
        is_same_directory: impl Fn(&Path, &[u8], &[u8]) -> bool,
    ) -> Option<Self> {
        let mut fields = output.split(|&byte| byte == 0);
        let existing = Path::new(OsStr::from_bytes(fields.next()?));
        let real = Path::new(OsStr::from_bytes(fields.next()?.strip_suffix(b"\nx")?));
        let is_this_machine = is_same_directory(real, fields.next()?, fields.next()?);
        let birth = birth_of(fields.next()?).filter(|_| existing == directory);
        let rest = directory.strip_prefix(existing).unwrap_or(directory);
        let path = if rest.as_os_str().is_empty() { real.to_path_buf() } else { real.join(rest) };
        let path_of = |field: &[u8]| PathBuf::from(OsString::from_vec(field.to_vec()));
        let roots = fields.by_ref().take_while(|&field| field != b".").map(path_of).collect();
        let registration = match fields.next()? {
            b"n" => AdjacentRegistration::Missing,
            [b'r', text @ ..] => registered_path(text)
                .map_or(AdjacentRegistration::Unreadable, AdjacentRegistration::Of),
            _ => AdjacentRegistration::Unreadable,
        };
        let name = |field: &[u8]| Some(OsString::from_vec(field.strip_prefix(b"./")?.to_vec()));
        let siblings =
            fields.by_ref().take_while(|field| !field.ends_with(b"/")).filter_map(name).collect();
        let (names, ends): (Vec<&[u8]>, Vec<&[u8]>) =
            fields.partition(|field| field.starts_with(b"./"));
        let names = names.into_iter().filter_map(name).collect();
        Some(ProbedDestination {
            path,
            is_this_machine,
            names,
            is_complete: ends == [b"e"],
            birth,
            roots,
            registration,
            siblings,
        })
    }

    /// Whether the destination is empty or does not exist.
    pub(crate) fn is_empty(&self) -> bool {
        self.is_complete && self.names.is_empty()
    }

    /// Whether an earlier backup went to the destination: the snapshots beside it are registered
    /// for it, or are not registered because an older program made them; or it has a token.
    pub(crate) fn has_backup(&self) -> bool {
        let has_token = TOKENS.iter().any(|token| self.names.iter().any(|name| name == token));
        has_token
            || match &self.registration {
                AdjacentRegistration::Of(path) => *path == escape_path(&self.path),
                // The account may be unable to read `.rsyncd-snapshot`, while rsyncd-snapshot runs
                // with more rights.
                AdjacentRegistration::Missing | AdjacentRegistration::Unreadable => {
                    self.has_snapshots()
                }
            }
    }

    fn has_snapshots(&self) -> bool {
        let own = self.path.file_name();
        self.siblings.iter().any(|name| own != Some(name) && is_snapshot(name))
    }

    /// Which part of a snapshot root the destination is, if no backup may go there:
    /// `.rsyncd-snapshot`, a snapshot or the root itself.
    pub(crate) fn part_of_root(&self) -> Option<&'static str> {
        if self.path.components().any(|part| part.as_os_str() == PRIVATE) {
            return Some("in the directory in which rsyncd-snapshot keeps its records");
        }
        let within = |root: &PathBuf| self.path.strip_prefix(root).ok()?.components().next();
        if self.roots.iter().filter_map(within).any(|part| is_snapshot(part.as_os_str())) {
            return Some("a snapshot, or in one");
        }
        (self.roots.contains(&self.path) && !self.has_backup())
            .then_some("the directory that holds snapshots")
    }
}

/// `None` if the file system does not know the birth: then stat prints 0, or no number.
fn birth_of(field: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(field).ok()?;
    let (inode, seconds) = text.split_once(':')?;
    (inode.parse::<u64>().is_ok() && seconds.parse::<u64>().is_ok_and(|seconds| seconds > 0))
        .then(|| text.to_string())
}

fn is_snapshot(name: &OsStr) -> bool {
    SnapshotName::parse(name.as_bytes(), &Zone::utc()).is_some()
}

fn registered_path(text: &[u8]) -> Option<String> {
    Some(toml::from_str::<Registration>(std::str::from_utf8(text).ok()?).ok()?.path)
}

/// Whether the probed directory is `path` on this machine: boot ID and inode are equal.
fn is_same_directory(path: &Path, boot: &[u8], inode: &[u8]) -> bool {
    let own_boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let own_inode =
        std::fs::metadata(path).map(|metadata| format!("{}:{}", metadata.dev(), metadata.ino()));
    !boot.is_empty()
        && own_boot.trim_ascii() == boot
        && own_inode.is_ok_and(|own_inode| own_inode.as_bytes() == inode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::machine::Machine;

    fn parse(directory: &str, output: &str) -> Option<ProbedDestination> {
        ProbedDestination::parse(output.as_bytes(), Path::new(directory), |_, boot, _| {
            boot == b"own"
        })
    }

    #[test]
    fn a_registration_old_snapshots_or_a_token_show_a_backup() {
        let known = |registration: &str, siblings: &str, names: &str| {
            let text = format!(
                "/s/l\0/s/l\nx\0own\0inode\x0012:34\0.\0{registration}\0{siblings}/\0{names}e"
            );
            parse("/s/l", &text).expect("an answer").has_backup()
        };
        let snapshot = "./2019-08-02 12:00:00\0";
        assert!(known("rformat = 1\npath = \"/s/l\"", "", ""));
        assert!(!known("rformat = 1\npath = \"/s/other\"", snapshot, ""));
        assert!(known("n", snapshot, "") && known("u", snapshot, ""));
        assert!(!known("n", "", "") && !known("u", "", "") && !known("n", "./2019\0", ""));
        assert!(known("n", "", "./.rsync-system-backup-unfinished\0"));
    }

    #[test]
    fn the_script_describes_a_real_destination() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = root.path().canonicalize().expect("a path").join("it's here");
        std::fs::create_dir_all(directory.join("a b")).expect("directories");
        std::fs::create_dir_all(root.path().join("2026-11-26T03-12-56Z")).expect("a snapshot");
        let machine = Machine { remote: None, uses_sudo: false };
        let args = [directory.as_os_str(), OsStr::new("")];
        let output = machine.script(SCRIPT, &args, Privilege::Own).succeed().expect("an answer");
        let found = ProbedDestination::parse(&output, &directory, is_same_directory);
        let found = found.expect("a readable answer");
        assert_eq!(found.path, directory);
        assert!(found.is_this_machine && found.is_complete && found.has_backup());
        assert_eq!(found.names, ["a b"]);
    }

    #[test]
    fn missing_directories_and_incomplete_lists_are_recognised() {
        let found = parse("b/c", "b\0/home/b\nx\0other\0inode\0-\0.\0n\0/\0e").expect("an answer");
        assert_eq!(
            (found.path.as_path(), found.is_this_machine, found.is_empty()),
            (Path::new("/home/b/c"), false, true)
        );
        assert_eq!(found.birth, None);
        let found =
            parse("b", ".\0/home/me\nx\0own\0inode\x0012:34\0.\0n\0/\0e").expect("an answer");
        assert_eq!((found.path.as_path(), found.is_this_machine), (Path::new("/home/me/b"), true));
        let found = parse("/a", "/a\0/a\nx\0own\0inode\x0012:34\0.\0n\0./2019/\0./x\0./cut o")
            .expect("an answer");
        assert!(!found.is_complete && !found.is_empty());
        assert_eq!(found.birth.as_deref(), Some("12:34"));
        assert_eq!(parse("/a", "/a\0/a"), None);
    }

    #[test]
    fn snapshots_and_the_private_directory_are_parts_of_a_root() {
        let part = |path: &str| {
            let text = format!("{path}\0{path}\nx\0own\0inode\x0012:34\0/s\0.\0n\0/\0e");
            parse(path, &text).expect("an answer").part_of_root()
        };
        assert!(part("/s/2026-11-26T03-12-56Z").is_some_and(|what| what.contains("a snapshot")));
        assert!(
            part("/s/2026-11-26T03-12-56Z/etc").is_some_and(|what| what.contains("a snapshot"))
        );
        assert!(part("/s/.rsyncd-snapshot").is_some_and(|what| what.contains("records")));
        assert!(part("/s").is_some_and(|what| what.contains("holds snapshots")));
        assert_eq!(part("/s/latest"), None);
    }
}
