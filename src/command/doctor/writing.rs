//! What `check` finds about a module that clients may not write to, though its hooks wait for
//! pushes.

use chrono::{DateTime, Utc};

use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::config::auth_users::{self, UserAccess, UserRule};
use crate::config::rsyncd_module::RsyncdModule;
use crate::module::target::Target;
use crate::tell::escape::escape;

/// What is known of a module's `read only`, for a module whose hooks run this program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WritingFacts {
    /// Escaped.
    pub(crate) module: String,
    /// Whether certainly no client may write.
    pub(crate) only_reads: bool,
    /// The rules of `auth users`, escaped, if they alone let no user write.
    pub(crate) by_users: Vec<String>,
    /// File and line of `auth users`.
    pub(crate) users_place: String,
    /// File and line of `read only`, or of the module where it is unset.
    pub(crate) place: String,
    /// Whether `read only` is set to yes.
    pub(crate) is_explicit: bool,
    /// Place and value, escaped, of a `read only` that rsync does not understand.
    pub(crate) ignored: Option<(String, String)>,
    /// Whether the hooks stand in the module's own section, and not in the defaults.
    pub(crate) has_own_hooks: bool,
    /// Whether the module shows snapshots, so that clients can restore.
    pub(crate) shows_snapshots: bool,
    /// Whether the module has snapshots of its own.
    pub(crate) has_history: bool,
    /// Whether another module runs the hooks and is writable.
    pub(crate) others_are_writable: bool,
}

/// The finding about a module to which every push fails.
pub(crate) fn finding(facts: &WritingFacts) -> Option<Finding> {
    if !facts.only_reads || facts.shows_snapshots {
        return None;
    }
    let WritingFacts { module, place, .. } = facts;
    let critical = |message| Some(Finding::new(FindingId::ReadOnly, Severity::Critical, message));
    if let Some(first) = facts.by_users.first() {
        let who = first.split_once(':').map_or(first.as_str(), |(who, _)| who);
        return critical(format!(
            "{}: `auth users` of module '{module}' lets no user write, so every push fails; write \
             `:rw` behind the user that pushes, such as `{who}:rw` instead of `{first}`",
            facts.users_place
        ));
    }
    if let Some((place, value)) = &facts.ignored {
        return critical(format!(
            "{place}: rsync ignores `read only = {value}`, which is neither yes nor no, so module \
             '{module}' is read only and every push fails; write `read only = no` (a comment needs \
             its own line)"
        ));
    }
    // A machine that no longer pushes: its module may well be closed on purpose.
    if facts.has_history && facts.is_explicit {
        return None;
    }
    // Hooks above all modules do nothing in one that is read only, such as one for downloads.
    if !facts.has_own_hooks && !facts.has_history && facts.others_are_writable {
        return None;
    }
    let edit = if facts.is_explicit { "change that to" } else { "add" };
    critical(format!(
        "{place}: module '{module}' is read only, so every push fails; {edit} `read only = no` (a \
         comment needs its own line), or take the hooks out if nothing is pushed to it"
    ))
}

/// The finding about a read-only module without snapshots to which a client has pushed, so that it
/// is not read only on purpose.
pub(crate) fn after_pushes(
    module: &RsyncdModule,
    target: &Target,
    failed: DateTime<Utc>,
) -> Finding {
    let path = match target.check_nesting() {
        Ok(()) => "",
        Err(_) => " and a `path` with a parent directory of its own",
    };
    let message = format!(
        "{}: module '{}' is read only, so every push fails, and a push to it has failed at {}: if \
         clients push to it, give it `read only = no`{path}; if none is to push to it, end that \
         job on the client and run `rm {}`",
        module.place_of("read only"),
        escape(&module.name),
        failed.format("%FT%TZ"),
        target.memory_files()
    );
    Finding::new(FindingId::ReadOnly, Severity::Critical, message)
}

/// The rules of `auth users` if they alone let no user write.
pub(crate) fn by_users(module: &RsyncdModule) -> Vec<String> {
    let is_writable = module.boolean("read only", true) == Some(false);
    let as_module = |rule: &UserRule| rule.access == UserAccess::AsModule;
    match !is_writable && auth_users::rules(module).any(|rule| as_module(&rule)) {
        true => Vec::new(),
        false => auth_users::rules(module).map(|rule| rule.shown()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_module_that_waits_for_pushes_is_a_mistake() {
        let mistake = WritingFacts {
            only_reads: true,
            has_own_hooks: true,
            others_are_writable: true,
            ..WritingFacts::default()
        };
        let ignored = Some(("/etc/rsyncd.conf:3".to_string(), "no # really".to_string()));
        for (facts, expected) in [
            (mistake.clone(), true),
            (WritingFacts { only_reads: false, ..mistake.clone() }, false),
            (WritingFacts { shows_snapshots: true, ..mistake.clone() }, false),
            (WritingFacts { is_explicit: true, ..mistake.clone() }, true),
            (WritingFacts { is_explicit: true, has_history: true, ..mistake.clone() }, false),
            (WritingFacts { has_history: true, ..mistake.clone() }, true),
            (WritingFacts { has_own_hooks: false, ..mistake.clone() }, false),
            (
                WritingFacts {
                    has_own_hooks: false,
                    others_are_writable: false,
                    ..mistake.clone()
                },
                true,
            ),
            (
                WritingFacts { has_own_hooks: false, ignored: ignored.clone(), ..mistake.clone() },
                true,
            ),
            (WritingFacts { by_users: vec!["u:ro".to_string()], ..mistake.clone() }, true),
        ] {
            let found = finding(&facts);
            assert_eq!(found.is_some(), expected, "{facts:?}");
            assert!(found.is_none_or(|finding| finding.level == Severity::Critical));
        }
    }
}
