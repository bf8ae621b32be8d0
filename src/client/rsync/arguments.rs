//! The command lines of rsync and what its statuses mean. Pure: no rsync is run here.
//!
//! A backup takes three runs. The first brings the *unfinished* token and nothing else, for rsync
//! deletes before it transfers; the second transfers everything, with a newer token, so that the
//! server sees whose it is; the third, when that went well, touches only the root directory: it
//! takes the token away, or puts the *partial* one in its place. A backup that is broken off leaves
//! the token where it is, and a whole one leaves nothing but what was backed up, down to the times
//! of the root directory.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::client::external::shell_quote;
use crate::client::job::Job;
use crate::client::location::Destination;
use crate::decide::facts::PARTIAL_TRANSFER;
use crate::hook::inquiry;
use crate::store::completion;

/// What is left out of every backup: absolute paths of the source machine, whatever SOURCE is.
pub(crate) const EXCLUDED_ROOTS: [&str; 10] = [
    "/dev/",
    "/home/*/.cache/",
    "/media/",
    "/mnt/",
    "/proc/",
    "/run/",
    "/sys/",
    "/tmp/",
    "/var/cache/",
    "/var/tmp/",
];

/// A connection that says nothing for so many seconds is dead.
const TIMEOUT_SECONDS: u32 = 600;

/// How rsync ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// All that was there has been transferred; some files may have vanished meanwhile.
    Whole,
    /// Something could not be read or written.
    Partial,
    /// The network or the other side failed; another try may help.
    Network,
    /// It will fail again.
    Failed,
}

/// What a status of rsync means.
pub(crate) fn meaning(status: i32, is_remote: bool) -> Meaning {
    match status {
        0 | 24 => Meaning::Whole,
        PARTIAL_TRANSFER => Meaning::Partial,
        // Socket, protocol stream, two kinds of timeout, and ssh itself.
        10 | 12 | 30 | 35 | 255 if is_remote => Meaning::Network,
        _ => Meaning::Failed,
    }
}

/// Where the second argument of rsync is on this run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    /// The destination.
    pub destination: &'a Destination,
    /// The near end of a tunnel to it.
    pub address: Option<(&'a str, u16)>,
}

impl Target<'_> {
    fn argument(self) -> OsString {
        OsString::from_vec(self.destination.argument(self.address))
    }
}

/// The run that says that a backup begins. Whether attributes can be kept is no matter yet.
pub(crate) fn announce(job: &Job, target: Target) -> Vec<OsString> {
    let mut words: Vec<OsString> = ["rsync", "--times"].map(OsString::from).into();
    words.extend(connection(job));
    words.push(job.directory.join(completion::UNFINISHED).into_os_string());
    words.push(target.argument());
    words
}

/// The run that transfers everything; `shows_progress` for a person who watches.
pub(crate) fn transfer(job: &Job, target: Target, shows_progress: bool) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["rsync".into()];
    if job.dry_run {
        words.extend(["--dry-run", "--verbose"].map(OsString::from));
    }
    words.extend(["--delete", "--delete-excluded"].map(OsString::from));
    words.extend(attributes());
    words.extend(["--hard-links"].map(OsString::from));
    if !job.multi_fs {
        words.push("--one-file-system".into());
    }
    if job.sends_token() {
        // Before all other rules: no pattern of the user may leave the token out.
        words.push(format!("--include=/{}", completion::UNFINISHED).into());
        // The other one stays for the second run, so that two partial backups in a row are the
        // same.
        words.push(format!("--filter=P /{}", completion::PARTIAL).into());
    }
    if !job.dry_run {
        words.push("--stats".into());
        words.extend(shows_progress.then(|| "--info=progress2".into()));
    }
    words.extend(EXCLUDED_ROOTS.map(|root| format!("--filter=-/ {root}").into()));
    words.extend(job.excludes.iter().map(|pattern| joined("--exclude=", pattern)));
    words.extend(connection(job));
    // Several sources: with --one-file-system the file system of the last one counts.
    words.extend(
        job.sends_token().then(|| job.directory.join(completion::UNFINISHED).into_os_string()),
    );
    words.push(with_slash(&job.source));
    words.push(target.argument());
    words
}

/// The run that says how the transfer ended.
pub(crate) fn finish(job: &Job, target: Target, meaning: Meaning) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["rsync".into()];
    words.extend(attributes());
    // The entries of the root directory and no more; of those, only the tokens count.
    words.extend(["--no-recursive", "--dirs", "--delete"].map(OsString::from));
    for name in [completion::UNFINISHED, completion::PARTIAL] {
        words.push(format!("--include=/{name}").into());
    }
    words.push("--exclude=*".into());
    words.extend(connection(job));
    words.extend(
        (meaning == Meaning::Partial)
            .then(|| job.directory.join(completion::PARTIAL).into_os_string()),
    );
    words.push(with_slash(&job.source));
    words.push(target.argument());
    words
}

