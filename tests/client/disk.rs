//! The backup disk: what is unlocked and mounted for a run, in which order, and that all of it is
//! put back whatever happens in between.
//!
//! `/etc/fstab`, `/etc/crypttab` and the programs that change disks are those of a [`Stage`];
//! `mount` and `umount` are the real ones behind a note. The device-mapper is a link to a loop
//! device here: the real one is tried by `sh tests/luks`.

use crate::support;

use std::fs;
use std::process::Stdio;

use support::client::{Machine, Stage};
use support::run::{Run, tool};
use support::time::wait_until;
use support::{have, may_mount, tree};

fn can_run() -> bool {
    may_mount() && have(&["rsync", "mkfs.ext4", "losetup", "mountpoint"])
}

/// A stage whose fstab mounts an image, with mount and umount that note what they do.
struct Rig<'a> {
    stage: Stage<'a>,
}

impl<'a> Rig<'a> {
    /// A disk that is plugged in and not encrypted.
    fn new(machine: &'a Machine) -> Rig<'a> {
        let rig = Rig { stage: Stage::new(machine) };
        let image = rig.stage.path("image");
        fs::File::create(&image).and_then(|file| file.set_len(32 << 20)).expect("an image");
        Run::of(tool("mkfs.ext4").args(["-q", &image])).exits(&[0]);
        rig.stage.write("fstab", &format!("{image} {} ext4 loop,noauto 0 0\n", rig.mount_point()));
        rig.stage.script("mount", "[ -e \"$stage/broken-mount\" ] && { echo 'mount: no such luck' >&2; exit 32; }\nexec /usr/bin/mount \"$@\"");
        rig.stage.script("umount", "[ -e \"$stage/broken-umount\" ] && { echo 'umount: not now' >&2; exit 32; }\nexec /usr/bin/umount \"$@\"");
        rig
    }

    /// The same behind crypttab: what unlocks it makes a link in /dev/mapper.
    fn encrypted(machine: &'a Machine) -> Rig<'a> {
        let rig = Rig::new(machine);
        let image = rig.stage.path("image");
        rig.stage.write(
            "crypttab",
            &format!("# name device key options\nbackup {image} /etc/key luks,noauto\n"),
        );
        rig.stage.write(
            "fstab",
            &format!("/dev/mapper/backup {} ext4 loop,noauto 0 0\n", rig.mount_point()),
        );
        rig.stage.script(
            "cryptdisks_start",
            "[ -e \"$stage/broken-unlock\" ] && { echo 'wrong key' >&2; exit 1; }\nln -s \"$stage/image\" /dev/mapper/\"$1\"",
        );
        rig.stage.script(
            "cryptdisks_stop",
            "[ -e \"$stage/broken-lock\" ] && { echo 'still in use' >&2; exit 1; }\nrm /dev/mapper/\"$1\"",
        );
        rig
    }

    fn mount_point(&self) -> String {
        self.stage.path("mnt")
    }

    fn latest(&self) -> String {
        self.stage.path("mnt/latest")
    }

    fn break_step(&self, name: &str) {
        fs::write(self.stage.path(&format!("broken-{name}")), "").expect("a mark");
    }

    fn arguments(&self, encrypted: bool) -> Vec<String> {
        let mut arguments =
            vec!["--mount".to_string(), self.mount_point(), "--disable-notifications".into()];
        if encrypted {
            arguments.push("--crypto=backup".into());
        }
        arguments.extend([self.stage.machine.source.display().to_string(), self.latest()]);
        arguments
    }

    fn back_up(&self, encrypted: bool, more: &[&str]) -> Run {
        let arguments = self.arguments(encrypted);
        let arguments: Vec<&str> =
            more.iter().copied().chain(arguments.iter().map(String::as_str)).collect();
        self.stage.backup(&arguments)
    }

    /// What is on the disk: mounted for a look.
    fn on_disk(&self, check: impl FnOnce(&std::path::Path)) {
        let mount_point = self.stage.machine.directory.join("look");
        fs::create_dir_all(&mount_point).expect("a mount point");
        Run::of(tool("mount").args(["-o", "loop", &self.stage.path("image")]).arg(&mount_point))
            .exits(&[0]);
        let _mounted = Mounted(&mount_point);
        check(&mount_point);
    }

    fn verify(&self) {
        self.on_disk(|disk| self.stage.machine.verify(&disk.join("latest")));
    }
}

/// Unmounts what was mounted for a look, also when the look fails the test.
struct Mounted<'a>(&'a std::path::Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = tool("umount").arg(self.0).status();
    }
}

