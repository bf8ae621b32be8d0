//! The metrics of `check --prometheus`, as OpenMetrics text that the textfile collector of
//! node_exporter reads, too.
//!
//! Prometheus gets times, and no ages: the file is read long after it was written. The values of
//! labels are the names of modules, and words of which there are few.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use chrono::{DateTime, Utc};

use crate::command::check_view::CheckView;
use crate::command::finding::Severity;
use crate::command::finding_id::FindingId;
use crate::command::module_numbers::ModuleNumbers;

/// The metrics of a module that have no other label, in the order of [`values`].
const OF_MODULE: [(&str, &str); 13] = [
    ("last_good_push_timestamp_seconds", "When the last good push ended."),
    ("newest_complete_timestamp_seconds", "When the newest complete snapshot was taken."),
    (
        "verified_until_timestamp_seconds",
        "Until when runs found the module equal to the newest complete snapshot.",
    ),
    ("max_age_seconds", "The max_age of the policy."),
    ("entries", "Entries of the newest complete snapshot."),
    ("snapshot_duration_seconds", "How long it took to make the newest snapshot."),
    ("free_bytes", "Free space on the file system of the snapshots."),
    ("size_bytes", "Size of the file system of the snapshots."),
    ("pushes_running", "How many pushes are running."),
    ("torn", "1 if a push failed and no later one has made up for it, otherwise 0."),
    ("due", "1 if a snapshot is still to be made, otherwise 0."),
    ("paused", "1 if nothing expires, otherwise 0."),
    ("damaged", "1 if files in snapshots were found altered, otherwise 0."),
];

fn values(numbers: &ModuleNumbers) -> [Option<f64>; OF_MODULE.len()] {
    let seconds = |time: Option<DateTime<Utc>>| time.map(|time| time.timestamp() as f64);
    let number = |number: Option<u64>| number.map(|number| number as f64);
    let flag = |is_so: bool| Some(f64::from(u8::from(is_so)));
    [
        seconds(numbers.last_good_push),
        seconds(numbers.newest_complete_time),
        seconds(numbers.verified_until),
        number(numbers.max_age_seconds),
        number(numbers.entries),
        numbers.duration_seconds,
        number(numbers.free_bytes),
        number(numbers.total_bytes),
        Some(numbers.running_pushes as f64),
        flag(numbers.torn),
        flag(numbers.due),
        flag(numbers.paused),
        flag(numbers.damaged),
    ]
}

/// What is told under one label. Prometheus refuses a file in which a label stands twice.
struct Labelled<'a> {
    status: Severity,
    findings: BTreeMap<(FindingId, Severity), u32>,
    numbers: Option<&'a ModuleNumbers>,
}

/// The text of a file of metrics. `now`: when the modules were checked.
pub(crate) fn to_text(view: &CheckView, now: DateTime<Utc>) -> String {
    let mut modules: BTreeMap<String, Labelled> = BTreeMap::new();
    for module in &view.modules {
        // A module may be called `policy`, too.
        let end = if module.is_module { "" } else { ",is_module=\"false\"" };
        let label = format!("module=\"{}\"{end}", label_value(&module.module));
        let empty = || Labelled { status: module.status, findings: BTreeMap::new(), numbers: None };
        let labelled = modules.entry(label).or_insert_with(empty);
        labelled.status = labelled.status.max(module.status);
        labelled.numbers = labelled.numbers.or(module.numbers.as_ref());
        for finding in module.findings.iter().filter(|finding| finding.level != Severity::Ok) {
            *labelled.findings.entry((finding.id, finding.level)).or_default() += 1;
        }
    }
    let mut text = String::new();
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    family(&mut text, "build_info", "The version that wrote this.", [(version, 1.0)]);
    let checked = (String::new(), now.timestamp() as f64);
    family(&mut text, "check_timestamp_seconds", "When the modules were checked.", [checked]);
    let of_status = modules.iter().map(|(label, it)| (label.clone(), f64::from(it.status.code())));
    let help = "The worst finding: 0 ok, 1 warning, 2 critical, 3 unknown.";
    family(&mut text, "status", help, of_status);
    let of_findings = modules.iter().flat_map(|(label, it)| {
        it.findings.iter().map(move |((id, level), count)| {
            let level = level.word().to_lowercase();
            (format!("{label},id=\"{}\",level=\"{level}\"", id.name()), f64::from(*count))
        })
    });
    family(&mut text, "findings", "Findings that are not ok.", of_findings);
    let known: Vec<(&String, &ModuleNumbers)> =
        modules.iter().filter_map(|(label, it)| Some((label, it.numbers?))).collect();
    let of_grades = known.iter().flat_map(|(label, numbers)| {
        let grades =
            [("complete", numbers.complete_snapshots), ("partial", numbers.partial_snapshots)];
        grades.map(|(grade, count)| (format!("{label},grade=\"{grade}\""), count as f64))
    });
    family(&mut text, "snapshots", "How many snapshots there are.", of_grades);
    for (position, (name, help)) in OF_MODULE.iter().enumerate() {
        let samples = known
            .iter()
            .filter_map(|(label, numbers)| Some(((*label).clone(), values(numbers)[position]?)));
        family(&mut text, name, help, samples);
    }
    text + "# EOF\n"
}

