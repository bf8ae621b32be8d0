//! The findings of `check` about failed and unfinished pushes.

use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};

use crate::config::policy_value::key_text;
use crate::config::settings::POLICY_FILE;
use crate::decide::duration_text::roughly;
use crate::decide::push_history::FailedEnd;
use crate::decide::push_job::RestoreInPlace;
use crate::decide::pushes_without_snapshot::{
    PUSHES_WITHOUT_SNAPSHOT_LIMIT, PushesWithoutSnapshot,
};
use crate::decide::rsync_status::{NO_HOOK, RsyncStatus};
use crate::decide::torn_mark::{TornMark, UNHEALED_LIMIT};
use crate::decide::transfer_reason::TransferReason;
use crate::decide::verdict_facts::PARTIAL_TRANSFER;
use crate::module::target::Target;
use crate::store::completion::{self, UnfinishedFile};
use crate::store::record::Record;
use crate::store::root::SnapshotRoot;
use crate::system::syscalls::stat_below;
use crate::tell::escape::{escape_path, shell_path, shell_word, unescape};
use crate::tell::{PROGRAM, counted};

/// How long a client may take over a backup.
const UNFINISHED_AFTER: TimeDelta = TimeDelta::days(1);

/// How far the clocks of client and server may differ.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::minutes(5);

/// A backup that its client has begun and not finished for a day, or whose beginning lies in the
/// future by this server's clock.
pub(crate) fn unfinished_backup(root: &SnapshotRoot, now: DateTime<Utc>) -> Option<String> {
    let since = UnfinishedFile::of_module(root.module().ok()?)?.begun;
    if since - now > CLOCK_TOLERANCE {
        return Some(format!(
            "a client has begun a backup and not finished it, at {} by its clock, which is ahead \
             of this server's: set that clock; snapshots are partial until the backup is finished; \
             if it never will be, run `rm {}`",
            since.format("%FT%TZ"),
            unfinished_file(root)
        ));
    }
    if now - since <= UNFINISHED_AFTER {
        return None;
    }
    Some(format!(
        "a client has begun a backup {} ago and not finished it, so snapshots are partial until it \
         does: run the backup there again; if it will never come, run `rm {}`",
        roughly(now - since),
        unfinished_file(root)
    ))
}

fn unfinished_file(root: &SnapshotRoot) -> String {
    shell_path(&root.module_path.join(completion::UNFINISHED))
}

/// How long rsync may take over one file.
const STALE_AFTER: TimeDelta = TimeDelta::days(1);

/// The temporary files in the newest snapshot's record that are still in the module and are old.
pub(crate) fn stale_temporaries(
    root: &SnapshotRoot,
    record: &Record,
    now: DateTime<Utc>,
) -> Option<String> {
    let module = root.module().ok()?;
    let is_stale = |path: &&String| {
        let stat = unescape(path).and_then(|path| stat_below(module, &path).ok());
        stat.is_some_and(|stat| stat.st_mtime < (now - STALE_AFTER).timestamp())
    };
    let stale: Vec<&String> = record.temporary_files.iter().filter(is_stale).collect();
    let first = stale.first()?;
    Some(format!(
        "{} that look like what rsync leaves when it is stopped are more than a day old, the first \
         is {first}; a push with `--delete` removes them if no user needs them",
        counted(stale.len(), "file")
    ))
}

/// Failed pushes that no later push can make up for without the administrator.
pub(crate) fn failed_pushes(target: &Target, torn: &TornMark) -> Vec<String> {
    let release = target.command("release", "--torn");
    let unhealed = torn.unhealed().into_iter().map(|(client, request, path)| {
        format!(
            "the failed push of {client} to {request} left the directory {path} unfinished, and \
             {UNHEALED_LIMIT} good pushes to that place have not finished it: it may be another \
             job's, or excluded by now; repeat that job, or if the directory is right as it is, \
             run `{release}`"
        )
    });
    let mut addresses = torn.only_by_address();
    addresses.sort_unstable();
    addresses.dedup();
    let by_address = (!addresses.is_empty()).then(|| {
        format!(
            "only a push from the same {} that does the same or more makes up for a failed one; \
             where a client's address changes, let it log in (`auth users` in rsyncd.conf), or run \
             `{release}`",
            addresses.join(", ")
        )
    });
    unhealed.chain(by_address).collect()
}

