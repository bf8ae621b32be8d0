//! What can be taken back: pins, retired snapshots within their grace, and rotations that wait for
//! a person's word.

use crate::support;

use std::fs;
use std::process::Stdio;

use support::module::Module;
use support::run::Run;
use support::simulated::{EXPIRING, Simulated};
use support::subvolumes::{are_subvolumes, edit_snapshot, remove_snapshot};
use support::time::wait_until;
use support::{have, tree};

/// What is retired goes with the next run.
const POLICY: &str = "[defaults]\nkeep = { yearly = 1 }\nmin_keep = 1\nmin_age = \"0s\"\n\
                      grace = \"0s\"\ntime_zone = \"UTC\"\n";

const OLD: [&str; 3] = ["2020-01-01T00-00-00Z", "2020-01-02T00-00-00Z", "2021-01-03T00-00-00Z"];

/// Snapshots of which the policy keeps the last and, with the word of a person, expires the others.
fn three() -> Module {
    let module = Module::new();
    module.write_policy(POLICY);
    OLD.iter().for_each(|name| module.make_old_snapshot(name));
    module
}

/// `policy` with another grace.
fn with_grace(policy: &str, grace: &str) -> String {
    policy.replace("grace = \"0s\"", &format!("grace = \"{grace}\""))
}

/// Two are retired within their grace, and the state knows nothing of it.
fn forgotten() -> Module {
    let module = three();
    module.write_policy(&with_grace(POLICY, "1d"));
    module.run(&["rotate", "data", "--confirm"]).exits(&[0]);
    let mut state = module.state();
    assert!(state.remove("retired").is_some() && retired(&module) == OLD[..2], "{state:?}");
    fs::write(module.private("state.toml"), state.to_string()).expect("written");
    module
}

fn retired(module: &Module) -> Vec<String> {
    module.retired()
}

/// A module whose every push expires the snapshot before, which then has so much `grace`.
fn simulated(grace: &str) -> Simulated {
    let module = Simulated::new(Module::new(), &with_grace(EXPIRING, grace));
    tree::numbered(&module.latest, 3, 3);
    module
}

fn push(module: &Simulated) -> String {
    tree::write(&module.latest.join("d0001/f0001"), &module.name());
    module.publish()
}

/// A command in which calls fail as `inject`, an option of strace, says.
fn disturbed(module: &Module, inject: &str, arguments: &[&str]) -> Run {
    let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", inject];
    Run::of(&mut module.command_through(&strace, arguments))
}

// -- Pins -----------------------------------------------------------------------------------------

#[test]
fn pin_and_unpin_take_several_names_or_do_nothing() {
    let module = three();
    module.run(&["pin", "data", OLD[0], OLD[1], OLD[0]]).exits(&[0]).says(OLD[1]);
    assert_eq!(pinned(&module), OLD[..2]);
    module.run(&["pin", "data", OLD[2], "2020-01-09T00-00-00Z"]).exits(&[2]).says("2020-01-09");
    assert_eq!(pinned(&module), OLD[..2], "one of them is no snapshot");
    module.run(&["unpin", OLD[1], OLD[0]]).exits(&[0]);
    assert_eq!(pinned(&module), [""; 0]);
}

#[test]
fn quiet_commands_print_no_table_and_no_success() {
    let module = three();
    for arguments in [
        &["pin", "-q", "data", OLD[0]][..],
        &["rotate", "-q", "data", "--confirm"],
        &["unpin", "-q", OLD[0]],
        &["release", "-q", "data"],
    ] {
        let run = module.run(arguments).exits(&[0]);
        assert_eq!(run.stdout() + &run.stderr(), "", "{run}");
    }
}

/// The cause of a pause stands above the table; `release` does not end it, and says so.
#[test]
fn a_pause_is_said_once_and_release_says_that_it_stands() {
    let module = three();
    module.run(&["rotate", "data", "--confirm"]).exits(&[0]);
    OLD[..2].iter().for_each(|name| module.make_old_snapshot(name));
    fs::write(module.private("state.toml"), "damaged").expect("written");
    module.run_hook();
    for arguments in [&["rotate", "data"][..], &["plan", "data"]] {
        let run = module.run(arguments);
        assert_eq!(run.stdout().matches("state.toml was damaged").count(), 1, "{run}");
        assert!(run.stdout().matches("expiry is paused").count() > 1, "{run}");
    }
    module
        .run(&["release", "data"])
        .exits(&[0])
        .says("nothing expires yet: state.toml was damaged");
}

