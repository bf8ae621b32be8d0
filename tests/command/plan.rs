//! `plan`: what goes, what stays, when and why, seen from outside.

use crate::support;

use std::fs;
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use support::history::{module_until, write_record};
use support::module::Module;
use support::run::Run;
use support::server::Server;
use support::subvolumes::are_subvolumes;
use support::time::{name_of_age, now};

/// Keeps the first of each of the last three days.
const THREE_DAYS: &str = "[defaults]\nkeep = { daily = 3 }\nmin_keep = 1\ntime_zone = \"UTC\"\n";

fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect(text)
}

/// The plan's word on each snapshot, by its name.
fn snapshot<'a>(plan: &'a Value, name: &str) -> &'a Value {
    let snapshots = plan["snapshots"].as_array().expect("snapshots");
    snapshots
        .iter()
        .find(|snapshot| snapshot["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {plan}"))
}

// ---- What goes, when, and why ----

#[test]
fn the_plan_tells_when_each_snapshot_goes() {
    let module = module_until(at("2024-11-22T18:00:00Z"), 6, 16);
    module.write_policy(THREE_DAYS);
    let plan = module.json(&["plan", "data", "--json", "--at", "2024-11-22T19:00:00Z"]);
    assert_eq!(plan["at"], "2024-11-22T19:00:00Z");
    assert_eq!(plan["usual_spacing_seconds"], 6 * 3_600);
    assert_eq!(plan["next_push"], "2024-11-23T00:00:00Z");

    let goes = snapshot(&plan, "2024-11-21T06-00-00Z");
    let covered = serde_json::json!([
        { "frequency": "daily", "slot": "2024-11-21", "name": "2024-11-21T00-00-00Z", "keep": true }
    ]);
    assert_eq!((&goes["keep"], &goes["covered_by"]), (&false.into(), &covered));
    assert!(goes["expires_at"].is_null(), "{goes}");

    // It stands for its day as long as that is one of the last three.
    let stays = snapshot(&plan, "2024-11-21T00-00-00Z");
    assert_eq!(
        (&stays["keep"], &stays["expires_at"]),
        (&true.into(), &"2024-11-24T00:00:00Z".into())
    );
    assert_eq!(stays["covered_by"], serde_json::json!([]));
    // The newest goes as soon as there is a newer one.
    assert_eq!(snapshot(&plan, "2024-11-22T18-00-00Z")["expires_at"], "2024-11-23T00:00:00Z");

    let text = module.run(&["plan", "data", "--at", "2024-11-22T19:00:00Z"]).exits(&[0]).stdout();
    let line =
        |name: &str| text.lines().find(|line| line.starts_with(name)).expect(name).to_string();
    assert!(line("2024-11-21T00-00-00Z").contains(" in 29h "), "{text}");
    assert!(
        line("2024-11-21T06-00-00Z").contains("2024-11-21T00-00-00Z stands for 2024-11-21"),
        "{text}"
    );
}

#[test]
fn a_cover_that_goes_itself_is_told_to_go() {
    let module = module_until(at("2024-11-22T18:00:00Z"), 1, 2);
    let (first, second) = ("2024-10-01T01-00-00Z", "2024-10-01T02-00-00Z");
    [first, second].iter().for_each(|name| module.make_old_snapshot(name));
    module.write_policy(THREE_DAYS);
    let plan = module.json(&["plan", "data", "--json", "--at", "2024-11-22T19:00:00Z"]);
    let cover = &snapshot(&plan, second)["covered_by"][0];
    assert_eq!((&cover["name"], &cover["keep"]), (&first.into(), &false.into()));
    module
        .run(&["plan", "data", "--at", "2024-11-22T19:00:00Z"])
        .says(&format!("{first} stands for 2024-10-01, which goes too"));
}

#[test]
fn what_max_expire_puts_off_goes_with_later_pushes() {
    let module = module_until(at("2024-11-22T18:00:00Z"), 6, 8);
    let old: Vec<String> = (1..=5).map(|day| format!("2024-01-0{day}T00-00-00Z")).collect();
    old.iter().for_each(|name| module.make_old_snapshot(name));
    module.write_policy("[defaults]\nkeep = { hourly = 100 }\nmin_keep = 1\nmax_expire = 2\n");
    let plan = module.json(&["plan", "data", "--json", "--at", "2024-11-22T19:00:00Z"]);
    assert_eq!(plan["deferred"], 3);
    let expected = [
        Value::Null,
        Value::Null,
        "2024-11-23T00:00:00Z".into(),
        "2024-11-23T00:00:00Z".into(),
        "2024-11-23T06:00:00Z".into(),
    ];
    for (name, expires_at) in old.iter().zip(expected) {
        assert_eq!(snapshot(&plan, name)["expires_at"], expires_at, "{name}");
    }
}

