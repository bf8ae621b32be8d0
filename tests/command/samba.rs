//! `contrib/samba/laptop.conf` with the real Samba: a client lists the snapshots of a file as its
//! previous versions, and gets the content of each.

use crate::support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use support::module::{Module, NAME};
use support::run::{Run, tool};
use support::time::{next_second, wait_until};
use support::{have, root, tree};

const SHARE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/samba/laptop.conf");

/// The package that `shadow_copy2` is in.
const VFS_MODULES: &str = "/usr/share/doc/samba-vfs-modules";

/// A Samba server with all that it writes in one directory.
struct Samba {
    process: Child,
    port: u16,
}

impl Samba {
    /// Serves the share definition of `contrib/samba` for the module. Guests are let in, since an
    /// account with a password would be one of this machine.
    fn start(module: &Module) -> Samba {
        let directory = module.directory.join("samba");
        fs::create_dir_all(directory.join("private")).expect("a directory");
        let share = fs::read_to_string(SHARE).expect("the share");
        let root = module.root.display().to_string();
        let share = share
            .replace("/srv/backup/laptop", &root)
            .replace("valid users = anna", "guest ok = yes");
        assert!(share.contains(&format!("path = {root}/latest\n")), "{share}");
        assert!(share.contains("guest ok"), "{share}");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|one| one.local_addr());
        let port = port.expect("a port").port();
        let own = directory.display();
        let config = format!(
            "[global]\nserver role = standalone server\nmap to guest = bad user\n\
             guest account = root\nload printers = no\ndisable spoolss = yes\n\
             disable netbios = yes\ninterfaces = lo\nbind interfaces only = yes\n\
             smb ports = {port}\nlog file = {own}/log\npid directory = {own}\n\
             lock directory = {own}\nstate directory = {own}\ncache directory = {own}\n\
             private dir = {own}/private\nncalrpc dir = {own}/ncalrpc\n{share}"
        );
        fs::write(directory.join("smb.conf"), config).expect("a configuration");
        // When smbd ends, it sends SIGTERM to its process group. It cannot make one of its own if
        // it leads one, so it is told not to.
        let process = tool("smbd")
            .args(["--foreground", "--no-process-group", "--configfile"])
            .arg(directory.join("smb.conf"))
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("smbd starts");
        let samba = Samba { process, port };
        wait_until("the share can be listed", || samba.client("ls").succeeded());
        samba
    }

    /// What a client of Samba says to these commands of it.
    fn client(&self, commands: &str) -> Run {
        let mut client = tool("smbclient");
        client.args(["--no-pass", "--configfile=/dev/null", "--max-protocol=SMB3"]);
        client.arg(format!("--port={}", self.port));
        Run::of(client.args(["//127.0.0.1/laptop", "--command", commands]))
    }

    /// The content of a file, or of one of its previous versions.
    fn content(&self, path: &str, to: &Path) -> String {
        let _ = fs::remove_file(to);
        self.client(&format!("get \"{path}\" {}", to.display())).exits(&[0]);
        fs::read_to_string(to).expect("a file")
    }
}

impl Drop for Samba {
    fn drop(&mut self) {
        let _ = Run::of(tool("kill").arg(self.process.id().to_string()));
        let _ = self.process.wait();
    }
}

/// The name of a snapshot as Samba's clients know it.
fn previous(name: &str) -> String {
    let date = name[..19].replace('T', "-");
    let numbers: Vec<&str> = date.split('-').collect();
    format!("@GMT-{}-{}", numbers[..3].join("."), numbers[3..].join("."))
}

#[test]
fn samba_shows_complete_snapshots_as_previous_versions() {
    if !root() || !have(&["smbd", "smbclient"]) {
        return;
    }
    if !Path::new(VFS_MODULES).exists() {
        skipped!("needs samba-vfs-modules");
        return;
    }
    let module = Module::new();
    module.write_policy("[defaults]\npartial_on_exit = [23]\n");
    fs::create_dir(module.latest.join("etc")).expect("a directory");
    let mut names = Vec::new();
    for number in 0..3 {
        tree::write(&module.latest.join("etc/fstab"), &format!("state {number}"));
        names.push(module.expect_snapshot());
        next_second();
    }
    tree::write(&module.latest.join("etc/fstab"), "half");
    module.run_hook_after(23);
    let partial = module.snapshots().into_iter().find(|name| name.ends_with("-partial"));
    let partial = partial.expect("a partial snapshot");
    tree::write(&module.latest.join("etc/fstab"), "now");

    let samba = Samba::start(&module);
    let run = samba.client("allinfo etc/fstab");
    let told = run.stdout();
    let shown: Vec<&str> = told.lines().filter(|line| line.starts_with("@GMT-")).collect();
    let newest_first = [&partial].into_iter().chain(names.iter().rev());
    let expected: Vec<String> = newest_first.map(|name| previous(name)).collect();
    assert_eq!(shown, expected, "{run}");
    let to: PathBuf = module.directory.join("got");
    assert_eq!(samba.content("etc/fstab", &to), "now");
    for (number, name) in names.iter().enumerate() {
        let path = format!("{}/etc/fstab", previous(name));
        assert_eq!(samba.content(&path, &to), format!("state {number}"));
    }
    let get = format!("get {}/etc/fstab {}", previous(&partial), to.display());
    let run = samba.client(&get);
    assert!(format!("{run}").contains("NT_STATUS_OBJECT_NAME_NOT_FOUND"), "{run}");
    // Nothing is written, neither into the module nor into a snapshot.
    for command in ["put /etc/hostname etc/new", "rm etc/fstab", "mkdir new"] {
        let run = samba.client(command);
        assert!(format!("{run}").contains("NT_STATUS_"), "{run}");
    }
    let into = format!("put /etc/hostname {}/etc/new", previous(&names[0]));
    assert!(format!("{}", samba.client(&into)).contains("NT_STATUS_"));
    assert!(!module.snapshot(&names[0]).join("etc/new").exists());
    module.run(&["verify", NAME]).exits(&[0]);
    drop(samba);
}
