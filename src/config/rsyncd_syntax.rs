//! Splits the bytes of an `rsyncd.conf` into statements as rsync's own parser does.
//!
//! rsync reads by character, not by line: a backslash at the end of a line, before blanks at most,
//! joins the next line to a name or a value, but not to a comment. A reader that differs from rsync
//! would take snapshots of another directory than rsyncd serves.

/// One statement of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Statement {
    /// `[NAME]`, runs of whitespace reduced to one space.
    Section(Vec<u8>),
    /// `NAME = VALUE`.
    Parameter(Vec<u8>, Vec<u8>),
    /// The text of a line that is none of these; rsync logs it and reads on.
    Ignored(Vec<u8>),
    /// `&NAME VALUE`, without the `&`.
    Directive(Vec<u8>, Vec<u8>),
}

/// A reader of statements that knows which line it is on.
pub(crate) struct Statements<'a> {
    rest: &'a [u8],
    line: usize,
}

impl<'a> Statements<'a> {
    /// Reads `text` from its start.
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Statements { rest: text, line: 1 }
    }

    /// The next statement with the number of its first line, from 1; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<(usize, Result<Statement, &'static str>)> {
        loop {
            self.skip_blanks();
            let line = self.line;
            match *self.rest.first()? {
                // A backslash where a statement could begin is skipped, as rsync does.
                b'\n' | b'\\' => {
                    self.take();
                }
                b'#' | b';' => self.skip_line(),
                b'[' => return Some((line, self.section())),
                _ => return Some((line, self.parameter())),
            }
        }
    }

    fn section(&mut self) -> Result<Statement, &'static str> {
        self.take();
        let mut name = Vec::new();
        loop {
            match self.take() {
                Some(b']') => break,
                Some(b'\n') if continues(&mut name) => {}
                Some(b'\n') | None => return Err(UNCLOSED),
                Some(byte) => name.push(byte),
            }
        }
        self.skip_line();
        let words: Vec<&[u8]> =
            name.split(|byte| is_space(*byte)).filter(|word| !word.is_empty()).collect();
        let name = words.join(&b' ');
        if name.is_empty() { Err(NO_NAME) } else { Ok(Statement::Section(name)) }
    }

    fn parameter(&mut self) -> Result<Statement, &'static str> {
        let mut name = Vec::new();
        loop {
            match self.take() {
                Some(b'=') => break,
                Some(b' ' | b'\t') if name.first() == Some(&b'&') => {
                    self.skip_blanks();
                    if self.rest.first() == Some(&b'=') {
                        self.take();
                    }
                    break;
                }
                Some(b'\n') if continues(&mut name) => {}
                Some(b'\n') | None => return Ok(Statement::Ignored(name)),
                Some(byte) => name.push(byte),
            }
        }
        let value = self.value();
        let length = name.iter().rposition(|byte| !is_space(*byte)).map_or(0, |last| last + 1);
        name.truncate(length);
        match name.strip_prefix(b"&") {
            Some(directive) => Ok(Statement::Directive(directive.to_vec(), value)),
            None if name.is_empty() => Err(NO_PARAMETER),
            None => Ok(Statement::Parameter(name, value)),
        }
    }

    /// A value to the end of its last line. Blanks before a continuing backslash belong to it.
    fn value(&mut self) -> Vec<u8> {
        self.skip_blanks();
        let mut value = Vec::new();
        let mut length = 0;
        loop {
            match self.take() {
                Some(b'\r') => {}
                Some(b'\n') if continues(&mut value) => length = value.len(),
                Some(b'\n') | None => break,
                Some(byte) => {
                    value.push(byte);
                    if !is_space(byte) {
                        length = value.len();
                    }
                }
            }
        }
        value.truncate(length);
        value
    }

    fn take(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        self.line += usize::from(*first == b'\n');
        Some(*first)
    }

    fn skip_blanks(&mut self) {
        while self.rest.first().is_some_and(|byte| is_space(*byte) && *byte != b'\n') {
            self.take();
        }
    }

    fn skip_line(&mut self) {
        while self.take().is_some_and(|byte| byte != b'\n') {}
    }
}