#[test]
fn what_a_guard_holds_is_told_with_why_it_goes_without() {
    let (module, _) = Module::with_snapshot();
    let old: Vec<String> = (1..=6).map(|day| format!("2024-01-0{day}T00-00-00Z")).collect();
    old.iter().for_each(|name| module.make_old_snapshot(name));
    module.write_policy("[defaults]\nkeep = { daily = \"always\" }\ntime_zone = \"UTC\"\n");
    module.run(&["rotate", "data"]).exits(&[0]);
    module.run(&["pin", "data", &old[1], "--reason", "the move"]).exits(&[0]);
    module.write_policy(
        "[defaults]\nkeep = { monthly = \"always\" }\nmin_keep = 1\ntime_zone = \"UTC\"\n",
    );
    let plan = module.json(&["plan", "data", "--json"]);
    assert!(
        plan["pause"].as_str().is_some_and(|pause| pause.contains("the policy has changed")),
        "{plan}"
    );
    let held = snapshot(&plan, &old[2]);
    assert_eq!((&held["keep"], &held["expires_at"]), (&true.into(), &Value::Null));
    assert_eq!(held["covered_by"][0]["name"], old[0].as_str());
    let reasons = held["reasons"].as_array().expect("reasons");
    assert!(reasons[0].to_string().contains("paused"), "{held}");
    assert!(reasons[1].to_string().contains(&format!("{} stands for 2024-01", old[0])), "{held}");
    let pinned = snapshot(&plan, &old[1]);
    assert_eq!((&pinned["pinned"], &pinned["keep"]), (&"the move".into(), &true.into()));
    assert!(snapshot(&plan, &old[0])["pinned"].is_null());
    module.run(&["plan", "data"]).exits(&[0]).says("held back  expiry is paused; monthly");
}

#[test]
fn a_monthly_snapshot_stays_and_one_snapshot_alone_has_no_forecast() {
    let module = module_until(at("2024-11-22T18:00:00Z"), 1, 30);
    module.write_policy("[defaults]\ntime_zone = \"UTC\"\n");
    let plan = module.json(&["plan", "data", "--json", "--at", "2024-11-22T19:00:00Z"]);
    let oldest = &plan["snapshots"][0];
    assert!(oldest["reasons"].to_string().contains("monthly always"), "{oldest}");
    assert_eq!((&oldest["keep"], &oldest["expires_at"]), (&true.into(), &Value::Null));
    let text = module.run(&["plan", "data", "--at", "2024-11-22T19:00:00Z"]).exits(&[0]).stdout();
    assert!(text.lines().nth(2).expect("the oldest").contains(" keep    never "), "{text}");

    let (alone, _) = Module::with_snapshot();
    let plan = alone.json(&["plan", "data", "--json"]);
    assert!(plan["next_push"].is_null() && plan["usual_spacing_seconds"].is_null(), "{plan}");
}

#[test]
fn a_plan_for_another_time_has_no_quarrel_with_the_clock() {
    let (module, newest) = Module::with_snapshot();
    module.make_old_snapshot(&name_of_age(TimeDelta::hours(30)));
    module.write_policy("[defaults]\nkeep = { hourly = 1 }\nmin_keep = 1\ntime_zone = \"UTC\"\n");
    let in_ten_years = (now() + TimeDelta::days(3_650)).to_rfc3339();
    let plan = module.json(&["plan", "data", "--json", "--at", &in_ten_years]);
    assert!(plan["pause"].is_null(), "{plan}");
    assert_eq!(
        (snapshot(&plan, &newest)["keep"].as_bool(), plan["snapshots"][0]["keep"].as_bool()),
        (Some(true), Some(false))
    );
    for wrong in ["tomorrow", "2024-13-22", "22.11.2024", "2024-11-22 19"] {
        let run = module.run(&["plan", "data", "--at", wrong]).exits(&[2]);
        run.says("RFC 3339").says("2026-12-24 18:00");
    }
    module.write_policy("[defaults]\ntime_zone = \"Europe/Amsterdam\"\n");
    for (time, at) in
        [("2024-11-22", "2024-11-21T23:00:00Z"), ("2024-11-22 19:00", "2024-11-22T18:00:00Z")]
    {
        let plan = module.json(&["plan", "data", "--json", "--at", time]);
        assert_eq!(plan["at"], at);
        // What is dated later did not exist then, and says nothing of the clock.
        assert!(plan["pause"].is_null() && plan["snapshots"] == serde_json::json!([]), "{plan}");
    }
}

