//! `release`: ends the pause of the large-change guard, the torn mark, the pause for damage, pushes
//! that cannot be seen from here, or the alert about snapshots that vanished. The administrator
//! decides that.
//!
//! Each of them says in one line what it has ended, and then everything else that still keeps
//! snapshots from expiring, from being made or from being complete, with the command that ends it.

use std::ffi::OsStr;

use serde::Serialize;

use crate::command::run_findings::Activity;
use crate::command::{print_done, print_json};
use crate::decide::grade::Grade;
use crate::decide::root_overlap::Opener;
use crate::decide::rotation::pauses;
use crate::decide::snapshot_reason::ExpiryPause;
use crate::decide::verdict_facts::ClientCompletion;
use crate::module::context::Context;
use crate::module::target::Target;
use crate::run::verify::commands;
use crate::run::{dead_transfers, rotate, transfer, vanished};
use crate::store::leases::{self, Leases};
use crate::store::ledger::Ledger;
use crate::store::snapshots::SnapshotList;
use crate::store::state::State;
use crate::system::clock::Clock;
use crate::tell::counted;
use crate::tell::error::Result;
use crate::tell::escape::{escape, escape_path, shell_word};
use crate::tell::exit::Exit;

/// The module on the command line, or none for all, and how the result is told.
#[derive(Clone, Copy)]
pub(crate) struct Released<'a> {
    pub module: Option<&'a OsStr>,
    pub json: bool,
}

/// The JSON that docs describe.
#[derive(Serialize)]
struct ReleaseView {
    module: Option<String>,
    snapshot_root: String,
    ended: String,
    standing: Vec<String>,
}

/// Ends the pause of the large-change guard, and removes each pin that it set.
///
/// # Errors
/// If the module or its state cannot be used.
pub(crate) fn release_anomaly(context: &Context, released: Released) -> Result<Exit> {
    release_each(context, released, |target| {
        let root = target.open_root()?;
        let mut unpinned = None;
        State::update(root.private(), |state| unpinned = state.release_anomaly())?;
        Ok(match unpinned.as_deref() {
            None => "nothing to release".to_string(),
            Some([]) => "the pause after a large change is released".to_string(),
            Some(names) => format!(
                "the pause after a large change is released; no longer pinned, so that the policy \
                 decides: {}; `pin` keeps what is to stay",
                names.join(", ")
            ),
        })
    })
}

/// Removes the torn mark: the administrator has found the live tree to be right.
///
/// # Errors
/// If the module, its ledger or its state cannot be used.
pub(crate) fn release_torn(context: &Context, released: Released) -> Result<Exit> {
    release_each(context, released, |target| {
        if !transfer::release_torn(target, &Clock::System)? {
            return Ok("not torn".to_string());
        }
        let kept = newest_complete(target)?.map(|name| {
            format!(
                ", and the next snapshot as complete; if files may be missing, keep {name} from \
                 before by `pin {name}`"
            )
        });
        Ok(format!("no longer torn: the module counts as whole{}", kept.unwrap_or_default()))
    })
}

/// The name of the newest complete snapshot, if there is one.
fn newest_complete(target: &Target) -> Result<Option<String>> {
    let root = target.look_at_root()?;
    let list = SnapshotList::read(&root, &target.policy.time_zone)?;
    let newest = list.newest(Grade::Complete, Clock::System.now());
    Ok(newest.map(|snapshot| snapshot.name.text.clone()))
}

/// Ends pushes and readers whose processes cannot be seen from here: those of another machine, or
/// of a container that was removed.
///
/// # Errors
/// If the module, its ledger, its leases or its state cannot be used.
pub(crate) fn release_unseen(context: &Context, released: Released) -> Result<Exit> {
    release_each(context, released, |target| {
        let pushes = dead_transfers::end_unseen(target, &Clock::System)?;
        let readers = leases::end_unseen(&target.open_root()?)?;
        let ended = [count_as_ended(pushes, "push"), count_as_ended(readers, "reader")];
        let ended: Vec<String> = ended.into_iter().flatten().collect();
        Ok(match ended.is_empty() {
            true => {
                "no push whose process cannot be seen from here, and no such reader".to_string()
            }
            false => ended.join(", "),
        })
    })
}

fn count_as_ended(count: usize, what: &str) -> Option<String> {
    let counts = if count == 1 { "counts" } else { "count" };
    (count > 0).then(|| format!("{} {counts} as ended", counted(count, what)))
}

/// Accepts the altered files of snapshots as they are, and ends the pause for damage.
///
/// # Errors
/// If the module, its inode log or its state cannot be used.
pub(crate) fn release_damage(context: &Context, released: Released) -> Result<Exit> {
    release_each(context, released, |target| {
        let was_damaged = State::read(target.look_at_root()?.private())?.damage.is_some();
        let accepted = commands::accept(target, &Clock::System)?;
        let files = match accepted.altered_inodes.len() {
            0 if !accepted.lacking.is_empty() => None,
            0 if was_damaged => Some(
                "the pause for damage is ended: nothing in the snapshots that are left is altered"
                    .to_string(),
            ),
            0 if accepted.gaps.iter().any(|one| one.is_of_entries && one.gap.is_loss) => {
                Some("accepted that snapshots cannot be compared with their indexes".to_string())
            }
            0 => Some("nothing is altered".to_string()),
            count => Some(format!("{} accepted as found", counted(count, "altered file"))),
        };
        let lacking = accepted.lacking.iter().map(|one| format!("accepted that {}", one.text()));
        Ok(files.into_iter().chain(lacking).collect::<Vec<_>>().join("; "))
    })
}

