//! `check`: the health of each module for monitoring, in the form of a Nagios plugin.
//!
//! Changes nothing. The findings are about the last runs, the snapshot root ([`root_findings`])
//! and the configuration ([`config_findings`]).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde::Serialize;

use crate::command::client_view::{self, ClientView};
use crate::command::finding::{Finding, Severity};
use crate::command::full_commands::with_module;
use crate::command::writers::Writers;
use crate::command::{config_findings, print_json, root_findings};
use crate::config::forbidden::offers_only_reading;
use crate::config::rsyncd_conf::RsyncdConf;
use crate::config::rsyncd_module::{ModuleDirectory, RsyncdModule};
use crate::module::context::Context;
use crate::module::known_modules::{self, KnownModule};
use crate::module::target::Target;
use crate::store::other_modules::OtherModules;
use crate::tell::error::Error;
use crate::tell::escape::{escape, escape_path};
use crate::tell::output::print;

#[derive(Serialize)]
struct CheckedModuleView {
    module: String,
    status: Severity,
    findings: Vec<Finding>,
    clients: Vec<ClientView>,
}

#[derive(Serialize)]
struct CheckView {
    status: Severity,
    modules: Vec<CheckedModuleView>,
}

/// Checks one module or all that have the hook; returns the exit status of a Nagios plugin.
///
/// # Errors
/// Only if the result cannot be printed.
pub(crate) fn run(context: &Context, module: Option<&OsStr>, json: bool) -> Result<u8, Error> {
    let mut modules = match module {
        Some(module) => check_named(context, module),
        None => check_all(context),
    };
    modules.extend(
        config_findings::of_policy(&context.settings)
            .map(|findings| view("policy".to_string(), findings)),
    );
    let status = modules.iter().map(|module| module.status).max().unwrap_or(Severity::Unknown);
    let view = CheckView { status, modules };
    match json {
        true => print_json(true, &[view])?,
        false => print(&to_text(&view))?,
    }
    Ok(status.code())
}

fn view(module: String, findings: Vec<Finding>) -> CheckedModuleView {
    let status = findings.iter().map(|finding| finding.level).max().unwrap_or(Severity::Ok);
    CheckedModuleView { module, status, findings, clients: Vec::new() }
}

fn to_text(view: &CheckView) -> String {
    let mut text = String::new();
    for module in &view.modules {
        let messages: Vec<&str> =
            module.findings.iter().map(|finding| finding.message.as_str()).collect();
        text += &format!("{} - {}: {}\n", module.status.word(), module.module, messages.join("; "));
    }
    text
}

/// What is read once for all modules that are checked.
struct Surroundings<'a> {
    others: OtherModules,
    /// None if rsyncd.conf cannot be read.
    writers: Option<Writers<'a>>,
}

impl<'a> Surroundings<'a> {
    fn read(context: &Context, conf: Option<&'a RsyncdConf>) -> Self {
        Surroundings { others: context.other_modules(), writers: conf.map(Writers::of) }
    }
}

fn check_named(context: &Context, module: &OsStr) -> Vec<CheckedModuleView> {
    let conf = context.settings.rsyncd().ok();
    let name = module.as_bytes();
    let is_configured = |name: &[u8]| conf.is_some_and(|conf| conf.module(name).is_some());
    let refused = match known_modules::named(&context.settings, module) {
        Ok(found) => {
            let around = Surroundings::read(context, conf);
            return found
                .into_iter()
                .map(|(label, target)| checked(label, target, &around))
                .collect();
        }
        // A `check` of all modules reports this module in the same way.
        Err(error) if error.is_not_found() && is_configured(name) => {
            Finding::new(Severity::Critical, error.to_string())
        }
        Err(error @ Error::NoAnswer { .. }) => Finding::new(Severity::Critical, error.to_string()),
        Err(error) => Finding::new(Severity::Unknown, error.to_string()),
    };
    let whereabouts = conf.and_then(|conf| conf.module(name)).map(RsyncdModule::whereabouts);
    let finding = match whereabouts {
        Some(Ok(ModuleDirectory::Unknown { why })) => unknown(&why),
        _ => refused,
    };
    vec![view(escape(name), vec![finding])]
}

fn checked(
    label: String,
    target: Result<Target, Error>,
    around: &Surroundings,
) -> CheckedModuleView {
    match target {
        Ok(target) => {
            let mut findings = check_module(&target, around);
            for finding in &mut findings {
                finding.message = with_module(&finding.message, &target.argument());
            }
            let clients = client_view::of_module(&target);
            CheckedModuleView { clients, ..view(label, findings) }
        }
        Err(error) => view(label, vec![Finding::new(Severity::Critical, error.to_string())]),
    }
}

