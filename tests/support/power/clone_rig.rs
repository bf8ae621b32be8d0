//! Power cuts by clone: the disk is a file on a file system that can clone files in an instant, and
//! is cloned while the program runs. Nothing of what has reached it is lost or reordered, but
//! nothing is simulated either.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::history::History;
use super::judge::Judge;
use super::medium::{self, Mounted};
use super::{Cut, Findings, Sabotage};
use crate::support::file_system::{FileSystem, Kind};
use crate::support::random::Random;
use crate::support::run::{Run, tool};
use crate::support::time::next_second;

/// The most clones of one push, for slow machines.
const SHOTS_OF_A_PUSH: usize = 6;

/// Clones the disk of one history `images` times at random moments of its pushes; looks at the
/// clones until `enough`.
pub(crate) fn cut_power(
    kind: Kind,
    images: usize,
    seed: u64,
    sabotage: Sabotage,
    enough: &dyn Fn(&Findings) -> bool,
) -> Findings {
    let memory = FileSystem::with(Kind::Tmpfs, 4096, &[]).expect("memory");
    let reflinks = &["-m", "reflink=1"];
    let outer = FileSystem::within(&memory.mount_point, Kind::Xfs, 3072, reflinks).expect("XFS");
    let image = outer.mount_point.join("image");
    let mount_point = outer.mount_point.join("mounted");
    fs::create_dir(&mount_point).expect("a mount point");
    medium::make(kind, &image);

    let mounted = Mounted::new(kind, &image, &mount_point).expect("a file system");
    let mut history = History::new(&mount_point, seed, sabotage);
    Run::of(tool("sync").arg("--file-system").arg(&history.module.latest)).exits(&[0]);
    let camera = Camera {
        disk: image,
        began: Instant::now(),
        push_microseconds: AtomicUsize::new(60_000),
        pushes: AtomicUsize::new(0),
        is_pushing: AtomicBool::new(false),
        is_done: AtomicBool::new(false),
    };
    let shots = thread::scope(|scope| {
        let shots = scope.spawn(|| camera.shoot(images, seed));
        while !camera.is_done.load(Ordering::SeqCst) {
            next_second();
            camera.pushes.fetch_add(1, Ordering::SeqCst);
            camera.is_pushing.store(true, Ordering::SeqCst);
            let push_began = camera.began.elapsed();
            history.push(&|| camera.clock());
            camera.is_pushing.store(false, Ordering::SeqCst);
            let push_took = (camera.began.elapsed() - push_began).as_micros();
            camera
                .push_microseconds
                .store(usize::try_from(push_took).expect("64 bits"), Ordering::SeqCst);
        }
        shots.join().expect("the clones")
    });
    mounted.unmount();

    let judge = Judge { kind, history: &history, mount_point: &mount_point, seed };
    let mut findings = Findings::default();
    for (clone, cut) in shots {
        findings.add(judge.judge(&clone, cut));
        fs::remove_file(clone).expect("removed");
        if enough(&findings) {
            break;
        }
    }
    findings
}

/// Takes the clones.
struct Camera {
    disk: PathBuf,
    began: Instant,
    /// How long the last push took with its hooks, or what it takes on a fast machine.
    push_microseconds: AtomicUsize,
    /// How many pushes have begun.
    pushes: AtomicUsize,
    /// Whether there is something to be seen.
    is_pushing: AtomicBool,
    is_done: AtomicBool,
}

impl Camera {
    /// Nanoseconds since the beginning.
    fn clock(&self) -> usize {
        usize::try_from(self.began.elapsed().as_nanos()).expect("64 bits")
    }

    fn shoot(&self, count: usize, seed: u64) -> Vec<(PathBuf, Cut)> {
        let mut random = Random::new(seed);
        let disk = File::open(&self.disk).expect("the disk");
        let mut shots = Vec::new();
        while shots.len() < count {
            // Spreads the clones over the whole push.
            let pause = self.push_microseconds.load(Ordering::SeqCst) * 2 / SHOTS_OF_A_PUSH;
            thread::sleep(Duration::from_micros(random.below(pause.max(1)) as u64));
            let allowed = SHOTS_OF_A_PUSH * self.pushes.load(Ordering::SeqCst);
            if self.is_pushing.load(Ordering::SeqCst) && shots.len() < allowed {
                let path = self.disk.with_file_name(format!("clone {}", shots.len()));
                shots.push((path.clone(), self.shot(&disk, &path)));
            }
        }
        self.is_done.store(true, Ordering::SeqCst);
        shots
    }

    fn shot(&self, disk: &File, path: &Path) -> Cut {
        let clone = File::create(path).expect("a file");
        let from = self.clock();
        rustix::fs::ioctl_ficlone(&clone, disk).expect("a clone");
        Cut { from, to: self.clock() }
    }
}
