//! Completion in bash, zsh and fish: commands, options, modules and snapshots.

use crate::support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use support::module::Module;
use support::run::Run;
use support::{BINARY, have, tree};

const SCRIPT: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/completion/rsyncd-snapshot.bash");

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/completion");

/// A server whose configuration each command line names.
struct Shell {
    module: Module,
}

impl Shell {
    /// What bash offers for the last of these words, as they are typed. The first words are the
    /// program and its configuration.
    fn offers(&self, typed: &[&str]) -> Vec<String> {
        let (policy, conf) = (self.module.policy.display(), self.module.rsyncd_conf.display());
        let configured =
            [BINARY.to_string(), "--config".into(), policy.to_string(), "--rsyncd-conf".into()];
        let mut words = configured.to_vec();
        words.push(conf.to_string());
        words.extend(typed.iter().map(ToString::to_string));
        // `compopt` only works while bash itself completes.
        let program = ". \"$0\"; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _rsyncd_snapshot; \
                       [ -z \"${COMPREPLY[*]}\" ] || printf '%s\\n' \"${COMPREPLY[@]}\"";
        let mut shell = support::run::tool("bash");
        shell.args(["--norc", "-c", program, SCRIPT]).args(&words);
        self.run(shell).stdout().lines().map(str::to_string).collect()
    }

    /// Runs a shell as the server's administrator would.
    fn run(&self, mut shell: Command) -> Run {
        for (key, value) in self.module.server.command(&[]).get_envs() {
            if let Some(value) = value {
                shell.env(key, value);
            }
        }
        let directory = &self.module.directory;
        let run = Run::of(shell.env("HOME", directory).current_dir(directory));
        assert_eq!(run.stderr(), "", "{run}");
        run.exits(&[0])
    }

    /// A command line as it is typed, with the configuration.
    fn line(&self, typed: &str) -> String {
        let (policy, conf) = (self.module.policy.display(), self.module.rsyncd_conf.display());
        format!("{BINARY} --config {policy} --rsyncd-conf={conf} {typed}")
    }

    /// What zsh offers for the last word, sorted, and what the line is then.
    fn zsh_offers(&self, typed: &str) -> (String, Vec<String>) {
        let mut shell = support::run::tool("zsh");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/command/offers.zsh");
        shell.args(["-f", script, DIRECTORY, &self.line(typed)]);
        let text = self.run(shell).stdout();
        let (line, offers) = text.split_once('\n').expect("a line");
        let typed = line.split_once("conf ").map_or(line, |(_, typed)| typed);
        (typed.to_string(), sorted(offers.lines().map(str::to_string)))
    }

    /// What fish offers for the last word, sorted.
    fn fish_offers(&self, typed: &str) -> Vec<String> {
        let mut shell = support::run::tool("fish");
        let program = format!("source {DIRECTORY}/rsyncd-snapshot.fish; complete -C $argv[1]");
        shell.args(["--no-config", "-c", &program, &self.line(typed)]);
        // A description follows a tab.
        let text = self.run(shell).stdout();
        sorted(text.lines().map(|line| line.split('\t').next().unwrap_or_default().to_string()))
    }
}

