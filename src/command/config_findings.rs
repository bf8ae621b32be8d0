//! The findings of `check` about the configuration: the policy file, rsyncd.conf, and other modules
//! through which clients could change snapshots.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use crate::command::doctor::hooks::HookFacts;
use crate::command::doctor::roots::{reaches_snapshots, toml_key};
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::command::writers::Writers;
use crate::config::auth_users::{self, UserAccess};
use crate::config::hook_policy::PRE_XFER;
use crate::config::module_settings::ModuleSettings;
use crate::config::partial_dir_symlinks::{follows_links, remedy};
use crate::config::refused_push::{offers_only_reading, refused_of_backups};
use crate::config::rsyncd_module::RsyncdModule;
use crate::config::settings::{PolicySource, Settings};
use crate::decide::arguments::rewriting_option::RewritingOption;
use crate::decide::similar::did_you_mean;
use crate::module::target::Target;
use crate::store::root::SnapshotRoot;
use crate::store::snapshot_method::SnapshotMethod;
use crate::tell::PROGRAM;
use crate::tell::escape::{escape, escape_path};

/// The policies that are in use: that of the command line, and those that the hooks of the modules
/// name, or of the named one.
pub(crate) fn policies<'a>(
    settings: &'a Settings,
    named: Option<&OsStr>,
) -> Vec<ModuleSettings<'a>> {
    let mut found = vec![ModuleSettings::Own(settings)];
    let is_asked =
        |module: &&RsyncdModule| named.is_none_or(|named| named.as_bytes() == module.name);
    let modules = settings.rsyncd().ok().into_iter().flat_map(|conf| &conf.modules);
    for module in modules.filter(is_asked) {
        let other = settings.of_hooks(module).ok().flatten();
        let is_new =
            |other: &Rc<Settings>| found.iter().all(|one| one.policy_file != other.policy_file);
        // That a file is missing is told of the hook.
        let other = other.filter(is_new).filter(|other| other.policy_file.exists());
        found.extend(other.map(ModuleSettings::OfHooks));
    }
    found
}

/// The mistakes of each policy that has any.
pub(crate) fn mistakes_of(policies: &[ModuleSettings]) -> Vec<Vec<String>> {
    let mistakes = |one: &ModuleSettings| match &one.source {
        PolicySource::Trouble(mistakes) => Some(mistakes.clone()),
        _ => None,
    };
    policies.iter().filter_map(mistakes).collect()
}

/// Findings about each policy file itself, if there are any.
pub(crate) fn of_policies(policies: &[ModuleSettings]) -> Option<Vec<Finding>> {
    let found: Vec<Finding> = policies.iter().flat_map(|one| of_policy(one)).collect();
    (!found.is_empty()).then_some(found)
}

fn of_policy(settings: &Settings) -> Vec<Finding> {
    let finding = |name: String| {
        let conf = settings.rsyncd().ok()?;
        if conf.module(name.as_bytes()).is_some() {
            return None;
        }
        let known: Vec<String> = conf.modules.iter().map(|module| escape(&module.name)).collect();
        let message = format!(
            "{}: [module.{}] is not a module in {}{}",
            escape_path(&settings.policy_file),
            toml_key(name.as_bytes()),
            escape_path(&settings.rsyncd_conf),
            did_you_mean(&name, known.iter().map(String::as_str))
        );
        Some(Finding::new(FindingId::PolicyModule, Severity::Warning, message))
    };
    let mistake =
        |line: &String| Finding::new(FindingId::PolicyMistake, Severity::Critical, line.clone());
    match &settings.source {
        PolicySource::Trouble(mistakes) => mistakes.iter().map(mistake).collect(),
        PolicySource::BuiltIn => Vec::new(),
        PolicySource::File => settings.policy_modules().into_iter().filter_map(finding).collect(),
    }
}

/// Findings about what a module, and other modules that reach its directory, let clients do to
/// snapshots.
pub(crate) fn of_module(
    writers: &Writers,
    module: &RsyncdModule,
    pre: &HookFacts,
    target: &Target,
) -> Vec<Finding> {
    let missing = unrefused_options(module);
    // A module whose snapshots are subvolumes shares no file with them.
    let registered = SnapshotRoot::registration(&target.root_path).ok().flatten();
    let shares_files = registered.is_none_or(|found| found.method() == SnapshotMethod::HardLinks);
    let is_open = !pre.is_ours() && !offers_only_reading(module) && shares_files;
    let mut findings = Vec::new();
    if is_open && !missing.is_empty() {
        let message = format!(
            "{}: `refuse options` lacks {}: with them a client rewrites files that snapshots share",
            module.place_of("refuse options"),
            missing.join(", ")
        );
        // A script may run our pre-xfer, which turns such pushes away.
        findings.push(match pre.may_be_ours() {
            true => Finding::cannot_tell(
                FindingId::RefuseOptions,
                format!("{message}, unless {PRE_XFER} runs {PROGRAM}"),
            ),
            false => {
                let before = text(module, "refuse options");
                let all = before.split_whitespace().chain(missing.iter().copied());
                let message = format!(
                    "{message}; write `refuse options = {}`, or add the {PRE_XFER}, which turns \
                     such pushes away",
                    escape(all.collect::<Vec<_>>().join(" ").as_bytes())
                );
                Finding::new(FindingId::RefuseOptions, Severity::Warning, message)
            }
        });
    }
    findings.extend(refused_of_a_backup(module));
    findings.extend(refused_partial_dirs(module, target));
    findings.extend(modules_that_write_snapshots(writers, module, target));
    findings.extend(modules_without_pre_xfer(writers, module, target));
    findings
}

