//! Checks during the storm that two runs never work in one module at once.
//!
//! A run that reads the module's tree, or builds or removes one in staging, has directories below
//! those open. That does not depend on the lock, so it shows whether the lock does its work. One
//! process is seen at a time: two runs overlap if the first still has the same directory open after
//! the second was seen.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::process::{self, Process, Role};
use super::site::{Place, Site};

/// What the observer found.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) violations: Vec<String>,
    /// How often a run was seen at work.
    pub(crate) at_work: usize,
    /// How often an entry of the ledger was seen.
    pub(crate) entries: usize,
}

/// Observes until `is_over`.
pub(crate) fn watch(site: &Site, is_over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !is_over.load(Ordering::Relaxed) {
        let ours: Vec<Process> = process::of(&site.server)
            .into_iter()
            .filter(|process| process.is_hook() || process.role == Role::Command)
            .collect();
        for module in &site.modules {
            look_at(module, &ours, &mut seen);
            seen.entries += module.ledger().len();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    seen
}

fn look_at(module: &Place, ours: &[Process], seen: &mut Seen) {
    let workers: Vec<(&Process, PathBuf)> = ours
        .iter()
        .filter_map(|process| Some((process, workplace(process.pid, module)?)))
        .collect();
    seen.at_work += workers.len();
    if let [(first, place), (second, other), ..] = workers.as_slice()
        && workplace(first.pid, module).as_ref() == Some(place)
    {
        seen.violations.push(format!(
            "{}: two runs at work: {} ({}) in {} and {} ({}) in {}",
            module.name,
            first.pid,
            first.line,
            place.display(),
            second.pid,
            second.line,
            other.display()
        ));
    }
}

/// A directory that a process has open below the module's tree or staging.
fn workplace(pid: u32, module: &Place) -> Option<PathBuf> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let is_below = |path: &Path, top: &Path| path.starts_with(top) && path != top;
    let staging = module.root.join(".rsyncd-snapshot/staging");
    descriptors
        .flatten()
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .find(|path| is_below(path, &module.latest) || is_below(path, &staging))
}
