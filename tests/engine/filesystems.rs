//! File systems of all kinds under a module, and dead ones in it: each keeps every promise, or is
//! refused or warned about in words that name it.
//!
//! A normal run tries those that `tests/run` has the tools for. All that can be mounted here are
//! tried by `RSYNCD_SNAPSHOT_SWEEP=full cargo test --test engine filesystems::`; the others
//! are said to be not tried.

use crate::support::{self, kinds};

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use kinds::{KINDS, Kind, Mounted, Promise};
use support::module::Module;
use support::run::{Run, tool};
use support::{fingerprint, have, is_full_sweep, is_installed, may_mount, tree};

const POLICY: &str = "[defaults]\nkeep = { daily = 1 }\nmin_keep = 1\nmin_age = \"0s\"\ngrace = \"0s\"\nlock_wait = \"5s\"\n\
    max_parallel = 1\n";

#[test]
fn each_file_system_keeps_its_promises_or_is_named() {
    if !may_mount() {
        return;
    }
    let mut tried = Vec::new();
    for kind in KINDS.iter().filter(|kind| kind.is_usual || is_full_sweep()) {
        let is_there = if kind.is_usual { have(&[kind.tool]) } else { is_installed(kind.tool) };
        if !is_there {
            // It said itself what a usual one lacks.
            eprintln!("not tried: {}: needs {}", kind.name, kind.tool);
            continue;
        }
        let Some(mounted) = Mounted::new(kind) else { continue };
        eprintln!("{}", kind.name);
        let module = Module::at(mounted.mount_point.join("root"));
        module.write_policy(POLICY);
        let _ = fs::set_permissions(&module.root, fs::Permissions::from_mode(0o700));
        match kind.promise {
            Promise::Nothing(words) => expect_refusal(&module, words),
            promise => expect_snapshots(kind, &module, promise),
        }
        tried.push(kind.name);
    }
    eprintln!("tried: {}", tried.join(", "));
}

/// Every command that works on the module says `words`, and none gives advice that cannot help.
fn expect_refusal(module: &Module, words: &str) {
    fs::write(module.latest.join("file"), "content").expect("a file");
    for run in
        [module.run_hook(), module.run(&["snapshot", "data"]), module.run(&["verify", "data"])]
    {
        let run = run.exits(&[2]).says(words);
        assert!(!run.stderr().contains("immutable"), "{run}");
        assert!(!words.contains("hard links") || !run.stderr().contains("chmod"), "{run}");
    }
    module.run(&["check", "data"]).exits(&[2]).says(words);
    assert_eq!(module.snapshots(), Vec::<String>::new());
}

fn expect_snapshots(kind: &Kind, module: &Module, promise: Promise) {
    let (words, code) = match promise {
        Promise::Everything => ("", 0),
        Promise::NoInodeNumbers(words) | Promise::Restore(words) | Promise::Nothing(words) => {
            (words, 4)
        }
    };
    tree::small(&module.latest);
    let check = module.run(&["check", "data"]);
    let is_named =
        check.code() == Some(0) || check.stdout().contains("a first `snapshot` tries it");
    assert!(is_named || check.stdout().contains(words) && code == 4, "{}: {check}", kind.name);

    let first = one_snapshot(module, code, words);
    if promise == Promise::Everything {
        // Right after the links were made.
        assert_verified(module);
        module.expect_no_snapshot();
    }
    tree::write(&module.latest.join("read me"), "changed\n");
    fs::remove_file(module.latest.join("documents/report")).expect("removed");
    let second = one_snapshot(module, code, words);
    let (old, new) = (module.snapshot(&first), module.snapshot(&second));
    assert_eq!(
        fs::read_to_string(old.join("read me")).expect("its file"),
        "first\n",
        "{}",
        kind.name
    );
    assert_eq!(fingerprint::contents(&new), fingerprint::contents(&module.latest), "{}", kind.name);
    assert_eq!(new.join("documents").metadata().expect("a directory").mode() & 0o777, 0o755);

    restore(kind, module, &new);
    expect_rotation(kind, module, code, words);
    match promise {
        Promise::Everything => {
            assert_verified(module);
            module.run(&["check", "data"]).exits(&[0]);
        }
        Promise::NoInodeNumbers(_) => {
            let run = module.run(&["verify", "data"]).exits(&[4]).says(words).says("cannot tell");
            assert!(!run.stdout().contains("none altered"), "{run}");
            module.run(&["check", "data"]).exits(&[1]).says(words);
        }
        Promise::Restore(_) | Promise::Nothing(_) => {
            module.run(&["check", "data"]).exits(&[1, 2]).says(words);
        }
    }
}

