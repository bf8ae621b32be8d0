//! What clients reach of the snapshots that CephFS shows in each directory as `.snap`, and what
//! keeps them out: pre-xfer, two lines of rsyncd.conf, or a mount without the right `s`.
//!
//! Each attack is an ordinary rsync client, and is shown to work where nothing keeps it out.

use crate::support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use support::ceph::{Cluster, MAY_WRITE, cluster};
use support::daemon::{Daemon, client};
use support::module::{Module, names_in};
use support::run::Run;
use support::{have, tree};

/// What the module has and the client, too, so that rsync finds it unchanged.
const FILE: &str = "report";

/// The snapshots of the module and of its directory `sub` before an attack.
const SNAPSHOTS: [(&str, &str); 2] = [("", "old"), ("sub", "old-sub")];

/// A name that no snapshot has before an attack.
const NEW: &str = "forged";

/// How a client reaches snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attack {
    // It names `.snap`.
    PartialDir,
    PartialDirBelow,
    BackupDir,
    Destination,
    DestinationBelow,
    // It sends a directory `.snap`.
    Tree,
    TreeBelow,
    Relative,
    // It sends a symbolic link.
    LinkAsPartialDir,
    LinkAsBackupDir,
    LinkKept,
    LinkAsDestination,
    // It sends the directory that munged links lead to, too.
    MungedLinkAsPartialDir,
}

impl Attack {
    const ALL: [Attack; 13] = [
        Attack::PartialDir,
        Attack::PartialDirBelow,
        Attack::BackupDir,
        Attack::Destination,
        Attack::DestinationBelow,
        Attack::Tree,
        Attack::TreeBelow,
        Attack::Relative,
        Attack::LinkAsPartialDir,
        Attack::LinkAsBackupDir,
        Attack::LinkKept,
        Attack::LinkAsDestination,
        Attack::MungedLinkAsPartialDir,
    ];

    /// Whether pre-xfer sees `.snap` in it.
    fn is_named(self) -> bool {
        use Attack::{BackupDir, Destination, DestinationBelow, PartialDir, PartialDirBelow};
        let named = [PartialDir, PartialDirBelow, BackupDir, Destination, DestinationBelow];
        named.contains(&self)
    }

    /// Whether it sends a symbolic link.
    fn needs_links(self) -> bool {
        use Attack::{LinkAsBackupDir, LinkAsDestination, LinkAsPartialDir, LinkKept};
        let others = [LinkAsPartialDir, LinkAsBackupDir, LinkKept, LinkAsDestination];
        others.contains(&self) || self == Attack::MungedLinkAsPartialDir
    }

    /// Pushes what the attack takes. The last push is the attack itself.
    fn run(self, daemon: &Daemon, source: &Path) -> Run {
        let push = |options: &[&str]| daemon.push(source, "data", options);
        let push_to = |options: &[&str], to: &str| daemon.push(source, to, options);
        let link = |target: &str, name: &str| symlink(target, source.join(name)).expect("a link");
        let directory = |name: String| fs::create_dir_all(source.join(name)).expect("a directory");
        match self {
            Attack::PartialDir => push(&["--partial-dir=.snap/old"]),
            Attack::PartialDirBelow => push(&["--partial-dir=.snap/old-sub"]),
            Attack::BackupDir => {
                tree::write(&source.join(FILE), "changed");
                push(&["--backup", &format!("--backup-dir=.snap/{NEW}")])
            }
            Attack::Destination => push_to(&["--mkpath"], &format!("data/.snap/{NEW}")),
            Attack::DestinationBelow => push_to(&["--mkpath"], &format!("data/sub/.snap/{NEW}")),
            Attack::Tree => {
                directory(format!(".snap/{NEW}"));
                push(&[])
            }
            Attack::TreeBelow => {
                directory(format!("sub/.snap/{NEW}"));
                push(&[])
            }
            Attack::Relative => {
                directory(format!(".snap/{NEW}"));
                let path = format!("{}/./.snap/{NEW}", source.display());
                Run::of(client().args(["--archive", "--relative", &path]).arg(daemon.url("data/")))
            }
            Attack::LinkAsPartialDir => {
                link(".snap", "link");
                push(&["--partial-dir=link/old"])
            }
            Attack::LinkAsBackupDir => {
                link(".snap", "link");
                tree::write(&source.join(FILE), "changed");
                push(&["--backup", &format!("--backup-dir=link/{NEW}")])
            }
            Attack::LinkKept => {
                link(".snap", "link");
                push(&[]);
                fs::remove_file(source.join("link")).expect("removed");
                directory(format!("link/{NEW}"));
                push(&["--keep-dirlinks"])
            }
            Attack::LinkAsDestination => {
                link(".snap", "link");
                push(&[]);
                push_to(&["--mkpath"], &format!("data/link/{NEW}"))
            }
            Attack::MungedLinkAsPartialDir => {
                directory("rsyncd-munged".to_string());
                link("../.snap", "sub/link");
                push(&["--partial-dir=link/old"])
            }
        }
    }
}

