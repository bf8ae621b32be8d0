//! Least privilege: four capabilities are enough, nothing else is kept, and the kernel holds the
//! program to its roots.

use crate::support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat};
use support::file_system::{FileSystem, Kind};
use support::module::{Module, NAME};
use support::run::{Run, tool};
use support::subvolumes::{are_subvolumes, edit_snapshot};
use support::{BINARY, have, root, tree};

/// CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER and CAP_FSETID.
const FOUR: &str = "000000000000001b";

/// Runs what follows with these four and no others.
const WITH_FOUR: [&str; 4] = [
    "setpriv",
    "--bounding-set=-all,+chown,+dac_override,+fowner,+fsetid",
    "--inh-caps=-all",
    "--",
];

/// A policy under which two snapshots are enough, and what is retired is used again at once.
const EXPIRING: &str =
    "[defaults]\nkeep = { minutely = 1 }\nmin_keep = 1\nmin_age = \"0s\"\ngrace = \"0s\"\n";

#[test]
fn four_capabilities_are_enough_for_every_type_of_entry() {
    if !root() || !have(&["setpriv"]) {
        return;
    }
    let module = Module::new();
    module.write_policy(EXPIRING);
    tree::every_type(&module.latest);
    let hook = || Run::of(&mut module.hook_through(&WITH_FOUR)).exits(&[0, 4]);
    hook();
    for number in 0..4 {
        tree::write(&module.latest.join("documents").join(format!("new {number}")), "x");
        hook();
        let newest = module.snapshots().pop().expect("a snapshot");
        module.assert_equals_module(&newest);
    }
    let mut command = tool(WITH_FOUR[0]);
    command.args(&WITH_FOUR[1..]).arg(&module.program);
    module.prepare(&mut command);
    Run::of(command.args(["rotate", "--purge", NAME])).exits(&[0]);
    assert_eq!((module.left_over("expired"), module.left_over("staging")), (0, 0));
}

