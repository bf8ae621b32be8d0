//! `diff`: what changed between two snapshots, or between a snapshot and the module. Answers are
//! compared with those of plain calls on paths, and odd trees, names and users get one, too.

use crate::support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, chown, symlink};
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use support::edits::Edits;
use support::module::Module;
use support::random::Random;
use support::run::{Run, copy_program, tool};
use support::simulated::settle;
use support::subvolumes::{are_subvolumes, remove_snapshot};
use support::{AS_ORDINARY_USER, fingerprint, have, is_root, root, tree};

/// What differs by path, as words.
type Differences = BTreeMap<String, String>;

/// A path as our program escapes it.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                other if other.is_control() => text.push_str(&format!("\\x{:02x}", other as u32)),
                other => text.push(other),
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

/// What `--json` says.
#[track_caller]
fn told(run: Run) -> Differences {
    let text = run.exits(&[0]).stdout();
    let mut differences = Differences::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let words: Vec<&str> =
            line["what"].as_array().expect("words").iter().filter_map(Value::as_str).collect();
        let path = line["path"].as_str().expect("a path").to_string();
        let difference =
            format!("{} {}", line["difference"].as_str().expect("a word"), words.join(","));
        let known = differences.insert(path.clone(), difference.trim_end().to_string());
        assert_eq!(known, None, "{path} is told twice: {text}");
    }
    differences
}

/// The same by plain calls.
fn expected(old: &Path, new: &Path) -> Differences {
    let mut differences = Differences::new();
    compare(old, new, b"", &mut differences);
    differences
}

fn names(directory: &Path) -> Vec<std::ffi::OsString> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.expect("an entry").file_name()).collect()
}

fn kind(metadata: &fs::Metadata) -> u32 {
    metadata.mode() & 0o170_000
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; 4_096];
    let length = rustix::fs::llistxattr(path, &mut list).unwrap_or(0);
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 4_096];
        let name = std::ffi::CString::new(name).expect("no NUL");
        let length = rustix::fs::lgetxattr(path, name, &mut value).unwrap_or(0);
        value[..length].to_vec()
    };
    names
        .filter(|name| name.starts_with(b"user.") || name.starts_with(b"system."))
        .map(|name| (name.to_vec(), value(name)))
        .collect()
}

fn compare(old: &Path, new: &Path, path: &[u8], differences: &mut Differences) {
    let state = |path: &Path| path.symlink_metadata().ok();
    let shown = if path.is_empty() { ".".to_string() } else { escaped(path) };
    let (before, after) = (state(old), state(new));
    match (&before, &after) {
        (None, None) => return,
        (None, Some(_)) => drop(differences.insert(shown, "added".to_string())),
        (Some(_), None) => drop(differences.insert(shown, "removed".to_string())),
        (Some(a), Some(b)) if (a.dev(), a.ino()) == (b.dev(), b.ino()) => return,
        (Some(a), Some(b)) => {
            let mut words = Vec::new();
            let mut note = |word, differs| words.extend(Some(word).filter(|_| differs));
            if kind(a) == kind(b) {
                let is_other = |a: &Path, b: &Path| fs::read(a).ok() != fs::read(b).ok();
                note("content", a.is_file() && is_other(old, new));
                note(
                    "target",
                    a.is_symlink() && fs::read_link(old).ok() != fs::read_link(new).ok(),
                );
                let is_device = a.file_type().is_char_device() || a.file_type().is_block_device();
                note("device", is_device && a.rdev() != b.rdev());
                note("size", a.is_file() && a.len() != b.len());
                note("time", (a.mtime(), a.mtime_nsec()) != (b.mtime(), b.mtime_nsec()));
                note("owner", (a.uid(), a.gid()) != (b.uid(), b.gid()));
                note("mode", !a.is_symlink() && a.mode() != b.mode());
                note("xattr", xattrs(old) != xattrs(new));
            } else {
                note("type", true);
            }
            if !words.is_empty() {
                differences.insert(shown, format!("changed {}", words.join(",")));
            }
        }
    }
    // A symbolic link in the place of a directory holds nothing, wherever it leads.
    let directories = [(old, before), (new, after)].map(|(directory, state)| {
        let is_directory = state.is_some_and(|state| state.is_dir());
        if is_directory { directory } else { Path::new("/dev/null") }
    });
    let [old, new] = directories;
    let mut below: Vec<_> = directories.into_iter().flat_map(names).collect();
    below.sort();
    below.dedup();
    for name in below {
        let slash = if path.is_empty() { &b""[..] } else { b"/" };
        let path = [path, slash, name.as_bytes()].concat();
        compare(&old.join(&name), &new.join(&name), &path, differences);
    }
}

