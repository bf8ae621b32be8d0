//! What commands print on a terminal of 80 columns, and that a pipe gets all of it.

use crate::support;

use std::fs;

use support::have;
use support::module::Module;
use support::run::Run;
use support::terminal::on_terminal;
use support::tree;

/// A history with all that a table can show: a client, a partial snapshot, a pin with a long
/// reason, an adopted snapshot, a retired one, and long paths.
fn full() -> Module {
    let (module, _) = Module::with_snapshot();
    module.write_policy(
        "[defaults]\ntime_zone = \"Asia/Tokyo\"\nmin_keep = 1\nmin_age = \"0s\"\ngrace = \"30d\"\n\
         keep = { daily = 2 }\n",
    );
    for name in ["2020-01-01T10-00-00Z", "2020-02-01T10-00-00Z", "2020-03-01T10-00-00Z-partial"] {
        module.make_old_snapshot(name);
    }
    let reason = "kept since the auditors of the year 2020 want to see it, every single word of it";
    module.run(&["pin", "data", "2020-01", "--reason", reason]).exits(&[0]);
    module.run(&["expire", "data", "2020-02"]).exits(&[0]);
    let long = "a/directory/of/many/levels/with/a/path/that/no/terminal/has/the/columns/for";
    fs::create_dir_all(module.latest.join(long)).expect("directories");
    tree::write(&module.latest.join(long).join("file"), "x");
    module.expect_snapshot();
    module
}

/// What is seen of a line in the end, without colours.
fn seen(line: &str) -> String {
    // What came before a carriage return, such as the progress, is written over.
    let line = line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
    let mut parts = line.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
}

fn lines(run: &Run) -> Vec<String> {
    run.stdout().lines().map(seen).filter(|line| !is_logged(line)).collect()
}

/// Log lines are not part of the output; `script` shows both.
fn is_logged(line: &str) -> bool {
    line.starts_with("rsyncd-snapshot: ")
}

const COMMANDS: [&str; 17] = [
    "--help",
    "list --help",
    "plan --help",
    "restore --help",
    "list data",
    "list data --sizes",
    "list data --expired",
    "plan data",
    "plan data --policy other.toml",
    "plan --replay 30d -v",
    "rotate data -n",
    "rotate data",
    "check data -v",
    "verify data",
    "restore data newest --to target -n",
    "expire data newest -n",
    "pin data 2020-01",
];

#[test]
fn no_line_is_longer_than_the_terminal() {
    slow!();
    if !have(&["script"]) {
        return;
    }
    let module = full();
    let other = module.directory.join("other.toml");
    fs::write(&other, "[defaults]\nkeep = { hourly = 3 }\n").expect("a policy");
    let target = module.directory.join("target");
    for columns in [80, 60, 132] {
        for command in COMMANDS {
            let command = command.replace("other.toml", &other.display().to_string());
            let command = command.replace("target", &target.display().to_string());
            let run = on_terminal(&module, &format!("COLUMNS={columns}"), &command);
            for line in lines(&run) {
                let length = line.chars().count();
                // A command to copy, or one word, is left whole.
                let is_whole = line.contains('`') || !line.trim().contains(' ');
                assert!(length <= columns || is_whole, "{command}: {length}: {line}\n{run}");
            }
        }
    }
}

#[test]
fn a_terminal_leaves_out_what_is_empty_or_said_once() {
    if !have(&["script"]) {
        return;
    }
    let module = full();
    let list = on_terminal(&module, "COLUMNS=80", "list data").exits(&[0]);
    let text = lines(&list).join("\n");
    assert!(!text.contains("UNCHANGED UNTIL") && text.contains("--wide shows also"), "{text}");
    assert!(text.contains("LOCAL TIME") && text.contains("auditors"), "{text}");
    for words in ["every single word of it", "2020-03-01T10-00-00Z-partial"] {
        let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.split(' ').all(|word| joined.contains(word)), "{words}: {text}");
    }
    let wide = on_terminal(&module, "COLUMNS=80", "list data --wide").exits(&[0]);
    let piped = module.run(&["list", "data"]).exits(&[0]);
    for run in [&wide, &piped] {
        assert!(run.stdout().contains("UNCHANGED UNTIL"), "{run}");
        assert!(run.stdout().contains("every single word of it"), "{run}");
        assert!(!run.stdout().contains("--wide shows also"), "{run}");
    }
}

