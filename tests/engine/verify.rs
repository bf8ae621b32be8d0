//! `verify` against a real rsync daemon and its stock client: each thing that a client can do to
//! files that snapshots share is reported with file and snapshots, and nothing that only makes
//! other files is.
//!
//! 5 rounds of clean runs by default, 25 with `RSYNCD_SNAPSHOT_SWEEP=usual`, 1,000 with
//! `RSYNCD_SNAPSHOT_SWEEP=full`.

use crate::support;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use support::daemon::{Daemon, GOOD};
use support::module::{Module, NAME};
use support::random::Random;
use support::run::{Run, tool};
use support::{have, root, tree};

/// A module with a daemon, and what is pushed into it.
struct Rig<'a> {
    daemon: Daemon<'a>,
    source: PathBuf,
    pushes: usize,
}

impl<'a> Rig<'a> {
    fn new(module: &'a Module, more: &str) -> Rig<'a> {
        let daemon = Daemon::start(module, &Daemon::section(module, "data", &module.latest, more));
        let source = module.directory.join("source");
        fs::create_dir(&source).expect("the source");
        Rig { daemon, source, pushes: 0 }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.source.join(name)
    }

    /// Pushes and waits for the hook. The kernel's clock has to have moved on from what we did
    /// ourselves.
    #[track_caller]
    fn push(&mut self, options: &[&str]) {
        sleep(Duration::from_millis(50));
        self.daemon.push(&self.source, "data", options).exits(&[0]);
        self.pushes += 1;
        let hook = self.daemon.await_last_hook(self.pushes);
        assert_eq!(hook.transfer, GOOD.transfer);
        assert!([0, 4].contains(&hook.exit), "{hook:?}");
    }
}

fn verify(module: &Module) -> (i32, Value) {
    let run = module.run(&["verify", "--json", NAME]);
    (run.code().expect("an exit status"), run.json())
}

#[track_caller]
fn assert_clean(module: &Module) -> Value {
    let (code, json) = verify(module);
    assert_eq!((code, json["altered_files"].as_u64()), (0, Some(0)), "{json:#}");
    json
}

/// What was altered, as `path: what what`, with the snapshots of each.
fn altered(json: &Value) -> Vec<(String, Vec<String>)> {
    let text = |value: &Value| value.as_str().expect("text").to_string();
    let array = |value: &Value| value.as_array().expect("an array").clone();
    array(&json["altered"])
        .iter()
        .map(|one| {
            let whats: Vec<String> =
                array(&one["changes"]).iter().map(|change| text(&change["what"])).collect();
            let snapshots = array(&one["snapshots"]).iter().map(text).collect();
            (format!("{}: {}", text(&one["path"]), whats.join(" ")), snapshots)
        })
        .collect()
}

/// One row of the table of client actions that change shared inodes.
struct Row {
    what: &'static str,
    /// Settings of the module.
    settings: &'static str,
    first: &'static [&'static str],
    change: fn(&Path),
    second: &'static [&'static str],
    /// The paths with what is reported of each.
    reported: &'static [&'static str],
}

const TIME: Duration = Duration::from_secs(1_600_000_000);

fn rewrite(path: &Path, text: &str, seconds: u64) {
    fs::write(path, text).expect("a file");
    tree::set_mtime(path, SystemTime::UNIX_EPOCH + TIME + Duration::from_secs(seconds));
}

/// What every row begins with.
fn fill(source: &Path) {
    rewrite(&source.join("file"), "first content", 0);
    rewrite(&source.join("other"), "never changes", 0);
    fs::create_dir(source.join("sub")).expect("a directory");
    rewrite(&source.join("sub/file"), "in a directory", 0);
    symlink("file", source.join("link")).expect("a symbolic link");
}

/// With `-I` rsync writes to every file, and only a hash could tell to which one something else.
const REWRITTEN: &[&str] = &["file: touched", "other: touched", "sub/file: touched"];

