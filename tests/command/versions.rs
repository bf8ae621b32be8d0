//! `versions`: the versions of files and directories across the snapshots, retired ones and the
//! module itself, on histories of real pushes, under every name, and where things are missing.

use crate::support;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;
use support::file_system::Mount;
use support::module::{Module, NAME};
use support::run::Run;
use support::simulated::Simulated;
use support::subvolumes::copy_snapshot;
use support::{AS_ORDINARY_USER, have, is_root, may_mount, tree};

use crate::restore_lost_roots::open_to_an_ordinary_user;

const ALL: &str = "[defaults]\nkeep = { hourly = \"always\" }\ntime_zone = \"UTC\"\n";

const OLD: [&str; 4] = [
    "2020-01-01T10-00-00Z",
    "2020-01-02T10-00-00Z",
    "2020-01-03T10-00-00Z-partial",
    "2020-01-04T10-00-00Z",
];

/// Writes a new file, as rsync does, whose time is so many seconds after 1970.
fn put(path: &Path, text: &str, seconds: u64) {
    let _ = fs::remove_file(path);
    tree::write(path, text);
    tree::set_mtime(path, UNIX_EPOCH + Duration::from_secs(seconds));
}

/// What is new in a snapshot against the one before it: files with texts and times.
type Change<'a> = &'a [(&'a str, &'a str, u64)];

/// A module with the snapshots `OLD`, each with links to what does not change in it.
fn with_history(changes: [Change; 4]) -> Module {
    let module = Module::new();
    module.write_policy("[defaults]\ntime_zone = \"UTC\"\nmin_keep = 1\nmin_age = \"0s\"\n");
    module.register();
    for (name, changes) in OLD.iter().zip(changes) {
        for (path, text, seconds) in changes {
            let path = module.latest.join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("directories");
            put(&path, text, *seconds);
        }
        link_tree(&module.latest, &module.snapshot(name));
    }
    module
}

fn link_tree(from: &Path, to: &Path) {
    copy_snapshot(from, to);
}

fn versions(module: &Module, arguments: &[&str]) -> Run {
    module.run(&[&["versions"], arguments].concat())
}

/// The paths in the JSON of `versions`.
#[track_caller]
fn paths(module: &Module, arguments: &[&str]) -> Vec<Value> {
    let run = versions(module, &[arguments, &["--json"]].concat()).exits(&[0]);
    run.json()["paths"].as_array().expect("a list").clone()
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|name| name.as_str().expect("a name")).collect()
}

/// First, last, how many snapshots, and whether the module has it.
fn extent(one: &Value) -> (Option<&str>, Option<&str>, usize, bool) {
    let text = |key: &str| one[key].as_str();
    (text("first"), text("last"), names(&one["snapshots"]).len(), one["live"] == true)
}

