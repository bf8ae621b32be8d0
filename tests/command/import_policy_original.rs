//! `import-policy` beside rotate-backups 8.1 itself: what is in force by its ini file is in force
//! by the translation.

use crate::support;

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;
use support::original::{original, python};
use support::random::Random;
use support::run::Run;
use support::server::Server;

/// Modules of the tests on reading; their directories do not exist.
const MODULES: [&str; 5] = ["m0", "m1", "m2", "m3", "m10"];

/// Prints what is in force for each module's root by each file: null, or scheme and options.
const READER: &str = r#"
import json, sys
from rotate_backups import RotateBackups, coerce_location, load_config_file
answers = []
for name in sys.argv[2:]:
    try:
        list(load_config_file(name, expand=False))
        answer = {}
        for module in sys.argv[1].split(","):
            program = RotateBackups(rotation_scheme={}, config_file=name)
            location = coerce_location("/x/" + module)
            if program.load_config_file(location) is not location:
                answer[module] = [program.rotation_scheme, program.prefer_recent, program.strict,
                                  program.exclude_list, program.io_scheduling_class]
    except Exception as e:
        answer = None
    answers.append(answer)
print(json.dumps(answers))
"#;

const SECTIONS: [&str; 15] = [
    "/x/m0",
    "/x/m0/",
    "/x/m1",
    "/x//y/../m1",
    "/x/*",
    "/x/m?*",
    "/x/m[!0]*",
    "/x/m[2-3]",
    "/y",
    "~/m2",
    "${HOME}/m3",
    "DEFAULT",
    "nas:/x/m0",
    " /x/m1",
    "/x/m10]",
];
const OPTIONS: [&str; 14] = [
    "minutely",
    "hourly",
    "daily",
    "Daily",
    "weekly",
    "MONTHLY",
    "yearly",
    "yearly ",
    "prefer-recent",
    "strict",
    "exclude-list",
    "ionice",
    "dayly",
    "use-sudo",
];
const COUNTS: [&str; 14] = [
    "7",
    "24*7",
    "2 * (3+4) # two weeks",
    "always",
    "Always",
    "0",
    "-1",
    "10-3",
    "+5",
    "12",
    "24",
    "1",
    "60*24*7",
    "1 # = 2",
];
const BOOLEANS: [&str; 6] = ["yes", "no", "On", "0", "", "TRUE"];
const LISTS: [&str; 5] = ["", "*.tar", "a, b,", ", c d", "x=y:z"];
const CLASSES: [&str; 4] = ["idle", "best-effort", "3", ""];
const RARE: [&str; 9] = [
    "words",
    "daily = soon",
    "strict = maybe",
    "= 1",
    "[]",
    "daily = always #",
    "7 = ",
    ":",
    "daily =",
];
const HARMLESS: [&str; 5] = ["", "# daily = 1", "   ; [y]", "\t", "note = one\n\ttwo\n\n  three"];