fn rows() -> Vec<Row> {
    let change_file: fn(&Path) =
        |source| rewrite(&source.join("file"), "other content, and longer", 9);
    let same_size: fn(&Path) = |source| rewrite(&source.join("file"), "FIRST CONTENT", 0);
    let row = |what, change, second, reported| Row {
        what,
        settings: "",
        first: &[],
        change,
        second,
        reported,
    };
    let mut rows = vec![
        row("--inplace", change_file, &["--inplace"], &["file: size mtime"]),
        row("--inplace --backup", change_file, &["--inplace", "--backup"], &["file: size mtime"]),
        row("--append", change_file, &["--append"], &["file: size mtime"]),
        row(
            "--append-verify",
            |source| rewrite(&source.join("file"), "first content and more", 9),
            &["--append-verify"],
            &["file: size mtime"],
        ),
        row("--inplace -I at equal size and time", same_size, &["--inplace", "-I"], REWRITTEN),
        row(
            "--inplace -c at equal size and time",
            same_size,
            &["--inplace", "-c"],
            &["file: touched"],
        ),
        row(
            "permissions",
            |source| tree::set_mode(&source.join("sub/file"), 0o600),
            &[],
            &["sub/file: mode"],
        ),
        row("--chmod", |_| {}, &["--chmod=F600"], &["file: mode", "other: mode", "sub/file: mode"]),
        row(
            "mtime with -c",
            |source| rewrite(&source.join("file"), "first content", 5),
            &["-c"],
            &["file: mtime"],
        ),
        row(
            "mtime with --size-only",
            |source| rewrite(&source.join("file"), "first content", 5),
            &["--size-only"],
            &["file: mtime"],
        ),
        row(
            "a symbolic link's mtime",
            |source| {
                let link = source.join("link");
                Run::of(tool("touch").args(["-h", "-d", "2001-02-03"]).arg(link)).exits(&[0]);
            },
            &[],
            &["link: mtime"],
        ),
        Row {
            first: &["-X"],
            ..row(
                "-X",
                |source| {
                    tree::set_attribute(&source.join("file"), "user.colour", b"red");
                },
                &["-X"],
                &["file: xattr"],
            )
        },
    ];
    if support::is_root() {
        rows.extend([
            row(
                "owner",
                |source| {
                    std::os::unix::fs::chown(source.join("file"), Some(12), Some(34))
                        .expect("root may")
                },
                &["--numeric-ids"],
                &["file: owner"],
            ),
            row(
                "a symbolic link's owner",
                |source| {
                    std::os::unix::fs::lchown(source.join("link"), Some(12), None)
                        .expect("root may")
                },
                &["--numeric-ids"],
                &["link: owner"],
            ),
            Row {
                settings: "fake super = yes",
                ..row(
                    "fake super",
                    |source| {
                        std::os::unix::fs::chown(source.join("file"), Some(12), Some(34))
                            .expect("root may")
                    },
                    &["--numeric-ids"],
                    &["file: xattr"],
                )
            },
            row(
                "a FIFO's permissions",
                |source| tree::set_mode(&source.join("fifo"), 0o644),
                &[],
                &["fifo: mode"],
            ),
        ]);
    } else {
        skipped!("needs root, for changes of owners and for special files");
    }
    if have(&["setfacl"]) {
        rows.push(Row {
            first: &["-A"],
            ..row(
                "-A",
                |source| {
                    Run::of(tool("setfacl").args(["-m", "u:12:r"]).arg(source.join("file")))
                        .exits(&[0]);
                },
                &["-A"],
                &["file: xattr"],
            )
        });
    }
    rows
}

#[test]
fn each_change_in_place_is_reported_with_file_and_snapshots() {
    slow!();
    if !have(&["rsync"]) {
        return;
    }
    for Row { what, settings, first, change, second, reported } in rows() {
        let module = Module::new();
        let mut rig = Rig::new(&module, settings);
        fill(&rig.source);
        if reported[0].starts_with("fifo") {
            Run::of(tool("mkfifo").arg("-m600").arg(rig.file("fifo"))).exits(&[0]);
        }
        rig.push(first);
        let damaged = module.snapshots();
        assert_eq!(damaged.len(), 1, "{what}");
        assert_clean(&module);

        change(&rig.source);
        rig.push(second);

        let (code, json) = verify(&module);
        let found = altered(&json);
        let paths: Vec<&str> = found.iter().map(|(line, _)| line.as_str()).collect();
        let expected: Vec<&str> = reported.to_vec();
        // An ACL shows in the mode, too.
        let paths: Vec<String> =
            paths.iter().map(|path| path.replace("mode xattr", "xattr")).collect();
        assert_eq!(
            (code, paths),
            (1, expected.iter().map(ToString::to_string).collect()),
            "{what}: {json:#}"
        );
        for (line, snapshots) in found {
            assert_eq!(snapshots, damaged, "{what}: {line}");
        }
    }
}

