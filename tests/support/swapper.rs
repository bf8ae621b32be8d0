//! A process that exchanges directories, links, pipes and files of a tree as fast as the kernel
//! can, and moves directories out of it and back.
//!
//! It works with open directories, so it can go on in a tree that has been moved where no other
//! program can enter.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use rustix::fs::{CWD, FileType, Mode, OFlags, RenameFlags, mknodat, renameat_with};

use super::outside::{BELOW, FILES, LINKED, Outside};
use super::subvolumes::are_subvolumes;

/// How many levels a chain of directories has: more than a walk keeps open.
const LEVELS: usize = 24;

/// Where in a chain something is swapped.
const SWAPPED_LEVEL: usize = 5;

/// A name in an open directory.
type Place = (Arc<OwnedFd>, String);

/// Two things that change places, or one that goes and comes back.
struct Swap {
    a: Place,
    b: Place,
    flags: RenameFlags,
    is_done: bool,
}

impl Swap {
    fn exchange(a: Place, b: Place) -> Swap {
        Swap { a, b, flags: RenameFlags::EXCHANGE, is_done: false }
    }

    /// Swaps, or swaps back; false if the kernel refuses.
    fn act(&mut self) -> bool {
        let (from, to) = if self.is_done { (&self.b, &self.a) } else { (&self.a, &self.b) };
        let done =
            renameat_with(from.0.as_fd(), &*from.1, to.0.as_fd(), &*to.1, self.flags).is_ok();
        self.is_done ^= done;
        done
    }
}

/// A tree that swaps are prepared in.
pub(crate) struct Ground {
    swaps: Vec<Swap>,
    /// Pipes in it.
    pub(crate) pipes: Vec<PathBuf>,
}

impl Ground {
    /// Fills `top` with `groups` of directories. Visitors of the passage are called by `name`.
    pub(crate) fn new(top: &Path, outside: &Outside, groups: usize, name: &str) -> Ground {
        let aside = top.join("aside");
        fs::create_dir_all(&aside).expect("a directory");
        let mut ground = Ground { swaps: Vec::new(), pipes: Vec::new() };
        let (parent, aside_fd, passage) = (open(top), open(&aside), open(&outside.passage()));
        for group in 0..groups {
            let at = |what: &str| (aside_fd.clone(), format!("{what}{group}"));
            let path = |what: &str| aside.join(format!("{what}{group}"));
            let directory = top.join(format!("d{group}"));
            fill(&directory);
            let inside = open(&directory);
            let exchange = |name: &str, with: &str| {
                Swap::exchange((inside.clone(), name.to_string()), at(with))
            };
            // A directory and a link that leads to another one with files of the same names.
            symlink(outside.target(), path("link to a directory ")).expect("a link");
            ground.swaps.push(Swap::exchange(
                (parent.clone(), format!("d{group}")),
                at("link to a directory "),
            ));
            // A directory, or a file, and a pipe, on which opening blocks.
            for (name, pipe) in [(BELOW, "pipe a "), (FILES[2], "pipe b ")] {
                mknodat(CWD, path(pipe), FileType::Fifo, Mode::from_raw_mode(0o644), 0)
                    .expect("a pipe");
                ground.pipes.push(path(pipe));
                ground.swaps.push(exchange(name, pipe));
            }
            // A file and a link to one outside, of either kind.
            symlink(outside.target().join(FILES[0]), path("link to a file ")).expect("a link");
            ground.swaps.push(exchange(FILES[0], "link to a file "));
            // No link leads out of a subvolume.
            match are_subvolumes() {
                true => fs::write(path("hard link "), "no link").expect("a file"),
                false => fs::hard_link(outside.linked(group % LINKED), path("hard link "))
                    .expect("a link"),
            }
            ground.swaps.push(exchange(FILES[1], "hard link "));
            // A directory far above where a walk may be goes away, or a link takes its place.
            for (kind, name) in
                [("moved", format!("visitor {name} {group}")), ("linked", String::new())]
            {
                let mut directory = top.join(format!("{kind}{group}"));
                for level in 0..LEVELS {
                    fill(&directory);
                    if level == SWAPPED_LEVEL {
                        let from = (open(&directory), "level".to_string());
                        ground.swaps.push(match kind {
                            "moved" => Swap {
                                a: from,
                                b: (passage.clone(), name.clone()),
                                flags: RenameFlags::NOREPLACE,
                                is_done: false,
                            },
                            _ => {
                                symlink(outside.target(), path("deep link ")).expect("a link");
                                Swap::exchange(from, at("deep link "))
                            }
                        });
                    }
                    directory.push("level");
                }
            }
        }
        ground
    }
}

/// With O_PATH, which no watcher is told of.
fn open(path: &Path) -> Arc<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Arc::new(rustix::fs::open(path, flags, Mode::empty()).expect("a directory"))
}

fn fill(directory: &Path) {
    fs::create_dir_all(directory.join(BELOW)).expect("a directory");
    for name in FILES {
        fs::write(directory.join(name), name).expect("a file");
        fs::write(directory.join(BELOW).join(name), name).expect("a file");
    }
}

/// Threads that swap until they are stopped.
pub(crate) struct Swapper {
    is_over: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<Swap>>>,
}

impl Swapper {
    pub(crate) fn start(ground: Ground) -> Swapper {
        let (is_over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut shares = [Vec::new(), Vec::new()];
        for (number, swap) in ground.swaps.into_iter().enumerate() {
            shares[number % 2].push(swap);
        }
        let work = |mut swaps: Vec<Swap>| {
            let (is_over, count) = (is_over.clone(), count.clone());
            move || {
                while !is_over.load(Ordering::Relaxed) {
                    let done = swaps.iter_mut().filter_map(|swap| swap.act().then_some(())).count();
                    count.fetch_add(done as u64, Ordering::Relaxed);
                    if done == 0 {
                        thread::yield_now();
                    }
                }
                swaps
            }
        };
        let threads = shares.map(|share| thread::spawn(work(share))).into();
        Swapper { is_over, count, threads }
    }

    /// Puts everything back where it was, if that still is; returns how many swaps there were.
    pub(crate) fn stop(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            for mut swap in thread.join().expect("a thread that swaps") {
                if swap.is_done {
                    swap.act();
                }
            }
        }
        self.count.load(Ordering::Relaxed)
    }
}