/// Runs the hook, which makes a snapshot and says `words`.
fn one_snapshot(module: &Module, code: i32, words: &str) -> String {
    let before = module.snapshots();
    let run = module.run_hook().exits(&[code]).says(words);
    let published = run.stderr();
    let name = published.split("published ").nth(1).and_then(|rest| rest.split(' ').next());
    let name = name.unwrap_or_else(|| panic!("a snapshot: {run}")).to_string();
    assert!(!before.contains(&name), "{run}");
    assert!(module.snapshot(&name).is_dir(), "{run}");
    name
}

fn assert_verified(module: &Module) {
    let run = module.run(&["verify", "data"]).exits(&[0]).says("none altered");
    assert!(!run.stdout().contains(" 0 files"), "{run}");
}

/// A plain copy out of a snapshot is what was pushed.
fn restore(kind: &Kind, module: &Module, snapshot: &Path) {
    let restored = module.directory.join("restored");
    let _ = fs::remove_dir_all(&restored);
    Run::of(tool("cp").arg("-a").arg(snapshot).arg(&restored)).exits(&[0]);
    assert_eq!(
        fingerprint::contents(&restored),
        fingerprint::contents(&module.latest),
        "{}",
        kind.name
    );
    for name in ["read me", "documents/letters/to you"] {
        let state = |root: &Path| {
            let metadata = root.join(name).symlink_metadata().expect("a file");
            (metadata.mode(), metadata.uid(), metadata.gid(), metadata.mtime())
        };
        assert_eq!(state(&restored), state(&module.latest), "{}: {name}", kind.name);
    }
}

/// What the policy does not keep goes, and the newest stays.
fn expect_rotation(kind: &Kind, module: &Module, code: i32, words: &str) {
    tree::write(&module.latest.join("another"), "file");
    let newest = one_snapshot(module, code, words);
    module.run(&["rotate", "data", "--purge"]).exits(&[0, 4]);
    let left = module.snapshots();
    // Altered files, which encfs makes of all, pause expiry.
    let is_paused = matches!(kind.promise, Promise::Restore(_));
    assert!(left.len() <= 2 || is_paused, "{}: {left:?}", kind.name);
    assert!(left.contains(&newest), "{}: {left:?}", kind.name);
    assert_eq!(module.left_over("staging"), 0, "{}", kind.name);
    // A listing that came late has cost none its record.
    let records =
        left.iter().map(|name| module.record(name)).filter(|record| record.contains_key("entries"));
    assert_eq!(records.count(), left.len(), "{}", kind.name);
}

#[test]
fn a_file_system_without_hard_links_is_named_on_first_use() {
    if !have(&["strace"]) {
        return;
    }
    let module = Module::new();
    tree::small(&module.latest);
    let through = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=linkat:error=EPERM"];
    let run = Run::of(&mut module.hook_through(&through)).exits(&[2]).says("has no hard links");
    assert!(!run.stderr().contains("chmod") && !run.stderr().contains("immutable"), "{run}");
    module.run(&["check", "data"]).exits(&[2]).says("has no hard links");
    assert_eq!(module.snapshots(), Vec::<String>::new());
    module.expect_snapshot();
}

#[test]
fn a_root_that_lost_hard_links_says_so_too() {
    if !have(&["strace"]) {
        return;
    }
    let (module, _) = Module::with_snapshot();
    tree::write(&module.latest.join("new"), "file");
    let through = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=linkat:error=EPERM"];
    Run::of(&mut module.hook_through(&through)).exits(&[2]).says("has no hard links");
}

#[test]
fn a_kernel_without_renameat2_makes_and_rotates_snapshots() {
    slow!();
    if !have(&["strace"]) {
        return;
    }
    for error in ["ENOSYS", "EPERM", "EINVAL"] {
        let module = Module::new();
        module.write_policy(POLICY);
        tree::small(&module.latest);
        let inject = format!("inject=renameat2:error={error}");
        let through =
            ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=renameat2", "-e", &inject];
        for text in ["one", "two", "three"] {
            tree::write(&module.latest.join("new"), text);
            Run::of(&mut module.hook_through(&through)).exits(&[0]).says("published");
        }
        assert_eq!(module.snapshots().len(), 2, "{error}");
        module.run(&["verify", "data"]).exits(&[0]);
    }
}

