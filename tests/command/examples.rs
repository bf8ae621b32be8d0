//! The example configuration files, parsed by the programs that they are for.

use crate::support;

use std::fs;
use std::path::Path;

use support::daemon::{Daemon, await_snapshots, client};
use support::module::Module;
use support::run::Run;
use support::server::Server;
use support::{BINARY, fingerprint, have, is_root, tree};

const RSYNCD_CONF: &str = include_str!("../../examples/rsyncd.conf");
const POLICY: &str = include_str!("../../examples/rsyncd-snapshot.toml");

/// The example's rsyncd.conf with its paths below the server's directory, for a client on
/// this machine, and for the account that runs the test.
fn rsyncd_conf(server: &Server) -> String {
    let directory = server.directory.display().to_string();
    let quoted = |path: &Path| format!("'{}'", path.display());
    let hook = format!(
        "{BINARY} --config {} --rsyncd-conf {}",
        quoted(&server.policy),
        quoted(&server.rsyncd_conf)
    );
    let mut conf = RSYNCD_CONF
        .replace("/srv/backup", &format!("{directory}/backup"))
        .replace("/etc/rsyncd.secrets", &format!("{directory}/secrets"))
        .replace("/run/rsyncd.lock", &format!("{directory}/rsyncd.lock"))
        .replace("/usr/bin/rsyncd-snapshot", &hook)
        .replace("192.0.2.17", "127.0.0.1");
    if !is_root() {
        // As the example says.
        conf = conf.replace("\nuid = root\n", "\n").replace("\ngid = root\n", "\n");
        conf = conf.replace("use chroot = yes", "use chroot = no");
    }
    let settings = conf.lines().filter(|line| !line.trim_start().starts_with('#'));
    for path in settings.filter(|line| line.contains("= /") && !line.contains("exclude")) {
        assert!(path.contains(&directory), "a path that this test does not know: {path}");
    }
    conf
}

#[test]
fn rsync_serves_the_example_configuration_and_its_hook_works() {
    slow!();
    if !have(&["rsync"]) {
        return;
    }
    let server = Server::new();
    let root = server.directory.join("backup/laptop");
    fs::create_dir_all(root.join("latest")).expect("the module");
    tree::set_mode(&root, 0o700);
    fs::write(server.directory.join("secrets"), "laptop:secret\n").expect("secrets");
    tree::set_mode(&server.directory.join("secrets"), 0o600);
    server.write_policy(POLICY);
    server.write_rsyncd_conf(&rsyncd_conf(&server));
    let source = server.directory.join("source");
    tree::small(&source);
    let daemon = Daemon::serve(&server);
    let run = |options: &[&str], from: &str, to: &str| {
        Run::of(
            client()
                .env("RSYNC_PASSWORD", "secret")
                .arg("--archive")
                .args(options)
                .args([from, to]),
        )
    };
    let url = |path: &str| daemon.url(path).replace("rsync://", "rsync://laptop@");
    let from = format!("{}/", source.display());

    run(&[], &from, &url("laptop/")).exits(&[0]);
    let names = await_snapshots(&root, 1);
    fingerprint::assert_same(&root.join("latest"), &root.join(&names[0]));
    server.run(&["check"]).exits(&[0]);
    server.run(&["check", "laptop"]).exits(&[0]);
    server.run(&["plan", "laptop"]).exits(&[0]);

    // Without the password, or with an option that rewrites history, nothing goes.
    Run::of(client().arg(daemon.url("laptop/"))).exits(&[5]);
    tree::write(&source.join("read me"), "changed, and longer than before\n");
    for option in ["--inplace", "--append", "--append-verify", "--write-devices"] {
        let refused = run(&[option], &from, &url("laptop/"));
        assert!(!refused.succeeded(), "{option}: {refused}");
    }

    // A file comes back through the read-only module.
    let restored = server.directory.join("restored");
    fs::create_dir(&restored).expect("a directory");
    let to = restored.to_str().expect("UTF-8");
    run(&[], &url(&format!("laptop-snapshots/{}/read me", names[0])), to).exits(&[0]);
    assert_eq!(fs::read_to_string(restored.join("read me")).expect("restored"), "first\n");
    let listing = run(&["--list-only"], &url("laptop-snapshots/"), to).exits(&[0]).stdout();
    assert!(listing.contains(&names[0]) && !listing.contains(".rsyncd-snapshot"), "{listing}");
    assert!(!run(&[], &from, &url("laptop-snapshots/")).succeeded(), "restores are read-only");
}

