//! `check` as other programs read it: Nagios plugins and NRPE, Prometheus and node_exporter,
//! systemd units that mail.

use crate::support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use chrono::TimeDelta;
use support::daemon::free_port;
use support::module::Module;
use support::monitoring::{Service, http_get, monitoring_tool};
use support::run::{Run, copy_program, tool};
use support::time::{name_of_age, wait_until};
use support::{AS_ORDINARY_USER, BINARY, ORDINARY_USER, have, is_root, tree};

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/prometheus/rsyncd-snapshot.yml");
const RULE_TESTS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/prometheus/rsyncd-snapshot.test.yml");

/// A server with the module `data` and another one, each with a snapshot.
fn two_modules(other: &str) -> Module {
    let (module, _) = Module::with_snapshot();
    let path = module.directory.join("other/latest");
    fs::create_dir_all(&path).expect("the other module");
    tree::write(&path.join("file"), "x");
    tree::set_mode(&module.directory.join("other"), 0o700);
    let sections = [
        module.rsyncd_conf_section("data", &module.latest),
        module.rsyncd_conf_section(other, &path),
    ];
    module.write_rsyncd_conf(&sections.concat());
    module.run(&["snapshot", path.to_str().expect("UTF-8")]).exits(&[0]);
    module
}

/// One value of performance data.
#[derive(Debug, PartialEq)]
struct Datum {
    label: String,
    value: f64,
    unit: String,
    /// Warning, critical, least and most.
    limits: [Option<f64>; 4],
}

/// Reads the output of a plugin as the guidelines describe it; returns the text and the data.
fn as_plugin_output(output: &str) -> (Vec<String>, Vec<Datum>) {
    let (mut text, mut data) = (Vec::new(), Vec::new());
    for line in output.lines() {
        let (told, measured) = line.split_once('|').unwrap_or((line, ""));
        text.push(told.trim_end().to_string());
        let mut rest = measured.trim();
        while !rest.is_empty() {
            let label = rest.strip_prefix('\'').expect("a quoted label");
            let (label, after) = label.split_once("'=").expect("the end of the label");
            assert!(!label.contains(['=', '\'', '|']), "{label}");
            let (word, next) = after.split_once(' ').unwrap_or((after, ""));
            let mut fields = word.split(';');
            let value = fields.next().expect("a value");
            let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '%');
            let unit = &value[digits.len()..];
            assert!(["", "s", "B", "%", "c"].contains(&unit), "{word}");
            let mut limits = [None; 4];
            for (limit, field) in limits.iter_mut().zip(fields.by_ref()) {
                *limit = (!field.is_empty()).then(|| field.parse().expect("a number"));
            }
            assert_eq!(fields.next(), None, "{word}");
            let value = digits.parse().expect("a number");
            data.push(Datum { label: label.to_string(), value, unit: unit.to_string(), limits });
            rest = next.trim_start();
        }
    }
    (text, data)
}

fn datum<'a>(data: &'a [Datum], label: &str) -> &'a Datum {
    let found = data.iter().find(|datum| datum.label == label);
    found.unwrap_or_else(|| panic!("no {label:?} in {data:?}"))
}

#[test]
fn the_first_line_tells_the_worst_and_the_data_follow_the_last() {
    let module = two_modules("we|b='x'");
    let name = module.snapshots().remove(0);
    module.rename_to_the_past(&name, &name_of_age(TimeDelta::minutes(90)));
    module.write_policy("[module.data]\nmax_age = \"1h\"\n");
    let run = module.run(&["check"]).exits(&[1]);
    let (text, data) = as_plugin_output(&run.stdout());
    assert!(text[0].starts_with("WARNING - data: "), "{run}");
    assert!(text[0].ends_with("; 1 module OK"), "{run}");
    assert!(text.iter().any(|line| line.starts_with("OK - we\\x7cb='x': ")), "{run}");
    let age = datum(&data, "data age");
    assert!((5_400.0..6_000.0).contains(&age.value) && age.unit == "s", "{age:?}");
    assert_eq!(age.limits, [Some(3_600.0), Some(7_200.0), Some(0.0), None]);
    assert_eq!(datum(&data, "data snapshots").value, 1.0);
    let free = datum(&data, "data free");
    assert!(free.unit == "B" && free.limits[3].is_some_and(|most| most >= free.value), "{free:?}");
    assert_eq!(datum(&data, r"we\x7cb\x3d\x27x\x27 entries").value, 1.0);

    // What follows is for people, and for a mail: no data.
    let quiet = module.run(&["-q", "check"]).exits(&[1]).stdout();
    assert!(quiet.starts_with("WARNING - data: ") && !quiet.contains("'data age'"), "{quiet}");
    module.write_policy(support::server::QUIET_POLICY);
    assert_eq!(module.run(&["-q", "check"]).exits(&[0]).stdout(), "");
    let run = module.run(&["check"]).exits(&[0]);
    assert!(run.stdout().lines().next().expect("a line").contains("; 1 more module OK"), "{run}");
}

