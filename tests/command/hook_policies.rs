//! Commands without `--config` decide by the policy that the hooks of a module name in rsyncd.conf,
//! as those hooks do. So a command that a message prints, and the line of a timer, expires nothing
//! that the hooks keep.

use crate::doctor::Patient;
use crate::doctor_policies::in_environment;
use crate::support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use support::BINARY;
use support::daemon::Daemon;
use support::run::{Run, tool};

/// The policies that the hooks keep everything by, and the one that expires nearly all.
const KEEP: &str = "[defaults]\nmin_keep = 50\n";
const EXPIRE: &str = "[defaults]\nkeep = { daily = 1 }\nmin_keep = 1\nmin_age = \"0s\"\n";

/// A server with old snapshots, whose hooks name a policy that keeps them.
struct Kept {
    patient: Patient,
    policy: PathBuf,
}

impl Kept {
    fn new() -> Option<Kept> {
        let patient = Patient::new()?;
        let policy = patient.module.directory.join("p.toml");
        fs::write(&policy, KEEP).expect("written");
        let kept = Kept { patient, policy };
        kept.write(&kept.hook(" pre-xfer", Some(&kept.policy)), &kept.hook("", Some(&kept.policy)));
        let daemon = Daemon::serve(&kept.patient.module);
        kept.patient.push_as(&daemon, "").exits(&[0]);
        kept.patient.await_snapshot(&daemon, &kept.patient.module.root, 1);
        for day in 1..5 {
            kept.patient.module.make_old_snapshot(&format!("2024-01-0{day}T00-00-00Z"));
        }
        drop(daemon);
        Some(kept)
    }

    fn hook(&self, command: &str, policy: Option<&Path>) -> String {
        let named = policy.map(|file| format!(" --config {}", file.display())).unwrap_or_default();
        let conf = self.patient.module.rsyncd_conf.display();
        format!("{BINARY}{named} --rsyncd-conf {conf}{command}")
    }

    fn write(&self, pre: &str, post: &str) {
        let good = self.patient.good();
        let conf = good.replace(&self.patient.pre(), &format!("pre-xfer exec = {pre}"));
        let conf = conf.replace(&self.patient.post(), &format!("post-xfer exec = {post}"));
        self.patient.write(&conf);
    }

    fn count(&self) -> usize {
        self.patient.module.snapshots().len()
    }

    /// The program without `--config`.
    fn run(&self, arguments: &[&str]) -> Run {
        let mut command = tool(BINARY);
        in_environment(&self.patient, &mut command);
        Run::of(command.arg("--rsyncd-conf").arg(&self.patient.module.rsyncd_conf).args(arguments))
    }

    /// The program without `--config`, on a machine whose default policy expires nearly all.
    fn run_beside_default(&self, arguments: &[&str]) -> Run {
        let file = self.patient.module.directory.join("default.toml");
        fs::write(&file, EXPIRE).expect("written");
        let script = "cp \"$1\" /mnt/policy && mount -t tmpfs none /etc && cp /mnt/policy \
                      /etc/rsyncd-snapshot.toml && shift && exec \"$@\"";
        let script = format!("mount -t tmpfs none /mnt && {script}");
        let mut command = tool("unshare");
        in_environment(&self.patient, &mut command);
        command.args(["--mount", "sh", "-c", &script, "sh"]).arg(&file).arg(BINARY);
        Run::of(command.arg("--rsyncd-conf").arg(&self.patient.module.rsyncd_conf).args(arguments))
    }
}

#[test]
fn a_command_without_config_keeps_what_the_hooks_keep() {
    if !support::may_mount() {
        return;
    }
    let Some(kept) = Kept::new() else { return };
    let path = kept.patient.module.latest.display().to_string();
    for arguments in [
        &["snapshot", "data", "--due"][..],
        &["snapshot", "data"],
        &["snapshot", "--all"],
        &["rotate", "data"],
        &["rotate", "--all"],
        &["rotate", &path],
    ] {
        kept.run_beside_default(arguments).exits(&[0, 4]);
        assert_eq!(kept.count(), 5, "{arguments:?}");
    }
    kept.run_beside_default(&["check"]).says(&format!("use the policy {}", kept.policy.display()));
    // The same commands expire by the default policy where the hooks use that.
    kept.write(&kept.hook(" pre-xfer", None), &kept.hook("", None));
    kept.run_beside_default(&["rotate", "data"]).exits(&[0, 4]);
    assert!(kept.count() < 5, "{}", kept.count());
}

#[test]
fn a_command_decides_as_the_hooks_do() {
    let Some(kept) = Kept::new() else { return };
    kept.run(&["rotate", "data"]).exits(&[0]);
    assert_eq!(kept.count(), 5);
    let plan = kept.run(&["plan", "data", "--json"]).exits(&[0]).json();
    let verdicts = plan["snapshots"].as_array().expect("snapshots").iter();
    assert!(verdicts.clone().count() == 5 && verdicts.clone().all(|one| one["keep"] == true));
    fs::write(&kept.policy, EXPIRE).expect("written");
    kept.run(&["rotate", "data"]).exits(&[0, 4]);
    assert!(kept.count() < 5, "{}", kept.count());
}

