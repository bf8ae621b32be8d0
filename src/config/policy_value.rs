//! The values of a policy file: what each kind accepts, and the message about any other value.
//!
//! A reader returns a valid value, or a mistake with the key, the value found and the accepted
//! ones. serde does not check the values, because it stops at the first mistake and the
//! administrator wants to see all of them.

use std::ops::RangeInclusive;
use std::path::{Component, Path};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::time_zone;
use crate::decide::duration_text::DurationText;
use crate::decide::free_space::FreeSpace;
use crate::decide::frequency::{Frequency, SlotCount};
use crate::decide::similar::did_you_mean;
use crate::decide::zone::Zone;
use crate::tell::escape::escape;

/// More snapshots than a disk holds, and small enough that no sum overflows.
const MAX_SNAPSHOTS: i64 = 1_000_000;

/// Longer strings are cut where a message quotes them.
const MAX_QUOTED_CHARACTERS: usize = 80;

/// A mistake in the policy file.
pub(crate) struct PolicyMistake {
    /// Its place, in bytes from the start of the text.
    pub(crate) offset: usize,
    /// The message without the place.
    pub(crate) message: String,
}

/// A value, or everything that is wrong with it.
pub(crate) type ValueResult<T> = Result<T, Vec<PolicyMistake>>;

/// A value of the file together with the path of keys that leads to it.
pub(crate) struct PolicyValue<'a, 'text> {
    key_path: String,
    spanned: &'a Spanned<DeValue<'text>>,
}

impl<'a, 'text> PolicyValue<'a, 'text> {
    /// The value that stands under `key_path`.
    pub(crate) fn new(key_path: String, spanned: &'a Spanned<DeValue<'text>>) -> Self {
        PolicyValue { key_path, spanned }
    }

    /// A table, whatever it holds.
    pub(crate) fn table(&self) -> ValueResult<&'a DeTable<'text>> {
        self.spanned.get_ref().as_table().ok_or_else(|| self.mistake("it must be a table"))
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&self) -> ValueResult<bool> {
        self.spanned.get_ref().as_bool().ok_or_else(|| self.mistake("it must be true or false"))
    }

    /// One of a few words, each with what it stands for.
    pub(crate) fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> ValueResult<T> {
        let chosen = self.text().and_then(|text| words.iter().find(|(word, _)| *word == text));
        chosen
            .map(|(_, meaning)| *meaning)
            .ok_or_else(|| self.mistake(&format!("it must be one of {}", quoted(words))))
    }

    /// Any number of a few words, sorted by what they stand for.
    pub(crate) fn some_of<T: Copy + Ord>(&self, words: &[(&str, T)]) -> ValueResult<Vec<T>> {
        let Some(array) = self.spanned.get_ref().as_array() else {
            return Err(self.mistake(&format!("it must be an array of some of {}", quoted(words))));
        };
        let element = |(index, spanned)| {
            PolicyValue::new(format!("{}[{index}]", self.key_path), spanned).one_of(words)
        };
        let mut chosen = all_or_mistakes(array.iter().enumerate().map(element))?;
        chosen.sort();
        chosen.dedup();
        Ok(chosen)
    }

    /// An integer within `range`.
    pub(crate) fn integer(&self, range: RangeInclusive<i64>) -> ValueResult<i64> {
        self.number().filter(|number| range.contains(number)).ok_or_else(|| {
            self.mistake(&format!(
                "it must be an integer from {} to {}",
                range.start(),
                range.end()
            ))
        })
    }

    /// A number of snapshots, which may be none.
    pub(crate) fn snapshots(&self) -> ValueResult<usize> {
        self.integer(0..=MAX_SNAPSHOTS).map(|number| number as usize)
    }

    /// A duration, which may be 0.
    pub(crate) fn span(&self) -> ValueResult<DurationText> {
        self.text().and_then(DurationText::parse).ok_or_else(|| {
            self.mistake(
                "it must be a duration of at most 1000 years in quotes: a number and one of the \
                 units s, m, h, d, w, such as \"90s\" or \"31d\"",
            )
        })
    }

    /// A duration longer than 0.
    pub(crate) fn positive_span(&self) -> ValueResult<DurationText> {
        let span = self.span()?;
        if span.seconds() == 0 {
            return Err(
                self.mistake("it must be a duration longer than 0, such as \"1h\" or \"31d\"")
            );
        }
        Ok(span)
    }