#[test]
fn any_two_states_of_a_random_history_differ_as_plain_calls_say() {
    slow!();
    for seed in 0..support::by_sweep(3, 6, 60) {
        let module = Module::new();
        tree::one_of_each(&module.latest);
        let mut edits = Edits::new(&module.latest, Random::new(seed));
        let mut snapshots = vec![module.expect_snapshot()];
        for _ in 0..3 {
            edits.make(12);
            // Only directories that have been at rest for a while are taken from the index.
            settle();
            let run = module.run_hook();
            assert!(matches!(run.code(), Some(0 | 4)), "{run}");
            snapshots = module.snapshots();
        }
        edits.make(12);
        for (number, old) in snapshots.iter().enumerate() {
            let others = snapshots.iter().skip(number + 1).chain(snapshots.first());
            for new in others.map(String::as_str).chain(["live"]) {
                let there =
                    if new == "live" { module.latest.clone() } else { module.snapshot(new) };
                let found = told(module.run(&["diff", "data", old, new, "--json"]));
                let expected = expected(&module.snapshot(old), &there);
                assert_eq!(found, expected, "seed {seed}, {old} {new}: {:#?}", edits.log);
            }
        }
    }
}

/// A module whose tree has changed in every way since its snapshot.
fn changed_module() -> (Module, String) {
    let module = Module::new();
    let at = |path: &str| module.latest.join(path);
    for directory in ["etc/ssh", "gone", "kept", "was a directory"] {
        fs::create_dir_all(at(directory)).expect("a directory");
    }
    for file in ["etc/hosts", "etc/mode", "etc/touched", "gone/file", "kept/file", "was a file"] {
        tree::write(&at(file), file);
    }
    symlink("hosts", at("etc/link")).expect("a link");
    let name = module.expect_snapshot();
    let time = |path: &str| at(path).symlink_metadata().expect("it").modified().expect("a time");
    let times = ["etc", "", "kept"].map(|path| (path, time(path)));
    tree::write(&at("etc/hosts"), "other");
    let (mode, touched) = (time("etc/mode"), fs::read(at("etc/touched")).expect("it"));
    fs::remove_file(at("etc/mode")).expect("removed");
    tree::write(&at("etc/mode"), "etc/mode");
    tree::set_mode(&at("etc/mode"), 0o600);
    tree::set_mtime(&at("etc/mode"), mode);
    tree::write(&at("etc/touched"), std::str::from_utf8(&touched).expect("UTF-8"));
    fs::remove_file(at("etc/link")).expect("removed");
    symlink("elsewhere", at("etc/link")).expect("a link");
    fs::remove_dir_all(at("gone")).expect("removed");
    fs::create_dir_all(at("new/sub")).expect("a directory");
    tree::write(&at("new/sub/file"), "12345");
    fs::remove_dir_all(at("was a directory")).expect("removed");
    tree::write(&at("was a directory"), "x");
    fs::remove_file(at("was a file")).expect("removed");
    fs::create_dir(at("was a file")).expect("a directory");
    tree::set_mode(&at("etc/ssh"), 0o700);
    times.into_iter().for_each(|(path, time)| tree::set_mtime(&at(path), time));
    (module, name)
}