#[test]
fn hooks_with_different_policies_let_no_command_expire() {
    let Some(kept) = Kept::new() else { return };
    fs::write(&kept.policy, EXPIRE).expect("written");
    let other = kept.patient.module.directory.join("q.toml");
    fs::write(&other, EXPIRE).expect("written");
    let (own, conf) = (Some(kept.policy.as_path()), &kept.patient.module.rsyncd_conf);
    let places = if support::is_root() { (8, 9) } else { (6, 7) };
    for (pre, post) in [(own, Some(other.as_path())), (None, own), (own, None)] {
        kept.write(&kept.hook(" pre-xfer", pre), &kept.hook("", post));
        kept.run(&["rotate", "data"]).exits(&[2]).says("give both lines the same `--config`");
        kept.run(&["snapshot", "data"]).exits(&[2]);
        assert_eq!(kept.count(), 5);
        let told = kept.run(&["check"]).exits(&[2]).says("nothing expires");
        for (line, parameter) in [(places.0, "pre-xfer"), (places.1, "post-xfer")] {
            let place = format!("{}:{line}: {parameter} exec names ", conf.display());
            assert!(told.stdout().contains(&place), "{place}: {told}");
        }
    }
    // Two names of one file are no difference.
    let link = kept.patient.module.directory.join("link.toml");
    symlink(&kept.policy, &link).expect("a link");
    kept.write(&kept.hook(" pre-xfer", Some(&link)), &kept.hook("", own));
    kept.run(&["rotate", "data"]).exits(&[0, 4]);
    assert!(kept.count() < 5, "{}", kept.count());
}

#[test]
fn a_policy_of_the_hooks_that_is_missing_lets_no_command_expire() {
    let Some(kept) = Kept::new() else { return };
    fs::remove_file(&kept.policy).expect("removed");
    kept.run(&["rotate", "data"]).exits(&[2]).says(&kept.policy.display().to_string());
    assert_eq!(kept.count(), 5);
    kept.run(&["check"]).exits(&[2]).says("does not exist, so nothing ever expires");
    // A pipe without a writer keeps no command waiting.
    Run::of(tool("mkfifo").arg(&kept.policy)).exits(&[0]);
    kept.run(&["rotate", "data"]).exits(&[2]).says("p.toml: is no file");
    assert_eq!(kept.count(), 5);
}

#[test]
fn an_explicit_policy_wins_and_is_said() {
    let Some(kept) = Kept::new() else { return };
    let other = kept.patient.module.directory.join("q.toml");
    fs::write(&other, EXPIRE).expect("written");
    let named = other.display().to_string();
    let told = kept.run(&["rotate", "data", "--config", &named]).exits(&[0, 4]);
    let told = told.says(&format!("rotates by the policy {named}"));
    told.says(&format!("hooks rotate by {}", kept.policy.display()));
    assert!(kept.count() < 5, "{}", kept.count());
    let same = kept.policy.display().to_string();
    let silent = kept.run(&["rotate", "data", "--config", &same]).exits(&[0, 4]);
    assert!(!silent.stderr().contains("hooks rotate by"), "{silent}");
}

#[test]
fn a_script_as_hook_leaves_the_default_policy() {
    let Some(kept) = Kept::new() else { return };
    let script = kept.patient.module.directory.join("hook");
    let text = format!("#!/bin/sh\nexec {}\n", kept.hook("", Some(&kept.policy)));
    fs::write(&script, text).expect("written");
    support::tree::set_mode(&script, 0o755);
    kept.write("/bin/true", &script.display().to_string());
    // There is no default policy here, so it is known only that another one was used.
    let told = kept.run(&["rotate", "data"]).exits(&[2]);
    told.says("rsyncd-snapshot.toml does not exist").says("p.toml");
    assert_eq!(kept.count(), 5);
}

#[test]
fn a_mistyped_module_in_the_policy_of_the_hooks_is_told() {
    let Some(kept) = Kept::new() else { return };
    kept.run(&["check"]).exits(&[0]);
    fs::write(&kept.policy, format!("{KEEP}[module.dta]\nmax_age = \"1s\"\n")).expect("written");
    let words = format!("{}: [module.dta] is not a module in", kept.policy.display());
    kept.run(&["check"]).exits(&[1]).says(&words).says("did you mean");
    kept.run(&["check", "data"]).exits(&[1]).says(&words);
    // Also where `check` is told to judge by another policy.
    kept.patient.module.run(&["check"]).exits(&[1]).says(&words);
    // The look-alike: the module is there.
    fs::write(&kept.policy, format!("{KEEP}[module.data]\nmax_age = \"1d\"\n")).expect("written");
    kept.run(&["check"]).exits(&[0]);
}
