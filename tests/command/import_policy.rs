//! `import-policy`: what becomes of the options in a `rotate-backups.ini`, fed back to the program
//! itself.
//!
//! `import_policy_modules.rs` is about its sections, `import_policy_original.rs` and
//! `import_policy_decision.rs` compare with rotate-backups.

use crate::support;

use std::fs;

use support::import::{comments, document, import, import_bytes, modules, value};
use support::module::Module;
use support::random::Random;
use support::run::Run;
use support::server::Server;
use support::tree;
use toml::Table;

#[test]
fn each_option_becomes_its_key_or_a_note() {
    let module = Module::new();
    for (option, key, expected, note) in [
        ("hourly = 24*7", "keep", "{ daily = 7, hourly = \"24*7\" }", ""),
        ("Hourly : 2 + 1 # some", "keep", "{ daily = 7, hourly = 3 }", ""),
        ("yearly = ALWAYS", "keep", "{ daily = 7, yearly = \"always\" }", ""),
        ("weekly = 0", "keep", "{ daily = 7 }", "a count is at least 1"),
        ("weekly = -4", "keep", "{ daily = 7 }", "`weekly = -4` in line 3: left out"),
        ("prefer-recent = yes", "prefer", "\"newest\"", "prefer-recent = yes"),
        ("prefer-recent = 0", "prefer", "\"oldest\"", "prefer-recent = 0"),
        ("strict = no", "strict", "true", "rotate-backups was strict all the same"),
        ("strict = on", "strict", "true", ""),
        ("ionice = idle", "ionice", "\"idle\"", "making snapshots as well"),
        ("ionice = 2", "ionice", "\"best-effort\"", "lowest level"),
        ("ionice = realtime", "ionice", "", "left out"),
        ("exclude-list = *.tar, lost+found", "max_expire", "", "left alone"),
        ("include-list = *", "max_expire", "", "is rotated"),
        ("removal-command = rm -rf", "max_expire", "", "by itself"),
        ("use-sudo = true", "max_expire", "", "`use-sudo = true` in line 3: no meaning"),
        ("ssh-user = joe", "max_expire", "", "no meaning"),
        ("dayly = 9", "keep", "{ daily = 7 }", "no option of rotate-backups 8.1"),
    ] {
        let run = import(&module, &format!("[ROOT]\ndaily = 7\n{option}\n")).exits(&[0]);
        assert_eq!(value(&run, "data", key), expected, "{option}: {run}");
        assert!(comments(&run).contains(note), "{option}: {run}");
        assert_eq!(modules(&run), ["data"]);
        module.write_policy(&run.stdout());
        module.run(&["plan", "data"]).exits(&[0]);
    }
}

#[test]
fn doubtful_sections_expire_nothing_until_a_person_has_looked() {
    let module = Module::new();
    for day in 1..9 {
        module.make_old_snapshot(&format!("2019-08-0{day} 12:00:00"));
    }
    for option in [
        "daily = 1\nexclude-list = *.tar, 2019-08-0[1-3]*",
        "daily = 1\ninclude-list = *.tar",
        "daily = 1\ntimestamp-pattern = (?P<year>....)-(?P<month>..)-(?P<day>..)",
        "daily = 1\nremoval-command = mv -t /srv/attic",
        "prefer-recent = yes",
        "daily = 0\nweekly = -1",
    ] {
        let run =
            import(&module, &format!("[ROOT]\n{option}\n")).exits(&[4]).says("1 table marked TODO");
        assert!(
            comments(&run).contains("TODO: nothing expires as long as this line stands"),
            "{run}"
        );
        module.write_policy(&run.stdout());
        let (kept, _) = module.verdicts(&["plan", "data", "--json"]);
        assert_eq!(kept.len(), 8, "{option}");
        module.write_policy(
            &run.stdout().replace("max_expire = 0", "keep.yearly = 1").replace("keep = ", "#"),
        );
        let (kept, _) = module.verdicts(&["plan", "data", "--json"]);
        assert!(kept.len() < 8, "{option}: only that line held it");
    }
}