#[test]
fn a_reason_of_all_snapshots_stands_above_them() {
    if !have(&["script"]) {
        return;
    }
    let (module, first) = Module::with_snapshot();
    tree::write(&module.latest.join("more"), "x");
    let second = module.expect_snapshot();
    let young = "younger than min_age";
    let plan = on_terminal(&module, "COLUMNS=80 NO_COLOR=1", "plan data").exits(&[0]);
    let text = lines(&plan).join("\n");
    assert!(text.contains(&format!("each of them: {young}")), "{text}");
    assert_eq!(text.matches(young).count(), 1, "{text}");
    let piped = module.run(&["plan", "data"]).exits(&[0]).stdout();
    assert!(!piped.contains("each of them") && piped.matches(young).count() == 2, "{piped}");
    assert!([&first, &second].iter().all(|name| text.contains(*name) && piped.contains(*name)));
}

#[test]
fn local_times_stand_beside_names_in_utc() {
    let module = full();
    for arguments in [&["list", "data"][..], &["plan", "data"]] {
        let run = module.run(arguments).exits(&[0]);
        let words: Vec<String> = run.stdout().split_whitespace().map(str::to_string).collect();
        let shown = words.join(" ");
        assert!(shown.contains("2020-01-01T10-00-00Z Wed 01 19:00"), "{run}");
    }
    module.write_policy("[defaults]\ntime_zone = \"UTC\"\n");
    let list = module.run(&["list", "data"]).exits(&[0]);
    assert!(!list.stdout().contains("LOCAL TIME"), "{list}");
}

#[test]
fn json_on_a_terminal_is_not_folded() {
    if !have(&["script"]) {
        return;
    }
    let module = full();
    let run = on_terminal(&module, "COLUMNS=40", "list data --json").exits(&[0]);
    let text = run.stdout().replace('\r', "");
    serde_json::from_str::<serde_json::Value>(&text)
        .unwrap_or_else(|error| panic!("{error}: {run}"));
}

#[test]
fn a_quiet_command_prints_nothing_that_is_well() {
    let (module, _) = Module::with_snapshot();
    for arguments in [
        &["-q", "verify", "data"][..],
        &["-q", "verify", "--all"],
        &["-q", "check", "data"],
        &["-q", "rotate", "data"],
        &["-q", "snapshot", "data"],
        &["-q", "snapshot", "--all", "--due"],
        &["-q", "pin", "data", "newest"],
        &["-q", "unpin", "data", "newest"],
        &["-q", "release", "data", "--torn"],
    ] {
        let run = module.run(arguments).exits(&[0]);
        assert_eq!((run.stdout(), run.stderr()), (String::new(), String::new()), "{run}");
    }
    assert!(module.run(&["-q", "list", "data"]).exits(&[0]).stdout().contains("1 snapshot"));
}

#[test]
fn a_mistyped_client_of_the_policy_is_told_at_once() {
    let (module, _) = Module::with_snapshot();
    let check = |client: &str| {
        module.write_policy(&format!("[module.data.client.\"{client}\"]\nmax_age = \"30d\"\n"));
        module.run(&["check", "data"])
    };
    check("laptop.exampel").exits(&[1]).says("did you mean laptop.example?");
    check("192.0.2.77").says("did you mean 192.0.2.7?");
    for right in ["laptop.example", "LAPTOP.example", "192.0.2.7", "another.machine"] {
        let run = check(right).exits(&[0]);
        assert!(!run.stdout().contains("did you mean"), "{run}");
    }
}
