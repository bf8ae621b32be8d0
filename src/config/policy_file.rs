//! Reads the policy file and reports every mistake in it at once.
//!
//! Nothing expires under a policy with a mistake. So the administrator gets all mistakes at once,
//! each with its place and the accepted values. A derived deserializer would stop at the first one,
//! so this code walks the tables itself: first `[defaults]` over the built-in values, then each
//! `[module.NAME]` over the result.

use std::collections::BTreeMap;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::policy_keys::{CLIENT, KEYS, MAX_AGE, PARTIAL_ON_EXIT, SNAPSHOT_ON_EXIT};
use crate::config::policy_syntax::{LinePositions, TomlText};
use crate::config::policy_value::{PolicyMistake, PolicyValue, ValueResult, key_text};
use crate::config::time_zone;
use crate::decide::duration_text::DurationText;
use crate::decide::frequency::Frequency;
use crate::decide::policy::Policy;
use crate::decide::similar::did_you_mean;

/// How the message of an unknown key ends if no known one is like it.
const UNKNOWN_KEY: &str = "is an unknown key";

/// The policies of all modules, each of them valid.
#[derive(Debug, Clone)]
pub struct Policies {
    defaults: Policy,
    modules: BTreeMap<String, Policy>,
}

impl Policies {
    /// The policies without a file: the built-in defaults for every module.
    pub fn built_in() -> Self {
        let defaults = Policy { time_zone: time_zone::local(), ..Policy::default() };
        Policies { defaults, modules: BTreeMap::new() }
    }

    /// Reads the `text` of `file`; otherwise one complete line per mistake, in the file's order.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Vec<String>> {
        let text = without_byte_order_mark(text);
        let syntax = TomlText::of(text);
        let (document, _) = DeTable::parse_recoverable(&syntax.sound_text);
        let mut walk = PolicyReader::default();
        let policies = walk.document(document.get_ref());
        let mut mistakes = walk.mistakes;
        mistakes.retain(|mistake| mistake.offset < syntax.uncertain_from);
        mistakes.extend(syntax.mistakes.into_values());
        if document.get_ref().is_empty() && mistakes.is_empty() {
            mistakes.push(PolicyMistake { offset: 0, message: EMPTY.to_string() });
        }
        if mistakes.is_empty() {
            return Ok(policies);
        }
        mistakes.sort_by_key(|mistake| mistake.offset);
        // A key that gets a suggestion needs no list.
        let needs_list = |mistake: &&mut PolicyMistake| {
            walk.unknown_keys.contains(&mistake.offset) && mistake.message.ends_with(UNKNOWN_KEY)
        };
        if let Some(first) = mistakes.iter_mut().find(needs_list) {
            first.message += &format!("; the keys are {}", KEYS.map(|(name, _)| name).join(", "));
        }
        let lines = LinePositions::new(text);
        Err(mistakes.iter().map(|mistake| lines.told(file, mistake)).collect())
    }

    /// The policy of the module of this name, or of a module without a name.
    pub fn for_module(&self, name: Option<&[u8]>) -> Policy {
        let name = name.and_then(|name| std::str::from_utf8(name).ok());
        name.and_then(|name| self.modules.get(name)).unwrap_or(&self.defaults).clone()
    }

    /// The names that have a `[module.NAME]` table.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        self.modules.keys().map(String::as_str)
    }
}

/// How the path of a module's table begins; only there clients have tables.
const MODULE_PREFIX: &str = "module.";

const EMPTY: &str = "the file is empty: an empty policy may be the rest of a failed write, so \
                     nothing expires under it; remove it to use the built-in defaults, or write \
                     [defaults]";

/// Reads the tables of a file and collects the mistakes.
#[derive(Default)]
struct PolicyReader {
    mistakes: Vec<PolicyMistake>,
    /// Where the unknown keys are. The first of them in the file is told with a list of all keys.
    unknown_keys: Vec<usize>,
}