#[test]
fn the_defaults_of_the_file_are_merged_into_each_section() {
    let module = Module::new();
    let ini = "[ROOT]\ndaily = 7\n[DEFAULT]\ndaily = 1\nweekly = 4\nprefer-recent = yes\n";
    let run = import(&module, ini).exits(&[0]);
    assert_eq!(value(&run, "data", "keep"), "{ daily = 7, weekly = 4 }");
    assert_eq!(value(&run, "data", "prefer"), "\"newest\"");
    assert!(document(&run)["defaults"].as_table().is_some_and(Table::is_empty), "{run}");
}

#[test]
fn every_mistake_is_told_with_its_place_and_nothing_is_printed() {
    let module = Module::new();
    for (ini, told) in [
        ("", &["has no section"][..]),
        ("[DEFAULT]\ndaily = 7\n", &["has no section"]),
        ("daily = 7\n", &[":1: daily stands above the first [directory]"]),
        (
            "[ROOT]\nwords\n[x]\n= 3\n",
            &[":2: this is neither a [directory]", ":4: this is neither"],
        ),
        ("[ROOT]\ndaily = 7\nDAILY: 8\n", &[":3: daily stands here again after line 2"]),
        ("[ROOT]\n[x]\n[ROOT]\n", &[":3: [", "again after line 1"]),
        (
            "[ROOT]\ndaily = seven\nweekly = 7 days\n",
            &[":2: daily = seven: this is not a count", ":3: weekly"],
        ),
        (
            "[ROOT]\ndaily = 7\n  weekly = 4\n",
            &[":2: daily = 7\\x0aweekly = 4: a count has one line"],
        ),
        ("[ROOT]\ndaily = 7/2\n", &[":2: ", "write the number"]),
        ("[ROOT]\ndaily = 9999999999\n", &[":2: ", "write always"]),
        ("[ROOT]\nstrict = perhaps\nuse-sudo = x\n", &[":2: strict = perhaps", ":3: use-sudo = x"]),
        (
            "[ROOT]\nprefer-recent = newest\nionice = nice\n",
            &[":2: ", ":3: ionice = nice: this is not a class"],
        ),
        ("[DEFAULT]\ndaily = x\n[a]\n[b]\n", &[":2: daily = x"]),
    ] {
        let run = import(&module, ini).exits(&[2]);
        assert_eq!(run.stdout(), "", "{ini}");
        for told in told {
            assert_eq!(run.stderr().matches(told).count(), 1, "{ini}: {told:?}: {run}");
        }
        assert!(run.stderr().lines().all(|line| line.contains("/rotate-backups.ini")), "{run}");
    }
    let run = import_bytes(&module.server, b"# \xe9\n[/a]\ndaily = 7\n[/\xe9]\n").exits(&[2]);
    assert!(run.stderr().contains(":4: this is not UTF-8"), "{run}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let server = Server::new();
    server.run(&["import-policy", "/nowhere.ini"]).exits(&[2]).says("cannot read /nowhere.ini");
    server
        .run(&["import-policy", "/"])
        .exits(&[2])
        .says("name the configuration of rotate-backups");
    server.run(&["import-policy"]).exits(&[2]);
    fs::remove_file(&server.rsyncd_conf).expect("removed");
    let run = import_bytes(&server, b"[/a]\ndaily = 7\n").exits(&[2]).says("rsyncd.conf");
    assert_eq!(run.stdout(), "");
}

#[test]
fn what_the_original_carried_from_one_section_to_the_next_is_told() {
    let module = Module::new();
    let run =
        import(&module, "[ROOT]\ndaily = 1\n[nas:a]\nionice = idle\n[/a]\nprefer-recent = yes\n")
            .exits(&[4]);
    assert_eq!(value(&run, "data", "prefer"), "");
    assert_eq!(
        comments(&run)
            .matches("also used, by mistake, prefer-recent of [/a] in line 5; here")
            .count(),
        2
    );
}

#[test]
fn snapshots_of_the_original_are_rotated_by_its_policy_and_never_renamed() {
    let (module, newest) = Module::with_snapshot();
    let names: Vec<String> = (1..=9).map(|day| format!("2019-08-0{day} 12:00:00")).collect();
    names.iter().for_each(|name| module.make_old_snapshot(name));
    let run =
        import(&module, "[ROOT]\nmonthly = always\ndaily = 7\nprefer-recent = yes\n").exits(&[0]);
    module.write_policy(&run.stdout());
    for (listed, name) in module.list().iter().zip(&names) {
        assert_eq!(
            (&listed["name"], &listed["origin"]),
            (&name.as_str().into(), &"adopted".into())
        );
    }
    module.run(&["rotate", "data"]).exits(&[0]);
    // The newest of its month, the newest of all, and one more because of min_keep.
    assert_eq!(module.snapshots(), ["2019-08-08 12:00:00", "2019-08-09 12:00:00", &newest]);
    assert_eq!(
        fs::read_to_string(module.snapshot(&names[8]).join("sub/old")).expect("its file"),
        names[8]
    );
    tree::write(&module.latest.join("new"), "x");
    module.expect_snapshot();
}

/// What an ini file may hold to no good.
const HOSTILE: [&str; 24] = [
    "\"\"\"",
    "'''",
    "\"",
    "\\",
    "\n",
    "\r",
    "\r\n",
    "\n[module.evil]\n",
    "\n  [module.evil]",
    "]",
    "[",
    "#",
    "\u{85}",
    "\u{2028}",
    "\u{202e}",
    "\0",
    "\x1b[2J",
    "\x7f",
    "\nkeep = { daily = 1 }",
    "=",
    ":",
    "\u{feff}",
    " ",
    "\\U00000022",
];

#[test]
fn hostile_content_stays_inside_its_string_or_comment() {
    let module = Module::new();
    let mut random = Random::new(7);
    let mut accepted = 0;
    let rounds = support::by_sweep(75, 300, 300);
    for round in 0..rounds {
        let mut junk = |most: usize| -> String {
            (0..random.below(most) + 1).map(|_| *random.of(&HOSTILE).expect("one")).collect()
        };
        let (name, one, other) = (junk(3), junk(4), junk(4));
        let section = ["ROOT/", "/", "h:/", "", "/*"][round % 5];
        let ini = format!(
            "[{section}{name}x]\nexclude-list = {one}\nssh-user = {other}\nx{one} = {other}\n\n[ROOT]\ndaily = 7\n"
        );
        let run = import(&module, &ini).exits(&[0, 2, 4]);
        let unsafe_characters =
            |c: char| c.is_control() && c != '\n' || "\u{2028}\u{202e}\u{feff}".contains(c);
        assert!(
            !run.stdout().contains(unsafe_characters) && !run.stderr().contains(unsafe_characters),
            "{ini:?}"
        );
        if run.code() == Some(2) {
            assert_eq!(run.stdout(), "", "{ini:?}");
            continue;
        }
        accepted += 1;
        assert_lines_are_ours(&run);
        assert!(!modules(&run).contains(&"evil".to_string()), "{ini:?}: {run}");
        module.write_policy(&run.stdout());
        module.run(&["plan", "data"]).exits(&[0]);
    }
    assert!(accepted * 6 > rounds, "only {accepted} of {rounds} prove something");
}

/// Outside of comments stand headers of tables and the keys that an import knows.
#[track_caller]
fn assert_lines_are_ours(run: &Run) {
    let keys = [
        "[defaults]",
        "[module.",
        "keep = { ",
        "prefer = \"",
        "strict = ",
        "ionice = \"",
        "max_expire = 0",
    ];
    for line in run.stdout().lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        assert!(keys.iter().any(|key| line.starts_with(key)), "{line:?}: {run}");
    }
}
