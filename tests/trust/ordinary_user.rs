//! An ordinary user runs the hook. It stages beside the snapshots, since it may not move a
//! directory that it may not write, and has to allow itself into what it removes.

use crate::support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::module::Module;
use support::run::{Run, copy_program, tool};
use support::subvolumes::{are_subvolumes, is_read_only, while_made};
use support::{AS_ORDINARY_USER, BINARY, ORDINARY_USER, have, is_root, root, tree};

const OLD: [&str; 2] = ["2001-02-03T04-05-06Z", "2001-02-04T04-05-06Z"];

/// Expires whatever has a newer one.
const EXPIRING: &str = "[defaults]\nkeep = { daily = 1 }\nmin_keep = 1\ngrace = \"0s\"\n";

/// Whether an ordinary user can run the program, with `tools`.
fn have_ordinary_user(tools: &[&str]) -> bool {
    (!is_root() || have(&["setpriv"])) && have(tools)
}

/// Gives the snapshot root to an ordinary user, unless this process is one.
fn give_to_nobody(module: &mut Module) {
    if is_root() {
        let chown = || {
            let mut chown = tool("chown");
            chown.arg(format!("{ORDINARY_USER}:{ORDINARY_USER}"));
            chown
        };
        // Snapshots that cannot be written to belong to the ordinary user already.
        let entries = fs::read_dir(&module.root).expect("the root").flatten();
        let given = entries.map(|entry| entry.path()).filter(|path| !is_read_only(path));
        let directories = [module.state_directory(), module.runtime_directory()];
        Run::of(chown().arg("-R").args(directories).args(given)).exits(&[0]);
        Run::of(chown().arg(&module.root)).exits(&[0]);
        // The build directory may be closed to others.
        let program = module.directory.join("program");
        copy_program(Path::new(BINARY), &program);
        module.server.program = program;
    }
}

fn hook_as_nobody(module: &Module) -> Command {
    module.hook_through(&as_nobody(&[]))
}

/// The words that make an ordinary user run what comes after them, through `wrapper`.
fn as_nobody(wrapper: &[&str]) -> Vec<String> {
    let words = if is_root() { &AS_ORDINARY_USER[..] } else { &[] };
    words.iter().chain(wrapper).map(ToString::to_string).collect()
}

#[test]
fn an_ordinary_user_takes_and_expires_snapshots_of_read_only_directories() {
    if !have_ordinary_user(&[]) {
        return;
    }
    let mut module = Module::new();
    tree::small(&module.latest);
    for (name, mode) in [
        ("read only", 0o555),
        ("private", 0o700),
        ("deep/read only", 0o555),
        ("search only", 0o511),
    ] {
        let path = module.latest.join(name);
        fs::create_dir_all(&path).expect("a directory");
        tree::write(&path.join("file"), name);
        tree::set_mode(&path, mode);
    }
    tree::set_mode(&module.latest, 0o555);
    tree::set_mode(&module.latest.join("documents"), 0o500);

    give_to_nobody(&mut module);
    Run::of(&mut hook_as_nobody(&module)).exits(&[0]);
    let name = module.snapshots().remove(0);
    module.assert_equals_module(&name);
    Run::of(&mut hook_as_nobody(&module)).exits(&[0]);
    assert_eq!(module.snapshots(), [name.as_str()], "nothing changed");
    assert_eq!(module.left_over("staging"), 0);

    module.rename_to_the_past(&name, "2001-02-03T04-05-06Z");
    tree::set_mode(&module.latest, 0o755);
    tree::write(&module.latest.join("new"), "x");
    tree::set_mode(&module.latest, 0o555);
    module.write_policy(EXPIRING);
    give_to_nobody(&mut module);
    Run::of(&mut hook_as_nobody(&module)).exits(&[0]);
    assert_eq!(module.snapshots().len(), 1, "{:?}", module.snapshots());
    assert_eq!(module.left_over("expired"), 1);
    // A user who may recycle nothing removes it the next time.
    Run::of(&mut hook_as_nobody(&module)).exits(&[0]);
    assert_eq!(module.left_over("expired"), 0);
}

#[test]
fn an_ordinary_user_deletes_snapshots_by_name() {
    if !have_ordinary_user(&[]) {
        return;
    }
    let mut module = Module::new();
    tree::small(&module.latest);
    for name in OLD {
        module.make_old_snapshot(name);
        tree::set_mode(&module.snapshot(name).join("sub"), 0o555);
        tree::set_mode(&module.snapshot(name), 0o555);
    }
    give_to_nobody(&mut module);
    Run::of(&mut hook_as_nobody(&module)).exits(&[0]);
    let run = |arguments: &[&str]| {
        Run::of(&mut module.command_through(&as_nobody(&[]), arguments)).exits(&[0])
    };
    run(&["expire", "data", "--below-min-keep", OLD[0]]);
    assert_eq!(module.retired(), OLD[..1]);
    run(&["undelete", OLD[0]]);
    run(&["unpin", OLD[0]]);
    let removed = run(&["expire", "data", "--below-min-keep", "--now", OLD[0], OLD[1]]);
    assert_eq!((module.snapshots().len(), module.left_over("staging")), (1, 0), "{removed}");
    run(&["verify", "data"]);
    run(&["list", "data"]);
}