/// Options that backups need and `refuse options` refuses.
fn refused_of_a_backup(module: &RsyncdModule) -> Option<Finding> {
    let refused = refused_of_backups(module);
    (!refused.is_empty() && !offers_only_reading(module)).then(|| {
        let message = format!(
            "{}: `refuse options` refuses {}, which rsync-system-backup gives: a push with one of \
             them ends at once with status 4 and changes nothing; if clients give them, take them \
             out of that line",
            module.place_of("refuse options"),
            refused.join(", ")
        );
        Finding::new(FindingId::RefuseOptions, Severity::Ok, message)
    })
}

/// If pre-xfer turns pushes with partial directories away, the line of rsyncd.conf that lets them
/// in.
fn refused_partial_dirs(module: &RsyncdModule, target: &Target) -> Option<Finding> {
    let dirs = &target.policy.partial_dirs;
    let are_refused = module.runs_this_program(PRE_XFER)
        && !offers_only_reading(module)
        && follows_links(module, dirs);
    are_refused.then(|| {
        let message = format!(
            "nothing to do unless clients push with --partial-dir or --delay-updates: such pushes \
             are turned away, since a symbolic link that a client sends could lead them to files \
             that snapshots share; `{}` in rsyncd.conf lets them in",
            remedy(dirs).join("` and `")
        );
        Finding::new(FindingId::PartialDirs, Severity::Ok, message)
    })
}

/// The options that rewrite files and that the module does not refuse.
fn unrefused_options(module: &RsyncdModule) -> Vec<&'static str> {
    let refused = text(module, "refuse options");
    let matches = |pattern: &str, option: &str| match pattern.strip_suffix('*') {
        Some(start) => option.starts_with(start),
        None => option == pattern,
    };
    let is_refused = |option: &str| {
        // The last word that matches counts. `!` takes a refusal back. rsync refuses write-devices
        // by default.
        let mut refused_now = option == "write-devices";
        for word in refused.split_whitespace() {
            let (negated, pattern) = match word.strip_prefix('!') {
                Some(pattern) => (true, pattern),
                None => (false, word),
            };
            if matches(pattern, option) {
                refused_now = !negated;
            }
        }
        refused_now
    };
    let rewriting = RewritingOption::ALL.map(RewritingOption::name);
    // With these rsync may go on in a file that snapshots share.
    let all = rewriting.into_iter().chain(["partial-dir", "delay-updates"]);
    all.filter(|option| !is_refused(option)).collect()
}

/// Other modules through which clients can write to the snapshots.
fn modules_that_write_snapshots(
    writers: &Writers,
    own: &RsyncdModule,
    target: &Target,
) -> Vec<Finding> {
    let root = &target.root_path;
    let overlapping = writers.overlapping(root).into_iter();
    let into_root = overlapping
        .filter(|(path, module)| module.name != own.name && reaches_snapshots(path, root));
    let finding = |(_, module): (_, &RsyncdModule)| {
        let name = escape(&module.name);
        let writers: Vec<String> = auth_users::rules(module)
            .filter(|rule| rule.access == UserAccess::ReadWrite)
            .map(|rule| format!("`{}`", rule.shown()))
            .collect();
        let message = match module.boolean("read only", true) == Some(true) && !writers.is_empty() {
            true => format!(
                "{}: {} of `auth users` can write to the snapshots through module '{name}', though \
                 it is read only for others; write `:ro` there",
                module.place_of("auth users"),
                writers.join(", ")
            ),
            false => format!(
                "{}: clients of module '{name}' can write to the snapshots; set `read only = yes` \
                 in it, or if clients push to it, give it a `path` outside of {}",
                module.place_of("read only"),
                escape_path(root)
            ),
        };
        Finding::new(FindingId::WritesSnapshots, Severity::Critical, message)
    };
    into_root.map(finding).collect()
}

/// Other modules that reach the module's directory and turn no push away.
fn modules_without_pre_xfer(
    writers: &Writers,
    own: &RsyncdModule,
    target: &Target,
) -> Vec<Finding> {
    let can_rewrite = |(path, module): &(&Path, &RsyncdModule)| {
        let is_other = module.name != own.name && !module.runs_this_program(PRE_XFER);
        is_other
            && !unrefused_options(module).is_empty()
            && !reaches_snapshots(path, &target.root_path)
    };
    let finding = |(_, module): (_, &RsyncdModule)| {
        let message = format!(
            "{}: clients of module '{}' can rewrite files that snapshots share; add `{PRE_XFER}` \
             to it, or `refuse options = inplace append* partial-dir delay-updates`",
            module.place,
            escape(&module.name),
        );
        Finding::new(FindingId::SharesFiles, Severity::Warning, message)
    };
    let overlapping = writers.overlapping(&target.module_path).into_iter();
    overlapping.filter(can_rewrite).map(finding).collect()
}

fn text(module: &RsyncdModule, parameter: &str) -> String {
    module
        .get(parameter)
        .map(|value| String::from_utf8_lossy(value).into_owned())
        .unwrap_or_default()
}
