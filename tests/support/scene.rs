//! Scenes for sweeps: one command and a module in which the command takes all of its steps.

use std::cell::RefCell;
use std::fs;
use std::process::{Child, Command, Stdio};

use super::aftermath::{OLD, ROTATING, assert_is_module, fingerprints};
use super::disk_use::assert_sizes_are_right;
use super::fingerprint::{self, Fingerprint};
use super::module::Module;
use super::run::{Run, tool};
use super::tree;

/// A recorded snapshot of long ago.
pub(crate) const PAST: &str = "2001-02-07T04-05-06Z";

/// A module, what was in it before the command, and the connection of the push that the command
/// belongs to.
pub(crate) struct Site {
    pub(crate) module: Module,
    pub(crate) before: Vec<(String, Fingerprint)>,
    /// Of these, the names of those that were not retired, oldest first.
    pub(crate) visible_before: Vec<String>,
    connection: Option<Connection>,
}

/// A process in place of the one that serves a connection.
struct Connection(RefCell<Child>);

/// A command.
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    prepare: fn() -> Site,
    command: fn(&Site, &[&str]) -> Command,
    /// What the administrator or the next hook does afterwards, with its checks. The number selects
    /// a variant.
    finish: fn(&Site, usize, &str),
}

impl Scene {
    pub(crate) fn prepare(&self) -> Site {
        (self.prepare)()
    }

    /// The command, run through another program unless `wrapper` is empty.
    pub(crate) fn command(&self, site: &Site, wrapper: &[&str]) -> Command {
        (self.command)(site, wrapper)
    }

    pub(crate) fn assert_the_next_run_finishes(&self, site: &Site, variant: usize, what: &str) {
        (self.finish)(site, variant, what);
    }
}

/// The hook's first run: it makes the root, and expires old snapshots.
pub(crate) const FIRST: Scene = Scene {
    name: "first run",
    prepare: || Site::of(busy_module()),
    command: |site, wrapper| site.module.hook_through(wrapper),
    finish: |site, _, what| super::aftermath::assert_the_next_run_finishes(&site.module, what),
};

/// A later run of the hook: it compares, recycles, retires, removes, and clears a torn mark.
pub(crate) const LATER: Scene =
    Scene { name: "later run", prepare: || Site::of(torn_module()), ..FIRST };

/// pre-xfer before a push.
pub(crate) const GATE: Scene = Scene {
    name: "pre-xfer",
    prepare: || Site::paired(used_module()),
    command: |site, wrapper| site.gate(wrapper),
    finish: finish_gate,
};

/// pre-xfer before a client reads a snapshot through a restore module.
pub(crate) const READ: Scene = Scene {
    name: "pre-xfer of a restore",
    prepare: || Site::paired(used_module()),
    command: |site, wrapper| {
        let mut command = site.gate(wrapper);
        command.env("RSYNC_MODULE_NAME", "restore").env("RSYNC_MODULE_PATH", &site.module.root);
        let words = ["rsyncd", "--server", "--sender", "-r", ".", OLD[0]];
        for (number, word) in words.iter().enumerate() {
            command.env(format!("RSYNC_ARG{number}"), word);
        }
        command
    },
    finish: |site, _, what| {
        site.hang_up();
        assert_a_push_finishes(site, &[], what);
        assert_eq!(entries(&site.module, "leases"), 0, "{what}");
    },
};

/// post-xfer after a push that pre-xfer has let in.
pub(crate) const PAIR: Scene = Scene {
    name: "post-xfer of the pair",
    prepare: || {
        let site = Site::paired(used_module());
        Run::of(&mut site.gate(&[])).exits(&[0]);
        tree::write(&site.module.latest.join("pushed"), "x");
        site
    },
    command: |site, wrapper| site.hook(wrapper, "0"),
    finish: finish_pair,
};

/// Rotation by hand: it retires and removes.
pub(crate) const ROTATE: Scene = Scene {
    name: "rotate",
    prepare: || Site::of(used_module()),
    command: |site, wrapper| site.module.command_through(wrapper, &["rotate", "data"]),
    finish: |site, _, what| {
        assert_repeats(site, &["rotate", "data"], what);
        assert_a_push_finishes(site, &[], what);
    },
};

/// A snapshot that is due.
pub(crate) const DUE: Scene = Scene {
    name: "snapshot --due",
    prepare: || {
        let module = used_module();
        tree::write(&module.latest.join("owed"), "x");
        module.write_policy(&ROTATING.replace("5s", "0s"));
        let lock = module.hold_lock();
        module.run_hook().exits(&[3]);
        drop(lock);
        module.write_policy(ROTATING);
        assert!(module.is_marked("due"));
        Site::of(module)
    },
    command: |site, wrapper| site.module.command_through(wrapper, &["snapshot", "data", "--due"]),
    finish: |site, _, what| {
        assert_repeats(site, &["snapshot", "data", "--due"], what);
        assert!(!site.module.is_marked("due"), "{what}");
        site.assert_newest_is_module(what);
        assert_a_push_finishes(site, &[], what);
    },
};