/// The finding for a module whose directory is not known until its first push.
fn unknown(why: &str) -> Finding {
    Finding::new(
        Severity::Ok,
        format!("this machine remembers no push to it, and the module {why}"),
    )
}

fn check_all(context: &Context) -> Vec<CheckedModuleView> {
    let conf = match context.settings.rsyncd() {
        Ok(conf) => conf,
        Err(error) => {
            return vec![view(
                "rsyncd.conf".into(),
                vec![Finding::new(Severity::Unknown, error.to_string())],
            )];
        }
    };
    let around = Surroundings::read(context, Some(conf));
    let mut modules = Vec::new();
    for module in &conf.modules {
        let has_hook = module.runs_this_program(config_findings::POST_XFER);
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
                if !has_hook && !target.is_registered() && target.lost_history().is_none() => {}
            target => modules.push(checked(escape(&module.name), target, &around)),
        }
    }
    for found in known_modules::beyond_conf(&context.settings, conf) {
        match found {
            KnownModule::Configured(label, target) | KnownModule::Unconfigured(label, target) => {
                modules.push(checked(label, target, &around));
            }
            KnownModule::NeverSucceeded(label, target) => {
                modules.push(checked(label, Ok(target), &around))
            }
            KnownModule::Unknown { name, why } => {
                if conf
                    .module(&name)
                    .is_some_and(|module| module.runs_this_program(config_findings::POST_XFER))
                {
                    modules.push(view(escape(&name), vec![unknown(&why)]));
                }
            }
        }
    }
    if modules.is_empty() {
        let message = format!(
            "no module in {} runs rsyncd-snapshot as its post-xfer exec",
            escape_path(&context.settings.rsyncd_conf)
        );
        modules.push(view("rsyncd.conf".into(), vec![Finding::new(Severity::Unknown, message)]));
    }
    modules
}

/// The findings about a module and its root, without those about rsyncd.conf.
pub(crate) fn check_without_conf(target: &Target) -> Vec<Finding> {
    check_module(target, &Surroundings { others: target.other_modules(), writers: None })
}

fn check_module(target: &Target, around: &Surroundings) -> Vec<Finding> {
    // What a newer version wrote is not understood here, so nothing else about it is told.
    let found = match root_findings::of_root(target) {
        Err(error @ Error::Newer { .. }) => {
            return vec![Finding::new(Severity::Critical, error.to_string())];
        }
        found => found,
    };
    let mut findings = Vec::new();
    let writers = around.writers.as_ref();
    let module =
        writers.zip(target.name.as_deref()).and_then(|(writers, name)| writers.conf.module(name));
    let only_reads = module.is_some_and(offers_only_reading);
    if only_reads && !target.is_registered() && target.lost_history().is_none() {
        let message = "the module is read only, so no snapshots are made of it";
        return vec![Finding::new(Severity::Ok, message)];
    }
    if let Err(refusal) = target.check_nesting_among(&around.others) {
        let level = if only_reads { Severity::Warning } else { Severity::Critical };
        findings.push(Finding::new(level, refusal.to_string()));
    }
    for mistake in &target.trouble {
        findings.push(Finding::new(Severity::Critical, format!("nothing expires: {mistake}")));
    }
    findings.extend(last_failure(target));
    findings.extend(target.lost_memory().map(|lost| Finding::new(Severity::Warning, lost)));
    findings.extend(
        target.lost_history().map(|lost| Finding::new(Severity::Critical, lost.to_string())),
    );
    match found {
        Ok(found) => {
            // A warning of the last run that still holds is shown once.
            findings.retain(|known| !found.iter().any(|finding| finding.message == known.message));
            findings.extend(found);
        }
        Err(error) => {
            // If the cause of the last failure still stands, it is shown once.
            let message = error.to_string();
            if !findings.iter().any(|finding| finding.message.contains(&message)) {
                findings.push(Finding::new(Severity::Critical, message));
            }
        }
    }
    if let (Some(writers), Some(module)) = (writers, module) {
        findings.extend(config_findings::of_module(writers, module, target));
    }
    findings
}

fn last_failure(target: &Target) -> Vec<Finding> {
    let Some(memory) = target.memory.recall(&target.module_path) else { return Vec::new() };
    let failure = memory.failure.map(|failure| {
        let when = failure.time.format("%FT%TZ");
        Finding::new(
            Severity::Critical,
            format!("the last run failed at {when}: {}", failure.message),
        )
    });
    let warnings =
        memory.warnings.into_iter().map(|warning| Finding::new(Severity::Warning, warning));
    failure.into_iter().chain(warnings).collect()
}
