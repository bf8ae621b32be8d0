//! One module of a [`Server`]: its snapshot root with the module directory `latest`, its hooks run
//! as rsyncd does, and the state of its disk.

use std::ffi::OsStr;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::file_system::FileSystem;
use super::run::Run;
use super::server::Server;
use super::subvolumes::{
    is_subvolume, make_module_directory, make_snapshot_directory, make_subvolume,
};
use super::{BINARY, fingerprint, is_root, tree};

/// The name of the module in these tests.
pub(crate) const NAME: &str = "data";

/// The directory `.rsyncd-snapshot`.
const OURS: &str = ".rsyncd-snapshot";

/// How the names of retired snapshots begin that cannot be moved into our directory.
const RETIRED_BESIDE: &str = ".rsyncd-snapshot-expired-";

/// Holds the lock of a root until it is dropped. Dropping unlocks explicitly, because a child of
/// another test may have the descriptor open, too.
pub(crate) struct HeldLock(fs::File);

impl Drop for HeldLock {
    fn drop(&mut self) {
        fs2::FileExt::unlock(&self.0).expect("unlocked");
    }
}

pub(crate) struct Module {
    pub(crate) server: Server,
    pub(crate) root: PathBuf,
    pub(crate) latest: PathBuf,
}

impl Deref for Module {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Module {
    /// An empty module.
    pub(crate) fn new() -> Module {
        let server = Server::new();
        let root = server.directory.join("root");
        Module::of(server, root)
    }

    /// An empty module on `file_system`; its server remembers things elsewhere.
    pub(crate) fn on(file_system: &FileSystem) -> Module {
        Module::of(Server::new(), file_system.mount_point.join("root"))
    }

    /// The same with a module directory that is a subvolume, whatever other modules are.
    pub(crate) fn subvolume_on(file_system: &FileSystem) -> Module {
        let root = file_system.mount_point.join("root");
        make_subvolume(&root.join("latest"));
        Module::of(Server::new(), root)
    }

    /// An empty module whose snapshot root is `root`.
    pub(crate) fn at(root: PathBuf) -> Module {
        Module::of(Server::new(), root)
    }

    /// A module with a few files and one snapshot of them.
    pub(crate) fn with_snapshot() -> (Module, String) {
        let module = Module::new();
        tree::small(&module.latest);
        let name = module.expect_snapshot();
        (module, name)
    }

    fn of(server: Server, root: PathBuf) -> Module {
        let latest = root.join("latest");
        make_module_directory(&latest);
        tree::set_mode(&root, 0o700);
        let module = Module { server, root, latest };
        module.write_rsyncd_conf(&module.rsyncd_conf_section(NAME, &module.latest));
        module
    }

    /// A section of `rsyncd.conf` as the documentation recommends it.
    pub(crate) fn rsyncd_conf_section(&self, name: &str, path: &Path) -> String {
        // Without these lines a daemon of root writes as nobody.
        let account = if is_root() { "uid = root\ngid = root\n" } else { "" };
        format!(
            "[{name}]\npath = {}\nread only = no\nuse chroot = no\n{account}\
             refuse options = inplace append* write-devices partial-dir delay-updates\npost-xfer exec = {BINARY}\n",
            path.display()
        )
    }

    /// The hook as rsyncd runs it after a good transfer. More variables can be set on it.
    pub(crate) fn hook(&self) -> Command {
        let mut command = self.command(&[]);
        self.set_hook_environment(&mut command);
        command
    }

    /// The hook run through another program, such as strace, with that program's arguments.
    pub(crate) fn hook_through(&self, wrapper: &[impl AsRef<OsStr>]) -> Command {
        let mut command = self.command_through(wrapper, &[]);
        self.set_hook_environment(&mut command);
        command
    }

    /// pre-xfer before a push of everything, run through another program.
    pub(crate) fn gate_through(&self, wrapper: &[impl AsRef<OsStr>]) -> Command {
        let mut command = self.command_through(wrapper, &["pre-xfer"]);
        self.set_hook_environment(&mut command);
        command.env_remove("RSYNC_EXIT_STATUS").env_remove("RSYNC_RAW_STATUS");
        command.env("RSYNC_REQUEST", "data/");
        for (number, word) in
            ["rsyncd", "--server", "-logDtpre.iLsfxCIvu", ".", "."].iter().enumerate()
        {
            command.env(format!("RSYNC_ARG{number}"), word);
        }
        command
    }

    /// Our program with `arguments`, run through another program unless `wrapper` is empty.
    pub(crate) fn command_through(
        &self,
        wrapper: &[impl AsRef<OsStr>],
        arguments: &[&str],
    ) -> Command {
        let mut command = match wrapper {
            [] => Command::new(&self.program),
            [program, options @ ..] => {
                let mut command = Command::new(program);
                command.args(options).arg(&self.program);
                command
            }
        };
        self.prepare(&mut command);
        command.args(arguments);
        command
    }