#[test]
fn each_line_says_what_changed() {
    let (module, name) = changed_module();
    let lines = "\
changed  content,size,time  etc/hosts
changed  target,time        etc/link
changed  mode               etc/mode
changed  time               etc/touched
changed  mode               etc/ssh/
removed                     gone/
removed                     gone/file
added                       new/
added                       new/sub/
added                       new/sub/file
changed  type               was a directory
changed  type               was a file/
";
    let latest = module.latest.to_str().expect("UTF-8");
    let path = module.snapshot(&name).to_str().expect("UTF-8").to_string();
    for arguments in [
        &["data", &name][..],
        &["data", "newest", "live"],
        &["data", &name[..10], latest],
        &[&name],
        &[&path],
        &[latest, "newest"],
    ] {
        let run = module.run(&[&["diff"], arguments].concat()).exits(&[0]);
        assert_eq!(run.stdout(), lines, "{run}");
        assert!(run.stderr().contains("3 added, 2 removed, 7 changed"), "{run}");
    }
    let run = module.run(&["diff", "data", "newest", "-q"]).exits(&[0]);
    assert_eq!((run.stdout().as_str(), run.stderr().as_str()), (lines, ""), "{run}");
    let none = module.run(&["diff", "data", &name, &path]).exits(&[0]);
    assert_eq!(none.stdout(), "", "{none}");
}

#[test]
fn sums_are_told_by_top_directory() {
    let (module, _) = changed_module();
    let run = module.run(&["diff", "data", "newest", "--stat"]).exits(&[0]);
    assert_eq!(
        run.stdout(),
        "   ADDED  REMOVED  CHANGED   BYTES ADDED BYTES REMOVED  DIRECTORY
       0        0        5       5 bytes       9 bytes  etc
       0        2        0       0 bytes       9 bytes  gone
       3        0        0       5 bytes       0 bytes  new
       0        0        1        1 byte       0 bytes  was a directory
       0        0        1       0 bytes      10 bytes  was a file
       3        2        7      11 bytes      28 bytes  total
"
    );
    let run = module.run(&["diff", "data", "newest", "--stat", "--json"]).exits(&[0]);
    let lines: Vec<Value> =
        run.stdout().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 6, "{run}");
    let sum = serde_json::json!({"directory": null, "added": 3, "removed": 2, "changed": 7,
        "bytes_added": 11, "bytes_removed": 28});
    assert_eq!(lines[5], sum);
    let same = module.run(&["diff", "data", "newest", "newest", "--stat"]).exits(&[0]);
    assert_eq!(same.stdout().lines().count(), 2, "{same}");
}

#[test]
fn paths_and_patterns_limit_what_is_compared() {
    let (module, name) = changed_module();
    let inside = module.snapshot(&name).join("etc/ssh");
    let absolute = module.latest.join("etc/mode");
    let paths = |arguments: &[&str]| -> Vec<String> {
        let run = module.run(&[&["diff", "-q"], arguments].concat()).exits(&[0]);
        let path = |line: &str| line.split_at(28).1.to_string();
        run.stdout().lines().map(path).collect()
    };
    for (arguments, expected) in [
        (&["data", &name, "--", "etc/hosts"][..], &["etc/hosts"][..]),
        (&["data", &name, "--", "etc/h*", "new/*/f?le"], &["etc/hosts", "new/sub/file"]),
        (&["data", &name, "--", "**/file"], &["gone/file", "new/sub/file"]),
        (&["data", &name, "--", "new"], &["new/", "new/sub/", "new/sub/file"]),
        (&["data", &name, "--", "kept"], &[]),
        (&["data", &name, "live", "--", "was*"], &["was a directory", "was a file/"]),
        (&["data", &name, "--", absolute.to_str().expect("UTF-8")], &["etc/mode"]),
        (&[inside.to_str().expect("UTF-8")], &["etc/ssh/"]),
    ] {
        assert_eq!(paths(arguments), expected, "{arguments:?}");
    }
    module.run(&["diff", "data", &name, "--", "etc/hots"]).exits(&[2]).says("has etc/hots");
    module.run(&["diff", "data", &name, "--", "../x"]).exits(&[2]).says("`..`");
}

