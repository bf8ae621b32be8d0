//! A real rsync daemon on a free loopback port, and its clients.
//!
//! A client returns before the hook ends. So every hook command here appends the statuses of
//! transfer and hook to a file, and [`Daemon::await_hooks`] waits until the file has a line for
//! each transfer.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::module::Module;
use super::run::{Run, tool};
use super::server::Server;
use super::time::wait_until;
use super::{BINARY, have, is_root, tree};

/// The exit statuses of a transfer, as rsyncd saw it, and of its post-xfer hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HookRun {
    pub(crate) transfer: i32,
    pub(crate) exit: i32,
}

/// A good transfer and a good hook.
pub(crate) const GOOD: HookRun = HookRun { transfer: 0, exit: 0 };

/// The source of a client: a directory of the module's server.
pub(crate) fn source(module: &Module) -> PathBuf {
    let source = module.directory.join("source");
    tree::small(&source);
    source
}

/// An empty module and the source of a client. Without rsync it prints the reason and returns
/// `None`.
pub(crate) fn paired() -> Option<(Module, PathBuf)> {
    if !have(&["rsync"]) {
        return None;
    }
    let module = Module::new();
    let source = source(&module);
    Some((module, source))
}

/// Kills a client in the middle of its push.
pub(crate) fn kill(mut client: Child) {
    client.kill().expect("killed");
    client.wait().expect("gone");
}

pub(crate) struct Daemon<'a> {
    server: &'a Server,
    process: Child,
    /// Where it listens.
    address: &'static str,
    port: u16,
    /// The process groups of earlier daemons, whose connections may still run.
    left_groups: Vec<u32>,
}

