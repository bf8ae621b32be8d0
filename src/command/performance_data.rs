//! The performance data of `check`, which a monitoring system draws graphs of, by the guidelines
//! for monitoring plugins: `'label'=value[UOM];[warn];[crit];[min];[max]`, after a `|`.

use crate::command::check_view::CheckedModuleView;

/// The lines of `check` with the performance data at their end. There, what a reader cuts off that
/// takes only so many bytes is no text. What follows a `|` in a line would be data, so any other
/// one is escaped.
pub(crate) fn with_performance_data(text: &str, modules: &[CheckedModuleView]) -> String {
    let text = text.replace('|', r"\x7c");
    let data: Vec<String> = modules.iter().flat_map(of_module).collect();
    match text.strip_suffix('\n') {
        Some(lines) if !data.is_empty() => format!("{lines} | {}\n", data.join(" ")),
        _ => text,
    }
}

fn of_module(module: &CheckedModuleView) -> Vec<String> {
    let Some(numbers) = &module.numbers else { return Vec::new() };
    let label = label_of(&module.module);
    let max_age = numbers.max_age_seconds;
    let limits = max_age
        .map_or(";".to_string(), |seconds| format!("{seconds};{}", seconds.saturating_mul(2)));
    let age = |seconds: i64| format!("{seconds}s;{limits};0");
    let free = |bytes: u64| match numbers.total_bytes {
        Some(total) => format!("{bytes}B;;;0;{total}"),
        None => format!("{bytes}B;;;0"),
    };
    let snapshots = numbers.complete_snapshots.saturating_add(numbers.partial_snapshots);
    let values = [
        ("age", numbers.age_seconds.map(age)),
        ("push age", numbers.last_good_push_age_seconds.map(age)),
        ("snapshots", Some(format!("{snapshots};;;0"))),
        ("entries", numbers.entries.map(|entries| format!("{entries};;;0"))),
        ("free", numbers.free_bytes.map(free)),
    ];
    let known = values.into_iter().filter_map(|(name, value)| Some((name, value?)));
    known.map(|(name, value)| format!("'{label} {name}'={value}")).collect()
}

/// What the labels of a module begin with; no other module's begin alike. Its name is escaped, so a
/// backslash in it is doubled.
fn label_of(module: &str) -> String {
    // These characters have a meaning within a label.
    let text = module.replace('=', r"\x3d").replace('\'', r"\x27").replace('|', r"\x7c");
    // `age` of such a module would be `push age` of another one.
    match text.strip_suffix(" push") {
        Some(start) => format!(r"{start}\x20push"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::module_numbers::ModuleNumbers;

    fn module(name: &str, numbers: ModuleNumbers) -> CheckedModuleView {
        let numbers = Some(numbers);
        CheckedModuleView { numbers, ..CheckedModuleView::new(name.to_string(), Vec::new()) }
    }

    #[test]
    fn the_data_stand_behind_the_last_line() {
        let known = ModuleNumbers {
            complete_snapshots: 2,
            partial_snapshots: 1,
            age_seconds: Some(7),
            last_good_push_age_seconds: Some(8),
            max_age_seconds: Some(3_600),
            entries: Some(42),
            free_bytes: Some(1 << 30),
            total_bytes: Some(1 << 31),
            ..ModuleNumbers::default()
        };
        let modules = [module("it's=a|b", ModuleNumbers::default()), module("web", known)];
        assert_eq!(
            with_performance_data("WARNING - a|b: x\nOK - web: y\n", &modules),
            "WARNING - a\\x7cb: x\nOK - web: y | 'it\\x27s\\x3da\\x7cb snapshots'=0;;;0 \
             'web age'=7s;3600;7200;0 'web push age'=8s;3600;7200;0 'web snapshots'=3;;;0 \
             'web entries'=42;;;0 'web free'=1073741824B;;;0;2147483648\n"
        );
        let without_limit = ModuleNumbers { age_seconds: Some(7), ..ModuleNumbers::default() };
        let text = with_performance_data("OK\n", &[module("web", without_limit)]);
        assert!(text.starts_with("OK | 'web age'=7s;;;0 "), "{text}");
    }

    #[test]
    fn no_two_modules_have_a_label_in_common() {
        let numbers = || ModuleNumbers {
            age_seconds: Some(1),
            last_good_push_age_seconds: Some(1),
            ..ModuleNumbers::default()
        };
        let names =
            ["w", "w push", "w push push", r"w\\x20push", "w_", "w'", "w=", "w|", r"w\\x7c"];
        let modules: Vec<CheckedModuleView> =
            names.iter().map(|name| module(name, numbers())).collect();
        let labels: Vec<String> = modules
            .iter()
            .flat_map(of_module)
            .map(|value| value.split('\'').nth(1).unwrap_or_default().to_string())
            .collect();
        let different: std::collections::BTreeSet<&String> = labels.iter().collect();
        assert_eq!(different.len(), 3 * names.len(), "{labels:?}");
        assert!(labels.iter().all(|label| !label.contains(['=', '|'])), "{labels:?}");
        assert_eq!(labels[..3], ["w age", "w push age", "w snapshots"]);
        assert_eq!(labels[3], r"w\x20push age");
    }

    #[test]
    fn without_numbers_there_is_no_data() {
        let unknown = CheckedModuleView::new("rsyncd.conf".to_string(), Vec::new());
        assert_eq!(with_performance_data("OK - x\n", &[unknown]), "OK - x\n");
    }
}