#[test]
fn a_file_that_was_altered_damages_the_snapshots_from_before_only() {
    let module = Module::new();
    let change = |text: &str| tree::write(&module.latest.join("new"), text);
    fs::write(module.latest.join("file"), "content").expect("a file");
    let early = [module.expect_snapshot(), {
        change("1");
        module.expect_snapshot()
    }];
    sleep(Duration::from_millis(50));
    tree::set_mode(&module.latest.join("file"), 0o600);
    change("2");
    let late = module.expect_snapshot();

    let (code, json) = verify(&module);

    assert_eq!(code, 1);
    assert_eq!(altered(&json), [("file: mode".to_string(), early.to_vec())]);
    let text = module.run(&["verify", NAME]).exits(&[1]).stdout();
    assert!(text.contains("file: mode 0644 -> 0600\n"), "{text}");
    assert!(!text.contains(&late), "{text}");
}

#[test]
fn damage_is_critical_and_pauses_expiry_until_it_is_gone_or_accepted() {
    let module = Module::new();
    module.write_policy(
        "[defaults]\nkeep = { hourly = 1 }\nmin_keep = 1\nmin_age = \"0s\"\ngrace = \"0s\"\nlock_wait = \"20s\"\n",
    );
    let file = module.latest.join("file");
    for text in ["1", "2", "3"] {
        tree::write(&module.latest.join("other"), text);
        if text == "1" {
            fs::write(&file, "content").expect("a file");
        }
        assert_eq!(
            Run::of(module.command(&["snapshot", "--no-rotate", NAME]).arg("-q")).code(),
            Some(0)
        );
    }
    assert_eq!(module.snapshots().len(), 3);
    assert_clean(&module);
    sleep(Duration::from_millis(50));
    tree::set_mode(&file, 0o600);
    module.run(&["verify", NAME]).exits(&[1]);

    module
        .run(&["check", NAME])
        .exits(&[2])
        .says("altered in place")
        .says("rsyncd-snapshot verify data --repair-attributes");
    module.run(&["rotate", NAME]).exits(&[4]).says("nothing expires").says("altered in place");
    module.run(&["plan", NAME]).exits(&[0]).says("nothing expires");
    assert_eq!(module.snapshots().len(), 3);

    // Put right by hand.
    tree::set_mode(&file, 0o644);
    let (_, json) = verify(&module);
    assert!(!altered(&json).iter().any(|(line, _)| line.contains("mode")), "{json:#}");

    tree::set_mode(&file, 0o640);
    module.run(&["verify", NAME]).exits(&[1]);
    module.run(&["release", "--damage", NAME]).exits(&[0]).says("1 altered file accepted");
    assert_clean(&module);
    module.run(&["rotate", NAME]).exits(&[0]);
    assert_eq!(module.snapshots().len(), 2, "the slot's and the newest");
    let check = module.run(&["check", NAME]).stdout();
    assert!(!check.contains("altered") && !check.contains("nothing expires"), "{check}");
}

/// What a client does that makes other files, or only other names: round after round.
fn clean_round(rig: &mut Rig, random: &mut Random, round: usize) {
    let name = |number: usize| format!("d{}/f{number}", number % 5);
    let any = name(random.below(40));
    let path = rig.file(&any);
    let exists = path.symlink_metadata().is_ok();
    let what = random.below(8);
    match what {
        0 if exists => fs::remove_file(&path).expect("removed"),
        1 if exists => {
            let _ = fs::rename(&path, rig.file(&name(random.below(40))));
        }
        2 if exists => {
            let other = rig.file(&name(random.below(40)));
            let _ = fs::remove_file(&other);
            let _ = fs::hard_link(&path, &other);
        }
        3 => {
            let _ = fs::remove_file(&path);
            fs::File::create(&path).and_then(|file| file.set_len(100_000)).expect("a sparse file");
        }
        _ => {
            let _ = fs::remove_file(&path);
            fs::write(&path, format!("round {round} of {any}")).expect("a file");
        }
    }
    let options: &[&[&str]] = &[
        &["--delete"],
        &["-W", "--delete-before"],
        &["--delay-updates", "--delete-delay"],
        &["--backup"],
        &["-H", "--delete"],
        &["--sparse", "-H"],
        &["--partial-dir=.part", "--delete"],
        &["--preallocate"],
    ];
    let chosen = options[random.below(options.len())];
    rig.push(chosen);
}