impl PolicyReader {
    fn document(&mut self, document: &DeTable<'_>) -> Policies {
        let mut policies = Policies::built_in();
        // The defaults are read first wherever they are in the file: modules build on them.
        if let Some(defaults) = document.get("defaults") {
            policies.defaults = self.policy("defaults".to_string(), defaults, &policies.defaults);
        }
        for (key, value) in document {
            match key.get_ref().as_ref() {
                "defaults" => {}
                "module" => policies.modules = self.modules(value, &policies.defaults),
                unknown => self.tell(
                    key.span().start,
                    format!(
                        "{} has no place here{}; the top level holds [defaults] and [module.NAME] \
                         only",
                        key_text(unknown),
                        did_you_mean(unknown, ["defaults", "module"])
                    ),
                ),
            }
        }
        policies
    }

    fn modules(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        defaults: &Policy,
    ) -> BTreeMap<String, Policy> {
        let mut modules = BTreeMap::new();
        let Some(table) = self.take(PolicyValue::new("module".to_string(), value).table()) else {
            return modules;
        };
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let key_path = format!("module.{}", key_text(name));
            self.check_name("module", name, &key_path, key.span().start);
            let mut policy = self.policy(key_path.clone(), value, defaults);
            if let Some(clients) = value.get_ref().as_table().and_then(|table| table.get(CLIENT)) {
                policy.client_max_age = self.clients(&format!("{key_path}.{CLIENT}"), clients);
            }
            modules.insert(name.to_string(), policy);
        }
        modules
    }

    /// The clients of a module, each with its `max_age`.
    fn clients(
        &mut self,
        key_path: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> BTreeMap<String, DurationText> {
        let mut clients = BTreeMap::new();
        let table = PolicyValue::new(key_path.to_string(), value).table();
        for (key, value) in self.take(table).into_iter().flatten() {
            let name = key.get_ref().as_ref();
            let client_path = format!("{key_path}.{}", key_text(name));
            self.check_name("client", name, &client_path, key.span().start);
            let Some(keys) = self.take(PolicyValue::new(client_path.clone(), value).table()) else {
                continue;
            };
            for (key, value) in keys {
                let value_path = format!("{client_path}.{}", key_text(key.get_ref()));
                if key.get_ref() != MAX_AGE {
                    let is_table = value.get_ref().is_table();
                    let hint =
                        if is_table { " (a name that has a dot in it needs quotes)" } else { "" };
                    let message = format!(
                        "{value_path} is an unknown key{hint}; a client has only {MAX_AGE}"
                    );
                    self.tell(key.span().start, message);
                    continue;
                }
                let max_age = PolicyValue::new(value_path, value).positive_span();
                clients.extend(self.take(max_age).map(|max_age| (name.to_string(), max_age)));
            }
        }
        clients
    }

    fn check_name(&mut self, what: &str, name: &str, key_path: &str, offset: usize) {
        if name.is_empty() || name.chars().any(char::is_control) {
            self.tell(
                offset,
                format!("{key_path}: a {what}'s name is not empty and holds no control characters"),
            );
        }
    }

    /// `base` with the values of one table over it.
    fn policy(&mut self, key_path: String, value: &Spanned<DeValue<'_>>, base: &Policy) -> Policy {
        let mut policy = base.clone();
        let Some(table) = self.take(PolicyValue::new(key_path.clone(), value).table()) else {
            return policy;
        };
        let mut read = Vec::new();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let value_path = format!("{key_path}.{}", key_text(name));
            if name == CLIENT && key_path.starts_with(MODULE_PREFIX) {
                continue;
            }
            let Some((_, set)) = KEYS.iter().find(|(known, _)| *known == name) else {
                self.unknown_keys.push(key.span().start);
                let is_table = value.get_ref().is_table();
                self.tell(key.span().start, unknown_key(&value_path, name, is_table));
                continue;
            };
            if self.take(set(&mut policy, &PolicyValue::new(value_path, value))).is_some() {
                read.push(name);
            }
        }
        // The mistake is reported at a key of this table, not at the value that it inherits.
        if let Some(name) =
            [PARTIAL_ON_EXIT, SNAPSHOT_ON_EXIT].into_iter().find(|name| read.contains(name))
        {
            let offset = table.get_key_value(name).map_or(0, |(key, _)| key.span().start);
            self.statuses_in_both(&format!("{key_path}.{name}"), offset, &policy);
        }
        policy
    }

    /// A status in both lists could mean either grade.
    fn statuses_in_both(&mut self, key_path: &str, offset: usize, policy: &Policy) {
        let both =
            policy.partial_on_exit.iter().filter(|status| policy.snapshot_on_exit.contains(status));
        let both: Vec<String> = both.map(i32::to_string).collect();
        if !both.is_empty() {
            self.tell(
                offset,
                format!(
                    "{key_path}: status {} would be in both lists, snapshot_on_exit = {:?} and \
                     partial_on_exit = {:?}; a status earns a complete snapshot or a partial one",
                    both.join(", "),
                    policy.snapshot_on_exit,
                    policy.partial_on_exit
                ),
            );
        }
    }

    fn take<T>(&mut self, reading: ValueResult<T>) -> Option<T> {
        reading.map_err(|mistakes| self.mistakes.extend(mistakes)).ok()
    }

    fn tell(&mut self, offset: usize, message: String) {
        self.mistakes.push(PolicyMistake { offset, message });
    }
}

