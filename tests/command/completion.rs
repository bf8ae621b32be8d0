//! Completion in bash: commands, options, modules and snapshots.

use crate::support;

use std::fs;
use std::path::Path;

use support::module::Module;
use support::run::Run;
use support::{BINARY, have, tree};

const SCRIPT: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/completion/rsyncd-snapshot.bash");

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
        let environment = self.module.server.command(&[]);
        let mut shell = support::run::tool("bash");
        shell.args(["--norc", "-c", program, SCRIPT]).args(&words);
        for (key, value) in environment.get_envs() {
            if let Some(value) = value {
                shell.env(key, value);
            }
        }
        let run = Run::of(shell.current_dir("/"));
        assert_eq!(run.stderr(), "", "{run}");
        run.exits(&[0]).stdout().lines().map(str::to_string).collect()
    }
}

#[test]
fn bash_completes_commands_options_modules_and_snapshots() {
    if !have(&["bash", "sed", "grep"]) {
        return;
    }
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
    let shell = Shell { module };

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
