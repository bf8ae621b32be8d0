//! Composes the command lines of rsync, and interprets its exit statuses and statistics. Pure.
//!
//! A backup takes three runs of rsync:
//!
//! 1. The first transfers only the *unfinished* token, because rsync deletes before it transfers.
//! 2. The second transfers everything, with a newer token, by which the server sees that this push
//!    has brought the token.
//! 3. The third runs after a good transfer and changes only the root directory: it deletes the
//!    token, or replaces it by the *partial* token.
//!
//! An interrupted backup leaves the unfinished token in the destination. A complete backup leaves
//! only the files of the source, including the times of the root directory.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::client::backup_job::BackupJob;
use crate::client::destination::Destination;
use crate::client::programs::shell_quote;
use crate::decide::verdict_facts::PARTIAL_TRANSFER;
use crate::hook::health_answer;
use crate::store::completion;

/// Absolute paths of the source machine that no backup contains, whatever SOURCE is.
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

/// rsync ends a connection that is silent for this time.
const TIMEOUT_SECONDS: u32 = 600;

/// What an exit status of rsync means for the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransferOutcome {
    /// Everything was transferred, except files that vanished during the transfer.
    Complete,
    /// Some files could not be read or written.
    Partial,
    /// The network or the other side failed; another try may succeed.
    NetworkFailure,
    /// Another try would fail, too.
    Failed,
}

pub(crate) fn outcome_of(status: i32, is_remote: bool) -> TransferOutcome {
    match status {
        0 | 24 => TransferOutcome::Complete,
        PARTIAL_TRANSFER => TransferOutcome::Partial,
        // Socket, protocol stream, two kinds of timeout, and ssh.
        10 | 12 | 30 | 35 | 255 if is_remote => TransferOutcome::NetworkFailure,
        _ => TransferOutcome::Failed,
    }
}

/// The destination argument of one run of rsync.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RsyncDestination<'a> {
    pub destination: &'a Destination,
    /// The local end of the tunnel to the daemon.
    pub address: Option<(&'a str, u16)>,
}

impl RsyncDestination<'_> {
    fn argument(self) -> OsString {
        OsString::from_vec(self.destination.argument(self.address))
    }
}

/// The first run: transfers the unfinished token, without attributes that the server may refuse.
pub(crate) fn send_unfinished_token(job: &BackupJob, target: RsyncDestination) -> Vec<OsString> {
    let mut args: Vec<OsString> = ["rsync", "--times"].map(OsString::from).into();
    args.extend(connection_options(job));
    args.push(job.runtime_directory.join(completion::UNFINISHED).into_os_string());
    args.push(target.argument());
    args
}

/// The second run: transfers everything.
pub(crate) fn transfer(
    job: &BackupJob,
    target: RsyncDestination,
    shows_progress: bool,
) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec!["rsync".into()];
    if job.dry_run {
        args.extend(["--dry-run", "--verbose"].map(OsString::from));
    }
    args.extend(["--delete", "--delete-excluded"].map(OsString::from));
    args.extend(attribute_options());
    args.extend(["--hard-links"].map(OsString::from));
    if !job.multi_fs {
        args.push("--one-file-system".into());
    }
    if job.sends_token() {
        // Before all other rules, so that no pattern of the user excludes the token.
        args.push(format!("--include=/{}", completion::UNFINISHED).into());
        // The partial token of the backup before is kept, so two partial backups in a row are
        // equal.
        args.push(format!("--filter=P /{}", completion::PARTIAL).into());
    }
    if !job.dry_run {
        args.push("--stats".into());
        args.extend(shows_progress.then(|| "--info=progress2".into()));
    }
    args.extend(EXCLUDED_ROOTS.map(|root| format!("--filter=-/ {root}").into()));
    args.extend(job.excludes.iter().map(|pattern| joined("--exclude=", pattern)));
    args.extend(connection_options(job));
    // The token first: with --one-file-system, the file system of the last source counts.
    args.extend(
        job.sends_token()
            .then(|| job.runtime_directory.join(completion::UNFINISHED).into_os_string()),
    );
    args.push(with_slash(&job.source));
    args.push(target.argument());
    args
}