/// A module with snapshots, and a client that has the same files.
struct Target {
    module: Module,
    source: PathBuf,
}

impl Target {
    fn new(cluster: &Cluster) -> Target {
        let module = Module::at(cluster.directory().join("root"));
        let source = module.directory.join("source");
        fs::create_dir_all(source.join("sub")).expect("a directory");
        for name in [FILE.to_string(), format!("sub/{FILE}")] {
            tree::write(&source.join(name), "as it was");
        }
        let copy = format!("{}/.", source.display());
        Run::of(support::run::tool("cp").args(["--archive", &copy]).arg(&module.latest))
            .exits(&[0]);
        for (directory, name) in SNAPSHOTS {
            fs::create_dir(module.latest.join(directory).join(".snap").join(name))
                .expect("a snapshot");
        }
        Target { module, source }
    }

    /// What an attack has changed: the snapshots that are gone, and forged ones.
    fn damage(&self) -> Vec<String> {
        let shelf = |directory: &str| names_in(&self.module.latest.join(directory).join(".snap"));
        let gone = SNAPSHOTS
            .iter()
            .filter(|(directory, name)| !shelf(directory).iter().any(|found| found == name));
        let gone = gone.map(|(_, name)| format!("{name} is gone"));
        let is_forged = |directory: &&str| shelf(directory).iter().any(|found| found == NEW);
        let forged = ["", "sub"].into_iter().filter(is_forged);
        gone.chain(forged.map(|directory| format!("{NEW} is in '{directory}'"))).collect()
    }

    /// A module without hooks at `path`, with more settings.
    fn open_section(path: &Path, settings: &str) -> String {
        format!("[data]\n    path = {}\n    read only = no\n    {settings}\n", path.display())
    }
}

/// Tries each attack against a module of its own, and returns those that reached snapshots.
/// `serve` makes the section of rsyncd.conf.
fn tried(
    cluster: &Cluster,
    attacks: &[Attack],
    serve: &dyn Fn(&Module) -> String,
    each: &dyn Fn(Attack, &Target, &Run),
) -> Vec<Attack> {
    let reaches = |attack: &Attack| {
        let target = Target::new(cluster);
        let daemon = Daemon::start(&target.module, &serve(&target.module));
        let run = attack.run(&daemon, &target.source);
        daemon.await_connections();
        each(*attack, &target, &run);
        let damage = target.damage();
        eprintln!("{attack:?}: {damage:?}");
        !damage.is_empty()
    };
    attacks.iter().copied().filter(reaches).collect()
}

fn needs() -> Option<&'static Cluster> {
    if !have(&["rsync"]) {
        return None;
    }
    cluster()
}

