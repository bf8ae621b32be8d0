//! `hold`: a command that reads a snapshot, which stays as it is meanwhile.

use crate::support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use support::module::{Module, names_in};
use support::run::{Run, tool};
use support::time::wait_until;

const EXPIRING: &str = "[defaults]\nkeep = { yearly = 1 }\nprefer = \"newest\"\nmin_keep = 1\n\
                        min_age = \"0s\"\ngrace = \"0s\"\n";

const OLD: [&str; 2] = ["2020-01-01T00-00-00Z", "2020-01-02T00-00-00Z"];

fn two() -> Module {
    let module = Module::new();
    module.write_policy(EXPIRING);
    OLD.iter().for_each(|name| module.make_old_snapshot(name));
    module
}

#[test]
fn the_plan_names_a_reader_of_a_snapshot_that_stays_anyway() {
    let module = two();
    let plan = |name: &str| {
        let policy = module.policy.to_str().expect("UTF-8");
        let conf = module.rsyncd_conf.to_str().expect("UTF-8");
        let plan = [support::BINARY, "--config", policy, "--rsyncd-conf", conf, "plan", "data"];
        let words = [&["hold", "data", name, "--"][..], &plan].concat();
        let text = module.run(&words).exits(&[0]).stdout();
        text.lines().find(|line| line.starts_with(name)).expect("its line").to_string()
    };
    let kept = plan(OLD[1]);
    assert!(kept.contains("keep") && kept.contains("has been reading it since"), "{kept}");
    let would_go = plan(OLD[0]);
    assert_eq!(would_go.matches("has been reading it since").count(), 1, "{would_go}");
}

#[test]
fn the_command_gets_the_directory_and_its_status_is_passed_on() {
    let module = two();
    let directory = module.snapshot(OLD[0]);
    let hold = |command: &[&str]| {
        let words: Vec<&str> =
            ["hold", "data", OLD[0], "--"].iter().chain(command).copied().collect();
        module.run(&words)
    };
    let run = hold(&["echo", "{}/sub", "a{}"]).exits(&[0]);
    let shown = directory.display();
    assert_eq!(run.stdout(), format!("{shown}/sub a{shown}\n"), "{run}");
    let run = hold(&["sh", "-c", "echo $RSYNCD_SNAPSHOT_HELD; umask; exit 23"]).exits(&[23]);
    assert!(run.stdout().starts_with(&format!("{shown}\n")), "{run}");
    let umask = String::from_utf8(tool("sh").args(["-c", "umask"]).output().expect("sh").stdout);
    assert!(run.stdout().ends_with(&umask.expect("a number")), "{run}");
    assert_eq!(hold(&["sh", "-c", "kill -s TERM $$"]).signal(), Some(15));
    hold(&["/nonexistent/program"]).exits(&[127]).says("cannot run /nonexistent/program");
    let file = module.directory.join("no program");
    fs::write(&file, "x").expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("a mode");
    hold(&[file.to_str().expect("UTF-8")]).exits(&[126]).says("cannot run");
    module.run(&["rotate", "data", "--confirm"]).exits(&[0]);
    assert_eq!(module.snapshots(), OLD[1..], "nothing is held");
    assert_eq!(names_in(&module.private("leases")), [""; 0]);
}

#[test]
fn several_snapshots_are_held_at_once() {
    let module = two();
    let [one, other] = OLD.map(|name| module.snapshot(name).display().to_string());
    for named in [&["data", OLD[0], OLD[1]][..], &[OLD[0], OLD[1]], &["data", OLD[0], "newest"]] {
        let hold = |command: &[&str]| {
            let words = [&["hold"], named, &["--"], command].concat();
            module.run(&words).exits(&[0]).stdout()
        };
        assert_eq!(hold(&["echo", "-", "{}/etc"]), format!("- {one}/etc {other}/etc\n"));
        let held = hold(&["sh", "-c", "echo \"$RSYNCD_SNAPSHOT_HELD\""]);
        assert_eq!(held, format!("{one}\n{other}\n"));
    }
    // One that is named twice is held once.
    let run = module.run(&["hold", "data", OLD[0], OLD[0], "--", "echo", "{}"]).exits(&[0]);
    assert_eq!(run.stdout(), format!("{one}\n"));
    let held = ["hold", "data", OLD[0], OLD[1], "--", "sleep", "1000"];
    let mut held = module.command(&held).stdout(Stdio::null()).spawn().expect("it starts");
    wait_until("it holds both", || names_in(&module.private("leases")).len() == 2);
    module.run(&["rotate", "data", "--confirm"]).exits(&[0]);
    assert_eq!(module.snapshots(), OLD);
    held.kill().expect("killed");
    held.wait().expect("gone");
    module.run(&["rotate", "data"]).exits(&[0]);
    assert_eq!(module.snapshots(), OLD[1..]);
}

