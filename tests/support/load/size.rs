//! How big a storm is.

use std::env;

/// The size of a storm, and the seed of its random numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) clients: usize,
    pub(crate) modules: usize,
    pub(crate) seconds: u64,
    pub(crate) seed: u64,
}

impl Size {
    /// A few clients for some seconds, or what `RSYNCD_SNAPSHOT_SWEEP=full` means;
    /// `RSYNCD_SNAPSHOT_LOAD_SECONDS` and `RSYNCD_SNAPSHOT_SEED` say otherwise.
    pub(crate) fn of_this_run() -> Size {
        let usual = crate::support::by_sweep(
            Size { clients: 8, modules: 4, seconds: 3, seed: 0 },
            Size { clients: 16, modules: 8, seconds: 8, seed: 0 },
            Size { clients: 50, modules: 20, seconds: 300, seed: 0 },
        );
        Size {
            clients: number("RSYNCD_SNAPSHOT_LOAD_CLIENTS")
                .map_or(usual.clients, |count| count as usize),
            seconds: number("RSYNCD_SNAPSHOT_LOAD_SECONDS").unwrap_or(usual.seconds),
            seed: number("RSYNCD_SNAPSHOT_SEED").unwrap_or_else(seed_of_this_moment),
            ..usual
        }
    }

    /// Where client number `client` writes: each module of the first half has one client of its
    /// own, the other clients share the second half.
    pub(crate) fn home(&self, client: usize) -> usize {
        let alone = self.modules / 2;
        if client < alone { client } else { alone + (client - alone) % (self.modules - alone) }
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{variable}={value}: {error}")))
}

pub(crate) fn seed_of_this_moment() -> u64 {
    super::event::Moment::now().milliseconds % 1_000_000
}
