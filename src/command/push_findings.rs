//! The findings of `check` about failed and unfinished pushes.

use chrono::{DateTime, TimeDelta, Utc};

use crate::decide::duration_text::roughly;
use crate::decide::pushes_without_snapshot::{
    PUSHES_WITHOUT_SNAPSHOT_LIMIT, PushesWithoutSnapshot,
};
use crate::decide::torn_mark::{TornMark, UNHEALED_LIMIT};
use crate::decide::transfer_reason::TransferReason;
use crate::store::completion::{self, UnfinishedFile};
use crate::store::record::Record;
use crate::store::root::SnapshotRoot;
use crate::system::syscalls::stat_below;
use crate::tell::counted;
use crate::tell::escape::unescape;

/// How long a client may take over a backup.
const UNFINISHED_AFTER: TimeDelta = TimeDelta::days(1);

/// How far the clocks of client and server may differ.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::minutes(5);

/// A backup that its client has begun and not finished for a day, or whose beginning lies in the
/// future by this server's clock.
pub(crate) fn unfinished_backup(root: &SnapshotRoot, now: DateTime<Utc>) -> Option<String> {
    let since = UnfinishedFile::of_module(root.module())?.begun;
    if since - now > CLOCK_TOLERANCE {
        return Some(format!(
            "a client has begun a backup and not finished it, at {} by its clock, which is ahead \
             of this server's: set that clock; snapshots are partial until the backup is finished; \
             if it never will be, remove {} from the module",
            since.format("%FT%TZ"),
            completion::UNFINISHED
        ));
    }
    if now - since <= UNFINISHED_AFTER {
        return None;
    }
    Some(format!(
        "a client has begun a backup {} ago and not finished it, so snapshots are partial until it \
         does; if it will never come, remove {} from the module",
        roughly(now - since),
        completion::UNFINISHED
    ))
}

/// How long rsync may take over one file.
const STALE_AFTER: TimeDelta = TimeDelta::days(1);

/// The temporary files in the newest snapshot's record that are still in the module and are old.
pub(crate) fn stale_temporaries(
    root: &SnapshotRoot,
    record: &Record,
    now: DateTime<Utc>,
) -> Option<String> {
    let is_stale = |path: &&String| {
        let stat = unescape(path).and_then(|path| stat_below(root.module(), &path).ok());
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
pub(crate) fn failed_pushes(torn: &TornMark) -> Vec<String> {
    let unhealed = torn.unhealed().into_iter().map(|(client, request, path)| {
        format!(
            "the failed push of {client} to {request} left the directory {path} unfinished, and \
             {UNHEALED_LIMIT} good pushes to that place have not finished it: it may be another \
             job's, or excluded by now; repeat that job, or if the directory is right as it is, \
             run `release --torn`"
        )
    });
    let mut addresses = torn.only_by_address();
    addresses.sort_unstable();
    addresses.dedup();
    let by_address = (!addresses.is_empty()).then(|| {
        format!(
            "only a push from the same {} that does the same or more makes up for a failed one; \
             where a client's address changes, let it log in (`auth users` in rsyncd.conf), or run \
             `release --torn`",
            addresses.join(", ")
        )
    });
    unhealed.chain(by_address).collect()
}

/// Pushes in a row that brought no complete snapshot, with the remedy for their cause.
pub(crate) fn pushes_without_snapshot(found: &PushesWithoutSnapshot) -> Option<String> {
    let PushesWithoutSnapshot { pushes, since, status, because } = found;
    if *pushes < PUSHES_WITHOUT_SNAPSHOT_LIMIT {
        return None;
    }
    let remedy = match (status, because) {
        (23, _) => {
            "files could not be read or written: the client's output and rsyncd's log name them; \
             if they may be missing, exclude them, or add 23 to `snapshot_on_exit`"
        }
        (25, _) => {
            "the client's `--max-delete` stopped it from removing what is gone (the client itself \
             may report 0): raise that, or add 25 to `snapshot_on_exit`"
        }
        (_, TransferReason::ClientPartial) => {
            "the client's output names the files; if they may be missing, exclude them, or add 23 \
             to `snapshot_on_exit`"
        }
        (_, TransferReason::ClientUnfinished) => {
            "see what keeps that client from finishing its backup"
        }
        (_, TransferReason::Torn { .. }) => {
            "repeat that push, or run `release --torn` if its client never comes back"
        }
        (_, TransferReason::Running { .. }) => {
            "let pushes to this module overlap less, or give each a module of its own"
        }
        (_, TransferReason::NotInLedger) => "pre-xfer could not do its work: its log lines say why",
        _ => {
            "see the client's output and rsyncd's log; `partial_on_exit` makes partial snapshots \
             of such pushes"
        }
    };
    Some(format!(
        "the last {pushes} pushes, since {}, ended with status {status} and brought no complete \
         snapshot: {because}; {remedy}",
        since.format("%FT%TZ")
    ))
}

pub(crate) fn describe_torn(torn: &TornMark) -> String {
    let since = torn.since.format("%FT%TZ");
    // A negative status does not come from rsyncd: the hook did not run, or the state was lost.
    let end = match torn.status {
        status @ 0.. => format!("a transfer ended with status {status}"),
        _ => "it is not known how the last transfer ended".to_string(),
    };
    let requests = torn.requests();
    if requests.is_empty() {
        return format!(
            "torn since {since}, so the module may be a mixture of old and new files: {end}, and \
             none has ended well and changed anything since; the next push that ends well, a \
             `snapshot` that finds the module equal to the newest complete one, or `release \
             --torn`, ends this"
        );
    }
    format!(
        "torn since {since}, so the module may be a mixture of old and new files: {end}; not \
         repeated yet: the push of {}; if it will never come, `release --torn`",
        requests.join(", of ")
    )
}