/// The third run: deletes the unfinished token, or replaces it by the partial token.
pub(crate) fn remove_unfinished_token(
    job: &BackupJob,
    target: RsyncDestination,
    outcome: TransferOutcome,
) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec!["rsync".into()];
    args.extend(attribute_options());
    // rsync looks only at the entries of the root directory, and of those only at the tokens.
    args.extend(["--no-recursive", "--dirs", "--delete"].map(OsString::from));
    for name in [completion::UNFINISHED, completion::PARTIAL] {
        args.push(format!("--include=/{name}").into());
    }
    args.push("--exclude=*".into());
    args.extend(connection_options(job));
    args.extend(
        (outcome == TransferOutcome::Partial)
            .then(|| job.runtime_directory.join(completion::PARTIAL).into_os_string()),
    );
    args.push(with_slash(&job.source));
    args.push(target.argument());
    args
}

/// Lists the destination.
pub(crate) fn list(job: &BackupJob, target: RsyncDestination) -> Vec<OsString> {
    let mut args: Vec<OsString> =
        ["rsync", "--list-only", "--no-recursive", "--dirs"].map(OsString::from).into();
    args.extend(connection_options(job));
    args.push(target.argument());
    args
}

/// A listing that the server's pre-xfer hook answers with free space and health.
pub(crate) fn inquire(job: &BackupJob, target: RsyncDestination) -> Vec<OsString> {
    let mut args = list(job, target);
    if let Some(argument) = args.last_mut() {
        argument.push(health_answer::PATH);
    }
    args
}

/// A dry run that would send one file: it fails if the destination cannot be written.
pub(crate) fn dry_run_of_one_file(job: &BackupJob, target: RsyncDestination) -> Vec<OsString> {
    let mut args: Vec<OsString> = ["rsync", "--dry-run"].map(OsString::from).into();
    args.extend(attribute_options());
    args.extend(connection_options(job));
    args.push(job.runtime_directory.join(completion::UNFINISHED).into_os_string());
    args.push(target.argument());
    args
}

/// The options that keep as many attributes of a file as possible.
fn attribute_options() -> [OsString; 4] {
    ["--acls", "--archive", "--numeric-ids", "--xattrs"].map(OsString::from)
}

fn connection_options(job: &BackupJob) -> Vec<OsString> {
    let mut args = Vec::new();
    if job.is_remote() {
        args.push(format!("--timeout={TIMEOUT_SECONDS}").into());
    }
    if let Destination::Ssh { directory, .. } = &job.destination {
        // Before version 3.2.4, the shell on the server splits a path at a blank. The option is
        // given only for such a path, because restricted servers do not always know it.
        let path = directory.as_os_str().as_bytes();
        args.extend((shell_quote(path) != path).then(|| "--protect-args".into()));
        args.push(joined("--rsh=", &rsh_text(&job.rsh)));
    }
    args
}

/// The value of `--rsh`. rsync splits it at blanks, and reads quotes.
fn rsh_text(rsh: &[OsString]) -> OsString {
    let quoted = |word: &OsString| match word.as_bytes().contains(&b' ') {
        true => [b"'".as_slice(), word.as_bytes(), b"'"].concat(),
        false => word.as_bytes().to_vec(),
    };
    OsString::from_vec(rsh.iter().map(quoted).collect::<Vec<_>>().join(&b' '))
}

/// Splits `RSYNC_RSH` as rsync does.
pub(crate) fn split_rsh(text: &OsStr) -> Vec<OsString> {
    let mut args = Vec::new();
    let mut word = Vec::new();
    let mut quote = None;
    for &byte in text.as_bytes() {
        match (byte, quote) {
            (b'\'' | b'"', None) => quote = Some(byte),
            (byte, Some(open)) if byte == open => quote = None,
            (b' ', None) => {
                if !word.is_empty() {
                    args.push(OsString::from_vec(std::mem::take(&mut word)));
                }
            }
            (byte, _) => word.push(byte),
        }
    }
    if !word.is_empty() {
        args.push(OsString::from_vec(word));
    }
    args
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

/// From the output of `rsync --stats`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct TransferStatistics {
    /// Files whose content was transferred. The token does not count.
    pub transferred: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Entries that were deleted.
    pub deleted: u64,
}