    /// A share in percent.
    pub(crate) fn percent(&self) -> ValueResult<u8> {
        let number = self.text().and_then(|text| text.strip_suffix('%')?.parse().ok());
        number.filter(|share| (1..=100).contains(share)).ok_or_else(|| {
            self.mistake("it must be a share from \"1%\" to \"100%\", which is never exceeded")
        })
    }

    /// The space that has to stay free on a file system.
    pub(crate) fn free_space(&self) -> ValueResult<FreeSpace> {
        self.text().and_then(FreeSpace::parse).ok_or_else(|| {
            self.mistake(
                "it must be a share from \"1%\" to \"90%\", or a number of bytes with \
                 one of the units K, M, G, T, such as \"50G\"",
            )
        })
    }

    /// Exit statuses of a transfer; rsyncd reports -1 when it could not start one.
    pub(crate) fn statuses(&self) -> ValueResult<Vec<i32>> {
        let Some(array) = self.spanned.get_ref().as_array() else {
            return Err(
                self.mistake("it must be an array of statuses from -1 to 255, such as [0, 24]")
            );
        };
        let element = |(index, spanned)| {
            PolicyValue::new(format!("{}[{index}]", self.key_path), spanned)
                .integer(-1..=255)
                .map(|status| status as i32)
        };
        all_or_mistakes(array.iter().enumerate().map(element))
    }

    /// Names of partial directories: relative paths, as rsync finds them in every directory.
    pub(crate) fn partial_dirs(&self) -> ValueResult<Vec<String>> {
        let Some(array) = self.spanned.get_ref().as_array() else {
            return Err(self.mistake("it must be an array of names such as [\".partial\"]"));
        };
        let element = |(index, spanned)| {
            PolicyValue::new(format!("{}[{index}]", self.key_path), spanned).partial_dir()
        };
        all_or_mistakes(array.iter().enumerate().map(element))
    }

    fn partial_dir(&self) -> ValueResult<String> {
        let is_plain = |name: &str| !name.is_empty() && name != "." && name != "..";
        let is_name =
            |text: &&str| !text.chars().any(char::is_control) && text.split('/').all(is_plain);
        self.text().filter(is_name).map(str::to_string).ok_or_else(|| {
            self.mistake(
                "it must be a relative path such as \".partial\" or \"work/partial\", \
                 without `.`, `..`, empty parts or control characters",
            )
        })
    }

    /// How many slots of which frequency, finest first.
    pub(crate) fn keep(&self) -> ValueResult<Vec<(Frequency, SlotCount)>> {
        let Some(table) = self.spanned.get_ref().as_table() else {
            return Err(
                self.mistake("it must be a table such as { hourly = 24, monthly = \"always\" }")
            );
        };
        if table.is_empty() {
            return Err(self.mistake(&format!(
                "it must name at least one of {}; with none of them everything would expire",
                frequency_words()
            )));
        }
        let mut kept =
            all_or_mistakes(table.iter().map(|(key, spanned)| self.kept_frequency(key, spanned)))?;
        kept.sort_by_key(|(frequency, _)| *frequency);
        Ok(kept)
    }

    fn kept_frequency(
        &self,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        spanned: &Spanned<DeValue<'_>>,
    ) -> ValueResult<(Frequency, SlotCount)> {
        let word = key.get_ref().as_ref();
        let key_path = format!("{}.{}", self.key_path, key_text(word));
        match Frequency::ALL.into_iter().find(|frequency| frequency.word() == word) {
            Some(frequency) => Ok((frequency, PolicyValue::new(key_path, spanned).slots()?)),
            None => {
                let message = format!(
                    "{key_path} is not a frequency{}; the frequencies are {}",
                    did_you_mean(word, Frequency::ALL.map(Frequency::word)),
                    frequency_words()
                );
                Err(vec![PolicyMistake { offset: key.span().start, message }])
            }
        }
    }