#[test]
fn two_hundred_pushes_show_as_versions_with_a_gap() {
    slow!();
    let module = Simulated::new(Module::new(), ALL);
    let path = module.latest.join("sub/file");
    fs::create_dir_all(module.latest.join("sub/other")).expect("a directory");
    tree::odd_names(&module.latest.join("odd"));
    put(&path, "first", 1_000);
    let mut taken = Vec::new();
    for number in 0..200 {
        match number {
            50 => put(&path, "the second", 2_000),
            100 => fs::remove_file(&path).expect("removed"),
            102 => put(&path, "the third", 3_000),
            120 => tree::set_mode(&module.latest.join("sub/other"), 0o700),
            _ => {}
        }
        put(&module.latest.join("hour"), &number.to_string(), number);
        module.pass(1);
        module.run().exits(&[0]);
        taken.push(module.name());
    }
    assert_eq!(module.snapshots(), taken);
    let at = |number: usize| Some(taken[number].as_str());

    let found = paths(&module, &[NAME, "sub/file"]);
    let of_file = found[0]["versions"].as_array().expect("a list");
    assert_eq!(
        of_file.iter().map(extent).collect::<Vec<_>>(),
        [(at(0), at(49), 50, false), (at(50), at(99), 50, false), (at(102), at(199), 98, true)]
    );
    let gaps = found[0]["missing"].as_array().expect("a list");
    assert_eq!(gaps.iter().map(extent).collect::<Vec<_>>(), [(at(100), at(101), 2, false)]);
    let second = &of_file[1];
    assert_eq!((&second["kind"], &second["size"]), (&"file".into(), &10.into()), "{second:#}");
    assert_eq!(second["changed"], "1970-01-01T00:33:20Z");
    assert_eq!(names(&second["snapshots"]), taken[50..100]);
    let copy = second["copy_from"].as_str().expect("a path");
    assert_eq!(Path::new(copy), module.snapshot(&taken[99]).join("sub/file"));
    assert_eq!(fs::read_to_string(copy).expect("the file"), "the second");

    // A directory has a version for each state of its own, and `.` is that of the module.
    let found = paths(&module, &[NAME, "sub", "sub/other", "."]);
    let count = |one: &Value| one["versions"].as_array().expect("a list").len();
    assert_eq!(found.iter().map(count).collect::<Vec<_>>()[..2], [4, 2]);
    assert_eq!(found[1]["versions"][1]["mode"], "0700");
    assert_eq!(found[2]["path"], ".");

    let run = versions(&module, &[NAME, "sub/file"]).exits(&[0]);
    let told = format!("missing in 2 snapshots, {} to {}", taken[100], taken[101]);
    let run = run.says(&format!("{NAME}: 3 versions of sub/file in 200 snapshots")).says(&told);
    assert!(run.stdout().lines().filter(|line| !line.contains('/')).all(|line| line.len() <= 80));

    // Each odd name, as a pattern finds it.
    let found = paths(&module, &[NAME, "odd/[!*]*"]);
    let visible = |name: &OsString| !name.as_bytes().starts_with(b".") && name != "*";
    let entries = fs::read_dir(module.latest.join("odd")).expect("a directory");
    let expected: BTreeSet<OsString> =
        entries.map(|entry| entry.expect("an entry").file_name()).filter(visible).collect();
    assert_eq!(found.len(), expected.len());
    for one in &found {
        assert_eq!(extent(&one["versions"][0]), (at(0), at(199), 200, true), "{one:#}");
    }
    // What is there by that name is no pattern.
    assert_eq!(paths(&module, &[NAME, "odd/*"]).len(), 1);
    for name in &expected {
        let mut command = module.command(&["versions", NAME]);
        let path = [b"./odd/", name.as_bytes()].concat();
        let run = Run::of(command.arg(OsStr::from_bytes(&path))).exits(&[0]);
        assert!(
            run.says("1 version of odd/")
                .bytes()
                .iter()
                .all(|byte| *byte >= b' ' || *byte == b'\n')
        );
    }
    if have(&["strace"]) {
        let trace = module.directory.join("trace");
        let strace = ["strace", "-f", "-o", trace.to_str().expect("UTF-8")];
        let mut command = module.command_through(&strace, &["versions", NAME, "sub/file"]);
        Run::of(&mut command).exits(&[0]);
        let calls = fs::read_to_string(&trace).expect("the trace").lines().count();
        assert!(calls < 200 * 12 + 1_500, "{calls} calls for 200 snapshots");
    }
}

#[test]
fn copies_of_a_file_are_one_version_if_their_content_is() {
    let module = with_history([
        &[("same", "text", 5), ("other", "text", 5), ("link", "x", 5)],
        &[("same", "text", 5), ("other", "TEXT", 5)],
        &[("same", "text", 5)],
        &[("same", "text", 6)],
    ]);
    let found = paths(&module, &[NAME, "same", "other"]);
    let extents = |one: &Value| -> Vec<usize> {
        one["versions"].as_array().expect("a list").iter().map(|it| extent(it).2).collect()
    };
    assert_eq!((extents(&found[0]), extents(&found[1])), (vec![3, 1], vec![1, 3]));
    assert_eq!(found[0]["versions"][0]["compared"], true);
    // The size says that they differ, whatever the time says.
    put(&module.latest.join("same"), "longer text", 6);
    assert_eq!(extents(&paths(&module, &[NAME, "same"])[0]), [3, 1, 0]);
    // A copy that cannot be told from the others by what is on the outside.
    put(&module.latest.join("same"), "text", 5);
    let found = paths(&module, &[NAME, "same"]);
    assert_eq!(extents(&found[0]), [3, 1]);
    assert_eq!(found[0]["versions"][0]["live"], true);
    versions(&module, &[NAME, "same"])
        .exits(&[0])
        .says("the version of 2020-01-01T10-00-00Z again");
    if tree::set_attribute(&module.latest.join("same"), "user.comment", b"x") {
        assert_eq!(extents(&paths(&module, &[NAME, "same"])[0]), [3, 1, 0]);
    }
}

