//! The same decisions as rotate-backups 8.1, apart from the differences that are meant.
//!
//! The real program from PyPI decides beside ours: over random sets of names as data, over some of
//! them as directories that both really remove, and once for each difference, to show that it loses
//! data where ours does not. With `RSYNCD_SNAPSHOT_SWEEP=full` there are 100,000 sets instead of
//! 1,000.
//!
//! Everything is in UTC, where the naive times of rotate-backups are the same instants as ours.

#[path = "../differential/original.rs"]
mod original;
use crate::support::{self, snapshots};

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use original::{BARE, Decision, Original, Scheme};
use rsyncd_snapshot::decide::frequency::Frequency;
use rsyncd_snapshot::decide::name::SnapshotName;
use rsyncd_snapshot::decide::policy::{Policy, Prefer};
use rsyncd_snapshot::decide::rotation::decide;
use rsyncd_snapshot::decide::snapshot::Snapshot;
use rsyncd_snapshot::decide::snapshot_verdict::RotationHistory;
use rsyncd_snapshot::decide::zone::Zone;
use snapshots::{at, bare_policy, between, moments, schemes, smallest};
use support::file_system::{FileSystem, Kind};
use support::module::{Module, registration, visible};
use support::random::Random;
use support::run::{Run, tool};
use support::subvolumes::make_module_directory;
use support::{by_sweep, have, tree};

// -- Random sets as data ---------------------------------------------------------------------------

/// A set of names, what to keep of it, and when that is decided.
struct Case {
    names: Vec<String>,
    keep: Vec<(Frequency, &'static str)>,
    scheme: Scheme,
    now: DateTime<Utc>,
}

impl Case {
    fn random(random: &mut Random) -> Case {
        let moments = moments(random, 60);
        let newest = moments.last().copied().unwrap_or_else(|| at("2026-11-22T19:08:31Z"));
        let now = match random.below(8) {
            // Some of them are dated in the future.
            0 => random.of(&moments).copied().unwrap_or(newest),
            1..=4 => newest,
            _ => newest + TimeDelta::seconds(between(random, 0, 3 * 365 * snapshots::DAY)),
        };
        let names: BTreeSet<String> = moments.into_iter().map(|time| name(random, time)).collect();
        let keep = schemes(random);
        let scheme = Scheme {
            keep: keep.iter().map(|&(frequency, count)| (frequency.word(), count)).collect(),
            strict: !random.once_in(3),
            prefer_recent: random.once_in(2),
        };
        Case { names: names.into_iter().collect(), keep, scheme, now }
    }

