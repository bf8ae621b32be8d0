//! What is at the destination, and beside it: looked at by one shell script, here or on the SSH
//! server.
//!
//! It runs before anything is changed, as whoever rsync is going to run as there. It only looks, so
//! a wrong answer costs nothing; and what it could not see in full is told as such, so no user
//! takes it for empty.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::client::failure::{Failure, Result};
use crate::client::job::Job;
use crate::client::place::Privilege;
use crate::decide::name::SnapshotName;
use crate::decide::zone::Zone;
use crate::store::completion;
use crate::store::layout::PRIVATE;
use crate::store::registration::Registration;
use crate::tell::escape::escape_path;

/// Answers with fields that end in a zero byte: the nearest directory that exists, its real path,
/// boot and inode (to know whether it is this machine's own), inode and time of birth, the snapshot
/// roots on the way to it up to a `.`, the registration beside the destination, the directories
/// there that may be snapshots up to a `/`, and at last what is in the destination, up to an `e`.
/// `$2` is `sudo` if it may be asked for what the account may not read.
const SCRIPT: &str = r#"CDPATH=; d=$1; while [ ! -d "$d" ]; do case $d in */*) d=${d%/*}; [ -n "$d" ] || d=/;; *) d=.;; esac; done; printf '%s\0' "$d"; cd -P -- "$d" || exit 1; printf '%s\0' "$(pwd -P; printf x)" "$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)" "$(stat -c %d:%i . 2>/dev/null)" "$(stat -c %i:%W . 2>/dev/null)"; p=$(pwd -P); while :; do [ ! -d "$p/.rsyncd-snapshot" ] || printf '%s\0' "$p"; [ -n "$p" ] || break; p=${p%/*}; done; printf '.\0'; (if [ "$d" = "$1" ]; then cd -P .. || exit 1; fi; f=$(pwd -P)/.rsyncd-snapshot; if [ ! -d "$f" ]; then printf n; elif t=$(cat "$f/root.toml" 2>/dev/null) || { [ "$2" = sudo ] && t=$(sudo -n cat "$f/root.toml" 2>/dev/null); }; then printf 'r%s' "$t"; else printf u; fi; printf '\0'; find . ! -name . -prune -type d -name '[0-9]*' -print0 2>/dev/null | head -c 200000; printf '/\0') || exit 1; if [ "$d" = "$1" ]; then { find . ! -name . -prune -print0 && printf e; } | head -c 500000; else printf e; fi"#;

/// The directory of ours beside the destination.
#[derive(Debug, PartialEq, Eq)]
enum Private {
    /// There is none.
    Missing,
    /// There is one, but nobody tells us whose.
    Unread,
    /// It says whose snapshots these are: the module's path, escaped.
    Of(String),
}

/// What was seen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sight {
    /// The destination without symbolic links, as far as it exists.
    pub path: PathBuf,
    /// Whether it is a directory of this machine, by whatever way it is reached.
    pub is_here: bool,
    /// What is in it.
    pub names: Vec<OsString>,
    /// Whether those are all.
    pub is_whole: bool,
    /// Inode and time of birth of the destination, by which it is known again; none if it does not
    /// exist, or if its file system does not say.
    pub birth: Option<String>,
    /// Snapshot roots that are the destination or above it.
    roots: Vec<PathBuf>,
    private: Private,
    siblings: Vec<OsString>,
}

impl Sight {
    /// Looks at the destination `directory` of the job.
    ///
    /// # Errors
    /// If that cannot be done, or the answer is not understood.
    pub(crate) fn of(job: &Job, directory: &Path) -> Result<Self> {
        let parent = directory.parent().unwrap_or(directory);
        let (privilege, sudo) = match job.place.is_here() {
            true => (Privilege::ToChange(parent), ""),
            false => (Privilege::Own, if job.place.uses_sudo { "sudo" } else { "" }),
        };
        let words = ["sh", "-c", SCRIPT, "sh"].map(OsStr::new);
        let words = [words.as_slice(), &[directory.as_os_str(), OsStr::new(sudo)]].concat();
        let output = job.place.call(&words, privilege).succeed()?;
        let not_understood = || {
            Failure::Failed(format!(
                "what is in the destination {} cannot be told",
                escape_path(directory)
            ))
        };
        Sight::parse(&output, directory, is_own).ok_or_else(not_understood)
    }

    fn parse(
        output: &[u8],
        directory: &Path,
        is_own: impl Fn(&Path, &[u8], &[u8]) -> bool,
    ) -> Option<Self> {
        let mut fields = output.split(|&byte| byte == 0);
        let existing = Path::new(OsStr::from_bytes(fields.next()?));
        let real = Path::new(OsStr::from_bytes(fields.next()?.strip_suffix(b"\nx")?));
        let is_here = is_own(real, fields.next()?, fields.next()?);
        let birth = birth_of(fields.next()?).filter(|_| existing == directory);
        let rest = directory.strip_prefix(existing).unwrap_or(directory);
        let path = if rest.as_os_str().is_empty() { real.to_path_buf() } else { real.join(rest) };
        let path_of = |field: &[u8]| PathBuf::from(OsString::from_vec(field.to_vec()));
        let roots = fields.by_ref().take_while(|&field| field != b".").map(path_of).collect();
        let private = match fields.next()? {
            b"n" => Private::Missing,
            [b'r', text @ ..] => registered_path(text).map_or(Private::Unread, Private::Of),
            _ => Private::Unread,
        };
        let name = |field: &[u8]| Some(OsString::from_vec(field.strip_prefix(b"./")?.to_vec()));
        let siblings =
            fields.by_ref().take_while(|field| !field.ends_with(b"/")).filter_map(name).collect();
        let (names, ends): (Vec<&[u8]>, Vec<&[u8]>) =
            fields.partition(|field| field.starts_with(b"./"));
        let names = names.into_iter().filter_map(name).collect();
        Some(Sight {
            path,
            is_here,
            names,
            is_whole: ends == [b"e"],
            birth,
            roots,
            private,
            siblings,
        })
    }