#[test]
fn a_running_hook_holds_the_four_and_can_gain_none() {
    if !root() {
        return;
    }
    let (module, _) = Module::with_snapshot();
    let lock = module.hold_lock();
    let child = Killed(module.hook().stderr(Stdio::null()).spawn().expect("the hook"));
    let status = await_status(child.0.id());
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(status[set], FOUR, "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(status[set].trim_start_matches('0'), "", "{set}");
    }
    assert_eq!(status["NoNewPrivs"], "1");
    drop(lock);
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `/proc/PID/status` once the process has given up what it gives up, and waits.
fn await_status(pid: u32) -> BTreeMap<String, String> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running hook");
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let status: BTreeMap<_, _> =
            lines.map(|(key, value)| (key.to_string(), value.trim().to_string())).collect();
        if status["NoNewPrivs"] == "1" && status["State"].starts_with('S')
            || Instant::now() > deadline
        {
            return status;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn rights_are_given_up_before_a_clients_data_is_read() {
    if !root() || !have(&["strace"]) {
        return;
    }
    let (module, _) = Module::with_snapshot();
    tree::numbered(&module.latest, 30, 100);
    let trace = module.directory.join("trace");
    let path = trace.to_str().expect("UTF-8");
    Run::of(&mut module.hook_through(&["strace", "-f", "-y", "-o", path])).exits(&[0]);
    let text = fs::read_to_string(&trace).expect("the trace");
    let first = |what: &str| text.lines().position(|line| line.contains(what));
    let need = |what: &str| first(what).unwrap_or_else(|| panic!("no {what}"));
    if first("landlock_restrict_self").is_none() {
        return skipped!("needs Landlock");
    }
    let order = [
        need("PR_SET_NO_NEW_PRIVS"),
        need("PR_CAPBSET_DROP"),
        need("capset("),
        need("landlock_restrict_self"),
    ];
    assert!(order.is_sorted(), "{order:?}");
    // What is opened in the module before is the module itself, for the rights to it.
    let module_descriptor = format!("<{}>", module.latest.display());
    let below = format!("{}/", module.latest.display());
    let argument = format!("{module_descriptor}, ");
    let touches = |line: &str| {
        let is_call = ["getdents64(", "newfstatat(", "statx(", "openat", "linkat("]
            .iter()
            .any(|call| line.contains(call));
        (is_call && line.contains(&argument) && !line.contains("\"\"")) || line.contains(&below)
    };
    let reading = text.lines().position(touches).expect("a look at the module");
    assert!(order[3] < reading, "{:?}", text.lines().nth(reading));
    let thread = first("CLONE_THREAD");
    assert!(thread.is_none_or(|thread| order[3] < thread), "a thread is started first");
}

#[test]
fn without_landlock_in_the_kernel_the_hook_works_and_says_so() {
    if !root() || !have(&["strace"]) {
        return;
    }
    for error in ["ENOSYS", "EOPNOTSUPP"] {
        let module = Module::new();
        tree::small(&module.latest);
        let inject = format!("inject=landlock_create_ruleset:error={error}");
        let mut hook = module.hook_through(&["strace", "-f", "-o", "/dev/null", "-e", &inject]);
        Run::of(hook.arg("--verbose")).exits(&[0]).says("Landlock: not ");
        assert_eq!(module.snapshots().len(), 1, "{error}");
    }
}

/// What the probe could do in each directory.
struct Probe {
    answers: BTreeMap<(PathBuf, String), String>,
}

impl Probe {
    fn of(module: &Module, latest: &Path, staging: &Path, directories: &[&Path]) -> Probe {
        for directory in directories {
            fs::create_dir_all(directory.join("empty")).expect("a directory");
            fs::write(directory.join("file"), "whole").expect("a file");
            fs::write(directory.join("script"), "#!/bin/sh\n").expect("a script");
            tree::set_mode(&directory.join("script"), 0o755);
        }
        fs::write(staging.join("source"), "").expect("a file");
        let mut command = std::process::Command::new(example());
        module.prepare(&mut command);
        let mut probe = std::process::Command::new(example());
        probe.env_clear().envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let run = Run::of(probe.arg(&module.policy).args([latest, staging]).args(directories))
            .exits(&[0]);
        let told = run.stdout();
        let answers = told.lines().map(|line| {
            let (rest, answer) = line.rsplit_once(": ").expect("an answer");
            let (directory, attempt) = rest.rsplit_once(": ").expect("an attempt");
            ((PathBuf::from(directory), attempt.to_string()), answer.to_string())
        });
        Probe { answers: answers.collect() }
    }

    /// Exactly the attempts `done` succeed in `directory`, and the kernel forbids the others.
    #[track_caller]
    fn expect(&self, directory: &Path, done: &[&str]) {
        let here: Vec<_> =
            self.answers.iter().filter(|((place, _), _)| place == directory).collect();
        assert!(here.len() > 10, "{}: {here:?}", directory.display());
        for ((_, attempt), answer) in here {
            let wanted: &[&str] = if done.contains(&attempt.as_str()) {
                &["done"]
            } else {
                &["EACCES", "EXDEV", "EPERM"]
            };
            assert!(
                wanted.contains(&answer.as_str()),
                "{}: {attempt}: {answer}",
                directory.display()
            );
        }
    }
}

fn example() -> PathBuf {
    let built = std::process::Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--example", "confined"])
        .status();
    assert!(built.expect("cargo").success(), "the example is built");
    Path::new(BINARY).with_file_name("examples").join("confined")
}

/// Whether the kernel has all that is meant; an older one is told from the program's own words.
fn has_landlock(module: &Module) -> bool {
    let run = module.run(&["--verbose", "list", NAME]);
    let is_full = run.stderr().contains("changes nothing but its roots and its memory\n");
    if !is_full {
        skipped!("needs Landlock in the kernel, version 5 or later");
    }
    is_full
}

const NAMES: [&str; 7] = [
    "link out",
    "link in",
    "make a directory",
    "make a symlink",
    "remove a directory",
    "rename",
    "move out",
];

#[test]
fn a_module_beside_its_root_is_read_only() {
    let module = Module::new();
    if !has_landlock(&module) {
        return;
    }
    let (latest, outside) =
        (module.directory.join("served/latest"), module.directory.join("outside"));
    fs::create_dir_all(&latest).expect("the module");
    let snapshots = module.directory.join("snapshots");
    let policy = format!("[defaults]\nsnapshot_root = '{}'\n", snapshots.display());
    module.write_policy(&policy);
    tree::small(&latest);
    module.run(&["snapshot", latest.to_str().expect("UTF-8")]).exits(&[0]);
    let name = support::module::visible(&snapshots).remove(0);
    let private = snapshots.join(".rsyncd-snapshot");
    let (staging, records) = (private.join("staging"), private.join("records"));
    let (snapshot, state) = (snapshots.join(name), module.state_directory());
    let served = module.directory.join("served");
    let probe = Probe::of(
        &module,
        &latest,
        &staging,
        &[&latest, &served, &outside, &snapshot, &staging, &records, &state],
    );
    probe.expect(&latest, &["link out"]);
    probe.expect(&served, &[]);
    probe.expect(&outside, &[]);
    probe.expect(&snapshot, &NAMES);
    probe.expect(&staging, &NAMES);
    assert_eq!(fs::read_to_string(latest.join("file")).expect("a file"), "whole");
    assert_eq!(fs::read_to_string(outside.join("file")).expect("a file"), "whole");
    for ours in [&records, &state] {
        assert_eq!(probe.answers[&(ours.to_path_buf(), "make and write".to_string())], "done");
        assert_eq!(probe.answers[&(ours.to_path_buf(), "execute".to_string())], "EACCES");
    }
}

#[test]
fn only_a_repair_may_write_into_a_module() {
    if !root() || !have(&["setpriv"]) {
        return;
    }
    let module = Module::new();
    let latest = module.directory.join("served/latest");
    fs::create_dir_all(&latest).expect("the module");
    let (snapshots, file) = (module.directory.join("snapshots"), latest.join("file"));
    module.write_policy(&format!("[defaults]\nsnapshot_root = '{}'\n", snapshots.display()));
    fs::write(&file, "content").expect("a file");
    tree::set_mode(&file, 0o755);
    tree::set_attribute(&file, "security.capability", tree::CAP_NET_RAW);
    let twin = latest.join("twin");
    fs::hard_link(&file, &twin).expect("a link");
    let path = latest.to_str().expect("UTF-8");
    module.run(&["snapshot", path]).exits(&[0]);
    let past = snapshots.join(support::module::visible(&snapshots).remove(0)).join("file");
    std::thread::sleep(Duration::from_millis(50));
    tree::set_mode(&file, 0o700);

    let inode = |path: &Path| fs::metadata(path).expect("metadata").ino();
    let repair = |more: &str| {
        let capabilities =
            format!("--bounding-set=-all,+chown,+dac_override,+fowner,+fsetid{more}");
        let mut command = tool("setpriv");
        module.prepare(command.args([&capabilities, "--inh-caps=-all", "--"]).arg(&module.program));
        Run::of(command.args(["verify", "--repair-attributes", path]))
    };
    // A copy without the file's capabilities would not be what the client has made.
    repair("").exits(&[1]).says("cannot copy").says("attributes of 0 files restored");
    assert_eq!([inode(&file), inode(&twin)], [inode(&past); 2], "the client's file is left alone");
    repair(",+setfcap,+mknod,+sys_admin").exits(&[0]).says("attributes of 1 file restored");

    let state = |path: &Path| {
        let metadata = fs::metadata(path).expect("metadata");
        let mut capability = [0; 64];
        let length = rustix::fs::getxattr(path, "security.capability", &mut capability[..])
            .expect("capabilities");
        (metadata.mode() & 0o7777, capability[..length].to_vec())
    };
    assert_ne!(inode(&file), inode(&past));
    assert_eq!(inode(&file), inode(&twin));
    assert_eq!(
        state(&file),
        (0o700, tree::CAP_NET_RAW.to_vec()),
        "the client's, as it has made it"
    );
    assert_eq!(state(&past), (0o755, tree::CAP_NET_RAW.to_vec()), "the snapshot's, as it was");
}

#[test]
fn no_file_can_be_opened_for_writing() {
    let module = Module::new();
    if !has_landlock(&module) {
        return;
    }
    tree::small(&module.latest);
    let name = module.expect_snapshot();
    let (snapshot, staging) = (module.snapshot(&name), module.private("staging"));
    let (private, outside) = (module.private(""), module.directory.join("outside"));
    let probe = edit_snapshot(&snapshot, |snapshot| {
        let directories = [module.latest.as_path(), snapshot, &private, &outside];
        Probe::of(&module, &module.latest, &staging, &directories)
    });
    // No link and no rename leads into a subvolume, or out of it; so the file is there to be
    // removed.
    let is_across = |name: &str| name.starts_with("link ") || name.starts_with("move ");
    let within = NAMES.into_iter().filter(|name| !is_across(name));
    let in_subvolume: Vec<&str> = within.chain(["remove"]).collect();
    for directory in [&module.latest, &snapshot] {
        probe.expect(directory, if are_subvolumes() { &in_subvolume } else { &NAMES });
    }
    probe.expect(&private, &NAMES);
    probe.expect(&outside, &[]);
}

#[test]
fn a_command_that_only_looks_can_change_nothing_at_all() {
    if !have(&["strace"]) {
        return;
    }
    let (module, _) = Module::with_snapshot();
    if !has_landlock(&module) {
        return;
    }
    let to = module.directory.join("restored");
    let to = to.to_str().expect("UTF-8");
    for command in [
        &["list", NAME][..],
        &["plan", NAME],
        &["check", NAME],
        &["status", NAME],
        &["complete", NAME],
        &["rotate", "--dry-run", NAME],
        &["restore", NAME, "newest", "--to", to, "--dry-run"],
    ] {
        let trace = module.directory.join("trace");
        let mut line = tool("strace");
        line.args(["-f", "-o"]).arg(&trace).arg(&module.program);
        module.prepare(&mut line);
        Run::of(line.args(command)).exits(&[0, 1]);
        let text = fs::read_to_string(&trace).expect("the trace");
        assert!(text.contains("landlock_restrict_self("), "{command:?}");
        assert!(!text.contains("landlock_add_rule("), "{command:?} has rights to something");
    }
}

#[test]
fn a_restore_may_write_only_where_it_is_told_to() {
    if !root() || !have(&["strace"]) {
        return;
    }
    let (module, name) = Module::with_snapshot();
    if !has_landlock(&module) {
        return;
    }
    let (trace, to) = (module.directory.join("trace"), module.directory.join("restored"));
    let mut line = tool("strace");
    line.args(["-f", "-y", "-e", "trace=landlock_add_rule,landlock_restrict_self", "-o"]);
    module.prepare(line.arg(&trace).arg(&module.program));
    Run::of(line.args(["restore", NAME, &name, "--to"]).arg(&to)).exits(&[0]);
    let text = fs::read_to_string(&trace).expect("the trace");
    assert!(text.contains("landlock_restrict_self("), "{text}");
    let places = [to.clone(), module.private("leases")];
    let places = places.map(|place| format!("<{}>", place.display()));
    let rules: Vec<&str> = text.lines().filter(|line| line.contains("add_rule(")).collect();
    assert_eq!(rules.len(), 2, "{rules:?}");
    for rule in rules {
        let count = places.iter().filter(|place| rule.contains(place.as_str())).count();
        // An older strace does not show the descriptor of a rule.
        assert!(count == 1 || !rule.contains("parent_fd="), "{rule}");
    }
}

#[test]
fn files_are_copied_with_the_rights_that_are_left() {
    let Some(file_system) = FileSystem::new(Kind::Ext4) else { return };
    if !have(&["chattr"]) {
        return;
    }
    let module = Module::on(&file_system);
    tree::small(&module.latest);
    let file = module.latest.join("documents/report");
    fs::hard_link(&file, module.latest.join("its twin")).expect("a link");
    Run::of(tool("chattr").arg("+i").arg(&file)).exits(&[0]);
    let run = Run::of(&mut module.hook())
        .exits(&[4])
        .says("2 entries of 1 files could not be linked and were copied");
    let snapshot = module.snapshot(&module.snapshots()[0]);
    let inode = |path: &Path| fs::metadata(path).expect("a copy").ino();
    assert_eq!(
        inode(&snapshot.join("documents/report")),
        inode(&snapshot.join("its twin")),
        "{run}"
    );
    assert_eq!(fs::read_dir(module.private("drafts")).expect("drafts").count(), 0);
    Run::of(tool("chattr").arg("-i").arg(&file)).exits(&[0]);
    module.expect_no_snapshot();
}

#[test]
fn a_device_is_kept_as_rsyncs_fake_super_file() {
    only_hard_links!("copies of files that cannot be linked");
    if !root() || !have(&["strace"]) {
        return;
    }
    let module = Module::new();
    let device = module.latest.join("null");
    mknodat(CWD, &device, FileType::CharacterDevice, Mode::from_raw_mode(0o640), makedev(1, 3))
        .expect("a device");
    // The first link is the trial of a new root.
    let inject = "inject=linkat:error=EMLINK:when=2";
    let run = Run::of(&mut module.hook_through(&["strace", "-f", "-o", "/dev/null", "-e", inject]))
        .exits(&[4]);
    let run = run.says("1 entries could not be linked and were copied").says("the device");
    let copy = module.snapshot(&module.snapshots()[0]).join("null");
    assert!(fs::metadata(&copy).expect("what stands for it").is_file(), "{run}");
    let mut value = [0; 100];
    let length =
        rustix::fs::getxattr(&copy, "user.rsync.%stat", &mut value[..]).expect("rsync's attribute");
    assert_eq!(String::from_utf8_lossy(&value[..length]), "20640 1,3 0:0");
    module.expect_no_snapshot();
}

#[test]
fn an_attribute_that_cannot_be_written_is_no_change() {
    if !root() {
        return;
    }
    let module = Module::new();
    tree::small(&module.latest);
    let directory = module.latest.join("documents");
    if rustix::fs::setxattr(&directory, "trusted.overlay.opaque", b"y", XattrFlags::empty())
        .is_err()
    {
        return skipped!("needs trusted attributes");
    }
    let name = module.expect_snapshot();
    module.expect_no_snapshot();
    // It is the directory's; a file's stays, for the file is the same. A subvolume keeps both.
    let copy = module.snapshot(&name).join("documents");
    let is_kept = rustix::fs::getxattr(&copy, "trusted.overlay.opaque", &mut [0; 8][..]).is_ok();
    assert_eq!(is_kept, are_subvolumes());
}

#[test]
fn a_process_that_proc_hides_does_not_count_as_dead() {
    if !root() || !have(&["unshare", "mount"]) {
        return;
    }
    let (module, _) = Module::with_snapshot();
    let connection = Killed(tool("sleep").arg("60").spawn().expect("a process"));
    let pid = connection.0.id().to_string();
    let hide = "mount -t proc -o hidepid=ptraceable proc /proc && exec \"$@\"";
    let hidden = ["unshare", "--mount", "sh", "-c", hide, "sh"];
    if !Run::of(tool(hidden[0]).args(&hidden[1..]).arg("true")).succeeded() {
        return skipped!("needs /proc with hidepid=ptraceable");
    }
    Run::of(module.gate_through(&[] as &[&str]).env("RSYNC_PID", &pid)).exits(&[0]);
    let entries = support::module::names_in(&module.private("transfers"));
    assert!(entries.len() == 1 && entries[0].ends_with(&format!("-{pid}")), "{entries:?}");
    let entry = module.private("transfers").join(&entries[0]);

    // A run that looks for dead entries finds it alive.
    assert!(entry.exists());
    Run::of(&mut module.command_through(&hidden, &["snapshot", "--all", "--due"])).exits(&[0]);
    assert!(entry.exists() && !module.is_marked("torn"), "{:?}", module.state());

    // And who comes next is told what is wrong, and let in.
    let next = Killed(tool("sleep").arg("60").spawn().expect("a process"));
    let run = Run::of(module.gate_through(&hidden).env("RSYNC_PID", next.0.id().to_string()));
    run.exits(&[0]).says("its snapshot will be partial").says("hidepid");
    assert!(entry.exists() && !module.is_marked("torn"), "{:?}", module.state());
}

#[test]
fn a_link_among_our_directories_gives_no_rights_elsewhere() {
    if !root() {
        return;
    }
    let (module, _) = Module::with_snapshot();
    if !has_landlock(&module) {
        return;
    }
    let outside = module.directory.join("outside");
    fs::create_dir(&outside).expect("a directory");
    fs::remove_dir(module.private("drafts")).expect("the drafts");
    symlink(&outside, module.private("drafts")).expect("a link");
    let probe = Probe::of(&module, &module.latest, &module.private("staging"), &[&outside]);
    probe.expect(&outside, &[]);
}
