//! Printable, reversible text for arbitrary bytes.
//!
//! File names, module names and client names are bytes that a client chose. In a log or on a
//! terminal, a raw control byte forges lines or moves the cursor. So all bytes outside printable
//! UTF-8 become `\xHH`, and a backslash becomes `\\`. [`unescape`] inverts that, so records, which
//! are text, can hold any path.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Escapes `bytes` so that the result is printable, unambiguous and reversible.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == '\\' {
                text.push_str("\\\\");
            } else if is_unsafe(character) {
                push_hex(&mut text, character.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                text.push(character);
            }
        }
        push_hex(&mut text, chunk.invalid());
    }
    text
}

/// [`escape`] for a path.
pub(crate) fn escape_path(path: &Path) -> String {
    escape(path.as_os_str().as_bytes())
}

/// `bytes` as one word of a shell command, to be pasted: quoted only where that is needed.
pub(crate) fn shell_word(bytes: &[u8]) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%=".contains(byte);
    let text = escape(bytes);
    if !bytes.is_empty() && bytes.iter().all(is_plain) {
        text
    } else if text.as_bytes() == bytes {
        format!("'{}'", text.replace('\'', r"'\''"))
    } else {
        // bash, zsh and ksh read the escapes of `escape` in this form.
        format!("$'{}'", text.replace('\'', r"\'"))
    }
}

/// [`shell_word`] for a path.
pub(crate) fn shell_path(path: &Path) -> String {
    shell_word(path.as_os_str().as_bytes())
}

/// The bytes that [`escape`] made `text` from; `None` when it was not made by it.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'\\' {
            bytes.push(first);
            rest = tail;
            continue;
        }
        match tail {
            [b'\\', tail @ ..] => {
                bytes.push(b'\\');
                rest = tail;
            }
            [b'x', high, low, tail @ ..] => {
                let digit = |byte: &u8| (*byte as char).to_digit(16);
                bytes.push((digit(high)? * 16 + digit(low)?) as u8);
                rest = tail;
            }
            _ => return None,
        }
    }
    Some(bytes)
}

/// Replaces the characters that could disturb a line of log or terminal, and keeps backslashes. The
/// last step before output, for text whose values were escaped before.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unsafe(character) {
            push_hex(&mut line, character.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            line.push(character);
        }
    }
    Cow::Owned(line)
}

/// [`one_line`] for each line of a text of several.
pub(crate) fn lines(text: &str) -> String {
    let clean = |line: &str| one_line(line).into_owned();
    let ended = text.split_inclusive('\n').map(|line| match line.strip_suffix('\n') {
        Some(line) => clean(line) + "\n",
        None => clean(line),
    });
    ended.collect()
}

/// Deserializes a value that was escaped when this program wrote it. If another program has put
/// control characters there, they are escaped now.
pub(crate) fn deserialize_line<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<String, D::Error> {
    let text: String = serde::Deserialize::deserialize(deserializer)?;
    Ok(one_line(&text).into_owned())
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "\\x{byte:02x}");
    }
}

/// Control characters, and invisible ones that reorder or break lines or make two names look alike.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_the_round_trip_and_prints_on_one_line() {
        let all: Vec<u8> = (0..=255).chain(0..=255).rev().collect();
        let text = escape(&all);
        assert!(text.chars().all(|c| !c.is_control()));
        assert_eq!(unescape(&text).unwrap(), all);
    }

    #[test]
    fn ordinary_names_stay_readable() {
        assert_eq!(escape("Ünïcode & spaces".as_bytes()), "Ünïcode & spaces");
        assert_eq!(escape(b"a\nb\\c\x1b[1m\xff"), r"a\x0ab\\c\x1b[1m\xff");
        assert_eq!(escape("evil\u{202e}gpj".as_bytes()), r"evil\xe2\x80\xaegpj");
    }

    #[test]
    fn shell_words_are_quoted_where_they_have_to_be() {
        for (bytes, expected) in [
            (&b"/srv/backup/a-b_c.d"[..], "/srv/backup/a-b_c.d"),
            (b"", "''"),
            (b"/srv/my files", "'/srv/my files'"),
            (b"/srv/$HOME;x", "'/srv/$HOME;x'"),
            (b"it's", r"'it'\''s'"),
            ("Ünïcode".as_bytes(), "'Ünïcode'"),
            (b"a\nb", r"$'a\x0ab'"),
            (b"it's\xff", r"$'it\'s\xff'"),
            (br"back\slash", r"$'back\\slash'"),
        ] {
            assert_eq!(shell_word(bytes), expected);
        }
    }

    #[test]
    fn text_that_was_not_escaped_is_refused() {
        for text in [r"\", r"\x1", r"\xzz", r"\n"] {
            assert_eq!(unescape(text), None, "{text}");
        }
    }

    #[test]
    fn a_log_line_keeps_its_backslashes_but_no_control_character() {
        assert_eq!(one_line(r"name a\x0ab"), r"name a\x0ab");
        assert_eq!(one_line("a\nb"), r"a\x0ab");
    }
}
