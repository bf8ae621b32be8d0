//! What trees take on the disk by `du`, beside what `list` says of them.

use std::path::PathBuf;

use serde_json::Value;

use super::module::Module;
use super::run::{Run, tool};

/// What all trees of a root take together, but for one: `du` counts each inode once.
pub(crate) fn disk_use(module: &Module, except: Option<&str>) -> u64 {
    let visible = module.snapshots().into_iter().filter(|name| Some(name.as_str()) != except);
    let mut paths: Vec<PathBuf> = visible.map(|name| module.snapshot(&name)).collect();
    let retired = module.retired();
    paths.extend(retired.iter().map(|name| module.retired_snapshot(name)));
    paths.push(module.latest.clone());
    let run = Run::of(tool("du").args(["-s", "-c", "-B1"]).args(&paths)).exits(&[0]);
    let stdout = run.stdout();
    let total = stdout.lines().last().and_then(|line| line.split_whitespace().next());
    total.and_then(|number| number.parse().ok()).expect("a number")
}

/// What the removal of a snapshot would free.
fn alone(module: &Module, name: &str) -> u64 {
    disk_use(module, None) - disk_use(module, Some(name))
}

/// The listing, of which every number is right: exactly, or as a lower bound. Returns how many were
/// exact.
#[track_caller]
pub(crate) fn assert_sizes_are_right(module: &Module, arguments: &[&str]) -> (usize, Value) {
    let list = module.json(&[&["list", "data", "--json"], arguments].concat());
    let mut exact = 0;
    for snapshot in list["snapshots"].as_array().expect("snapshots") {
        let name = snapshot["name"].as_str().expect("a name");
        let Some(counted) = snapshot["alone_bytes"].as_u64() else { continue };
        let actual = alone(module, name);
        match snapshot["alone_is_exact"] == true {
            true => {
                exact += 1;
                assert_eq!(counted, actual, "{name}: {list}");
            }
            false => assert!(counted <= actual, "{name}: {counted}, {actual}: {list}"),
        }
    }
    (exact, list)
}
