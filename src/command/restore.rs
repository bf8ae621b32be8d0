//! `restore`: copies out of a snapshot, into a directory or into the module itself.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::command::print_json;
use crate::command::restore_destination::destination;
use crate::command::restore_options::RestoreOptions;
use crate::command::restore_view::{RestoreView, step_line};
use crate::command::snapshot_choice::{ChosenSnapshot, choose};
use crate::decide::grade::Grade;
use crate::decide::restore_paths::{RestorePath, paths_in_place, paths_under, read_path};
use crate::decide::restore_step::RestoreStep;
use crate::engine::restore::pass_walk::OnStep;
use crate::module::confine;
use crate::module::context::Context;
use crate::module::target::Target;
use crate::run::lost_directory::lost_directory_error;
use crate::run::restore::{RestoreJob, RestorePlace, Restored, dry_run, into_directory};
use crate::run::restore_in_place::in_place;
use crate::run::restore_source::SnapshotSource;
use crate::run::verify::known_damage;
use crate::store::dir::OwnedDir;
use crate::store::lease_entry::LeasedSnapshots;
use crate::store::leases::Lease;
use crate::store::root::SnapshotRoot;
use crate::system::clock::Clock;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path};
use crate::tell::exit::Exit;
use crate::tell::output::print;
use crate::tell::terminal::line_width;

/// Restores, and prints what was restored.
///
/// # Errors
/// If nothing was restored, with the reason.
pub(crate) fn run(context: &Context, options: &RestoreOptions, json: bool) -> Result<Exit> {
    let (chosen, given) = choose(context, &options.named, options.at.as_deref())?;
    if let Some(target) = &chosen.target {
        context.set_level(target);
    }
    let source = SnapshotSource::open(&chosen.root_path, &chosen.name.text)?;
    let paths = selected(&chosen, &given, options.to.is_some())?;
    paths.iter().try_for_each(|path| source.check_path(path))?;
    if chosen.name.grade == Grade::Partial {
        log::warn!("{} is partial: it may be a mixture of two states", chosen.name.text);
    }
    let target = chosen.target.as_ref();
    let job = RestoreJob { source: &source, target, paths: &paths, overwrites: options.overwrite };
    let mut on_step = printer(context, json);
    let (destination, restored) = match &options.to {
        Some(to) => {
            let path = destination(context, to, &chosen)?;
            let restored = restore_to(job, &path, options.dry_run, &mut on_step)?;
            (path, restored)
        }
        None => {
            let target = target.ok_or_else(|| unknown_module(&chosen))?;
            lost_directory_error(target).map_or(Ok(()), Err)?;
            let restored = match options.dry_run {
                true => try_in_place(job, target, &mut on_step)?,
                false => restore_in_place(job, target, context)?,
            };
            (target.module_path.clone(), restored)
        }
    };
    let mut restored = restored;
    if restored.run_error.is_none() {
        let entries = restored.is_exact().then_some(restored.written.entries);
        let damage = &mut restored.damage;
        restored.gaps =
            known_damage::of_restore(&source, &paths, entries, &mut |error| damage.note(error));
    }
    finish(context, &RestoreView::new(&chosen, &destination, &restored, options), &restored, json)
}

fn unknown_module(chosen: &ChosenSnapshot) -> Error {
    Error::Usage(format!(
        "the module of {} is not known here, so nothing can be restored in place: name the module, \
         or restore with --to into a directory",
        escape_path(&chosen.root_path)
    ))
}

/// The paths of the command line, as paths in the snapshot.
fn selected(
    chosen: &ChosenSnapshot,
    given: &[&OsStr],
    into_directory: bool,
) -> Result<Vec<RestorePath>> {
    let place = chosen.place();
    let paths = given.iter().map(|path| read_path(path.as_bytes(), place));
    let paths = paths.collect::<std::result::Result<Vec<_>, _>>();
    let chosen = paths.and_then(|paths| match into_directory {
        true => paths_under(paths),
        false => paths_in_place(paths),
    });
    chosen.map_err(Error::Usage)
}

fn restore_to(job: RestoreJob, path: &Path, is_dry_run: bool, on_step: OnStep) -> Result<Restored> {
    if is_dry_run {
        let opened = path.exists().then(|| OwnedDir::open(path)).transpose()?;
        return dry_run(job, RestorePlace::Directory(opened.as_ref().map(OwnedDir::dir)), on_step);
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(cause) => return Err(Error::io("make the directory", path, cause)),
    }
    let directory = OwnedDir::open(path)?;
    let root = job.target.map(Target::open_root);
    let opened = root.as_ref().and_then(|root| root.as_ref().ok());
    confine::to_directory(opened, directory.dir().directory);
    let lease = take_lease(job, root.as_ref());
    let restored = into_directory(job, directory.dir());
    drop(lease);
    restored
}