#[test]
fn what_cannot_be_compared_is_refused_with_a_reason() {
    let (module, name) = changed_module();
    for (arguments, why) in [
        (&["data"][..], "name the module and then its snapshot"),
        (&["data", "live"], "`diff data newest live`"),
        (&["data", "live", &name], "`diff data newest live`"),
        (&["data", &name, &name, &name], "no more were expected"),
        (&[&name, "live", &name], "one name too many"),
        (&["data", &name, "2001-01-01"], "there is no snapshot 2001-01-01"),
        (&["data", &name, "/tmp"], "there is no snapshot /tmp"),
        (&["data", &name, ".."], "there is no snapshot .."),
    ] {
        module.run(&[&["diff"], arguments].concat()).exits(&[2]).says(why);
    }
    let inside = module.snapshot(&name).join("etc");
    let inside = inside.to_str().expect("UTF-8");
    module.run(&["diff", "data", &name, inside]).exits(&[2]).says("and the path after `--`");
    fs::rename(&module.latest, module.directory.join("away")).expect("moved");
    module.run(&["diff", "data", &name]).exits(&[1]).says("is gone");
    module.run(&["diff", "data", &name, "newest"]).exits(&[0]);
    // On another machine there is no rsyncd.conf, and no module.
    module.write_rsyncd_conf("");
    fs::remove_dir_all(module.private("")).expect("removed");
    let root = module.root.to_str().expect("UTF-8");
    module.run(&["diff", root, &name, &name]).exits(&[0]);
    module.run(&["diff", root, &name]).exits(&[2]).says("the module of");
}

#[test]
fn odd_names_are_escaped_in_text_and_json() {
    let module = Module::new();
    tree::small(&module.latest);
    module.expect_snapshot();
    tree::odd_names(&module.latest.join("odd\n\u{1b}[31m"));
    let lines = module.run(&["diff", "data", "newest"]).exits(&[0]);
    assert!(!lines.bytes().iter().any(|byte| *byte < b' ' && *byte != b'\n'), "{lines}");
    let inside = "odd\\x0a\\x1b[31m/directory\\x0a\\x1b[31m\\x0d/line\\x0abreak\n";
    assert!(lines.stdout().contains(inside), "{lines}");
    let snapshot = module.snapshots().remove(0);
    let found = told(module.run(&["diff", "data", "newest", "--json"]));
    assert_eq!(found.len(), expected(&module.snapshot(&snapshot), &module.latest).len());
    let stat = module.run(&["diff", "data", "newest", "--stat"]).exits(&[0]);
    assert!(stat.stdout().contains("  odd\\x0a\\x1b[31m\n"), "{stat}");
}

#[test]
fn deep_and_wide_trees_are_compared_within_bounds() {
    slow!();
    const LEVELS: usize = 1_500;
    // More than are sorted at once.
    const FILES: usize = 33_000;
    let module = Module::new();
    tree::small(&module.latest);
    let first = module.expect_snapshot();
    tree::deep(&module.latest.join("deep"), LEVELS, 3);
    let wide = module.latest.join("wide");
    fs::create_dir(&wide).expect("a directory");
    for number in 0..FILES {
        fs::File::create(wide.join(format!("{number:05}"))).expect("a file");
    }
    let run = module.run(&["diff", "data", &first]).exits(&[0]);
    let text = run.stdout();
    let count = |text: &str, word: &str| text.lines().filter(|line| line.starts_with(word)).count();
    // The directories, and a file in each but the lowest.
    let in_deep = 1 + 2 * LEVELS;
    assert_eq!(count(&text, "added"), in_deep + 1 + FILES, "{}", run.stderr());
    let longest = text.lines().map(str::len).max();
    assert!(longest < Some(4_200), "{longest:?}");
    assert!(text.contains("deep/(1499 levels)/file\n"), "deep names are shortened");
    let first_of_wide = text.find("wide/00000\n").zip(text.find("wide/00001\n"));
    assert!(first_of_wide.is_some_and(|(one, next)| one < next));
    fs::remove_dir_all(&wide).expect("removed");
    let second = module.expect_snapshot();
    module.run(&["diff", "data", &second]).exits(&[0]).says("0 added, 0 removed, 0 changed");
    let back = module.run(&["diff", "data", &second, &first]).exits(&[0]);
    assert_eq!(count(&back.stdout(), "removed"), in_deep);
    // The standard library cannot remove so deep a tree.
    for name in module.snapshots().iter().filter(|_| are_subvolumes()) {
        remove_snapshot(&module.snapshot(name));
    }
    Run::of(tool("rm").arg("-rf").arg(&module.root)).exits(&[0]);
}

