//! What docs/compatibility.md says of files that a newer version wrote, and of `--version`.

use std::fs;
use std::path::Path;

use crate::support;

use support::module::Module;

/// Lets a newer version have written the file, and returns its text.
fn make_newer(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a file of ours");
    let newer = text.replacen("format = 1", "format = 9", 1);
    assert_ne!(newer, text, "{path:?} has a format");
    fs::write(path, &newer).expect("written");
    newer
}

#[test]
fn nothing_happens_in_a_root_of_a_newer_version() {
    for file in ["root.toml", "state.toml"] {
        let (module, name) = Module::with_snapshot();
        let path = module.private(file);
        let newer = make_newer(&path);
        fs::write(module.latest.join("new"), "new").expect("written");
        let words = "its format is 9, this version reads up to";
        for command in [&["snapshot", "data"][..], &["rotate", "data"], &["verify", "data"]] {
            module.run(command).exits(&[1]).says(file).says(words);
        }
        module.run(&["check", "data"]).exits(&[2]).says(words);
        module.run_hook().exits(&[1]).says(words);
        assert_eq!(fs::read_to_string(&path).expect("a file"), newer, "{file}");
        assert_eq!(module.snapshots(), [name], "{file}");
    }
}

#[test]
fn a_snapshot_of_a_newer_version_stays() {
    let (module, name) = Module::with_snapshot();
    let path = module.private("records").join(format!("{name}.toml"));
    let newer = make_newer(&path);
    fs::write(module.latest.join("new"), "new").expect("written");
    module.run(&["snapshot", "data"]).exits(&[4]).says("its format is 9");
    assert_eq!(module.snapshots().len(), 2);
    module.run(&["rotate", "data"]).exits(&[4]).says("stays, since its record cannot be read");
    assert_eq!(fs::read_to_string(&path).expect("a file"), newer);
}

#[test]
fn an_index_of_another_version_is_no_damage() {
    let (module, name) = Module::with_snapshot();
    let path = module.private("index").join(&name);
    let index = fs::read(&path).expect("an index");
    let line = format!("rsyncd-snapshot index 2 {name}\n");
    assert!(index.starts_with(line.as_bytes()), "the format has changed");
    for (format, status) in [("1", 0), ("3", 0), ("x", 4)] {
        let mut other = index.clone();
        other[line.find('2').expect("a number")..][..1].copy_from_slice(format.as_bytes());
        fs::write(&path, &other).expect("written");
        let run = module.run(&["verify", "data"]).exits(&[status]);
        run.says(if status == 0 { "another version of rsyncd-snapshot wrote" } else { "damaged" });
        assert_eq!(fs::read(&path).expect("a file"), other);
    }
    fs::write(module.latest.join("new"), "new").expect("written");
    module.run(&["snapshot", "data"]).exits(&[0]);
}

#[test]
fn the_version_tells_the_format_of_the_files() {
    let module = Module::new();
    let version = env!("CARGO_PKG_VERSION");
    let run = module.run(&["--version"]).exits(&[0]);
    run.says(&format!("rsyncd-snapshot {version}\n"))
        .says("commit: ")
        .says("root: 1; with btrfs: 2\n");
    let short = module.run(&["-V"]).exits(&[0]);
    assert_eq!(short.stdout(), format!("rsyncd-snapshot {version}\n"));
}
