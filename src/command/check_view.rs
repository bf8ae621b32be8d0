//! What `check` prints, as JSON and as text.

use std::cmp::Reverse;

use serde::Serialize;

use crate::command::client_view::ClientView;
use crate::command::finding::{Finding, Severity};

/// A module, or another matter, with its findings.
#[derive(Serialize)]
pub(crate) struct CheckedModuleView {
    pub(crate) module: String,
    pub(crate) status: Severity,
    pub(crate) findings: Vec<Finding>,
    pub(crate) clients: Vec<ClientView>,
}

#[derive(Serialize)]
pub(crate) struct CheckView {
    pub(crate) status: Severity,
    pub(crate) modules: Vec<CheckedModuleView>,
}

impl CheckedModuleView {
    pub(crate) fn add(&mut self, findings: Vec<Finding>) {
        let worst = findings.iter().map(|finding| finding.level).max();
        self.status = self.status.max(worst.unwrap_or(Severity::Ok));
        self.findings.extend(findings);
        sort(&mut self.findings);
    }
}

/// The worst findings come first: a person reads only the beginning of a line.
fn sort(findings: &mut [Finding]) {
    findings.sort_by_key(|finding| Reverse(finding.level));
}

pub(crate) fn view(module: String, mut findings: Vec<Finding>) -> CheckedModuleView {
    sort(&mut findings);
    let status = findings.iter().map(|finding| finding.level).max().unwrap_or(Severity::Ok);
    CheckedModuleView { module, status, findings, clients: Vec::new() }
}

pub(crate) fn to_text(view: &CheckView, with_details: bool) -> String {
    let mut text = String::new();
    for module in &view.modules {
        let shown = module.findings.iter().filter(|finding| with_details || !finding.is_detail);
        let messages: Vec<&str> = shown.map(|finding| finding.message.as_str()).collect();
        if !messages.is_empty() {
            let (status, messages) = (module.status.word(), messages.join("; "));
            text += &format!("{status} - {}: {messages}\n", module.module);
        }
    }
    text
}
