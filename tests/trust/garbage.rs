//! Whatever stands in the policy, in rsyncd.conf, in the environment, the ledger, the records and
//! in names, nothing panics or hangs, no message forges a line, and no snapshot goes that a rule
//! protects.
//!
//! What is thrown at what stands in `fuzz/target.rs`. Here it is the seeds, which hold all that has
//! ever broken anything, and mutations of them, the same in each run; `sh tests/fuzz/run` lets a
//! coverage-guided fuzzer loose.

#[path = "../fuzz/target.rs"]
mod target;
use crate::support::random;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use random::Random;

/// Mutations of each target's seeds; `RSYNCD_SNAPSHOT_SWEEP=full` makes it two hundred times as
/// many.
const MUTATIONS: usize = 2_000;

/// What means something to one parser or another.
const TOKENS: [&[u8]; 24] = [
    b"\n",
    b"\0",
    b"\"",
    b"'",
    b"[",
    b"]",
    b"=",
    b"\\",
    b"%",
    b"&",
    b"..",
    b"/",
    b"-",
    b"::",
    b"#",
    b"\xff",
    b"\x1b[2J",
    b"\xe2\x80\xa8",
    b"-1",
    b"99999999999999999999",
    b"0",
    b"\"always\"",
    b"1970-01-01T00:00:00Z",
    b"nan",
];

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(name);
    let entries =
        fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("a seed")).collect()
}

fn mutate(garbage: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let at = random.below(garbage.len() + 1);
    let end = (at + random.below(16)).min(garbage.len());
    match random.below(7) {
        0 => drop(garbage.drain(at..end)),
        1 => drop(garbage.splice(at..end, TOKENS[random.below(TOKENS.len())].iter().copied())),
        2 => {
            let again = garbage[at..end].to_vec();
            drop(garbage.splice(at..at, again));
        }
        3 => garbage.truncate(at),
        4 => drop(garbage.splice(at..end, random.bytes(1 + at % 4))),
        5 => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len() + 1);
            drop(garbage.splice(at..end, other[from..].iter().copied()));
        }
        _ => garbage.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
    }
}

fn throw(name: &str) {
    let (_, target) = *target::TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    let seeds = seeds(name);
    assert!(!seeds.is_empty());
    let mutations = crate::support::by_sweep(MUTATIONS * 2 / 5, MUTATIONS, MUTATIONS * 200);
    let mut random = Random::new(20_261_126);
    let hit = |garbage: &[u8]| {
        let survived = catch_unwind(AssertUnwindSafe(|| target(garbage)));
        assert!(survived.is_ok(), "{name} cannot bear \"{}\"", garbage.escape_ascii());
    };
    seeds.iter().for_each(|seed| hit(seed));
    for _ in 0..mutations {
        let mut garbage = seeds[random.below(seeds.len())].clone();
        (0..1 + random.below(6)).for_each(|_| mutate(&mut garbage, &seeds, &mut random));
        hit(&garbage);
    }
}

macro_rules! garbage_is_borne_by {
    ($($target:ident)*) => {
        mod garbage_is_borne_by {
            $(#[test] fn $target() { super::throw(stringify!($target)); })*
        }

        #[test]
        fn every_target_is_tried() {
            assert!(target::TARGETS.iter().map(|(name, _)| *name).eq([$(stringify!($target)),*]));
        }
    };
}

garbage_is_borne_by! {
    arguments catalogue environment escape import index ledger location memory name policy record rsyncd_conf state windows
}
