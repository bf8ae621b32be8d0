//! `check`: the health of each module for monitoring, in the form of a Nagios plugin.
//!
//! Changes nothing. The findings are about the last runs, the snapshot root
//! ([`root_findings`](crate::command::root_findings)), what clients may do to snapshots
//! ([`config_findings`]), and mistakes that a push would run into
//! ([`doctor`](crate::command::doctor)).

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::io::{IsTerminal, stdout};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use log::LevelFilter;

use crate::command::check_module::{SeenRoot, check_module};
use crate::command::check_surroundings::{
    RsyncdView, Surroundings, conf_finding, of_section, tell_broken_conf, without_directory,
    without_modules,
};
use crate::command::check_view::{CheckView, CheckedModuleView, POLICY, RSYNCD_CONF};
use crate::command::client_view;
use crate::command::doctor::Doctor;
use crate::command::doctor::prober::Prober;
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::command::full_commands::{with_module, with_options};
use crate::command::metrics;
use crate::command::module_findings::{denied, former, last_attempt};
use crate::command::module_numbers::ModuleNumbers;
use crate::command::performance_data::with_performance_data;
use crate::command::writers::Writers;
use crate::command::{config_findings, print_json};
use crate::config::rsyncd_conf::RsyncdConf;
use crate::config::rsyncd_module::{ModuleDirectory, RsyncdModule};
use crate::module::confine;
use crate::module::context::Context;
use crate::module::known_modules::{self, KnownModule, Needs};
use crate::module::named_module::named;
use crate::module::target::Target;
use crate::store::expected_pushes::NotedPushes;
use crate::store::output_file::OutputFile;
use crate::system::clock::Clock;
use crate::tell::error::Error;
use crate::tell::escape::{escape, shell_word};
use crate::tell::exit::Exit;
use crate::tell::output::{print, print_whole};

/// What is checked, and in which form the result is told.
pub(crate) struct CheckOptions<'a> {
    /// All modules if none is named.
    pub(crate) module: Option<&'a OsStr>,
    pub(crate) json: bool,
    /// Metrics instead of findings.
    pub(crate) prometheus: bool,
    /// Where the metrics are written; none for standard output.
    pub(crate) output: Option<&'a Path>,
}

/// Checks one module or all that have the hook; returns the exit status of a Nagios plugin, or 0
/// once the metrics are written.
/// `prober`: started before this process gave up its rights, if it has any.
///
/// # Errors
/// Only if the result cannot be printed or written.
pub(crate) fn run(
    context: &Context,
    options: &CheckOptions,
    prober: Option<Prober>,
) -> Result<u8, Error> {
    let output = options.output.map(OutputFile::open).transpose()?;
    if let Some(output) = &output {
        confine::to_output(output.directory());
    }
    let view = find(context, options.module, &RefCell::new(prober));
    if options.prometheus {
        let text = metrics::to_text(&view, Clock::System.now());
        match output {
            Some(output) => output.replace(&text)?,
            None => print_whole(&text)?,
        }
        return Ok(Exit::Done.code());
    }
    let status = view.status;
    match options.json {
        true => print_json(true, &[view])?,
        false => print_text(context, view)?,
    }
    Ok(status.code())
}

/// Checks one module or all, and returns what is found.
pub(crate) fn find(
    context: &Context,
    module: Option<&OsStr>,
    prober: &RefCell<Option<Prober>>,
) -> CheckView {
    let conf = context.settings.rsyncd();
    let policies = config_findings::policies(&context.settings, module);
    let around = Surroundings {
        others: context.other_modules(),
        noted: NotedPushes::of(&context.settings.memory),
        rsyncd: conf.as_ref().ok().map(|conf| RsyncdView {
            writers: Writers::of(conf),
            doctor: Doctor::new(&context.settings, conf, prober),
        }),
        ended_with_23: Cell::new(false),
        told_mistakes: config_findings::mistakes_of(&policies),
    };
    let mut modules = match (module, conf) {
        (Some(module), conf) => {
            let mut modules = check_named(context, module, &around);
            if let Err(error) = conf {
                tell_broken_conf(&mut modules, &error);
            }
            modules
        }
        (None, Ok(conf)) => check_all(context, conf, &around),
        (None, Err(error)) => {
            vec![CheckedModuleView::of_file(RSYNCD_CONF, vec![conf_finding(&error)])]
        }
    };
    let of_policies = config_findings::of_policies(&policies);
    let of_policies = of_policies.map(|found| CheckedModuleView::of_file(POLICY, found));
    modules.extend(of_policies);
    match (around.of_server(module), modules.first_mut().filter(|_| module.is_some())) {
        (Some(server), Some(named)) => named.add(server.findings),
        (server, _) => modules.extend(server),
    }
    let shared = context.settings.options();
    for finding in modules.iter_mut().flat_map(|module| &mut module.findings) {
        finding.message = with_options(&finding.message, &shared);
    }
    CheckView::new(modules)
}

/// Prints what is found for people.
///
/// # Errors
/// If it cannot be printed.
pub(crate) fn print_text(context: &Context, view: CheckView) -> Result<(), Error> {
    if context.is_quiet() {
        return print(&view.only_ill().to_text(false));
    }
    let text = view.to_text(context.level == Some(LevelFilter::Debug));
    match stdout().is_terminal() {
        true => print(&text),
        false => print(&with_performance_data(&text, &view.modules)),
    }
}