#[test]
fn a_disk_is_mounted_for_the_run_and_unmounted_after_it() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let rig = Rig::new(&machine);
    rig.back_up(false, &[]).exits(&[0]);
    let mount_point = rig.mount_point();
    assert_eq!(rig.stage.log(), [format!("mount {mount_point}"), format!("umount {mount_point}")]);
    assert_eq!(fs::read_dir(&mount_point).expect("the mount point").count(), 0);
    rig.verify();
    rig.on_disk(|disk| {
        let names = support::module::visible(disk);
        let names: Vec<_> = names.into_iter().filter(|name| name != "lost+found").collect();
        assert_eq!(names.len(), 1, "{names:?}");
    });
}

#[test]
fn an_encrypted_disk_is_put_back_in_reverse_order() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let rig = Rig::encrypted(&machine);
    let mount_point = rig.mount_point();
    let steps = |steps: &[&str]| {
        steps.iter().map(|step| step.replace("DISK", &mount_point)).collect::<Vec<_>>()
    };
    rig.back_up(true, &["--backup"]).exits(&[0]);
    let all =
        steps(&["cryptdisks_start backup", "mount DISK", "umount DISK", "cryptdisks_stop backup"]);
    assert_eq!(rig.stage.log(), all);
    rig.verify();

    // What was unlocked before stays unlocked.
    std::os::unix::fs::symlink(rig.stage.path("image"), rig.stage.path("mapper/backup"))
        .expect("unlocked");
    rig.back_up(true, &["--backup"]).exits(&[0]).says("is already unlocked");
    assert_eq!(rig.stage.log(), steps(&["mount DISK", "umount DISK"]));
    assert!(fs::symlink_metadata(rig.stage.path("mapper/backup")).is_ok());

    // And what was mounted before stays mounted.
    let script = "/usr/bin/mount \"$1\"; shift; \"$@\"; status=$?; mountpoint -q \"$0\" || exit 99; exit $status";
    let mut command = rig.stage.enter();
    command.args([
        "sh",
        "-c",
        script,
        &mount_point,
        &mount_point,
        support::client::BACKUP_BINARY,
        "-v",
        "--backup",
    ]);
    Run::of(command.args(rig.arguments(true))).exits(&[0]).says("is already mounted");
    assert_eq!(rig.stage.log(), Vec::<String>::new());
    rig.verify();
}

/// Programs that unlock disks, and that this machine may have.
const UNLOCKERS: &str = "/usr/sbin/cryptdisks_start /sbin/cryptdisks_start /usr/lib/systemd/systemd-cryptsetup \
    /lib/systemd/systemd-cryptsetup /usr/bin/systemd-cryptsetup /usr/sbin/cryptsetup /sbin/cryptsetup";