#[test]
fn a_terminal_gets_no_performance_data() {
    if !have(&["script"]) {
        return;
    }
    let (module, _) = Module::with_snapshot();
    assert!(module.run(&["check"]).exits(&[0]).stdout().contains("'data age'="));
    let seen = support::terminal::on_terminal(&module, "", "check").exits(&[0]).stdout();
    assert!(seen.contains("OK - data") && !seen.contains("'data age'="), "{seen}");
}

#[test]
fn the_numbers_of_a_module_stand_beside_its_findings() {
    let (module, name) = Module::with_snapshot();
    module.write_policy("[defaults]\nmax_age = \"2h\"\n");
    let numbers = |module: &Module| {
        module.run(&["check", "data", "--json"]).json()["modules"][0]["numbers"].clone()
    };
    let found = numbers(&module);
    assert_eq!((&found["complete_snapshots"], &found["partial_snapshots"]), (&1.into(), &0.into()));
    assert_eq!(found["max_age_seconds"], 7_200);
    assert!(found["age_seconds"].as_u64().is_some_and(|age| age < 600), "{found}");
    assert!(found["last_good_push_age_seconds"].as_u64().is_some_and(|age| age < 600), "{found}");
    assert_eq!(found["entries"], module.list()[0]["entries"]);
    assert!(found["free_bytes"].as_u64() <= found["total_bytes"].as_u64(), "{found}");
    for (what, is_so) in [("torn", false), ("due", false), ("paused", false), ("damaged", false)] {
        assert_eq!(found[what], is_so, "{found}");
    }
    module.run_hook_after(12);
    assert_eq!(numbers(&module)["torn"], true);
    assert!(name.starts_with(&found["newest_complete_time"].as_str().expect("a time")[..13]));
    // Nothing is known of a root that is not there.
    fs::rename(&module.root, module.directory.join("away")).expect("moved");
    assert!(numbers(&module).is_null());
}

/// The lines of a file of metrics that are samples, as name with labels, and value.
fn samples(text: &str) -> Vec<(&str, f64)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a sample");
            (name, value.parse().expect("a number"))
        })
        .collect()
}

fn value(text: &str, name: &str) -> f64 {
    let found = samples(text).into_iter().find(|(one, _)| *one == name);
    found.unwrap_or_else(|| panic!("no {name} in {text}")).1
}

