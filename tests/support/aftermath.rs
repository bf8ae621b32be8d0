//! Checks after a run that was killed or failed at any point.

use std::fs;
use std::path::PathBuf;

use super::fingerprint::{self, Fingerprint};
use super::module::Module;

/// Names of old snapshots without records.
pub(crate) const OLD: [&str; 4] =
    ["2001-02-03T04-05-06Z", "2001-02-04T04-05-06Z", "2001-02-05T04-05-06Z", "2001-02-06 04:05:06"];

/// Expires all of [`OLD`] as soon as there is a newer snapshot.
pub(crate) const ROTATING: &str = "[defaults]\nkeep = { daily = 1 }\nmin_keep = 1\nlock_wait = \"5s\"\n\
     grace = \"0s\"\ntime_zone = \"UTC\"\n";

/// Fingerprints of the snapshots, visible and retired, for a later comparison.
pub(crate) fn fingerprints(module: &Module) -> Vec<(String, Fingerprint)> {
    let of = |path: PathBuf, name: String| (name, fingerprint::of(&path));
    let visible = module.snapshots().into_iter().map(|name| of(module.snapshot(&name), name));
    let retired = module.retired().into_iter();
    visible.chain(retired.map(|name| of(module.retired_snapshot(&name), name))).collect()
}

/// Each snapshot that existed before, visible or retired, is unchanged or gone. Each new one equals
/// the module.
pub(crate) fn assert_nothing_is_half(
    module: &Module,
    before: &[(String, Fingerprint)],
    what: &str,
) {
    for (name, now) in fingerprints(module) {
        match before.iter().find(|(old, _)| *old == name) {
            Some((_, old)) => {
                fingerprint::assert_equal(old, &now, &format!("{what}: {name} before and after"))
            }
            None => assert_is_module(module, &name, &now, what),
        }
    }
}

/// The snapshot has all entries of the module. Its record may allow other inodes for copies, and
/// missing attributes.
pub(crate) fn assert_is_module(module: &Module, name: &str, snapshot: &Fingerprint, what: &str) {
    let live = fingerprint::of(&module.latest);
    let record = module.private(&format!("records/{name}.toml"));
    let record = if record.exists() { module.record(name) } else { toml::Table::new() };
    let has_copies = record.contains_key("copy");
    let has_lost = record
        .get("attributes_lost")
        .and_then(toml::Value::as_integer)
        .is_some_and(|lost| lost > 0);
    let what = format!("{what}: {name}");
    match has_copies {
        false if has_lost => {
            let without = fingerprint::without_attributes;
            fingerprint::assert_equal(&without(&live), &without(snapshot), &what);
        }
        false => fingerprint::assert_equal(&live, snapshot, &what),
        true => {
            let without_inodes = fingerprint::without_inodes;
            let live = if has_lost { fingerprint::with_stand_ins(&live, snapshot) } else { live };
            fingerprint::assert_equal(&without_inodes(&live), &without_inodes(snapshot), &what);
            let (live, mut copied) = (
                fingerprint::contents(&module.latest),
                fingerprint::contents(&module.root.join(name)),
            );
            // A device that could not be copied is an empty file.
            copied.retain(|path, content| {
                live.contains_key(path) || !(has_lost && content.is_empty())
            });
            assert_eq!(live, copied, "{what}");
        }
    }
}

/// The next run completes the work of the killed one, and no leftovers remain.
pub(crate) fn assert_the_next_run_finishes(module: &Module, what: &str) {
    let run = module.run_hook();
    assert_eq!(run.code(), Some(0), "{what}: {run}");
    let names = module.snapshots();
    assert_eq!(names.len(), 1, "{what}: {names:?}, {run}");
    assert_is_module(module, &names[0], &fingerprint::of(&module.snapshot(&names[0])), what);
    assert_eq!(module.left_over("staging"), 0, "{what}");
    // Snapshots that this run retired stay until the next run; the newest is kept to be recycled.
    let run = module.run_hook();
    assert_eq!((run.code(), module.snapshots()), (Some(0), names), "{what}: {run}");
    let retired = module.left_over("expired");
    assert!(retired <= 1, "{what}: {retired} retired");
    let records: Vec<_> = fs::read_dir(module.private("records")).expect("records").collect();
    assert!(records.len() <= 1 + retired, "{what}: {records:?}");
    assert!(!module.private("vanished.toml").exists(), "{what}: a run forgot what it removed");
    let listed = module.list();
    assert_eq!((listed.len(), &listed[0]["origin"]), (1, &"recorded".into()), "{what}: {listed:?}");
}
