//! The findings of `check` about the configuration: the policy file, rsyncd.conf, and other modules
//! through which clients could change snapshots.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::command::finding::{Finding, Severity};
use crate::command::writers::Writers;
use crate::config::forbidden::says_writable;
use crate::config::partial_links::{follows_links, remedy};
use crate::config::rsyncd_module::RsyncdModule;
use crate::config::settings::{PolicySource, Settings};
use crate::decide::arguments::rewriting_option::RewritingOption;
use crate::decide::name::SnapshotName;
use crate::decide::zone::Zone;
use crate::module::target::Target;
use crate::store::layout::PRIVATE;
use crate::tell::PROGRAM;
use crate::tell::escape::{escape, escape_path};

/// The hook that makes snapshots.
pub(crate) const POST_XFER: &str = "post-xfer exec";
/// The hook that lets transfers in or turns them away.
const PRE_XFER: &str = "pre-xfer exec";
const PRE_XFER_COMMAND: &str = "pre-xfer";

/// Findings about the policy file itself.
pub(crate) fn of_policy(settings: &Settings) -> Option<Vec<Finding>> {
    match &settings.source {
        PolicySource::Trouble(mistakes) => Some(
            mistakes
                .iter()
                .map(|mistake| Finding::new(Severity::Critical, mistake.clone()))
                .collect(),
        ),
        PolicySource::BuiltIn => None,
        PolicySource::File => {
            let conf = settings.rsyncd().ok()?;
            let unknown = settings
                .policy_modules()
                .into_iter()
                .filter(|name| conf.module(name.as_bytes()).is_none());
            let finding = |name: String| {
                let message = format!(
                    "[module.{}] is no module in {}",
                    escape(name.as_bytes()),
                    escape_path(&settings.rsyncd_conf)
                );
                Finding::new(Severity::Warning, message)
            };
            let findings: Vec<Finding> = unknown.map(finding).collect();
            (!findings.is_empty()).then_some(findings)
        }
    }
}

/// Findings about one module in rsyncd.conf.
pub(crate) fn of_module(writers: &Writers, module: &RsyncdModule, target: &Target) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut warn = |message: String| findings.push(Finding::new(Severity::Warning, message));
    if !module.runs_this_program(POST_XFER) {
        warn(format!("rsyncd.conf: `{POST_XFER}` does not run {PROGRAM}"));
    }
    for hook in [POST_XFER, PRE_XFER] {
        if text(module, hook).contains("%RSYNC_") {
            warn(format!(
                "rsyncd.conf: `{hook}` uses %RSYNC_…%, which rsync refuses for values with blanks; \
                 leave it out"
            ));
        }
    }
    let missing = unrefused_options(module);
    if !module.runs_this_program(PRE_XFER) && says_writable(module) && !missing.is_empty() {
        warn(format!(
            "rsyncd.conf: `refuse options` lacks {}: with them a client rewrites files that \
             snapshots share",
            missing.join(", ")
        ));
    }
    findings.extend(hook_mistake(module));
    findings.extend(refused_partial_dirs(module, target));
    findings.extend(modules_that_write_snapshots(writers, module, target));
    findings.extend(modules_without_pre_xfer(writers, module, target));
    findings
}

/// Mistakes in how the two hooks of a module work together.
fn hook_mistake(module: &RsyncdModule) -> Option<Finding> {
    let runs_pre_xfer = |hook| {
        text(module, hook).split_ascii_whitespace().any(|word| {
            word.trim_matches(|letter: char| !letter.is_ascii_alphanumeric()) == PRE_XFER_COMMAND
        })
    };
    if module.runs_this_program(POST_XFER) && runs_pre_xfer(POST_XFER) {
        let message = format!(
            "rsyncd.conf: `{POST_XFER}` runs `{PROGRAM} {PRE_XFER_COMMAND}`, so no snapshot is \
             made; leave out the last word"
        );
        return Some(Finding::new(Severity::Critical, message));
    }
    match (module.runs_this_program(PRE_XFER), module.runs_this_program(POST_XFER)) {
        (true, _) if !runs_pre_xfer(PRE_XFER) => {
            let message = format!(
                "rsyncd.conf: `{PRE_XFER}` has to run `{PROGRAM} {PRE_XFER_COMMAND}`; as it is, \
                 every transfer is turned away"
            );
            Some(Finding::new(Severity::Critical, message))
        }
        (true, false) => {
            let message = format!(
                "rsyncd.conf: `{PRE_XFER}` without `{POST_XFER}`: each push leaves the module torn"
            );
            Some(Finding::new(Severity::Critical, message))
        }
        (false, true) if says_writable(module) => {
            let message = format!(
                "`{PRE_XFER} = /usr/bin/{PROGRAM} {PRE_XFER_COMMAND}` is recommended: it keeps \
                 pushes apart from snapshots"
            );
            Some(Finding::new(Severity::Ok, message))
        }
        _ => None,
    }
}

/// If pre-xfer turns pushes with partial directories away, the line of rsyncd.conf that lets them
/// in.
fn refused_partial_dirs(module: &RsyncdModule, target: &Target) -> Option<Finding> {
    let dirs = &target.policy.partial_dirs;
    let are_refused =
        module.runs_this_program(PRE_XFER) && says_writable(module) && follows_links(module, dirs);
    are_refused.then(|| {
        let message = format!(
            "nothing to do unless clients push with --partial-dir or --delay-updates: such pushes \
             are turned away, since a symbolic link that a client sends could lead them to files \
             that snapshots share; `{}` in rsyncd.conf lets them in",
            remedy(dirs)
        );
        Finding::new(Severity::Ok, message)
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
        Finding::new(
            Severity::Critical,
            format!(
                "rsyncd.conf: clients of module '{name}' can write to the snapshots; make it `read \
                 only`"
            ),
        )
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
            "rsyncd.conf: clients of module '{}' can rewrite files that snapshots share; add \
             `{PRE_XFER}` to it, or `refuse options = inplace append* partial-dir delay-updates`",
            escape(&module.name),
        );
        Finding::new(Severity::Warning, message)
    };
    let overlapping = writers.overlapping(&target.module_path).into_iter();
    overlapping.filter(can_rewrite).map(finding).collect()
}

/// Whether `path` is above the root, or within one of its snapshots or `.rsyncd-snapshot`.
fn reaches_snapshots(path: &Path, root: &Path) -> bool {
    let within = path.strip_prefix(root).ok().and_then(|rest| rest.components().next());
    let is_ours = |name: &[u8]| {
        name == PRIVATE.as_bytes() || SnapshotName::parse(name, &Zone::utc()).is_some()
    };
    root.starts_with(path) || within.is_some_and(|first| is_ours(first.as_os_str().as_bytes()))
}

fn text(module: &RsyncdModule, parameter: &str) -> String {
    module
        .get(parameter)
        .map(|value| String::from_utf8_lossy(value).into_owned())
        .unwrap_or_default()
}