    /// Whether nothing is in it, or it does not exist.
    pub(crate) fn is_empty(&self) -> bool {
        self.is_whole && self.names.is_empty()
    }

    /// Whether backups went to it before: the snapshots beside it are registered as its own, or are
    /// from before the time of registrations; or a backup is not finished.
    pub(crate) fn is_known(&self) -> bool {
        let has_token = crate::client::safety::probe::TOKENS
            .iter()
            .any(|token| self.names.iter().any(|name| name == token));
        has_token
            || match &self.private {
                Private::Of(path) => *path == escape_path(&self.path),
                // Where the account may not read our directory, the program that may does the work
                // on snapshots.
                Private::Missing | Private::Unread => self.has_snapshots(),
            }
    }

    fn has_snapshots(&self) -> bool {
        let own = self.path.file_name();
        self.siblings.iter().any(|name| own != Some(name) && is_snapshot(name))
    }

    /// What the destination is of a snapshot root that only we may write to: our directory, a
    /// snapshot or the root itself.
    pub(crate) fn part_of_root(&self) -> Option<&'static str> {
        if self.path.components().any(|part| part.as_os_str() == PRIVATE) {
            return Some("in the directory in which rsyncd-snapshot keeps its records");
        }
        let within = |root: &PathBuf| self.path.strip_prefix(root).ok()?.components().next();
        if self.roots.iter().filter_map(within).any(|part| is_snapshot(part.as_os_str())) {
            return Some("a snapshot, or in one");
        }
        (self.roots.contains(&self.path) && !self.is_known())
            .then_some("the directory that holds snapshots")
    }
}

/// A zero, or another character than a digit, stands for a birth that is not known.
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

/// Whether the directory that another machine shows under this path is our own: the same boot of
/// the same kernel, and the same inode.
fn is_own(path: &Path, boot: &[u8], inode: &[u8]) -> bool {
    let own_boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let own_inode =
        std::fs::metadata(path).map(|metadata| format!("{}:{}", metadata.dev(), metadata.ino()));
    !boot.is_empty()
        && own_boot.trim_ascii() == boot
        && own_inode.is_ok_and(|own_inode| own_inode.as_bytes() == inode)
}

/// What tells that a backup is not whole.
pub(crate) const TOKENS: [&str; 2] = [completion::UNFINISHED, completion::PARTIAL];

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(directory: &str, output: &str) -> Option<Sight> {
        Sight::parse(output.as_bytes(), Path::new(directory), |_, boot, _| boot == b"own")
    }

    #[test]
    fn only_what_is_registered_for_it_or_from_before_is_known() {
        let known = |registration: &str, siblings: &str, names: &str| {
            let text = format!(
                "/s/l\0/s/l\nx\0own\0inode\x0012:34\0.\0{registration}\0{siblings}/\0{names}e"
            );
            sight("/s/l", &text).expect("an answer").is_known()
        };
        let snapshot = "./2019-08-02 12:00:00\0";
        assert!(known("rformat = 1\npath = \"/s/l\"", "", ""));
        assert!(!known("rformat = 1\npath = \"/s/other\"", snapshot, ""));
        assert!(known("n", snapshot, "") && known("u", snapshot, ""));
        assert!(!known("n", "", "") && !known("u", "", "") && !known("n", "./2019\0", ""));
        assert!(known("n", "", "./.rsync-system-backup-unfinished\0"));
    }

    #[test]
    fn what_is_missing_is_named_below_what_exists_and_what_was_cut_off_is_not_whole() {
        let found = sight("b/c", "b\0/home/b\nx\0other\0inode\0-\0.\0n\0/\0e").expect("an answer");
        assert_eq!(
            (found.path.as_path(), found.is_here, found.is_empty()),
            (Path::new("/home/b/c"), false, true)
        );
        assert_eq!(found.birth, None);
        let found =
            sight("b", ".\0/home/me\nx\0own\0inode\x0012:34\0.\0n\0/\0e").expect("an answer");
        assert_eq!((found.path.as_path(), found.is_here), (Path::new("/home/me/b"), true));
        let found = sight("/a", "/a\0/a\nx\0own\0inode\x0012:34\0.\0n\0./2019/\0./x\0./cut o")
            .expect("an answer");
        assert!(!found.is_whole && !found.is_empty());
        assert_eq!(found.birth.as_deref(), Some("12:34"));
        assert_eq!(sight("/a", "/a\0/a"), None);
    }

    #[test]
    fn snapshots_and_our_own_directory_are_parts_of_a_root() {
        let part = |path: &str| {
            let text = format!("{path}\0{path}\nx\0own\0inode\x0012:34\0/s\0.\0n\0/\0e");
            sight(path, &text).expect("an answer").part_of_root()
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