#[test]
fn retired_and_partial_snapshots_and_the_module_are_told_apart() {
    let module = with_history([
        &[("file", "one", 1), ("always", "x", 1)],
        &[("file", "second", 2)],
        &[("file", "third one", 3)],
        &[("file", "the fourth", 4)],
    ]);
    put(&module.latest.join("file"), "live", 5);
    put(&module.latest.join("new"), "only live", 6);
    module.run(&["expire", NAME, OLD[0], OLD[1]]).exits(&[0, 4]);
    let found = paths(&module, &[NAME, "file", "always", "new"]);
    let of_file = found[0]["versions"].as_array().expect("a list");
    let facts = |one: &Value| (one["grade"].clone(), names(&one["retired"]).len());
    assert_eq!(
        of_file.iter().map(facts).collect::<Vec<_>>(),
        [
            ("complete".into(), 1),
            ("complete".into(), 1),
            ("partial".into(), 0),
            ("complete".into(), 0),
            (Value::Null, 0)
        ]
    );
    let copy = |one: &Value| PathBuf::from(one["copy_from"].as_str().expect("a path"));
    assert_eq!(copy(&of_file[0]), module.retired_snapshot(OLD[0]).join("file"));
    assert_eq!(copy(&of_file[4]), module.latest.join("file"));
    assert_eq!(extent(&of_file[4]), (None, None, 0, true));
    assert_eq!(copy(&found[1]["versions"][0]), module.snapshot(OLD[3]).join("always"));
    assert_eq!(extent(&found[1]["versions"][0]), (Some(OLD[0]), Some(OLD[3]), 4, true));
    assert_eq!(extent(&found[2]["versions"][0]), (None, None, 0, true));
    let run = versions(&module, &[NAME, "file"]).exits(&[0]);
    let run = run.says("5 versions of file in 4 snapshots, 2 of them retired");
    run.says("only in partial snapshots").says(&format!("retired: {}", OLD[0])).says("`undelete`");
    // What the JSON names can be given to `expire`.
    module.run(&["expire", "-n", NAME, names(&of_file[2]["snapshots"])[0]]).exits(&[0, 4]);
    fs::remove_file(module.latest.join("always")).expect("removed");
    let run = versions(&module, &[NAME, "always"]).exits(&[0]);
    run.says("missing in the module now");
}

