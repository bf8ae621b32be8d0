//! What `check` reads once for all modules, and what it tells of modules that it finds no directory
//! of.

use std::cell::Cell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::command::age_findings;
use crate::command::check_view::{CheckedModuleView, RSYNCD_CONF};
use crate::command::doctor::Doctor;
use crate::command::doctor::hooks::PRE_XFER_COMMAND;
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::command::module_findings::unknown;
use crate::command::writers::Writers;
use crate::config::hook_policy::{POST_XFER, PRE_XFER};
use crate::config::refused_push::offers_only_reading;
use crate::config::rsyncd_conf::RsyncdConf;
use crate::config::rsyncd_module::RsyncdModule;
use crate::module::context::Context;
use crate::module::target::Target;
use crate::store::expected_pushes::NotedPushes;
use crate::store::other_modules::OtherModules;
use crate::system::clock::Clock;
use crate::tell::PROGRAM;
use crate::tell::error::Error;
use crate::tell::escape::{escape, escape_path};

/// What is read once for all modules that are checked.
pub(crate) struct Surroundings<'a> {
    pub(crate) others: OtherModules,
    /// Since when pushes are expected.
    pub(crate) noted: NotedPushes<'a>,
    /// None if rsyncd.conf cannot be read, or is not asked.
    pub(crate) rsyncd: Option<RsyncdView<'a>>,
    /// Whether the last pushes to some module have ended with status 23.
    pub(crate) ended_with_23: Cell<bool>,
    /// The mistakes of each policy file, which are told besides.
    pub(crate) told_mistakes: Vec<Vec<String>>,
}

/// What rsyncd.conf is asked about each module.
pub(crate) struct RsyncdView<'a> {
    pub(crate) writers: Writers<'a>,
    pub(crate) doctor: Doctor<'a>,
}

impl<'a> Surroundings<'a> {
    pub(crate) fn doctor(&self) -> Option<&Doctor<'a>> {
        self.rsyncd.as_ref().map(|rsyncd| &rsyncd.doctor)
    }

    pub(crate) fn module(&self, name: &[u8]) -> Option<&'a RsyncdModule> {
        self.rsyncd.as_ref().and_then(|rsyncd| rsyncd.writers.conf.module(name))
    }

    /// The module of a target. Another daemon may serve one of the same name.
    pub(crate) fn module_of(&self, target: &Target) -> Option<&'a RsyncdModule> {
        let module = self.module(target.name.as_deref()?);
        module.filter(|module| module.may_be_at(&target.module_path))
    }

    /// The findings about the daemon and the modules as a whole, or only about the named one.
    pub(crate) fn of_server(&self, named: Option<&OsStr>) -> Option<CheckedModuleView> {
        let rsyncd = self.rsyncd.as_ref()?;
        let is_asked =
            |module: &&RsyncdModule| named.is_none_or(|named| named.as_bytes() == module.name);
        let modules: Vec<&RsyncdModule> =
            rsyncd.writers.conf.modules.iter().filter(is_asked).collect();
        let findings = rsyncd.doctor.of_server(&modules, self.ended_with_23.get());
        (!findings.is_empty()).then(|| CheckedModuleView::of_file(RSYNCD_CONF, findings))
    }
}

/// The finding about an rsyncd.conf that cannot be read, or with which rsync lets no client in.
pub(crate) fn conf_finding(error: &Error) -> Finding {
    let level = if error.stops_rsync() { Severity::Critical } else { Severity::Unknown };
    Finding::new(FindingId::ConfUnreadable, level, error.to_string())
}

/// Adds that finding, if no client gets in: a directory is checked without rsyncd.conf.
pub(crate) fn tell_broken_conf(modules: &mut [CheckedModuleView], error: &Error) {
    let is_told = modules.iter().any(|one| one.tells(FindingId::ConfUnreadable));
    if let Some(first) = modules.first_mut().filter(|_| error.stops_rsync() && !is_told) {
        first.add(vec![conf_finding(error)]);
    }
}

/// What rsyncd.conf alone shows about a module.
pub(crate) fn of_section(
    module: Option<&RsyncdModule>,
    has_history: bool,
    around: &Surroundings,
) -> impl Iterator<Item = Finding> {
    let found = module.zip(around.doctor());
    found.into_iter().flat_map(move |(module, doctor)| doctor.of_section(module, has_history))
}

/// The findings about a module whose directory is not known until its first push.
pub(crate) fn without_directory(
    context: &Context,
    module: &RsyncdModule,
    why: &str,
    around: &Surroundings,
) -> Vec<Finding> {
    let settings = context.settings.of_configured(module);
    let of_hooks = around.doctor().and_then(|doctor| doctor.policy_of_hooks(module));
    let mut found: Vec<Finding> = of_hooks.into_iter().collect();
    found.push(unknown(why));
    found.extend(age_findings::never_pushed(&settings, module, &around.noted, Clock::System.now()));
    found
}

/// What is told if no module is known to run this program. The hook of one may be a script that
/// does.
pub(crate) fn without_modules(
    context: &Context,
    conf: &RsyncdConf,
    around: &Surroundings,
) -> Finding {
    let file = escape_path(&context.settings.rsyncd_conf);
    let may_concern = |module: &&RsyncdModule| {
        let hooks = around.doctor().map(|doctor| doctor.hooks(module));
        !offers_only_reading(module) && hooks.is_some_and(|hooks| hooks.post.may_be_ours())
    };
    match conf.modules.iter().find(may_concern) {
        Some(module) => {
            let message = format!(
                "cannot tell whether a module in {file} gets snapshots: the post-xfer exec of {} \
                 may run {PROGRAM} or not; after the first push this shows",
                escape(&module.name)
            );
            Finding::new(FindingId::NoModule, Severity::Ok, message)
        }
        None => {
            let this = around.doctor().map(Doctor::this_command).unwrap_or_default();
            let hooks = |module| around.doctor().map(|doctor| doctor.hooks(module));
            let emptied = conf.modules.iter().filter_map(hooks).find(|it| it.post.is_emptied);
            let edit = match emptied {
                Some(hooks) => format!(
                    "the empty `{POST_XFER} =` at {} takes away what stands above all modules, so \
                     take that line out",
                    hooks.post.place
                ),
                None => format!(
                    "add `{POST_XFER} = {this}` and `{PRE_XFER} = {this} {PRE_XFER_COMMAND}` to \
                     the section of each module that is to get snapshots"
                ),
            };
            let message = format!("no module in {file} runs {PROGRAM} as its {POST_XFER}; {edit}");
            Finding::new(FindingId::NoModule, Severity::Unknown, message)
        }
    }
}
