//! Text on a terminal: how wide a line may be, colours, and how long lines are folded.
//!
//! A line that the terminal itself wraps breaks words and columns. So lines are folded at blanks
//! before they are printed, and names that are too long lose their beginning. A command between
//! backticks and a path between quotes are never broken, so that they can be copied. Output that is
//! no terminal, such as a pipe or a file, gets every line whole.

use std::io::{IsTerminal, stdout};
use std::sync::OnceLock;

/// The width and colours of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terminal {
    /// Characters in a line.
    pub width: usize,
    /// Whether colours are wanted.
    pub colours: bool,
}

/// Colours by their SGR codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    /// A snapshot that goes.
    Red = 31,
    /// A snapshot that stays.
    Green = 32,
    /// A pinned snapshot.
    Yellow = 33,
    /// A partial snapshot.
    Cyan = 36,
}

/// The width if neither `COLUMNS` nor the terminal gives one.
const USUAL_WIDTH: usize = 80;

impl Terminal {
    /// Standard output, if it is a terminal.
    pub(crate) fn of_stdout() -> Option<Self> {
        let stdout = stdout();
        if !stdout.is_terminal() {
            return None;
        }
        let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let columns = variable("COLUMNS").and_then(|columns| columns.parse().ok());
        let actual =
            || rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
        let width =
            columns.filter(|width| *width > 0).or_else(|| actual().filter(|width| *width > 0));
        let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && variable("TERM").as_deref() != Some("dumb");
        Some(Terminal { width: width.unwrap_or(USUAL_WIDTH).clamp(40, 240), colours })
    }

    /// `text` in a colour, if colours are wanted.
    pub(crate) fn paint(&self, text: &str, colour: Colour) -> String {
        match self.colours {
            true => format!("\x1b[{}m{text}\x1b[0m", colour as u8),
            false => text.to_string(),
        }
    }
}

static LINE_WIDTH: OnceLock<Option<usize>> = OnceLock::new();

/// How many characters a printed line may have; `None` for any number, if standard output is no
/// terminal or after [`leave_lines_whole`].
pub(crate) fn line_width() -> Option<usize> {
    *LINE_WIDTH.get_or_init(|| Terminal::of_stdout().map(|terminal| terminal.width))
}

/// Lines are neither folded nor shortened from now on, if none was printed before.
pub(crate) fn leave_lines_whole() {
    let _ = LINE_WIDTH.set(None);
}

/// `text` with each line that has more than `width` characters folded at blanks. What follows the
/// first line is indented: as the text of a line that begins with a word and two blanks, such as an
/// option in a help text.
pub(crate) fn fold(text: &str, width: usize) -> String {
    let mut folded = String::with_capacity(text.len());
    for line in text.lines() {
        let lead = line.len() - line.trim_start().len();
        let text_at = text_after_word(line).filter(|at| at * 2 <= width);
        let indent = text_at.unwrap_or(lead + 2);
        for (number, part) in split(line, width, indent).into_iter().enumerate() {
            folded += &" ".repeat(if number == 0 { 0 } else { indent });
            folded += part;
            folded.push('\n');
        }
    }
    if !text.ends_with('\n') {
        folded.pop();
    }
    folded
}

/// Where the text begins that follows a word and two blanks, in characters.
fn text_after_word(line: &str) -> Option<usize> {
    let lead = line.len() - line.trim_start().len();
    let gap = lead + line[lead..].find("  ")?;
    Some(characters(&line[..gap]) + line[gap..].len() - line[gap..].trim_start().len())
}