#[test]
fn the_cluster_keeps_snapshots_through_crashes() {
    slow!();
    let Some(cluster) = cluster() else { return };
    let directory = cluster.directory();
    fs::write(directory.join("file"), "1").expect("a file");
    fs::create_dir(directory.join(".snap/one")).expect("a snapshot");
    let client = cluster.client(MAY_WRITE, &[]);
    let seen = client.sees(&directory);
    fs::write(seen.join("file"), "2").expect("a file");
    let error = fs::remove_dir(seen.join(".snap/one")).expect_err("no right to remove it");
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    cluster.crash(&client);
    cluster.kill_metadata_server();
    cluster.start_metadata_server();
    assert_eq!(fs::read_to_string(directory.join(".snap/one/file")).expect("a file"), "1");
    fs::remove_dir(directory.join(".snap/one")).expect("removed");
}

#[test]
fn without_protection_each_attack_reaches_snapshots() {
    slow!();
    let Some(cluster) = needs() else { return };
    type Works = fn(Attack) -> bool;
    let cases: [(&str, Works); 4] = [
        ("use chroot = yes", |_| true),
        ("use chroot = no", |attack| !attack.needs_links()),
        ("use chroot = yes\n    filter = - .snap/", Attack::needs_links),
        ("use chroot = yes\n    munge symlinks = yes\n    filter = - .snap/", |attack| {
            attack == Attack::MungedLinkAsPartialDir
        }),
    ];
    for (settings, works) in cases {
        let serve = |module: &Module| Target::open_section(&module.latest, settings);
        let expected: Vec<Attack> =
            Attack::ALL.into_iter().filter(|attack| works(*attack)).collect();
        assert_eq!(tried(cluster, &Attack::ALL, &serve, &|_, _, _| ()), expected, "{settings}");
    }
}

#[test]
fn a_filter_and_munged_links_without_chroot_stop_each_attack() {
    slow!();
    let Some(cluster) = needs() else { return };
    for settings in [
        "use chroot = no\n    filter = - .snap/",
        "use chroot = no\n    exclude = *.o .snap/",
        "use chroot = no\n    filter = - .snap/ + .rsync-partial/ - .rsync-partial",
    ] {
        let serve = |module: &Module| Target::open_section(&module.latest, settings);
        assert_eq!(tried(cluster, &Attack::ALL, &serve, &|_, _, _| ()), [], "{settings}");
    }
}

#[test]
fn a_mount_without_the_right_stops_each_attack() {
    slow!();
    let Some(cluster) = needs() else { return };
    let client = cluster.client(MAY_WRITE, &[]);
    let serve = |module: &Module| {
        let root = module.latest.parent().expect("the root");
        let seen = client.sees(root.parent().expect("the directory of the test"));
        Target::open_section(&seen.join("root/latest"), "use chroot = yes")
    };
    assert_eq!(tried(cluster, &Attack::ALL, &serve, &|_, _, _| ()), []);
}

#[test]
fn pre_xfer_turns_away_what_names_snapshots() {
    slow!();
    let Some(cluster) = needs() else { return };
    let named: Vec<Attack> = Attack::ALL.into_iter().filter(|attack| attack.is_named()).collect();
    let serve =
        |module: &Module| Daemon::pair_section(module, "data", &module.latest, "use chroot = yes");
    let told = |attack: Attack, _: &Target, run: &Run| {
        assert!(!run.succeeded(), "{attack:?}: {run}");
        let shown = format!("{run}");
        assert!(shown.contains("leads to .snap, where CephFS keeps"), "{attack:?}: {shown}");
    };
    assert_eq!(tried(cluster, &named, &serve, &told), []);
    // What names no snapshot is let in, and so is a client that reads one.
    let target = Target::new(cluster);
    let daemon = Daemon::start(&target.module, &serve(&target.module));
    tree::write(&target.source.join("notes.snap"), "free");
    daemon.push(&target.source, "data", &["--partial-dir=.rsync-partial"]);
    daemon.push(&target.source, "data", &[]).exits(&[0]);
    let restored = target.module.directory.join("restored");
    daemon.pull("data/.snap/old/", &restored).exits(&[0]);
    assert_eq!(fs::read_to_string(restored.join(FILE)).expect("a file"), "as it was");
    assert_eq!(target.damage(), [""; 0]);
}

