//! Power cuts by write log: a disk whose cache is lost in part.

use std::fs;

use super::disk::Disk;
use super::history::History;
use super::judge::Judge;
use super::medium::{self, Mounted};
use super::write_log::{Image, Replay};
use super::{Cut, Findings, Sabotage};
use crate::support::file_system::{FileSystem, Kind};
use crate::support::random::Random;
use crate::support::run::{Run, tool};
use crate::support::time::next_second;

/// How many pushes there are in a history.
const PUSHES: usize = 12;

/// Records one history on a disk of its own and cuts the power `images` times at random moments of
/// it, until `enough`.
pub(crate) fn cut_power(
    kind: Kind,
    images: usize,
    seed: u64,
    sabotage: Sabotage,
    enough: &dyn Fn(&Findings) -> bool,
) -> Findings {
    let scratch = FileSystem::with(Kind::Tmpfs, 1024, &[]).expect("memory");
    let [image, place, mount_point] =
        ["image", "disk", "mounted"].map(|name| scratch.mount_point.join(name));
    [&place, &mount_point].iter().for_each(|path| fs::create_dir(path).expect("a directory"));
    medium::make(kind, &image);
    let before = Image::read(&image);

    let disk = Disk::new(before.clone(), &place);
    let mounted = Mounted::new(kind, &disk.device, &mount_point).expect("a file system");
    let mut history = History::new(&mount_point, seed, sabotage);
    Run::of(tool("sync").arg("--file-system").arg(&history.module.latest)).exits(&[0]);
    let first = disk.position();
    for _ in 0..PUSHES {
        next_second();
        history.push(&|| disk.position());
    }
    let last = disk.position();
    mounted.unmount();
    let events = disk.into_events();

    let mut random = Random::new(seed);
    let mut positions: Vec<usize> =
        (0..images).map(|_| position(&history, first, last, &mut random)).collect();
    positions.sort_unstable();
    let mut replay = Replay::new(before, &events);
    let judge = Judge { kind, history: &history, mount_point: &mount_point, seed };
    let mut findings = Findings::default();
    for position in positions {
        replay.cut(position, medium::unit(kind), &mut random).save(&image);
        findings.add(judge.judge(&image, Cut { from: position, to: position }));
        if enough(&findings) {
            break;
        }
    }
    findings
}

/// Any moment; each fourth is one at which a hook has just reported that all is done.
fn position(history: &History, first: usize, last: usize, random: &mut Random) -> usize {
    match random.once_in(4) {
        true => random.of(&history.pushes).expect("a push").hook.1,
        false => first + random.below(last - first + 1),
    }
}
