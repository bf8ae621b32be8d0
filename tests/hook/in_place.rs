//! A push that writes into the files that are there changes the newest snapshot, too, so comparing
//! the two shows nothing. What was recorded of the files does.

use crate::support;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rsyncd_snapshot::decide::grade::Grade;
use rsyncd_snapshot::decide::partial_dirs::PartialDirs;
use rsyncd_snapshot::internals::{
    ComparedTree, Comparison, InPlaceChanges, MachineMemory, Settings, SnapshotRoot,
    StagedSnapshot, Target, in_place_changes,
};
use support::module::{Module, NAME};
use support::run::{Run, tool};
use support::simulated::{EXPIRING, Simulated, settle};
use support::{have, tree};

fn open(module: &Module) -> SnapshotRoot {
    let mut settings = Settings::read(Some(&module.policy), Some(&module.rsyncd_conf));
    settings.memory = MachineMemory::new(vec![module.state_directory()]);
    let target = Target::of_module(&settings, Some(NAME.into()), &module.latest).expect("a target");
    target.open_root().expect("a root")
}

fn look(module: &Module) -> InPlaceChanges {
    settle();
    in_place_changes(&open(module)).expect("what is recorded")
}

/// The paths of what was changed, sorted.
fn changed(changes: &InPlaceChanges) -> Vec<String> {
    let mut paths: Vec<String> =
        changes.first.iter().map(|path| String::from_utf8(path.clone()).expect("UTF-8")).collect();
    paths.sort();
    assert_eq!(paths.len() as u64, changes.changed(), "{changes:?}");
    paths
}

/// Files that are alike, and one snapshot of them.
fn filled() -> Simulated {
    let module = Simulated::new(Module::new(), EXPIRING);
    fs::create_dir(module.latest.join("sub")).expect("a directory");
    for name in ["one", "two", "sub/three"] {
        fs::write(module.latest.join(name), "the content").expect("a file");
    }
    fs::hard_link(module.latest.join("one"), module.latest.join("sub/another name"))
        .expect("a link");
    module.publish_settled();
    module
}

fn rewrite(path: &Path, content: &str, keeps_time: bool) {
    let modified = fs::metadata(path).expect("the file").modified().expect("a time");
    let mut file = File::options().write(true).open(path).expect("the file");
    file.write_all(content.as_bytes()).expect("written");
    if keeps_time {
        file.set_modified(modified).expect("a time");
    }
}