fn sorted(offers: impl Iterator<Item = String>) -> Vec<String> {
    offers.filter(|offer| !offer.is_empty()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// A shell with the modules `data` and `da $(reboot) y`, and the snapshots of `data`: one that is
/// retired, an old one and the newest.
fn shell_with_history() -> (Shell, [String; 3]) {
    let (module, newest) = Module::with_snapshot();
    let other = module.directory.join("second/latest");
    fs::create_dir_all(&other).expect("the other module");
    tree::set_mode(&module.directory.join("second"), 0o700);
    let section = |name: &str, path: &Path| module.rsyncd_conf_section(name, path);
    let sections = section("data", &module.latest) + &section("da $(reboot) y", &other);
    module.write_rsyncd_conf(&sections);
    module.run(&["snapshot", "da $(reboot) y"]).exits(&[0]);
    let retired = "2001-02-03T04-05-06Z";
    module.make_old_snapshot(retired);
    module.run(&["expire", "data", retired, "--below-min-keep"]).exits(&[0]);
    let old = "2001-02-04T04-05-06Z";
    module.make_old_snapshot(old);
    (Shell { module }, [retired.to_string(), old.to_string(), newest])
}

#[test]
fn bash_completes_commands_options_modules_and_snapshots() {
    if !have(&["bash", "sed", "grep"]) {
        return;
    }
    let (shell, [retired, old, newest]) = shell_with_history();
    let (retired, old) = (retired.as_str(), old.as_str());

    assert_eq!(shell.offers(&["ro"]), ["rotate"]);
    let commands = shell.offers(&[""]);
    for command in ["list", "status", "check", "restore", "import-policy", "help"] {
        assert!(commands.iter().any(|one| one == command), "{command}: {commands:?}");
    }
    assert!(!commands.iter().any(|one| one == "complete"), "{commands:?}");
    assert_eq!(shell.offers(&["rotate", "--dry"]), ["--dry-run"]);
    assert_eq!(shell.offers(&["rotate", "--torn"]), [""; 0]);
    assert!(shell.offers(&["--ver"]).contains(&"--verbose".to_string()));

    let odd = "da\\ \\$\\(reboot\\)\\ y";
    for command in ["list", "rotate", "status", "pin", "restore", "plan", "check", "hold"] {
        assert_eq!(shell.offers(&[command, "da"]), [odd, "data"], "{command}");
    }
    assert_eq!(shell.offers(&["-v", "status", "data", odd, "d"]), [odd, "data"]);
    assert_eq!(shell.offers(&["list", "\"da $(re"]), ["da $(reboot) y"]);
    assert_eq!(shell.offers(&["list", "no such"]), [""; 0]);

    for command in ["pin", "restore", "hold", "expire"] {
        assert_eq!(shell.offers(&[command, "data", "2"]), [old, &newest], "{command}");
    }
    assert_eq!(shell.offers(&["pin", "--json", "data", &newest, "2001"]), [old]);
    assert_eq!(shell.offers(&["undelete", "data", ""]), [retired]);
    assert_eq!(shell.offers(&["pin", odd, ""]).len(), 1);
    assert_eq!(shell.offers(&["pin", "--reason", "da", "da"]), [odd, "data"]);
    assert_eq!(shell.offers(&["pin", "--reason", "da"]), [""; 0], "a value is no module");
    assert_eq!(shell.offers(&["list", "data", ""]), [""; 0]);
    assert_eq!(shell.offers(&["nonsense", ""]), [""; 0]);
}

/// What is typed, and all that is offered then.
fn expected_offers([retired, old, newest]: &[String; 3]) -> Vec<(String, Vec<&str>)> {
    let odd = "da\\ \\$\\(reboot\\)\\ y";
    let modules = vec!["da $(reboot) y", "data"];
    let mut expected: Vec<(String, Vec<&str>)> = vec![
        ("ro".into(), vec!["rotate"]),
        ("rotate --dry".into(), vec!["--dry-run"]),
        ("rotate --torn".into(), vec![]),
        ("--ver".into(), vec!["--verbose", "--version"]),
        (format!("-v status data {odd} d"), modules.clone()),
        ("list da\\ ".into(), vec!["da $(reboot) y"]),
        ("list 'da $(re".into(), vec!["da $(reboot) y"]),
        (format!("pin --json data {newest} 2001"), vec![old]),
        ("undelete data 2".into(), vec![retired]),
        ("diff data newest 2".into(), vec![old, newest]),
        ("pin --reason da da".into(), modules.clone()),
        ("pin --reason da".into(), vec![]),
        ("list data d".into(), vec![]),
        ("nonsense d".into(), vec![]),
    ];
    for command in ["list", "rotate", "status", "pin", "restore", "plan", "check", "hold", "diff"] {
        expected.push((format!("{command} da"), modules.clone()));
    }
    for command in ["pin", "restore", "hold", "expire", "diff"] {
        expected.push((format!("{command} data 2"), vec![old, newest]));
    }
    expected
}

#[test]
fn zsh_completes_as_bash_does() {
    slow!();
    if !have(&["zsh", "sed", "grep"]) {
        return;
    }
    let (shell, names) = shell_with_history();
    for (typed, expected) in expected_offers(&names) {
        assert_eq!(shell.zsh_offers(&typed).1, expected, "{typed}");
    }
    let commands = shell.zsh_offers("").1;
    for command in ["list", "status", "check", "restore", "import-policy", "help"] {
        assert!(commands.iter().any(|one| one == command), "{command}: {commands:?}");
    }
    assert!(!commands.iter().any(|one| one == "complete"), "{commands:?}");
    // What is inserted is quoted, so that nothing in it is run.
    assert_eq!(shell.zsh_offers("list da\\ ").0, "list da\\ \\$\\(reboot\\)\\ y ");
    fs::create_dir(shell.module.directory.join("target")).expect("a directory");
    for typed in ["restore data newest --to tar", "restore data newest --to=tar"] {
        let line = shell.zsh_offers(typed).0;
        assert!(line.ends_with("target/"), "{line}");
    }
}

#[test]
fn fish_completes_as_bash_does() {
    if !have(&["fish"]) {
        return;
    }
    let (shell, names) = shell_with_history();
    for (typed, expected) in expected_offers(&names) {
        assert_eq!(shell.fish_offers(&typed), expected, "{typed}");
    }
    let commands = shell.fish_offers("");
    for command in ["list", "status", "check", "restore", "import-policy", "help"] {
        assert!(commands.iter().any(|one| one == command), "{command}: {commands:?}");
    }
    assert!(!commands.iter().any(|one| one == "complete"), "{commands:?}");
    fs::create_dir(shell.module.directory.join("target")).expect("a directory");
    assert_eq!(shell.fish_offers("restore data newest --to tar"), ["target/"]);
}

/// Names that would change a terminal, or be taken for several, are not offered.
#[test]
fn names_with_control_characters_are_not_offered() {
    let module = Module::new();
    let sections = ["da\u{1b}[31mta", "good"]
        .map(|name| module.rsyncd_conf_section(name, &module.latest))
        .concat();
    module.write_rsyncd_conf(&sections);
    assert_eq!(module.run(&["complete"]).exits(&[0]).stdout(), "good\n");
    module.run(&["complete", "no-such-module"]).exits(&[2]);
}