fn rounds() -> usize {
    support::by_sweep(5, 12, 1_000)
}

#[test]
fn whatever_makes_other_files_or_names_is_no_damage() {
    slow!();
    if !have(&["rsync"]) {
        return;
    }
    let module = Module::new();
    module.write_policy(
        "[defaults]\nkeep = { minutely = 3 }\nmin_keep = 2\nmin_age = \"0s\"\ngrace = \"0s\"\nlock_wait = \"20s\"\nanomaly_share = \"100%\"\n",
    );
    let mut rig = Rig::new(&module, "");
    for number in 0..40 {
        fs::create_dir_all(rig.file(&format!("d{}", number % 5))).expect("a directory");
        fs::write(rig.file(&format!("d{}/f{number}", number % 5)), format!("{number}"))
            .expect("a file");
    }
    rig.push(&[]);
    let mut random = Random::new(7);
    let mut unprovable = 0;
    for round in 0..rounds() {
        clean_round(&mut rig, &mut random, round);
        match random.below(12) {
            0 => drop(module.run(&["rotate", "--purge", NAME]).exits(&[0, 4])),
            1 => {
                if let Some(name) = module.snapshots().first() {
                    module.run(&["pin", NAME, name]).exits(&[0]);
                    module.run(&["unpin", NAME, name]).exits(&[0]);
                }
            }
            2 => {
                let expired: Vec<String> = fs::read_dir(module.private("expired"))
                    .expect("expired")
                    .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
                    .collect();
                if let Some(name) = expired.first() {
                    module.run(&["undelete", NAME, name]).exits(&[0]);
                    module.run(&["unpin", NAME, name]).exits(&[0]);
                }
            }
            3 => kill_a_run(&module, &mut random),
            _ => {}
        }
        if round % 3 == 0 {
            let json = assert_clean(&module);
            unprovable += json["unprovable"].as_u64().expect("a number");
        }
    }
    println!(
        "{} clean runs, no alarm; {unprovable} files touched in a way that proves nothing",
        rounds()
    );
}

/// A snapshot that is killed some milliseconds after its start.
fn kill_a_run(module: &Module, random: &mut Random) {
    tree::write(&module.latest.join("killed"), "x");
    let mut child = module.hook().stderr(std::process::Stdio::null()).spawn().expect("a hook");
    sleep(Duration::from_millis(random.below(15) as u64));
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn a_damaged_catalogue_reports_no_damage_and_is_made_whole() {
    slow!();
    let module = Module::new();
    tree::small(&module.latest);
    module.expect_snapshot();
    let catalogue = module.private("inodes/catalogue");
    let whole = fs::read(&catalogue).expect("the catalogue");
    assert_eq!(fs::metadata(&catalogue).expect("metadata").permissions().mode() & 0o777, 0o600);
    assert!(assert_clean(&module)["files"].as_u64() > Some(0));
    let step = (whole.len() / 60).max(1);
    for at in (0..whole.len()).step_by(step) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x20;
        fs::write(&catalogue, &bytes).expect("damaged");
        let (code, json) = verify(&module);
        assert_eq!((code, json["altered_files"].as_u64()), (4, Some(0)), "byte {at}: {json:#}");
        assert!(json["lost_catalogue_bytes"].as_u64() > Some(0), "byte {at}: {json:#}");
        assert_eq!(assert_clean(&module)["new_in_catalogue"], 0, "it is whole again: byte {at}");
    }
    for torn in [0, 1, 30, whole.len() / 2, whole.len() - 1] {
        fs::write(&catalogue, &whole[..torn]).expect("torn");
        let (code, json) = verify(&module);
        assert!([0, 4].contains(&code), "{torn}: {json:#}");
        assert_eq!(json["altered_files"], 0, "{torn}: {json:#}");
        assert_eq!(assert_clean(&module)["new_in_catalogue"], 0, "{torn}");
    }
    fs::write(&catalogue, "not ours").expect("foreign");
    verify(&module);
    tree::set_mode(&module.latest.join("read me"), 0o600);
    assert_eq!(verify(&module).0, 1, "what is recorded anew counts");
}