#[test]
fn the_example_policy_is_accepted() {
    let (module, _) = Module::with_snapshot();
    module.write_policy(POLICY);
    module.run(&["plan", "data"]).exits(&[0]);
    module.run(&["rotate", "data"]).exits(&[0]);
}

#[test]
fn the_keys_that_the_example_policy_shows_commented_out_are_accepted_too() {
    let (module, _) = Module::with_snapshot();
    // "#key = value"; prose has a blank after the #.
    let is_key = |line: &str| {
        line.strip_prefix('#').is_some_and(|rest| rest.starts_with(char::is_alphabetic))
    };
    let lines = POLICY.lines().map(|line| match is_key(line) && !line.contains("snapshot_root") {
        true => &line[1..],
        false => line,
    });
    let policy: Vec<_> = lines.collect();
    assert!(
        policy.iter().filter(|line| line.contains('=') && !line.starts_with('#')).count() > 15,
        "{policy:?}"
    );
    module.write_policy(&policy.join("\n"));
    module.run(&["plan", "data"]).exits(&[0]);
    module.expect_no_snapshot();
}

#[test]
fn the_example_policy_shows_every_key_of_the_documentation() {
    for key in [
        "keep",
        "strict",
        "prefer",
        "min_keep",
        "min_age",
        "max_expire",
        "keep_partial",
        "grace",
        "max_lease",
        "time_zone",
        "clock_jump",
        "snapshot_on_exit",
        "partial_on_exit",
        "snapshot_root",
        "lock_wait",
        "min_interval",
        "max_defer",
        "push_wait",
        "allow_options",
        "partial_dirs",
        "max_parallel",
        "full_comparison",
        "max_age",
        "log_level",
        "nice",
        "ionice",
    ] {
        let shown = |line: &str| line.trim_start_matches('#').starts_with(&format!("{key} ="));
        assert!(POLICY.lines().any(shown), "{key} is missing");
    }
}

#[test]
fn systemd_understands_the_example_units() {
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        skipped!("needs systemd-analyze");
        return;
    }
    let server = Server::new();
    let mut verify = support::run::tool("systemd-analyze");
    verify.args(["verify", "--man=no"]);
    let units = [
        ("rsyncd-snapshot.service", include_str!("../../examples/rsyncd-snapshot.service")),
        ("rsyncd-snapshot.timer", include_str!("../../examples/rsyncd-snapshot.timer")),
        (
            "rsyncd-snapshot-check.service",
            include_str!("../../examples/rsyncd-snapshot-check.service"),
        ),
        ("rsyncd-snapshot-check.timer", include_str!("../../examples/rsyncd-snapshot-check.timer")),
        (
            "rsyncd-snapshot-alert.service",
            include_str!("../../examples/rsyncd-snapshot-alert.service"),
        ),
    ];
    for (name, text) in units {
        let text = text.replace("/usr/bin/rsyncd-snapshot", BINARY);
        let file = server.directory.join(name);
        fs::write(&file, text).expect("a unit");
        verify.arg(file);
    }
    let verify = Run::of(&mut verify);
    let complaints = verify.stderr();
    assert!(verify.succeeded() && !complaints.contains("rsyncd-snapshot"), "{verify}");
    // What the unit runs, on a server that has nothing to do.
    server.run(&["snapshot", "--all", "--due"]).exits(&[0]);
}
