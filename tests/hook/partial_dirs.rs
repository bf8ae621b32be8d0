//! Partial directories: which a push may name, and that snapshots share nothing in them.

use crate::support;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::process::Stdio;

use support::daemon::{Daemon, GOOD, client, paired};
use support::module::Module;
use support::{fingerprint, tree};

/// Writes a file of the module, in a new directory if need be.
fn write(module: &Module, name: &str, text: &str) {
    let path = module.latest.join(name);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    tree::write(&path, text);
}

fn inode(path: PathBuf) -> u64 {
    fs::symlink_metadata(path).expect("an entry").ino()
}

#[test]
fn a_push_names_only_partial_directories_that_are_accepted() {
    slow!();
    only_hard_links!("files that the module and its snapshots share");
    let Some((module, source)) = paired() else { return };
    module.write_policy("[defaults]\npartial_dirs = [\"jobs/parts\"]\n");
    let daemon = Daemon::of_pair(&module);
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_last_hook(1);
    let refused = [
        "--partial-dir=documents",
        "--partial-dir=/documents",
        "-M--partial-dir=documents",
        "--partial-dir=/.rsync-partial",
    ];
    for (number, option) in refused.iter().enumerate() {
        let run =
            daemon.push(&source, "data", &[option]).says("please use --partial-dir=.rsync-partial");
        assert!(!run.succeeded(), "{run}");
        assert_eq!(daemon.await_last_hook(number + 2).exit, 0, "{option}");
    }
    let accepted = ["--partial-dir=.rsync-partial", "--delay-updates", "--partial-dir=jobs/parts"];
    for (number, option) in accepted.iter().enumerate() {
        tree::write(&source.join("documents/report"), option);
        daemon.push(&source, "data", &[option]).exits(&[0]);
        assert_eq!(daemon.await_last_hook(number + 6), GOOD, "{option}");
    }
    assert_eq!(module.snapshots().len(), 4);
}

#[test]
fn what_is_in_a_partial_directory_is_copied_and_known() {
    only_hard_links!("files that the module and its snapshots share");
    let module = Module::new();
    module.write_policy("[defaults]\npartial_dirs = [\"jobs/parts\"]\nmin_age = \"0s\"\ngrace = \"0s\"\nmin_keep = 1\nkeep = { minutely = 1 }\n");
    let names = [".rsync-partial/a", "deep/er/.~tmp~/a", "x/jobs/parts/a"];
    let others = ["parts/a", "x/a", "x/jobs/a"];
    for name in names.iter().chain(&others) {
        write(&module, name, name);
    }
    let first = module.expect_snapshot();
    let is_shared = |snapshot: &str, name: &str| {
        inode(module.snapshot(snapshot).join(name)) == inode(module.latest.join(name))
    };
    assert!(names.iter().all(|name| !is_shared(&first, name)), "copied");
    assert!(others.iter().all(|name| is_shared(&first, name)), "linked");
    fingerprint::assert_equal(
        &fingerprint::without_inodes(&fingerprint::of(&module.latest)),
        &fingerprint::without_inodes(&fingerprint::of(&module.snapshot(&first))),
        "the module and its snapshot",
    );
    // Neither a change nor a loss.
    module.expect_no_snapshot();
    module.run(&["check", "data"]).exits(&[0]);
    // A later part of the file is a change.
    write(&module, names[0], "more of it");
    let second = module.expect_snapshot();
    assert_eq!(
        fs::read_to_string(module.snapshot(&first).join(names[0])).expect("a file"),
        names[0]
    );
    assert!(!is_shared(&second, names[0]));
}

#[test]
fn a_recycled_snapshot_with_links_in_a_partial_directory_gets_copies() {
    only_hard_links!("files that the module and its snapshots share");
    if !support::root() {
        return;
    }
    let module = Module::new();
    module.write_policy(
        "[defaults]\nmin_age = \"0s\"\ngrace = \"0s\"\nmin_keep = 0\nkeep = { yearly = 1 }\nprefer = \"newest\"\n",
    );
    let name = ".rsync-partial/a";
    write(&module, name, "part");
    write(&module, "b", "b");
    let first = module.expect_snapshot();
    // As an earlier version made it.
    let copy = module.snapshot(&first).join(name);
    fs::remove_file(&copy).expect("removed");
    fs::hard_link(module.latest.join(name), &copy).expect("a link");
    for number in 0..3 {
        write(&module, "b", &number.to_string());
        let snapshot = module.expect_snapshot();
        assert_ne!(inode(module.snapshot(&snapshot).join(name)), inode(module.latest.join(name)));
    }
    let work = module.record(module.snapshots().last().expect("a snapshot"))["work"].clone();
    assert!(work.get("recycled").is_some(), "{work}");
}

#[test]
fn links_in_a_partial_directory_make_the_option_refused() {
    only_hard_links!("files that the module and its snapshots share");
    let Some((module, source)) = paired() else { return };
    let daemon = Daemon::of_pair(&module);
    write(&module, "documents/.rsync-partial/report", "part");
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_last_hook(1);
    let first = module.snapshots().remove(0);
    let name = "documents/.rsync-partial/report";
    let copy = module.snapshot(&first).join(name);
    fs::remove_file(&copy).expect("removed");
    fs::hard_link(module.latest.join(name), &copy).expect("a link");

    tree::write(&source.join("documents/report"), "another");
    let option = ["--partial-dir=.rsync-partial"];
    let run = daemon.push(&source, "data", &option).says(name);
    assert!(!run.succeeded(), "{run}");
    assert_eq!(fs::read_to_string(&copy).expect("a file"), "part");
    // Elsewhere in the module it does no harm.
    fs::create_dir(module.latest.join("elsewhere")).expect("a directory");
    daemon.push(&source.join("documents"), "data/elsewhere", &option).exits(&[0]);
    fs::remove_file(module.latest.join(name)).expect("removed");
    daemon.push(&source, "data", &option).exits(&[0]);
    assert_eq!(fs::read_to_string(&copy).expect("a file"), "part");
}

