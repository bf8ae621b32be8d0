//! `check`: health of each module for monitoring, as Nagios plugins tell it.
//!
//! Looks only: at what the last runs left behind, at the age of the newest complete snapshot,
//! and, with [`doctor`], at the configuration.

use std::ffi::OsStr;

use serde::Serialize;

use super::{Context, doctor, print, print_json};
use crate::clock::Clock;
use crate::config::rsyncd_conf::RsyncdConf;
use crate::config::target::Target;
use crate::decide::grade::Grade;
use crate::decide::reason::Pause;
use crate::decide::span::roughly;
use crate::run::{self, Examined};
use crate::store::catalog::Item;
use crate::tell::counted;
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

    fn word(self) -> &'static str {
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
        let hooked = doctor::has_hook(module);
        let label = escape(&module.name);
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
            context.settings.rsyncd_conf.display()
        );
        modules.push(view("rsyncd.conf".into(), vec![Finding::new(Level::Unknown, message)]));
    }
    modules
}

fn check_module(target: &Target, conf: Option<&RsyncdConf>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for mistake in &target.trouble {
        findings.push(Finding::new(Level::Critical, format!("nothing expires: {mistake}")));
    }
    findings.extend(last_failure(target));
    findings.extend(target.lost_history().map(|lost| Finding::new(Level::Critical, lost.to_string())));
    match examine_root(target) {
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

fn examine_root(target: &Target) -> Result<Vec<Finding>, Error> {
    let now = Clock::System.now();
    if target.root_is_to_come() {
        let message = format!("no run yet; the first one makes {}", escape_path(&target.root_path));
        return Ok(vec![Finding::new(Level::Ok, message)]);
    }
    let root = target.look_at_root()?;
    let Examined { catalog, state, decision } = run::examine(target, &root, now)?;
    let mut findings = Vec::new();
    let mut warn = |message: String| findings.push(Finding::new(Level::Warning, message));
    catalog.warnings.iter().for_each(|warning| warn(warning.clone()));
    if let Some(torn) = &state.torn {
        warn(format!(
            "torn since {}: a transfer ended with status {}, and none has ended well and changed anything since",
            torn.since.format("%FT%TZ"),
            torn.status
        ));
    }
    if let Some(due) = &state.due {
        warn(format!("a snapshot is due since {}: run `snapshot --due`", due.since.format("%FT%TZ")));
    }
    if let Some(pause) = &decision.pause {
        let level = if matches!(pause, Pause::Brake(_)) { Level::Critical } else { Level::Warning };
        findings.push(Finding::new(level, format!("nothing expires: {pause}")));
    }
    let newest = catalog.newest(Grade::Complete, now);
    let mut finding = age(target, newest, catalog.items.len(), root.is_registered(), now);
    let pinned = catalog.items.iter().filter(|item| item.pin.is_some()).count();
    if pinned > 0 {
        finding.message += &format!(", {pinned} pinned");
    }
    findings.push(finding);
    Ok(findings)
}

/// How old the newest complete snapshot is, against `max_age`.
fn age(
    target: &Target,
    newest: Option<&Item>,
    count: usize,
    registered: bool,
    now: chrono::DateTime<chrono::Utc>,
) -> Finding {
    let max_age = target.policy.max_age;
    let Some(newest) = newest else {
        return match (registered, max_age) {
            (false, _) => Finding::new(Level::Ok, "no run yet"),
            (true, None) => Finding::new(Level::Ok, "no complete snapshot yet"),
            (true, Some(max_age)) => {
                Finding::new(Level::Warning, format!("no complete snapshot yet, and max_age is {max_age}"))
            }
        };
    };
    let age = now - newest.snapshot().verified_until;
    let text =
        format!("{}, the newest complete one was current {} ago", counted(count, "snapshot"), roughly(age));
    match max_age {
        Some(limit) if age > limit.delta() * 2 => {
            Finding::new(Level::Critical, format!("{text}, more than twice max_age {limit}"))
        }
        Some(limit) if age > limit.delta() => {
            Finding::new(Level::Warning, format!("{text}, more than max_age {limit}"))
        }
        _ => Finding::new(Level::Ok, text),
    }
}
