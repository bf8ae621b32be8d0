//! The findings of `check` about what is known of a module apart from its root: what this machine
//! remembers, and what this user may not see.

use chrono::{DateTime, Utc};

use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::config::policy_keys::SNAPSHOT_ROOT;
use crate::module::target::Target;
use crate::store::memory::RunKind;
use crate::tell::error::Error;
use crate::tell::escape::escape_path;
use crate::tell::{PROGRAM, counted};

/// The finding about what an ordinary user may not see: that it is unknown is no mistake.
pub(crate) fn denied(id: FindingId, error: &Error) -> Option<Finding> {
    let is_ordinary = !nix::unistd::geteuid().is_root();
    (is_ordinary && error.is_denied()).then(|| {
        let message = format!(
            "cannot tell how the backups are: {error}; run `sudo {PROGRAM} check`, since this user \
             may not look there"
        );
        Finding::new(id, Severity::Unknown, message)
    })
}

/// The finding for a module whose directory is not known until its first push.
pub(crate) fn unknown(why: &str) -> Finding {
    let message = format!("this machine remembers no push to it, and the module {why}");
    Finding::new(FindingId::ModuleUnknown, Severity::Ok, message)
}

/// The finding about the history of a directory that was the module's before.
pub(crate) fn former(target: &Target) -> Finding {
    let message = format!(
        "rsyncd.conf gives this module another directory, and its earlier snapshots in {} get no \
         new ones: to go on with them, set `path` back, or move them (docs/operations.md, Move a \
         module); if they are no longer needed, remove them and run `rm {}`",
        escape_path(&target.root_path),
        target.memory_files()
    );
    Finding::new(FindingId::RootPlace, Severity::Warning, message)
}

/// A warning of the last run that still holds is told once, and so is the cause of its failure if
/// that still stands.
pub(crate) fn without_repetition(mut findings: Vec<Finding>) -> Vec<Finding> {
    let of_run = |finding: &&Finding| finding.id == FindingId::LastRun;
    let last: Vec<Finding> = findings.iter().filter(of_run).cloned().collect();
    let others: Vec<Finding> = findings.iter().filter(|one| !of_run(one)).cloned().collect();
    let is_cause = |one: &Finding| {
        last.iter().any(|run| run.level > Severity::Warning && run.message.contains(&one.message))
    };
    findings.retain(|one| match one.id {
        FindingId::LastRun => !others.iter().any(|other| other.message == one.message),
        _ => !is_cause(one),
    });
    findings
}

/// That nothing expires. `told`: the mistakes of the policy files that have lines of their own.
pub(crate) fn policy_trouble(target: &Target, told: &[Vec<String>]) -> Vec<Finding> {
    let mistake = |text: String| {
        stops_expiry(Finding::new(FindingId::PolicyMistake, Severity::Critical, text))
    };
    if !told.contains(&target.trouble) {
        return target.trouble.iter().cloned().map(mistake).collect();
    }
    let count = counted(target.trouble.len(), "mistake");
    let text = format!("the policy has {count}: mend what the lines of `policy` tell");
    vec![Finding { is_consequence: true, ..mistake(text) }]
}

/// A mistake of the policy as it is told of a module.
pub(crate) fn stops_expiry(mistake: Finding) -> Finding {
    Finding { message: format!("nothing expires: {}", mistake.message), ..mistake }
}

/// When a push to the module failed last, if no run has succeeded since.
pub(crate) fn last_attempt(target: &Target) -> Option<DateTime<Utc>> {
    let memory = target.memory.recall(&target.module_path)?;
    let failure = memory.failure.filter(|failure| failure.work == RunKind::Snapshot);
    let ended = memory.failed_push.map(|push| push.time);
    failure.map(|failure| failure.time).max(ended)
}

/// What the last run failed at, and what it warned of.
pub(crate) fn last_failure(target: &Target) -> Vec<Finding> {
    let Some(memory) = target.memory.recall(&target.module_path) else { return Vec::new() };
    let failure = memory.failure.map(|failure| {
        let when = failure.time.format("%FT%TZ");
        let message = match failure.work {
            RunKind::Snapshot => format!(
                "the last run failed at {when}: {}. Once that is mended, push again or run \
                 `snapshot`: the next good run ends this alarm",
                failure.message
            ),
            RunKind::Rotation => format!(
                "the last rotation failed at {when}: {}. Once that is mended, run `rotate`: the \
                 next good run ends this alarm",
                failure.message
            ),
        };
        Finding::new(FindingId::LastRun, Severity::Critical, message)
    });
    let warning = |text| Finding::new(FindingId::LastRun, Severity::Warning, text);
    failure.into_iter().chain(memory.warnings.into_iter().map(warning)).collect()
}

/// Where the policy has the `snapshot_root` that is refused; nothing if it has none.
pub(crate) fn place_of_root(target: &Target, error: &Error) -> String {
    let named = target.policy.snapshot_root.as_ref().zip(target.policy_file.as_deref());
    let Some((_, file)) = named.filter(|_| matches!(error, Error::Root { .. })) else {
        return String::new();
    };
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let has_key = |line: &str| line.trim_start().starts_with(SNAPSHOT_ROOT);
    let lines: Vec<usize> =
        text.lines().enumerate().filter(|(_, line)| has_key(line)).map(|(at, _)| at + 1).collect();
    let line = match lines.as_slice() {
        [line] => format!(":{line}"),
        _ => String::new(),
    };
    format!(" (`{SNAPSHOT_ROOT}` is in {}{line})", escape_path(file))
}
