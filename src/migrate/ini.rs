//! Reads the text of an ini file as the `RawConfigParser` of Python's `configparser` does, which
//! rotate-backups uses.
//!
//! No crate reads these files alike: a value continues over lines that are indented deeper than its
//! option, blank lines and comments among them; `#` and `;` begin a comment only at the beginning
//! of a line; `:` divides as well as `=`; `[DEFAULT]` applies to every section; nothing is
//! interpolated. A reader that differs in one of these would translate another policy than the one
//! that was in force. All mistakes are reported at once, each with its line.

use std::collections::BTreeMap;

/// A section with the options of `[DEFAULT]` among its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IniSection {
    /// What stands between its brackets, blanks and all.
    pub name: String,
    /// The line of its header, from 1.
    pub line: usize,
    /// Its options by name in lower case.
    pub options: IniOptions,
}

/// Options by name in lower case.
pub(crate) type IniOptions = BTreeMap<String, IniSetting>;

/// The value of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IniSetting {
    /// The value, with newlines where it goes on over several lines.
    pub value: String,
    /// The line that it begins on, from 1.
    pub line: usize,
}

/// A mistake in the file; mistakes sort by line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct IniMistake {
    /// Its line, from 1.
    pub line: usize,
    /// The message with the remedy, not escaped yet.
    pub message: String,
}

/// Reads `text`, in the order of the file.
///
/// # Errors
/// Everything for which `RawConfigParser` refuses a file, and text that is not UTF-8 outside of
/// comments, which is no text to Python either.
pub(crate) fn read(text: &[u8]) -> Result<Vec<IniSection>, Vec<IniMistake>> {
    let mut reader = IniReader::default();
    for (index, line) in lines(text).into_iter().enumerate() {
        reader.line(index + 1, line);
    }
    reader.finish()
}

/// What Python's `str.strip` takes for whitespace.
pub(crate) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\x1c'..='\x1f').contains(&character)
}

/// `text` without whitespace around it, as Python sees it.
pub(crate) fn stripped(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// The lines as Python's universal newlines divide them: at `\n`, `\r\n` and a lone `\r`.
fn lines(text: &[u8]) -> Vec<&[u8]> {
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    let mut lines = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        lines.extend(line.strip_suffix(b"\r").unwrap_or(line).split(|byte| *byte == b'\r'));
    }
    lines
}

const DEFAULT: &str = "DEFAULT";

/// The section that is being read.
#[derive(Clone, Copy, Default)]
enum Current {
    #[default]
    None,
    Default,
    IniSection(usize),
}

#[derive(Default)]
struct IniReader {
    defaults: IniOptions,
    sections: Vec<IniSection>,
    current: Current,
    /// The option that a deeper line would continue.
    option: Option<String>,
    /// How deep the last header or option is indented.
    indent: usize,
    mistakes: Vec<IniMistake>,
}

impl IniReader {
    fn line(&mut self, number: usize, bytes: &[u8]) {
        if bytes.trim_ascii_start().starts_with(b"#") || bytes.trim_ascii_start().starts_with(b";")
        {
            return;
        }
        let Ok(line) = std::str::from_utf8(bytes) else {
            self.tell(number, "this is not UTF-8 text: convert the file, with iconv for example");
            return;
        };
        let content = stripped(line);
        let indent = line.chars().take_while(|character| is_space(*character)).count();
        match content.chars().next() {
            None => self.continues(""),
            Some('#' | ';') => {}
            Some(_) if self.option.is_some() && indent > self.indent => self.continues(content),
            Some(_) => {
                self.indent = indent;
                self.header_or_option(number, content);
            }
        }
    }

    /// Another line of the option before, if there is one.
    fn continues(&mut self, content: &str) {
        let Some(name) = self.option.clone() else { return };
        if let Some(setting) = self.options().and_then(|options| options.get_mut(&name)) {
            setting.value.push('\n');
            setting.value.push_str(content);
        }
    }

    fn header_or_option(&mut self, number: usize, content: &str) {
        // Python ignores the text after the last bracket, too.
        let header = content.strip_prefix('[').and_then(|rest| rest.rsplit_once(']'));
        match header.filter(|(name, _)| !name.is_empty()) {
            Some((name, _)) => self.section(number, name),
            None => self.option(number, content),
        }
    }

    fn section(&mut self, number: usize, name: &str) {
        self.option = None;
        if name == DEFAULT {
            self.current = Current::Default;
            return;
        }
        if let Some(first) = self.sections.iter().find(|section| section.name == name) {
            let message = format!(
                "[{name}] stands here again after line {}, for which rotate-backups refuses the \
                 file: join the two",
                first.line
            );
            self.tell(number, &message);
        }
        self.current = Current::IniSection(self.sections.len());
        self.sections.push(IniSection {
            name: name.to_string(),
            line: number,
            options: IniOptions::new(),
        });
    }

    fn option(&mut self, number: usize, content: &str) {
        let divided =
            content.split_once(['=', ':']).map(|(name, value)| (stripped(name), stripped(value)));
        let Some((name, value)) = divided.filter(|(name, _)| !name.is_empty()) else {
            self.tell(
                number,
                "this is neither a [directory], nor an option with its = or :, nor a comment",
            );
            return;
        };
        let name = name.to_lowercase();
        self.option = Some(name.clone());
        let Some(options) = self.options() else {
            self.option = None;
            self.tell(
                number,
                &format!("{name} stands above the first [directory]: put it under one"),
            );
            return;
        };
        let setting = IniSetting { value: value.to_string(), line: number };
        if let Some(first) = options.insert(name.clone(), setting) {
            let message = format!(
                "{name} stands here again after line {}, for which rotate-backups refuses the \
                 file: remove one of them",
                first.line
            );
            self.tell(number, &message);
        }
    }