/// What advice about a failed push rests on.
pub(crate) struct PushSurroundings<'a> {
    pub(crate) target: &'a Target,
    /// Where rsyncd logs.
    pub(crate) log: String,
    /// Whether any push to the module has ever ended well. If none has, the server may have refused
    /// every file, and to accept that would bring complete snapshots without files.
    pub(crate) has_good_push: bool,
}

impl PushSurroundings<'_> {
    /// What to do about files that a push could not transfer, before the same push comes again.
    fn untransferred(&self) -> String {
        if self.has_good_push {
            return format!(
                "see which files its output names, exclude them there or {}",
                as_complete(self.target, PARTIAL_TRANSFER)
            );
        }
        format!(
            "no push has ever ended well, so see first whether this server refuses the files: {} \
             names those that it could not write; look at `temp dir`, `exclude`, `filter` and \
             `uid` of the module and at the owners in its directory. Mend that, or exclude on the \
             client what it cannot read",
            self.log
        )
    }
}

/// Pushes in a row that brought no complete snapshot, with the remedy for their cause.
pub(crate) fn pushes_without_snapshot(
    around: &PushSurroundings,
    found: &PushesWithoutSnapshot,
) -> Option<String> {
    let PushSurroundings { target, log, .. } = around;
    let PushesWithoutSnapshot { pushes, since, status, because } = found;
    if *pushes < PUSHES_WITHOUT_SNAPSHOT_LIMIT {
        return None;
    }
    let accept = |status| as_complete(target, status);
    let remedy = match (status, because) {
        (&NO_HOOK, _) => find_hook(target),
        (_, TransferReason::ClientPartial) | (&PARTIAL_TRANSFER, _) if !around.has_good_push => {
            around.untransferred()
        }
        (_, TransferReason::ClientPartial) => format!(
            "the client's output names the files; if they may be missing, exclude them there, or \
             {}",
            accept(PARTIAL_TRANSFER)
        ),
        (&PARTIAL_TRANSFER, _) => format!(
            "the client's output names the files that it could not read, and {log} those that \
             could not be written here; mend that, or if they may be missing, exclude them on the \
             client, or {}",
            accept(PARTIAL_TRANSFER)
        ),
        (25, _) => format!(
            "the client's `--max-delete` stopped it from removing what is gone (the client itself \
             may report 0): raise that on the client, or {}",
            accept(25)
        ),
        (_, TransferReason::ClientUnfinished) => {
            "run the backup on that client again, and see what keeps it from finishing".to_string()
        }
        (_, TransferReason::Torn { .. }) => format!(
            "repeat that push, or if its client never comes back, run `{}`",
            target.command("release", "--torn")
        ),
        (_, TransferReason::Running { .. }) => {
            "let pushes to this module overlap less, or give each client a module of its own"
                .to_string()
        }
        (_, TransferReason::NotInLedger) => {
            "pre-xfer could not do its work: `journalctl -t rsyncd-snapshot` says why".to_string()
        }
        _ => format!(
            "see the client's output and {log}; `partial_on_exit` in the policy keeps what such \
             pushes bring as partial snapshots"
        ),
    };
    let end = match because {
        _ if *status == NO_HOOK => "the hook after the last one did not run".to_string(),
        TransferReason::Failed { .. } => because.to_string(),
        because => format!("the last one ended with status {status}, and {because}"),
    };
    Some(format!(
        "the last {pushes} pushes, since {}, brought no complete snapshot: {end}; {remedy}",
        since.format("%FT%TZ")
    ))
}

/// What to do where the hook after a push did not run.
fn find_hook(target: &Target) -> String {
    format!(
        "see that the module's `post-xfer exec` runs {PROGRAM} (`{}` tells what it runs), and that \
         no restart of the daemon ends pushes",
        target.command("check", "-v")
    )
}