#[test]
fn the_dry_run_is_the_plan() {
    let module = module_until(now() - TimeDelta::hours(2), 5, 30);
    module.write_policy(THREE_DAYS);
    let plan = module.json(&["plan", "data", "--json"]);
    let dry_run = module.json(&["rotate", "data", "--dry-run", "--json"]);
    assert_eq!(plan["snapshots"], dry_run["snapshots"]);
    assert_eq!(plan["bytes_freed"], dry_run["bytes_freed"]);
    assert!(plan["snapshots"][0]["covered_by"].is_array(), "{plan}");
    let run = module.run(&["rotate", "data", "--dry-run"]).exits(&[0]);
    // How much a subvolume frees is not known before.
    assert_eq!(run.stdout().contains("frees"), !are_subvolumes(), "{run}");
}

#[test]
fn all_modules_are_planned_for() {
    let (module, newest) = Module::with_snapshot();
    let plans = module.json(&["plan", "--all", "--json"]);
    assert_eq!(plans.as_array().map(Vec::len), Some(1), "{plans}");
    snapshot(&plans[0], &newest);
    module.run(&["plan"]).exits(&[2]);
    module.run(&["plan", "data", "--all"]).exits(&[2]);
}

#[test]
fn two_hundred_snapshots_are_planned_for_at_once() {
    let (module, _) = Module::with_snapshot();
    for number in 0..200 {
        let name = name_of_age(TimeDelta::hours(1 + number * (1 + number / 20)));
        module.make_old_snapshot(&name);
        write_record(&module, &name, 3);
    }
    module.write_policy(
        "[defaults]\nkeep = { hourly = 48, daily = 31, weekly = 26, monthly = \"always\" }\n",
    );
    let started = Instant::now();
    let plan = module.json(&["plan", "data", "--json"]);
    eprintln!("a plan for 201 snapshots took {:?}", started.elapsed());
    assert_eq!(plan["snapshots"].as_array().map(Vec::len), Some(201));
    let told = |key: &str| {
        let snapshots = plan["snapshots"].as_array().expect("snapshots");
        snapshots.iter().filter(|snapshot| !snapshot[key].is_null()).count()
    };
    assert!(told("expires_at") > 50 && told("entries") == 201, "{plan}");
}

// ---- Another policy ----

#[test]
fn another_policy_is_shown_beside_the_present_one() {
    only_hard_links!("sizes by numbers of links");
    let module = module_until(at("2024-11-22T18:00:00Z"), 24, 6);
    module.write_policy(THREE_DAYS);
    let file = module.directory.join("other.toml");
    fs::write(&file, "[module.data]\nkeep = { daily = 5 }\nmin_keep = 1\ntime_zone = \"UTC\"\n")
        .expect("a policy");
    let path = file.to_str().expect("UTF-8");
    let arguments = ["plan", "data", "--at", "2024-11-22T19:00:00Z", "--policy", path];
    let plan = module.json(&[&arguments[..], &["--json"]].concat());
    let keeps = |of: fn(&Value) -> &Value| {
        let snapshots = plan["snapshots"].as_array().expect("snapshots");
        snapshots
            .iter()
            .map(|snapshot| of(snapshot)["keep"].as_bool().expect("keep"))
            .collect::<Vec<_>>()
    };
    assert_eq!(keeps(|snapshot| snapshot), [false, false, false, true, true, true]);
    assert_eq!(keeps(|snapshot| &snapshot["compared"]), [false, true, true, true, true, true]);
    assert_eq!(plan["compared"]["policy_file"], path);
    assert!(plan["compared"]["bytes_freed"].as_u64() < plan["bytes_freed"].as_u64(), "{plan}");
    let reasons = &plan["snapshots"][1]["compared"]["reasons"];
    assert!(reasons.to_string().contains("daily 5 of 5"), "{plan}");

    let text = module.run(&arguments).exits(&[0]).stdout();
    let total = text.lines().find(|line| line.starts_with("TOTAL")).expect("totals");
    assert!(total.contains("3 kept, 3 expire") && total.contains("5 kept, 1 expire"), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains(" <> ")).count(), 2, "{text}");
    // Where the change alone would pause expiry, that is said, and still what it would come to.
    module.run(&["rotate", "data"]).exits(&[0]);
    fs::write(&file, "[defaults]\nkeep = { daily = 1 }\nmin_keep = 1\ntime_zone = \"UTC\"\n")
        .expect("a policy");
    let plan = module.json(&[&arguments[..], &["--json"]].concat());
    assert!(plan["pause"].is_null() && plan["compared"]["pause"].is_string(), "{plan}");
    assert_eq!(snapshot(&plan, "2024-11-20T18-00-00Z")["compared"]["keep"], false);
    assert_eq!(snapshot(&plan, "2024-11-20T18-00-00Z")["keep"], true);
    let run = module.run(&arguments);
    let run = run.says("nothing expires before `rotate --confirm`, because it would expire 2 of 3");
    assert!(!run.stdout().contains("whichever time of the clock is right"), "{run}");
}