#[test]
fn directories_that_the_index_knows_are_not_read() {
    only_hard_links!("the index of directories");
    if !have(&["strace"]) {
        return;
    }
    let module = Module::new();
    tree::numbered(&module.latest, 60, 2);
    fs::create_dir_all(module.latest.join("d0000/sub/sub")).expect("directories");
    settle();
    let first = module.expect_snapshot();
    tree::write(&module.latest.join("d0007/f0000"), "other");
    settle();
    let second = module.expect_snapshot();
    let reads = |arguments: &[&str], expected: &str| {
        let log = module.directory.join("calls");
        let path = log.to_str().expect("UTF-8");
        let strace = ["strace", "-f", "-e", "trace=getdents64", "-o", path];
        let mut command = module.command_through(&strace, &["diff"]);
        let run = Run::of(command.args(arguments)).exits(&[0]);
        assert!(run.stdout().contains(expected), "{run}");
        fs::read_to_string(&log).expect("the log").lines().count()
    };
    for arguments in [&["data", &first, &second][..], &["data", &first], &["data", &first, "live"]]
    {
        let count = reads(arguments, "content,size,time  d0007/f0000\n");
        assert!(count < 40, "{arguments:?}: {count} reads of directories");
    }
    // Another program changes a snapshot, and the index does not hide it.
    fs::remove_file(module.snapshot(&second).join("d0033/f0001")).expect("removed");
    let run = module.run(&["diff", "data", &first, &second]).exits(&[0]);
    assert!(run.stdout().contains("removed                     d0033/f0001\n"), "{run}");
    // A damaged index costs time, and nothing else.
    fs::write(module.private("index").join(&first), "damaged").expect("written");
    let count = reads(&["data", &first], "content,size,time  d0007/f0000\n");
    assert!(count > 200, "{count} reads of directories");
}

#[test]
fn a_copy_of_an_immutable_file_does_not_differ() {
    if !root() || !have(&["chattr"]) {
        return;
    }
    let module = Module::new();
    tree::small(&module.latest);
    let file = module.latest.join("read me");
    let chattr = |flag: &str| Run::of(tool("chattr").arg(flag).arg(&file)).succeeded();
    if !chattr("+i") {
        skipped!("needs a file system with immutable files");
        return;
    }
    module.run_hook();
    let run = module.run(&["diff", "data", "newest"]);
    assert!(chattr("-i"));
    assert_eq!(run.exits(&[0]).stdout(), "");
    // Equal in size and time, but not in content.
    let time = file.metadata().expect("it").modified().expect("a time");
    tree::write(&file, "FIRST\n");
    tree::set_mtime(&file, time);
    let run = module.run(&["diff", "data", "newest", "--", "read me"]).exits(&[0]);
    assert_eq!(run.stdout(), "changed  content            read me\n");
}

#[test]
fn an_ordinary_user_is_told_what_could_not_be_read() {
    if !is_root() || !have(&["setpriv"]) {
        return;
    }
    let mut module = Module::new();
    tree::small(&module.latest);
    fs::create_dir(module.latest.join("closed")).expect("a directory");
    tree::write(&module.latest.join("secret"), "12345");
    for (path, mode) in [("closed", 0o700), ("secret", 0o600)] {
        tree::set_mode(&module.latest.join(path), mode);
    }
    module.expect_snapshot();
    let time = module.latest.join("secret").metadata().expect("it").modified().expect("a time");
    tree::write(&module.latest.join("secret"), "54321");
    tree::set_mode(&module.latest.join("secret"), 0o600);
    tree::set_mtime(&module.latest.join("secret"), time);
    chown(module.latest.join("read me"), Some(0), Some(0)).expect("chown");
    let program = module.directory.join("program");
    copy_program(&module.server.program, &program);
    module.server.program = program;
    tree::set_mode(&module.root, 0o755);
    let mut command = module.command_through(&AS_ORDINARY_USER, &["diff", "data", "newest"]);
    let run = Run::of(command.env_remove("HOME").env_remove("PATH")).exits(&[4]);
    for path in ["latest/closed: Permission denied", "latest/secret: Permission denied"] {
        assert!(run.stderr().contains(path), "{run}");
    }
}