#[test]
fn the_command_keeps_its_rights() {
    let module = two();
    let status = |command: &mut std::process::Command| {
        let text = Run::of(command).exits(&[0]).stdout();
        let lines =
            text.lines().filter(|line| line.starts_with("Cap") || line.starts_with("NoNew"));
        lines.map(str::to_string).collect::<Vec<_>>()
    };
    let own = status(tool("cat").arg("/proc/self/status"));
    let held = status(&mut module.command(&["hold", OLD[0], "--", "cat", "/proc/self/status"]));
    assert_eq!(own, held);
}

#[test]
fn a_held_snapshot_stays_until_the_command_ends_however() {
    let module = two();
    let mut held = module
        .command(&["hold", "data", OLD[0], "--", "sleep", "1000"])
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    wait_until("it holds", || !names_in(&module.private("leases")).is_empty());
    let run = module.run(&["rotate", "data", "--confirm"]).exits(&[0]);
    assert_eq!(module.snapshots(), OLD, "{run}");
    module.run(&["list", "data"]).exits(&[0]).says("`hold sleep` (process ");
    held.kill().expect("killed");
    held.wait().expect("gone");
    module.run(&["rotate", "data"]).exits(&[0]);
    assert_eq!(module.snapshots(), OLD[1..]);
}

#[test]
fn what_cannot_be_held_is_said_before_the_command_runs() {
    let module = two();
    let touched = module.directory.join("touched");
    let touch = ["--", "touch", touched.to_str().expect("UTF-8")];
    for (named, status, told) in [
        (&["data", "2020-01-09T00-00-00Z"][..], 2, "has no snapshot"),
        (&["data"], 2, "is a module: name one of its snapshots"),
        (&["data", "latest"], 2, "has no snapshot latest"),
        (&[OLD[0], "2020-01-09T00-00-00Z"], 2, "no module has a snapshot"),
        (&[], 2, "NAME"),
        (&["nothing", OLD[0]], 2, "nothing"),
    ] {
        let words: Vec<&str> = ["hold"].iter().chain(named).chain(&touch).copied().collect();
        module.run(&words).exits(&[status]).says(told);
    }
    module.run(&["hold", "data", OLD[0]]).exits(&[2]).says("COMMAND");
    // None of the commands before has made it a directory.
    fs::write(module.private("leases"), "").expect("a file");
    let words: Vec<&str> = ["hold", OLD[0]].iter().chain(&touch).copied().collect();
    module.run(&words).exits(&[1]).says("leases");
    assert!(!touched.exists());
}

#[test]
fn a_held_snapshot_that_goes_away_meanwhile_is_an_error() {
    let module = two();
    let aside = module.directory.join("aside");
    let hold = |script: &str| {
        let command = script.replace("ASIDE", aside.to_str().expect("UTF-8"));
        module.run(&["hold", "data", OLD[0], "--", "sh", "-c", &command])
    };
    let back = || fs::rename(&aside, module.snapshot(OLD[0])).expect("moved back");
    let told = format!("{} was removed or moved while the command read it", OLD[0]);
    hold("mv {} ASIDE").exits(&[1]).says(&told).says("Repeat it");
    back();
    // The failure of the command counts for more.
    hold("mv {} ASIDE; exit 23").exits(&[23]);
    back();
    hold("mv {} ASIDE; cp -a ASIDE {}").exits(&[1]).says(&told);
    hold("touch {}; chmod 755 {}").exits(&[0]);
    hold("rm -rf {}").exits(&[1]).says(&told);
}

#[test]
fn a_signal_to_hold_reaches_the_command() {
    let module = two();
    let started = module.directory.join("started");
    let script =
        format!("trap 'exit 7' TERM; touch {}; while :; do sleep 0.05; done", started.display());
    let command = ["hold", "data", OLD[0], "--", "sh", "-c", &script];
    let mut held = module.command(&command).spawn().expect("it starts");
    wait_until("the command runs", || started.exists());
    let pid = held.id().to_string();
    Run::of(tool("kill").args(["-s", "TERM", &pid])).exits(&[0]);
    assert_eq!(held.wait().expect("it ends").code(), Some(7));
}
