//! Whatever instant the power goes at: the file system mounts and passes its check, every visible
//! snapshot holds what it has to, every snapshot that was acknowledged is there, what is torn is
//! known as torn, and the next push gets its snapshot.
//!
//! Two rigs cut the power. One logs what the hook's file system writes to its disk, and replays
//! that up to a random point of which the last, unflushed writes are lost in part. The other clones
//! the disk while the hook runs. In a normal run 24 images each on ext4, XFS and btrfs; with
//! `RSYNCD_SNAPSHOT_SWEEP=full` 1,000. `RSYNCD_SNAPSHOT_SEED` begins the pushes and the cuts. That
//! the rigs would notice is proved by making the system calls do nothing that they are about.

use crate::{power_rig as power, support};

use std::thread;
use std::time::Instant;

use power::{Findings, Sabotage, Wrong, clone_rig, is_possible, medium, write_log_rig};
use support::file_system::Kind;
use support::subvolumes::are_subvolumes;

/// How many images are made of one history.
const IMAGES_OF_A_HISTORY: usize = 100;

/// How many images a normal run makes on each file system.
const IMAGES_OF_A_SAMPLE: usize = 24;

type Rig = fn(Kind, usize, u64, Sabotage, &dyn Fn(&Findings) -> bool) -> Findings;

fn images() -> usize {
    let full = support::is_full_sweep();
    if full { 1_000 } else { IMAGES_OF_A_SAMPLE }
}

fn seed() -> u64 {
    std::env::var("RSYNCD_SNAPSHOT_SEED").map_or(1, |seed| seed.parse().expect("a number"))
}

/// Cuts the power on each file system, and tells the figures. On a busy machine few cuts may hit a
/// hook: up to three times as many are made until `hits` is content.
fn on_each(
    name: &str,
    rig: Rig,
    images: usize,
    sabotage: Sabotage,
    enough: fn(&Findings) -> bool,
    hits: impl Fn(&Findings) -> bool + Sync,
) -> Vec<(Kind, Findings)> {
    let hits = &hits;
    let on = |kind: Kind| {
        let began = Instant::now();
        let mut findings = Findings::default();
        let histories = images.div_ceil(IMAGES_OF_A_HISTORY);
        for history in 0..3 * histories {
            if history >= histories && hits(&findings) {
                break;
            }
            let rest = images - history % histories * IMAGES_OF_A_HISTORY;
            let seed = seed() + history as u64;
            findings.add(rig(kind, rest.min(IMAGES_OF_A_HISTORY), seed, sabotage, &enough));
            eprintln!(
                "{name} on {}: {findings}; {:.0} s",
                kind.name(),
                began.elapsed().as_secs_f64()
            );
        }
        (kind, findings)
    };
    thread::scope(|scope| {
        let threads: Vec<_> =
            medium::kinds().iter().map(|kind| scope.spawn(move || on(*kind))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a rig")).collect()
    })
}

fn nothing_is_lost(name: &str, rig: Rig) {
    if !is_possible() {
        return;
    }
    let images = images();
    let hits = |findings: &Findings| findings.in_hooks > images / 10;
    let results = on_each(name, rig, images, Sabotage::None, |_| false, hits);
    let told: Vec<&str> = results
        .iter()
        .flat_map(|(_, findings)| &findings.violations)
        .map(|violation| violation.what.as_str())
        .collect();
    assert!(
        told.is_empty(),
        "{} violations:\n{}",
        told.len(),
        told[..told.len().min(10)].join("\n")
    );
    for (kind, findings) in results {
        assert!(findings.images >= images, "{kind:?}");
        // A rig that has nothing to look at finds nothing.
        assert!(hits(&findings), "{kind:?}: {findings}");
        assert!(
            findings.acknowledged > images / 2
                && findings.torn > images / 50
                && findings.mended > images / 5,
            "{kind:?}: {findings}"
        );
    }
}

/// The power cuts of a sabotaged hook on each file system, until something is wrong as it has to
/// be.
fn is_noticed(
    name: &str,
    rig: Rig,
    sabotage: Sabotage,
    expected: &[Wrong],
    enough: fn(&Findings) -> bool,
) {
    if !is_possible() {
        return;
    }
    for (kind, findings) in on_each(name, rig, IMAGES_OF_A_HISTORY, sabotage, enough, |_| true) {
        let is_noticed =
            findings.violations.iter().any(|violation| expected.contains(&violation.wrong));
        assert!(is_noticed, "{kind:?} without {sabotage:?}: {findings}");
    }
}

fn has_half_snapshot(findings: &Findings) -> bool {
    findings.violations.iter().any(|violation| violation.wrong == Wrong::Content)
}

fn has_lost_record(findings: &Findings) -> bool {
    findings.violations.iter().any(|violation| violation.wrong == Wrong::Command)
}

fn has_lost_snapshot(findings: &Findings) -> bool {
    findings.violations.iter().any(|violation| violation.wrong == Wrong::Missing)
}

#[test]
fn a_power_cut_that_loses_half_of_the_cache_loses_no_snapshot() {
    nothing_is_lost("write log", write_log_rig::cut_power);
}

#[test]
fn a_power_cut_at_any_moment_of_a_push_loses_no_snapshot() {
    nothing_is_lost("clone", clone_rig::cut_power);
}

/// What is wrong without `syncfs`: snapshots lack content. A btrfs snapshot is durable by itself,
/// but what the program recorded of it is not.
fn without_syncfs() -> (&'static [Wrong], fn(&Findings) -> bool) {
    match are_subvolumes() {
        true => (&[Wrong::Command], has_lost_record),
        false => (&[Wrong::Content], has_half_snapshot),
    }
}

#[test]
fn the_write_log_shows_half_snapshots_without_syncfs() {
    let (expected, enough) = without_syncfs();
    let rig = write_log_rig::cut_power;
    is_noticed("write log without syncfs", rig, Sabotage::Syncfs, expected, enough);
}

#[test]
fn the_write_log_shows_lost_snapshots_without_fsync() {
    let rig = write_log_rig::cut_power;
    is_noticed(
        "write log without fsync",
        rig,
        Sabotage::Fsync,
        &[Wrong::Missing],
        has_lost_snapshot,
    );
}

#[test]
fn the_clones_show_half_snapshots_without_syncfs() {
    let (expected, enough) = without_syncfs();
    let rig = clone_rig::cut_power;
    is_noticed("clone without syncfs", rig, Sabotage::Syncfs, expected, enough);
}