#[test]
fn a_mount_in_the_module_is_told_and_not_entered() {
    if !support::may_mount() {
        return;
    }
    let module = Module::new();
    tree::small(&module.latest);
    fs::create_dir(module.latest.join("mounted")).expect("a directory");
    module.expect_snapshot();
    let script = format!(
        "mount -t tmpfs none '{0}' && touch '{0}/inside' && exec \"$@\"",
        module.latest.join("mounted").display()
    );
    let unshare = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let run = Run::of(&mut module.command_through(&unshare, &["diff", "data", "newest"]));
    let run = run.exits(&[4]).says("latest/mounted").says("mounted there");
    assert_eq!(run.stdout(), "", "{run}");
}

#[test]
fn trees_on_two_file_systems_are_compared_by_content() {
    if !support::may_mount() {
        return;
    }
    let (module, name) = changed_module();
    let lines = module.run(&["diff", "data", &name]).exits(&[0]).stdout();
    let (latest, copy) = (module.latest.display(), module.directory.join("copy"));
    let script = format!(
        "cp -a '{latest}' '{0}' && mount -t tmpfs -o mode=755 none '{latest}' && \
         cp -a '{0}/.' '{latest}' && exec \"$@\"",
        copy.display()
    );
    let unshare = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let run = Run::of(&mut module.command_through(&unshare, &["diff", "data", &name]));
    assert_eq!(run.stdout(), lines, "{run}");
}

#[test]
fn a_reader_that_wants_no_more_ends_it_and_a_full_disk_fails_it() {
    slow!();
    let module = Module::new();
    tree::small(&module.latest);
    module.expect_snapshot();
    tree::numbered(&module.latest, 60, 60);
    let through = |script: &str| {
        Run::of(
            &mut module.command_through(&["sh", "-c", script, "sh"], &["diff", "data", "newest"]),
        )
    };
    let run = through("{ \"$@\"; echo $? >&2; } | head -n 1");
    assert!(run.stderr().ends_with("0\n"), "{run}");
    through("\"$@\" > /dev/full").exits(&[1]).says("standard output");
}

/// The output waits for a reader, and meanwhile the snapshot is retired, removed, or recycled.
#[test]
fn a_snapshot_that_goes_while_it_is_compared_is_an_error() {
    slow!();
    for (side, end) in
        [("old", &["expire"][..]), ("old", &["expire", "--now"]), ("new", &["expire"])]
    {
        let module = Module::new();
        tree::small(&module.latest);
        let first = module.expect_snapshot();
        // More lines than a pipe holds.
        tree::numbered(&module.latest, 60, 60);
        let second = module.expect_snapshot();
        fs::remove_dir_all(module.latest.join("d0000")).expect("removed");
        module.expect_snapshot();
        let (goes, arguments) = match side {
            "old" => (&first, ["diff", "data", &first, "live"]),
            _ => (&second, ["diff", "data", &first, &second]),
        };
        let mut command = module.command(&arguments);
        let mut diff = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("diff");
        let mut stdout = BufReader::new(diff.stdout.take().expect("its output"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        assert!(!line.is_empty(), "no difference");
        module.run(&[end, &["--below-min-keep", "data", goes.as_str()]].concat()).exits(&[0]);
        stdout.read_to_string(&mut line).expect("the rest");
        drop(stdout);
        let run = Run::from_output("diff", diff.wait_with_output().expect("its end"));
        run.exits(&[1]).says(&format!("{goes} was changed or removed while it was read"));
    }
}

#[test]
fn a_diff_that_is_killed_leaves_nothing_and_is_no_success() {
    slow!();
    let (module, name) = changed_module();
    tree::numbered(&module.latest, 60, 60);
    let before = fingerprint::of(&module.root);
    let mut command = module.command(&["diff", "data", &name, "--json"]);
    let mut diff = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("diff");
    let mut stdout = BufReader::new(diff.stdout.take().expect("its output"));
    stdout.read_line(&mut String::new()).expect("a line");
    diff.kill().expect("killed");
    drop(stdout);
    let run = Run::from_output("diff", diff.wait_with_output().expect("its end"));
    assert_eq!(run.signal(), Some(9), "{run}");
    fingerprint::assert_equal(&before, &fingerprint::of(&module.root), "after a killed diff");
}
