//! `status`: what is going on in each module, the worst first.
//!
//! Changes nothing and waits for no lock. A module's state and the lines below it are the findings
//! of [`check`](crate::command::check) about its runs, pushes and snapshots, in the same words. The
//! daemon's configuration is not examined: that would take longer than a look may.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::io::ErrorKind;

use log::LevelFilter;

use crate::command::check_module::{SeenRoot, check_module};
use crate::command::check_surroundings::Surroundings;
use crate::command::config_findings;
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::command::full_commands::{with_module, with_options};
use crate::command::module_findings::{denied, former, last_attempt, unknown};
use crate::command::print_json;
use crate::command::status_view::{RootView, StatusView, to_full_text, to_text};
use crate::config::rsyncd_module::{ModuleDirectory, RsyncdModule};
use crate::config::settings::Settings;
use crate::module::context::Context;
use crate::module::expected_pushes::expects_pushes;
use crate::module::known_modules::{KnownModule, Needs, ask_ahead, beyond_conf, resolved_for};
use crate::module::named_module::named;
use crate::module::target::Target;
use crate::run::lost_directory::lost_directory_error;
use crate::store::expected_pushes::NotedPushes;
use crate::store::module_directory::missing_module;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path};
use crate::tell::exit::Exit;
use crate::tell::output::print;
use crate::tell::terminal::line_width;

/// The label of a module, and the module or all that there is to say about it.
type Found = (String, std::result::Result<Target, Finding>);

/// Prints the status of the named modules, or of all if none is named.
///
/// # Errors
/// If a name means no module, or rsyncd.conf is needed and cannot be read.
pub(crate) fn run(context: &Context, names: &[OsString], json: bool) -> Result<Exit> {
    let settings = &context.settings;
    let (found, exit) = match names {
        [] => (all(settings)?, Exit::Done),
        names => all_named(settings, names)?,
    };
    let policies = config_findings::policies(
        settings,
        match names {
            [name] => Some(name),
            _ => None,
        },
    );
    let seen: RefCell<Option<RootView>> = RefCell::new(None);
    let note = |root: SeenRoot| {
        if let SeenRoot::Itself(facts) = root {
            *seen.borrow_mut() = Some(RootView::of(facts));
        }
    };
    let around = Surroundings {
        others: context.other_modules(),
        noted: NotedPushes::of(&settings.memory),
        rsyncd: None,
        ended_with_23: Cell::new(false),
        told_mistakes: config_findings::mistakes_of(&policies),
    };
    let mut views: Vec<StatusView> = Vec::new();
    let of_policies = config_findings::of_policies(&policies);
    views.extend(of_policies.map(StatusView::of_policy));
    for (label, module) in found {
        let (argument, findings) = match module {
            Ok(target) => (Some(target.argument()), findings_of(&target, &around, &note)),
            Err(finding) => (None, vec![finding]),
        };
        let mut view = StatusView::new(label, seen.take(), findings);
        for finding in &mut view.findings {
            if let Some(argument) = &argument {
                finding.message = with_module(&finding.message, argument);
            }
            finding.message = with_options(&finding.message, &settings.options());
        }
        views.push(view);
    }
    views.sort_by_key(|view| std::cmp::Reverse(view.status));
    if context.is_quiet() {
        views.retain(|view| view.status != Severity::Ok);
    }
    if json {
        print_json(false, &views)?;
    } else if views.is_empty() && names.is_empty() && !context.is_quiet() {
        log::info!(
            "no module in {} runs this program, and this machine remembers none",
            escape_path(&settings.rsyncd_conf)
        );
    } else {
        let width = line_width();
        print(&match context.level {
            Some(LevelFilter::Debug) => to_full_text(&views),
            _ => to_text(&views, width),
        })?;
    }
    Ok(exit)
}

/// The modules that are named. If there are several, one that is not found is only reported.
fn all_named(settings: &Settings, names: &[OsString]) -> Result<(Vec<Found>, Exit)> {
    let (mut found, mut exit) = (Vec::new(), Exit::Done);
    for name in names {
        match named(settings, name, Needs::Root) {
            Ok(modules) => found.extend(modules.into_iter().map(with_finding)),
            Err(error) if names.len() == 1 => return Err(error),
            Err(error) => {
                log::error!("{error}");
                exit = exit.max(error.exit());
            }
        }
    }
    Ok((found, exit))
}

/// All modules that have had a run or should have one.
fn all(settings: &Settings) -> Result<Vec<Found>> {
    let conf = settings.rsyncd()?;
    ask_ahead(settings, conf);
    let configured = conf.modules.iter().filter_map(|module| {
        Some(with_finding((escape(&module.name), of_conf(settings, module)?)))
    });
    let beyond = beyond_conf(settings, conf, Needs::Root).into_iter().filter_map(|one| match one {
        KnownModule::Configured(label, target) | KnownModule::Unconfigured(label, target) => {
            Some(with_finding((label, target)))
        }
        KnownModule::NeverSucceeded(label, target) => Some((label, Ok(target))),
        KnownModule::Former(label, target) => Some((label, Err(former(&target)))),
        KnownModule::Unknown { name, why } => {
            conf.module(&name).filter(|module| expects_pushes(module))?;
            Some((escape(&name), Err(unknown(&why))))
        }
    });
    Ok(configured.chain(beyond).collect())
}

/// A module whose directory is in rsyncd.conf, if it has had a run or pushes are expected.
fn of_conf(settings: &Settings, module: &RsyncdModule) -> Option<Result<Target>> {
    let path = match module.whereabouts() {
        Ok(ModuleDirectory::At(path)) => path,
        // It may be found beyond rsyncd.conf.
        Ok(ModuleDirectory::Unknown { .. }) => return None,
        Err(error) => return expects_pushes(module).then_some(Err(error)),
    };
    let found = resolved_for(settings, Some(module.name.clone()), &path, Needs::Root);
    let was_used = match &found {
        Ok(target) => {
            target.is_registered()
                || target.lost_history().is_some()
                || last_attempt(target).is_some()
        }
        Err(_) => settings.memory.recall(&path).is_some_and(|it| it.snapshot_root.is_some()),
    };
    (was_used || expects_pushes(module)).then_some(found)
}

fn findings_of(target: &Target, around: &Surroundings, note: &dyn Fn(SeenRoot)) -> Vec<Finding> {
    let mut findings = check_module(target, around, note);
    let found = target.module_path.symlink_metadata();
    if found.is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        let error = lost_directory_error(target);
        let error = error.unwrap_or_else(|| missing_module(&target.module_path));
        findings.push(of_error(&error));
    }
    findings
}

fn with_finding((label, target): (String, Result<Target>)) -> Found {
    (label, target.map_err(|error| of_error(&error)))
}

fn of_error(error: &Error) -> Finding {
    let id = FindingId::ModuleDirectory;
    denied(id, error).unwrap_or_else(|| Finding::new(id, Severity::Critical, error.to_string()))
}