#[test]
fn a_path_in_a_module_or_snapshot_needs_no_module() {
    let module = with_history([
        &[("sub/file", "one", 1), ("sub/other", "x", 1)],
        &[("sub/file", "second", 2)],
        &[],
        &[],
    ]);
    module.run(&["expire", NAME, OLD[0]]).exits(&[0, 4]);
    let spoofed = module.latest.join("sub/2019-01-01T00-00-00Z");
    fs::create_dir_all(spoofed.join(".rsyncd-snapshot")).expect("a directory");
    tree::write(&spoofed.join("file"), "x");
    tree::write(&module.latest.join("sub/.rsyncd-snapshot"), "x");
    let retired = module.retired_snapshot(OLD[0]).join("sub/file");
    let ask = |from: &Path, words: &[&OsStr]| {
        let mut command = module.command(&["versions"]);
        Run::of(command.args(words).current_dir(from))
    };
    let inside = module.latest.join("sub");
    let snapshot = module.snapshot(OLD[2]).join("sub");
    let says = format!("{NAME}: 2 versions of sub/file in 4 snapshots");
    for path in [&inside, &snapshot] {
        ask(path, &["file".as_ref()]).exits(&[0]).says(&says);
        ask(path, &["./../sub/file".as_ref()]).exits(&[0]).says(&says);
        ask(Path::new("/"), &[path.join("file").as_ref()]).exits(&[0]).says(&says);
        let run = ask(path, &["fil?".as_ref(), "other".as_ref()]).exits(&[0]).says(&says);
        run.says("1 version of sub/other in");
        ask(path, &[".".as_ref()]).exits(&[0]).says("of sub in 4 snapshots");
        // With a module it is a path of that, wherever the command runs.
        ask(path, &[NAME.as_ref(), "sub/file".as_ref()]).exits(&[0]).says(&says);
    }
    ask(Path::new("/"), &[retired.as_ref()]).exits(&[0]).says(&says);
    ask(&module.latest, &[module.latest.as_ref()]).exits(&[0]).says("of . in 4 snapshots");
    ask(&spoofed, &["file".as_ref()])
        .exits(&[0])
        .says("of sub/2019-01-01T00-00-00Z/file in 4 snap");
    for module_word in [module.root.as_os_str(), module.latest.as_ref(), NAME.as_ref()] {
        ask(Path::new("/"), &[module_word, "sub/file".as_ref()]).exits(&[0]).says(&says);
        let path = module.latest.join("sub/file");
        ask(Path::new("/"), &[module_word, path.as_ref()]).exits(&[0]).says(&says);
    }
    // What is meant is not known.
    let root = Path::new("/");
    ask(root, &["file".as_ref()]).exits(&[2]).says("the working directory lies in no module");
    ask(root, &[NAME.as_ref()]).exits(&[2]).says("name a path in it");
    ask(root, &["dat".as_ref(), "file".as_ref()]).exits(&[2]).says("did you mean data?");
    ask(root, &["/nowhere/file".as_ref()]).exits(&[2]).says("/nowhere/file lies in no module");
    ask(root, &[module.root.as_ref()]).exits(&[2]).says("name a path in it");
    ask(&inside, &["file".as_ref(), "/etc/fstab".as_ref()])
        .exits(&[2])
        .says("does not lie in data");
    ask(root, &[NAME.as_ref(), "".as_ref()]).exits(&[2]).says("a path is empty");
    ask(root, &[NAME.as_ref(), module.private("lock").as_ref()]).exits(&[2]).says("in no snapshot");
}

#[test]
fn a_path_that_is_nowhere_comes_with_the_nearest_names() {
    let module = with_history([
        &[("etc/fstab", "x", 1), ("etc/passwd", "x", 1), ("etc/.hidden", "x", 1), ("top", "x", 1)],
        &[],
        &[],
        &[],
    ]);
    std::os::unix::fs::symlink("etc", module.latest.join("link")).expect("a link");
    fs::remove_file(module.latest.join("etc/passwd")).expect("removed");
    let ask = |path: &str| versions(&module, &[NAME, path]).exits(&[2]);
    ask("etc/fstb").says("no snapshot has etc/fstb, nor has the module (the nearest: etc/fstab, ");
    ask("etc/passwt").says("(the nearest: etc/passwd, ");
    ask("ect/fstab").says("(the nearest: etc, ");
    ask("etc/fstab/x").says("no snapshot has etc/fstab/x");
    ask("link/fstab").says("link is a symbolic link to etc, which is not followed");
    ask("nothing*").says("nothing matches nothing*");
    let run = versions(&module, &[NAME, "etc/fstab", "etc/fstb", "*/none", "--json"]).exits(&[2]);
    assert_eq!(run.json()["paths"].as_array().map(Vec::len), Some(1), "{run}");
    run.says("etc/fstb").says("nothing matches */none");
    let found = paths(&module, &[NAME, "*"]);
    let shown: Vec<&str> = found.iter().map(|one| one["path"].as_str().expect("text")).collect();
    assert_eq!(shown, ["etc", "link", "top"]);
    assert_eq!(found[1]["versions"][0]["target"], "etc");
    assert_eq!(paths(&module, &[NAME, "*/.*"]).len(), 1);
    assert_eq!(paths(&module, &[NAME, "e[a-z]c/p*"]).len(), 1);
    let many = ["*"; 17].join("/");
    ask(&many).says("more than 16 names with wildcards");
    fs::create_dir(module.latest.join("many")).expect("a directory");
    (0..1_001).for_each(|number| tree::write(&module.latest.join(format!("many/{number}")), ""));
    ask("many/*").says("stands for more than 1000 paths");
}