/// `undelete`: a retired snapshot is brought back.
pub(crate) const UNDELETE: Scene = Scene {
    name: "undelete",
    prepare: || Site::of(used_module()),
    command: |site, wrapper| site.module.command_through(wrapper, &["undelete", "data", OLD[1]]),
    finish: |site, _, what| {
        let run = site.module.run(&["undelete", "data", OLD[1]]);
        // The command may have finished.
        let is_needless = run.code() == Some(2) && run.stderr().contains("no retired snapshot");
        assert!(run.code() == Some(0) || is_needless, "{what}: {run}");
        assert_a_push_finishes(site, &[OLD[1]], what);
    },
};

/// `pin` of an old snapshot.
pub(crate) const PIN: Scene = Scene {
    name: "pin",
    prepare: || Site::of(used_module()),
    command: |site, wrapper| site.module.command_through(wrapper, &["pin", "data", OLD[0]]),
    finish: |site, _, what| {
        assert_repeats(site, &["pin", "data", OLD[0]], what);
        assert_a_push_finishes(site, &[OLD[0]], what);
    },
};

/// `expire` of an old snapshot: it is retired.
pub(crate) const EXPIRE: Scene = Scene {
    name: "expire",
    prepare: || Site::of(used_module()),
    command: |site, wrapper| site.module.command_through(wrapper, &["expire", "data", OLD[0]]),
    finish: |site, _, what| {
        assert_repeats(site, &["expire", "data", OLD[0]], what);
        assert_only_named_are_gone(site, &[OLD[0]], what);
        assert_eq!(site.module.snapshots(), [PAST], "{what}");
        assert_a_push_finishes(site, &[], what);
    },
};

/// `expire --now` of an old snapshot and of a retired one: both are removed.
pub(crate) const EXPIRE_NOW: Scene = Scene {
    name: "expire --now",
    prepare: || Site::of(used_module()),
    command: |site, wrapper| {
        let arguments = ["expire", "data", OLD[0], OLD[1], "--now"];
        site.module.command_through(wrapper, &arguments)
    },
    finish: |site, _, what| {
        for name in &OLD[..2] {
            let run = site.module.run(&["expire", "data", name, "--now"]);
            // The command may have finished.
            let is_needless = run.code() == Some(2) && run.stderr().contains("has no snapshot");
            assert!(run.code() == Some(0) || is_needless, "{what}: {run}");
        }
        assert_only_named_are_gone(site, &OLD[..2], what);
        assert_eq!(
            (site.module.snapshots(), site.module.retired()),
            (vec![PAST.to_string()], vec![OLD[2].to_string()],),
            "{what}"
        );
        assert_a_push_finishes(site, &[], what);
    },
};

/// `list --sizes`: all that it has counted is remembered, or nothing is.
pub(crate) const SIZES: Scene = Scene {
    name: "list --sizes",
    prepare: || Site::of(used_module()),
    command: |site, wrapper| site.module.command_through(wrapper, &["list", "data", "--sizes"]),
    finish: |site, _, what| {
        let (exact, list) = assert_sizes_are_right(&site.module, &[]);
        let is_counted = !list["sizes_counted"].is_null();
        assert_eq!(exact > 0, is_counted, "{what}: {list}");
        assert_eq!(site.module.private("sizes.toml").exists(), is_counted, "{what}: {list}");
        let (exact, list) = assert_sizes_are_right(&site.module, &["--sizes"]);
        assert!(exact > 0, "{what}: {list}");
        assert_a_push_finishes(site, &[], what);
    },
};

/// Of what was there before the command, only `named` is missing, and nothing else seems to be.
fn assert_only_named_are_gone(site: &Site, named: &[&str], what: &str) {
    let module = &site.module;
    let left = [module.snapshots(), module.retired()].concat();
    let gone = site.before.iter().map(|(name, _)| name).filter(|name| !left.contains(name));
    let gone: Vec<&String> = gone.filter(|name| !named.contains(&name.as_str())).collect();
    assert_eq!(gone, [""; 0], "{what}");
    let verify = module.run(&["verify", "data"]);
    assert_eq!(verify.code(), Some(0), "{what}: {verify}");
}

impl Site {
    fn of(module: Module) -> Site {
        Site {
            before: fingerprints(&module),
            visible_before: module.snapshots(),
            module,
            connection: None,
        }
    }