impl TransferStatistics {
    /// Reads the output of a run. `token_bytes` is the size of the token that the run sent, if any.
    /// `None` if the output has no statistics.
    pub(crate) fn parse(output: &[u8], token_bytes: Option<u64>) -> Option<Self> {
        let text = String::from_utf8_lossy(output);
        let value = |label: &str| {
            let line = text.lines().rev().find_map(|line| line.strip_prefix(label))?;
            line.split_whitespace().next()?.replace(',', "").parse::<u64>().ok()
        };
        Some(TransferStatistics {
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
    use crate::client::backup_job::Actions;
    use crate::client::machine::Machine;

    fn job(destination: &str) -> BackupJob {
        BackupJob {
            source: "/".into(),
            destination: Destination::parse(OsStr::new(destination)).expect("a destination"),
            machine: Machine { remote: None, uses_sudo: false },
            rsh: vec!["ssh".into(), "-F".into(), "/a b".into()],
            tunnel: None,
            actions: Actions::of_options(false, false, false),
            mount_point: None,
            crypto: None,
            io_class: None,
            dry_run: false,
            multi_fs: false,
            excludes: vec!["*.iso".into()],
            shows_notifications: false,
            retries: 0,
            policy_file: None,
            runtime_directory: "/run/x".into(),
            known_destinations: None,
        }
    }

    fn text(args: &[OsString]) -> String {
        args.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join("|")
    }

    fn target(job: &BackupJob) -> RsyncDestination<'_> {
        RsyncDestination { destination: &job.destination, address: None }
    }

    #[test]
    fn a_transfer_keeps_all_attributes_and_sends_the_token_first() {
        let job = job("/mnt/latest");
        let roots: Vec<String> =
            EXCLUDED_ROOTS.iter().map(|root| format!("--filter=-/ {root}")).collect();
        assert_eq!(
            text(&transfer(&job, target(&job), false)),
            format!(
                "rsync|--delete|--delete-excluded|--acls|--archive|--numeric-ids|--xattrs|\
                 --hard-links|--one-file-system|--include=/.rsync-system-backup-unfinished|\
                 --filter=P /.rsync-system-backup-partial|--stats|{}|--exclude=*.iso|\
                 /run/x/.rsync-system-backup-unfinished|/|/mnt/latest/",
                roots.join("|")
            )
        );
    }

    #[test]
    fn a_dry_run_sends_no_token() {
        let job = BackupJob { dry_run: true, multi_fs: true, ..job("me@host:latest") };
        let args = text(&transfer(&job, target(&job), true));
        assert!(args.starts_with("rsync|--dry-run|--verbose|--delete|"), "{args}");
        assert!(!args.contains("unfinished") && !args.contains("--one-file-system"), "{args}");
        assert!(args.ends_with("--timeout=600|--rsh=ssh -F '/a b'|/|me@host:latest/"), "{args}");
    }

    #[test]
    fn a_path_with_blanks_is_protected_from_the_remote_shell() {
        let args = |destination: &str| {
            let job = job(destination);
            let target = target(&job);
            [
                send_unfinished_token(&job, target),
                transfer(&job, target, false),
                remove_unfinished_token(&job, target, TransferOutcome::Complete),
            ]
            .map(|args| text(&args))
        };
        assert!(args("host:/srv/my laptop").iter().all(|args| args.contains("|--protect-args|")));
        assert!(args("host:/srv/laptop").iter().all(|args| !args.contains("--protect-args")));
        assert!(args("/srv/my laptop").iter().all(|args| !args.contains("--protect-args")));
    }

    #[test]
    fn rsh_is_quoted_and_split_unchanged() {
        let args = ["ssh", "-F", "/a b"].map(OsString::from);
        assert_eq!(split_rsh(&rsh_text(&args)), args);
        assert_eq!(
            split_rsh(OsStr::new("  ssh  -o \"X Y\" ")),
            ["ssh", "-o", "X Y"].map(OsString::from)
        );
    }

    #[test]
    fn network_statuses_allow_another_try_only_for_remote_destinations() {
        for status in [10, 12, 30, 35, 255] {
            assert_eq!(outcome_of(status, true), TransferOutcome::NetworkFailure, "{status}");
            assert_eq!(outcome_of(status, false), TransferOutcome::Failed, "{status}");
        }
        assert_eq!([0, 24].map(|status| outcome_of(status, true)), [TransferOutcome::Complete; 2]);
        assert_eq!(outcome_of(23, false), TransferOutcome::Partial);
        for status in [1, 2, 4, 5, 11, 20, 25] {
            assert_eq!(outcome_of(status, true), TransferOutcome::Failed, "{status}");
        }
    }

    #[test]
    fn statistics_are_found_behind_progress() {
        let output = b"\r  1 100%\n\nNumber of files: 5 (reg: 3)\n\
            Number of deleted files: 2 (reg: 2)\nNumber of regular files transferred: 1,234\n\
            Total file size: 9 bytes\nTotal transferred file size: 5,678 bytes\n";
        let statistics = TransferStatistics::parse(output, Some(78));
        assert_eq!(
            statistics,
            Some(TransferStatistics { transferred: 1_233, bytes: 5_600, deleted: 2 })
        );
        assert_eq!(TransferStatistics::parse(b"nothing", None), None);
    }
}