/// A run that changes nothing and lists the destination.
pub(crate) fn list(job: &Job, target: Target) -> Vec<OsString> {
    let mut words: Vec<OsString> =
        ["rsync", "--list-only", "--no-recursive", "--dirs"].map(OsString::from).into();
    words.extend(connection(job));
    words.push(target.argument());
    words
}

/// A listing that the server's hook answers in its own way.
pub(crate) fn inquire(job: &Job, target: Target) -> Vec<OsString> {
    let mut words = list(job, target);
    if let Some(argument) = words.last_mut() {
        argument.push(inquiry::PATH);
    }
    words
}

/// A run that changes nothing, but asks whether it might: it would send one file.
pub(crate) fn rehearse(job: &Job, target: Target) -> Vec<OsString> {
    let mut words: Vec<OsString> = ["rsync", "--dry-run"].map(OsString::from).into();
    words.extend(attributes());
    words.extend(connection(job));
    words.push(job.directory.join(completion::UNFINISHED).into_os_string());
    words.push(target.argument());
    words
}

/// The options that keep as much of a file's metadata as possible.
fn attributes() -> [OsString; 4] {
    ["--acls", "--archive", "--numeric-ids", "--xattrs"].map(OsString::from)
}

fn connection(job: &Job) -> Vec<OsString> {
    let mut words = Vec::new();
    if job.is_remote() {
        words.push(format!("--timeout={TIMEOUT_SECONDS}").into());
    }
    if let Destination::Ssh { directory, .. } = &job.destination {
        // Before version 3.2.4 rsync leaves it to the shell there to take a path with a blank
        // apart. Only then, as servers that restrict what rsync may do do not always know the
        // option.
        let path = directory.as_os_str().as_bytes();
        words.extend((shell_quote(path) != path).then(|| "--protect-args".into()));
        words.push(joined("--rsh=", &rsh_text(&job.rsh)));
    }
    words
}

/// rsync splits this at blanks, and knows quotes.
fn rsh_text(rsh: &[OsString]) -> OsString {
    let quoted = |word: &OsString| match word.as_bytes().contains(&b' ') {
        true => [b"'".as_slice(), word.as_bytes(), b"'"].concat(),
        false => word.as_bytes().to_vec(),
    };
    OsString::from_vec(rsh.iter().map(quoted).collect::<Vec<_>>().join(&b' '))
}

/// Splits `RSYNC_RSH` as rsync does.
pub(crate) fn split_rsh(text: &OsStr) -> Vec<OsString> {
    let mut words = Vec::new();
    let mut word = Vec::new();
    let mut quote = None;
    for &byte in text.as_bytes() {
        match (byte, quote) {
            (b'\'' | b'"', None) => quote = Some(byte),
            (byte, Some(open)) if byte == open => quote = None,
            (b' ', None) => {
                if !word.is_empty() {
                    words.push(OsString::from_vec(std::mem::take(&mut word)));
                }
            }
            (byte, _) => word.push(byte),
        }
    }
    if !word.is_empty() {
        words.push(OsString::from_vec(word));
    }
    words
}

fn joined(option: &str, value: &OsStr) -> OsString {
    OsString::from_vec([option.as_bytes(), value.as_bytes()].concat())
}

fn with_slash(path: &Path) -> OsString {
    let mut bytes = path.as_os_str().as_bytes().to_vec();
    if !bytes.ends_with(b"/") {
        bytes.push(b'/');
    }
    OsString::from_vec(bytes)
}

/// What rsync's statistics say of its work.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Statistics {
    /// Files whose content was transferred, without the token.
    pub transferred: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Entries that were deleted.
    pub deleted: u64,
}