/// The line of the policy by which a status earns a complete snapshot.
fn as_complete(target: &Target, status: i32) -> String {
    let mut statuses = target.policy.snapshot_on_exit.clone();
    statuses.push(status);
    statuses.sort_unstable();
    statuses.dedup();
    let table = target.name.as_deref().map_or("defaults".to_string(), |name| {
        format!("module.{}", key_text(&String::from_utf8_lossy(name)))
    });
    let file = target.policy_file.as_deref().unwrap_or(Path::new(POLICY_FILE));
    format!("write `snapshot_on_exit = {statuses:?}` in [{table}] of {}", escape_path(file))
}

/// The command that repeats a restore in place.
fn restore_again(target: &Target, restore: &RestoreInPlace) -> String {
    let bytes = |text: &str| unescape(text).unwrap_or_else(|| text.as_bytes().to_vec());
    let word = |path: &&str| match bytes(path) {
        path if path.is_empty() => ".".to_string(),
        path if path.starts_with(b"-") => shell_word(&[b"./", &path[..]].concat()),
        path => shell_word(&path),
    };
    let paths: Vec<String> = restore.paths.iter().map(word).collect();
    let snapshot = shell_word(&bytes(restore.snapshot));
    let overwrite = if restore.overwrites { " --overwrite" } else { "" };
    target.command("restore", &format!("{snapshot} {} --in-place{overwrite}", paths.join(" ")))
}

/// How long a failed push may wait for its client to repeat it before `check` says more about it.
const TORN_FOR_LONG: TimeDelta = TimeDelta::days(1);

/// The torn mark: whose push failed and how, what that means, and what to do. `failed`: the end of
/// the last failed push, if the mark is of that.
pub(crate) fn torn_module(
    around: &PushSurroundings,
    torn: &TornMark,
    failed: Option<&FailedEnd>,
    now: DateTime<Utc>,
) -> String {
    let target = around.target;
    let torn_since = torn.torn_since();
    let since = torn_since.format("%FT%TZ");
    let free_bytes = failed.filter(|end| end.status == torn.status).and_then(|end| end.free_bytes);
    let end = RsyncStatus(torn.status).with_space(free_bytes);
    let release = target.command("release", "--torn");
    let requests = torn.requests();
    let restores: Vec<String> = torn
        .restores()
        .iter()
        .map(|restore| format!("`{}`", restore_again(target, restore)))
        .collect();
    let are_restores = restores.len() == requests.len();
    let again = match torn.status {
        PARTIAL_TRANSFER => {
            format!("{}, and then run the same push again on that client", around.untransferred())
        }
        _ => "run the same push again on that client".to_string(),
    };
    let (what, next) = if requests.is_empty() {
        let next = "push again; a good push that changes something ends this, and so does a \
                    `snapshot` that finds the module equal to the newest complete snapshot";
        (format!("a push of an unknown client failed ({end})"), next.to_string())
    } else {
        let what = match requests.len() {
            1 if are_restores && torn.status == NO_HOOK => {
                format!("the push of {} was broken off", requests.join(""))
            }
            1 if torn.status == NO_HOOK => {
                format!("the hook after the push of {} did not run", requests.join(""))
            }
            1 => format!("the push of {} failed ({end})", requests.join("")),
            _ => format!("pushes failed (the last with {end}): of {}", requests.join(", of ")),
        };
        let next = match restores.len() {
            0 if torn.status == NO_HOOK => format!("{}; then {again}", find_hook(target)),
            0 => again,
            _ if are_restores => {
                format!("{}, or push with `--delete` to there", restores.join(" and "))
            }
            _ => format!("{again}, and {}", restores.join(" and ")),
        };
        (what, next)
    };
    let is_old = now - torn_since > TORN_FOR_LONG;
    let age = if is_old {
        format!(
            ", for {} now, and no push since then did all that it was to do",
            roughly(now - torn_since)
        )
    } else {
        String::new()
    };
    format!(
        "torn since {since}{age}: {what}, so the module may be a mixture of old and new files, and \
         snapshots are partial until that ends. Next: {next}. If that client is gone, or the \
         module is right as it is: `{release}`, which changes no file"
    )
}