#[test]
fn a_link_in_the_place_of_a_partial_directory_is_not_followed() {
    only_hard_links!("files that the module and its snapshots share");
    let Some((module, source)) = paired() else { return };
    let daemon = Daemon::of_pair(&module);
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_last_hook(1);
    symlink("documents", module.latest.join(".rsync-partial")).expect("a link");
    tree::write(&source.join("report"), "another");
    let told = "the symbolic link .rsync-partial would lead rsync to files that snapshots share";
    let run = daemon.push(&source, "data", &["--partial-dir=.rsync-partial"]).says(told);
    assert!(!run.succeeded(), "{run}");
}

/// What a client sends that brings the link and the partial directory in one push.
fn links(module: &Module) -> PathBuf {
    let source = module.directory.join("links");
    fs::create_dir_all(&source).expect("a directory");
    for name in [".rsync-partial", ".~tmp~"] {
        symlink("documents", source.join(name)).expect("a link");
    }
    tree::write(&source.join("report"), "REWRITTEN");
    source
}

#[test]
fn a_link_that_comes_with_the_push_is_not_followed() {
    only_hard_links!("files that the module and its snapshots share");
    let Some((module, source)) = paired() else { return };
    if !support::root() {
        return;
    }
    let daemon = Daemon::of_pair(&module);
    daemon.push(&source, "data", &[]).exits(&[0]);
    daemon.await_last_hook(1);
    drop(daemon);
    let snapshot = module.snapshots().remove(0);
    let history = fingerprint::of(&module.snapshot(&snapshot));
    let report = fs::read(module.latest.join("documents/report")).expect("a file");
    let links = links(&module);
    let filter = "filter = + .rsync-partial/ - .rsync-partial + .~tmp~/ - .~tmp~";
    for (settings, is_let_in) in [
        ("use chroot = yes", false),
        // With chroot a munged link leads to what the client can send, too.
        ("use chroot = yes\n    munge symlinks = yes", false),
        ("munge symlinks = no", false),
        ("munge symlinks = yes", true),
        (&format!("use chroot = yes\n    {filter}"), true),
        (&format!("munge symlinks = no\n    {filter}"), true),
    ] {
        let section = Daemon::pair_section(&module, "data", &module.latest, settings);
        let daemon = Daemon::start(&module, &section);
        for option in ["--partial-dir=.rsync-partial", "--delay-updates"] {
            let run = daemon.push(&links, "data", &[option]);
            let refused = format!("{run}").contains("could follow a symbolic link");
            assert_eq!(refused, !is_let_in, "{settings}: {option}: {run}");
            for name in [".rsync-partial", ".~tmp~", "report"] {
                let _ = fs::remove_file(module.latest.join(name));
            }
        }
        // With these a push could give a shared file another name in a partial directory.
        for more in ["--hard-links", "--link-dest=docs", "--backup", "--backup-dir=old"] {
            let run = daemon.push(&source, "data", &["--partial-dir=.rsync-partial", more]);
            assert!(!run.succeeded(), "{settings}: {more}: {run}");
            let told = format!("{run}").contains("please drop --partial-dir");
            assert_eq!(told, is_let_in, "{settings}: {more}: {run}");
        }
        assert_eq!(fs::read(module.latest.join("documents/report")).expect("a file"), report);
        fingerprint::assert_equal(
            &history,
            &fingerprint::of(&module.snapshot(&snapshot)),
            settings,
        );
    }
}

#[test]
fn an_interrupted_file_is_continued_where_the_filter_admits_no_links() {
    let Some((module, _)) = paired() else { return };
    if !support::root() {
        return;
    }
    let source = module.directory.join("large");
    fs::create_dir(&source).expect("a directory");
    let content: Vec<u8> =
        (0..3_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(source.join("large"), &content).expect("a file");
    for (option, name) in
        [("--partial-dir=.rsync-partial", ".rsync-partial"), ("--delay-updates", ".~tmp~")]
    {
        let section = Daemon::pair_section(
            &module,
            "data",
            &module.latest,
            "use chroot = yes\n    filter = + .rsync-partial/ - .rsync-partial + .~tmp~/ - .~tmp~",
        );
        let daemon = Daemon::start(&module, &section);
        // It is killed when some of the file has arrived under its temporary name.
        let has_begun = || {
            let names = support::module::names_in(&module.latest);
            names.iter().any(|name| {
                name.starts_with(".large.")
                    && fs::metadata(module.latest.join(name)).is_ok_and(|file| file.len() > 300_000)
            })
        };
        let slow = ["--archive", "--whole-file", "--bwlimit=500", option];
        let mut client = client()
            .args(slow)
            .arg(format!("{}/", source.display()))
            .arg(daemon.url("data/"))
            .stderr(Stdio::null())
            .spawn()
            .expect("a client");
        support::time::wait_until("a part of it has arrived", has_begun);
        client.kill().expect("killed");
        client.wait().expect("its end");
        let partial = module.latest.join(name).join("large");
        support::time::wait_until("the part is kept", || partial.exists());
        let run = daemon.push(&source, "data", &["--stats", "--no-whole-file", option]).exits(&[0]);
        assert!(!run.stdout().contains("Matched data: 0 bytes"), "{run}");
        assert!(
            fs::read(module.latest.join("large")).expect("a file") == content && !partial.exists()
        );
        fs::remove_file(module.latest.join("large")).expect("removed");
    }
}