/// Whether what was read of a line ends in a backslash, which is then taken off.
fn continues(line: &mut Vec<u8>) -> bool {
    let last = line.iter().rposition(|byte| !is_space(*byte));
    match last {
        Some(at) if line[at] == b'\\' => {
            line.truncate(at);
            true
        }
        _ => false,
    }
}

/// What makes rsync give the whole file up, and the edit.
const UNCLOSED: &str = "a module name without its closing bracket, at which rsync stops, so every \
                        connection fails; add `]` behind the name";
const NO_NAME: &str = "a module without a name, at which rsync stops, so every connection fails; \
                       write its name between the brackets, or take the line out";
const NO_PARAMETER: &str = "a parameter without a name, at which rsync stops, so every connection \
                            fails; write `NAME = VALUE`, or take the line out";

/// What C's `isspace` takes for whitespace, which includes the vertical tab.
pub(crate) fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(usize, Result<Statement, &'static str>)> {
        let mut statements = Statements::new(text.as_bytes());
        std::iter::from_fn(|| statements.next()).collect()
    }

    fn parameter(name: &str, value: &str) -> Result<Statement, &'static str> {
        Ok(Statement::Parameter(name.into(), value.into()))
    }

    fn value_of(text: &str) -> String {
        match read(text).pop() {
            Some((_, Ok(Statement::Parameter(_, value)))) => String::from_utf8(value).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn statements_know_their_first_line() {
        let text = "a=1\n\n# c\n; c\n[m]\nb = 1 \\\n 2\n\\ c = 3\n";
        let lines: Vec<usize> = read(text).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [1, 5, 6, 8]);
    }

    #[test]
    fn a_value_is_trimmed_but_its_inside_and_continuations_are_verbatim() {
        assert_eq!(value_of("path =  /a  b = c # d \t\r\n"), "/a  b = c # d");
        assert_eq!(value_of("path = /a \\  \n  b\n"), "/a   b");
        assert_eq!(value_of("path = /a \\\n\n"), "/a ");
        assert_eq!(value_of("path = \\\n /a"), " /a");
        assert_eq!(value_of("path = /a\\\r\nb"), "/ab");
        // Only a newline makes a continuation of a backslash.
        assert_eq!(value_of("path = /a\\"), "/a\\");
        assert_eq!(value_of("path ="), "");
        assert_eq!(value_of("pa\\\nth \\\n = /a"), "/a");
    }

    #[test]
    fn a_comment_is_never_continued_and_only_begins_a_line() {
        assert_eq!(read("# a \\\nb = 1"), [(2, parameter("b", "1"))]);
        assert_eq!(read("b#c;d = 1"), [(1, parameter("b#c;d", "1"))]);
        assert_eq!(read("\\ # a"), []);
    }

    #[test]
    fn a_section_name_has_single_spaces_and_what_follows_it_is_ignored() {
        let section = |name: &str| Ok(Statement::Section(name.into()));
        assert_eq!(read(" [  a \t b ] c = d \\\ne = 1")[0], (1, section("a b")));
        assert_eq!(read(" [  a \t b ] c = d \\\ne = 1").len(), 2);
        assert_eq!(read("[a\\\nb]"), [(1, section("ab"))]);
        assert_eq!(read("[a \\\n b]"), [(1, section("a b"))]);
    }

    #[test]
    fn a_directive_divides_at_a_blank_or_an_equals_sign() {
        let expected = Ok(Statement::Directive("Include".into(), "/a b".into()));
        for text in ["&Include /a b", "&Include\t = /a b\r\n", "&Include=/a b", "&Include  =/a b"] {
            assert_eq!(read(text), [(1, expected.clone())], "{text}");
        }
        assert_eq!(read("& = x"), [(1, Ok(Statement::Directive(vec![], "x".into())))]);
    }

    #[test]
    fn a_line_that_says_nothing_is_ignored_as_rsync_does() {
        assert_eq!(read("words")[0].1, Ok(Statement::Ignored("words".into())));
        assert_eq!(read("words\na = 1").len(), 2);
        assert_eq!(read("&include\na = 1").len(), 2);
    }

    #[test]
    fn what_makes_rsync_refuse_the_file_is_an_error() {
        for text in ["= 1", "[a", "[a\nb]", "[]", "[ \t]", "[a\\"] {
            assert!(read(text)[0].1.is_err(), "{text}");
        }
    }
}
