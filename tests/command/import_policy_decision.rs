//! A policy that `import-policy` translated decides on the same snapshots as rotate-backups 8.1
//! does by its ini file, apart from the differences that are deliberate.

use crate::support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use support::original::{original, python};
use support::random::Random;
use support::run::Run;
use support::server::Server;

/// Sections for the roots `a` to `e`, which have a history each.
const POLICY: &str = "
[DEFAULT]
Daily : 7 # a week
[ROOT/a]
hourly = 24*2
weekly = 4
[ROOT/b*]
prefer-recent = yes
monthly = Always
[ROOT/b1]
hourly = 1
[ROOT/c]
strict = no
hourly = 30
yearly = 2 *1
weekly = 0
[ROOT/d]
minutely = 60*24*2
monthly = 2+4
daily = -1
[ROOT/e]
yearly = (1 + 1)
daily = 3
prefer-recent = no
weekly = 8";

/// Dense days of one year, and others in the middle of earlier ones: no week of it is in two years,
/// where the original mistakes one for another.
fn random_names(random: &mut Random) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for _ in 0..90 {
        let (year, month) = match random.below(4) {
            0 => (2016 + random.below(3), 4 + random.below(5)),
            1 => (2019, 2 + random.below(8)),
            _ => (2019, 10),
        };
        let day = if month == 10 { 20 + random.below(9) } else { 1 + random.below(28) };
        let (hour, minute, second) = (random.below(24), random.below(3), random.below(60));
        names.insert(format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"));
    }
    names
}

/// What the original would preserve and would delete.
fn their_decision(venv: &Path, ini: &Path, root: &Path) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut command = python(venv, "rotate-backups");
    let run = Run::of(command.args(["--dry-run", "--syslog=no", "--config"]).arg(ini).arg(root))
        .exits(&[0]);
    let prefix = format!(" {}/", root.display());
    let names = |word: &str, end: &str| {
        let said = run.stderr();
        let lines = said.lines().filter_map(|line| line.strip_prefix(word)?.strip_prefix(&prefix));
        lines.filter_map(|line| Some(line.split_once(end)?.0.to_string())).collect()
    };
    (names("Preserving", " (matches"), names("Deleting", " .."))
}

#[test]
fn the_translation_decides_as_the_original() {
    let Some(venv) = original() else { return };
    let server = Server::new();
    let root = |name: &str| server.directory.join("roots").join(name);
    let mut random = Random::new(2019);
    let mut conf = String::new();
    for name in ["a", "b1", "b2", "c", "d", "e"] {
        let root = root(name);
        conf += &format!("[{name}]\npath = {}/latest\n", root.display());
        random_names(&mut random)
            .iter()
            .for_each(|name| fs::create_dir_all(root.join(name)).expect("a snapshot"));
        fs::create_dir(root.join("latest")).expect("the module");
    }
    server.write_rsyncd_conf(&conf);
    let ini = server.directory.join("rotate-backups.ini");
    fs::write(&ini, POLICY.replace("ROOT", root("").display().to_string().trim_end_matches('/')))
        .expect("the ini");
    let policy = Run::of(server.command(&["import-policy"]).arg(&ini)).exits(&[0]).stdout();

    for module in ["a", "b1", "b2", "c", "d", "e"] {
        let (preserved, deleted) = their_decision(&venv, &ini, &root(module));
        assert!(preserved.len() > 1 && deleted.len() > 20, "{module}: {preserved:?} {deleted:?}");
        server.write_policy(&policy);
        let ours = kept(&server, module);
        assert!(
            ours.is_superset(&preserved),
            "{module}: {:?} would go",
            preserved.difference(&ours)
        );
        // Without the caps and floors that the original has not; in UTC, as it knows no other
        // clock.
        let bare =
            "[defaults]\nmin_keep = 0\nmin_age = \"0s\"\nmax_expire = 1000\ntime_zone = \"UTC\"\n";
        server.write_policy(&policy.replace("[defaults]\n", bare));
        let mut expected = preserved.clone();
        expected.extend(preserved.union(&deleted).max().cloned());
        assert_eq!(kept(&server, module), expected, "{module}");
    }
}

fn kept(server: &Server, module: &str) -> BTreeSet<String> {
    let plan = server.json(&["plan", module, "--json"]);
    let snapshots = plan["snapshots"].as_array().expect("snapshots").clone();
    let kept = snapshots.into_iter().filter(|snapshot| snapshot["keep"] == true);
    kept.map(|snapshot| snapshot["name"].as_str().expect("a name").to_string()).collect()
}
