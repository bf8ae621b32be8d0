//! The texts of files as `setup` leaves them: each is the old text with something at its end, so
//! nothing that the administrator wrote is changed.

/// What a new `rsyncd.conf` begins with.
pub(crate) const NEW_CONF: &str = "\
# The modules are in the files of the directory that the last line names.
# After a change: rsyncd-snapshot check

# A client chooses its own PTR record, and looking it up can stall a connection.
reverse lookup = no

# rsyncd logs to syslog unless it has a file of its own.
# log file = /var/log/rsyncd.log
";

/// The characters of a secret: 32 of them, so that five random bits choose one. Those that look
/// alike are left out.
const SECRET_CHARACTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// How many random bytes a secret is made of, each of which gives a character: 160 bits.
pub(crate) const SECRET_BYTES: usize = 32;

/// A secret out of random bytes.
pub(crate) fn secret(random: &[u8; SECRET_BYTES]) -> String {
    let character = |byte: &u8| char::from(SECRET_CHARACTERS[usize::from(byte % 32)]);
    random.iter().map(character).collect()
}

/// `rsyncd.conf` with the line that includes the directory. The line is the last one, so the
/// modules in the directory get the same defaults as one at the end of the file would.
pub(crate) fn with_include(text: &[u8], directory: &[u8]) -> Vec<u8> {
    let line = b"# Modules that `rsyncd-snapshot setup` has written; rsync reads the files that \
                 end in .conf.\n&include ";
    appended(text, &[line, directory, b"\n"].concat(), b"\n")
}

/// The file of a module with more sections.
pub(crate) fn with_sections(text: &[u8], sections: &[u8]) -> Vec<u8> {
    appended(text, sections, b"\n")
}

/// The secrets file with a line for another user.
pub(crate) fn with_secret(text: &[u8], user: &[u8], secret: &str) -> Vec<u8> {
    appended(text, &[user, b":", secret.as_bytes(), b"\n"].concat(), b"")
}

/// `text` with `more` in lines of its own, after a `gap`.
fn appended(text: &[u8], more: &[u8], gap: &[u8]) -> Vec<u8> {
    if text.is_empty() {
        return more.to_vec();
    }
    let end: &[u8] = if text.ends_with(b"\n") { b"" } else { b"\n" };
    [text, end, gap, more].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_stays_and_keeps_its_lines() {
        for (text, expected) in [
            ("", "ann:x\n"),
            ("bob:y\n", "bob:y\nann:x\n"),
            ("bob:y", "bob:y\nann:x\n"),
            ("# none\n\n", "# none\n\nann:x\n"),
        ] {
            assert_eq!(with_secret(text.as_bytes(), b"ann", "x"), expected.as_bytes(), "{text}");
        }
        for (text, begin) in [("a = 1", "a = 1\n\n# M"), ("a = \\\n", "a = \\\n\n# M"), ("", "# M")]
        {
            let text = with_include(text.as_bytes(), b"/etc/rsyncd.d");
            let text = String::from_utf8(text).expect("UTF-8");
            assert!(text.starts_with(begin), "{text}");
            assert!(text.ends_with("\n&include /etc/rsyncd.d\n"), "{text}");
            assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        }
    }

    #[test]
    fn a_secret_has_a_character_for_each_random_byte() {
        let mut random = [0; SECRET_BYTES];
        random.iter_mut().zip(0..).for_each(|(byte, number)| *byte = number);
        let secret = secret(&random);
        assert_eq!(secret.as_bytes(), SECRET_CHARACTERS, "each once");
        assert_eq!(super::secret(&[255; SECRET_BYTES]), "9".repeat(SECRET_BYTES));
    }
}