    /// A scene with a connection of a push.
    fn paired(module: Module) -> Site {
        let section = module.rsyncd_conf_section("data", &module.latest);
        let gate = format!("pre-xfer exec = {} pre-xfer\n", module.program.display());
        module.write_rsyncd_conf(&(section + &gate));
        Site { connection: Some(Connection::new()), ..Site::of(module) }
    }

    fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("a connection")
    }

    fn gate(&self, wrapper: &[&str]) -> Command {
        self.connection().gate(&self.module, wrapper)
    }

    fn hook(&self, wrapper: &[&str], status: &str) -> Command {
        self.connection().hook(&self.module, wrapper, status)
    }

    /// Whether the ledger has the push of the connection.
    pub(crate) fn is_entered(&self) -> bool {
        let pid = self.connection().pid();
        let root = self.module.directory.join("state/transfers");
        let elsewhere = fs::read_dir(root).into_iter().flatten().flatten();
        let is_its = |name: &str| name.rsplit('-').next() == Some(pid.as_str());
        let mut ledgers =
            elsewhere.map(|ledger| ledger.path()).chain([self.module.private("transfers")]);
        ledgers.any(|ledger| super::module::names_in(&ledger).iter().any(|name| is_its(name)))
    }

    /// Ends the process of the connection.
    fn hang_up(&self) {
        let connection = &mut self.connection().0.borrow_mut();
        connection.kill().expect("killed");
        connection.wait().expect("gone");
    }

    /// The snapshots that were not there before, oldest first.
    pub(crate) fn new_snapshots(&self) -> Vec<String> {
        let is_new = |name: &String| !self.before.iter().any(|(old, _)| old == name);
        self.module.snapshots().into_iter().filter(is_new).collect()
    }

    fn assert_newest_is_module(&self, what: &str) -> String {
        let newest =
            self.new_snapshots().pop().unwrap_or_else(|| panic!("{what}: no new snapshot"));
        let snapshot = fingerprint::of(&self.module.snapshot(&newest));
        assert_is_module(&self.module, &newest, &snapshot, what);
        newest
    }
}

impl Connection {
    fn new() -> Connection {
        let mut sleep = tool("sleep");
        let process = sleep.arg("600").stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Connection(RefCell::new(process.expect("a process")))
    }

    fn pid(&self) -> String {
        self.0.borrow().id().to_string()
    }

    fn gate(&self, module: &Module, wrapper: &[&str]) -> Command {
        let mut command = module.gate_through(wrapper);
        command.env("RSYNC_PID", self.pid());
        command
    }

    fn hook(&self, module: &Module, wrapper: &[&str], status: &str) -> Command {
        let mut command = module.hook_through(wrapper);
        command.env("RSYNC_PID", self.pid()).env("RSYNC_EXIT_STATUS", status);
        command
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let process = self.0.get_mut();
        let _ = process.kill();
        let _ = process.wait();
    }
}

/// A module with changes to be snapshotted and old snapshots to be expired.
pub(crate) fn busy_module() -> Module {
    let module = Module::new();
    tree::one_of_each(&module.latest);
    for name in OLD {
        module.make_old_snapshot(name);
    }
    module.write_policy(ROTATING);
    module
}

/// A module with a recorded snapshot and an old one to expire, and retired ones to be recycled and
/// removed.
pub(crate) fn used_module() -> Module {
    let module = Module::new();
    tree::one_of_each(&module.latest);
    let name = module.expect_snapshot();
    module.date_back(&name, PAST);
    module.write_policy(ROTATING);
    // One snapshot to remove and one to recycle.
    OLD[1..3].iter().for_each(|name| module.make_old_snapshot(name));
    module.run(&["rotate", "data"]).exits(&[0]);
    assert_eq!(module.left_over("expired"), 2);
    module.make_old_snapshot(OLD[0]);
    module
}

/// The same after a transfer that failed and one that may have repaired what that left.
fn torn_module() -> Module {
    let module = used_module();
    // With a grace, or the failure would remove what is retired at once.
    module.write_policy(&ROTATING.replace("grace = \"0s\"", "grace = \"1d\""));
    module.run_hook_after(12).exits(&[0]);
    module.write_policy(ROTATING);
    assert!(module.left_over("expired") == 2 && module.is_marked("torn"));
    tree::write(&module.latest.join("repaired"), "x");
    fs::remove_file(module.latest.join("documents/report")).expect("removed");
    module
}

fn assert_repeats(site: &Site, arguments: &[&str], what: &str) {
    let run = site.module.run(arguments);
    assert_eq!(run.code(), Some(0), "{what}: {arguments:?}: {run}");
}