#[test]
fn two_policies_are_compared_without_max_expire() {
    only_hard_links!("sizes by numbers of links");
    let module = module_until(at("2024-11-22T18:00:00Z"), 24, 30);
    let rules = "min_keep = 1\ntime_zone = \"UTC\"\nmax_expire = 4\n";
    module.write_policy(&format!("[defaults]\nkeep = {{ daily = 20 }}\n{rules}"));
    let file = module.directory.join("other.toml");
    fs::write(&file, format!("[defaults]\nkeep = {{ daily = 2 }}\n{rules}")).expect("a policy");
    let path = file.to_str().expect("UTF-8");
    let arguments = ["plan", "data", "--at", "2024-11-22T19:00:00Z", "--policy", path];
    let text = module.run(&arguments).exits(&[0]).stdout();
    assert!(text.contains("20 kept, 10 expire in 3 runs"), "{text}");
    assert!(text.contains("2 kept, 28 expire in 7 runs"), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains(" <> ")).count(), 18, "{text}");
    let plan = module.json(&[&arguments[..], &["--json"]].concat());
    assert_eq!((&plan["runs"], &plan["compared"]["runs"]), (&3.into(), &7.into()), "{plan}");
    assert!(plan["bytes_freed"].as_u64() < plan["compared"]["bytes_freed"].as_u64(), "{plan}");
    // The next rotation alone expires no more than its policy lets it.
    module.run(&arguments[..4]).says("26 kept, 4 expire");
    fs::write(&file, "[defaults]\nkeep = { daily = 2 }\nmax_expire = 0\n").expect("a policy");
    module.run(&arguments).says("30 kept, 0 expire");
}

#[test]
fn another_policy_is_read_and_not_used() {
    let module = module_until(at("2024-11-22T18:00:00Z"), 24, 6);
    module.write_policy(THREE_DAYS);
    let file = module.directory.join("other.toml");
    fs::write(&file, "[defaults]\nkeep = { daily = 5 }\n").expect("a policy");
    module.json(&["plan", "data", "--json", "--policy", file.to_str().expect("UTF-8")]);
    module.run(&["rotate", "data", "--dry-run"]).exits(&[0]).says("3 kept, 3 expire");
    assert_eq!(module.snapshots().len(), 6);
}

#[test]
fn mistakes_in_another_policy_are_told_as_those_in_the_present_one() {
    let (module, _) = Module::with_snapshot();
    let file = module.directory.join("other.toml");
    fs::write(&file, "[defaults]\nmin_kep = 3\nprefer = \"oldst\"\n").expect("a policy");
    let path = file.to_str().expect("UTF-8");
    for arguments in
        [&["plan", "data", "--policy", path][..], &["plan", "--replay", "1d", "--policy", path]]
    {
        let run = module.run(arguments).exits(&[2]);
        let told = run.stderr();
        assert!(told.contains(&format!("{path}:2:1: defaults.min_kep is an unknown key")), "{run}");
        assert!(told.contains(&format!("{path}:3:10: defaults.prefer")), "{run}");
        assert_eq!(run.stdout(), "", "{run}");
    }
    module
        .run(&["plan", "data", "--policy", "/nonexistent/policy"])
        .exits(&[2])
        .says("cannot be read");
}

// ---- Replays ----

/// The three policies of docs/policy.md.
const POLICIES: [&str; 3] = ["laptop", "server", "archive"];

/// `plan --policy` on an example as docs/policy.md shows it, in the project's directory.
fn replayed(policy: &str, more: &[&str]) -> Run {
    let server = Server::new();
    let file = format!("examples/policies/{policy}.toml");
    let mut command =
        server.command(&["plan", "--policy", &file, "--replay", "2y", "--every", "1h"]);
    command.args(["--at", "2026-11-22T19:00:00Z"]).args(more);
    Run::of(command.env("TZ", "UTC").current_dir(env!("CARGO_MANIFEST_DIR"))).exits(&[0])
}