#[test]
fn without_cryptdisks_start_other_programs_unlock_in_the_same_order() {
    if !can_run() {
        return;
    }
    let attach = "[ ! -e \"$stage/broken-unlock\" ] || { echo 'wrong key' >&2; exit 1; }; ln -s \"$stage/image\"";
    let systemd = format!(
        "case $1 in attach) {attach} /dev/mapper/\"$2\" ;; detach) rm /dev/mapper/\"$2\" ;; *) exit 9 ;; esac"
    );
    let plain = format!(
        "case $1 in open) shift $(($# - 1)); {attach} /dev/mapper/\"$1\" ;; close) rm /dev/mapper/\"$2\" ;; *) exit 9 ;; esac"
    );
    for (name, script, unlock, lock) in [
        (
            "systemd-cryptsetup",
            systemd,
            "attach backup IMAGE /etc/key luks,noauto",
            "detach backup",
        ),
        ("cryptsetup", plain, "open --key-file=/etc/key -- IMAGE backup", "close backup"),
    ] {
        let machine = Machine::new();
        let rig = Rig::encrypted(&machine);
        for absent in ["cryptdisks_start", "cryptdisks_stop"] {
            fs::remove_file(rig.stage.directory.join("sbin").join(absent)).expect("removed");
        }
        rig.stage.script(name, &script);
        // What is no plain file is no program.
        let hide = format!(
            "for path in {UNLOCKERS}; do [ ! -f $path ] || /usr/bin/mount --bind /dev/null $path; done; exec \"$0\" \"$@\""
        );
        let back_up = || {
            let mut command = rig.stage.enter();
            command.args(["sh", "-c", &hide, support::client::BACKUP_BINARY, "-v", "--config"]);
            Run::of(command.arg(&machine.policy).args(rig.arguments(true)))
        };
        back_up().exits(&[0]);
        let unlock = unlock.replace("IMAGE", &rig.stage.path("image"));
        let [mount, umount] =
            ["mount", "umount"].map(|word| format!("{word} {}", rig.mount_point()));
        assert_eq!(
            rig.stage.log(),
            [format!("{name} {unlock}"), mount, umount, format!("{name} {lock}")]
        );
        rig.verify();
        rig.break_step("unlock");
        back_up().exits(&[1]).says("wrong key");
        assert_eq!(rig.stage.log(), [format!("{name} {unlock}")]);
    }
}

#[test]
fn whatever_step_fails_those_before_it_are_undone() {
    if !can_run() {
        return;
    }
    let start = "cryptdisks_start backup";
    let stop = "cryptdisks_stop backup";
    for (broken, wanted, said) in [
        ("unlock", vec![start], "wrong key"),
        ("mount", vec![start, "mount DISK", stop], "no such luck"),
        ("rsync", vec![start, "mount DISK", "rsync", "umount DISK", stop], "ended with status 11"),
        (
            "umount",
            vec![start, "mount DISK", "rsync", "rsync", "rsync", "umount DISK", stop],
            "not now",
        ),
        (
            "lock",
            vec![start, "mount DISK", "rsync", "rsync", "rsync", "umount DISK", stop],
            "still in use",
        ),
    ] {
        let machine = Machine::new();
        let rig = Rig::encrypted(&machine);
        rig.stage.script("rsync", "[ -e \"$stage/broken-rsync\" ] && { echo 'disk full' >&2; exit 11; }\nexec /usr/bin/rsync \"$@\"");
        rig.break_step(broken);
        rig.back_up(true, &[]).exits(&[1]).says(said);
        let wanted: Vec<String> =
            wanted.iter().map(|step| step.replace("DISK", &rig.mount_point())).collect();
        let steps: Vec<String> = rig
            .stage
            .log()
            .into_iter()
            .map(|line| match line.starts_with("rsync ") {
                true => "rsync".to_string(),
                false => line,
            })
            .collect();
        assert_eq!(steps, wanted, "{broken}");
    }
}

#[test]
fn both_errors_are_told_when_the_undoing_fails_too() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let rig = Rig::encrypted(&machine);
    rig.stage.script("rsync", "echo 'disk full' >&2; exit 11");
    rig.break_step("umount");
    rig.break_step("lock");
    let run = rig.back_up(true, &[]).exits(&[1]);
    run.says("disk full").says("not now").says("still in use");
}

