//! Makes snapshots and records with times that the test chooses.

use std::fs;

use chrono::{DateTime, TimeDelta, Utc};

use super::module::Module;
use super::time::name_of;
use super::tree;

/// A module whose history ends at `end`: a snapshot every `hours`, as many as `count`.
pub(crate) fn module_until(end: DateTime<Utc>, hours: i64, count: i64) -> Module {
    let module = Module::new();
    tree::small(&module.latest);
    for number in 0..count {
        module.make_old_snapshot(&name_of(end - TimeDelta::hours(hours * number)));
    }
    module
}

/// Writes a record, as the program does, for an existing snapshot.
pub(crate) fn write_record(module: &Module, name: &str, entries: u64) {
    let (date, time) = name.split_once('T').expect("the name of a complete snapshot of ours");
    let time = format!("{date}T{}", time.replace('-', ":"));
    let text = format!(
        "format = 1\ntime = \"{time}\"\nverified_until = \"{time}\"\ngrade = \"complete\"\nentries = {entries}\n"
    );
    fs::write(module.private(&format!("records/{name}.toml")), text).expect("a record");
}