impl<'a> Daemon<'a> {
    /// Serves the one module, read-write, with the hook.
    pub(crate) fn of_module(module: &'a Module) -> Daemon<'a> {
        Daemon::start(module, &Daemon::section(module, "data", &module.latest, ""))
    }

    /// A section of `rsyncd.conf`: a module with the hook and `more` settings.
    pub(crate) fn section(server: &Server, name: &str, path: &Path, more: &str) -> String {
        // rsyncd expands environment variables between % signs, so there are none here.
        format!(
            "[{name}]\n    path = {path}\n    read only = no\n    {more}\n    post-xfer exec = {hook}\n",
            path = path.display(),
            hook = hook_command(server)
        )
    }

    /// The same with both hooks.
    pub(crate) fn pair_section(server: &Server, name: &str, path: &Path, more: &str) -> String {
        let pre = format!("pre-xfer exec = {} pre-xfer", program(server));
        Daemon::section(server, name, path, &format!("{pre}\n    {more}"))
    }

    /// Serves the one module, read-write, with both hooks.
    pub(crate) fn of_pair(module: &'a Module) -> Daemon<'a> {
        Daemon::start(module, &Daemon::pair_section(module, "data", &module.latest, ""))
    }

    /// A client in the background that pushes `source` slowly: at most 100 KB/s.
    pub(crate) fn push_slowly(&self, source: &Path, module: &str) -> Child {
        client()
            .args(["--archive", "--bwlimit=100", "--whole-file"])
            .arg(format!("{}/", source.display()))
            .arg(self.url(&format!("{module}/")))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a client")
    }

    /// Serves `sections`, which follow the usual global settings.
    pub(crate) fn start(server: &'a Server, sections: &str) -> Daemon<'a> {
        let account = if is_root() { "uid = root\ngid = root\n" } else { "" };
        let log = server.directory.join("rsyncd.log");
        let text = format!("use chroot = no\n{account}log file = {}\n{sections}", log.display());
        server.write_rsyncd_conf(&text);
        Daemon::serve(server)
    }

    /// Serves the `rsyncd.conf` that the server has.
    pub(crate) fn serve(server: &'a Server) -> Daemon<'a> {
        Daemon::serve_at(server, "127.0.0.1")
    }

    /// The same at another address of this machine.
    pub(crate) fn serve_at(server: &'a Server, address: &'static str) -> Daemon<'a> {
        Daemon::start_at(server, address, &rsync())
    }

    /// The same by a program that becomes rsync in the end.
    pub(crate) fn serve_by(server: &'a Server, program: &str) -> Daemon<'a> {
        Daemon::start_at(server, "127.0.0.1", program)
    }

    fn start_at(server: &'a Server, address: &'static str, rsync: &str) -> Daemon<'a> {
        let (process, port) = (0..10)
            .find_map(|_| try_to_start(server, address, free_port(address), rsync))
            .unwrap_or_else(|| panic!("rsync --daemon does not start: {}", complaints(server)));
        Daemon { server, process, address, port, left_groups: Vec::new() }
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Ends the daemon, and starts one on the same port: only the listening process, as SIGTERM
    /// does, or all of its processes at once.
    pub(crate) fn restart(&mut self, all: bool) {
        if all {
            self.kill_group();
        } else {
            let _ =
                tool("sh").args(["-c", &format!("kill -s TERM {}", self.process.id())]).status();
            self.left_groups.push(self.process.id());
        }
        let _ = self.process.wait();
        self.process = (0..100)
            .find_map(|_| {
                std::thread::sleep(Duration::from_millis(20));
                try_to_start(self.server, self.address, self.port, &rsync())
            })
            .unwrap_or_else(|| {
                panic!("rsync --daemon does not start again: {}", complaints(self.server))
            })
            .0;
    }

    /// The daemon leads a process group that its connections and their hooks are in.
    fn kill_group(&mut self) {
        for group in self.left_groups.drain(..).chain([self.process.id()]) {
            let _ = tool("sh")
                .args(["-c", &format!("kill -s KILL -- -{group}")])
                .stderr(Stdio::null())
                .status();
        }
    }

    /// Waits until the processes of all connections have ended, hooks included.
    #[track_caller]
    pub(crate) fn await_connections(&self) {
        let pid = self.process.id();
        let list = format!("/proc/{pid}/task/{pid}/children");
        wait_until("the connections have ended", || {
            fs::read_to_string(&list).is_ok_and(|children| children.trim().is_empty())
        });
    }

    /// Where a client finds `path`, which begins with a module's name.
    pub(crate) fn url(&self, path: &str) -> String {
        let address = if self.address.contains(':') {
            format!("[{}]", self.address)
        } else {
            self.address.into()
        };
        format!("rsync://{address}:{}/{path}", self.port)
    }

    /// Pushes what is in `source` into the module, with `rsync --archive` and more options.
    pub(crate) fn push(&self, source: &Path, module: &str, options: &[&str]) -> Run {
        let source = format!("{}/", source.display());
        Run::of(
            client()
                .arg("--archive")
                .args(options)
                .arg(source)
                .arg(self.url(&format!("{module}/"))),
        )
    }

    /// Pulls `path` of a module into `target`.
    pub(crate) fn pull(&self, path: &str, target: &Path) -> Run {
        Run::of(client().arg("--archive").arg(self.url(path)).arg(target))
    }

    /// Lists a module.
    pub(crate) fn list(&self, module: &str) -> Run {
        Run::of(client().arg("--list-only").arg(self.url(&format!("{module}/"))))
    }

    /// Waits until `count` hooks have ended, and returns their statuses.
    #[track_caller]
    pub(crate) fn await_hooks(&self, count: usize) -> Vec<HookRun> {
        wait_until(&format!("{count} hooks ended"), || self.hooks().len() >= count);
        let hooks = self.hooks();
        assert_eq!(hooks.len(), count, "more hooks than transfers");
        hooks
    }

    /// [`Daemon::await_hooks`], but only the last of them.
    #[track_caller]
    pub(crate) fn await_last_hook(&self, count: usize) -> HookRun {
        *self.await_hooks(count).last().expect("at least one hook")
    }

    fn hooks(&self) -> Vec<HookRun> {
        let notes = fs::read_to_string(notes(self.server)).unwrap_or_default();
        let number = |text: Option<&str>| text.and_then(|text| text.parse().ok());
        notes
            .lines()
            .filter_map(|line| {
                let mut words = line.split(' ');
                Some(HookRun { transfer: number(words.next())?, exit: number(words.next())? })
            })
            .collect()
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        self.kill_group();
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("{}", complaints(self.server));
        }
    }
}

/// An rsync client without passwords of the user's environment.
pub(crate) fn client() -> Command {
    let mut command = tool("rsync");
    command.stdin(Stdio::null()).env_remove("RSYNC_PASSWORD").arg("--timeout=60");
    command
}

/// Waits until no process holds the lock of `root` and the root has `count` snapshots. For modules
/// whose hook is the program itself, which logs no status.
#[track_caller]
pub(crate) fn await_snapshots(root: &Path, count: usize) -> Vec<String> {
    let lock = root.join(".rsyncd-snapshot/lock");
    wait_until(&format!("{} shows {count} snapshots", root.display()), || {
        let free = File::open(&lock).is_ok_and(|lock| fs2::FileExt::try_lock_shared(&lock).is_ok());
        free && super::module::visible(root).len() == count
    });
    super::module::visible(root)
}

/// The command line of the program in the hooks.
pub(crate) fn program(server: &Server) -> String {
    let quoted = |path: &Path| format!("'{}'", path.display());
    format!(
        "'{BINARY}' --config {} --rsyncd-conf {}",
        quoted(&server.policy),
        quoted(&server.rsyncd_conf)
    )
}

fn hook_command(server: &Server) -> String {
    format!("{}; echo \"$RSYNC_EXIT_STATUS $?\" >> '{}'", program(server), notes(server).display())
}

fn notes(server: &Server) -> PathBuf {
    server.directory.join("hooks")
}

fn complaints(server: &Server) -> String {
    let read = |name: &str| fs::read_to_string(server.directory.join(name)).unwrap_or_default();
    format!("rsyncd.log:\n{}\nits standard error:\n{}", read("rsyncd.log"), read("rsyncd.stderr"))
}

/// A port that no process listens on at this moment.
pub(crate) fn free_port(address: &str) -> u16 {
    let listener = TcpListener::bind((address, 0)).expect("a free port");
    listener.local_addr().expect("its number").port()
}

/// Another rsync than the installed one, if the environment names one.
fn rsync() -> String {
    std::env::var("RSYNCD_SNAPSHOT_RSYNC").unwrap_or("rsync".to_string())
}

/// `None` when another process took the port that was free a moment ago.
fn try_to_start(server: &Server, address: &str, port: u16, rsync: &str) -> Option<(Child, u16)> {
    let stderr =
        File::options().create(true).append(true).open(server.directory.join("rsyncd.stderr"));
    let mut process = tool(rsync)
        .args(["--daemon", "--no-detach"])
        .arg(format!("--address={address}"))
        .arg(format!("--port={port}"))
        .arg(format!("--config={}", server.rsyncd_conf.display()))
        .env("RSYNCD_SNAPSHOT_STATE_DIRECTORY", server.state_directory())
        .env("RSYNCD_SNAPSHOT_RUNTIME_DIRECTORY", server.runtime_directory())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr.expect("a file for its errors"))
        .process_group(0)
        .spawn()
        .expect("rsync starts");
    for _ in 0..500 {
        if process.try_wait().expect("a status").is_some() {
            return None;
        }
        if TcpStream::connect((address, port)).is_ok() {
            // The daemon of another test may have answered on this port; then this daemon fails
            // soon.
            std::thread::sleep(Duration::from_millis(30));
            if process.try_wait().expect("a status").is_some() {
                return None;
            }
            return Some((process, port));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = process.kill();
    let _ = process.wait();
    None
}