/// After a return to this version, what the newer one has recorded must still be there.
#[test]
fn a_catalogue_of_a_newer_version_is_refused_and_kept() {
    let (module, _) = Module::with_snapshot();
    let catalogue = module.private("inodes/catalogue");
    let mut bytes = fs::read(&catalogue).expect("the catalogue");
    let mut newer = bytes[..24].to_vec();
    newer[7] = 2;
    let checksum = crc32fast::hash(&newer[..20]).to_le_bytes();
    newer[20..].copy_from_slice(&checksum);
    bytes.extend(newer);
    fs::write(&catalogue, &bytes).expect("written");
    tree::write(&module.latest.join("more"), "x");
    module.run_hook().exits(&[4]).says("newer version of rsyncd-snapshot");
    module.run(&["verify", "data"]).exits(&[1]).says("newer version of rsyncd-snapshot");
    assert_eq!(fs::read(&catalogue).expect("the catalogue"), bytes);
    assert_eq!(module.snapshots().len(), 2, "it costs no snapshot");
}

#[test]
fn the_next_snapshot_begins_the_catalogue_of_a_root_that_had_none() {
    let module = Module::new();
    tree::small(&module.latest);
    module.expect_snapshot();
    for file in ["inodes/catalogue", "inodes/windows"] {
        fs::remove_file(module.private(file)).expect("removed");
    }
    fs::write(module.latest.join("new"), "new").expect("a file");
    module.expect_snapshot();
    let json = assert_clean(&module);
    assert_eq!(json["new_in_catalogue"], 0, "{json:#}");
    sleep(Duration::from_millis(50));
    tree::set_mode(&module.latest.join("read me"), 0o600);
    let (code, json) = verify(&module);
    assert_eq!(code, 1);
    assert_eq!(altered(&json)[0].1.len(), 2, "also what it was before: {json:#}");
}

#[test]
fn what_is_in_no_snapshot_any_more_is_taken_out_of_the_catalogue() {
    let module = Module::new();
    module.write_policy(
        "[defaults]\nkeep = { hourly = 1 }\nmin_keep = 1\nmin_age = \"0s\"\ngrace = \"0s\"\nanomaly_share = \"100%\"\n",
    );
    fs::write(module.latest.join("stays"), "whole").expect("a file");
    let snapshot = || Run::of(&mut module.command(&["snapshot", "--no-rotate", NAME])).exits(&[0]);
    snapshot();
    tree::numbered(&module.latest, 20, 100);
    snapshot();
    (0..20).for_each(|number| {
        fs::remove_dir_all(module.latest.join(format!("d{number:04}"))).expect("removed");
    });
    snapshot();
    let bytes = || fs::metadata(module.private("inodes/catalogue")).expect("the catalogue").len();
    let with_all = bytes();
    assert!(with_all > 2_000 * 40, "{with_all} bytes");
    module.run(&["rotate", "--purge", NAME]).exits(&[0]);
    assert_eq!(module.snapshots().len(), 2, "the slot's and the newest");

    assert_clean(&module);

    assert!(bytes() < 2_000, "{} of {with_all} bytes", bytes());
    assert_eq!(assert_clean(&module)["new_in_catalogue"], 0);
    sleep(Duration::from_millis(50));
    tree::set_mode(&module.latest.join("stays"), 0o600);
    let (_, json) = verify(&module);
    assert_eq!(altered(&json)[0].1.len(), 2, "what is left still counts: {json:#}");
}