/// A mount whose server never answers, for as long as this lives.
struct Hung {
    server: Child,
    mount_point: std::path::PathBuf,
}

impl Hung {
    /// On a directory or a file; `None`, with the reason said, where FUSE is missing.
    fn on(mount_point: &Path) -> Option<Hung> {
        const SERVER: &str = "
import ctypes, os, stat, sys, time
place = sys.argv[1].encode()
fuse = os.open('/dev/fuse', os.O_RDWR)
kind = stat.S_IFMT(os.stat(place).st_mode)
options = b'fd=%d,rootmode=%o,user_id=0,group_id=0,allow_other' % (fuse, kind)
done = ctypes.CDLL(None, use_errno=True).mount(b'hung', place, b'fuse', 0, options)
print('mounted' if done == 0 else 'not mounted', flush=True)
time.sleep(300)
";
        if !may_mount() || !have(&["python3", "timeout"]) || !Path::new("/dev/fuse").exists() {
            skipped!("needs /dev/fuse");
            return None;
        }
        let mut command = tool("python3");
        command.args(["-c", SERVER]).arg(mount_point).stdout(Stdio::piped());
        let mut server = command.spawn().expect("python3");
        let mut line = String::new();
        let output = server.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("a line");
        let hung = Hung { server, mount_point: mount_point.to_path_buf() };
        if line.trim() != "mounted" {
            skipped!("needs the right to mount FUSE");
            return None;
        }
        Some(hung)
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        // With the server all that waits for it goes on; then the place can be left.
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = tool("umount").arg("--lazy").arg(&self.mount_point).status();
    }
}

/// So that a test which hangs ends.
const BOUNDED: [&str; 4] = ["timeout", "-s", "KILL", "30"];

fn bounded(module: &Module, arguments: &[&str]) -> Command {
    module.command_through(&BOUNDED, arguments)
}

/// The gate looks at the tree and at other modules before it turns a push in place away.
fn refuse_in_place(module: &Module) {
    let mut gate = module.gate_through(&BOUNDED);
    gate.env("RSYNC_PID", std::process::id().to_string()).env("RSYNC_ARG3", "--inplace");
    Run::of(gate.env("RSYNC_ARG5", ".")).exits(&[1]).says("--inplace");
}

#[test]
fn a_dead_mount_in_the_module_is_left_out_by_every_command() {
    let module = Module::new();
    module.write_policy(POLICY);
    tree::small(&module.latest);
    fs::create_dir(module.latest.join("documents/dead")).expect("a directory");
    tree::write(&module.latest.join("documents/dead file"), "beneath");
    let Some(_directory) = Hung::on(&module.latest.join("documents/dead")) else { return };
    let Some(_file) = Hung::on(&module.latest.join("documents/dead file")) else { return };
    let words = "documents/dead, documents/dead file";
    for text in ["one", "two", "three"] {
        tree::write(&module.latest.join("new"), text);
        let run = Run::of(&mut module.hook_through(&BOUNDED)).exits(&[4]).says("published");
        let run = run.says("left out what is mounted inside the module");
        for path in words.split(", ") {
            assert!(run.stderr().contains(path), "{run}");
        }
    }
    Run::of(&mut bounded(&module, &["check", "data"])).exits(&[1]).says("left out what is mounted");
    Run::of(&mut module.hook_through(&BOUNDED)).exits(&[0, 4]).says("nothing changed");
    refuse_in_place(&module);
    for arguments in [["list", "data"], ["verify", "data"], ["rotate", "data"], ["plan", "data"]] {
        Run::of(&mut bounded(&module, &arguments)).exits(&[0, 4]);
    }
    // What is mounted over a name is not what the snapshot has under it.
    let newest = module.snapshots().pop().expect("a snapshot");
    let names = support::module::names_in(&module.snapshot(&newest).join("documents"));
    assert!(names.contains(&"dead".to_string()), "{names:?}");
    assert!(!names.contains(&"dead file".to_string()), "{names:?}");
}