    fn set_hook_environment(&self, command: &mut Command) {
        command.env("RSYNC_MODULE_NAME", NAME).env("RSYNC_MODULE_PATH", &self.latest);
        command.env("RSYNC_HOST_ADDR", "192.0.2.7").env("RSYNC_HOST_NAME", "laptop.example");
        command.env("RSYNC_USER_NAME", "").env("RSYNC_PID", "4711");
        command.env("RSYNC_EXIT_STATUS", "0").env("RSYNC_RAW_STATUS", "0");
    }

    pub(crate) fn run_hook(&self) -> Run {
        Run::of(&mut self.hook())
    }

    /// The hook after a transfer that ended with `status`.
    pub(crate) fn run_hook_after(&self, status: i32) -> Run {
        let raw = (status << 8).to_string();
        Run::of(
            self.hook().env("RSYNC_EXIT_STATUS", status.to_string()).env("RSYNC_RAW_STATUS", raw),
        )
    }

    /// Runs the hook and returns the name of the one snapshot that it made.
    #[track_caller]
    pub(crate) fn expect_snapshot(&self) -> String {
        let before = self.snapshots();
        let run = self.run_hook().exits(&[0]);
        let new: Vec<String> =
            self.snapshots().into_iter().filter(|name| !before.contains(name)).collect();
        assert_eq!(new.len(), 1, "one new snapshot expected, found {new:?}: {run}");
        new.into_iter().next().expect("just counted")
    }

    /// Runs the hook, which must succeed without making a snapshot.
    #[track_caller]
    pub(crate) fn expect_no_snapshot(&self) -> Run {
        let before = self.snapshots();
        let run = self.run_hook().exits(&[0]);
        assert_eq!(self.snapshots(), before, "no new snapshot expected: {run}");
        run
    }

    /// What is visible beside the module directory, sorted: snapshots and foreign names.
    pub(crate) fn snapshots(&self) -> Vec<String> {
        visible(&self.snapshots_directory())
    }

    /// The root, or on CephFS the module's directory of snapshots, unless the snapshots there are
    /// hard links.
    pub(crate) fn snapshots_directory(&self) -> PathBuf {
        let of_cephfs = self.latest.join(".snap");
        let is_linked = || visible(&self.root).iter().any(|name| name.starts_with("20"));
        if of_cephfs.is_dir() && !is_linked() { of_cephfs } else { self.root.clone() }
    }

    /// The names of the retired snapshots, sorted.
    pub(crate) fn retired(&self) -> Vec<String> {
        let expired = self.private("expired");
        let mut names = if expired.exists() { entries(&expired) } else { Vec::new() };
        let beside = entries(&self.snapshots_directory());
        let prefixed = beside.iter().filter_map(|name| name.strip_prefix(RETIRED_BESIDE));
        names.extend(prefixed.map(str::to_string));
        names.sort();
        names
    }

    pub(crate) fn snapshot(&self, name: &str) -> PathBuf {
        self.snapshots_directory().join(name)
    }

    /// Where a retired snapshot is, or would be.
    pub(crate) fn retired_snapshot(&self, name: &str) -> PathBuf {
        let beside = self.snapshots_directory().join(format!("{RETIRED_BESIDE}{name}"));
        match beside.exists() || is_subvolume(&self.latest) {
            true => beside,
            false => self.private("expired").join(name),
        }
    }

    /// Holds the lock until dropped, without writing the holder's name into it, as `flock` does.
    pub(crate) fn hold_lock(&self) -> HeldLock {
        let lock = fs::File::open(self.private("lock")).expect("the lock file");
        fs2::FileExt::lock_exclusive(&lock).expect("locked");
        HeldLock(lock)
    }

    /// `.rsyncd-snapshot` in the snapshot root, or a file in it.
    pub(crate) fn private(&self, path: &str) -> PathBuf {
        self.root.join(OURS).join(path)
    }

    /// How many entries `staging` or `expired` holds, or what stands for it in the root itself
    /// where an ordinary user runs the hook: work that is left to finish.
    pub(crate) fn left_over(&self, directory: &str) -> usize {
        let beside = format!("{OURS}-{directory}");
        let names = entries(&self.snapshots_directory()).into_iter();
        let names = names.filter(|name| name.starts_with(&beside));
        fs::read_dir(self.private(directory)).map_or(0, Iterator::count) + names.count()
    }

    /// Registers the root without a snapshot, as a run does that is killed after that.
    pub(crate) fn register(&self) {
        if self.private("root.toml").exists() {
            return;
        }
        let rooms =
            ["records", "index", "inodes", "staging", "expired", "transfers", "counters", "drafts"];
        for room in rooms {
            fs::create_dir_all(self.private(room)).expect("a directory of ours");
            tree::set_mode(&self.private(room), 0o700);
        }
        tree::set_mode(&self.private(""), 0o700);
        let text = registration(NAME, &self.latest);
        fs::write(self.private("root.toml"), text).expect("a registration");
    }

