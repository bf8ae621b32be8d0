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
    // These characters have a meaning within a label.
    let label = module.module.replace(['=', '\'', '|'], "_");
    let max_age = numbers.max_age_seconds;
    let limits = max_age.map_or(";".to_string(), |seconds| format!("{seconds};{}", 2 * seconds));
    let age = |seconds: i64| format!("{seconds}s;{limits};0");
    let free = |bytes: u64| match numbers.total_bytes {
        Some(total) => format!("{bytes}B;;;0;{total}"),
        None => format!("{bytes}B;;;0"),
    };
    let snapshots = numbers.complete_snapshots + numbers.partial_snapshots;
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
            "WARNING - a\\x7cb: x\nOK - web: y | 'it_s_a_b snapshots'=0;;;0 \
             'web age'=7s;3600;7200;0 'web push age'=8s;3600;7200;0 'web snapshots'=3;;;0 \
             'web entries'=42;;;0 'web free'=1073741824B;;;0;2147483648\n"
        );
        let without_limit = ModuleNumbers { age_seconds: Some(7), ..ModuleNumbers::default() };
        let text = with_performance_data("OK\n", &[module("web", without_limit)]);
        assert!(text.starts_with("OK | 'web age'=7s;;;0 "), "{text}");
    }

    #[test]
    fn without_numbers_there_is_no_data() {
        let unknown = CheckedModuleView::new("rsyncd.conf".to_string(), Vec::new());
        assert_eq!(with_performance_data("OK - x\n", &[unknown]), "OK - x\n");
    }
}