/// A good push with both hooks, or with the one if the scene has no connection, gets its snapshot,
/// everything but `kept` of the old ones expires, and nothing is left over.
fn assert_a_push_finishes(site: &Site, kept: &[&str], what: &str) {
    let module = &site.module;
    let connection = site.connection.is_some().then(Connection::new);
    if let Some(connection) = &connection {
        let run = Run::of(&mut connection.gate(module, &[]));
        assert_eq!(run.code(), Some(0), "{what}: {run}");
    }
    tree::write(&module.latest.join("next"), "x");
    let mut hook = connection
        .as_ref()
        .map_or_else(|| module.hook(), |connection| connection.hook(module, &[], "0"));
    let run = Run::of(&mut hook);
    assert_eq!(run.code(), Some(0), "{what}: {run}");
    let newest = site.assert_newest_is_module(what);
    assert!(!newest.ends_with("-partial"), "{what}: {newest}");
    let old: Vec<String> =
        module.snapshots().into_iter().filter(|name| name.starts_with("2001")).collect();
    assert_eq!(old, kept, "{what}");
    assert_eq!(module.left_over("staging"), 0, "{what}");
    // Snapshots that this run retired stay until the next run; the newest is kept to be recycled.
    let run = module.run(&["rotate", "data"]);
    assert_eq!(run.code(), Some(0), "{what}: {run}");
    let retired = module.left_over("expired");
    assert!(retired <= 1, "{what}: {retired} retired");
    let (visible, records) = (module.snapshots().len(), entries(module, "records"));
    assert!(records <= visible + retired, "{what}: {records} records");
    assert_eq!(entries(module, "transfers"), 0, "{what}");
    assert!(!module.is_marked("torn") && !module.is_marked("due"), "{what}: {:?}", module.state());
    module.list();
    assert!(!module.private("vanished.toml").exists(), "{what}: a run forgot what it removed");
    if entries(module, "unremovable") > 0 {
        // An immutable file answers with EPERM, too. So the tree is set aside until this command.
        module.run(&["check", "data"]).exits(&[1]).says("could not be removed");
        module.run(&["rotate", "data", "--purge"]).exits(&[0]);
    }
    let check = module.run(&["check", "data"]);
    assert_eq!(check.code(), Some(0), "{what}: {check}");
}

pub(crate) fn entries(module: &Module, room: &str) -> usize {
    fs::read_dir(module.private(room)).map_or(0, Iterator::count)
}

/// After a pre-xfer that did not get to its end: rsyncd turns the push away, or it goes on all the
/// same, or the connection dies.
fn finish_gate(site: &Site, variant: usize, what: &str) {
    let module = &site.module;
    let is_entered = site.is_entered();
    let is_paired = module.state().get("paired").is_some();
    // Which other clients were pushing is unknown.
    let is_uncertain = is_paired && !is_entered;
    let usual = Some(if is_uncertain { 4 } else { 0 });
    match variant % 3 {
        0 => {
            let run = Run::of(&mut site.hook(&[], "4"));
            assert_eq!(run.code(), usual, "{what}: {run}");
            assert_eq!(site.new_snapshots(), [""; 0], "{what}: nothing was transferred");
            assert!(!is_paired || !module.is_marked("torn"), "{what}: {:?}", module.state());
        }
        1 => {
            tree::write(&module.latest.join("pushed"), "x");
            let run = Run::of(&mut site.hook(&[], "0"));
            assert_eq!(run.code(), usual, "{what}: {run}");
            let newest = site.assert_newest_is_module(what);
            assert_eq!(newest.ends_with("-partial"), is_uncertain, "{what}: {newest}");
        }
        _ => {
            tree::write(&module.latest.join("pushed"), "x");
            site.hang_up();
            let run = module.run(&["snapshot", "data", "--due"]);
            // It warns of the push that it finds dead.
            assert!(matches!(run.code(), Some(0 | 4)), "{what}: {run}");
            assert_eq!(module.is_marked("torn"), is_entered, "{what}: {:?}", module.state());
            if is_entered {
                let newest = site.assert_newest_is_module(what);
                assert!(newest.ends_with("-partial"), "{what}: {newest}");
            }
        }
    }
    assert_a_push_finishes(site, &[], what);
}

/// After a hook that did not get to its end, the connection has ended: the push still gets its
/// snapshot.
fn finish_pair(site: &Site, _: usize, what: &str) {
    site.hang_up();
    let run = site.module.run(&["snapshot", "data", "--due"]);
    // It warns of the push that it finds dead.
    assert!(matches!(run.code(), Some(0 | 4)), "{what}: {run}");
    assert_eq!(entries(&site.module, "transfers"), 0, "{what}");
    site.assert_newest_is_module(what);
    assert_a_push_finishes(site, &[], what);
}