fn try_in_place(job: RestoreJob, target: &Target, on_step: OnStep) -> Result<Restored> {
    let directory = OwnedDir::open(&target.module_path)?;
    dry_run(job, RestorePlace::InPlace(directory.dir()), on_step)
}

fn restore_in_place(job: RestoreJob, target: &Target, context: &Context) -> Result<Restored> {
    // A run that takes a snapshot begins the records anew, and pauses expiry.
    if !target.is_registered() {
        // A user who may not read the records is told that.
        target.look_at_root()?;
        return Err(Error::Root {
            path: escape_path(&target.root_path),
            problem: format!("has no records of the module {}", target.label()),
            remedy: format!(
                "nothing was restored: run `{}` first, which records the snapshots that are there, \
                 and restore then; or restore with --to into another directory",
                target.command("snapshot", "")
            ),
        });
    }
    confine::to([target], context.write_scope);
    let lease = take_lease(job, Some(&target.open_root()));
    in_place(job, target, &Clock::System, || drop(lease))
}

/// Keeps the snapshot from being retired while it is read. An ordinary user, or a disk that cannot
/// be written, is no reason not to restore: a snapshot that goes away meanwhile is noticed.
fn take_lease(job: RestoreJob, root: Option<&Result<SnapshotRoot>>) -> Option<Lease> {
    let name = &job.source.name;
    let reader = format!("`restore` (process {})", std::process::id());
    let take = |root| Lease::take(root, LeasedSnapshots::one(name), &reader, &Clock::System);
    let why = match root {
        Some(Ok(root)) => match take(root) {
            Ok(lease) => return Some(lease),
            Err(error) => error.to_string(),
        },
        Some(Err(error)) => error.to_string(),
        None => "its module is not known here".to_string(),
    };
    log::info!("no lease on {name}: {why}. If it expires during the restore, the restore fails");
    None
}

/// Prints a line for each step of a dry run; for what stays as it is only if `--verbose` asks.
fn printer(context: &Context, json: bool) -> impl FnMut(RestoreStep, &[u8]) + use<> {
    let is_verbose = context.level == Some(log::LevelFilter::Debug);
    let is_silent = json || context.is_quiet();
    move |step, path| {
        let line = step_line(step, path, line_width()).filter(|_| !is_silent);
        if let Some(line) = line.filter(|_| is_verbose || step != RestoreStep::Keep) {
            // The summary at the end tells whether the output can be written.
            let _ = print(&line);
        }
    }
}

/// Logs what went wrong, and prints the summary.
fn finish(context: &Context, view: &RestoreView, restored: &Restored, json: bool) -> Result<Exit> {
    // A dry run has printed them as steps.
    for conflict in restored.written.conflicts.first.iter().filter(|_| !view.dry_run) {
        log::error!("{}: {}", escape(&conflict.path), conflict.obstacle);
    }
    let damage = &restored.damage.first;
    for error in restored.errors.first.iter().chain(damage).chain(&restored.run_error) {
        log::error!("{error}");
    }
    let lost = || restored.gaps.iter().filter(|gap| gap.is_loss);
    for gap in lost() {
        log::warn!("{} cannot be compared with all that was recorded: {}", view.snapshot, gap.text);
    }
    if restored.munged_links > 0 && !view.in_place {
        log::warn!(
            "symbolic links that begin with /rsyncd-munged/: {}; rsyncd adds that prefix in a \
             module without chroot, and removes it on download. Restore these links by rsync \
             through a restore module, or find them with `find DIR -type l -lname \
             '/rsyncd-munged/*'`",
            restored.munged_links
        );
    }
    if restored.dropped_rights > 0 {
        log::warn!(
            "files without the set-user-ID or set-group-ID bits that they have in the snapshot, \
             since they could not be given their owner: {}; restore them as root to keep both",
            restored.dropped_rights
        );
    }
    if json {
        print_json(true, &[view])?;
    } else if !context.is_quiet() && !matches!(restored.run_error, Some(Error::InTheWay { .. })) {
        print(&view.to_text())?;
    }
    let of_run = match (&restored.report, &restored.run_error) {
        (_, Some(error)) => error.exit(),
        (Some(report), None) => report.exit(),
        (None, None) => Exit::Done,
    };
    let is_as_backed_up = restored.is_exact() && restored.damage.is_empty();
    Ok(match (is_as_backed_up, of_run, lost().next()) {
        (false, ..) => Exit::Failed,
        (true, Exit::Done, Some(_)) => Exit::Warnings,
        (true, ..) => of_run,
    })
}