fn pinned(module: &Module) -> Vec<String> {
    let listed = module.list();
    let pinned = listed.iter().filter(|one| !one["pinned"].is_null());
    pinned.filter_map(|one| one["name"].as_str().map(str::to_string)).collect()
}

#[test]
fn a_pinned_snapshot_stays_until_it_is_unpinned_and_says_why_everywhere() {
    let module = three();
    module
        .run(&["pin", "data", OLD[0], "--reason", "before the \u{1b}[31mmove"])
        .exits(&[0])
        .says("is pinned");
    module.run(&["rotate", "data"]).exits(&[0]);
    assert_eq!(module.snapshots(), [OLD[0], OLD[2]]);

    let listed = module.list();
    assert_eq!(listed[0]["pinned"], "before the \\x1b[31mmove");
    assert!(listed[1]["pinned"].is_null(), "{listed:?}");
    for command in [&["list", "data"][..], &["plan", "data"], &["rotate", "data"]] {
        module.run(command).exits(&[0]).says("before the \\x1b[31mmove");
    }
    module.run(&["check", "data"]).exits(&[0]).says("1 pinned");

    module.run(&["unpin", OLD[0]]).exits(&[0]);
    module.run(&["rotate", "data"]).exits(&[0]);
    assert_eq!(module.snapshots(), [OLD[2]]);
}

#[test]
fn a_pin_needs_a_snapshot_and_tells_what_there_is_instead() {
    let module = three();
    module.run(&["rotate", "data", "--dry-run"]).exits(&[0]);
    for name in ["2020-01-01T00-00-01Z", "latest", ".rsyncd-snapshot", "..", "2020-01-05", "a\nb"] {
        module.run(&["pin", "data", name]).exits(&[2]).says("list");
    }
    module.run(&["unpin", "data", OLD[0]]).exits(&[2]).says("pinned");
    module.run(&["undelete", "data", OLD[0]]).exits(&[2]).says("list --expired");
    module.run(&["pin", "data"]).exits(&[2]);
    module.run(&["pin"]).exits(&[2]);
    assert_eq!(module.snapshots(), OLD);
}

#[test]
fn a_pinned_snapshot_is_kept_through_failures_and_an_unreadable_record() {
    let (module, name) = Module::with_snapshot();
    module.run(&["pin", "data", &name]).exits(&[0]);
    fs::write(module.private(&format!("records/{name}.toml")), "damaged").expect("written");
    module.run_hook_after(23).exits(&[0, 4]);
    module.run(&["rotate", "data", "--confirm"]).exits(&[0, 4]);
    assert!(module.snapshots().contains(&name));
    assert!(module.state()["pins"].as_table().expect("pins").contains_key(&name));
}

// -- Two phases -----------------------------------------------------------------------------------

#[test]
fn undelete_works_until_the_run_after_a_rotation() {
    let module = three();
    module.run(&["rotate", "data", "--confirm"]).exits(&[0]);
    assert_eq!(
        (module.snapshots(), retired(&module)),
        (vec![OLD[2].to_string()], OLD[..2].to_vec().iter().map(|n| n.to_string()).collect())
    );
    let listed = module.json(&["list", "--expired", "--json", "data"]);
    assert_eq!(listed["expired"][0]["name"], OLD[0], "{listed}");
    assert!(listed["expired"][0]["retired"].is_string(), "{listed}");
    module.run(&["list", "--expired", "data"]).exits(&[0]).says(OLD[1]);

    module.run(&["undelete", OLD[0]]).exits(&[0]).says("is back");
    assert_eq!(module.snapshots(), [OLD[0], OLD[2]]);
    let old = module.snapshot(OLD[0]).join("sub/old");
    assert_eq!(fs::read_to_string(old).expect("the old file"), OLD[0]);
    // It is pinned, else this would retire it again. The other one's time has come, but for the
    // one that waits to be recycled.
    module.run(&["rotate", "data"]).exits(&[0]);
    assert_eq!(module.snapshots(), [OLD[0], OLD[2]]);
    module.run(&["undelete", "data", OLD[0]]).exits(&[2]);
    assert_eq!(module.list()[0]["pinned"], "brought back by undelete");
}

#[test]
fn purging_leaves_nothing_to_bring_back() {
    slow!();
    let module = three();
    // More than one reading of a directory holds.
    let large = module.snapshot(OLD[1]).join("large");
    fs::create_dir(&large).expect("a directory");
    for number in 0..9_000 {
        fs::write(large.join(format!("{number:0>240}")), "").expect("a file");
    }
    module.run(&["rotate", "data", "--confirm", "--purge"]).exits(&[0]);
    assert_eq!((module.snapshots(), retired(&module)), (vec![OLD[2].to_string()], Vec::new()));
    module.run(&["undelete", "data", OLD[0]]).exits(&[2]).says("no");
}