#[test]
fn a_replay_shows_what_a_policy_holds_after_two_years() {
    let run = replayed("archive", &["--json"]).json();
    assert_eq!(run["policy_file"], "examples/policies/archive.toml");
    assert!(run["module"].is_null() && run["compared"].is_null(), "{run}");
    let replay = &run["replay"];
    assert_eq!(
        (&replay["from"], &replay["to"]),
        (&"2024-11-22T19:00:00Z".into(), &"2026-11-22T19:00:00Z".into())
    );
    assert_eq!((&replay["pushes"], &replay["every_seconds"]), (&17_521.into(), &3_600.into()));
    let snapshots = replay["snapshots"].as_array().expect("snapshots");
    assert_eq!(replay["held"], snapshots.len());
    let names: Vec<&str> =
        snapshots.iter().map(|snapshot| snapshot["name"].as_str().expect("a name")).collect();
    // The first of three years, of eleven more months, of six more days, and the newest.
    assert_eq!(
        names[..3],
        ["2024-11-22T19-00-00Z", "2025-01-01T01-00-00Z", "2025-12-01T01-00-00Z"]
    );
    assert_eq!(names[names.len() - 2..], ["2026-11-22T01-00-00Z", "2026-11-22T19-00-00Z"]);
    assert_eq!(names.len(), 3 + 11 + 7 + 1, "{names:?}");
}

#[test]
fn the_table_in_the_document_is_what_the_program_prints() {
    slow!();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/policy.md");
    let document = fs::read_to_string(file).expect("docs/policy.md");
    let table = document
        .split("<!-- replays -->")
        .nth(1)
        .and_then(|rest| rest.split("<!-- end of replays -->").next());
    let table = table.expect("the table of policies between its two comments");
    let block = table.split("```").nth(1).expect("a block").trim_start_matches("text");
    let printed: Vec<String> =
        POLICIES.iter().map(|policy| replayed(policy, &[]).stdout()).collect();
    assert_eq!(block.trim(), printed.join("\n").trim());
}

#[test]
fn a_replay_of_a_module_takes_its_policy() {
    let (module, _) = Module::with_snapshot();
    module.write_policy(
        "[defaults]\nkeep = { hourly = 5 }\nmin_keep = 1\n[module.data]\nkeep = { hourly = 9 }\n",
    );
    let other = module.directory.join("other.toml");
    fs::write(&other, "[defaults]\nkeep = { hourly = 7 }\nmin_keep = 1\n").expect("a policy");
    let other = other.to_str().expect("UTF-8");
    let held = |arguments: &[&str]| {
        let replays = module.json(
            &[&["plan", "--json", "--replay", "2d", "--at", "2026-11-22T19:00:00Z"], arguments]
                .concat(),
        );
        [replays["replay"]["held"].as_u64(), replays["compared"]["replay"]["held"].as_u64()]
    };
    assert_eq!(held(&[]), [Some(5), None]);
    assert_eq!(held(&["data"]), [Some(9), None]);
    assert_eq!(held(&["--policy", other]), [Some(7), None]);
    assert_eq!(held(&["data", "--policy", other]), [Some(9), Some(7)]);
    assert_eq!(
        held(&["--every", "30m"]),
        [Some(6), None],
        "the newest stays beside its hour's first"
    );
    module.run(&["plan", "data", "--replay", "2d", "-v"]).exits(&[0]).says("hourly 9 of 9");
    // The module's snapshots were not touched, nor asked for.
    assert_eq!(module.snapshots().len(), 1);
}

#[test]
fn what_cannot_be_replayed_is_said_at_once() {
    let module = Module::new();
    for (arguments, why) in [
        (&["--every", "1h"][..], "--replay"),
        (&["--replay", "2y", "--every", "1s"], "at most 200000"),
        (&["--replay", "2y", "--every", "0s"], "never end"),
        (&["--replay", "2 years"], "a number and a unit"),
        (&["--replay", "y"], "a number and a unit"),
        (&["--replay", "9999999999y"], "a number and a unit"),
    ] {
        module.run(&[&["plan"], arguments].concat()).exits(&[2]).says(why);
    }
    module.write_policy("");
    module.run(&["plan", "--replay", "1d"]).exits(&[2]).says("the file is empty");
}
