//! `import-policy`: which modules of `rsyncd.conf` the sections of a `rotate-backups.ini` are
//! about.

use crate::support;

use std::fs;
use std::os::unix::fs::symlink;

use support::import::{comments, import, import_bytes, modules, value};
use support::module::Module;
use support::run::Run;
use support::server::Server;
use toml::Table;

#[test]
fn a_section_finds_its_modules_by_their_directories() {
    let server = Server::new();
    let directory = server.directory.display().to_string();
    for path in [
        "disk/laptop/latest",
        "disk/pc/data",
        "disk/two/a",
        "disk/two/b",
        "whole",
        "disk/dup/latest",
    ] {
        fs::create_dir_all(server.directory.join(path)).expect("a directory");
    }
    symlink(server.directory.join("disk"), server.directory.join("backup")).expect("a link");
    server.write_rsyncd_conf(&format!(
        "[laptop]\npath = {directory}/disk/laptop/latest\npost-xfer exec = x\n\
         [laptop-ro]\npath = {directory}/disk/laptop/latest\n\
         [the pc]\npath = {directory}/disk/pc/data/\n\
         [a]\npath = {directory}/disk/two/a\n[b]\npath = {directory}/disk/two/b\n\
         [whole]\npath = {directory}/whole\n\
         [dup]\npath = {directory}/disk/two/old\n\
         [dup2]\npath = {directory}/disk/dup/latest\nname = dup\n\
         [\"]\npath = {directory}/disk/laptop/..x/q\n\
         [gone]\npath = {directory}/disk/gone/latest\n[far]\npath = /far\n"
    ));
    let ini = format!(
        "[{directory}/backup/laptop]\ndaily = 1\n[{directory}/disk/pc/]\ndaily = 2\n\
         [{directory}/disk/t*]\ndaily = 3\n[{directory}/whole]\ndaily = 4\n\
         [{directory}/disk/gone]\ndaily = 5\n[{directory}/*/dup]\ndaily = 6\n[{directory}/disk/*/..x]\ndaily = 7\n"
    );
    let run = import_bytes(&server, ini.as_bytes()).exits(&[4]);
    let expected = [
        ("laptop", 1),
        ("the pc", 2),
        ("a", 3),
        ("b", 3),
        ("whole", 4),
        ("gone", 5),
        ("dup", 6),
        ("\"", 7),
    ];
    for (name, count) in expected {
        assert_eq!(value(&run, name, "keep"), format!("{{ daily = {count} }}"), "{name}: {run}");
    }
    assert_eq!(modules(&run).len(), expected.len(), "{run}");
    let told = comments(&run);
    assert!(told.contains(&format!("Change its `path` to {directory}/whole/latest")), "{run}");
    assert!(
        told.contains(&format!("TODO: b has its snapshots in {directory}/disk/two as well")),
        "{run}"
    );
    assert!(
        told.contains(
            "defaults hold for them, which are those of rsync-system-backup: laptop-ro, far"
        ),
        "{run}"
    );
    assert!(run.stderr().contains("3 tables marked TODO"), "{run}");
    server.write_policy(&run.stdout());
    let check = server.run(&["check"]).stdout();
    assert!(!check.contains("- policy: "), "every table has its module: {check}");
}

#[test]
fn a_module_with_a_snapshot_root_of_its_own_keeps_it() {
    let module = Module::new();
    let elsewhere = module.directory.join("else\"where");
    fs::create_dir(&elsewhere).expect("a directory");
    let root = format!("'{}'", elsewhere.display());
    module.write_policy(&format!("[defaults]\nsnapshot_root = {root}\n"));
    let ini = format!("[{}]\ndaily = 7\n", elsewhere.display());
    let run = import(&module, &ini).exits(&[0]);
    assert_eq!(value(&run, "data", "snapshot_root"), root);
    module.write_policy(&run.stdout());
    assert_eq!(
        module.json(&["plan", "data", "--json"])["snapshot_root"].as_str(),
        elsewhere.to_str()
    );
    let run = import(&module, "[ROOT]\ndaily = 7\n").exits(&[4]);
    assert_eq!(modules(&run), ["root"], "that is not where its snapshots are: {run}");
}