#[test]
fn a_signal_ends_rsync_and_all_is_put_back() {
    if !can_run() {
        return;
    }
    for signal in ["INT", "TERM", "HUP", "QUIT"] {
        let machine = Machine::new();
        let rig = Rig::encrypted(&machine);
        // A process of its own, as sudo and rsync have: the signal has to reach it.
        rig.stage.script(
            "rsync",
            "sh -c 'echo \"started $$\" >> \"$0\"; exec sleep 60' \"$stage/log\"; exit 20",
        );
        // Slow enough to be interrupted, were it not left alone.
        rig.stage.script("umount", "sleep 0.5; exec /usr/bin/umount \"$@\"");
        let mut command = rig.stage.backup_command(&[]);
        let child = command
            .args(rig.arguments(true))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a run");
        let log = rig.stage.directory.join("log");
        let noted = |text: &str| fs::read_to_string(&log).unwrap_or_default().contains(text);
        wait_until("rsync runs", || noted("started"));
        let kill = |name: &str| {
            Run::of(tool("sh").args(["-c", &format!("kill -s {name} {}", child.id())])).exits(&[0]);
        };
        kill(signal);
        wait_until("umount runs", || noted("umount"));
        kill("TERM");
        let output = child.wait_with_output().expect("an end");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{signal}: {said}");
        assert!(said.contains(&format!("interrupted by SIG{signal}")), "{said}");
        let steps = rig.stage.log();
        let sleeper =
            steps.iter().find_map(|line| line.strip_prefix("started ")).expect("noted").to_string();
        let end = [format!("umount {}", rig.mount_point()), "cryptdisks_stop backup".to_string()];
        assert_eq!(steps[steps.len() - 2..], end, "{signal}");
        wait_until("the child of rsync is gone", || {
            !std::path::Path::new("/proc").join(&sleeper).exists()
        });
        assert!(fs::symlink_metadata(rig.stage.path("mapper/backup")).is_err());
    }
}

#[test]
fn what_was_told_to_ignore_a_signal_does_so() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let stage = Stage::new(&machine);
    stage.script("rsync", "kill -s HUP $PPID; sleep 0.3; exec /usr/bin/rsync \"$@\"");
    let mut command = stage.enter();
    command.args([
        "sh",
        "-c",
        "trap '' HUP; exec \"$0\" \"$@\"",
        support::client::BACKUP_BINARY,
        "-b",
        "-u",
    ]);
    Run::of(command.arg(&machine.source).arg(&machine.latest)).exits(&[0]);
    machine.verify(&machine.latest);
}

#[test]
fn what_comes_late_or_cannot_be_looked_at_is_put_back_too() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let rig = Rig::encrypted(&machine);
    let late = "(sleep 0.4; ln -s \"$stage/image\" /dev/mapper/\"$1\") > /dev/null 2>&1 & exit 1";
    rig.stage.script("cryptdisks_start", late);
    rig.back_up(true, &[]).exits(&[1]);
    assert_eq!(rig.stage.log(), ["cryptdisks_start backup", "cryptdisks_stop backup"]);

    let machine = Machine::new();
    let rig = Rig::new(&machine);
    rig.stage.script("mount", "/usr/bin/mount \"$@\" && touch \"$stage/mounted\"");
    rig.stage.script(
        "mountpoint",
        "[ -e \"$stage/mounted\" ] && exit 5; exec /usr/bin/mountpoint \"$@\"",
    );
    rig.back_up(false, &[]).exits(&[1]);
    let steps = rig.stage.log();
    assert_eq!(steps.last(), Some(&format!("umount {}", rig.mount_point())), "{steps:?}");
}

#[test]
fn two_runs_that_need_the_same_encrypted_device_do_not_overlap() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let rig = Rig::encrypted(&machine);
    rig.stage.script(
        "rsync",
        "while [ ! -e \"$stage/go\" ]; do sleep 0.05; done; exec /usr/bin/rsync \"$@\"",
    );
    let source = machine.source.to_str().expect("UTF-8");
    let destination =
        |name: &str| machine.directory.join(name).join("latest").display().to_string();
    let arguments = |destination: &str| {
        ["-b", "-c", "backup", "--disable-notifications", source, destination].map(str::to_string)
    };
    let mut first = rig.stage.backup_command(&[]);
    first.args(arguments(&destination("one"))).stdout(Stdio::null()).stderr(Stdio::null());
    let mut first = first.spawn().expect("a run");
    let log = rig.stage.directory.join("log");
    wait_until("rsync runs", || fs::read_to_string(&log).unwrap_or_default().contains("rsync "));
    let mut second = rig.stage.backup_command(&[]);
    let second = Run::of(second.args(arguments(&destination("two"))));
    fs::write(rig.stage.path("go"), "").expect("the word");
    assert!(first.wait().expect("an end").success());
    second.exits(&[3]).says("another run is at work");
}

