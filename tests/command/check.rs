//! `check` for monitoring: what is wrong, how bad it is, and that it goes away again.

use crate::support;

use std::fs;

use chrono::TimeDelta;
use support::file_system::Mount;
use support::module::Module;
use support::time::name_of_age;
use support::tree;

/// A module whose newest complete snapshot is that old.
fn module_of_age(minutes: i64) -> Module {
    let (module, name) = Module::with_snapshot();
    module.rename_to_the_past(&name, &name_of_age(TimeDelta::minutes(minutes)));
    module
}

#[test]
fn a_module_that_works_is_ok() {
    let (module, _) = Module::with_snapshot();
    for arguments in [&["check"][..], &["check", "data"]] {
        let run = module.run(arguments).exits(&[0]);
        assert!(run.stdout().starts_with("OK") && run.stdout().contains("data"), "{run}");
    }
    let json = module.run(&["check", "--json"]).exits(&[0]).json();
    assert_eq!(json["status"], "ok");
    assert_eq!(json["modules"][0]["module"], "data");
    assert_eq!(json["modules"][0]["status"], "ok");
    assert!(json["modules"][0]["findings"].is_array(), "{json}");
}

#[test]
fn a_snapshot_older_than_max_age_is_a_warning() {
    const POLICY: &str = "[defaults]\nmax_age = \"1h\"\n";
    for (minutes, code, status) in [(30, 0, "ok"), (90, 1, "warning"), (150, 2, "critical")] {
        let module = module_of_age(minutes);
        module.run(&["check", "data"]).exits(&[0]);
        module.write_policy(POLICY);
        let json = module.run(&["check", "data", "--json"]).exits(&[code]).json();
        assert_eq!(json["status"], status, "{minutes} minutes: {json}");
        let text = module.run(&["check"]).exits(&[code]).stdout();
        assert!(text.to_lowercase().starts_with(status), "{text}");
    }
}

#[test]
fn the_age_counts_from_verified_until() {
    let module = module_of_age(150);
    module.write_policy("[defaults]\nmax_age = \"1h\"\n");
    module.run(&["check", "data"]).exits(&[2]);
    module.expect_no_snapshot();
    module.run(&["check", "data"]).exits(&[0]);
}

#[test]
fn partial_and_future_dated_snapshots_make_no_module_young() {
    let module = module_of_age(150);
    module.write_policy("[defaults]\nmax_age = \"1h\"\n");
    module.make_old_snapshot(&format!("{}-partial", name_of_age(TimeDelta::minutes(5))));
    module.make_old_snapshot("2999-01-01T00-00-00Z");
    module.run(&["check", "data"]).exits(&[2]);
}

#[test]
fn the_last_failure_is_remembered_until_a_run_succeeds() {
    let (module, _) = Module::with_snapshot();
    tree::set_mode(&module.root, 0o777);
    module.run_hook().exits(&[2]);
    tree::set_mode(&module.root, 0o700);

    let check = module.run(&["check", "data"]).exits(&[1, 2]);
    assert!(check.stdout().contains("writable") || check.stdout().contains("fail"), "{check}");
    module.run(&["check"]).exits(&[1, 2]);

    module.expect_no_snapshot();
    module.run(&["check", "data"]).exits(&[0]);
}

#[test]
fn a_failure_is_remembered_even_when_the_module_directory_is_gone() {
    let (module, _) = Module::with_snapshot();
    let aside = module.root.with_file_name("aside");
    fs::rename(&module.root, &aside).expect("renamed");
    module.run_hook().exits(&[1, 2]);
    let check = module.run(&["check", "data"]);
    assert!(matches!(check.code(), Some(1..=3)), "{check}");
    fs::rename(&aside, &module.root).expect("renamed back");
    module.run_hook().exits(&[0]);
    module.run(&["check", "data"]).exits(&[0]);
}

#[test]
fn failures_of_one_module_are_not_those_of_another() {
    let (module, _) = Module::with_snapshot();
    let other = module.directory.join("second/latest");
    fs::create_dir_all(&other).expect("the other module");
    let sections = [
        module.rsyncd_conf_section("data", &module.latest),
        module.rsyncd_conf_section("second", &other),
    ];
    module.write_rsyncd_conf(&sections.concat());
    tree::set_mode(&module.directory.join("second"), 0o777);
    let mut hook = module.hook();
    hook.env("RSYNC_MODULE_NAME", "second").env("RSYNC_MODULE_PATH", &other);
    support::run::Run::of(&mut hook).exits(&[2]);

    module.run(&["check", "data"]).exits(&[0]);
    module.run(&["check", "second"]).exits(&[1, 2]);
    let json = module.run(&["check", "--json"]).exits(&[1, 2]).json();
    let status = |module: &str| {
        let modules = json["modules"].as_array().expect("modules");
        modules.iter().find(|found| found["module"] == module).expect("the module")["status"]
            .clone()
    };
    assert_eq!(status("data"), "ok");
    assert_ne!(status("second"), "ok");
}

#[test]
fn an_unknown_module_has_the_status_unknown() {
    let (module, _) = Module::with_snapshot();
    let run = module.run(&["check", "nobody\u{1b}[31m"]).exits(&[3]);
    assert!(run.stdout().contains("UNKNOWN") && !run.bytes().contains(&0x1b), "{run}");
    module.run(&["check", "/nowhere/at/all"]).exits(&[2, 3]);
    assert_eq!(module.run(&["check", "nobody", "--json"]).exits(&[3]).json()["status"], "unknown");
    fs::remove_file(&module.rsyncd_conf).expect("removed");
    module.run(&["check"]).exits(&[3]);
}