/// The parts of one line, of at most `width` characters each; those after the first leave room for
/// `indent`. A longer word stays whole.
pub(crate) fn split(line: &str, width: usize, indent: usize) -> Vec<&str> {
    if characters(line) <= width {
        return vec![line];
    }
    let mut parts = Vec::new();
    let (mut start, mut end, mut used) = (0, 0, 0);
    for word in words(line) {
        let room = if parts.is_empty() { width } else { width.saturating_sub(indent) };
        let length = characters(word);
        if used > 0 && used + length > room {
            parts.push(&line[start..end]);
            start = end + word.len() - word.trim_start().len();
            used = characters(word.trim_start());
        } else {
            used += length;
        }
        end += word.len();
    }
    parts.push(&line[start..]);
    parts
}

/// The words of a line, each with the blanks before it. What is between two backticks, or between
/// the quotes of a shell, is one word. A quote within a word is an apostrophe.
fn words(line: &str) -> Vec<&str> {
    let (mut words, mut start) = (Vec::new(), 0);
    let (mut quoted_by, mut has_begun) = (None, false);
    for (at, letter) in line.char_indices() {
        let is_end = quoted_by == Some(letter);
        if is_end {
            quoted_by = None;
        } else if quoted_by.is_none()
            && (letter == '`' || letter == '\'' && !has_begun)
            && line[at + 1..].contains(letter)
        {
            quoted_by = Some(letter);
        }
        let is_blank = letter == ' ' && quoted_by.is_none();
        if is_blank && has_begun {
            words.push(&line[start..at]);
            start = at;
        }
        has_begun = !is_blank;
    }
    words.push(&line[start..]);
    words
}

/// The last `width` characters of a name, with an ellipsis for what is left out.
pub(crate) fn shorten(name: &str, width: usize) -> String {
    let length = name.chars().count();
    match length > width {
        true => {
            let rest = name.chars().skip(length + 1 - width.max(1));
            std::iter::once('…').chain(rest).collect()
        }
        false => name.to_string(),
    }
}

/// How many characters a text shows; colours take none.
fn characters(text: &str) -> usize {
    let mut count = 0;
    let mut is_colour = false;
    for letter in text.chars() {
        match (is_colour, letter) {
            (true, 'm') => is_colour = false,
            (true, _) => {}
            (false, '\x1b') => is_colour = true,
            (false, _) => count += 1,
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_folded_at_blanks() {
        for (text, expected) in [
            ("short\n", "short\n"),
            ("one two three four\n", "one two\n  three\n  four\n"),
            ("  one two three\n", "  one two\n    three\n"),
            ("a word_of_many_letters b\n", "a\n  word_of_many_letters\n  b\n"),
            ("run `a b c d e f g` now\n", "run\n  `a b c d e f g`\n  now\n"),
            ("a client's 'my own file' of it\n", "a client's\n  'my own file'\n  of it\n"),
            ("it`s a lone quote\n", "it`s a\n  lone\n  quote\n"),
            ("-o  one two three\n", "-o  one\n    two\n    three\n"),
            ("no newline at all", "no newline\n  at all"),
            ("\n\n", "\n\n"),
            ("äöüäöü äöü\n", "äöüäöü äöü\n"),
            ("\x1b[31mten chars.\x1b[0m\n", "\x1b[31mten chars.\x1b[0m\n"),
        ] {
            assert_eq!(fold(text, 10), expected, "{text:?}");
        }
    }

    #[test]
    fn a_folded_text_has_the_same_words() {
        let text = "CRITICAL - data: 12 things, see `rsyncd-snapshot check data` and /a/path of it";
        for width in 1..90 {
            let folded = fold(text, width);
            let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(words(&folded), text);
            assert!(folded.contains("`rsyncd-snapshot check data`"), "{folded}");
            let longest = folded.lines().filter(|line| !line.contains('`')).map(str::len).max();
            assert!(width < 12 || longest <= Some(width), "{width}: {folded}");
        }
    }

    #[test]
    fn a_name_loses_its_beginning() {
        for (name, expected) in
            [("short", "short"), ("exactly8", "exactly8"), ("/srv/backup/x", "…ackup/x")]
        {
            assert_eq!(shorten(name, 8), expected);
        }
        assert_eq!(shorten("ab", 0), "…");
    }
}