#[test]
fn what_was_rewritten_is_still_known_after_it_was_linked_again() {
    let module = Module::new();
    let file = module.latest.join("file");
    fs::write(&file, "content").expect("a file");
    tree::set_mtime(&file, SystemTime::UNIX_EPOCH + TIME);
    let early = module.expect_snapshot();
    sleep(Duration::from_millis(50));
    let modified = fs::metadata(&file).expect("metadata").modified().expect("a time");
    fs::OpenOptions::new()
        .write(true)
        .open(&file)
        .expect("a file")
        .write_all_at(b"CONTENT", 0)
        .expect("written");
    tree::set_mtime(&file, modified);
    sleep(Duration::from_millis(50));
    // Made afresh, so every file gets another link.
    fs::write(module.latest.join("new"), "new").expect("a file");
    module.expect_snapshot();
    let (code, json) = verify(&module);
    assert_eq!(
        (code, altered(&json)),
        (1, vec![("file: touched".to_string(), vec![early])]),
        "{json:#}"
    );
}

#[test]
fn copies_and_names_that_no_terminal_should_see_are_told_as_they_are() {
    if !root() || !have(&["chattr"]) {
        return;
    }
    let module = Module::new();
    let evil = module.latest.join("evil\n\x1b[31mname");
    fs::write(&evil, "content").expect("a file");
    let immutable = module.latest.join("immutable");
    fs::write(&immutable, "content").expect("a file");
    Run::of(tool("chattr").arg("+i").arg(&immutable)).exits(&[0]);
    let run = module.run_hook();
    Run::of(tool("chattr").arg("-i").arg(&immutable)).exits(&[0]);
    run.exits(&[4]);
    assert_clean(&module);
    sleep(Duration::from_millis(50));
    for path in [&evil, &immutable] {
        tree::set_mode(path, 0o600);
    }
    assert_ne!(fs::metadata(&immutable).expect("metadata").ino(), 0);
    let run = module.run(&["verify", NAME]).exits(&[1]).says("1 altered");
    assert!(run.bytes().iter().all(|byte| *byte == b'\n' || !byte.is_ascii_control()), "{run}");
    assert!(run.stdout().contains(r"evil\x0a\x1b[31mname: mode"), "{run}");
    assert!(!run.stdout().contains("immutable"), "the snapshot has a copy: {run}");
}

/// Everything in a tree but its inode numbers and change times, as other tools tell it.
fn state_of(directory: &Path) -> String {
    let script = "cd \"$1\" && find . -printf '%p %m %U %G %T@ %s %y %l\\n' | sort && getfattr -hR -d -m- . | sort";
    Run::of(tool("sh").args(["-c", script, "sh"]).arg(directory)).exits(&[0]).stdout()
}

#[test]
fn a_repair_leaves_the_module_as_it_is() {
    if !root() || !have(&["setfacl", "getfattr", "mkfifo", "find"]) {
        return;
    }
    let module = Module::new();
    let live = |name: &str| module.latest.join(name);
    fs::create_dir(live("sub")).expect("a directory");
    for name in [
        "mode",
        "owner",
        "xattr",
        "acl",
        "time",
        "sub/one name",
        "untouched",
        "copies",
        "next",
        "capable",
    ] {
        rewrite(&live(name), name, 0);
    }
    fs::hard_link(live("sub/one name"), live("another name")).expect("a link");
    symlink("nowhere", live("link")).expect("a symbolic link");
    Run::of(tool("mkfifo").arg("-m644").arg(live("fifo"))).exits(&[0]);
    tree::set_attribute(&live("xattr"), "user.colour", b"red");
    tree::set_attribute(&live("capable"), "security.capability", tree::CAP_NET_RAW);
    tree::set_attribute(&live("mode"), "trusted.overlay.origin", b"of root");
    Run::of(tool("mknod").arg("-m644").arg(live("device")).args(["c", "1", "3"])).exits(&[0]);
    let early = module.expect_snapshot();
    let before = state_of(&module.snapshot(&early));
    sleep(Duration::from_millis(50));
    for name in ["mode", "sub/one name", "fifo", "copies", "next", "capable", "device"] {
        tree::set_mode(&live(name), 0o604);
    }
    std::os::unix::fs::chown(live("owner"), Some(12), Some(34)).expect("root may");
    std::os::unix::fs::lchown(live("link"), Some(12), None).expect("root may");
    tree::set_attribute(&live("xattr"), "user.colour", b"blue");
    tree::set_attribute(&live("xattr"), "user.shape", b"round");
    Run::of(tool("setfacl").args(["-m", "u:12:rw"]).arg(live("acl"))).exits(&[0]);
    tree::set_mtime(&live("time"), SystemTime::UNIX_EPOCH + TIME + Duration::from_secs(7));
    let after = state_of(&module.latest);
    module.run(&["verify", NAME]).exits(&[1]).says("12 altered");

    module
        .run(&["verify", "--repair-attributes", NAME])
        .exits(&[0])
        .says("attributes of 12 files restored");

    assert_eq!(state_of(&module.snapshot(&early)), before, "the snapshot is what it was");
    assert_eq!(state_of(&module.latest), after, "the module is what it was");
    let inode = |path: PathBuf| fs::symlink_metadata(path).expect("metadata").ino();
    for name in ["mode", "link", "fifo", "another name"] {
        assert_ne!(inode(live(name)), inode(module.snapshot(&early).join(name)), "{name}");
    }
    assert_eq!(inode(live("untouched")), inode(module.snapshot(&early).join("untouched")));
    assert_eq!(inode(live("sub/one name")), inode(live("another name")), "one file still");
    assert_eq!(module.left_over("staging"), 0);
    assert_clean(&module);
    module
        .run(&["verify", "--repair-attributes", NAME])
        .exits(&[0])
        .says("attributes of 0 files restored");
    module.expect_snapshot();
    assert_clean(&module);
}