#[test]
fn each_change_in_place_is_found_and_no_other() {
    only_hard_links!("the log of inodes");
    type Row = (&'static str, fn(&Path), &'static [&'static str]);
    let rows: [Row; 9] = [
        ("nothing", |_| (), &[]),
        (
            "more content",
            |live| rewrite(&live.join("two"), "the content and more", false),
            &["two"],
        ),
        (
            "other content, same size and time",
            |live| rewrite(&live.join("two"), "THE", true),
            &["two"],
        ),
        ("a deep one", |live| rewrite(&live.join("sub/three"), "THE", false), &["sub/three"]),
        (
            "less",
            |live| {
                File::options()
                    .write(true)
                    .open(live.join("two"))
                    .expect("the file")
                    .set_len(2)
                    .expect("cut")
            },
            &["two"],
        ),
        ("a mode", |live| tree::set_mode(&live.join("two"), 0o600), &["two"]),
        ("a new file", |live| fs::write(live.join("new"), "new").expect("a file"), &[]),
        (
            "another file of that name",
            |live| {
                fs::write(live.join("new"), "new").expect("a file");
                fs::rename(live.join("new"), live.join("two")).expect("renamed");
            },
            &[],
        ),
        ("a file removed", |live| fs::remove_file(live.join("two")).expect("removed"), &[]),
    ];
    for (what, change, expected) in rows {
        let module = filled();
        settle();
        change(&module.latest);
        let found = look(&module);
        assert_eq!(changed(&found), expected, "{what}: {found:?}");
        assert_eq!((found.unknown, found.unreadable), (0, 0), "{what}: {found:?}");
        assert_eq!(found.is_none(), expected.is_empty(), "{what}");
    }
}

#[test]
fn a_file_with_two_names_is_one_change() {
    only_hard_links!("the log of inodes");
    let module = filled();
    settle();
    rewrite(&module.latest.join("one"), "THE", true);
    let found = look(&module);
    assert_eq!((found.changed(), found.first.len()), (1, 1), "{found:?}");
}

#[test]
fn what_was_never_recorded_is_unknown() {
    only_hard_links!("the log of inodes");
    let module = filled();
    fs::remove_file(module.private("inodes/catalogue")).expect("removed");
    fs::write(module.latest.join("new"), "in no snapshot").expect("a file");
    let found = look(&module);
    assert_eq!((found.changed(), found.unknown), (0, 3), "{found:?}");
    assert!(!found.is_none());
}

#[test]
fn a_change_while_no_window_is_known_is_not_ours() {
    only_hard_links!("the log of inodes");
    let module = filled();
    assert!(look(&module).is_none());
    tree::write(&module.latest.join("new"), "");
    module.publish_settled();
    assert!(look(&module).is_none());
    fs::remove_file(module.private("inodes/windows")).expect("removed");
    // Our links have moved the change times of all four files, but nothing tells.
    assert_eq!(look(&module).changed(), 4);
}

#[test]
fn our_own_links_and_removals_are_no_change() {
    only_hard_links!("the log of inodes");
    let module = filled();
    for number in 0..3 {
        tree::write(&module.latest.join("sub/new"), &number.to_string());
        module.publish_settled();
        assert!(look(&module).is_none(), "{number}");
    }
    module.server.run(&["rotate", "--confirm", "--purge", NAME]);
    assert!(look(&module).is_none(), "after a removal");
}

#[test]
fn rsync_in_place_is_found_where_comparing_finds_nothing() {
    slow!();
    only_hard_links!("the log of inodes");
    if !have(&["rsync"]) {
        return;
    }
    let table: [(&[&str], &str); 3] = [
        (&["--inplace"], "other content, and longer"),
        (&["--append"], "the content and more"),
        (&["--inplace", "-I"], "THE CONTENT"),
    ];
    for (options, content) in table {
        let module = filled();
        let source = module.directory.join("source");
        fs::create_dir(&source).expect("a directory");
        fs::write(source.join("two"), content).expect("a file");
        let modified = fs::metadata(module.latest.join("two")).and_then(|file| file.modified());
        tree::set_mtime(&source.join("two"), modified.expect("a time"));
        let before = fs::metadata(module.latest.join("two")).expect("the file").ino();
        settle();
        let mut rsync = tool("rsync");
        Run::of(
            rsync
                .args(["-t", "--no-whole-file"])
                .args(options)
                .arg(source.join("two"))
                .arg(&module.latest),
        )
        .exits(&[0]);
        assert_eq!(
            fs::read_to_string(module.latest.join("two")).expect("a file"),
            content,
            "{options:?}"
        );
        assert_eq!(
            fs::metadata(module.latest.join("two")).expect("the file").ino(),
            before,
            "{options:?}"
        );
        assert_eq!(changed(&look(&module)), ["two"], "{options:?}");
    }
}

/// Makes a snapshot as a run does that has found `changes`, out of the retired one `recycle` or
/// afresh.
fn publish(module: &Module, changes: &InPlaceChanges, recycle: Option<&str>, time: &str) -> String {
    let root = open(module);
    let staged =
        StagedSnapshot::build(&root, recycle, ComparedTree::default(), &PartialDirs::default())
            .expect("staged");
    assert!(
        staged.refusal.is_none() && staged.recycled.as_deref() == recycle,
        "{:?}",
        staged.refusal
    );
    staged.record_in_place(&root, changes);
    let record =
        staged.record(time.parse().expect("a time"), Grade::Complete, &Comparison::default());
    let name = time.replace(':', "-");
    assert!(staged.publish(&root, &name, &record).expect("published").is_none());
    name
}

#[test]
fn a_snapshot_of_a_change_in_place_is_blamed_for_nothing() {
    slow!();
    only_hard_links!("the log of inodes");
    for (is_recycled, content) in [
        (false, "the content and more"),
        (true, "the content and more"),
        (false, "THE"),
        (true, "THE"),
    ] {
        let what = format!("recycled: {is_recycled}, {content}");
        let module = filled();
        tree::write(&module.latest.join("sub/new"), "x");
        let earlier = module.publish_settled();
        let retired = module.retired().to_string_lossy().into_owned();
        settle();
        rewrite(&module.latest.join("two"), content, content == "THE");
        let found = look(&module);
        assert_eq!(changed(&found), ["two"], "{what}");

        let recycle = Some(retired.rsplit('/').next().expect("a name")).filter(|_| is_recycled);
        let later = publish(&module, &found, recycle, "2025-04-01T00:00:00Z");

        // The next push compares right again.
        let next = look(&module);
        assert!(next.is_none(), "{what}: {next:?}");
        // What was before is told as ever: that history was rewritten.
        let json = module.server.run(&["verify", "--json", NAME]).exits(&[1]).json();
        let altered = json["altered"].as_array().expect("a list").clone();
        assert_eq!(altered.len(), 1, "{what}: {json:#}");
        assert_eq!(altered[0]["path"], "two", "{what}");
        assert_eq!(altered[0]["snapshots"], serde_json::json!([earlier]), "{what}: not {later}");
        // And once that is accepted, nothing is.
        module.server.run(&["release", "--damage", NAME]).exits(&[0]);
        module.server.run(&["verify", NAME]).exits(&[0]);
        assert!(look(&module).is_none(), "{what}: after it was accepted");
        rewrite(&module.latest.join("two"), "AGAIN", true);
        assert_eq!(changed(&look(&module)), ["two"], "{what}: once more");
    }
}