#[test]
fn a_purge_says_what_it_freed_as_expire_does() {
    only_hard_links!("sizes by numbers of links");
    let module = three();
    module.write_policy(&with_grace(POLICY, "1d"));
    fs::write(module.snapshot(OLD[0]).join("alone"), vec![7; 256 << 10]).expect("a file");
    module.run(&["rotate", "data", "--confirm"]).exits(&[0]);
    let json = module.json(&["rotate", "data", "--json"]);
    assert!(json["bytes_freed"].is_null() && json["entries_freed"].is_null(), "{json:#}");
    let json = module.json(&["rotate", "data", "--purge", "--json"]);
    let freed = json["bytes_freed"].as_u64().expect("bytes");
    assert!(((256 << 10)..(400 << 10)).contains(&freed), "{json:#}");
    assert!(json["entries_freed"].as_u64() > Some(1), "{json:#}");
    let json = module.json(&["rotate", "data", "--purge", "--json"]);
    assert!(json["bytes_freed"].is_null(), "nothing was left to purge: {json:#}");
    let run = module.run(&["rotate", "data", "--purge"]).exits(&[0]);
    assert!(!run.stdout().contains("freed"), "{run}");
}

#[test]
fn an_undelete_of_several_brings_back_all_or_none() {
    let module = three();
    module.run(&["rotate", "data", "--confirm"]).exits(&[0]);
    assert_eq!(retired(&module), OLD[..2]);
    // Another snapshot has the name of the second one meanwhile.
    fs::create_dir(module.snapshot(OLD[1])).expect("a directory");
    let run = module.run(&["undelete", "data", OLD[0], OLD[1]]).exits(&[2]);
    run.says("is visible").says("move that one away first");
    assert_eq!(retired(&module), OLD[..2]);
    assert!(!module.snapshot(OLD[0]).exists());
    assert!(module.state().get("pins").is_none(), "{:?}", module.state());
    fs::remove_dir(module.snapshot(OLD[1])).expect("moved away");
    module.run(&["undelete", "data", OLD[0], OLD[1]]).exits(&[0]);
    assert_eq!(module.snapshots(), OLD);
}

#[test]
fn what_cannot_be_moved_to_be_removed_stays_retired_and_is_told_of() {
    if !have(&["strace"]) {
        return;
    }
    let module = three();
    module.run(&["rotate", "data", "--confirm"]).exits(&[0]);
    let run = disturbed(&module, "inject=renameat2:error=EIO", &["rotate", "data", "--purge"]);
    run.exits(&[4])
        .says("a retired snapshot could not be removed: cannot remove")
        .says("Input/output error");
    assert_eq!(retired(&module), OLD[..2]);
    module.run(&["undelete", "data", OLD[1]]).exits(&[0]);
    module.run(&["rotate", "data", "--purge"]).exits(&[0]);
    assert_eq!(
        (module.snapshots(), retired(&module).len()),
        (OLD[1..].iter().map(ToString::to_string).collect(), 0)
    );
}

#[test]
fn an_undelete_that_fails_leaves_the_pins_as_they_were() {
    if !have(&["strace"]) {
        return;
    }
    let module = three();
    module.run(&["rotate", "data", "--confirm"]).exits(&[0]);
    let undelete = ["undelete", "data", OLD[0]];
    let has_pin = || module.state().get("pins").is_some_and(|pins| pins.get(OLD[0]).is_some());
    let fails = || {
        let run = disturbed(&module, "inject=renameat2:error=EIO", &undelete);
        run.exits(&[1]).says("cannot bring back");
        assert_eq!(retired(&module), OLD[..2]);
    };
    fails();
    assert!(!has_pin(), "{:?}", module.state());
    // One that was killed before it had moved anything has set its pin.
    disturbed(&module, "inject=renameat2:signal=SIGKILL", &undelete);
    assert!(has_pin(), "{:?}", module.state());
    fails();
    assert!(has_pin(), "{:?}", module.state());
    module.run(&undelete).exits(&[0]);
    assert_eq!(module.snapshots(), [OLD[0], OLD[2]]);
}

