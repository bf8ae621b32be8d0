//! What `check` prints: the findings of each module as JSON or as text.
//!
//! In the text each finding has a line of its own, and the worst comes first, among modules as
//! within one: Nagios shows the first line alone. The first line of a module also counts the lines
//! that follow.

use std::cmp::Reverse;

use serde::Serialize;

use crate::command::client_view::ClientView;
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;

#[derive(Serialize)]
pub(crate) struct CheckedModuleView {
    pub(crate) module: String,
    pub(crate) status: Severity,
    pub(crate) findings: Vec<Finding>,
    pub(crate) clients: Vec<ClientView>,
}

impl CheckedModuleView {
    pub(crate) fn new(module: String, findings: Vec<Finding>) -> Self {
        let mut view =
            CheckedModuleView { module, status: Severity::Ok, findings: vec![], clients: vec![] };
        view.add(findings);
        view
    }

    /// Adds findings; the worst come first.
    pub(crate) fn add(&mut self, findings: Vec<Finding>) {
        self.findings.extend(findings);
        self.findings.sort_by_key(|finding| Reverse(finding.level));
        self.status = self.findings.first().map_or(Severity::Ok, |finding| finding.level);
    }

    /// Its lines. `with_details`: also what could not be examined.
    fn to_text(&self, with_details: bool) -> String {
        let shown = self.findings.iter().filter(|finding| with_details || !finding.is_detail);
        let mut shown: Vec<&Finding> = shown.collect();
        // Where all is well, the line that sums up is worth more than a note.
        let is_note = |one: &Finding| one.level == Severity::Ok && one.id != FindingId::Age;
        shown.sort_by_key(|finding| (Reverse(finding.level), is_note(finding)));
        // Lines that say OK are not counted: they would read like problems.
        let problems = shown.iter().filter(|finding| finding.level != Severity::Ok).count();
        let line = |(at, finding): (usize, &&Finding)| {
            let (status, module) = (finding.level.word(), &self.module);
            let end = match problems.saturating_sub(1) {
                1 if at == 0 => "; 1 more problem below".to_string(),
                more if at == 0 && more > 0 => format!("; {more} more problems below"),
                _ => String::new(),
            };
            format!("{status} - {module}: {}{end}\n", finding.message)
        };
        shown.iter().enumerate().map(line).collect()
    }
}

/// What the findings about the policy file itself stand under.
pub(crate) const POLICY: &str = "policy";

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

    /// The text for a terminal or for monitoring.
    /// Without what is well.
    pub(crate) fn only_ill(mut self) -> Self {
        for module in &mut self.modules {
            module.findings.retain(|finding| finding.level != Severity::Ok);
        }
        self
    }

    pub(crate) fn to_text(&self, with_details: bool) -> String {
        let mut modules: Vec<&CheckedModuleView> = self.modules.iter().collect();
        // A mistake of the policy is the cause of what modules suffer by it.
        modules.sort_by_key(|module| (Reverse(module.status), module.module != POLICY));
        modules.iter().map(|module| module.to_text(with_details)).collect()
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
            "CRITICAL - b: no hook; 1 more problem below\n\
             WARNING - b: torn; push again\n\
             OK - b: 2 snapshots\n\
             OK - a: 3 snapshots\n\
             OK - a: a note\n"
        );
        assert!(view.to_text(true).contains("OK - b: cannot tell: why\n"));
        // JSON has the modules in the order of rsyncd.conf.
        assert_eq!(view.modules[0].module, "a");
    }
}