#[test]
fn a_section_without_a_module_gets_a_free_name() {
    let module = Module::new();
    let ini =
        "[/srv/data]\ndaily = 1\n[/srv/x/*]\ndaily = 2\n[srv/data]\ndaily = 3\n[/]\ndaily = 4\n";
    let run = import(&module, ini).exits(&[4]).says("4 tables marked TODO");
    for (name, count) in [("data-2", 1), ("x", 2), ("data-3", 3), ("module", 4)] {
        assert_eq!(value(&run, name, "keep"), format!("{{ daily = {count} }}"), "{name}: {run}");
    }
    assert_eq!(modules(&run).len(), 4, "none for the module, which has no section: {run}");
    let told = comments(&run);
    assert!(told.contains("push to `path = /srv/data/latest`, and this table its name"), "{run}");
    assert!(told.contains("this is not an absolute path"), "{run}");
    module.write_policy(&run.stdout());
    module.run(&["check"]).says("[module.data-2] is not a module");
}

#[test]
fn a_remote_section_is_for_its_server_and_commented_out() {
    let module = Module::new();
    let ini = "[joe@nas:/srv/data]\ndaily = 1\nssh-user = joe\n[nas:/srv/data]\nweekly = 1\n";
    let run = import(&module, ini).exits(&[4]).says("2 tables");
    assert!(modules(&run).is_empty(), "{run}");
    assert!(
        comments(&run).contains("Install rsyncd-snapshot on joe@nas, where /srv/data is"),
        "{run}"
    );
    module.write_policy(&run.stdout());
    module.run(&["plan", "data"]).exits(&[0]);
    // Without the marks it is the policy of that server.
    let lines = run
        .stdout()
        .lines()
        .map(|line| line.strip_prefix('#').unwrap_or(line).to_string() + "\n")
        .collect::<Vec<_>>();
    let there: String = lines.into_iter().filter(|line| !line.starts_with(' ')).collect();
    let there: Table = there.parse().unwrap_or_else(|error| panic!("{error}: {run}"));
    assert_eq!(there["module"]["data-2"]["keep"]["daily"].as_integer(), Some(1), "{run}");
    assert_eq!(there["module"]["data-3"]["keep"]["weekly"].as_integer(), Some(1), "{run}");
}

#[test]
fn the_section_that_sorts_first_is_the_one_in_force() {
    let module = Module::new();
    let ini = "[ROOT]\ndaily = 1\n[/*]\nprefer-recent = yes\ndaily = 2\n[/none]\ndaily = 3\n";
    let run = import(&module, ini).exits(&[4]);
    assert_eq!(value(&run, "data", "keep"), "{ daily = 2 }");
    assert_eq!(value(&run, "none", "keep"), "{ daily = 2 }");
    assert_eq!(
        comments(&run).matches("This had no effect: rotate-backups took [/*] in line 3").count(),
        2
    );
}

#[test]
fn home_directories_and_variables_are_those_of_the_caller() {
    let module = Module::new();
    let file = module.directory.join("rotate-backups.ini");
    for name in ["~/root", "$HOME/root", "${HOME}/latest/../root/"] {
        fs::write(&file, format!("[{name}]\ndaily = 7\n")).expect("the ini file");
        let run =
            Run::of(module.command(&["import-policy"]).arg(&file).env("HOME", &module.directory));
        assert_eq!(modules(&run.exits(&[0])), ["data"], "{name}");
    }
}

#[test]
fn names_of_modules_are_quoted_as_toml_wants_it() {
    let module = Module::new();
    let names =
        ["a.b", "it's", "say \"hi\"", "back\\slash", "ünï", "#", "zero\u{200b}width", "'''", "a=b"];
    let sections: String = names
        .iter()
        .enumerate()
        .map(|(index, name)| format!("[{name}]\npath = /x/{index}/latest\n"))
        .collect();
    module.write_rsyncd_conf(&format!("{sections}[\u{1b}c]\npath = /x/99/latest\n"));
    let run = import(&module, "[/x/*]\ndaily = 7\n").exits(&[0]);
    let mut expected: Vec<String> = names.map(String::from).to_vec();
    expected.sort();
    let mut found = modules(&run);
    found.sort();
    assert_eq!(found, expected, "a control character cannot be in a policy: {run}");
    assert!(!run.stdout().contains('\u{200b}') && comments(&run).contains(": \\x1bc"), "{run}");
    module.write_policy(&run.stdout());
    module.run(&["check"]).exits(&[0, 1, 2, 3]);
    assert!(!module.run(&["check"]).stdout().contains("- policy: "), "{}", module.run(&["check"]));
}