#[test]
fn elsewhere_the_name_is_free() {
    if !have(&["rsync"]) {
        return;
    }
    let module = Module::new();
    let source = support::daemon::source(&module);
    let daemon = Daemon::of_pair(&module);
    daemon.push(&source, "data", &["--mkpath", "--backup-dir=.snap/old", "--backup"]).exits(&[0]);
    daemon.push(&source, "data/.snap", &[]).exits(&[0]);
    assert!(module.latest.join(".snap").is_dir());
}

#[test]
fn check_names_the_lines_that_keep_clients_out() {
    slow!();
    let Some(cluster) = needs() else { return };
    let target = Target::new(cluster);
    let module = &target.module;
    let found = |path: &Path, settings: &str| {
        module.write_rsyncd_conf(&format!(
            "uid = root\ngid = root\n{}",
            Daemon::pair_section(module, "data", path, settings)
        ));
        let report = module.run(&["check", "--json", "data"]).json();
        let findings = report["modules"][0]["findings"].as_array().expect("findings").clone();
        let of_snapshots = findings.into_iter().find(|one| one["id"] == "snapshot-directory");
        of_snapshots.map(|one| {
            assert_eq!(one["level"], "critical", "{one}");
            one["message"].as_str().expect("a message").to_string()
        })
    };
    for (settings, expected) in [
        ("use chroot = yes", Some("write `filter = - .snap/` and `use chroot = no` there, or")),
        ("use chroot = no", Some("write `filter = - .snap/` there, or")),
        (
            "use chroot = yes\n    filter = - .snap/",
            Some("by a symbolic link that they send; write `use chroot = no` there, or"),
        ),
        ("use chroot = no\n    exclude = .snap", Some("write `filter = - .snap/` there")),
        ("use chroot = no\n    filter = - .snap/", None),
        ("use chroot = no\n    exclude = .snap/", None),
    ] {
        let told = found(&module.latest, settings);
        match expected {
            None => assert_eq!(told, None, "{settings}"),
            Some(expected) => {
                let told = told.unwrap_or_else(|| panic!("nothing is told of {settings}"));
                assert!(told.contains(expected), "{settings}: {told}");
            }
        }
    }
    let client = cluster.client(MAY_WRITE, &[]);
    let directory = module.root.parent().expect("the directory of the test");
    let seen = client.sees(directory).join("root/latest");
    assert_eq!(found(&seen, "use chroot = yes"), None);
    assert_eq!(names_in(&module.latest.join(".snap")), ["old"]);
}

#[test]
fn setup_keeps_clients_out_on_cephfs() {
    slow!();
    let Some(cluster) = needs() else { return };
    let module = Module::new();
    fs::remove_file(&module.rsyncd_conf).expect("no configuration");
    let root = cluster.directory().join("laptop");
    let path = root.to_str().expect("UTF-8");
    let hosts = ["--hosts", "127.0.0.1"];
    let setup = [&["setup", "laptop", "--path", path, "--write"][..], &hosts].concat();
    module.run(&setup).exits(&[0]);
    let file = module.directory.join("rsyncd.d/laptop.conf");
    let text = fs::read_to_string(file).expect("the file of the module");
    assert!(text.contains("    filter = - .snap/ + .rsync-partial/ - "), "{text}");
    assert!(text.contains("    use chroot = no\n"), "{text}");
    let report = module.run(&["check", "--json", "laptop"]).json();
    assert!(!report.to_string().contains("snapshot-directory"), "{report}");
}
