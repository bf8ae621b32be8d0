//! `restore --to DIR`: snapshots, live trees and the program's own files are never written into,
//! also where the records of the root are lost or a mount shows a directory under another path.

use crate::support;

use std::fs;
use std::path::{Path, PathBuf};

use support::module::Module;
use support::run::{Run, tool};
use support::{exact, tree};

/// `restore` of the file `read me` out of `snapshot`, named by `arguments`, into `to`.
fn restore(module: &Module, arguments: &[&str], to: &Path) -> Run {
    let mut command = module.command(&["restore"]);
    Run::of(command.args(arguments).args(["read me", "--overwrite", "--to"]).arg(to))
}

/// A module with two snapshots; `read me` differs in them.
fn two_snapshots() -> (Module, [String; 2]) {
    let (module, first) = Module::with_snapshot();
    tree::write(&module.latest.join("read me"), "another text\n");
    let second = module.expect_snapshot();
    (module, [first, second])
}

#[test]
fn a_root_without_records_is_protected_by_its_names() {
    let (module, [first, second]) = two_snapshots();
    fs::remove_dir_all(module.private("")).expect("removed");
    let before = exact::of(&module.root);
    let root = module.root.display().to_string();
    let inside = |path: &str| module.root.join(path);
    let refused = |arguments: &[&str], to: PathBuf, words: &str| {
        restore(&module, arguments, &to).exits(&[2]).says(words);
    };
    // The module is known from rsyncd.conf, from the root alone, or is not the one of the target.
    for named in ["data", &root] {
        refused(&[named, &second], inside(&first), "lies in a snapshot");
        refused(&[named, &second], inside(&first).join("documents"), "lies in a snapshot");
        refused(&[named, "newest"], inside(&first).join("new"), "lies in a snapshot");
        refused(&[named, &first], inside("latest"), "--in-place");
        refused(&[named, &first], PathBuf::from(&root), "is a snapshot root");
    }
    fs::remove_file(&module.rsyncd_conf).expect("removed");
    refused(&[&root, &first], inside("latest"), "not known");
    refused(&[&root, &first], inside("new"), "not known");
    refused(&[&root, &second], inside(&first), "lies in a snapshot");
    assert_eq!(exact::of(&module.root), before);
    restore(&module, &[&root, &first], &module.directory.join("restored")).exits(&[0]);
}

#[test]
fn another_module_of_rsyncd_conf_is_protected_without_records() {
    let (module, [first, _]) = two_snapshots();
    let other = module.directory.join("other");
    tree::small(&other.join("latest"));
    let section = module.rsyncd_conf_section("other", &other.join("latest"));
    let own = module.rsyncd_conf_section("data", &module.latest);
    module.write_rsyncd_conf(&format!("{own}{section}"));
    let old = other.join("2026-01-02T03-04-05Z");
    fs::create_dir(&old).expect("a snapshot");
    let before = exact::of(&other);
    restore(&module, &["data", &first], &old).exits(&[2]).says("lies in a snapshot");
    restore(&module, &["data", &first], &other.join("latest")).exits(&[2]).says("--in-place");
    assert_eq!(exact::of(&other), before);
    // A directory with such a name elsewhere is a place like any other.
    let elsewhere = module.directory.join("2026-01-02T03-04-05Z");
    restore(&module, &["data", &first], &elsewhere).exits(&[0]);
}

#[test]
fn a_bind_mount_of_a_snapshot_is_not_written_into() {
    if !support::may_mount() {
        return;
    }
    let (module, [first, second]) = two_snapshots();
    let point = module.directory.join("mounted here");
    fs::create_dir(&point).expect("a mount point");
    let before = exact::of(&module.root);
    for (directory, to, words) in [
        (module.snapshot(&first), "", "lies in a snapshot"),
        (module.snapshot(&first), "new", "lies in a snapshot"),
        (module.snapshot(&first).join("documents"), "", "lies in a snapshot"),
        (module.snapshot(&first).join("documents"), "letters", "lies in a snapshot"),
        (module.latest.clone(), "", "--in-place"),
        (module.latest.join("documents"), "", "--in-place"),
        (module.private(""), "drafts", "holds the files of rsyncd-snapshot"),
        (module.root.clone(), &first, "lies in a snapshot"),
        (module.root.clone(), "", "is a snapshot root"),
    ] {
        Run::of(tool("mount").arg("--bind").arg(&directory).arg(&point)).exits(&[0]);
        let run = restore(&module, &["data", &second], &point.join(to));
        Run::of(tool("umount").arg(&point)).exits(&[0]);
        run.exits(&[2]).says(words);
    }
    assert_eq!(exact::of(&module.root), before);
    // A bind mount of another directory is a place like any other.
    let free = module.directory.join("free");
    fs::create_dir(&free).expect("a directory");
    Run::of(tool("mount").arg("--bind").arg(&free).arg(&point)).exits(&[0]);
    let run = restore(&module, &["data", &second], &point);
    Run::of(tool("umount").arg(&point)).exits(&[0]);
    run.exits(&[0]);
    assert!(free.join("read me").exists());
    module.run(&["verify", "data"]).exits(&[0]);
}
