//! Translates the options of a section of `rotate-backups.ini` into keys of our policy, with a note
//! on each that means something else here, or nothing.
//!
//! There are two rules. The translated policy decides as rotate-backups 8.1 did, apart from the
//! differences that docs/policy.md lists; a note names what its documentation promised and its code
//! never did. And if an option kept rotate-backups from snapshots that our rotation would expire,
//! the table is held: it gets `max_expire = 0`, and nothing expires until the administrator removes
//! that.

use std::collections::BTreeSet;

use crate::decide::frequency::Frequency;
use crate::decide::glob_pattern::GlobPattern;
use crate::migrate::ini::{IniMistake, IniSection, IniSetting};
use crate::migrate::value::{RetentionCount, boolean, is_set, list, period};

/// The table of a module in the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyTable {
    /// Its parts in the order in which they are printed.
    pub entries: Vec<TableEntry>,
    /// Whether nothing expires until the administrator removes `max_expire = 0`.
    pub is_held: bool,
}

/// A part of a table: a note, a key with its value, or a key beside its note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableEntry {
    /// A note for the administrator, in one paragraph and not escaped.
    pub note: Option<String>,
    /// A line of TOML.
    pub key: Option<String>,
}

impl PolicyTable {
    /// Translates a section, one of `all` in its file.
    ///
    /// # Errors
    /// Every value for which rotate-backups fails too.
    pub(crate) fn of(
        section: &IniSection,
        all: &[IniSection],
    ) -> Result<Self, BTreeSet<IniMistake>> {
        let mut translation = Translation {
            section,
            entries: Vec::new(),
            holds: Vec::new(),
            mistakes: BTreeSet::new(),
        };
        translation.keep();
        for (name, setting) in &section.options {
            translation.option(name, setting);
        }
        translation.carried_over(all);
        translation.hold();
        let Translation { entries, holds, mistakes, .. } = translation;
        if mistakes.is_empty() {
            Ok(PolicyTable { entries, is_held: !holds.is_empty() })
        } else {
            Err(mistakes)
        }
    }
}

/// The options that a run of rotate-backups carries from a section to those that it reads later.
const CARRIED: [&str; 6] = [
    "exclude-list",
    "include-list",
    "ionice",
    "prefer-recent",
    "removal-command",
    "timestamp-pattern",
];

struct Translation<'a> {
    section: &'a IniSection,
    entries: Vec<TableEntry>,
    /// Why nothing may expire yet.
    holds: Vec<String>,
    mistakes: BTreeSet<IniMistake>,
}

