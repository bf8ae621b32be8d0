//! `plan` on a terminal, and off it.

use crate::support;

use chrono::TimeDelta;
use support::have;
use support::history::module_until;
use support::module::Module;
use support::terminal::on_terminal;
use support::time::{name_of_age, now};

/// Keeps the first of each of the last three days.
const THREE_DAYS: &str = "[defaults]\nkeep = { daily = 3 }\nmin_keep = 1\ntime_zone = \"UTC\"\n";

fn stdout(module: &Module, environment: &str, arguments: &str) -> String {
    on_terminal(module, environment, arguments).exits(&[0]).stdout()
}

#[test]
fn a_terminal_shows_a_timeline_and_colours_unless_unwanted() {
    if !have(&["script"]) {
        return;
    }
    let module = module_until(now() - TimeDelta::hours(1), 8, 200);
    let pinned = name_of_age(TimeDelta::hours(1 + 8 * 150));
    module.make_old_snapshot(&pinned);
    module.make_old_snapshot(&format!("{}-partial", name_of_age(TimeDelta::hours(50))));
    module.write_policy(THREE_DAYS);
    module.run(&["snapshot", "data"]).exits(&[0, 4]);
    module.run(&["pin", "data", &pinned, "--reason", "before\u{1b}[2J the move"]).exits(&[0]);
    let shown = stdout(&module, "", "plan data");
    let lines: Vec<&str> = shown.lines().map(|line| line.trim_end_matches('\r')).collect();
    let row = |name: &str| lines.iter().find(|line| line.starts_with(name)).copied();
    let axis = lines.iter().find(|line| line.trim_start().starts_with("now ")).expect("an axis");
    for label in ["1h", "1d", "1w", "1M"] {
        assert!(axis.contains(label), "{label} in {shown}");
    }
    assert!(axis.len() <= 90, "{shown}");
    let goes = row("goes").expect("what goes");
    assert!(goes.contains("\x1b[31m") && goes.contains('#'), "{shown}");
    assert!(row("stays").is_some_and(|row| row.contains("\x1b[32m")), "{shown}");
    assert!(row("partial").is_some_and(|row| row.contains('*')), "{shown}");
    assert!(
        row("pinned").is_some_and(|row| row.contains("\x1b[33m") && row.contains('*')),
        "{shown}"
    );
    assert!(shown.contains("before\\x1b[2J the move"), "{shown}");

    for plain in ["NO_COLOR=1", "TERM=dumb"] {
        let shown = stdout(&module, plain, "-q plan data");
        assert!(shown.contains("goes ") && !shown.contains('\x1b'), "{plain}: {shown:?}");
    }
    assert!(stdout(&module, "NO_COLOR=", "plan data").contains("\x1b[31m"));
    let narrow = stdout(&module, "COLUMNS=50 NO_COLOR=1", "-q plan data");
    let root = module.root.display().to_string();
    let strip = narrow.lines().skip(1).take_while(|line| !line.starts_with("(*"));
    // A path is not broken, however long it is.
    let strip: Vec<&str> = strip.filter(|line| !line.contains(&root)).collect();
    assert!(strip.len() >= 4 && strip.iter().all(|line| line.trim_end().len() <= 50), "{narrow}");

    let elsewhere = module.run(&["plan", "data"]).exits(&[0]).stdout();
    assert!(!elsewhere.contains('\x1b') && !elsewhere.contains("stays"), "{elsewhere}");
}
