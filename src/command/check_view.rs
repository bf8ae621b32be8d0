//! What `check` prints: the findings of each module as JSON or as text.
//!
//! In the text each finding has a line of its own, and the worst comes first, among modules as
//! within one: Nagios shows the first line alone. The first line of a module also counts the lines
//! that follow, and the very first one those of all modules, and the modules that are well.

use std::cmp::Reverse;

use serde::Serialize;

use crate::command::client_view::ClientView;
use crate::command::finding::{Finding, Severity, mark_consequences};
use crate::command::finding_id::FindingId;
use crate::command::module_numbers::ModuleNumbers;
use crate::tell::counted;

#[derive(Serialize)]
pub(crate) struct CheckedModuleView {
    pub(crate) module: String,
    /// Whether it is a module, and not [`POLICY`] or [`RSYNCD_CONF`]. A module may have that name.
    pub(crate) is_module: bool,
    pub(crate) status: Severity,
    pub(crate) findings: Vec<Finding>,
    pub(crate) clients: Vec<ClientView>,
    /// None if nothing is known of its root.
    pub(crate) numbers: Option<ModuleNumbers>,
}

impl CheckedModuleView {
    pub(crate) fn new(module: String, findings: Vec<Finding>) -> Self {
        let mut view = CheckedModuleView {
            module,
            is_module: true,
            status: Severity::Ok,
            findings: vec![],
            clients: vec![],
            numbers: None,
        };
        view.add(findings);
        view
    }

    /// What is told of a file of the configuration: [`POLICY`] or [`RSYNCD_CONF`].
    pub(crate) fn of_file(name: &str, findings: Vec<Finding>) -> Self {
        CheckedModuleView { is_module: false, ..CheckedModuleView::new(name.into(), findings) }
    }

    /// Adds findings; the worst come first.
    pub(crate) fn add(&mut self, findings: Vec<Finding>) {
        self.findings.extend(findings);
        mark_consequences(&mut self.findings);
        self.findings.sort_by_key(|finding| Reverse(finding.level));
        self.status = self.findings.first().map_or(Severity::Ok, |finding| finding.level);
    }

    /// Whether it has a finding of this kind.
    pub(crate) fn tells(&self, id: FindingId) -> bool {
        self.findings.iter().any(|finding| finding.id == id)
    }

    /// How many problems there are to solve.
    fn problems(&self) -> usize {
        self.findings.iter().filter(|finding| finding.is_problem()).count()
    }

    /// Its lines. `with_details`: also what could not be examined. `problems`: how many there are
    /// from its first line on. `end`: what the first one ends with.
    fn to_text(&self, with_details: bool, problems: usize, end: &str) -> String {
        let shown = self.findings.iter().filter(|finding| with_details || !finding.is_detail);
        let mut shown: Vec<&Finding> = shown.collect();
        // Where all is well, the line that sums up is worth more than a note.
        let is_note = |one: &Finding| one.level == Severity::Ok && one.id != FindingId::Age;
        shown.sort_by_key(|finding| {
            (Reverse(finding.level), finding.is_consequence, is_note(finding))
        });
        // Lines that say OK are not counted: they would read like problems.
        let first = shown.first().is_some_and(|finding| finding.is_problem());
        let more = problems - usize::from(first);
        let line = |(at, finding): (usize, &&Finding)| {
            let (status, module) = (finding.level.word(), &self.module);
            let end = match more {
                _ if at > 0 => String::new(),
                0 => end.to_string(),
                1 => format!("; 1 more problem below{end}"),
                more => format!("; {more} more problems below{end}"),
            };
            format!("{status} - {module}: {}{end}\n", finding.message)
        };
        shown.iter().enumerate().map(line).collect()
    }
}

/// What the findings about the policy file itself stand under.
pub(crate) const POLICY: &str = "policy";

/// What the findings about rsyncd.conf as a whole, and about the daemon, stand under.
pub(crate) const RSYNCD_CONF: &str = "rsyncd.conf";

#[derive(Serialize)]
pub(crate) struct CheckView {
    pub(crate) status: Severity,
    pub(crate) modules: Vec<CheckedModuleView>,
}

impl CheckView {
    pub(crate) fn new(modules: Vec<CheckedModuleView>) -> Self {
        let status = modules.iter().map(|module| module.status).max();
        CheckView { status: status.unwrap_or(Severity::Unknown), modules }
    }

    /// Without what is well.
    pub(crate) fn only_ill(mut self) -> Self {
        for module in &mut self.modules {
            module.findings.retain(|finding| finding.level != Severity::Ok);
        }
        self
    }