#[test]
fn an_undelete_of_a_removed_snapshot_pins_nothing() {
    let module = three();
    module.run(&["rotate", "data", "--confirm"]).exits(&[0]);
    let state = fs::File::open(module.private(".")).expect("our directory");
    fs2::FileExt::lock_exclusive(&state).expect("locked");
    let mut undelete = module.command(&["undelete", "data", OLD[0]]);
    let undelete =
        undelete.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let waits = format!(" {} ", undelete.id());
    let is_waiting =
        |locks: String| locks.lines().any(|line| line.contains("->") && line.contains(&waits));
    wait_until("it waits", || fs::read_to_string("/proc/locks").is_ok_and(is_waiting));
    remove_snapshot(&module.retired_snapshot(OLD[0]));
    drop(state);

    let run = Run::from_output("undelete", undelete.wait_with_output().expect("it ends"));
    let run = run.exits(&[2]).says("no retired snapshot").says("list --expired");
    assert!(module.state().get("pins").is_none(), "{run}");
    assert_eq!(module.snapshots(), [OLD[2]]);
}

#[test]
fn within_its_grace_a_retired_snapshot_is_neither_recycled_nor_removed() {
    if !support::may_recycle() {
        return;
    }
    let module = simulated("3h");
    let names: Vec<String> = (0..4).map(|_| push(&module)).collect();
    // Of the fourth push: the third was retired by it, the others one and two hours ago.
    assert_eq!(retired(&module), names[..3]);
    assert_eq!(module.recycled(&names[3]), None, "the first one's grace lasts until the next push");
    module.run_after(12).exits(&[0]);
    assert_eq!(
        retired(&module),
        names[..3],
        "a failed transfer does not end a grace that is asked for"
    );

    let fifth = push(&module);
    // Subvolumes are not recycled: it is removed.
    let recycled = (!are_subvolumes()).then(|| names[0].clone());
    assert_eq!(module.recycled(&fifth), recycled);
    assert_eq!(retired(&module), names[1..4]);
    module.server.run(&["undelete", "data", &names[1]]).exits(&[0]);
    assert!(module.snapshots().contains(&names[1]));
    push(&module);
    assert!(module.snapshots().contains(&names[1]), "{:?}", module.snapshots());
}

/// Where the disk was full as it was retired, for one.
#[test]
fn a_retired_snapshot_of_unknown_age_has_its_whole_grace() {
    if !support::may_recycle() {
        return;
    }
    let module = forgotten();
    module.run(&["rotate", "data"]).exits(&[0]);
    assert_eq!(retired(&module), OLD[..2]);
    let since = module.state()["retired"].clone();
    assert_eq!(since.as_table().map(toml::Table::len), Some(2), "{since}");
    module.run(&["rotate", "data"]).exits(&[0]);
    assert_eq!(module.state()["retired"], since, "it begins once");

    module.write_policy(POLICY);
    module.run(&["rotate", "data"]).exits(&[0]);
    // Only one of hard links waits to be recycled.
    let waiting = if are_subvolumes() { &[][..] } else { &OLD[1..2] };
    assert_eq!(retired(&module), waiting, "one waits to be recycled");
}

/// Room is made by removing, so removing takes none.
#[test]
fn a_full_disk_ends_no_grace_sooner() {
    if !have(&["strace"]) {
        return;
    }
    let later = "so their grace is counted from a later run: cannot write";
    for (error, status, told) in
        [("ENOSPC", 4, later), ("EDQUOT", 4, later), ("EIO", 1, "error: cannot write")]
    {
        let module = forgotten();
        let inject = format!("inject=openat:error={error}");
        let strace =
            ["strace", "-f", "-qq", "-o", "/dev/null", "-P", "state.toml.tmp", "-e", &inject];
        let mut rotate = module.command_through(&strace, &["rotate", "data"]);
        let run = Run::of(&mut rotate).exits(&[status]).says(told).says("state.toml");
        assert_eq!(module.snapshots(), OLD[2..], "{run}");
        assert_eq!(retired(&module), OLD[..2], "{run}");
        assert!(module.state().get("retired").is_none(), "{run}");
    }
}

#[test]
fn a_snapshot_changed_after_undelete_is_never_trusted() {
    let module = simulated("0s");
    let first = push(&module);
    push(&module);
    module.server.run(&["undelete", &first]).exits(&[0]);
    // A person restores something into it, of all places.
    edit_snapshot(&module.snapshot(&first), |snapshot| {
        fs::remove_file(snapshot.join("d0000/f0000")).expect("removed");
        fs::write(snapshot.join("d0002/extra"), "x").expect("written");
    });
    module.server.run(&["unpin", &first]).exits(&[0]);
    for _ in 0..4 {
        push(&module);
    }
}

