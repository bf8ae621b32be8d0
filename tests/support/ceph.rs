//! A real Ceph cluster with a CephFS, mounted by ceph-fuse, that all tests of a program share.
//!
//! It is started by the first test that asks for it. It ends with the process of the tests, however
//! that ends: the script that has started the servers holds one end of a pipe, and stops them when
//! the other is closed.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::daemon::free_port;
use super::run::{Run, tool};
use super::{have, may_mount};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ceph_lib/cluster");

const TOOLS: [&str; 7] =
    ["ceph-mon", "ceph-mgr", "ceph-osd", "ceph-mds", "ceph-fuse", "ceph", "ceph-authtool"];

/// The rights of a client that makes snapshots.
pub(crate) const MAY_SNAPSHOT: &str = "allow rws";

/// The rights of a client that reads and writes, but makes no snapshots.
pub(crate) const MAY_WRITE: &str = "allow rw";

/// The cluster of this process. Where it cannot run this prints the reason and returns `None`.
pub(crate) fn cluster() -> Option<&'static Cluster> {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    if !may_mount() || !have(&TOOLS) {
        return None;
    }
    if !Path::new("/dev/fuse").exists() {
        skipped!("needs /dev/fuse");
        return None;
    }
    Some(CLUSTER.get_or_init(Cluster::start))
}

pub(crate) struct Cluster {
    directory: PathBuf,
    /// The mount of the administrator, who may make snapshots.
    root: Client,
    /// How many directories and clients tests have been given.
    count: AtomicU32,
    /// The script that has started it.
    _supervisor: Child,
    /// Its end, which comes with that of this process, stops the cluster.
    _lifeline: ChildStdin,
}

/// A mount of the whole CephFS. It is unmounted when the cluster ends.
pub(crate) struct Client {
    name: String,
    pub(crate) mount_point: PathBuf,
}

impl Cluster {
    fn start() -> Cluster {
        (0..5)
            .find_map(|_| Cluster::try_to_start())
            .expect("the cluster starts; its standard error says why not")
    }

    /// `None` if another process took the port of the monitor meanwhile, or anything else failed.
    fn try_to_start() -> Option<Cluster> {
        // The script removes it.
        let scratch = TempDir::with_prefix("rsyncd-snapshot-test-ceph-").expect("a directory");
        let directory = scratch.keep().canonicalize().expect("the scratch directory");
        super::tree::set_mode(&directory, 0o755);
        let mut supervisor = tool("sh")
            .args([SCRIPT, "serve"])
            .arg(&directory)
            .arg(free_port("127.0.0.1").to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A Ctrl-C for the tests is none for the script, which then cleans up.
            .process_group(0)
            .spawn()
            .expect("the script of the cluster");
        let lifeline = supervisor.stdin.take().expect("its input");
        let mut line = String::new();
        let output = supervisor.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("a line");
        if line.trim() != "ready" {
            drop(lifeline);
            let _ = supervisor.wait();
            return None;
        }
        let root = Client { name: "admin".to_string(), mount_point: directory.join("mount.admin") };
        let cluster = Cluster {
            directory,
            root,
            count: AtomicU32::new(0),
            _supervisor: supervisor,
            _lifeline: lifeline,
        };
        cluster.mount(&cluster.root, &[]);
        Some(cluster)
    }

    fn script(&self, command: &str, arguments: &[&str]) -> Run {
        let mut script = tool("sh");
        // What it starts holds its output open, so a pipe would never end.
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let path = |kind: &str| self.directory.join(format!("log/script.{number}.{kind}"));
        let file = |kind: &str| File::create(path(kind)).expect("a file for the output");
        script.args([SCRIPT, command]).arg(&self.directory).args(arguments);
        script.stdin(Stdio::null()).stdout(file("out")).stderr(file("err"));
        let status = script.status().expect("the script of the cluster");
        let read = |kind: &str| fs::read(path(kind)).expect("the output");
        let output = std::process::Output { status, stdout: read("out"), stderr: read("err") };
        Run::from_output(&format!("{script:?}"), output)
    }

    fn mount(&self, client: &Client, options: &[&str]) {
        let mount_point = client.mount_point.to_str().expect("UTF-8");
        let arguments = [&[client.name.as_str(), mount_point], options].concat();
        self.script("mount", &arguments).exits(&[0]);
    }

    /// A directory for one test, empty, in the mount of the administrator.
    pub(crate) fn directory(&self) -> PathBuf {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let directory = self.root.mount_point.join(format!("test-{number}"));
        fs::create_dir(&directory).expect("a directory for the test");
        directory
    }

    /// Mounts the file system once more, by a Ceph user of its own with the rights `mds_caps`, and
    /// with more options for ceph-fuse, such as `--client_oc=false`.
    pub(crate) fn client(&self, mds_caps: &str, options: &[&str]) -> Client {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let name = format!("client-{number}");
        let client = Client { mount_point: self.directory.join(format!("mount.{number}")), name };
        self.script("user", &[&client.name, mds_caps]).exits(&[0]);
        self.mount(&client, options);
        client
    }

    /// Mounts again what [`crash`](Self::crash) has ended, at the same place.
    pub(crate) fn mount_again(&self, client: &Client, options: &[&str]) {
        self.mount(client, options);
    }

    /// Where the administrator's mount shows what `path` is in another one.
    pub(crate) fn sees(&self, path: &Path) -> PathBuf {
        let below = path.strip_prefix(&self.directory).expect("a path in a mount");
        let mut below = below.components();
        // The mount point's own name.
        below.next();
        self.root.mount_point.join(below)
    }

    /// Runs the administrator's command `ceph`.
    pub(crate) fn ceph(&self, arguments: &[&str]) -> Run {
        self.script("ceph", arguments)
    }

    /// Kills the metadata server. Calls of all clients wait until it is started again.
    pub(crate) fn kill_metadata_server(&self) {
        self.kill("mds");
    }

    pub(crate) fn start_metadata_server(&self) {
        self.script("start-mds", &[]).exits(&[0]);
    }

    /// Kills a client with all that it has not yet written, and ends its session, so that other
    /// clients need not wait for it.
    pub(crate) fn crash(&self, client: &Client) {
        self.kill(&format!("fuse.{}", client.name));
        Run::of(tool("umount").arg("--lazy").arg(&client.mount_point)).exits(&[0]);
        let sessions = self.ceph(&["tell", "mds.a", "session", "ls", "--format=json"]);
        for session in sessions.exits(&[0]).json().as_array().expect("sessions") {
            if session["client_metadata"]["entity_id"] == client.name.as_str() {
                let id = format!("id={}", session["id"]);
                self.ceph(&["tell", "mds.a", "session", "evict", &id]).exits(&[0]);
            }
        }
    }

    fn kill(&self, name: &str) {
        let file = self.directory.join("pid").join(name);
        let process = fs::read_to_string(file).expect("a process id");
        Run::of(tool("kill").args(["-s", "KILL", process.trim()])).exits(&[0]);
    }
}

impl Client {
    /// Where this client sees a directory that the cluster gave to a test.
    pub(crate) fn sees(&self, directory: &Path) -> PathBuf {
        self.mount_point.join(directory.file_name().expect("a name"))
    }
}