#[test]
fn a_missing_disk_is_a_failure_only_on_a_terminal() {
    if !can_run() || !have(&["script"]) {
        return;
    }
    let machine = Machine::new();
    let rig = Rig::encrypted(&machine);
    fs::remove_file(rig.stage.path("image")).expect("unplugged");
    let listener =
        std::os::unix::net::UnixDatagram::bind(rig.stage.path("syslog")).expect("a socket");
    listener.set_nonblocking(true).expect("non-blocking");
    let with_syslog = "ln -s \"$1\" /dev/log; shift; exec \"$@\"";
    let mut command = rig.stage.enter();
    command.args([
        "sh",
        "-c",
        with_syslog,
        "sh",
        &rig.stage.path("syslog"),
        support::client::BACKUP_BINARY,
    ]);
    let run = Run::of(command.args(rig.arguments(true))).exits(&[0]);
    assert_eq!(
        (run.stdout(), run.stderr()),
        (String::new(), String::new()),
        "cron has nothing to mail"
    );
    let mut message = [0; 2_000];
    let length = listener.recv(&mut message).expect("a message to syslog");
    let message = String::from_utf8_lossy(&message[..length]).into_owned();
    assert!(
        message.contains("rsync-system-backup") && message.contains("skipping the backup"),
        "{message}"
    );
    assert_eq!(rig.stage.log(), Vec::<String>::new());

    let line = format!("{} {}", support::client::BACKUP_BINARY, rig.arguments(true).join(" "));
    let mut command = rig.stage.enter();
    let run =
        Run::of(command.args(["script", "--quiet", "--return", "--command", &line, "/dev/null"]));
    run.exits(&[1]).says("the encrypted device backup is not available");

    // The same for a disk that is only mounted.
    rig.stage
        .write("fstab", &format!("LABEL=no-such-disk {} ext4 noauto 0 0\n", rig.mount_point()));
    rig.back_up(false, &[]).exits(&[0]);
    assert_eq!(rig.stage.log(), Vec::<String>::new());
    // But a device that no option says to unlock is a mistake.
    rig.stage
        .write("fstab", &format!("/dev/mapper/backup {} ext4 noauto 0 0\n", rig.mount_point()));
    rig.back_up(false, &[]).exits(&[2]).says("name it with --crypto");
}

#[test]
fn disks_that_the_tables_do_not_name_are_refused() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let rig = Rig::encrypted(&machine);
    let source = machine.source.to_str().expect("UTF-8");
    let mount_point = rig.mount_point();
    let refused = |arguments: &[&str], part: &str| {
        rig.stage.backup(arguments).exits(&[2]).says(part);
    };
    refused(&["-c", "other", source, &rig.latest()], "/etc/crypttab has no entry other");
    refused(
        &["-m", "/mnt/other", source, "/mnt/other/latest"],
        "/etc/fstab has no entry for /mnt/other",
    );
    refused(
        &["-m", &mount_point, source, "/some/random/directory"],
        "is not below the mount point",
    );
    // A path that begins with the same letters is elsewhere, too; the original let it pass.
    refused(
        &["-m", &mount_point, source, &format!("{mount_point}2/latest")],
        "is not below the mount point",
    );
    assert_eq!(rig.stage.log(), Vec::<String>::new());
    // A link on the disk that leads elsewhere shows only when it is mounted.
    let elsewhere = machine.directory.join("elsewhere");
    fs::create_dir(&elsewhere).expect("a directory");
    rig.on_disk(|disk| {
        std::os::unix::fs::symlink(&elsewhere, disk.join("latest")).expect("a link")
    });
    rig.back_up(true, &[]).exits(&[2]).says("leads to");
    assert_eq!(rig.stage.log().len(), 4);
    assert_eq!(fs::read_dir(&elsewhere).expect("elsewhere").count(), 0);
}

