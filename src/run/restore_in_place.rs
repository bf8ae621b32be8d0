//! Restores into the module itself. This writes as a push does, so it is one: of the client
//! `restore`, whose process is this one.
//!
//! Plan → wait at the gate and enter the restore in the ledger → write, sync and verify → the rest
//! as the hook after a push: marks, snapshot, rotation.
//!
//! * The entry is on disk before anything is written. If this process is killed after that, the
//!   next run finds the entry of a dead process, and marks the module torn until the same restore
//!   is repeated, or a push covers it.
//! * The module gets new files. What it has already is replaced in one step and never written to,
//!   so snapshots that share the old files keep them.
//! * A staging directory in the module, where that is a subvolume, is removed by the next run or
//!   restore, if this process is killed.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::stat::{FileStat, fstat, futimens};
use nix::sys::time::TimeSpec;

use crate::decide::arguments::transfer_kind::TransferKind;
use crate::decide::client::Client;
use crate::decide::push_job::PushJob;
use crate::decide::restore_paths::common_place;
use crate::decide::root_overlap::Opener;
use crate::decide::verdict_facts::{AllowedSnapshot, PARTIAL_TRANSFER, Reporter};
use crate::engine::restore::outcome::PassOutcome;
use crate::module::target::Target;
use crate::run::dead_transfers::{highest_marked, reap};
use crate::run::gate_wait::{GateAnswer, GateWait};
use crate::run::order;
use crate::run::request::Request;
use crate::run::restore::{RestoreJob, RestorePlace, Restored, placed_paths, plan, tree, write};
use crate::run::session::Session;
use crate::store::dir::Dir;
use crate::store::layout::Subdir;
use crate::store::ledger_entry::{LedgerEntry, StoredEntry};
use crate::store::lock::holder_of;
use crate::store::restore_staging::RestoreStaging;
use crate::store::root::SnapshotRoot;
use crate::system::clock::Clock;
use crate::system::identity::SysResult;
use crate::system::process::Process;
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape;
use crate::tell::wait_notice::WaitNotice;

/// What a restore that cannot begin says about its consequence.
const NOTHING_RESTORED: &str = "nothing was restored: try again later";

/// Restores into the directory of `target`, takes a snapshot and rotates. If anything is in the
/// way, nothing is written. `end_lease` is called
/// once the snapshot is no longer read.
///
/// # Errors
/// [`Error::Busy`] if a run kept reading the module, and others before anything was written.
pub(crate) fn in_place(
    job: RestoreJob,
    target: &Target,
    clock: &Clock,
    end_lease: impl FnOnce(),
) -> Result<Restored> {
    let target = &target.clone().opened_by(Opener::Push);
    target.check_nesting_in_hook()?;
    let root = &target.open_root()?;
    let session = Session { target, root, clock };
    let module = Dir { directory: root.module()?, path: &root.module_path };
    let to = RestorePlace::InPlace(module);
    let placed = placed_paths(job.paths, to)?;
    let mut tree = tree(job, to, &placed)?;
    let plan = match plan(&mut tree, module) {
        Ok(plan) => plan,
        Err(refused) => return Ok(*refused),
    };
    let stored = enter(session, job)?;
    let before = fstat(module.directory);
    let staging = match staging(root, module) {
        Ok(staging) => staging,
        Err(error) => {
            // Nothing was written, so the module is as it was.
            target.open_ledger(root)?.strike(&stored)?;
            return Err(error);
        }
    };
    let mut restored = write(job, &mut tree, plan, staging, module);
    if let (0, Ok(before)) = (changed(&restored.written), before)
        && let Err(cause) = set_times(module, &before)
    {
        restored.errors.note(Error::io("set the times of", module.path, cause));
    }
    end_lease();
    let status = if restored.is_exact() { 0 } else { PARTIAL_TRANSFER };
    let allowed = AllowedSnapshot::of_status(status, Reporter::Daemon, target.policy.statuses());
    let request = Request::transfer(allowed, status, Client::restore()).entered(stored);
    match order::run(target, &request, clock) {
        Ok(report) => restored.report = Some(report),
        Err(error) => restored.run_error = Some(error),
    }
    Ok(restored)
}

/// Where new files are made: in the program's own directory. No file can be moved into a subvolume,
/// so there it is in the module, as in a restore into another directory.
fn staging(root: &SnapshotRoot, module: Dir) -> Result<RestoreStaging> {
    match root.method().is_instant() {
        true => RestoreStaging::open(module),
        false => RestoreStaging::open(root.subdir(Subdir::Restoring)?.dir()),
    }
}

fn changed(written: &PassOutcome) -> u64 {
    written.made + written.replaced + written.directories
}

/// Gives the module's directory its times again: a staging directory in it has changed them, and
/// the restore has changed nothing.
fn set_times(module: Dir, before: &FileStat) -> SysResult<()> {
    futimens(
        module.directory,
        &TimeSpec::new(before.st_atime, before.st_atime_nsec),
        &TimeSpec::new(before.st_mtime, before.st_mtime_nsec),
    )
}

/// Waits at the gate, and enters the restore in the ledger.
fn enter(session: Session, job: RestoreJob) -> Result<StoredEntry> {
    let Session { target, root, clock } = session;
    let seconds = target.policy.push_wait.seconds();
    let notice = WaitNotice::begin();
    let holder = || {
        let holder = holder_of(root.private(), &|_| true);
        holder.unwrap_or_else(|| "a run that takes a snapshot".to_string())
    };
    let wait = GateWait {
        deadline: &|| Instant::now() + Duration::from_secs(seconds),
        is_gone_after: &|pause| {
            notice.tell_once(|| {
                let (label, limit, holder) = (target.label(), target.policy.push_wait, holder());
                format!(
                    "{label}: waits for up to {limit} for a run that reads the module: {holder}"
                )
            });
            sleep(pause);
            false
        },
    };
    let GateAnswer::Open(ledger) = wait.until_open(session)? else {
        return Err(Error::Busy {
            root: root.label(),
            holder: holder(),
            waited_seconds: seconds,
            consequence: NOTHING_RESTORED,
        });
    };
    // An earlier transfer may have been served by a process of the same number.
    reap(session, &ledger)?;
    let owner = Process::own()?.ok_or(Error::Bug("this process does not exist"))?;
    let place = escape(&common_place(job.paths));
    let module = target.name.as_deref().map(escape).unwrap_or_default();
    let entry = LedgerEntry {
        kind: TransferKind::Push,
        request: format!("{module}/{place}"),
        job: Some(job_of(job, place)),
        ..LedgerEntry::without_pre_xfer(Client::restore(), owner, clock)
    };
    ledger.begin(root, entry, highest_marked(root))
}

fn job_of(job: RestoreJob, place: String) -> PushJob {
    let mut paths: Vec<String> = job.paths.iter().map(|path| escape(&path.bytes())).collect();
    paths.sort();
    PushJob::of_restore(&job.source.name, place, &paths, job.overwrites)
}