#[test]
fn an_ordinary_user_removes_directories_that_are_closed() {
    if !have_ordinary_user(&[]) {
        return;
    }
    let mut module = Module::new();
    tree::small(&module.latest);
    give_to_nobody(&mut module);
    Run::of(&mut hook_as_nobody(&module)).exits(&[0]);
    for name in OLD {
        module.make_old_snapshot(name);
        for (below, mode) in [("closed", 0o000), ("not/writable", 0o500), ("not", 0o600)] {
            let path = module.snapshot(name).join("sub").join(below);
            fs::create_dir_all(path.join("below")).expect("a directory");
            tree::write(&path.join("below/file"), below);
            tree::set_mode(&path, mode);
        }
    }
    module.write_policy(EXPIRING);
    give_to_nobody(&mut module);

    let rotate = |options: &[&str]| {
        let words = [&["rotate", "data"], options].concat();
        Run::of(&mut module.command_through(&as_nobody(&[]), &words)).exits(&[0])
    };
    let run = rotate(&[]);
    assert_eq!(module.retired(), OLD, "{run}");
    rotate(&["--purge"]);
    assert_eq!(
        (module.snapshots().len(), module.left_over("expired"), module.left_over("staging")),
        (1, 0, 0)
    );
}

#[test]
fn the_next_run_removes_what_a_killed_one_left() {
    if !have_ordinary_user(&["strace"]) {
        return;
    }
    let mut module = Module::new();
    tree::small(&module.latest);
    give_to_nobody(&mut module);
    let when = if are_subvolumes() { 1 } else { 2 };
    let kill = while_made(&format!("signal=SIGKILL:when={when}"));
    let killed = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &kill];
    let run = Run::of(&mut module.hook_through(&as_nobody(&killed)));
    assert_eq!((run.signal(), module.left_over("staging")), (Some(9), 1), "{run}");
    assert!(module.snapshots().is_empty(), "{:?}", module.snapshots());

    Run::of(&mut hook_as_nobody(&module)).exits(&[0]).says("cleaned up");
    assert_eq!((module.snapshots().len(), module.left_over("staging")), (1, 0));
    module.assert_equals_module(&module.snapshots()[0]);
}

#[test]
fn an_ordinary_user_is_told_of_owners_that_it_cannot_keep() {
    if !root() || !have_ordinary_user(&[]) {
        return;
    }
    let mut module = Module::new();
    tree::small(&module.latest);
    give_to_nobody(&mut module);
    fs::create_dir(module.latest.join("of root")).expect("a directory");

    if are_subvolumes() {
        // All is kept as it is.
        Run::of(&mut hook_as_nobody(&module)).exits(&[0]);
        let name = module.snapshots().remove(0);
        assert_eq!(module.record(&name)["attributes_lost"].as_integer(), Some(0));
        return module.assert_equals_module(&name);
    }
    let run = Run::of(&mut hook_as_nobody(&module)).exits(&[4]);
    let run =
        run.says("the owner, the device or security attributes of 1 entries could not be kept");
    let name = module.snapshots().remove(0);
    assert_eq!(module.record(&name)["attributes_lost"].as_integer(), Some(1), "{run}");
    // It is no change, and no reason to say it again.
    Run::of(&mut hook_as_nobody(&module)).exits(&[0]);
    assert_eq!(module.snapshots(), [name]);
}

#[test]
fn another_group_is_a_change_of_a_directory() {
    if !root() || !have(&["setpriv"]) {
        return;
    }
    let mut module = Module::new();
    tree::small(&module.latest);
    give_to_nobody(&mut module);
    let (user, group) = (format!("--reuid={ORDINARY_USER}"), format!("--regid={ORDINARY_USER}"));
    let hook = || {
        Run::of(&mut module.hook_through(&["setpriv", &user, &group, "--groups=34"])).exits(&[0])
    };
    hook();
    for (gid, expected) in [(34, 2), (ORDINARY_USER, 3)] {
        let time = fs::metadata(module.latest.join("documents")).expect("a directory").modified();
        std::os::unix::fs::chown(module.latest.join("documents"), None, Some(gid))
            .expect("root may");
        tree::set_mtime(&module.latest.join("documents"), time.expect("a time"));
        for _ in 0..2 {
            let run = hook();
            assert_eq!(module.snapshots().len(), expected, "group {gid}: {run}");
        }
        module.assert_equals_module(&module.snapshots().remove(expected - 1));
    }
}