    fn options(&mut self) -> Option<&mut IniOptions> {
        match self.current {
            Current::None => None,
            Current::Default => Some(&mut self.defaults),
            Current::IniSection(index) => {
                self.sections.get_mut(index).map(|section| &mut section.options)
            }
        }
    }

    fn finish(mut self) -> Result<Vec<IniSection>, Vec<IniMistake>> {
        if !self.mistakes.is_empty() {
            return Err(self.mistakes);
        }
        for section in &mut self.sections {
            for (name, setting) in &self.defaults {
                section.options.entry(name.clone()).or_insert_with(|| setting.clone());
            }
            for setting in section.options.values_mut() {
                setting.value.truncate(setting.value.trim_end_matches(is_space).len());
            }
        }
        Ok(self.sections)
    }

    fn tell(&mut self, line: usize, message: &str) {
        self.mistakes.push(IniMistake { line, message: message.to_string() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, then `option=value` each.
    fn told(text: &[u8]) -> Vec<Vec<String>> {
        let sections = read(text).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
        let told = |section: IniSection| {
            let options = section
                .options
                .into_iter()
                .map(|(name, setting)| format!("{name}={}", setting.value));
            std::iter::once(section.name).chain(options).collect()
        };
        sections.into_iter().map(told).collect()
    }

    fn mistake(text: &[u8]) -> (usize, String) {
        let mut mistakes = read(text).expect_err("a mistake");
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        let mistake = mistakes.remove(0);
        (mistake.line, mistake.message)
    }

    // The expectations of these are what Python 3.11 answers.

    #[test]
    fn options_are_divided_by_the_first_of_two_signs_and_have_no_case() {
        assert_eq!(
            told(b"[a]\nDaily : 1\nWEEKLY=2=3\nx:y=z\n"),
            [["a", "daily=1", "weekly=2=3", "x=y=z"]]
        );
    }

    #[test]
    fn comments_begin_lines_only() {
        assert_eq!(
            told(b"# [b]\n[a] ; none\n ; x = 1\ndaily = 7 # kept\n"),
            [["a", "daily=7 # kept"]]
        );
        assert_eq!(told(b" ; Latin-1: \xfc\n[a]\n"), [["a"]]);
        assert_eq!(mistake(b"[a]\nx = \xfc # Latin-1\n").0, 2);
    }

    #[test]
    fn deeper_lines_continue_a_value_and_others_do_not() {
        assert_eq!(told(b"[a]\n  x = 1\n  y = 2\n"), [["a", "x=1", "y=2"]]);
        assert_eq!(told(b"[a]\nx = 1\n  y = 2\n"), [["a", "x=1\ny = 2"]]);
        assert_eq!(told(b"[a]\nx =\n  1,\n\n  # c\n  2\n\n\n"), [["a", "x=\n1,\n\n2"]]);
        assert_eq!(told(b"[a]\nx = 1\n [b]\n"), [["a", "x=1\n[b]"]]);
        assert_eq!(told(b"  [a]\n    x = 1\n  [b]\n"), [vec!["a", "x=1"], vec!["b"]]);
    }

    #[test]
    fn a_header_ends_with_its_last_bracket() {
        assert_eq!(told(b"[a]b]c\n[ d ]\n[[]\n"), [["a]b"], [" d "], ["["]]);
    }

    #[test]
    fn the_defaults_reach_every_section_that_does_not_override_them() {
        let text = b"[a]\ny = 3\n[DEFAULT]\nx = 1\ny = 2\n[b]\n[DEFAULT]\nz = 4\n";
        assert_eq!(told(text), [["a", "x=1", "y=3", "z=4"], ["b", "x=1", "y=2", "z=4"]]);
    }

    #[test]
    fn lines_end_in_every_manner() {
        assert_eq!(told(b"\xef\xbb\xbf[a]\r\nx = 1\ry = 2\n"), [["a", "x=1", "y=2"]]);
        assert_eq!(told("[a]\nx =\u{a0}\u{1f}1\u{85}2\n".as_bytes()), [["a", "x=1\u{85}2"]]);
    }

    #[test]
    fn mistakes_name_their_line() {
        assert_eq!(mistake(b"\nx = 1\n").0, 2);
        for (text, line) in [
            (&b"[a]\nwords\n"[..], 2),
            (b"[a]\n= 1\n", 2),
            (b"[a]\n[]\n", 2),
            (b"[a]\nx = 1\nX : 2\n", 3),
            (b"[a]\n[b]\n[a]\n", 3),
            (b"[DEFAULT]\nx = 1\n[DEFAULT]\nx = 1\n", 4),
        ] {
            assert_eq!(mistake(text).0, line);
        }
        assert!(mistake(b"[a]\nx = 1\nX : 2\n").1.contains("after line 2"));
        assert_eq!(read(b"x = 1\n[a]\nwords\n[a]\n").expect_err("three").len(), 3);
    }
}