#[test]
fn metrics_replace_a_file_that_each_user_may_read() {
    let module = two_modules("web \"1\" \\");
    module.write_policy("[defaults]\nmax_age = \"2h\"\n");
    let directory = module.directory.join("textfile");
    fs::create_dir(&directory).expect("a directory");
    let file = directory.join("backup.prom");
    let run = |expected| {
        let path = file.to_str().expect("UTF-8");
        let run = module.run(&["check", "--prometheus", "--output", path]).exits(&[0]);
        assert_eq!(run.bytes(), b"", "{run}");
        let found = fs::metadata(&file).expect("the file");
        assert_eq!(found.mode() & 0o7777, 0o644);
        assert_eq!(fs::read_dir(&directory).expect("listed").count(), 1, "no draft is left");
        let text = fs::read_to_string(&file).expect("readable");
        assert_eq!(value(&text, "rsyncd_snapshot_status{module=\"data\"}"), expected, "{text}");
        (text, found.ino())
    };
    let (text, before) = run(0.0);
    let now = support::time::now().timestamp() as f64;
    let of_data = |name: &str| value(&text, &format!("rsyncd_snapshot_{name}{{module=\"data\"}}"));
    for name in [
        "last_good_push_timestamp_seconds",
        "newest_complete_timestamp_seconds",
        "verified_until_timestamp_seconds",
    ] {
        assert!((now - 600.0..=now).contains(&of_data(name)), "{name}: {text}");
    }
    assert_eq!(of_data("max_age_seconds"), 7_200.0);
    assert_eq!(of_data("torn"), 0.0);
    assert_eq!(value(&text, "rsyncd_snapshot_snapshots{module=\"data\",grade=\"complete\"}"), 1.0);
    assert_eq!(value(&text, r#"rsyncd_snapshot_entries{module="web \"1\" \\\\"}"#), 1.0);
    assert!(text.ends_with("# EOF\n"), "{text}");

    // An alarm is in the metrics, and is no failure of this command.
    module.run_hook_after(12);
    let (text, after) = run(1.0);
    assert_ne!(before, after, "a reader of the old file still has all of it");
    assert_eq!(value(&text, "rsyncd_snapshot_torn{module=\"data\"}"), 1.0);
    let marks = "rsyncd_snapshot_findings{module=\"data\",id=\"marks\",level=\"warning\"}";
    assert_eq!(value(&text, marks), 1.0);
    let printed = module.run(&["check", "data", "--prometheus"]).exits(&[0]).stdout();
    assert_eq!(value(&printed, marks), 1.0);
}

#[test]
fn metrics_that_cannot_be_written_leave_the_file_as_it_was() {
    let (module, _) = Module::with_snapshot();
    let write = |path: &Path| {
        module.run(&["check", "--prometheus", "--output", path.to_str().expect("UTF-8")])
    };
    write(&module.directory.join("not there/x.prom")).exits(&[3]).says("not there");
    write(Path::new("/dev/null")).exits(&[3]).says("it is no file");
    assert!(!fs::metadata("/dev/null").expect("a device").is_file());
    let file = module.directory.join("x.prom");
    fs::write(&file, "old").expect("a file");
    let conf = fs::read_to_string(&module.rsyncd_conf).expect("a configuration");
    module.write_rsyncd_conf("[data\n");
    write(&file).exits(&[0]);
    let text = fs::read_to_string(&file).expect("readable");
    assert_eq!(
        value(&text, "rsyncd_snapshot_status{module=\"rsyncd.conf\",is_module=\"false\"}"),
        2.0
    );
    module.write_rsyncd_conf(&conf);
}

/// Nagios takes 1 and 2 for states of what is monitored.
#[test]
fn a_wrong_command_line_of_check_is_unknown() {
    let (module, _) = Module::with_snapshot();
    for words in [
        &["check", "--output", "/tmp/x"][..],
        &["check", "--prometheus", "--json"],
        &["check", "--prometheus", "--wide"],
        &["check", "--json", "--wide"],
        &["check", "--prometheus", "--output", ""],
        &["check", "--prometheus", "--output"],
        &["check", "data", "--all"],
        &["check", "-v", "-q"],
        &["--output", "/tmp/x", "--prometheus", "check"],
        &["--prometheus", "check"],
        &["check", "--due"],
    ] {
        module.run(words).exits(&[3]);
    }
    module.run(&["list", "check", "--due"]).exits(&[2]);
    let mut full = module.command(&["check"]);
    let out = fs::OpenOptions::new().write(true).open("/dev/full").expect("a device");
    assert_eq!(full.stdout(out).status().expect("it runs").code(), Some(3));
}

#[test]
fn a_dash_is_standard_output() {
    let (module, _) = Module::with_snapshot();
    let directory = module.directory.join("here");
    fs::create_dir(&directory).expect("a directory");
    let mut command = module.command(&["check", "--prometheus", "--output", "-"]);
    let text = Run::of(command.current_dir(&directory)).exits(&[0]).stdout();
    assert_eq!(value(&text, "rsyncd_snapshot_status{module=\"data\"}"), 0.0);
    assert_eq!(fs::read_dir(&directory).expect("listed").count(), 0);
}

/// rsync allows both as names of modules.
#[test]
fn modules_called_like_files_are_told_apart_from_them() {
    for name in ["policy", "rsyncd.conf"] {
        let module = two_modules(name);
        module.write_policy("[defaults]\nkeeep = 1\n");
        let (before, _) = as_plugin_output(&module.run(&["check"]).exits(&[2]).stdout());
        // The same mistake in both modules is one problem.
        assert!(before[0].starts_with("CRITICAL - policy: "), "{before:?}");
        assert!(!before[0].contains("below"), "{before:?}");
        let json = module.run(&["check", "--json"]).exits(&[2]).json();
        let of_name = |list: &serde_json::Value, is_module: bool| {
            let all = list.as_array().expect("a list").clone();
            let mut all = all.into_iter();
            all.find(|one| one["module"] == name && one["is_module"] == is_module)
        };
        let found = of_name(&json["modules"], true).expect("the module");
        assert_eq!(found["numbers"]["complete_snapshots"], 1, "{json}");
        assert!(of_name(&json["modules"], false).is_some(), "{json}");
        let status = module.run(&["status", "--json"]).exits(&[0]).json();
        assert!(of_name(&status, true).is_some(), "{status}");
        assert_eq!(of_name(&status, false).is_some(), name == "policy", "{status}");
        let text = module.run(&["check", "--prometheus"]).exits(&[0]).stdout();
        let of_module = format!("rsyncd_snapshot_status{{module=\"{name}\"}}");
        let of_policy = r#"rsyncd_snapshot_status{module="policy",is_module="false"}"#;
        assert_eq!((value(&text, &of_module), value(&text, of_policy)), (2.0, 2.0), "{text}");
    }
}

#[test]
fn modules_without_snapshots_of_their_own_have_no_numbers() {
    let module = two_modules("web");
    let conf = fs::read_to_string(&module.rsyncd_conf).expect("a configuration");
    let restore = format!("[restore]\npath = {}\nread only = yes\n", module.root.display());
    let hooks = format!("pre-xfer exec = {BINARY} pre-xfer\npost-xfer exec = {BINARY}\n");
    module.write_rsyncd_conf(&format!("{conf}{restore}{hooks}"));
    let run = module.run(&["check"]);
    let text = run.stdout();
    assert!(text.contains(" - restore: ") && text.contains("'data snapshots'"), "{run}");
    assert!(!text.contains("'restore "), "{run}");
    let metrics = module.run(&["check", "--prometheus"]).exits(&[0]).stdout();
    assert!(metrics.contains("rsyncd_snapshot_status{module=\"restore\"}"), "{metrics}");
    assert!(!metrics.contains("rsyncd_snapshot_snapshots{module=\"restore\""), "{metrics}");
}

/// Landlock lets `check --output` change the directory of that file, and nothing else.
#[test]
fn metrics_are_written_under_confinement() {
    let (module, _) = Module::with_snapshot();
    let file = module.directory.join("x.prom");
    let words = ["-v", "check", "--prometheus", "--output", file.to_str().expect("UTF-8")];
    let run = module.run(&words).exits(&[0]);
    if !run.stderr().contains("changes nothing but its roots and its memory") {
        support::skip_in_this_kernel("Landlock");
        return;
    }
    assert!(file.is_file(), "{run}");
}

#[test]
fn promtool_accepts_the_metrics() {
    let Some(mut promtool) = monitoring_tool("usr/bin/promtool") else { return };
    let module = two_modules("web \"1\" \\");
    module.run_hook_after(12);
    let file = module.directory.join("x.prom");
    module.run(&["check", "--prometheus", "--output", file.to_str().expect("UTF-8")]).exits(&[0]);
    promtool.args(["check", "metrics"]).stdin(fs::File::open(&file).expect("metrics"));
    let run = Run::of(&mut promtool).exits(&[0]);
    assert_eq!(run.bytes(), b"", "{run}");
}

#[test]
fn the_alert_rules_pass_their_tests() {
    for words in [["check", "rules", RULES], ["test", "rules", RULE_TESTS]] {
        let Some(mut promtool) = monitoring_tool("usr/bin/promtool") else { return };
        Run::of(promtool.args(words)).exits(&[0]);
    }
}

/// A rule about a metric that is not written never fires.
#[test]
fn the_alert_rules_name_metrics_that_are_written() {
    let (module, _) = Module::with_snapshot();
    module.write_policy("[defaults]\nmax_age = \"2h\"\n");
    module.run_hook_after(12);
    let text = module.run(&["check", "--prometheus"]).exits(&[0]).stdout();
    let rules = fs::read_to_string(RULES).expect("the rules");
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut named: Vec<&str> = rules.split(|c| !is_of_name(c)).collect();
    named.retain(|word| word.starts_with("rsyncd_snapshot_"));
    assert!(named.len() > 5, "{named:?}");
    for name in named {
        assert!(text.contains(&format!("# TYPE {name} gauge\n")), "{name} is not in {text}");
    }
}

#[test]
fn node_exporter_shows_the_metrics() {
    let exporter = "usr/bin/prometheus-node-exporter";
    let Some(program) = monitoring_tool(exporter) else { return };
    let module = two_modules("web \"1\" \\");
    let directory = module.directory.join("textfile");
    fs::create_dir(&directory).expect("a directory");
    let file = directory.join("backup.prom");
    module.run(&["check", "--prometheus", "--output", file.to_str().expect("UTF-8")]).exits(&[0]);
    let port = free_port("127.0.0.1");
    // It runs as an ordinary user, from whom this program's files are hidden unless they are shown.
    let mut command = as_ordinary_user(&program);
    command
        .arg("--collector.disable-defaults")
        .arg("--collector.textfile")
        .arg(format!("--collector.textfile.directory={}", directory.display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _service = Service(command.spawn().expect("node_exporter starts"));
    wait_until("node_exporter answers", || http_get(port, "/metrics").is_some());
    let answer = http_get(port, "/metrics").expect("an answer");
    for line in [
        "node_textfile_scrape_error 0",
        // node_exporter writes a label that other samples have; an empty one is none.
        "rsyncd_snapshot_status{is_module=\"\",module=\"data\"} 0",
        r#"rsyncd_snapshot_entries{module="web \"1\" \\\\"} 1"#,
    ] {
        assert!(answer.lines().any(|one| one == line), "{line}\n{answer}");
    }
}

/// The program and its environment, run by an ordinary user.
fn as_ordinary_user(program: &Command) -> Command {
    let mut words: Vec<_> = Vec::new();
    if is_root() && have(&["setpriv"]) {
        words.extend(AS_ORDINARY_USER.iter().map(|word| word.into()));
    }
    words.push(program.get_program().to_os_string());
    let mut command = tool(words[0].to_str().expect("plain"));
    command.args(&words[1..]);
    for (name, value) in program.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command
}

/// Writes a script that runs `program` with the configuration and the memory of the server.
fn write_program(module: &Module, program: &Path, script: &Path) {
    let text = format!(
        "#!/bin/sh\nRSYNCD_SNAPSHOT_STATE_DIRECTORY='{}' RSYNCD_SNAPSHOT_RUNTIME_DIRECTORY='{}' \
         exec '{}' --config '{}' --rsyncd-conf '{}' \"$@\"\n",
        module.state_directory().display(),
        module.runtime_directory().display(),
        program.display(),
        module.policy.display(),
        module.rsyncd_conf.display()
    );
    fs::write(script, text).expect("a script");
    tree::set_mode(script, 0o755);
}

/// NRPE runs as an ordinary user, and so does the server here: no file of this machine has to let
/// it do more.
#[test]
fn nrpe_passes_text_data_and_status_on() {
    let Some(nrpe) = monitoring_tool("usr/sbin/nrpe") else { return };
    let Some(mut check_nrpe) = monitoring_tool("usr/lib/nagios/plugins/check_nrpe") else {
        return;
    };
    if is_root() && !have(&["setpriv"]) {
        return;
    }
    let module = Module::new();
    tree::small(&module.latest);
    let program = module.directory.join("program");
    copy_program(Path::new(BINARY), &program);
    let section = module.rsyncd_conf_section("data", &module.latest);
    let section = section.replace("uid = root\ngid = root\n", "");
    module.write_rsyncd_conf(&section.replace(BINARY, program.to_str().expect("UTF-8")));
    if is_root() {
        let owner = format!("{ORDINARY_USER}:{ORDINARY_USER}");
        let paths = [&module.root, &module.state_directory(), &module.runtime_directory()];
        Run::of(tool("chown").args(["-R", &owner]).args(paths)).exits(&[0]);
    }
    let script = module.directory.join("command");
    write_program(&module, &program, &script);
    let mut by_hand = as_ordinary_user(&tool(script.to_str().expect("UTF-8")));
    Run::of(by_hand.args(["snapshot", "data"])).exits(&[0]);

    let port = free_port("127.0.0.1");
    let configuration = module.directory.join("nrpe.cfg");
    let text = format!(
        "server_address=127.0.0.1\nserver_port={port}\nallowed_hosts=127.0.0.1\n\
         pid_file={}\ncommand_timeout=60\ncommand[check_backup]={} check\n",
        module.runtime_directory().join("nrpe.pid").display(),
        script.display()
    );
    fs::write(&configuration, text).expect("its configuration");
    let mut command = as_ordinary_user(&nrpe);
    command.arg("-n").arg("-f").arg("-c").arg(&configuration);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let _service = Service(command.spawn().expect("nrpe starts"));
    wait_until("nrpe answers", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    check_nrpe.args(["-n", "-H", "127.0.0.1", "-t", "60", "-p", &port.to_string()]);
    check_nrpe.args(["-c", "check_backup"]);
    let run = Run::of(&mut check_nrpe).exits(&[0]);
    let (text, data) = as_plugin_output(&run.stdout());
    assert!(text[0].starts_with("OK - data: 1 snapshot; "), "{run}");
    assert_eq!(datum(&data, "data snapshots").value, 1.0);
    module.write_policy("[defaults]\nmax_age = \"1s\"\n");
    std::thread::sleep(std::time::Duration::from_millis(3_100));
    let run = Run::of(&mut check_nrpe).exits(&[2]);
    let (text, data) = as_plugin_output(&run.stdout());
    assert!(text[0].starts_with("CRITICAL - data: "), "{run}");
    assert_eq!(datum(&data, "data age").limits[1], Some(2.0));
}

/// The command lines of a unit's key, without those that are commented out.
fn commands(unit: &str, key: &str) -> Vec<String> {
    let lines = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    lines.map(str::to_string).collect()
}

/// Runs a command line of a unit as systemd does, with a mailer and an HTTP client that write what
/// they get into a file.
fn run_line(module: &Module, line: &str) -> (Run, String) {
    let tools = module.directory.join("tools");
    let got = module.directory.join("got");
    fs::create_dir_all(&tools).expect("a directory");
    for name in ["mail", "curl"] {
        let text = format!("#!/bin/sh\n{{ echo {name} \"$@\"; cat; }} >'{}'\n", got.display());
        fs::write(tools.join(name), text).expect("a tool");
        tree::set_mode(&tools.join(name), 0o755);
    }
    let program = module.directory.join("rsyncd-snapshot");
    write_program(module, Path::new(BINARY), &program);
    let line = line
        .trim_start_matches(['-', '#'])
        .replace("/usr/bin/rsyncd-snapshot", program.to_str().expect("UTF-8"))
        .replace("/usr/bin/curl", "curl")
        .replace("%H", "server.example");
    let run = Run::of(
        tool("sh")
            .args(["-c", &line])
            .env("PATH", format!("{}:{}", tools.display(), support::run::PATH)),
    );
    let got_text = fs::read_to_string(&got).unwrap_or_default();
    let _ = fs::remove_file(&got);
    (run, got_text)
}

#[test]
fn the_alert_unit_mails_what_is_wrong() {
    const ALERT: &str = include_str!("../../examples/rsyncd-snapshot-alert.service");
    let module = two_modules("web");
    module.run_hook_after(12);
    let lines = commands(ALERT, "ExecStart");
    assert_eq!(lines.len(), 1, "{ALERT}");
    let (run, mail) = run_line(&module, &lines[0]);
    let mail_head = mail.lines().next().unwrap_or_default().to_string();
    assert!(run.succeeded() && mail_head.starts_with("mail -s "), "{run}\n{mail}");
    assert!(mail_head.contains("server.example"), "{mail}");
    assert!(mail.contains("WARNING - data: torn since") && !mail.contains("OK - web"), "{mail}");
    // The other way, which is commented out.
    let lines = commands(ALERT, "#ExecStart");
    assert_eq!(lines.len(), 1, "{ALERT}");
    let (run, sent) = run_line(&module, &lines[0]);
    assert!(run.succeeded() && sent.starts_with("curl "), "{run}\n{sent}");
    let (_, body) = sent.split_once('\n').expect("a body");
    let json: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(json["status"], "warning", "{sent}");
}

#[test]
fn the_check_unit_pings_only_when_all_is_well() {
    const CHECK: &str = include_str!("../../examples/rsyncd-snapshot-check.service");
    let (module, _) = Module::with_snapshot();
    let lines = commands(CHECK, "ExecStart");
    assert_eq!(lines.len(), 1, "{CHECK}");
    // systemd runs ExecStartPost only after an ExecStart that ended with 0.
    let pings = commands(CHECK, "#ExecStartPost");
    assert_eq!(pings.len(), 1, "{CHECK}");
    let (run, _) = run_line(&module, &lines[0]);
    assert!(run.succeeded() && run.stdout().is_empty(), "{run}");
    let (run, sent) = run_line(&module, &format!("{} </dev/null", pings[0]));
    assert!(run.succeeded() && sent.contains("https://"), "{run}\n{sent}");
    module.run_hook_after(12);
    let (run, _) = run_line(&module, &lines[0]);
    assert!(run.code() == Some(1) && run.stdout().contains("torn since"), "{run}");
    for unit in [CHECK, include_str!("../../examples/rsyncd-snapshot.service")] {
        assert_eq!(commands(unit, "OnFailure"), ["rsyncd-snapshot-alert.service"]);
    }
}
