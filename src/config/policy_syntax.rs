//! The text of a policy file: its lines, and which of them are TOML.
//!
//! The TOML parser recovers from errors, but after some it skips whole tables without an error, and
//! its reading of a broken line is a guess. So broken lines are blanked and the rest is parsed
//! again: this finds every mistake in the rest and invents none.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::DeTable;

use crate::config::policy_value::PolicyMistake;
use crate::tell::escape::{escape_path, one_line};

/// A file that needs more rounds of blanking is no policy.
const MAX_ROUNDS: usize = 32;

/// A text without the lines that are not TOML.
pub(crate) struct TomlText {
    /// The text with broken lines blanked, so that offsets stay the same.
    pub(crate) sound_text: String,
    /// The first error of each broken line, by where the line begins.
    pub(crate) mistakes: BTreeMap<usize, PolicyMistake>,
    /// From this offset on it is unknown which table a key belongs to.
    pub(crate) uncertain_from: usize,
}

impl TomlText {
    /// Reads `text`, which has no byte order mark.
    pub(crate) fn of(text: &str) -> Self {
        let lines = LinePositions::new(text);
        let mut syntax = TomlText {
            sound_text: text.to_string(),
            mistakes: BTreeMap::new(),
            uncertain_from: usize::MAX,
        };
        for _ in 0..MAX_ROUNDS {
            let broken = syntax.broken_lines(&lines);
            if broken.is_empty() {
                return syntax;
            }
            broken.into_iter().for_each(|(start, mistake)| syntax.blank(start, mistake));
        }
        syntax.uncertain_from = 0;
        syntax
    }

    /// The starts of lines that are not TOML, each with its first error.
    fn broken_lines(&self, lines: &LinePositions<'_>) -> BTreeMap<usize, PolicyMistake> {
        let (_, errors) = DeTable::parse_recoverable(&self.sound_text);
        let mut broken = BTreeMap::new();
        for error in errors {
            let offset = error.span().map_or(0, |span| span.start);
            let message = format!("this is not TOML: {}", error.message());
            if offset < self.uncertain_from {
                broken.entry(lines.start(offset)).or_insert(PolicyMistake { offset, message });
            }
        }
        broken
    }

    /// Blanks the line that begins at `start`.
    fn blank(&mut self, start: usize, mistake: PolicyMistake) {
        let line = self.sound_text[start..].lines().next().unwrap_or_default();
        let range = start..start + line.len();
        // Without its header, keys would count for the table above. An error at a blank line means
        // that a string or an array was opened at an unknown place above and never closed.
        if line.trim().is_empty() || line.trim_start().starts_with('[') {
            self.uncertain_from = self.uncertain_from.min(start);
        }
        self.sound_text.replace_range(range.clone(), &" ".repeat(range.len()));
        self.mistakes.entry(start).or_insert(mistake);
    }
}

/// Where the lines of a text begin, to name places in it.
pub(crate) struct LinePositions<'text> {
    text: &'text str,
    starts: Vec<usize>,
}

impl<'text> LinePositions<'text> {
    /// The lines of `text`.
    pub(crate) fn new(text: &'text str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        LinePositions {
            text,
            starts: std::iter::once(0).chain(newlines.map(|(at, _)| at + 1)).collect(),
        }
    }

    /// A mistake as one complete line.
    pub(crate) fn told(&self, file: &Path, mistake: &PolicyMistake) -> String {
        let start = self.start(mistake.offset);
        let line = self.starts.partition_point(|other| *other <= start);
        // Columns are characters, as editors count them.
        let before = self.text.get(start..mistake.offset).unwrap_or_default();
        let column = before.chars().count() + 1;
        one_line(&format!("{}:{line}:{column}: {}", escape_path(file), mistake.message))
            .into_owned()
    }

    /// Where the line that holds `offset` begins.
    fn start(&self, offset: usize) -> usize {
        let following = self.starts.partition_point(|start| *start <= offset);
        self.starts.get(following.saturating_sub(1)).copied().unwrap_or_default()
    }
}