#[test]
fn damaged_files_are_marked() {
    only_hard_links!("writes in place that change snapshots");
    let module = Module::new();
    fs::create_dir(module.latest.join("sub")).expect("a directory");
    put(&module.latest.join("sub/file"), "as it was", 1_000);
    let mut taken = Vec::new();
    for number in 0..2 {
        tree::write(&module.latest.join("number"), &number.to_string());
        taken.push(module.expect_snapshot());
        std::thread::sleep(Duration::from_millis(50));
    }
    module.run(&["verify", NAME]).exits(&[0]);
    std::thread::sleep(Duration::from_millis(50));
    fs::write(module.latest.join("sub/file"), "changed in place").expect("written");
    module.run(&["verify", NAME]).exits(&[1]);
    let found = paths(&module, &[NAME, "sub/file", "sub", "number"]);
    assert_eq!(names(&found[0]["versions"][0]["damaged"]), taken);
    assert_eq!(names(&found[1]["versions"][0]["damaged"]), taken);
    assert!(names(&found[2]["versions"][0]["damaged"]).is_empty());
    let run = versions(&module, &[NAME, "sub/file"]).exits(&[0]);
    run.says("altered in place after the backup (size")
        .says(&format!("in 2 snapshots, {}", taken[0]));
    versions(&module, &[NAME, "sub"]).exits(&[0]).says("1 file in it altered in place");
}

#[test]
fn versions_show_out_of_broken_roots_and_modules() {
    let module =
        with_history([&[("file", "one", 1)], &[("file", "second", 2)], &[], &[("x", "x", 3)]]);
    let root = module.root.to_str().expect("UTF-8");
    let says = "2 versions of file in 4 snapshots";
    module.write_policy("[defaults]\nkeep = 3\n");
    versions(&module, &[root, "file"]).exits(&[0]).says(says);
    module.write_policy("");
    let other = "2019-08-02 12:00:00";
    link_tree(&module.latest, &module.snapshot(other));
    versions(&module, &[root, "x"]).exits(&[0]).says("1 version of x in 5 snapshots");
    fs::rename(module.snapshot(other), module.directory.join("away")).expect("moved");
    let away = module.directory.join("lost");
    fs::rename(&module.latest, &away).expect("moved");
    versions(&module, &[NAME, "file"]).exits(&[0]).says(says);
    let lost = module.latest.join("file");
    versions(&module, &[lost.to_str().expect("UTF-8")]).exits(&[0]).says(says);
    versions(&module, &[NAME, "nothing"]).exits(&[2]).says("no snapshot has nothing");
    fs::rename(&away, &module.latest).expect("moved back");
    // Another machine's disk: nothing is known but the directory.
    let moved = module.directory.join("moved");
    fs::rename(&module.root, &moved).expect("moved");
    module.write_rsyncd_conf("");
    fs::remove_dir_all(moved.join(".rsyncd-snapshot")).expect("removed");
    for path in [vec!["file"], vec!["*"]] {
        let words = [&[moved.to_str().expect("UTF-8")], &path[..]].concat();
        versions(&module, &words).exits(&[0]).says(says);
    }
    let path = moved.join(OLD[1]).join("file");
    versions(&module, &[path.to_str().expect("UTF-8")]).exits(&[0]).says(says);
    versions(&module, &[root, "file"]).exits(&[1, 2]);
    // No module has a snapshot.
    let module = Module::new();
    tree::write(&module.latest.join("file"), "x");
    versions(&module, &[NAME, "file"]).exits(&[0]).says("1 version of file in 0 snapshots");
    versions(&module, &[NAME, "other"]).exits(&[2]).says("no snapshot has other");
}

#[test]
fn what_is_mounted_in_the_module_is_not_looked_at() {
    if !may_mount() {
        return;
    }
    let module = with_history([&[("sub/file", "x", 1)], &[], &[], &[]]);
    let inside = module.latest.join("mounted");
    fs::create_dir(&inside).expect("a directory");
    let Some(mounted) = Mount::tmpfs(&inside) else { return };
    tree::write(&inside.join("file"), "x");
    let run = versions(&module, &[NAME, "mounted/file"]).exits(&[2]);
    run.says("another file system is mounted there").says("that could be looked at");
    assert_eq!(paths(&module, &[NAME, "*/file"]).len(), 1);
    drop(mounted);
}