    fn policy(&self) -> Policy {
        Policy {
            strict: self.scheme.strict,
            prefer: if self.scheme.prefer_recent { Prefer::Newest } else { Prefer::Oldest },
            ..bare_policy(&self.keep)
        }
    }
}

/// A name of ours, or one of the Python program; with both, times can be equal.
fn name(random: &mut Random, time: DateTime<Utc>) -> String {
    time.format(if random.once_in(3) { "%Y-%m-%d %H:%M:%S" } else { "%Y-%m-%dT%H-%M-%SZ" })
        .to_string()
}

fn time_of(name: &str) -> DateTime<Utc> {
    SnapshotName::parse(name.as_bytes(), &Zone::utc()).expect("the name of a snapshot").time
}

fn ours(names: &[String], policy: &Policy, now: DateTime<Utc>) -> BTreeSet<String> {
    let snapshot = |name: &String| Snapshot {
        name: name.clone(),
        recorded: false,
        ..snapshots::taken(time_of(name))
    };
    let snapshots: Vec<Snapshot> = names.iter().map(snapshot).collect();
    let decision = decide(&snapshots, &RotationHistory::default(), policy, now);
    let kept = decision.verdicts.into_iter().filter(|verdict| verdict.keep);
    kept.map(|verdict| verdict.snapshot.name).collect()
}

/// What rotate-backups keeps, and what ours has to keep after it.
struct Expected {
    original: BTreeSet<String>,
    ours: BTreeSet<String>,
}

/// What ours has to keep, from what rotate-backups keeps and the differences that are meant; or
/// what cannot be with what rotate-backups keeps.
fn expected(names: &[String], case: &Case, decision: &mut Decision) -> Result<Expected, String> {
    // Names dated in the future are kept and set apart.
    let (future, mut present): (Vec<&str>, Vec<&str>) =
        names.iter().map(String::as_str).partition(|name| time_of(name) > case.now);
    let answer = decision.on(present.iter().copied(), &case.scheme);
    // Weeks are those of ISO years. Nothing else than a week that is not of its calendar year can
    // make these two differ.
    let weekly = case.keep.iter().any(|(frequency, _)| *frequency == Frequency::Weekly);
    let collides = |name: &&str| time_of(name).iso_week().year() != time_of(name).year();
    if answer.kept != answer.kept_by_iso_weeks && !(weekly && present.iter().any(collides)) {
        return Err(format!("it differs from itself without a reason: {answer:?}"));
    }
    let mut ours = answer.kept_by_iso_weeks;
    // The newest one always stays.
    present.sort_by_key(|name| (time_of(name), *name));
    ours.extend(present.last().map(ToString::to_string));
    ours.extend(future.into_iter().map(str::to_string));
    Ok(Expected { original: answer.kept, ours })
}

fn compare(names: &[String], case: &Case, decision: &mut Decision) -> Result<Expected, String> {
    let expected = expected(names, case, decision)?;
    let ours = ours(names, &case.policy(), case.now);
    if ours == expected.ours {
        return Ok(expected);
    }
    let only =
        |these: &BTreeSet<String>, those| these.difference(those).cloned().collect::<Vec<_>>();
    let (more, fewer) = (only(&ours, &expected.ours), only(&expected.ours, &ours));
    Err(format!("only ours keeps {more:?}, only rotate-backups {fewer:?}"))
}

#[test]
fn random_sets_are_decided_alike() {
    slow!();
    let Some(original) = &Original::get() else { return };
    let decision = RefCell::new(Decision::of(original));
    let (mut expired, mut different) = (0, 0);
    let sets = by_sweep(200, 1_000, 100_000);
    for seed in 0..sets {
        let case = Case::random(&mut Random::new(seed));
        let compare = |names: &[String]| compare(names, &case, &mut decision.borrow_mut());
        let Ok(expected) = compare(&case.names) else {
            let names = smallest(&case.names, |names| compare(names).is_err());
            let difference = compare(&names).err().expect("it fails");
            panic!(
                "seed {seed}: {difference}\nof {names:#?}\nby {:?} at {}",
                case.scheme, case.now
            );
        };
        expired += case.names.len() - expected.ours.len();
        different += usize::from(expected.ours != expected.original);
    }
    // The sets would prove little if nearly everything were kept, or if no difference ever showed.
    let sets = usize::try_from(sets).expect("few");
    assert!(
        expired > 3 * sets && different * 10 > sets,
        "{expired} expired, {different} differ, of {sets} sets"
    );
}

// -- Real directories ------------------------------------------------------------------------------

/// The same names twice: where ours rotates, and where rotate-backups does.
struct Both<'a> {
    original: &'a Original,
    module: Module,
    theirs: PathBuf,
}

