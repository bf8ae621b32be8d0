//! A module whose hook runs at simulated times: hours pass between two pushes without waiting, so
//! each push may expire a snapshot and each snapshot has another name.
//!
//! Only the hook sees the simulated time. The kernel sets the times on disk.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::module::Module;
use super::run::Run;
use super::time::name_of;

/// Each push expires the snapshot before the newest.
pub(crate) const EXPIRING: &str = "[defaults]\nkeep = { hourly = 1 }\nmin_keep = 1\nmin_age = \"0s\"\ngrace = \"0s\"\n\
                                   time_zone = \"UTC\"\nlock_wait = \"20s\"\n";

/// Longer than the margin within which a change of a directory may hide behind its times.
const SETTLING: Duration = Duration::from_millis(150);

pub(crate) struct Simulated {
    module: Module,
    time: Cell<DateTime<Utc>>,
    /// How far the wall clock is ahead.
    error: Cell<TimeDelta>,
}

impl Deref for Simulated {
    type Target = Module;

    fn deref(&self) -> &Module {
        &self.module
    }
}

impl Simulated {
    /// Starts `module` some time ago, with `policy`.
    pub(crate) fn new(module: Module, policy: &str) -> Simulated {
        module.write_policy(policy);
        let start = "2025-03-01T00:17:00Z".parse().expect("a time");
        Simulated { module, time: Cell::new(start), error: Cell::new(TimeDelta::zero()) }
    }

    /// Lets `hours` pass.
    pub(crate) fn pass(&self, hours: i64) {
        self.time.set(self.time.get() + TimeDelta::hours(hours));
    }

    /// Sets the wall clock wrong by so much, within the boot.
    pub(crate) fn set_clock_ahead_by(&self, error: TimeDelta) {
        self.error.set(error);
    }

    /// What the wall clock shows.
    pub(crate) fn shown(&self) -> DateTime<Utc> {
        self.time.get() + self.error.get()
    }

    /// What a snapshot that is taken now is called.
    pub(crate) fn name(&self) -> String {
        name_of(self.shown())
    }

    /// The hook at the present time, run through another program with its arguments, if any.
    pub(crate) fn hook_through(&self, wrapper: &[&str]) -> Command {
        let clock = self.directory.join("clock");
        let (shown, uptime_seconds) = (self.shown().to_rfc3339(), self.time.get().timestamp());
        fs::write(&clock, format!("{shown} simulated {uptime_seconds}")).expect("the clock file");
        let mut words = wrapper.iter().map(OsStr::new).chain([hook_at().as_os_str()]);
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).arg(clock).arg(&self.policy).env_clear().current_dir("/");
        for (name, value) in self.module.hook().get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command
    }

    /// Runs the hook at the present time.
    pub(crate) fn run(&self) -> Run {
        Run::of(&mut self.hook_through(&[]))
    }

    /// Runs the hook after a transfer that ended with `status`.
    pub(crate) fn run_after(&self, status: i32) -> Run {
        let raw = (status << 8).to_string();
        let mut hook = self.hook_through(&[]);
        Run::of(hook.env("RSYNC_EXIT_STATUS", status.to_string()).env("RSYNC_RAW_STATUS", raw))
    }

    /// An hour later the hook makes a snapshot without a complaint, and it is the module as it is.
    #[track_caller]
    pub(crate) fn publish(&self) -> String {
        self.publish_with(&[0])
    }

    /// [`Simulated::publish`] with another exit status.
    #[track_caller]
    pub(crate) fn publish_with(&self, codes: &[i32]) -> String {
        self.pass(1);
        let run = self.run().exits(codes);
        let name = self.name();
        assert!(
            self.snapshot(&name).is_dir(),
            "{name} is missing from {:?}: {run}",
            self.snapshots()
        );
        self.assert_equals_module(&name);
        name
    }

    /// An hour later the hook finds nothing changed and says nothing.
    #[track_caller]
    pub(crate) fn expect_unchanged(&self) {
        self.pass(1);
        let before = self.snapshots();
        let run = self.run().exits(&[0]);
        assert_eq!(self.snapshots(), before, "no new snapshot expected: {run}");
    }

    /// [`Simulated::publish`] after a while in which nothing changed, so that the next run can
    /// rely on what this one wrote down.
    #[track_caller]
    pub(crate) fn publish_settled(&self) -> String {
        settle();
        self.publish()
    }

    /// The one snapshot that is retired but still there, and where.
    #[track_caller]
    pub(crate) fn retired(&self) -> PathBuf {
        let retired = self.module.retired();
        assert_eq!(retired.len(), 1, "one retired snapshot expected: {retired:?}");
        self.retired_snapshot(&retired[0])
    }

    /// The snapshot that `name` was made from; none if it was made afresh.
    pub(crate) fn recycled(&self, name: &str) -> Option<String> {
        self.work(name)?.get("recycled")?.as_str().map(str::to_string)
    }

    /// One of the figures of what it took to make `name`.
    #[track_caller]
    pub(crate) fn figure(&self, name: &str, key: &str) -> u64 {
        let work =
            self.work(name).unwrap_or_else(|| panic!("the record of {name} tells of no work"));
        let figure = work.get(key).and_then(toml::Value::as_integer);
        figure
            .and_then(|figure| u64::try_from(figure).ok())
            .unwrap_or_else(|| panic!("{key} in {work:?}"))
    }

    fn work(&self, name: &str) -> Option<toml::Table> {
        self.record(name).get("work")?.as_table().cloned()
    }
}

/// Waits until later changes get other times than earlier ones.
pub(crate) fn settle() {
    std::thread::sleep(SETTLING);
}

/// The names in a directory of ours, sorted; none if it does not exist.
pub(crate) fn entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The example that is the hook with the time passed in. A whole `cargo test` has built it.
pub(crate) fn hook_at() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let built =
            Command::new(env!("CARGO")).args(["build", "--quiet", "--example", "hook_at"]).status();
        assert!(built.expect("cargo").success());
        Path::new(super::BINARY).with_file_name("examples").join("hook_at")
    })
}