    /// How many slots of one frequency.
    fn slots(&self) -> ValueResult<SlotCount> {
        let count = match self.number() {
            Some(number) => {
                u32::try_from(number).ok().filter(|number| *number > 0).map(SlotCount::Newest)
            }
            None => self.text().and_then(SlotCount::parse),
        };
        count.ok_or_else(|| {
            self.mistake(if self.is_none_or_less() {
                "it must be 1 or more: keeping none would expire every snapshot that the \
                 frequency stands for; leave the frequency out if it is not wanted"
            } else {
                "it must be an integer from 1 to 4294967295, a product such as \"24*7\", or \
                 \"always\""
            })
        })
    }

    fn is_none_or_less(&self) -> bool {
        let zero = |factor: &str| factor.trim().parse::<i64>().is_ok_and(|number| number <= 0);
        self.number().is_some_and(|number| number <= 0)
            || self.text().is_some_and(|text| text.split('*').any(zero))
    }

    /// A time zone that this system has the rules of.
    pub(crate) fn zone(&self) -> ValueResult<Zone> {
        self.text().and_then(time_zone::named).ok_or_else(|| {
            self.mistake(
                "it must be \"local\" or an IANA name known to this system's tzdata, such as \
                 \"Europe/Amsterdam\"",
            )
        })
    }

    /// A pattern for snapshot roots: an absolute path in which `{module}` may stand.
    pub(crate) fn root(&self) -> ValueResult<String> {
        let Some(text) = self.text() else {
            return Err(self.mistake("it must be an absolute path, in which {module} may stand"));
        };
        let path = Path::new(text);
        let problem = if !path.is_absolute() {
            "it must be an absolute path"
        } else if text.chars().any(char::is_control) {
            "it must be a path without control characters"
        } else if path.components().any(|component| component == Component::ParentDir) {
            "it must be a path without `..`"
        } else if text.replace("{module}", "").contains(['{', '}']) {
            "it must be a path without braces other than those of {module}, the only placeholder"
        } else {
            return Ok(text.to_string());
        };
        Err(self.mistake(problem))
    }

    fn text(&self) -> Option<&'a str> {
        self.spanned.get_ref().as_str()
    }

    /// The value of an integer; `None` for other types, and for what no integer type holds.
    fn number(&self) -> Option<i64> {
        let integer = self.spanned.get_ref().as_integer()?;
        i64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    fn mistake(&self, rule: &str) -> Vec<PolicyMistake> {
        let message = format!("{} is {}; {rule}", self.key_path, described(self.spanned.get_ref()));
        vec![PolicyMistake { offset: self.spanned.span().start, message }]
    }
}

/// How a key is written in a file: bare where TOML allows that, else in quotes.
pub(crate) fn key_text(key: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !key.is_empty() && key.bytes().all(bare) {
        return key.to_string();
    }
    format!("\"{}\"", shortened(key))
}

/// All the values, or all the mistakes if there is any.
fn all_or_mistakes<T>(readings: impl Iterator<Item = ValueResult<T>>) -> ValueResult<Vec<T>> {
    let mut values = Vec::new();
    let mut mistakes = Vec::new();
    for reading in readings {
        match reading {
            Ok(value) => values.push(value),
            Err(found) => mistakes.extend(found),
        }
    }
    if mistakes.is_empty() { Ok(values) } else { Err(mistakes) }
}

fn quoted<T>(words: &[(&str, T)]) -> String {
    words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

fn frequency_words() -> String {
    Frequency::ALL.map(Frequency::word).join(", ")
}

fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string \"{}\"", shortened(text)),
        DeValue::Integer(integer) => format!("the integer {}", shortened(&integer.to_string())),
        DeValue::Float(float) => format!("the float {}", shortened(float.as_str())),
        DeValue::Boolean(boolean) => format!("the boolean {boolean}"),
        DeValue::Datetime(_) => "a datetime".to_string(),
        DeValue::Array(array) if array.is_empty() => "an empty array".to_string(),
        DeValue::Array(_) => "an array".to_string(),
        DeValue::Table(table) if table.is_empty() => "an empty table".to_string(),
        DeValue::Table(_) => "a table".to_string(),
    }
}

fn shortened(text: &str) -> String {
    let mut quoted: String = text.chars().take(MAX_QUOTED_CHARACTERS).collect();
    let is_cut = quoted.len() < text.len();
    quoted = escape(quoted.as_bytes());
    if is_cut {
        quoted.push_str("...");
    }
    quoted
}