    /// A snapshot-shaped directory with a file in it, as if it had been made long ago, in a root
    /// that is in use.
    pub(crate) fn make_old_snapshot(&self, name: &str) {
        self.register();
        let directory = self.snapshot(name);
        make_snapshot_directory(&self.latest, &directory);
        fs::create_dir_all(directory.join("sub")).expect("an old snapshot");
        fs::write(directory.join("sub/old"), name).expect("a file of an old snapshot");
    }

    /// Makes snapshot `name` one that was taken at the time in `new_name` and never recorded.
    pub(crate) fn rename_to_the_past(&self, name: &str, new_name: &str) {
        fs::rename(self.snapshot(name), self.snapshot(new_name)).expect("the snapshot");
        fs::remove_file(self.private(&format!("records/{name}.toml"))).expect("its record");
    }

    /// Makes snapshot `name` and its record those of a snapshot that was taken at the time in
    /// `new_name`.
    pub(crate) fn date_back(&self, name: &str, new_name: &str) {
        let (date, time) =
            new_name.split_once('T').expect("the name of a complete snapshot of ours");
        let new_time = format!("{date}T{}", time.replace('-', ":"));
        let time = self.record(name)["time"].as_str().map(str::to_string).expect("a time");
        let file = |name: &str| self.private(&format!("records/{name}.toml"));
        let text = fs::read_to_string(file(name)).expect("a record").replace(&time, &new_time);
        // As an older version recorded it: sequence and boot clock would contradict the date.
        let mut record: toml::Table = text.parse().expect("a record");
        record.remove("sequence");
        record.remove("taken_at");
        record.remove("has_index");
        let record = record.to_string();
        fs::rename(self.snapshot(name), self.snapshot(new_name)).expect("renamed");
        fs::write(file(new_name), record).expect("a record");
        fs::remove_file(file(name)).expect("removed");
    }

    pub(crate) fn record(&self, name: &str) -> toml::Table {
        read_toml(&self.private(&format!("records/{name}.toml")))
    }

    /// The snapshot that `name` was made from; none if it was made afresh, as a subvolume is.
    pub(crate) fn recycled_from(&self, name: &str) -> Option<String> {
        if is_subvolume(&self.snapshot(name)) {
            return None;
        }
        Some(self.record(name)["work"].get("recycled")?.as_str()?.to_string())
    }

    pub(crate) fn state(&self) -> toml::Table {
        read_toml(&self.private("state.toml"))
    }

    /// Whether the root carries the mark `torn` or `due`.
    pub(crate) fn is_marked(&self, mark: &str) -> bool {
        self.state().contains_key(mark)
    }

    /// `list --json`, which must show exactly the visible snapshots.
    #[track_caller]
    pub(crate) fn list(&self) -> Vec<Value> {
        snapshots_of(&self.json(&["list", "--json", NAME]))
    }

    /// The names that `rotate --json` or `plan --json` would keep and would expire.
    #[track_caller]
    pub(crate) fn verdicts(&self, arguments: &[&str]) -> (Vec<String>, Vec<String>) {
        let verdicts = snapshots_of(&self.json(arguments));
        let (kept, expired): (Vec<_>, Vec<_>) = verdicts
            .iter()
            .partition(|snapshot| snapshot["keep"].as_bool().expect("keep is a bool"));
        (names(&kept), names(&expired))
    }

    /// Fails unless snapshot `name` is the module directory as it is now.
    #[track_caller]
    pub(crate) fn assert_equals_module(&self, name: &str) {
        fingerprint::assert_same(&self.latest, &self.snapshot(name));
    }
}

/// The text of `root.toml` of a root for snapshots of the module directory `path`.
pub(crate) fn registration(module: &str, path: &Path) -> String {
    let (format, method) = match is_subvolume(path) {
        true => (2, "method = \"btrfs\"\n"),
        false => (1, ""),
    };
    format!("format = {format}\nmodule = \"{module}\"\npath = \"{}\"\n{method}", path.display())
}

/// What is visible in a snapshot root beside the module directory, sorted. Names that begin as
/// that of our own directory are hidden, and none of a snapshot.
pub(crate) fn visible(root: &Path) -> Vec<String> {
    let mut names = entries(root);
    names.retain(|name| name != "latest" && !name.starts_with(OURS));
    names.sort();
    names
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("the snapshot root");
    entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect()
}

fn read_toml(path: &Path) -> toml::Table {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn snapshots_of(listing: &Value) -> Vec<Value> {
    listing["snapshots"].as_array().unwrap_or_else(|| panic!("no snapshots in {listing}")).clone()
}

fn names(snapshots: &[&Value]) -> Vec<String> {
    snapshots
        .iter()
        .map(|snapshot| snapshot["name"].as_str().expect("a name").to_string())
        .collect()
}

/// The names of the running transfers of a module.
pub(crate) fn ledger(module: &Module) -> Vec<String> {
    let mut names = names_in(&module.private("transfers"));
    names.retain(|name| !name.ends_with(".tmp"));
    names
}

/// The names in a directory; none if it is not there.
pub(crate) fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