#[test]
fn a_path_of_thousands_of_levels_has_versions() {
    slow!();
    let module = Module::new();
    // Confined by Landlock, the time of a run grows with the square of the depth. A path of a
    // thousand such levels is longer than the kernel takes, too.
    let levels = support::by_sweep(1_000, 3_000, 3_000);
    tree::deep(&module.latest.join("deep"), levels, 8);
    let path: Vec<String> = (0..levels).map(|level| format!("{level:08}")).collect();
    let path = format!("deep/{}/", path.join("/"));
    module.expect_snapshot();
    let run = versions(&module, &[NAME, &path, "--json"]).exits(&[0]).json();
    assert_eq!(extent(&run["paths"][0]["versions"][0]).2, 1);
    versions(&module, &[NAME, &format!("{path}nothing")]).exits(&[2]).says("no snapshot has deep/");
}

#[test]
fn an_ordinary_user_sees_versions_of_what_may_be_read() {
    if !is_root() || !have(&["setpriv"]) {
        return;
    }
    let mut module = with_history([
        &[("open/file", "one", 1), ("closed/file", "x", 1)],
        &[("open/file", "second", 2)],
        &[],
        &[],
    ]);
    for tree in OLD.iter().map(|name| module.snapshot(name)).chain([module.latest.clone()]) {
        tree::set_mode(&tree, 0o755);
        tree::set_mode(&tree.join("open"), 0o755);
    }
    tree::set_mode(&module.snapshot(OLD[1]).join("closed"), 0o700);
    open_to_an_ordinary_user(&mut module);
    let ask = |words: &[&str]| {
        let mut command = module.command_through(&AS_ORDINARY_USER, &["versions"]);
        command.args(words).env_remove("HOME").env_remove("PATH");
        Run::of(&mut command)
    };
    let root = module.root.to_str().expect("UTF-8");
    let run = ask(&[NAME, "open/file"]).exits(&[0]).says("2 versions of open/file in 4 snapshots");
    run.says("retired snapshots are left out");
    let path = format!("{root}/latest/open/file");
    ask(&[&path]).exits(&[0]).says("2 versions of open/file");
    ask(&[root, "open/file"]).exits(&[0]).says("2 versions of open/file");
    let run = ask(&[NAME, "closed/file"]).exits(&[4]).says("1 version of closed/file");
    run.says("not everything could be looked at").says("Permission denied");
}

#[test]
fn two_stars_match_at_any_depth_in_all_trees() {
    let module = with_history([
        &[("a.conf", "x", 1), ("etc/a.conf", "x", 1), ("etc/sub/gone.conf", "x", 1)],
        &[("etc/.hidden/b.conf", "x", 1), ("etc/sub/c.conf/d.conf", "x", 1)],
        &[],
        &[],
    ]);
    std::os::unix::fs::symlink("etc", module.latest.join("link")).expect("a link");
    fs::remove_file(module.latest.join("etc/sub/gone.conf")).expect("removed");
    module.run(&["expire", NAME, OLD[0]]).exits(&[0, 4]);
    let found = |pattern: &str| -> Vec<String> {
        let found = paths(&module, &[NAME, pattern]);
        found.iter().map(|one| one["path"].as_str().expect("text").to_string()).collect()
    };
    for (pattern, expected) in [
        (
            "**/*.conf",
            &[
                "a.conf",
                "etc/.hidden/b.conf",
                "etc/a.conf",
                "etc/sub/c.conf",
                "etc/sub/c.conf/d.conf",
                "etc/sub/gone.conf",
            ][..],
        ),
        ("etc/**/[bd].conf", &["etc/.hidden/b.conf", "etc/sub/c.conf/d.conf"]),
        ("**/sub", &["etc/sub"]),
        ("e*/**/gone.conf", &["etc/sub/gone.conf"]),
        ("**/c.conf/*", &["etc/sub/c.conf/d.conf"]),
        ("link/**", &["link"]),
        (
            "*/**",
            &[
                "a.conf",
                "etc",
                "etc/.hidden",
                "etc/.hidden/b.conf",
                "etc/a.conf",
                "etc/sub",
                "etc/sub/c.conf",
                "etc/sub/c.conf/d.conf",
                "etc/sub/gone.conf",
                "link",
            ],
        ),
    ] {
        assert_eq!(found(pattern), expected, "{pattern}");
    }
    assert_eq!(found("**").len(), 11);
    let path = module.latest.join("**/d.conf");
    versions(&module, &[path.to_str().expect("UTF-8")]).exits(&[0]).says("of etc/sub/c.conf/d.c");
    versions(&module, &[NAME, "**/none"]).exits(&[2]).says("nothing matches **/none");
}