/// Adds a metric with its samples, each with its labels; nothing if it has none.
fn family(
    text: &mut String,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (String, f64)>,
) {
    let mut samples = samples.into_iter().peekable();
    if samples.peek().is_none() {
        return;
    }
    let name = format!("rsyncd_snapshot_{name}");
    // Writing to a String cannot fail.
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n");
    for (labels, value) in samples {
        let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}

fn label_value(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::check_view::CheckedModuleView;
    use crate::command::finding::Finding;

    fn time(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).expect("a time")
    }

    #[test]
    fn each_metric_has_help_type_and_a_sample_for_each_module() {
        let numbers = ModuleNumbers {
            complete_snapshots: 2,
            last_good_push: Some(time(1_795_000_000)),
            duration_seconds: Some(0.25),
            free_bytes: Some(12_345_678_901_234),
            torn: true,
            ..ModuleNumbers::default()
        };
        let warning = || Finding::new(FindingId::Marks, Severity::Warning, "torn");
        let findings = vec![warning(), warning(), Finding::new(FindingId::Age, Severity::Ok, "")];
        let web = CheckedModuleView {
            numbers: Some(numbers),
            ..CheckedModuleView::new("a\"b\\".to_string(), findings)
        };
        let unknown = CheckedModuleView::of_file("rsyncd.conf", Vec::new());
        let text = to_text(&CheckView::new(vec![web, unknown]), time(1_795_000_060));
        for line in [
            "rsyncd_snapshot_check_timestamp_seconds 1795000060",
            "# TYPE rsyncd_snapshot_status gauge",
            r#"rsyncd_snapshot_status{module="a\"b\\"} 1"#,
            r#"rsyncd_snapshot_status{module="rsyncd.conf",is_module="false"} 0"#,
            r#"rsyncd_snapshot_findings{module="a\"b\\",id="marks",level="warning"} 2"#,
            r#"rsyncd_snapshot_snapshots{module="a\"b\\",grade="complete"} 2"#,
            r#"rsyncd_snapshot_snapshots{module="a\"b\\",grade="partial"} 0"#,
            r#"rsyncd_snapshot_last_good_push_timestamp_seconds{module="a\"b\\"} 1795000000"#,
            r#"rsyncd_snapshot_snapshot_duration_seconds{module="a\"b\\"} 0.25"#,
            r#"rsyncd_snapshot_free_bytes{module="a\"b\\"} 12345678901234"#,
            r#"rsyncd_snapshot_torn{module="a\"b\\"} 1"#,
            r#"rsyncd_snapshot_due{module="a\"b\\"} 0"#,
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
        // What is not known has neither a sample nor a head.
        assert!(!text.contains("entries"), "{text}");
        assert!(text.ends_with("\n# EOF\n"), "{text}");
    }

    #[test]
    fn a_label_stands_once() {
        let module = |level| {
            let findings = vec![Finding::new(FindingId::Age, level, "")];
            let numbers = Some(ModuleNumbers::default());
            CheckedModuleView { numbers, ..CheckedModuleView::new("policy".to_string(), findings) }
        };
        let told = vec![Finding::new(FindingId::PolicyMistake, Severity::Unknown, "")];
        let file = CheckedModuleView::of_file("policy", told);
        let modules = vec![module(Severity::Warning), module(Severity::Critical), file];
        let text = to_text(&CheckView::new(modules), time(0));
        assert_eq!(text.matches("rsyncd_snapshot_torn{").count(), 1, "{text}");
        assert!(text.contains("rsyncd_snapshot_status{module=\"policy\"} 2\n"), "{text}");
        let of_file = "rsyncd_snapshot_status{module=\"policy\",is_module=\"false\"} 3\n";
        assert!(text.contains(of_file), "{text}");
    }
}