#[test]
fn check_tells_of_a_module_whose_server_is_dead_and_goes_on() {
    let (module, _) = Module::with_snapshot();
    let dead = module.directory.join("dead");
    fs::create_dir(&dead).expect("a directory");
    let Some(_hung) = Hung::on(&dead) else { return };
    let sections = [("data", module.latest.clone()), ("lost", dead.join("latest"))];
    let conf: String =
        sections.iter().map(|(name, path)| module.rsyncd_conf_section(name, path)).collect();
    module.write_rsyncd_conf(&conf);
    let run = Run::of(&mut bounded(&module, &["check"])).exits(&[2]);
    let run =
        run.says("OK - data").says("CRITICAL - lost: the file system of").says("has not answered");
    assert!(run.stdout().contains("its server or disk may be gone"), "{run}");
    Run::of(&mut bounded(&module, &["check", "lost"])).exits(&[2]).says("CRITICAL - lost");
    // The gate of another module does not wait for it.
    refuse_in_place(&module);
}

#[test]
fn every_command_goes_on_where_a_root_is_on_a_dead_server() {
    let (module, _) = Module::with_snapshot();
    let directory = |name: &str| {
        let path = module.directory.join(name);
        fs::create_dir_all(path.join("latest")).expect("a directory");
        tree::set_mode(&path, 0o700);
        path
    };
    // One that is remembered only, one whose root is elsewhere, and one that has no snapshot yet.
    let (gone, elsewhere, fresh) = (directory("gone"), directory("elsewhere"), directory("fresh"));
    let text = |path: &Path| path.to_str().expect("UTF-8").to_string();
    module.run(&["snapshot", &text(&gone.join("latest"))]).exits(&[0]);
    let sections = [("data", module.latest.clone()), ("rooted", elsewhere.join("latest"))];
    let conf: String =
        sections.iter().map(|(name, path)| module.rsyncd_conf_section(name, path)).collect();
    module.write_rsyncd_conf(&conf);
    let root = gone.join("root");
    module.write_policy(&format!("{POLICY}[module.rooted]\nsnapshot_root = {:?}\n", text(&root)));
    let Some(_hung) = Hung::on(&gone) else { return };

    let check = Run::of(&mut bounded(&module, &["check"])).exits(&[2]).says("OK - data");
    for label in ["rooted".to_string(), text(&gone.join("latest"))] {
        let words = format!("CRITICAL - {label}: the file system of {}", text(&gone));
        assert!(check.stdout().contains(&words), "{words}: {check}");
    }
    let list = Run::of(&mut bounded(&module, &["list", "--all"])).exits(&[1]);
    let list = list.says("has not answered for 10 s");
    assert!(list.stdout().contains("data"), "{list}");
    Run::of(&mut bounded(&module, &["rotate", "--all"])).exits(&[0]);
    for name in ["rooted".to_string(), text(&gone.join("latest"))] {
        Run::of(&mut bounded(&module, &["rotate", &name])).exits(&[1]).says("has not answered");
    }
    // A new module is compared with all roots that are known.
    let first = Run::of(&mut bounded(&module, &["snapshot", &text(&fresh.join("latest"))]));
    first.exits(&[0]).says("published");
}

#[test]
fn check_names_a_run_that_has_held_the_lock_for_long() {
    let (module, _) = Module::with_snapshot();
    let lock = module.private("lock");
    let write =
        |since: &str| fs::write(&lock, format!("process 1 for data (run by hand) since {since}\n"));
    write("2020-01-01T00:00:00Z").expect("a killed run's words");
    module.run(&["check", "data"]).exits(&[0]);
    let held = module.hold_lock();
    let run =
        module.run(&["check", "data"]).exits(&[1]).says("a run has held the lock for more than 6h");
    assert!(run.stdout().contains("process 1 for data"), "{run}");
    write("2999-01-01T00:00:00Z").expect("a run that has just begun");
    module.run(&["check", "data"]).exits(&[0]);
    drop(held);
}

#[test]
fn a_huge_hole_holds_neither_lock_nor_turn() {
    let module = Module::new();
    module
        .write_policy("[defaults]\ncontent_hashes = true\nmax_parallel = 1\nlock_wait = \"2s\"\n");
    tree::small(&module.latest);
    let hole = fs::File::create(module.latest.join("hole")).expect("a file");
    if hole.set_len(1 << 43).is_err() {
        skipped!("needs a file system with files of 8 TiB");
        return;
    }
    let words = "are hashed: 1 file with hardly anything but holes";
    Run::of(&mut module.hook_through(&BOUNDED)).exits(&[4]).says("published").says(words);
    module.run(&["check", "data"]).exits(&[1]).says(words);
    let json = module.json(&["verify", "data", "--json"]);
    assert_eq!(json["altered_files"], 0, "{json:#}");
}