impl Translation<'_> {
    /// All frequencies in one key, as our `keep` is replaced whole.
    fn keep(&mut self) {
        let mut kept = Vec::new();
        for frequency in Frequency::ALL {
            let Some(setting) = self.section.options.get(frequency.word()) else { continue };
            match period(&setting.value) {
                Ok(RetentionCount::Slots(slots, _)) if slots <= 0 => {
                    self.kept_none(frequency, setting)
                }
                Ok(period) => match period.to_toml() {
                    Some(count) => kept.push(format!("{frequency} = {count}")),
                    None => self.mistake(
                        frequency.word(),
                        setting,
                        "this is a longer time than any: write always",
                    ),
                },
                Err(problem) => self.mistake(frequency.word(), setting, problem),
            }
        }
        if !kept.is_empty() {
            self.key(format!("keep = {{ {} }}", kept.join(", ")));
        } else {
            self.holds.push(
                "no frequency is left: rotate-backups took those of its command line or of the \
                 section that it read before, refused to work, or deleted all it could; write a \
                 `keep` here"
                    .to_string(),
            );
        }
    }

    fn kept_none(&mut self, frequency: Frequency, setting: &IniSetting) {
        let problem = "left out, because a count is at least 1 here; with 0 or less \
                       rotate-backups kept nothing for the frequency, but perhaps its newest \
                       backup, which always stays here";
        self.note(frequency.word(), setting, problem);
    }

    fn option(&mut self, name: &str, setting: &IniSetting) {
        match name {
            "strict" => self.strict(setting),
            "prefer-recent" => self.prefer_recent(setting),
            "ionice" => self.ionice(setting),
            "exclude-list" => self.exclude_list(setting),
            "include-list" => self.include_list(setting),
            "timestamp-pattern" => self.timestamp_pattern(setting),
            "removal-command" => self.removal_command(setting),
            "use-sudo" => self.use_sudo(setting),
            "ssh-user" => self.note(
                name,
                setting,
                "no meaning here: the program runs where the snapshots are",
            ),
            frequency if Frequency::ALL.iter().any(|known| known.word() == frequency) => {}
            _ => self.note(
                name,
                setting,
                "no option of rotate-backups 8.1, which ignored it; so is it here",
            ),
        }
    }

    fn strict(&mut self, setting: &IniSetting) {
        match boolean(&setting.value) {
            Ok(true) => self.key("strict = true".to_string()),
            Ok(false) => self.beside(
                "strict",
                setting,
                "in an ini file this had no effect, rotate-backups was strict all the same unless \
                 called with --relaxed; so it stays strict here. false is what was asked for; it \
                 keeps snapshots for longer where some are missing",
                "strict = true",
            ),
            Err(problem) => self.mistake("strict", setting, problem),
        }
    }

    fn prefer_recent(&mut self, setting: &IniSetting) {
        match boolean(&setting.value) {
            Ok(true) => self.beside(
                "prefer-recent",
                setting,
                "the newest snapshot stands for its slot; the last client to push in the slot decides what \
                 is kept of it",
                "prefer = \"newest\"",
            ),
            Ok(false) => {
                let note = "the oldest stands for its slot";
                self.beside("prefer-recent", setting, note, "prefer = \"oldest\"");
            }
            Err(problem) => self.mistake("prefer-recent", setting, problem),
        }
    }

    fn ionice(&mut self, setting: &IniSetting) {
        let wider = "here for making snapshots as well as for removing them";
        match setting.value.as_str() {
            "" => {}
            "idle" | "3" => self.beside("ionice", setting, wider, "ionice = \"idle\""),
            "best-effort" | "2" => {
                let note = format!("{wider}, at the lowest level of the class");
                self.beside("ionice", setting, &note, "ionice = \"best-effort\"");
            }
            "realtime" | "1" => {
                self.note(
                    "ionice",
                    setting,
                    "left out: here are only \"none\", \"best-effort\" and \"idle\"",
                );
            }
            _ => self.mistake(
                "ionice",
                setting,
                "this is not a class: write idle, best-effort or realtime (3, 2, 1)",
            ),
        }
    }

    fn exclude_list(&mut self, setting: &IniSetting) {
        if list(&setting.value).is_empty() {
            return;
        }
        self.note(
            "exclude-list",
            setting,
            "no meaning here: whatever is not named as a snapshot is left alone",
        );
        if list(&setting.value)
            .into_iter()
            .any(|text| GlobPattern::new(text).may_match_a_snapshot())
        {
            self.holds.push(
                "exclude-list can match snapshots, which rotate-backups then never deleted"
                    .to_string(),
            );
        }
    }

    fn include_list(&mut self, setting: &IniSetting) {
        if list(&setting.value).is_empty() {
            return;
        }
        self.note(
            "include-list",
            setting,
            "no meaning here: whatever is named as a snapshot is rotated",
        );
        if !list(&setting.value).contains(&"*") {
            self.holds.push(
                "include-list may not match all snapshots, and rotate-backups never deleted the \
                 others"
                    .to_string(),
            );
        }
    }

    fn timestamp_pattern(&mut self, setting: &IniSetting) {
        if setting.value.is_empty() {
            return;
        }
        self.note(
            "timestamp-pattern",
            setting,
            "no meaning here: snapshots are named like 2026-11-22T19-08-31Z or 2019-08-02 \
             12:00:00, and other names are left alone",
        );
        self.holds.push(
            "the timestamp-pattern said which names rotate-backups touches at all".to_string(),
        );
    }

    fn removal_command(&mut self, setting: &IniSetting) {
        let Some(command) = setting.value.split_whitespace().next() else { return };
        self.note(
            "removal-command",
            setting,
            "no meaning here: the program removes snapshots by itself, as rm -fR does",
        );
        if !matches!(command, "rm" | "/bin/rm" | "/usr/bin/rm") {
            self.holds.push(
                "the removal-command may have done something else than to remove".to_string(),
            );
        }
    }

    fn use_sudo(&mut self, setting: &IniSetting) {
        match boolean(&setting.value) {
            Ok(_) => self.note(
                "use-sudo",
                setting,
                "no meaning here: the program runs as rsyncd's user or as yours",
            ),
            Err(problem) => self.mistake("use-sudo", setting, problem),
        }
    }

    /// Adds a note about options of other sections that were in force here, too, in a run over all.
    fn carried_over(&mut self, all: &[IniSection]) {
        let mut carried = Vec::new();
        let sets = |section: &IniSection, name| {
            section.options.get(name).is_some_and(|one| is_set(name, &one.value))
        };
        for name in CARRIED.into_iter().filter(|name| !sets(self.section, name)) {
            let earlier =
                all.iter().filter(|other| other.name < self.section.name && sets(other, name));
            if let Some(last) = earlier.max_by_key(|other| &other.name) {
                carried.push(format!("{name} of [{}] in line {}", last.name, last.line));
            }
        }
        if !carried.is_empty() {
            let note = format!(
                "In a run over all sections rotate-backups also used, by mistake, {}; here each \
                 table stands alone.",
                carried.join(", ")
            );
            self.entries.push(TableEntry { note: Some(note), key: None });
        }
    }

    fn hold(&mut self) {
        if self.holds.is_empty() {
            return;
        }
        let note = format!(
            "TODO: nothing expires as long as this line stands. It is here because {}. Find out \
             with `rsyncd-snapshot plan` what is to expire, then remove it.",
            self.holds.join("; and because ")
        );
        self.entries.push(TableEntry { note: Some(note), key: Some("max_expire = 0".to_string()) });
    }

    fn key(&mut self, key: String) {
        self.entries.push(TableEntry { note: None, key: Some(key) });
    }

    fn note(&mut self, name: &str, setting: &IniSetting, note: &str) {
        let note = format!("{}: {note}.", quoted(name, setting));
        self.entries.push(TableEntry { note: Some(note), key: None });
    }

    fn beside(&mut self, name: &str, setting: &IniSetting, note: &str, key: &str) {
        let note = format!("{}: {note}.", quoted(name, setting));
        self.entries.push(TableEntry { note: Some(note), key: Some(key.to_string()) });
    }

    fn mistake(&mut self, name: &str, setting: &IniSetting, problem: &str) {
        let message = format!("{name} = {}: {problem}", shortened(&setting.value));
        self.mistakes.insert(IniMistake { line: setting.line, message });
    }
}

fn quoted(name: &str, setting: &IniSetting) -> String {
    format!("`{} = {}` in line {}", shortened(name), shortened(&setting.value), setting.line)
}

/// More characters of a value than these say nothing more.
const MAX_QUOTED_CHARACTERS: usize = 80;

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED_CHARACTERS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_string(),
    }
}
