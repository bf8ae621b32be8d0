//! `check`: the health of each module for monitoring, in the form of a Nagios plugin.
//!
//! Changes nothing. The findings are about the last runs, the snapshot root ([`root_findings`]),
//! what clients may do to snapshots ([`config_findings`]), and mistakes that a push would run into
//! ([`doctor`](crate::command::doctor)).

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::io::{IsTerminal, stdout};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use log::LevelFilter;

use crate::command::check_surroundings::{
    RsyncdView, Surroundings, conf_finding, of_section, tell_broken_conf, without_directory,
    without_modules,
};
use crate::command::check_view::{CheckView, CheckedModuleView, POLICY, RSYNCD_CONF};
use crate::command::client_view;
use crate::command::doctor::Doctor;
use crate::command::doctor::prober::Prober;
use crate::command::doctor::writing;
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::command::full_commands::{with_module, with_options};
use crate::command::metrics;
use crate::command::module_findings::{
    denied, former, last_attempt, last_failure, place_of_root, policy_trouble, without_repetition,
};
use crate::command::module_numbers::ModuleNumbers;
use crate::command::performance_data::with_performance_data;
use crate::command::root_findings::{RootFacts, RootSurroundings};
use crate::command::writers::Writers;
use crate::command::{config_findings, print_json, root_findings};
use crate::config::forbidden::offers_only_reading;
use crate::config::rsyncd_conf::RsyncdConf;
use crate::config::rsyncd_module::{ModuleDirectory, RsyncdModule};
use crate::module::confine;
use crate::module::context::Context;
use crate::module::known_modules::{self, KnownModule, Needs};
use crate::module::named_module::named;
use crate::module::target::Target;
use crate::store::output_file::OutputFile;
use crate::system::clock::Clock;
use crate::system::process_io;
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
    /// Where the metrics are written.
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
    let module = options.module;
    let output = options.output.map(OutputFile::open).transpose()?;
    if let Some(output) = &output {
        confine::to_output(output.directory());
    }
    let prober = RefCell::new(prober);
    let conf = context.settings.rsyncd();
    let policies = config_findings::policies(&context.settings, module);
    let around = Surroundings {
        others: context.other_modules(),
        rsyncd: conf.as_ref().ok().map(|conf| RsyncdView {
            writers: Writers::of(conf),
            doctor: Doctor::new(&context.settings, conf, &prober),
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
            vec![CheckedModuleView::new(RSYNCD_CONF.into(), vec![conf_finding(&error)])]
        }
    };
    let of_policies = config_findings::of_policies(&policies);
    let of_policies = of_policies.map(|found| CheckedModuleView::new(POLICY.to_string(), found));
    modules.extend(of_policies);
    match (around.of_server(module), modules.first_mut().filter(|_| module.is_some())) {
        (Some(server), Some(named)) => named.add(server.findings),
        (server, _) => modules.extend(server),
    }
    let shared = context.settings.options();
    for finding in modules.iter_mut().flat_map(|module| &mut module.findings) {
        finding.message = with_options(&finding.message, &shared);
    }
    let view = CheckView::new(modules);
    let status = view.status;
    if options.prometheus {
        let text = metrics::to_text(&view, Clock::System.now());
        match output {
            Some(output) => output.replace(&text)?,
            None => print_whole(&text)?,
        }
        return Ok(Exit::Done.code());
    }
    let is_for_people = stdout().is_terminal();
    match options.json {
        true => print_json(true, &[view])?,
        false if context.is_quiet() => print(&view.only_ill().to_text(false))?,
        false => {
            let text = view.to_text(context.level == Some(LevelFilter::Debug));
            match is_for_people {
                true => print(&text)?,
                false => print(&with_performance_data(&text, &view.modules))?,
            }
        }
    }
    Ok(status.code())
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
            let findings = check_module(&target, around, &|facts| {
                seen.set(Some((ModuleNumbers::of(facts), client_view::of_history(facts.history))));
            });
            let (numbers, clients) = match seen.take() {
                Some((numbers, clients)) => (Some(numbers), clients),
                None => (None, client_view::of_module(&target)),
            };
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
    known_modules::ask_ahead(&context.settings, conf);
    let mut modules = Vec::new();
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
        modules.push(CheckedModuleView::new(RSYNCD_CONF.into(), vec![finding]));
    }
    modules
}

/// The findings about a module and its root, without those about rsyncd.conf.
pub(crate) fn check_without_conf(target: &Target) -> Vec<Finding> {
    let around = Surroundings {
        others: target.other_modules(),
        rsyncd: None,
        ended_with_23: Cell::new(false),
        told_mistakes: Vec::new(),
    };
    check_module(target, &around, &|_| ())
}