#[test]
fn a_half_removed_snapshot_cannot_be_brought_back() {
    if !have(&["strace"]) {
        return;
    }
    let module = three();
    module.run(&["rotate", "data", "--confirm"]).exits(&[0]);
    let run =
        disturbed(&module, "inject=unlinkat:signal=SIGKILL:when=2", &["rotate", "data", "--purge"]);
    assert_eq!(run.signal(), Some(9), "{run}");
    for name in retired(&module) {
        assert!(module.retired_snapshot(&name).join("sub/old").is_file(), "{name} is half a tree");
    }
    let hit = OLD[..2].iter().filter(|name| !retired(&module).contains(&name.to_string())).count();
    assert!(hit > 0, "nothing was being removed");
    module.run_hook().exits(&[0]);
    assert_eq!(module.left_over("staging"), 0);
}

// -- Policies that surprise -----------------------------------------------------------------------

#[test]
fn a_policy_that_expires_most_waits_for_confirmation() {
    let module = three();
    module.write_policy(&POLICY.replace("{ yearly = 1 }", "{ daily = \"always\" }"));
    module.run(&["rotate", "data"]).exits(&[0]);
    module.write_policy(POLICY);

    module.run(&["rotate", "data"]).exits(&[4]).says("2 of 3").says("rotate --confirm");
    assert_eq!(module.snapshots(), OLD);
    module.run(&["check", "data"]).exits(&[1]).says("rotate data --confirm");
    module.run(&["plan", "data"]).exits(&[0]).says("2 of 3");
    tree::small(&module.latest);
    module.run_hook().exits(&[4]);
    assert_eq!(module.snapshots().len(), 4, "snapshots are taken all the same");

    // What the last run warned of ends with its cause.
    module.write_policy(&POLICY.replace("{ yearly = 1 }", "{ daily = \"always\" }"));
    let found = module.run(&["check", "data"]).exits(&[0]).stdout();
    assert!(!found.contains("nothing expires"), "{found}");
    module.write_policy(POLICY);

    module.run(&["rotate", "data", "--confirm"]).exits(&[0]);
    assert_eq!(module.snapshots().len(), 1);
    module.run_hook().exits(&[0]);
    module.run(&["check", "data"]).exits(&[0]);

    // The same policy needs no second word, another one does.
    module.run(&["rotate", "data", "--purge"]).exits(&[0]);
    OLD.iter().for_each(|name| module.make_old_snapshot(name));
    module.write_policy(&POLICY.replace("yearly", "hourly"));
    module.run(&["rotate", "data"]).exits(&[4]).says("3 of 4");
    module.write_policy(POLICY);
    module.run(&["rotate", "data"]).exits(&[0]);
    assert_eq!(module.snapshots().len(), 1);
}

// -- Names that are taken -------------------------------------------------------------------------

/// [`three`], of which two are retired; one of their names is that of a snapshot made by hand.
fn with_name_taken(grace: &str) -> Module {
    let module = three();
    module.write_policy(&with_grace(POLICY, grace));
    module.run(&["rotate", "data", "--confirm"]).exits(&[0]);
    assert_eq!(retired(&module), OLD[..2]);
    module.make_old_snapshot(OLD[1]);
    fs::write(module.snapshot(OLD[1]).join("by hand"), "").expect("a file");
    module
}

#[test]
fn a_retired_snapshot_gives_way_to_one_made_by_hand() {
    let module = with_name_taken("0s");
    module.run(&["rotate", "data", "--confirm"]).exits(&[0]);
    assert_eq!(module.snapshots(), OLD[2..]);
    assert!(module.retired_snapshot(OLD[1]).join("by hand").exists(), "retired, not removed");
}

#[test]
fn a_retired_snapshot_within_its_grace_is_kept_and_told() {
    let module = with_name_taken("1d");
    let run = module.run(&["rotate", "data", "--confirm"]).exits(&[4]);
    run.says(&format!("{} stays: a retired snapshot has the same name", OLD[1]))
        .says("rotate --purge");
    assert_eq!(module.snapshots(), OLD[1..]);
    assert!(!module.retired_snapshot(OLD[1]).join("by hand").exists());
    module.run(&["undelete", "data", OLD[1]]).exits(&[2]).says("move that one away first");
    let run = module.run(&["rotate", "data", "--purge"]).exits(&[0]);
    assert!(!run.stderr().contains("stays"), "{run}");
    assert_eq!(module.snapshots(), OLD[2..], "one run is enough");
    assert_eq!(retired(&module), [""; 0]);
}