fn check_named(context: &Context, module: &OsStr, around: &Surroundings) -> Vec<CheckedModuleView> {
    let name = module.as_bytes();
    let configured = around.module(name);
    let refused = match named(&context.settings, module, Needs::Itself) {
        Ok(found) => {
            return found
                .into_iter()
                .map(|(label, target)| checked(label, configured, target, around))
                .collect();
        }
        // A `check` of all modules reports this module in the same way.
        Err(error) if (error.is_not_found() || error.is_denied()) && configured.is_some() => {
            return vec![checked(escape(name), configured, Err(error), around)];
        }
        Err(error @ Error::NoAnswer { .. }) => {
            Finding::new(FindingId::ModuleDirectory, Severity::Critical, error.to_string())
        }
        Err(error) if error.stops_rsync() => conf_finding(&error),
        Err(error) => Finding::new(FindingId::ModuleUnknown, Severity::Unknown, error.to_string()),
    };
    let findings = match configured.map(|module| (module, module.whereabouts())) {
        Some((module, Ok(ModuleDirectory::Unknown { why }))) => {
            without_directory(context, module, &why, around)
        }
        _ => vec![refused],
    };
    let findings = of_section(configured, false, around).chain(findings);
    vec![CheckedModuleView::new(escape(name), findings.collect())]
}

fn checked(
    label: String,
    module: Option<&RsyncdModule>,
    target: Result<Target, Error>,
    around: &Surroundings,
) -> CheckedModuleView {
    let module = module.or_else(|| around.module_of(target.as_ref().ok()?));
    let argument = match (&target, module) {
        (Ok(target), _) => Some(target.argument()),
        (Err(_), Some(module)) => Some(shell_word(&module.name)),
        (Err(_), None) => None,
    };
    let mut found = match target {
        Ok(target) => {
            let seen = Cell::new(None);
            let findings = check_module(&target, around, &|root| {
                seen.set(Some(match root {
                    SeenRoot::Itself(facts) => {
                        let clients = client_view::of_history(facts.history);
                        (Some(ModuleNumbers::of(facts)), clients)
                    }
                    SeenRoot::ByItsUser(theirs) => (theirs.numbers, theirs.clients),
                }));
            });
            let (numbers, clients) =
                seen.take().unwrap_or_else(|| (None, client_view::of_module(&target)));
            CheckedModuleView { numbers, clients, ..CheckedModuleView::new(label, findings) }
        }
        Err(error) => {
            let text = match module.zip(around.doctor()) {
                Some((module, doctor)) => doctor.explained(module, &error),
                None => error.to_string(),
            };
            let finding = denied(FindingId::ModuleDirectory, &error).unwrap_or_else(|| {
                Finding::new(FindingId::ModuleDirectory, Severity::Critical, text)
            });
            let findings = of_section(module, false, around).chain([finding]);
            CheckedModuleView::new(label, findings.collect())
        }
    };
    let of_hooks = module.zip(around.doctor());
    found.add(
        of_hooks.and_then(|(module, doctor)| doctor.policy_of_hooks(module)).into_iter().collect(),
    );
    if let Some(argument) = argument {
        for finding in &mut found.findings {
            finding.message = with_module(&finding.message, &argument);
        }
    }
    found
}

fn check_all(
    context: &Context,
    conf: &RsyncdConf,
    around: &Surroundings,
) -> Vec<CheckedModuleView> {
    let concerns =
        |module: &RsyncdModule| around.doctor().is_some_and(|doctor| doctor.concerns(module));
    let shows_snapshots = |module: &RsyncdModule| {
        around.doctor().is_some_and(|doctor| doctor.is_restore_module_without_hooks(module))
    };
    let mut modules = Vec::new();
    known_modules::ask_ahead(&context.settings, conf);
    for module in &conf.modules {
        let has_hook = concerns(module);
        let path = match module.whereabouts() {
            Ok(ModuleDirectory::At(path)) => Ok(path),
            Ok(ModuleDirectory::Unknown { .. }) => continue,
            Err(error) => Err(error),
        };
        let of_module = |path: PathBuf| {
            known_modules::resolved(&context.settings, Some(module.name.clone()), &path)
        };
        match path.and_then(of_module) {
            Err(_) if !has_hook => {}
            Ok(target)
                if !has_hook
                    && !target.is_registered()
                    && target.lost_history().is_none()
                    && last_attempt(&target).is_none()
                    && !shows_snapshots(module) => {}
            target => {
                modules.push(checked(escape(&module.name), Some(module), target, around));
            }
        }
    }
    for found in known_modules::beyond_conf(&context.settings, conf, Needs::Directory) {
        match found {
            KnownModule::Configured(label, target) | KnownModule::Unconfigured(label, target) => {
                modules.push(checked(label, None, target, around));
            }
            KnownModule::NeverSucceeded(label, target) => {
                let files = target.memory_files();
                let mut view = checked(label, None, Ok(target), around);
                view.add(vec![Finding::new(
                    FindingId::LastRun,
                    Severity::Ok,
                    format!("if no client is to push to this directory, run `rm {files}`"),
                )]);
                modules.push(view);
            }
            KnownModule::Former(label, target) => {
                modules.push(CheckedModuleView::new(label, vec![former(&target)]));
            }
            KnownModule::Unknown { name, why } => {
                if let Some(module) = conf.module(&name).filter(|module| concerns(module)) {
                    let findings = of_section(Some(module), false, around);
                    let findings = findings.chain(without_directory(context, module, &why, around));
                    modules.push(CheckedModuleView::new(escape(&name), findings.collect()));
                }
            }
        }
    }
    if modules.is_empty() {
        let finding = without_modules(context, conf, around);
        modules.push(CheckedModuleView::of_file(RSYNCD_CONF, vec![finding]));
    }
    modules
}