#[test]
fn rewritten_content_names_the_last_good_snapshot() {
    let module = Module::new();
    let file = module.latest.join("file");
    fs::write(&file, "first").expect("a file");
    let good = module.expect_snapshot();
    tree::write(&file, "second");
    let damaged = module.expect_snapshot();
    sleep(Duration::from_millis(50));
    fs::write(&file, "overwritten in place").expect("a file");

    let run = module.run(&["verify", "--repair-attributes", "--json", NAME]).exits(&[1]);

    let json = run.json();
    assert_eq!(json["repaired"]["restored_files"], 0, "{json:#}");
    assert_eq!(json["repaired"]["lost"][0]["last_good_snapshot"], good.as_str(), "{json:#}");
    assert_eq!(altered(&json)[0].1, [damaged.as_str()], "{json:#}");
    assert_eq!(fs::read_to_string(module.snapshot(&good).join("file")).expect("a file"), "first");
    module.run(&["check", NAME]).exits(&[2]);
}

#[test]
fn hashes_tell_what_was_rewritten_from_what_was_only_touched() {
    if !have(&["rsync"]) {
        return;
    }
    let module = Module::new();
    module.write_policy("[defaults]\ncontent_hashes = true\nlock_wait = \"20s\"\n");
    let mut rig = Rig::new(&module, "");
    fill(&rig.source);
    rig.push(&[]);
    let damaged = module.snapshots();
    rig.push(&["--inplace", "-I"]);
    assert_eq!(assert_clean(&module)["unprovable"], 0, "written to, with the same content");
    rewrite(&rig.file("file"), "FIRST CONTENT", 0);
    rig.push(&["--inplace", "-I"]);
    // Made afresh, so that each file is linked again and its change time says nothing.
    rewrite(&rig.file("new"), "new", 0);
    rig.push(&[]);
    let (code, json) = verify(&module);
    assert_eq!(
        (code, altered(&json)),
        (1, vec![("file: content".to_string(), damaged)]),
        "{json:#}"
    );
}

/// Above 2,000 entries there are several workers, and one that has nothing to link records what
/// another one has linked into a large directory.
#[test]
fn each_file_of_one_large_directory_is_recorded() {
    const FILES: u64 = 3_001;
    let module = Module::new();
    for number in 0..FILES {
        rewrite(&module.latest.join(format!("file-{number}")), "as it was", 0);
    }
    module.expect_snapshot();
    sleep(Duration::from_millis(50));
    for number in 0..FILES {
        rewrite(&module.latest.join(format!("file-{number}")), "as it is.", 0);
    }
    let (code, json) = verify(&module);
    assert_eq!((code, json["altered_files"].as_u64()), (1, Some(FILES)), "{:#}", json["altered"]);
}