#[test]
fn a_history_that_is_gone_stops_the_backup() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let rig = Rig::new(&machine);
    rig.back_up(false, &[]).exits(&[0]);
    // The user forgot --mount, and the mount point has a directory of that name.
    fs::create_dir(rig.latest()).expect("a directory");
    let source = machine.source.to_str().expect("UTF-8");
    rig.stage
        .backup(&["--disable-notifications", source, &rig.latest()])
        .exits(&[2])
        .says("is its disk mounted?");
    assert_eq!(fs::read_dir(rig.latest()).expect("the directory").count(), 0);
}

#[test]
fn an_empty_mount_point_of_a_disk_with_a_history_is_not_filled() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let rig = Rig::new(&machine);
    rig.back_up(false, &[]).exits(&[0]);
    let (source, latest) = (machine.source.to_str().expect("UTF-8"), rig.latest());
    for options in [&["-b"][..], &[], &["-n"]] {
        let arguments =
            [&["--disable-notifications"], options, &[source, latest.as_str()]].concat();
        rig.stage.backup(&arguments).exits(&[2]).says("is its disk mounted?");
    }
    let checked = rig.stage.backup(&["--check", source, &latest]).exits(&[1, 2]);
    assert!(checked.stdout().contains("is its disk mounted?"), "{checked}");
    assert_eq!(fs::read_dir(rig.mount_point()).expect("the mount point").count(), 0);
}

#[test]
fn a_check_puts_the_disk_back_too_and_transfers_nothing() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let rig = Rig::encrypted(&machine);
    let run = rig.back_up(true, &["--check"]).exits(&[1]);
    assert!(
        run.stdout().contains("ok       disk") && run.stdout().contains("less than 64 MiB"),
        "{run}"
    );
    assert_eq!(rig.stage.log().len(), 4);
    rig.on_disk(|disk| assert!(!disk.join("latest").exists()));
    let elsewhere = machine.latest.to_str().expect("UTF-8").to_string();
    let run = machine.back_up_to(&elsewhere, &["--check"]).exits(&[0]);
    assert!(run.stdout().contains("are free"), "{run}");
    assert!(!machine.latest.exists());
}

#[test]
fn a_busy_disk_is_tried_again() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let rig = Rig::new(&machine);
    // A desktop looks at the new disk for a moment.
    rig.stage.script(
        "umount",
        "if [ ! -e \"$stage/seen\" ]; then touch \"$stage/seen\"; echo 'umount: target is busy' >&2; exit 32; fi\nexec /usr/bin/umount \"$@\"",
    );
    rig.back_up(false, &[]).exits(&[0]);
    let steps = rig.stage.log();
    assert_eq!(steps.iter().filter(|step| step.starts_with("umount")).count(), 2, "{steps:?}");
}

// -- Notifications ---------------------------------------------------------------------------------

/// A notification server that writes down what it is asked to show.
const DESKTOP: &str = r#"
import sys, dbus, dbus.service, dbus.mainloop.glib
from gi.repository import GLib
class Desktop(dbus.service.Object):
    count = 0
    @dbus.service.method('org.freedesktop.Notifications', in_signature='susssasa{sv}i', out_signature='u')
    def Notify(self, app, replaces, icon, summary, body, actions, hints, timeout):
        with open(sys.argv[1], 'a') as file:
            file.write(f"{summary}|{body}|{int(hints.get('urgency', 1))}\n")
        self.count += 1
        return self.count
    @dbus.service.method('org.freedesktop.Notifications', out_signature='as')
    def GetCapabilities(self):
        return ['body']
    @dbus.service.method('org.freedesktop.Notifications', out_signature='ssss')
    def GetServerInformation(self):
        return ('test', 'test', '1', '1.2')
dbus.mainloop.glib.DBusGMainLoop(set_as_default=True)
bus = dbus.SessionBus()
name = dbus.service.BusName('org.freedesktop.Notifications', bus)
desktop = Desktop(bus, '/org/freedesktop/Notifications')
open(sys.argv[1], 'w').close()
GLib.MainLoop().run()
"#;

/// The session of user nobody, while this lives.
struct Session {
    processes: Vec<std::process::Child>,
}