    /// The text for a terminal or for monitoring.
    pub(crate) fn to_text(&self, with_details: bool) -> String {
        let mut modules: Vec<&CheckedModuleView> = self.modules.iter().collect();
        // A mistake of the policy is the cause of what modules suffer by it.
        let is_policy = |module: &CheckedModuleView| !module.is_module && module.module == POLICY;
        modules.sort_by_key(|module| (Reverse(module.status), !is_policy(module)));
        let is_well = |module: &&&CheckedModuleView| {
            module.is_module && module.status == Severity::Ok && !module.findings.is_empty()
        };
        let all: usize = modules.iter().map(|module| module.problems()).sum();
        let well = modules.iter().skip(1).filter(is_well).count();
        let more = if all == 0 { "more module" } else { "module" };
        let end = if well > 0 { format!("; {} OK", counted(well, more)) } else { String::new() };
        let text = |(at, module): (usize, &&CheckedModuleView)| match at {
            0 => module.to_text(with_details, all, &end),
            _ => module.to_text(with_details, module.problems(), ""),
        };
        modules.iter().enumerate().map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_has_a_line_and_the_worst_is_first() {
        let finding = |id, level, message| Finding::new(id, level, message);
        let well = vec![
            finding(FindingId::Timeout, Severity::Ok, "a note"),
            finding(FindingId::Age, Severity::Ok, "3 snapshots"),
        ];
        let ill = vec![
            finding(FindingId::Age, Severity::Ok, "2 snapshots"),
            finding(FindingId::Marks, Severity::Warning, "torn; push again"),
            finding(FindingId::Hook, Severity::Critical, "no hook"),
            Finding::cannot_tell(FindingId::Hook, "why"),
        ];
        let modules =
            vec![CheckedModuleView::new("a".into(), well), CheckedModuleView::new("b".into(), ill)];
        let view = CheckView::new(modules);
        assert_eq!(view.status, Severity::Critical);
        assert_eq!(
            view.to_text(false),
            "CRITICAL - b: no hook; 1 more problem below; 1 module OK\n\
             WARNING - b: torn; push again\n\
             OK - b: 2 snapshots\n\
             OK - a: 3 snapshots\n\
             OK - a: a note\n"
        );
        assert!(view.to_text(true).contains("OK - b: cannot tell: why\n"));
        // JSON has the modules in the order of rsyncd.conf.
        assert_eq!(view.modules[0].module, "a");
        // As cron mails it: nothing that is well.
        assert_eq!(
            view.only_ill().to_text(false),
            "CRITICAL - b: no hook; 1 more problem below\nWARNING - b: torn; push again\n"
        );
    }

    #[test]
    fn the_first_line_counts_what_is_wrong_and_what_is_well_elsewhere() {
        let module = |name: &str, levels: &[Severity]| {
            let findings = levels.iter().map(|level| Finding::new(FindingId::Age, *level, "x"));
            CheckedModuleView::new(name.to_string(), findings.collect())
        };
        let file = |name: &str, levels: &[Severity]| CheckedModuleView {
            is_module: false,
            ..module(name, levels)
        };
        use Severity::{Critical, Ok, Warning};
        for (modules, expected) in [
            (vec![module("a", &[Ok])], "OK - a: x"),
            (vec![module("a", &[Ok]), module("b", &[Ok])], "OK - a: x; 1 more module OK"),
            (
                vec![module("a", &[Ok]), module("b", &[Ok]), module("c", &[Ok])],
                "OK - a: x; 2 more modules OK",
            ),
            (
                vec![
                    module("a", &[Ok]),
                    module("b", &[Critical, Warning]),
                    module("c", &[Warning]),
                ],
                "CRITICAL - b: x; 2 more problems below; 1 module OK",
            ),
            // These are no modules.
            (
                vec![module("a", &[Ok]), file(POLICY, &[Critical]), file(RSYNCD_CONF, &[Ok])],
                "CRITICAL - policy: x; 1 module OK",
            ),
            // A module of that name is one.
            (
                vec![module("policy", &[Ok]), module("rsyncd.conf", &[Ok])],
                "OK - policy: x; 1 more module OK",
            ),
        ] {
            let text = CheckView::new(modules).to_text(false);
            assert_eq!(text.lines().next(), Some(expected), "{text}");
        }
    }
    #[test]
    fn what_comes_of_a_problem_is_not_counted_as_another_one() {
        let warning = |id| Finding::new(id, Severity::Warning, id.name());
        let told = Finding { is_consequence: true, ..warning(FindingId::PolicyMistake) };
        let late = vec![told.clone(), warning(FindingId::Age), warning(FindingId::PushAge)];
        let torn = vec![told, warning(FindingId::FailedPush), warning(FindingId::Marks)];
        let policy = vec![warning(FindingId::PolicyMistake)];
        let view = CheckView::new(vec![
            CheckedModuleView::new("a".into(), late),
            CheckedModuleView::new("b".into(), torn),
            CheckedModuleView::of_file(POLICY, policy),
        ]);
        assert_eq!(
            view.to_text(false),
            "WARNING - policy: policy-mistake; 2 more problems below\n\
             WARNING - a: push-age\n\
             WARNING - a: policy-mistake\n\
             WARNING - a: age\n\
             WARNING - b: marks\n\
             WARNING - b: policy-mistake\n\
             WARNING - b: failed-push\n"
        );
    }
}