#[test]
fn check_finds_settings_that_would_damage_history() {
    let (module, _) = Module::with_snapshot();
    let path = module.latest.display();
    let good = module.rsyncd_conf_section("data", &module.latest);
    let sick: [(&str, String, &str); 5] = [
        (
            "refuses nothing",
            good.replace(
                "refuse options = inplace append* write-devices partial-dir delay-updates\n",
                "",
            ),
            "refuse options",
        ),
        ("allows appending", good.replace("append* ", ""), "append"),
        ("allows rewriting", good.replace("inplace ", ""), "inplace"),
        (
            "has no hook",
            format!(
                "uid = root\ngid = root\n[data]\npath = {path}\nread only = no\n\
                 refuse options = inplace append* partial-dir delay-updates\n"
            ),
            "post-xfer",
        ),
        (
            "lets clients write to the snapshots",
            format!("{good}[restore]\npath = {}\nread only = no\n", module.root.display()),
            "restore",
        ),
    ];
    for (what, conf, word) in sick {
        module.write_rsyncd_conf(&conf);
        let run = module.run(&["check", "data"]).exits(&[1, 2]);
        assert!(run.stdout().contains(word), "{what}: no {word:?} in {run}");
    }
    for conf in [
        good.clone(),
        good.replace("inplace append* write-devices", "append-verify append inplace"),
        // Settings before the first module are defaults for all.
        format!(
            "refuse options = inplace append* partial-dir delay-updates\n{}",
            good.replace(
                "refuse options = inplace append* write-devices partial-dir delay-updates\n",
                ""
            )
        ),
        format!("{good}[restore]\npath = {}\nread only = yes\n", module.root.display()),
        format!("[other]\npath = /nowhere\n{good}"),
    ] {
        module.write_rsyncd_conf(&conf);
        let run = module.run(&["check", "data"]);
        assert_eq!(run.code(), Some(0), "{conf}{run}");
    }
}

#[test]
fn a_module_without_snapshots_is_fine_without_max_age() {
    let module = Module::new();
    let run = module.run(&["check", "data"]).exits(&[0, 1]);
    assert!(!module.private(".").exists(), "check changes nothing: {run}");
    let conf = module.rsyncd_conf_section("pictures", &module.latest);
    module.write_rsyncd_conf(&conf);
    module.run(&["check", "pictures"]).exits(&[0, 1]);
}

/// Another file system in the module is in no snapshot. A push that changes nothing warns of
/// nothing, but that has not changed.
#[test]
fn what_the_newest_snapshot_lacks_is_told_as_long_as_it_is_so() {
    let module = Module::new();
    tree::small(&module.latest);
    let point = module.latest.join("vm");
    fs::create_dir(&point).expect("a mount point");
    let Some(mount) = Mount::tmpfs(&point) else { return };
    tree::write(&point.join("disk"), "x");
    module.run_hook().exits(&[4]).says("left out what is mounted");
    let told = module.run(&["check", "data"]).exits(&[1]);
    assert_eq!(told.stdout().matches("vm").count(), 1, "once: {told}");
    module.expect_no_snapshot();
    module.run(&["check", "data"]).exits(&[1]).says("vm");
    drop(mount);
    module.run(&["check", "data"]).exits(&[0]);
    tree::write(&point.join("disk"), "x");
    module.run(&["check", "data"]).exits(&[1]).says("vm");
    module.expect_snapshot();
    module.run(&["check", "data"]).exits(&[0]);
}

/// The last word on a module must not be silenced by the level of the one before.
#[test]
fn the_log_level_of_one_module_is_not_that_of_the_next() {
    let (module, _) = Module::with_snapshot();
    let other = module.directory.join("second/latest");
    fs::create_dir_all(&other).expect("the other module");
    let sections = [
        module.rsyncd_conf_section("data", &module.latest),
        module.rsyncd_conf_section("second", &other),
    ];
    module.write_rsyncd_conf(&sections.concat());
    tree::set_mode(&module.directory.join("second"), 0o700);
    module.run(&["snapshot", "second"]).exits(&[0]);
    fs::remove_dir(&other).expect("removed");
    module.write_policy("[module.data]\nlog_level = \"off\"\n");
    module.run(&["snapshot", "--all"]).exits(&[1, 2]).says("second: ");
}

/// An immutable file can be mended; a file with as many links as possible is a fact.
#[test]
fn copied_files_are_told_as_long_as_the_snapshot_has_them() {
    if !support::root() || !support::have(&["chattr"]) {
        return;
    }
    let module = Module::new();
    tree::small(&module.latest);
    let file = module.latest.join("read me");
    let chattr =
        |flag: &str| support::run::Run::of(support::run::tool("chattr").arg(flag).arg(&file));
    if !chattr("+i").succeeded() {
        skipped!("needs immutable files");
        return;
    }
    module.run_hook().exits(&[4]).says("could not be linked and were copied");
    for _ in 0..2 {
        module.run(&["check", "data"]).exits(&[1]).says("read me").says("chattr -i -a");
        module.expect_no_snapshot();
    }
    let name = module.snapshots().remove(0);
    let record = module.private(&format!("records/{name}.toml"));
    let text = fs::read_to_string(&record).expect("a record");
    assert!(text.contains("cause = \"flag\""), "{text}");
    // As if the file had as many links as its file system allows, or an earlier version ran.
    for cause in ["cause = \"link-limit\"\n", "cause = \"of-tomorrow\"\n", ""] {
        fs::write(&record, text.replace("cause = \"flag\"\n", cause)).expect("a record");
        module.run(&["check", "data"]).exits(&[0]).says("could not be linked and were copied");
    }
    chattr("-i").exits(&[0]);
}