impl Statistics {
    /// Reads the output of `--stats` of a run that may also have sent a token of `token_bytes`;
    /// none if it is not in there.
    pub(crate) fn parse(output: &[u8], token_bytes: Option<u64>) -> Option<Self> {
        let text = String::from_utf8_lossy(output);
        let value = |label: &str| {
            let line = text.lines().rev().find_map(|line| line.strip_prefix(label))?;
            line.split_whitespace().next()?.replace(',', "").parse::<u64>().ok()
        };
        Some(Statistics {
            transferred: value("Number of regular files transferred: ")?
                .saturating_sub(token_bytes.map_or(0, |_| 1)),
            bytes: value("Total transferred file size: ")?.saturating_sub(token_bytes.unwrap_or(0)),
            deleted: value("Number of deleted files: ").unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::job::Actions;
    use crate::client::place::Place;

    fn job(destination: &str) -> Job {
        Job {
            source: "/".into(),
            destination: Destination::parse(OsStr::new(destination)).expect("a destination"),
            place: Place { remote: None, uses_sudo: false },
            rsh: vec!["ssh".into(), "-F".into(), "/a b".into()],
            tunnel: None,
            actions: Actions::of_options(false, false, false),
            mount_point: None,
            crypto: None,
            io_class: None,
            dry_run: false,
            multi_fs: false,
            excludes: vec!["*.iso".into()],
            notifies: false,
            retries: 0,
            policy_file: None,
            directory: "/run/x".into(),
            memory: None,
        }
    }

    fn text(words: &[OsString]) -> String {
        words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join("|")
    }

    fn target(job: &Job) -> Target<'_> {
        Target { destination: &job.destination, address: None }
    }

    #[test]
    fn a_transfer_keeps_everything_and_begins_with_the_token() {
        let job = job("/mnt/latest");
        let roots: Vec<String> =
            EXCLUDED_ROOTS.iter().map(|root| format!("--filter=-/ {root}")).collect();
        assert_eq!(
            text(&transfer(&job, target(&job), false)),
            format!(
                "rsync|--delete|--delete-excluded|--acls|--archive|--numeric-ids|--xattrs|--hard-links|--one-file-system|\
                 --include=/.rsync-system-backup-unfinished|--filter=P /.rsync-system-backup-partial|--stats|{}|--exclude=*.iso|\
                 /run/x/.rsync-system-backup-unfinished|/|/mnt/latest/",
                roots.join("|")
            )
        );
    }

    #[test]
    fn a_dry_run_says_so_to_rsync_and_sends_no_token() {
        let job = Job { dry_run: true, multi_fs: true, ..job("me@host:latest") };
        let words = text(&transfer(&job, target(&job), true));
        assert!(words.starts_with("rsync|--dry-run|--verbose|--delete|"), "{words}");
        assert!(!words.contains("unfinished") && !words.contains("--one-file-system"), "{words}");
        assert!(words.ends_with("--timeout=600|--rsh=ssh -F '/a b'|/|me@host:latest/"), "{words}");
    }

    #[test]
    fn a_path_that_a_shell_would_take_apart_is_kept_from_it() {
        let words = |destination: &str| {
            let job = job(destination);
            let target = target(&job);
            [
                announce(&job, target),
                transfer(&job, target, false),
                finish(&job, target, Meaning::Whole),
            ]
            .map(|words| text(&words))
        };
        assert!(
            words("host:/srv/my laptop").iter().all(|words| words.contains("|--protect-args|"))
        );
        assert!(words("host:/srv/laptop").iter().all(|words| !words.contains("--protect-args")));
        assert!(words("/srv/my laptop").iter().all(|words| !words.contains("--protect-args")));
    }

    #[test]
    fn what_rsh_is_made_of_comes_back() {
        let words = ["ssh", "-F", "/a b"].map(OsString::from);
        assert_eq!(split_rsh(&rsh_text(&words)), words);
        assert_eq!(
            split_rsh(OsStr::new("  ssh  -o \"X Y\" ")),
            ["ssh", "-o", "X Y"].map(OsString::from)
        );
    }

    #[test]
    fn statuses_of_the_network_are_worth_another_try_only_on_a_network() {
        for status in [10, 12, 30, 35, 255] {
            assert_eq!(meaning(status, true), Meaning::Network, "{status}");
            assert_eq!(meaning(status, false), Meaning::Failed, "{status}");
        }
        assert_eq!([0, 24].map(|status| meaning(status, true)), [Meaning::Whole; 2]);
        assert_eq!(meaning(23, false), Meaning::Partial);
        for status in [1, 2, 4, 5, 11, 20, 25] {
            assert_eq!(meaning(status, true), Meaning::Failed, "{status}");
        }
    }

    #[test]
    fn statistics_are_found_behind_progress() {
        let output = b"\r  1 100%\n\nNumber of files: 5 (reg: 3)\nNumber of deleted files: 2 (reg: 2)\n\
            Number of regular files transferred: 1,234\nTotal file size: 9 bytes\nTotal transferred file size: 5,678 bytes\n";
        let statistics = Statistics::parse(output, Some(78));
        assert_eq!(statistics, Some(Statistics { transferred: 1_233, bytes: 5_600, deleted: 2 }));
        assert_eq!(Statistics::parse(b"nothing", None), None);
    }
}