impl<'a> Both<'a> {
    fn with(original: &'a Original, names: &[impl AsRef<str>]) -> Both<'a> {
        Both::over(original, Module::new(), names)
    }

    fn over(original: &'a Original, module: Module, names: &[impl AsRef<str>]) -> Both<'a> {
        let theirs = module.root.with_file_name("theirs");
        for name in names.iter().map(AsRef::as_ref) {
            module.make_old_snapshot(name);
            let copy = theirs.join(name);
            fs::create_dir_all(&copy).expect("a directory");
            fs::write(copy.join("old"), name).expect("a file");
        }
        fs::create_dir_all(module.directory.join("home")).expect("a home");
        Both { original, module, theirs }
    }

    /// Runs rotate-backups with `options`; returns what it leaves.
    fn left_by_original(&self, options: &[&str]) -> Vec<String> {
        self.run_original(options).exits(&[0]);
        visible(&self.theirs)
    }

    fn run_original(&self, options: &[&str]) -> Run {
        let theirs = self.theirs.to_str().expect("text");
        self.original
            .run(&self.module.directory.join("home"), options.iter().copied().chain([theirs]))
    }

    /// Runs our `rotate` with `keep` and more of a policy; returns what it leaves.
    fn left_by_ours(&self, keep: &str) -> Vec<String> {
        self.left_by_policy(&format!("[defaults]\nkeep = {{ {keep} }}\n{BARE}"))
    }

    fn left_by_policy(&self, policy: &str) -> Vec<String> {
        self.module.write_policy(policy);
        self.module.run(&["rotate", "data"]).exits(&[0]);
        self.module.snapshots()
    }
}

#[test]
fn random_directories_are_rotated_alike() {
    slow!();
    let Some(original) = &Original::get() else { return };
    let mut decision = Decision::of(original);
    let now = support::time::now();
    let mut removed = 0;
    // Both programs go by the clock of the machine; and who removes hundreds of directories takes
    // long.
    let suits = |case: &Case| {
        (2..=25).contains(&case.names.len()) && case.names.iter().all(|name| time_of(name) <= now)
    };
    let cases = (1_000_000..)
        .map(|seed| Case { now, ..Case::random(&mut Random::new(seed)) })
        .filter(suits);
    let directories = by_sweep(8, 25, 500);
    for case in cases.take(directories) {
        let both = Both::with(original, &case.names);
        let expected = expected(&case.names, &case, &mut decision).expect("what has to stay");
        let options = case.scheme.options();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        assert_eq!(
            both.left_by_original(&options),
            Vec::from_iter(expected.original),
            "{:?} of {:?}",
            case.scheme,
            case.names
        );
        let left = both.left_by_policy(&case.scheme.policy());
        removed += case.names.len() - left.len();
        assert_eq!(left, Vec::from_iter(expected.ours), "{:?} of {:?}", case.scheme, case.names);
    }
    assert!(removed > 4 * directories, "{removed} removed of {directories} directories");
}

// -- The differences, one by one: rotate-backups loses what ours keeps ------------------------------

#[test]
fn the_newest_is_not_expired_by_an_older_one_in_its_slot() {
    let Some(original) = &Original::get() else { return };
    let names = ["2001-02-03T04-05-06Z", "2001-02-03T23-00-00Z"];
    let both = Both::with(original, &names);
    assert_eq!(both.left_by_original(&["--daily=7"]), [names[0]]);
    assert_eq!(both.left_by_ours("daily = 7"), names);
}

#[test]
fn counts_below_one_neither_delete_everything_nor_keep_everything() {
    let Some(original) = &Original::get() else { return };
    let names = ["2001-02-03T04-05-06Z", "2001-02-04T04-05-06Z", "2001-02-05T04-05-06Z"];
    // Strict, zero is one, and minus one is nothing at all. Relaxed, zero is everything, and minus
    // one everything but the oldest.
    for (count, strict, relaxed) in [("0", &names[2..], &names[..]), ("-1", &[], &names[1..])] {
        let both = Both::with(original, &names);
        both.module.write_policy(&format!("[defaults]\nkeep = {{ daily = {count} }}\n{BARE}"));
        both.module.run(&["rotate", "data"]).exits(&[2]);
        assert_eq!(both.module.snapshots(), names, "{count}");

        let option = format!("--daily={count}");
        assert_eq!(both.left_by_original(&[&option, "--relaxed"]), relaxed, "{count}");
        assert_eq!(both.left_by_original(&[&option]), strict, "{count}");
    }
}

#[test]
fn the_last_days_of_a_year_are_not_in_a_week_of_its_january() {
    let Some(original) = &Original::get() else { return };
    // 31 December 2018 is of week 1 of 2019, and rotate-backups takes it for week 1 of 2018.
    let names = ["2018-01-03T00-00-00Z", "2018-12-31T00-00-00Z", "2019-01-09T00-00-00Z"];
    let both = Both::with(original, &names);
    assert_eq!(both.left_by_original(&["--weekly=always"]), [names[0], names[2]]);
    assert_eq!(both.left_by_ours("weekly = \"always\""), names);

    let both = Both::with(original, &names);
    assert_eq!(both.left_by_original(&["--weekly=4"]), [names[2]], "week 1 is lost as a whole");
    assert_eq!(both.left_by_ours("weekly = 4"), names[1..]);
}

#[test]
fn one_name_dated_in_the_future_does_not_expire_the_history() {
    let Some(original) = &Original::get() else { return };
    let names = [
        "2001-02-03T04-05-06Z",
        "2001-02-04T04-05-06Z",
        "2001-02-05T04-05-06Z",
        "2999-01-01T00-00-00Z",
    ];
    let both = Both::with(original, &names);
    assert_eq!(both.left_by_original(&["--daily=7", "--weekly=4", "--monthly=12"]), [names[3]]);
    assert_eq!(both.left_by_ours("daily = 7, weekly = 4, monthly = 12"), names);
}

#[test]
fn names_that_merely_hold_eight_digits_are_not_touched() {
    let Some(original) = &Original::get() else { return };
    let names = ["2001-02-03T04-05-06Z", "2001-02-04T04-05-06Z"];
    let both = Both::with(original, &names);
    for root in [&both.module.root, &both.theirs] {
        fs::write(root.join("invoices-20010101.pdf"), "a file").expect("a file");
        symlink("elsewhere", root.join("link-20010101")).expect("a symlink");
        for name in ["photos 20010101", "order-1998101799"] {
            fs::create_dir(root.join(name)).expect("a directory");
            tree::write(&root.join(name).join("precious"), "somebody's");
        }
    }
    assert_eq!(both.left_by_original(&["--daily=1"]), [names[1]], "all of them are gone");
    let foreign = ["invoices-20010101.pdf", "link-20010101", "order-1998101799", "photos 20010101"];
    assert_eq!(both.left_by_ours("daily = 1"), [&names[1..], &foreign].concat());
}

/// Two directories for rotate-backups and two modules for ours.
fn two_modules<'a>(
    original: &'a Original,
    names: [&[&str]; 2],
) -> (Both<'a>, [PathBuf; 2], [PathBuf; 2]) {
    let both = Both::with(original, &[] as &[&str]);
    let directory = |of: &str, name: &str| both.module.directory.join(of).join(name);
    let theirs = ["a", "b"].map(|name| directory("theirs", name));
    let ours = ["a", "b"].map(|name| directory("ours", name));
    for (root, names) in theirs.iter().chain(&ours).zip(names.iter().chain(&names)) {
        for name in *names {
            make_module_directory(&root.join(name));
        }
    }
    let section = |name: &str, root: &Path| {
        make_module_directory(&root.join("latest"));
        both.module.rsyncd_conf_section(name, &root.join("latest"))
    };
    let sections = ["a", "b"].into_iter().zip(&ours).map(|(name, root)| section(name, root));
    both.module.write_rsyncd_conf(&sections.collect::<String>());
    (both, theirs, ours)
}

/// Only a push or a first snapshot does so, and either would add one.
fn register(root: &std::path::Path, name: &str) {
    let private = root.join(".rsyncd-snapshot");
    fs::create_dir(&private).expect("our directory");
    fs::set_permissions(&private, std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .expect("a mode");
    fs::create_dir(private.join("records")).expect("the records of no snapshot");
    let text = registration(name, &root.join("latest"));
    fs::write(private.join("root.toml"), text).expect("a registration");
}

#[test]
fn options_of_one_location_do_not_reach_the_next() {
    let Some(original) = &Original::get() else { return };
    let days = ["2001-02-03T04-05-06Z", "2001-02-03T23-00-00Z", "2001-02-04T04-05-06Z"];
    let (both, theirs, ours) = two_modules(original, [&days, &days]);
    let ini = both.module.directory.join("rotate.ini");
    let text = format!(
        "[{}]\ndaily = 7\nprefer-recent = yes\n[{}]\ndaily = 7\nprefer-recent = no\n",
        theirs[0].display(),
        theirs[1].display()
    );
    fs::write(&ini, text).expect("the ini file");
    let home = both.module.directory.join("home");
    original.run(&home, ["--config", ini.to_str().expect("text")]).exits(&[0]);
    assert_eq!(visible(&theirs[0]), days[1..]);
    assert_eq!(visible(&theirs[1]), days[1..], "it kept the newest of the day here, too");

    both.module.write_policy(&format!(
        "[defaults]\nkeep = {{ daily = 7 }}\n{BARE}[module.a]\nprefer = \"newest\"\n\
         [module.b]\nprefer = \"oldest\"\n"
    ));
    for (name, root) in ["a", "b"].into_iter().zip(&ours) {
        register(root, name);
        both.module.run(&["rotate", name]).exits(&[0]);
    }
    assert_eq!(visible(&ours[0]), days[1..]);
    assert_eq!(visible(&ours[1]), [days[0], days[2]]);
}

/// The worst of it: a location without a scheme of its own is rotated by that of the one before.
#[test]
fn the_scheme_of_one_location_does_not_reach_the_next() {
    let Some(original) = &Original::get() else { return };
    let months = ["2001-01-03T00-00-00Z", "2001-02-03T00-00-00Z", "2001-03-03T00-00-00Z"];
    let (both, theirs, ours) = two_modules(original, [&months, &months]);
    let ini = both.module.directory.join("rotate.ini");
    let text =
        format!("[{}]\ndaily = 1\n[{}]\nionice = idle\n", theirs[0].display(), theirs[1].display());
    fs::write(&ini, text).expect("the ini file");
    let home = both.module.directory.join("home");
    original.run(&home, ["--config", ini.to_str().expect("text")]).exits(&[0]);
    assert_eq!(visible(&theirs[1]), months[2..], "nobody asked for that");

    both.module.write_policy(&format!(
        "[defaults]\n{BARE}[module.a]\nkeep = {{ daily = 1 }}\n[module.b]\n"
    ));
    for (name, root) in ["a", "b"].into_iter().zip(&ours) {
        register(root, name);
        both.module.run(&["rotate", name]).exits(&[0]);
    }
    assert_eq!(
        (visible(&ours[0]), visible(&ours[1])),
        (vec![months[2].to_string()], months.map(String::from).to_vec())
    );
}

#[test]
fn a_configuration_that_is_not_strict_is_not_strict() {
    let Some(original) = &Original::get() else { return };
    let names = ["2001-02-03T00-00-00Z", "2001-05-01T00-00-00Z", "2001-11-22T00-00-00Z"];
    let both = Both::with(original, &names);
    let ini = both.module.directory.join("rotate.ini");
    fs::write(&ini, format!("[{}]\ndaily = 3\nstrict = no\n", both.theirs.display()))
        .expect("the ini file");
    let left = both.left_by_original(&["--config", ini.to_str().expect("text")]);
    assert_eq!(left, names[2..], "it was strict all the same");
    assert_eq!(
        both.left_by_policy(&format!("[defaults]\nkeep = {{ daily = 3 }}\nstrict = false\n{BARE}")),
        names
    );
}

#[test]
fn a_removal_that_fails_does_not_end_the_run() {
    only_hard_links!("a file of a snapshot cannot be removed");
    let Some(original) = &Original::get() else { return };
    let Some(file_system) = FileSystem::new(Kind::Ext4) else { return };
    if !have(&["chattr"]) {
        return;
    }
    let names = [
        "2001-02-03T00-00-00Z",
        "2001-02-04T00-00-00Z",
        "2001-02-05T00-00-00Z",
        "2001-02-06T00-00-00Z",
    ];
    let both = Both::over(original, Module::on(&file_system), &names);
    let immovable =
        [both.theirs.join(names[0]).join("old"), both.module.snapshot(names[0]).join("sub/old")];
    Run::of(tool("chattr").arg("+i").args(&immovable)).exits(&[0]);

    let run = both.run_original(&["--daily=1"]);
    assert!(!run.succeeded(), "{run}");
    assert_eq!(visible(&both.theirs), names, "it went no further: {run}");

    both.module.write_policy(&format!("[defaults]\nkeep = {{ daily = 1 }}\n{BARE}"));
    both.module.run(&["rotate", "data", "--purge"]).exits(&[4]).says("sub/old");
    assert_eq!(both.module.snapshots(), names[3..]);

    let left = [both.module.private(""), both.theirs.clone()];
    Run::of(tool("chattr").args(["-R", "-i"]).args(left)).exits(&[0]);
}

/// What a clock on a wall in Amsterdam shows, which is what the Python program makes names of.
fn in_amsterdam(names: &[&str]) -> Vec<String> {
    let zone = rsyncd_snapshot::internals::time_zone::named("Europe/Amsterdam")
        .expect("tzdata is installed");
    names
        .iter()
        .map(|name| zone.to_local(time_of(name)).format("%Y-%m-%d %H:%M:%S").to_string())
        .collect()
}

const AMSTERDAM: &str = "[defaults]\nkeep = { hourly = 24 }\nmin_keep = 1\nmin_age = \"0s\"\n\
                         time_zone = \"Europe/Amsterdam\"\n";

#[test]
fn the_hour_that_a_clock_change_repeats_is_two_hours() {
    let Some(original) = &Original::get() else { return };
    // 02:30 in summer time, 02:15 in winter time three quarters of an hour later, and the next day.
    let utc = ["2019-10-27T00-30-00Z", "2019-10-27T01-15-00Z", "2019-10-27T09-00-00Z"];
    let local = in_amsterdam(&utc);
    assert_eq!(local, ["2019-10-27 02:30:00", "2019-10-27 02:15:00", "2019-10-27 10:00:00"]);
    let theirs = Both::with(original, &local);
    assert_eq!(theirs.left_by_original(&["--hourly=24"]), local[1..], "an hour is lost");
    assert_eq!(Both::with(original, &utc).left_by_policy(AMSTERDAM), utc);
}

#[test]
fn a_day_of_23_hours_makes_no_snapshot_older() {
    let Some(original) = &Original::get() else { return };
    let utc = ["2019-03-30T10-30-00Z", "2019-03-31T10-00-00Z"];
    let local = in_amsterdam(&utc);
    assert_eq!(local, ["2019-03-30 11:30:00", "2019-03-31 12:00:00"]);
    let theirs = Both::with(original, &local);
    assert_eq!(theirs.left_by_original(&["--hourly=24"]), local[1..], "after 23 hours and a half");
    assert_eq!(Both::with(original, &utc).left_by_policy(AMSTERDAM), utc);
}
