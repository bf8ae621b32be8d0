//! `check`: health of each module for monitoring, as Nagios plugins tell it.
//!
//! Looks only: at what the last runs left behind, at the age of the newest complete snapshot,
//! and, with [`doctor`], at the configuration.

use std::ffi::OsStr;

use serde::Serialize;

use super::{Context, answering, doctor, health, print, print_json};
use crate::config::rsyncd_conf::RsyncdConf;
use crate::config::target::Target;
use crate::tell::error::Error;
use crate::tell::escape::{escape, escape_path};

/// How bad something is; worse compares greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// A person should look at it some day.
    Warning,
    /// It could not be found out.
    Unknown,
    /// A person should look at it now.
    Critical,
}

impl Level {
    fn code(self) -> u8 {
        match self {
            Level::Ok => 0,
            Level::Warning => 1,
            Level::Critical => 2,
            Level::Unknown => 3,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Level::Ok => "OK",
            Level::Warning => "WARNING",
            Level::Critical => "CRITICAL",
            Level::Unknown => "UNKNOWN",
        }
    }
}

/// One thing that was found.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it is, and what to do about it.
    pub message: String,
}

impl Finding {
    /// A finding.
    pub fn new(level: Level, message: impl Into<String>) -> Self {
        Finding { level, message: message.into() }
    }
}

#[derive(Serialize)]
struct ModuleView {
    module: String,
    status: Level,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct View {
    status: Level,
    modules: Vec<ModuleView>,
}

/// Checks one module or all that have the hook; returns the exit status of a Nagios plugin.
///
/// # Errors
/// Only if the result cannot be printed.
pub fn run(context: &Context, module: Option<&OsStr>, json: bool) -> Result<u8, Error> {
    let mut modules = match module {
        Some(module) => vec![check_named(context, module)],
        None => check_all(context),
    };
    modules.extend(doctor::policy(&context.settings).map(|findings| view("policy".to_string(), findings)));
    let status = modules.iter().map(|module| module.status).max().unwrap_or(Level::Unknown);
    let view = View { status, modules };
    match json {
        true => print_json(true, &[view])?,
        false => print(&to_text(&view))?,
    }
    Ok(status.code())
}

fn view(module: String, findings: Vec<Finding>) -> ModuleView {
    let status = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
    ModuleView { module, status, findings }
}

fn to_text(view: &View) -> String {
    let mut text = String::new();
    for module in &view.modules {
        let messages: Vec<&str> = module.findings.iter().map(|finding| finding.message.as_str()).collect();
        text += &format!("{} - {}: {}\n", module.status.word(), module.module, messages.join("; "));
    }
    text
}

fn check_named(context: &Context, module: &OsStr) -> ModuleView {
    let label = escape(std::os::unix::ffi::OsStrExt::as_bytes(module));
    if let Some(finding) = context.configured_path(module).and_then(|path| answering::silence(&path)) {
        return view(label, vec![finding]);
    }
    match Target::named(&context.settings, module) {
        Ok(target) => {
            let conf = context.settings.rsyncd();
            view(target.label(), check_module(&target, conf.as_ref().ok()))
        }
        Err(error) => view(label, vec![Finding::new(Level::Unknown, error.to_string())]),
    }
}

fn check_all(context: &Context) -> Vec<ModuleView> {
    let conf = match context.settings.rsyncd() {
        Ok(conf) => conf,
        Err(error) => {
            return vec![view("rsyncd.conf".into(), vec![Finding::new(Level::Unknown, error.to_string())])];
        }
    };
    let mut modules = Vec::new();
    for module in &conf.modules {
        let hooked = module.runs_us(doctor::HOOK);
        let label = escape(&module.name);
        let silence = module.path().ok().and_then(|path| answering::silence(&path));
        if let Some(finding) = silence {
            modules.extend(hooked.then(|| view(label, vec![finding])));
            continue;
        }
        let target = module
            .path()
            .and_then(|path| Target::of_module(&context.settings, Some(module.name.clone()), &path));
        match target {
            Ok(target) if hooked || target.is_registered() => {
                modules.push(view(label, check_module(&target, Some(&conf))));
            }
            Err(error) if hooked => {
                modules.push(view(label, vec![Finding::new(Level::Critical, error.to_string())]));
            }
            _ => {}
        }
    }
    if modules.is_empty() {
        let message = format!(
            "no module in {} runs rsyncd-snapshot as its post-xfer exec",
            escape_path(&context.settings.rsyncd_conf)
        );
        modules.push(view("rsyncd.conf".into(), vec![Finding::new(Level::Unknown, message)]));
    }
    modules
}

pub(super) fn check_module(target: &Target, conf: Option<&RsyncdConf>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for mistake in &target.trouble {
        findings.push(Finding::new(Level::Critical, format!("nothing expires: {mistake}")));
    }
    findings.extend(last_failure(target));
    findings.extend(target.lost_history().map(|lost| Finding::new(Level::Critical, lost.to_string())));
    match health::of_root(target) {
        Ok(found) => {
            // The last run may have warned of what still stands.
            findings.retain(|known| !found.iter().any(|finding| finding.message == known.message));
            findings.extend(found);
        }
        Err(error) => {
            // What made the last run fail most likely still does; once is enough.
            let message = error.to_string();
            if !findings.iter().any(|finding| finding.message.contains(&message)) {
                findings.push(Finding::new(Level::Critical, message));
            }
        }
    }
    if let (Some(conf), Some(name)) = (conf, &target.name) {
        findings.extend(doctor::module(conf, name, target));
    }
    findings
}

fn last_failure(target: &Target) -> Vec<Finding> {
    let Some(memory) = target.memory.recall(&target.module_path) else { return Vec::new() };
    let failure = memory.failure.map(|failure| {
        let when = failure.time.format("%FT%TZ");
        Finding::new(Level::Critical, format!("the last run failed at {when}: {}", failure.message))
    });
    let warnings = memory.warnings.into_iter().map(|warning| Finding::new(Level::Warning, warning));
    failure.into_iter().chain(warnings).collect()
}