fn one<'a>(random: &mut Random, choices: &'a [&'a str]) -> &'a str {
    random.of(choices).expect("a choice")
}

/// A file of a few sections, odd in many ways and wrong in some.
fn random_ini(random: &mut Random) -> String {
    let mut ini = String::new();
    for _ in 0..random.below(4) + 1 {
        let indent = one(random, &["", "", "", "", " ", "  "]);
        ini += &format!("{indent}[{}]{}\n", one(random, &SECTIONS), one(random, &["", "", " ; x"]));
        let indent = one(random, &["", "", "", "  ", "\t"]);
        for _ in 0..random.below(5) {
            let line = match random.below(40) {
                0 => one(random, &RARE).to_string(),
                1..=6 => one(random, &HARMLESS).to_string(),
                _ => random_option(random),
            };
            let deeper = if random.once_in(30) { "  " } else { "" };
            ini += &format!(
                "{indent}{deeper}{line}{}",
                one(random, &["\n", "\n", "\n", "\r\n", "\r"])
            );
        }
    }
    ini
}

fn random_option(random: &mut Random) -> String {
    let name = one(random, &OPTIONS);
    let values = match name {
        "prefer-recent" | "strict" | "use-sudo" => &BOOLEANS[..],
        "exclude-list" => &LISTS,
        "ionice" => &CLASSES,
        _ => &COUNTS,
    };
    format!("{name}{}{}", one(random, &["=", " = ", ":", " :"]), one(random, values))
}

/// What the translation says for a module, in the words of the original; `None` without a table.
fn translated(document: &toml::Table, module: &str) -> Option<BTreeMap<String, String>> {
    let table = document.get("module")?.get(module)?.as_table().expect("a table");
    let mut told = BTreeMap::new();
    for (frequency, count) in
        table.get("keep").and_then(toml::Value::as_table).into_iter().flatten()
    {
        let count = match count {
            toml::Value::String(text) if text == "always" => text.clone(),
            toml::Value::String(product) => product
                .split('*')
                .map(|factor| factor.trim().parse::<i64>().expect("a number"))
                .product::<i64>()
                .to_string(),
            count => count.to_string(),
        };
        told.insert(frequency.clone(), count);
    }
    for key in ["prefer", "strict", "ionice"] {
        let default = if key == "strict" { "true" } else { "" };
        told.insert(
            key.into(),
            table.get(key).map_or(default.into(), |value| value.to_string().replace('"', "")),
        );
    }
    told.insert("held".into(), table.contains_key("max_expire").to_string());
    Some(told)
}

/// The same of an answer of [`READER`].
fn expected(answer: &Value) -> BTreeMap<String, String> {
    let mut told = BTreeMap::new();
    for (frequency, count) in answer[0].as_object().expect("a scheme") {
        // The deliberate difference: a count of none or less is left out.
        match count.as_i64() {
            Some(count) if count < 1 => {}
            Some(count) => drop(told.insert(frequency.clone(), count.to_string())),
            None => drop(told.insert(frequency.clone(), count.as_str().expect("always").into())),
        }
    }
    let held = told.is_empty();
    let prefer = if answer[1] == true { "newest" } else { "" };
    told.insert("prefer".into(), prefer.into());
    told.insert("strict".into(), answer[2].to_string());
    let class = answer[4].as_str().unwrap_or_default();
    told.insert("ionice".into(), if class == "3" { "idle" } else { class }.into());
    told.insert("held".into(), held.to_string());
    told
}

#[test]
fn sections_are_in_force_as_in_the_original() {
    let Some(venv) = original() else { return };
    let server = Server::new();
    let section = |name: &&str| format!("[{name}]\npath = /x/{name}/latest\n");
    server.write_rsyncd_conf(&MODULES.iter().map(section).collect::<String>());
    let mut random = Random::new(81);
    let count = support::by_sweep(100, 400, 400);
    let inis: Vec<String> = (0..count).map(|_| random_ini(&mut random)).collect();
    let file = |index: usize| server.directory.join(format!("{index}.ini"));
    for (index, ini) in inis.iter().enumerate() {
        fs::write(file(index), ini).expect("an ini file");
    }
    let mut reader = python(&venv, "python");
    reader.args(["-c", READER, &MODULES.join(",")]).args((0..inis.len()).map(file));
    let answers = Run::of(&mut reader).exits(&[0]).json();

    let (mut tables, mut refused) = (0, 0);
    for (index, ini) in inis.iter().enumerate() {
        let run = Run::of(server.command(&["import-policy"]).arg(file(index)).env("HOME", "/x"))
            .exits(&[0, 2, 4]);
        let answer = &answers[index];
        if run.code() == Some(2) {
            // The original takes the first line of such a count; one without sections, for nothing
            // to do.
            let stricter = run.stderr().contains("a count has one line")
                || run.stderr().contains("has no section");
            assert!(answer.is_null() || stricter, "{ini}\n{answer}\n{run}");
            refused += usize::from(answer.is_null());
            continue;
        }
        assert!(answer.is_object(), "the original refuses {ini:?}\n{run}");
        let document: toml::Table =
            run.stdout().parse().unwrap_or_else(|error| panic!("{error}: {run}"));
        for module in MODULES {
            let mut ours = translated(&document, module);
            if let Some(ours) = &mut ours
                && ours["prefer"] == "oldest"
            {
                ours.insert("prefer".into(), String::new());
            }
            let theirs = answer.get(module).map(expected);
            assert_eq!(ours, theirs, "{module} by {ini}\n{answer}\n{run}");
            tables += usize::from(theirs.is_some());
        }
    }
    assert!(
        tables * 4 > count * 3 && refused * 20 > count,
        "{tables} tables and {refused} refusals of {count} files prove little"
    );
}