impl Session {
    fn start(machine: &Machine, shown: &std::path::Path) -> Session {
        let script = machine.directory.join("desktop.py");
        fs::write(&script, DESKTOP).expect("the script");
        let home = shown.parent().expect("a directory");
        let address = format!("unix:path={}", home.join("bus").display());
        let as_nobody = |words: &[&str]| {
            let mut command = tool("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).args(words);
            command
                .env("DBUS_SESSION_BUS_ADDRESS", &address)
                .env("DISPLAY", ":7")
                .env("HOME", home);
            command
                .current_dir("/")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command.spawn().expect("a process of the session")
        };
        let bus =
            as_nobody(&["dbus-daemon", "--session", "--nofork", &format!("--address={address}")]);
        wait_until("the bus is there", || home.join("bus").exists());
        let paths = [script.to_str().expect("UTF-8"), shown.to_str().expect("UTF-8")];
        let desktop = as_nobody(&["python3", paths[0], paths[1]]);
        let session = Session { processes: vec![desktop, bus] };
        wait_until("the desktop is there", || shown.exists());
        session
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

#[test]
fn a_logged_in_user_is_told_of_the_start_and_of_the_end() {
    if !can_run() || !have(&["notify-send", "dbus-daemon", "setpriv", "python3"]) {
        return;
    }
    if !Run::of(tool("python3").args(["-c", "import dbus, gi"])).succeeded() {
        skipped!("needs python3-dbus and python3-gi");
        return;
    }
    let machine = Machine::new();
    let home = machine.directory.join("home");
    fs::create_dir(&home).expect("a home");
    std::os::unix::fs::chown(&home, Some(support::ORDINARY_USER), Some(support::ORDINARY_USER))
        .expect("chown");
    tree::set_mode(&home, 0o700);
    let shown = home.join("shown");
    let _session = Session::start(&machine, &shown);
    let lines = || -> Vec<String> {
        let text = fs::read_to_string(&shown).expect("what was shown");
        fs::write(&shown, "").expect("forgotten");
        text.lines().map(str::to_string).collect()
    };
    let source = machine.source.to_str().expect("UTF-8");
    let latest = machine.latest.to_str().expect("UTF-8");
    machine.backup(&[source, latest]).exits(&[0]);
    let told = lines();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0], "System backups|Starting backup|1");
    assert!(
        told[1].starts_with("System backups|Finished backup in ") && told[1].ends_with(" s.|1"),
        "{told:?}"
    );

    machine.backup(&["--disable-notifications", source, latest]).exits(&[0]);
    machine.backup(&["-n", source, latest]).exits(&[0]);
    machine.backup(&["-s", latest]).exits(&[0]);
    assert_eq!(lines(), Vec::<String>::new());

    machine.backup(&["--retries=0", source, "0.0.0.0::module"]).exits(&[1]);
    let told = lines();
    assert!(told[1].starts_with("System backups|Backup failed after "), "{told:?}");
    assert!(told[1].ends_with("! Review the system logs for details.|2"), "{told:?}");
}

#[test]
fn notifications_that_cannot_be_shown_fail_nothing() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let stage = Stage::new(&machine);
    stage.script("notify-send", "exit 1");
    let source = machine.source.to_str().expect("UTF-8");
    let latest = machine.latest.to_str().expect("UTF-8");
    // A process with a session whose bus no process serves.
    let mut process = tool("setpriv")
        .args(["--reuid=4242", "--regid=4242", "--clear-groups", "sleep", "60"])
        .env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere")
        .env("DISPLAY", ":9")
        .spawn()
        .expect("a process");
    let name = format!("/proc/{}/comm", process.id());
    wait_until("it sleeps", || fs::read_to_string(&name).is_ok_and(|name| name == "sleep\n"));
    // It is written as that user.
    fs::write(stage.directory.join("log"), "").expect("a log");
    tree::set_mode(&stage.directory.join("log"), 0o666);
    stage.backup(&[source, latest]).exits(&[0]);
    let _ = process.kill();
    let _ = process.wait();
    // Another test's session may be told, too.
    let told: Vec<String> =
        stage.log().into_iter().filter(|line| line.starts_with("notify-send")).collect();
    assert!(told.len() >= 2, "{told:?}");
    assert_eq!(told[0], "notify-send System backups Starting backup");
}