/// As in rsync's rules: a backslash takes the meaning of what follows only beside wildcards.
#[test]
fn a_backslash_without_wildcards_stands_for_itself() {
    let module = Module::new();
    let names: [&[u8]; 7] =
        [br"a\b", b"st*r", b"q?m", b"a[1]", br"tail\", b"new\nline", b"latin\xe9"];
    for name in names {
        fs::write(module.latest.join(OsStr::from_bytes(name)), "x").expect("a file");
    }
    module.run(&["snapshot", NAME]).exits(&[0]);
    // Each name is found as it is written.
    for name in names {
        let mut command = module.command(&["versions", NAME]);
        Run::of(command.arg(OsStr::from_bytes(name))).exits(&[0]).says("1 version of");
    }
    for (pattern, shown) in [
        (r"st\*r", Some("st*r")),
        (r"q\?m", Some("q?m")),
        (r"a\[1]", Some("a[1]")),
        (r"a\\?", Some(r"a\\b")),
        ("new?line", Some(r"new\x0aline")),
        ("latin?", Some(r"latin\xe9")),
        (r"a\\b", None),
        (r"new\x0aline", None),
    ] {
        let run = module.run(&["versions", NAME, pattern]);
        match shown {
            Some(shown) => run.exits(&[0]).says(&format!("1 version of {shown} in")),
            None => run.exits(&[2]).says("no snapshot has"),
        };
    }
}

/// What `versions` finds, with all that is in it, is what `diff` compares.
#[test]
fn versions_and_diff_read_a_pattern_alike() {
    let module = with_history([&[], &[], &[], &[]]);
    for path in ["a.c", ".a.c", "a[1]", "a1", "d/a.c", "d/.h/a.c", "d/e/d/x", "d/e/b", "e/d"] {
        let path = module.latest.join(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("directories");
        tree::write(&path, "x");
    }
    let entries = |run: &Run| -> BTreeSet<String> {
        let path = |line: &str| line.split_at(28).1.trim_end_matches('/').to_string();
        run.stdout().lines().map(path).filter(|path| path != ".").collect()
    };
    let all = entries(&module.run(&["diff", "-q", NAME, OLD[0]]).exits(&[0]));
    assert_eq!(all.len(), 14, "{all:?}");
    for pattern in [
        "*",
        "**",
        "**/*",
        "*.c",
        "**/*.c",
        "**/.*",
        "d/**",
        "**/d",
        "**/d/**/x",
        "d/*/d",
        "a[[]1]",
        "?",
        "*/?",
        "[!d]*",
        r"\.*c",
        "**/**/b",
        "d/**/d/**",
    ] {
        let compared = module.run(&["diff", "-q", NAME, OLD[0], "live", "--", pattern]).exits(&[0]);
        let found = versions(&module, &[NAME, pattern, "--json"]).exits(&[0]).json();
        let found = found["paths"].as_array().expect("a list").clone();
        let found: Vec<&str> =
            found.iter().map(|one| one["path"].as_str().expect("text")).collect();
        let is_in = |path: &&String| {
            let below = |one: &&str| path.starts_with(*one) && path[one.len()..].starts_with('/');
            found.iter().any(|one| *one == "." || one == path || below(one))
        };
        let expected: BTreeSet<String> = all.iter().filter(is_in).cloned().collect();
        assert_eq!(entries(&compared), expected, "{pattern}: {found:?}");
    }
}

#[test]
fn two_stars_stand_for_any_number_of_levels_within_bounds() {
    slow!();
    let module = Module::new();
    // More levels than a process may have open directories, and longer than any path.
    tree::deep(&module.latest.join("deep"), 3_000, 8);
    module.expect_snapshot();
    let limited = |pattern: &str| {
        let script = "ulimit -n 128; exec \"$@\"";
        let words = ["versions", NAME, pattern, "--json"];
        Run::of(&mut module.command_through(&["sh", "-c", script, "sh"], &words))
    };
    let run = limited("**/00002999").exits(&[0]).json();
    assert_eq!(extent(&run["paths"][0]["versions"][0]).2, 1);
    limited("**/file").exits(&[2]).says("stands for");
    limited("deep/**").exits(&[2]).says("name fewer");
}