/// The findings about a module and its root. `note` is called with what is known of the root, if
/// that can be read.
pub(crate) fn check_module(
    target: &Target,
    around: &Surroundings,
    note: &dyn Fn(&RootFacts),
) -> Vec<Finding> {
    let critical = |id, message: String| Finding::new(id, Severity::Critical, message);
    // What a newer version wrote is not understood here, so nothing else about it is told.
    let module = around.module_of(target);
    let access = around.doctor().and_then(|doctor| doctor.root_access(module, target));
    let found = match of_root(target, around, note) {
        Err(error @ Error::Newer { .. }) => {
            return vec![critical(FindingId::NewerVersion, error.to_string())];
        }
        found => found,
    };
    let has_history = target.is_registered() || target.lost_history().is_some();
    let mut findings: Vec<Finding> = of_section(module, has_history, around).collect();
    if let Some(access) = access {
        findings.extend(access);
        let doctor = around.doctor().zip(module);
        findings.extend(doctor.into_iter().flat_map(|(it, module)| it.rights(module, target)));
        return findings;
    }
    let only_reads = module.is_some_and(offers_only_reading);
    if let (Some(module), true, Some(time)) =
        (module, only_reads && !has_history, last_attempt(target))
    {
        findings.retain(|finding| finding.id != FindingId::ReadOnly);
        findings.push(writing::after_pushes(module, target, time));
        return findings;
    }
    if only_reads && !has_history {
        let is_told = findings.iter().any(|finding| finding.id == FindingId::ReadOnly);
        let message = "the module is read only, so no snapshots are made of it";
        let note = Finding::new(FindingId::ReadOnly, Severity::Ok, message);
        findings.extend((!is_told).then_some(note));
        return findings;
    }
    let nesting = target.check_nesting_among(&around.others);
    let is_refused = nesting.is_err();
    if let Err(refusal) = nesting {
        let level = if only_reads { Severity::Warning } else { Severity::Critical };
        findings.push(Finding::new(FindingId::RootNested, level, refusal.to_string()));
    }
    let of_hooks = module.zip(around.doctor());
    if !of_hooks.is_some_and(|(module, doctor)| doctor.tells_missing_policy(module, target)) {
        findings.extend(policy_trouble(target, &around.told_mistakes));
    }
    findings.extend(last_failure(target));
    let lost_memory = target.lost_memory();
    findings.extend(
        lost_memory.map(|lost| Finding::new(FindingId::MemoryLost, Severity::Warning, lost)),
    );
    let lost_history = target.lost_history();
    findings.extend(lost_history.map(|lost| critical(FindingId::RootLost, lost.to_string())));
    match found {
        Ok(mut found) => {
            // Where no root can be, its mode does not matter.
            let of_place = [FindingId::RootOpen, FindingId::RootNew];
            found.retain(|finding| !is_refused || has_history || !of_place.contains(&finding.id));
            findings.extend(found);
        }
        Err(error) => {
            let finding = denied(FindingId::Root, &error);
            let doubt = around.doctor().and_then(|doctor| doctor.doubt_of_owner(module, target));
            let end = place_of_root(target, &error) + &doubt.unwrap_or_default();
            let text = || format!("{error}{end}");
            findings.push(finding.unwrap_or_else(|| critical(FindingId::Root, text())));
        }
    }
    if let (Some(rsyncd), Some(module)) = (&around.rsyncd, module) {
        findings.extend(rsyncd.doctor.of_places(module, target));
        let pre = rsyncd.doctor.hooks(module).pre;
        findings.extend(config_findings::of_module(&rsyncd.writers, module, &pre, target));
    }
    without_repetition(findings)
}

fn of_root(
    target: &Target,
    around: &Surroundings,
    note: &dyn Fn(&RootFacts),
) -> Result<Vec<Finding>, Error> {
    let has_links = |path: &std::path::Path| around.doctor()?.has_links(path);
    let written = |pid: u32| match around.doctor() {
        Some(doctor) => doctor.bytes_written_below(pid),
        None => process_io::bytes_written_below(pid),
    };
    let module = around.module_of(target).zip(around.doctor());
    let of_root = RootSurroundings {
        has_links: &has_links,
        written: &written,
        hook_fails: module.is_some_and(|(module, doctor)| doctor.hook_fails(module)),
        ended_with_23: Cell::new(false),
        note,
    };
    let found = root_findings::of_root(target, &of_root);
    if of_root.ended_with_23.get() {
        around.ended_with_23.set(true);
    }
    found
}