/// Accepts that snapshots were moved or removed by another program.
///
/// # Errors
/// If the module or its root cannot be used.
pub(crate) fn release_vanished(context: &Context, released: Released) -> Result<Exit> {
    release_each(context, released, |target| {
        let gone = commands::accept_vanished(target, &Clock::System)?;
        let names: Vec<String> = gone.iter().map(|name| escape(name.as_bytes())).collect();
        Ok(match names.as_slice() {
            [] => "no snapshot has vanished".to_string(),
            shown => {
                let pins = State::read(target.look_at_root()?.private())?.pins;
                let pinned = gone.iter().zip(shown).filter(|(name, _)| pins.contains_key(*name));
                let pinned = pinned.map(|(name, shown)| {
                    let unpin = target.command("unpin", &shell_word(name.as_bytes()));
                    format!("; the pin of {shown} stays until `{unpin}`")
                });
                format!("accepted as gone: {}{}", shown.join(", "), pinned.collect::<String>())
            }
        })
    })
}

/// Lets `end` end something in each module, and prints what it says that it has ended, and what
/// still stands.
fn release_each(
    context: &Context,
    Released { module, json }: Released,
    end: impl Fn(&Target) -> Result<String>,
) -> Result<Exit> {
    let mut views = Vec::new();
    let exit = context.change_each(module, None, Opener::Upkeep, |target| {
        let ended = end(target)?;
        let standing = standing(target)?;
        if json {
            views.push(ReleaseView {
                module: target.name.as_deref().map(escape),
                snapshot_root: escape_path(&target.root_path),
                ended,
                standing,
            });
            return Ok(Exit::Done);
        }
        let message: Vec<String> = [ended].into_iter().chain(standing).collect();
        print_done(context, target, &message.join("; "))
    })?;
    if json {
        print_json(module.is_some(), &views)?;
    }
    Ok(exit)
}

/// Everything that still keeps snapshots from expiring, from being made or from being complete.
fn standing(target: &Target) -> Result<Vec<String>> {
    let root = target.look_at_root()?;
    let clock = Clock::System;
    let now = clock.now();
    let examined = rotate::examine(target, &root, now, Some(clock.reading()))?;
    let state = &examined.state;
    let policy = target
        .trouble
        .first()
        .map(|mistake| format!("nothing expires yet, since the policy cannot be used: {mistake}"));
    let history = state.history(Some(clock.reading()));
    let mut pauses = pauses(&examined.list.snapshots(), &history, &target.policy, now);
    // Without a usable policy, nothing is known of a change of it.
    let decided = examined.decision.pause.clone().filter(|_| policy.is_none());
    pauses.extend(decided.filter(|pause| matches!(pause, ExpiryPause::MostOfHistory { .. })));
    let pauses = pauses.iter().map(|pause| format!("nothing expires yet: {pause}"));
    let mut standing: Vec<String> = policy.into_iter().chain(pauses).collect();
    let torn = state.torn.as_ref().map(|_| {
        "the module is still torn by a failed push: `check` says which, `release --torn` ends it"
            .to_string()
    });
    let unfinished = match root.module().map(ClientCompletion::of_module) {
        Err(_) | Ok(ClientCompletion::Done) => None,
        Ok(ClientCompletion::Partial | ClientCompletion::Unfinished) => Some(
            "snapshots are partial until the client has finished the backup that it has begun"
                .to_string(),
        ),
    };
    let due = state.due.as_ref().map(|due| {
        format!("a snapshot is due since {}: run `snapshot --due`", due.since.format("%FT%TZ"))
    });
    let entries = Ledger::look(&root, &target.memory.ledgers(&target.module_path))?;
    let unseen = Activity::of(target, &root, state, &entries, now).unseen_pushes().len();
    let unseen = (unseen > 0).then(|| {
        let pushes = if unseen == 1 { "1 push".to_string() } else { format!("{unseen} pushes") };
        format!(
            "{pushes} cannot be seen from here: `check` says which, `release --unseen` ends that"
        )
    });
    let readers = Leases::look(&root)?.unseen().count();
    let unseen_readers = (readers > 0).then(|| {
        format!(
            "{} cannot be seen from here: `list` says which, `release --unseen` ends that",
            counted(readers, "reader")
        )
    });
    let read =
        examined.decision.verdicts.iter().filter_map(|verdict| {
            Some((&verdict.snapshot.name, verdict.snapshot.reader.as_ref()?))
        });
    let read: Vec<_> = read.collect();
    let read = read.first().map(|(name, reader)| {
        let others = read.len() - 1;
        let others =
            if others > 0 { format!(", and {others} more are read") } else { String::new() };
        format!("{name} does not expire as long as it is read: {reader}{others}")
    });
    let gone = vanished::look_at(&root, state, &examined.list)?.message;
    standing
        .extend([torn, unfinished, due, unseen, unseen_readers, read, gone].into_iter().flatten());
    Ok(standing)
}