fn unknown_key(key_path: &str, name: &str, is_table: bool) -> String {
    let hint = match is_table {
        true => " (a module's name that has a dot in it needs quotes)".to_string(),
        false => hint_of_frequency(name)
            .unwrap_or_else(|| did_you_mean(name, KEYS.map(|(known, _)| known))),
    };
    format!("{key_path} {UNKNOWN_KEY}{hint}")
}

/// For `hourly` and `keep_hourly`, as other programs name these keys: where the number belongs.
fn hint_of_frequency(name: &str) -> Option<String> {
    let word = name.strip_prefix("keep_").or(name.strip_prefix("keep-")).unwrap_or(name);
    let frequency = Frequency::ALL.into_iter().find(|known| known.word() == word)?;
    Some(format!(
        " (write keep = {{ {} = NUMBER }}, all frequencies in one table)",
        frequency.word()
    ))
}

fn without_byte_order_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::arguments::rewriting_option::RewritingOption;
    use crate::decide::duration_text::DurationText;
    use crate::decide::free_space::FreeSpace;
    use crate::decide::frequency::SlotCount;
    use crate::decide::partial_dirs::PartialDirs;
    use crate::decide::policy::{IoNice, MethodChoice, Prefer};

    fn parse(text: &str) -> Result<Policies, Vec<String>> {
        Policies::parse(Path::new("p.toml"), text)
    }

    fn module(text: &str, name: &str) -> Policy {
        parse(text)
            .unwrap_or_else(|mistakes| panic!("{mistakes:#?}"))
            .for_module(Some(name.as_bytes()))
    }

    fn defaults(line: &str) -> Policy {
        module(&format!("[defaults]\n{line}\n"), "any")
    }

    /// The only mistake of a line in `[defaults]`.
    fn mistake(line: &str) -> String {
        let mut mistakes = parse(&format!("[defaults]\n{line}\n")).expect_err(line);
        assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
        mistakes.remove(0)
    }

    fn assert_accepted(key: &str, values: &[&str]) {
        for value in values {
            defaults(&format!("{key} = {value}"));
        }
    }

    /// Each value is refused where it stands, with its key, what was found and the rule.
    fn assert_refused(key: &str, values: &[(&str, &str)], rule: &str) {
        for (value, found) in values {
            let place = format!("p.toml:2:{}: ", key.len() + 4);
            let expected = format!("{place}defaults.{key} is {found}; {rule}");
            let mistake = mistake(&format!("{key} = {value}"));
            assert!(mistake.starts_with(&expected), "{mistake}\n{expected}");
        }
    }

    #[test]
    fn no_file_and_an_empty_table_mean_the_built_in_defaults() {
        let defaults = Policies::built_in().defaults;
        assert_eq!(Policies::built_in().for_module(Some(b"x")), defaults);
        assert_eq!(module("[defaults]\n", "x"), defaults);
        assert_eq!(module("\u{feff}[defaults]\r\nstrict = true\r\n", "x"), defaults);
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
            [defaults]
            keep = { yearly = "always", minutely = 60, daily = "2 * 7" }
            strict = false
            content_hashes = true
            open_root = true
            prefer = "newest"
            min_keep = 0
            min_age = "0s"
            max_expire = 1_000_000
            keep_partial = 0x10
            time_zone = "Europe/Amsterdam"
            clock_jump = "1w"
            snapshot_on_exit = [-1, 0, 255]
            partial_on_exit = [23, 24]
            snapshot_root = "/srv/{module}"
            method = "btrfs"
            lock_wait = "0s"
            min_interval = "5m"
            max_defer = "2h"
            push_wait = "0s"
            allow_options = ["append-verify", "inplace", "inplace"]
            partial_dirs = [".parts", "work/parts"]
            max_parallel = 3
            full_comparison = "1d"
            max_age = "2d"
            log_level = "debug"
            nice = 19
            grace = "3d"
            max_lease = "2h"
            free_space = "50G"
            anomaly_share = "25%"
            ionice = "best-effort"
        "#;
        let expected = Policy {
            keep: vec![
                (Frequency::Minutely, SlotCount::Newest(60)),
                (Frequency::Daily, SlotCount::Newest(14)),
                (Frequency::Yearly, SlotCount::Always),
            ],
            strict: false,
            content_hashes: true,
            open_root: true,
            prefer: Prefer::Newest,
            min_keep: 0,
            min_age: DurationText::from_seconds(0),
            max_expire: 1_000_000,
            keep_partial: 16,
            time_zone: crate::config::time_zone::named("Europe/Amsterdam")
                .expect("tzdata is installed"),
            clock_jump: DurationText::from_seconds(7 * 86_400),
            snapshot_on_exit: vec![-1, 0, 255],
            partial_on_exit: vec![23, 24],
            snapshot_root: Some("/srv/{module}".to_string()),
            method: MethodChoice::Btrfs,
            lock_wait: DurationText::from_seconds(0),
            min_interval: DurationText::from_seconds(300),
            max_defer: DurationText::from_seconds(7_200),
            push_wait: DurationText::from_seconds(0),
            allow_options: vec![RewritingOption::Inplace, RewritingOption::AppendVerify],
            partial_dirs: PartialDirs::listed(&[".parts".to_string(), "work/parts".to_string()]),
            max_parallel: Some(3),
            full_comparison: DurationText::from_seconds(86_400),
            grace: Some(DurationText::from_seconds(3 * 86_400)),
            max_lease: DurationText::from_seconds(7_200),
            free_space: Some(FreeSpace::Bytes(50 << 30)),
            anomaly_share: 25,
            max_age: Some(DurationText::from_seconds(2 * 86_400)),
            client_max_age: BTreeMap::new(),
            log_level: log::LevelFilter::Debug,
            nice: 19,
            ionice: IoNice::BestEffort,
        };
        assert_eq!(module(text, "x"), expected);
    }

    #[test]
    fn a_module_overrides_key_by_key_and_keep_as_a_whole() {
        let text = "[module.laptop]\nkeep = { weekly = 2 }\nmin_keep = 9\n\
            [defaults]\nmin_keep = 5\nmax_expire = 7\n[module.\"two words\"]\n[module.\"a.b\"]\nstrict = false\n";
        let laptop = module(text, "laptop");
        assert_eq!(laptop.keep, [(Frequency::Weekly, SlotCount::Newest(2))]);
        assert_eq!((laptop.min_keep, laptop.max_expire, laptop.strict), (9, 7, true));
        assert_eq!(module(text, "two words").min_keep, 5);
        assert_eq!(module(text, "other").min_keep, 5);
        assert!(!module(text, "a.b").strict);
        let policies = parse(text).unwrap();
        assert_eq!(policies.modules().collect::<Vec<_>>(), ["a.b", "laptop", "two words"]);
        assert_eq!(policies.for_module(None).min_keep, 5);
        assert_eq!(policies.for_module(Some(b"\xff")).min_keep, 5);
    }

    #[test]
    fn counts_of_kept_slots_are_positive() {
        assert_accepted(
            "keep",
            &["{ hourly = 1 }", "{ daily = 4294967295 }", "{ yearly = \"24*7\" }"],
        );
        for (value, found) in
            [("0", "the integer 0"), ("-3", "the integer -3"), ("\"7*0\"", "the string \"7*0\"")]
        {
            let mistake = mistake(&format!("keep = {{ daily = {value} }}"));
            let expected = format!(
                "p.toml:2:18: defaults.keep.daily is {found}; it must be 1 or more: keeping none"
            );
            assert!(mistake.starts_with(&expected), "{mistake}");
        }
        for value in
            ["4294967296", "1.5", "\"Always\"", "\"\"", "true", "99999999999999999999", "[1]"]
        {
            let mistake = mistake(&format!("keep = {{ daily = {value} }}"));
            assert!(mistake.contains("it must be an integer from 1 to"), "{mistake}");
        }
    }

    #[test]
    fn keep_names_at_least_one_frequency_and_only_known_ones() {
        assert!(
            mistake("keep = {}")
                .starts_with("p.toml:2:8: defaults.keep is an empty table; it must name")
        );
        assert!(mistake("keep = 7").contains("defaults.keep is the integer 7; it must be a table"));
        assert_eq!(
            mistake("keep = { dayly = 7 }"),
            "p.toml:2:10: defaults.keep.dayly is not a frequency (did you mean daily?); the \
             frequencies are minutely, hourly, daily, weekly, monthly, yearly"
        );
        assert!(parse("[defaults.keep]\n").unwrap_err()[0].starts_with("p.toml:1:"));
    }

    #[test]
    fn options_are_let_through_by_name() {
        assert_accepted(
            "allow_options",
            &["[]", "[\"inplace\"]", "[\"append\", \"write-devices\"]"],
        );
        assert_refused(
            "allow_options",
            &[("\"inplace\"", "the string \"inplace\""), ("true", "the boolean true")],
            "it must be an array of some of \"inplace\", \"append\", \"append-verify\", \"write-devices\"",
        );
        assert_eq!(
            mistake("allow_options = [\"inplace\", \"--append\"]"),
            "p.toml:2:29: defaults.allow_options[1] is the string \"--append\"; it must be one of \"inplace\", \"append\", \"append-verify\", \"write-devices\""
        );
        assert_accepted("partial_dirs", &["[]", "[\".parts\", \"a/b\"]"]);
        assert_refused(
            "partial_dirs",
            &[("\"x\"", "the string \"x\"")],
            "it must be an array of names",
        );
        for name in ["", ".", "..", "/docs", "a/../b", "a//b", "a/", "./a", "a\\u0001"] {
            let mistake = mistake(&format!("partial_dirs = [\"x\", \"{name}\"]"));
            assert!(
                mistake.starts_with("p.toml:2:22: defaults.partial_dirs[1] is the string \""),
                "{mistake}"
            );
            assert!(mistake.contains("it must be a relative path"), "{mistake}");
        }
        assert_refused(
            "max_parallel",
            &[("0", "the integer 0")],
            "it must be an integer from 1 to 1000",
        );
    }

    #[test]
    fn booleans_and_words_are_exact() {
        assert_refused(
            "strict",
            &[("\"yes\"", "the string \"yes\""), ("1", "the integer 1")],
            "it must be true or false",
        );
        let found = [("\"Oldest\"", "the string \"Oldest\""), ("true", "the boolean true")];
        assert_refused("prefer", &found, "it must be one of \"oldest\", \"newest\"");
        assert_accepted(
            "log_level",
            &["\"off\"", "\"error\"", "\"warn\"", "\"info\"", "\"trace\""],
        );
        let found = [("\"warning\"", "the string \"warning\""), ("3", "the integer 3")];
        assert_refused("log_level", &found, "it must be one of \"off\", \"error\", \"warn\"");
        assert_accepted("ionice", &["\"none\"", "\"idle\""]);
        assert_refused(
            "ionice",
            &[("\"realtime\"", "the string \"realtime\"")],
            "it must be one of \"none\"",
        );
    }

    #[test]
    fn integers_have_a_range() {
        for key in ["min_keep", "keep_partial", "max_expire"] {
            assert_accepted(key, &["0", "1_000_000"]);
            let found = [
                ("-1", "the integer -1"),
                ("1000001", "the integer 1000001"),
                ("9223372036854775808", "the integer 9223372036854775808"),
                ("3.0", "the float 3.0"),
                ("\"3\"", "the string \"3\""),
                ("2026-11-22", "a datetime"),
                ("[]", "an empty array"),
            ];
            assert_refused(key, &found, "it must be an integer from 0 to 1000000");
        }
        assert_accepted("nice", &["0", "19"]);
        assert_refused(
            "nice",
            &[("20", "the integer 20"), ("-1", "the integer -1")],
            "it must be an integer from 0 to 19",
        );
    }

    #[test]
    fn durations_have_a_unit_and_some_are_longer_than_nothing() {
        let found = [
            ("3600", "the integer 3600"),
            ("\"1 h\"", "the string \"1 h\""),
            ("\"-1s\"", "the string \"-1s\""),
        ];
        for key in ["min_age", "lock_wait", "min_interval", "full_comparison"] {
            assert_accepted(key, &["\"0s\"", "\"4w\""]);
            assert_refused(key, &found, "it must be a duration");
        }
        for key in ["clock_jump", "max_age"] {
            assert_accepted(key, &["\"1s\""]);
            assert_refused(key, &found, "it must be a duration");
            assert_refused(
                key,
                &[("\"0d\"", "the string \"0d\"")],
                "it must be a duration longer than 0",
            );
        }
    }

    #[test]
    fn a_time_zone_is_local_or_known_here() {
        assert_accepted("time_zone", &["\"local\"", "\"UTC\"", "\"Europe/Amsterdam\""]);
        for zone in ["Mars/Olympus", "", "Europe", "/etc/localtime", "CET-1CEST"] {
            let found = format!("the string \"{zone}\"");
            let rule = "it must be \"local\" or an IANA name known to this system's tzdata";
            assert_refused("time_zone", &[(&format!("\"{zone}\""), &found)], rule);
        }
    }

    #[test]
    fn statuses_are_those_of_rsync_and_earn_one_grade() {
        assert_accepted("snapshot_on_exit", &["[]", "[0, 23, 24]", "[-1, 255]"]);
        assert!(
            mistake("partial_on_exit = 23").contains("must be an array of statuses from -1 to 255")
        );
        assert_eq!(
            mistake("snapshot_on_exit = [0, 256]"),
            "p.toml:2:24: defaults.snapshot_on_exit[1] is the integer 256; it must be an integer from -1 to 255"
        );
        assert!(mistake("partial_on_exit = [23, 24]").starts_with(
            "p.toml:2:1: defaults.partial_on_exit: status 24 would be in both lists, snapshot_on_exit = [0, 24]"
        ));
        let text = "[defaults]\npartial_on_exit = [23]\n[module.a]\nsnapshot_on_exit = [0, 23]\n[module.b]\n";
        let mistakes = parse(text).unwrap_err();
        assert_eq!(mistakes.len(), 1);
        assert!(
            mistakes[0].starts_with("p.toml:4:1: module.a.snapshot_on_exit: status 23"),
            "{mistakes:?}"
        );
        defaults("snapshot_on_exit = [0]\npartial_on_exit = [24]");
    }

    #[test]
    fn a_snapshot_root_is_an_absolute_path_with_one_placeholder() {
        assert_accepted("snapshot_root", &["\"/srv/{module}/x {module}\"", "'/srv/..a'"]);
        let cases = [
            ("\"srv\"", "it must be an absolute path"),
            ("\"\"", "it must be an absolute path"),
            ("7", "it must be an absolute path"),
            ("\"/srv/../etc\"", "it must be a path without `..`"),
            ("\"/srv/\\n\"", "it must be a path without control characters"),
            ("\"/srv/{user}\"", "it must be a path without braces"),
            ("\"/srv/{{module}}\"", "it must be a path without braces"),
            ("\"/srv/{module\"", "it must be a path without braces"),
        ];
        for (value, rule) in cases {
            let mistake = mistake(&format!("snapshot_root = {value}"));
            assert!(mistake.starts_with("p.toml:2:17: ") && mistake.contains(rule), "{mistake}");
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once_in_order() {
        let text = "max_keep = 1\r\n[defaults]\r\nmin_kep = 1\r\n\"sträng\" = 1\r\nä = 2\r\n  strict = \"ä\" \r\n\
            min_age = \r\n[module]\r\nx = 5\r\n[module.\"\"]\r\n[module.my.laptop]\r\nnice = 0\r\n[modul]\r\n";
        let mistakes = parse(text).unwrap_err();
        let places: Vec<&str> =
            mistakes.iter().map(|line| line.split(' ').next().unwrap()).collect();
        let expected = [
            "p.toml:1:1:",
            "p.toml:3:1:",
            "p.toml:4:1:",
            "p.toml:5:1:",
            "p.toml:6:12:",
            "p.toml:7:11:",
            "p.toml:9:5:",
            "p.toml:10:9:",
            "p.toml:11:12:",
            "p.toml:13:2:",
        ];
        assert_eq!(places, expected, "{mistakes:#?}");
        let told = "defaults.min_kep is an unknown key (did you mean min_keep?)";
        assert!(mistakes[1].ends_with(told), "{mistakes:#?}");
        let told = "is an unknown key; the keys are keep, strict";
        assert!(mistakes[2].contains(told), "{mistakes:#?}");
        let with_list = |line: &&String| line.contains("the keys are");
        assert_eq!(mistakes.iter().filter(with_list).count(), 1, "{mistakes:#?}");
        assert!(mistakes[9].contains("modul has no place here (did you mean module?); the top"));
        for key in ["hourly", "keep_hourly", "keep-hourly"] {
            let mistakes = parse(&format!("[defaults]\n{key} = 24")).unwrap_err();
            let told = "is an unknown key (write keep = { hourly = NUMBER }, all frequencies in \
                        one table)";
            assert!(mistakes[0].ends_with(told), "{mistakes:#?}");
        }
        assert!(
            mistakes[8]
                .contains("module.my.laptop is an unknown key (a module's name that has a dot")
        );
    }

    #[test]
    fn columns_count_characters() {
        let mistakes = parse("\u{feff}defaults = { \"ä\" = 1, strict = 2 }").unwrap_err();
        assert!(mistakes[0].starts_with("p.toml:1:14: "), "{mistakes:?}");
        assert!(mistakes[1].starts_with("p.toml:1:32: "), "{mistakes:?}");
    }

    #[test]
    fn several_syntax_errors_are_told_without_guesses_from_their_lines() {
        let mistakes =
            parse("[defaults]\nmin_keep = = 3\nnice = 99\nstrict = tru\nstrict = true\n")
                .unwrap_err();
        assert!(mistakes[0].starts_with("p.toml:2:"), "{mistakes:#?}");
        assert!(
            mistakes.iter().any(|line| line.starts_with("p.toml:3:8: defaults.nice")),
            "{mistakes:#?}"
        );
        assert!(
            mistakes.iter().any(|line| line.starts_with("p.toml:4:10: this is not TOML")),
            "{mistakes:#?}"
        );
        assert!(
            mistakes.iter().any(|line| line.starts_with("p.toml:5:1: this is not TOML")),
            "{mistakes:#?}"
        );
    }

    #[test]
    fn a_line_without_a_value_hides_nothing_that_follows() {
        let mistakes =
            parse("[defaults]\nstrict\n[module.a]\nnice = 99\nbroken\n[modules]\nx\n").unwrap_err();
        let places: Vec<&str> =
            mistakes.iter().map(|line| line.split(' ').next().unwrap()).collect();
        let expected = ["p.toml:2:7:", "p.toml:4:8:", "p.toml:5:7:", "p.toml:6:2:", "p.toml:7:2:"];
        assert_eq!(places, expected, "{mistakes:#?}");
    }

    #[test]
    fn nothing_is_invented_after_a_broken_header() {
        let text = "[defaults]\nnice = 99\n[module.a\nnice = 1\nsnapshot_root = \"/a\"\n";
        let mistakes = parse(text).unwrap_err();
        assert_eq!(mistakes.len(), 2, "{mistakes:#?}");
        assert!(mistakes[1].starts_with("p.toml:3:10: this is not TOML"), "{mistakes:#?}");
        // The recovered table of a repeated header is not to be trusted either.
        let text = "[module.a]\nnice = 1\n[module.b]\nnice = 1\n[module.a]\nstrict = 1\n";
        assert_eq!(parse(text).unwrap_err(), ["p.toml:5:9: this is not TOML: duplicate key"]);
    }

    #[test]
    fn clients_of_a_module_have_a_max_age_of_their_own() {
        let text = "[module.a]\nmax_age = \"1h\"\n[module.a.client.anna]\nmax_age = \"1d\"\n\
                    [module.a.client.\"192.0.2.7\"]\nmax_age = \"2d\"\n";
        let expected = [("192.0.2.7", 2), ("anna", 1)]
            .map(|(name, days)| (name.to_string(), DurationText::from_seconds(days * 86_400)));
        assert!(module(text, "a").client_max_age.into_iter().eq(expected));
        assert!(module(text, "b").client_max_age.is_empty());
        for (text, place, expected) in [
            ("[module.a.client.192.0.2.7]\nmax_age = \"2d\"", "1:22:", "dot in it needs quotes"),
            ("[module.a.client.x]\nkeep = 3", "2:1:", "a client has only max_age"),
            ("[module.a.client.x]\nmax_age = 3", "2:11:", "it must be a duration"),
            ("[module.a]\nclient = 3", "2:10:", "it must be a table"),
            ("[module.a.client.\"\"]", "1:18:", "a client's name is not empty"),
            ("[defaults.client.x]\nmax_age = \"1d\"", "1:11:", "is an unknown key"),
        ] {
            let mistakes = parse(text).expect_err(text);
            assert!(mistakes[0].starts_with(&format!("p.toml:{place}")), "{mistakes:#?}");
            assert!(mistakes[0].contains(expected), "{mistakes:#?}");
        }
    }

    #[test]
    fn wrong_tables_are_told() {
        assert_eq!(
            parse("defaults = 3").unwrap_err(),
            ["p.toml:1:12: defaults is the integer 3; it must be a table"]
        );
        assert!(
            parse("[[defaults]]").unwrap_err()[0]
                .contains("defaults is an array; it must be a table")
        );
        assert!(
            parse("module = []").unwrap_err()[0]
                .contains("module is an empty array; it must be a table")
        );
        assert!(
            parse("[module.\"a\\nb\"]").unwrap_err()[0]
                .contains("module.\"a\\x0ab\": a module's name")
        );
    }

    #[test]
    fn an_empty_file_is_a_mistake() {
        for text in ["", " \n\t", "# only\n# comments", "\u{feff}\r\n"] {
            let mistakes = parse(text).unwrap_err();
            assert_eq!(mistakes.len(), 1);
            assert!(mistakes[0].starts_with("p.toml:1:1: the file is empty: "), "{mistakes:?}");
        }
    }

    #[test]
    fn messages_are_printable_and_short() {
        let text = format!("[defaults]\nprefer = \"\\u001b\\n\u{202e}{}\"\n", "x".repeat(10_000));
        let mistakes = Policies::parse(Path::new("a\nb"), &text).unwrap_err();
        assert!(mistakes[0].starts_with(
            "a\\x0ab:2:10: defaults.prefer is the string \"\\x1b\\x0a\\xe2\\x80\\xaex"
        ));
        assert!(mistakes[0].len() < 300);
    }

    #[test]
    fn garbage_does_not_panic() {
        let words = [
            "[",
            "]",
            "[[",
            "defaults",
            "module",
            ".",
            "a",
            "=",
            "\"",
            "'",
            "\"\"\"",
            "{",
            "}",
            "keep",
            "daily",
            ",",
            "\n",
            "\r",
            " ",
            "#",
            "-",
            "0",
            "0x",
            "1e9",
            "nan",
            "\\",
            "ä",
            "\u{feff}",
            "\u{1b}",
            "strict",
            "true",
            "snapshot_root",
            "\"/x\"",
            "1979-05-27",
            "snapshot_on_exit",
            "[24]",
            "time_zone",
        ];
        let mut state: u64 = 7;
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        for round in 0..20_000 {
            let length = random() % 40;
            let text = if round % 2 == 0 {
                (0..length).map(|_| words[random() % words.len()]).collect()
            } else {
                let bytes: Vec<u8> = (0..length).map(|_| random() as u8).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            };
            for line in parse(&text).err().into_iter().flatten() {
                assert!(
                    line.starts_with("p.toml:") && !line.chars().any(char::is_control),
                    "{text:?}: {line:?}"
                );
            }
        }
    }
}
