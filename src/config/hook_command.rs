//! The command of a hook in `rsyncd.conf`, as far as it can be read without a shell.
//!
//! rsyncd gives the command to a shell. Only the simple case is understood: one program with
//! arguments, quoted or not, and redirections. What the shell makes of anything else is not
//! predicted here.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::config::rsyncd_module::{RsyncdModule, variable};
use crate::tell::escape::escape;

/// What a shell would run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HookCommand {
    /// A program and its arguments.
    Words(Vec<Vec<u8>>),
    /// More than that, or what depends on the daemon's environment, and what it is.
    Shell(String),
}

/// A variable of a connection in the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HookVariable {
    /// rsync puts this plain text in its place.
    Plain(Vec<u8>),
    /// The text is fixed and is not plain, so rsync turns every transfer away.
    NeverPlain(Vec<u8>),
    /// The text depends on the client. rsync turns the transfer away if it is not plain.
    OfClient,
    /// The text is mostly not plain, as the arguments of a transfer are.
    MostlyNot,
}

/// The variables of the connection that the command names, with what becomes of them.
pub(crate) fn variables(command: &[u8], module: &RsyncdModule) -> Vec<(String, HookVariable)> {
    let mut found: Vec<(String, HookVariable)> = Vec::new();
    let mut rest = command;
    while !rest.is_empty() {
        let Some(name) = variable(rest) else {
            rest = &rest[1..];
            continue;
        };
        rest = &rest[name.len() + 2..];
        if name.starts_with(b"RSYNC_") {
            found.push((escape(name), meaning(name, module)));
        }
    }
    found
}

fn meaning(name: &[u8], module: &RsyncdModule) -> HookVariable {
    let fixed = |value: Vec<u8>| match is_plain(&value) {
        true => HookVariable::Plain(value),
        false => HookVariable::NeverPlain(value),
    };
    match name {
        b"RSYNC_MODULE_NAME" => fixed(module.name.clone()),
        b"RSYNC_MODULE_PATH" => match module.path() {
            Ok(path) => fixed(path.into_os_string().into_encoded_bytes()),
            Err(_) => HookVariable::OfClient,
        },
        b"RSYNC_PID" | b"RSYNC_EXIT_STATUS" | b"RSYNC_RAW_STATUS" | b"RSYNC_HOST_ADDR" => {
            HookVariable::Plain(b"0".to_vec())
        }
        b"RSYNC_USER_NAME" | b"RSYNC_HOST_NAME" => HookVariable::OfClient,
        _ => HookVariable::MostlyNot,
    }
}

/// Whether rsync 3.5 puts the text into a command of a hook.
fn is_plain(value: &[u8]) -> bool {
    !value.iter().any(|byte| b"'\"`$\\;&|<>()*?[]# ".contains(byte) || byte.is_ascii_control())
}

/// A file that the shell opens before it runs the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Redirection {
    /// Its absolute path.
    pub(crate) file: PathBuf,
    pub(crate) writes: bool,
}

/// Reads the command of a module's hook.
pub(crate) fn read(command: &[u8], module: &RsyncdModule) -> HookCommand {
    read_line(command, module, &mut Vec::new())
}

/// The files with absolute paths that the shell surely opens before it runs the command.
pub(crate) fn redirections(command: &[u8], module: &RsyncdModule) -> Vec<Redirection> {
    let mut found = Vec::new();
    match read_line(command, module, &mut found) {
        HookCommand::Words(_) => found,
        HookCommand::Shell(_) => Vec::new(),
    }
}

fn read_line(command: &[u8], module: &RsyncdModule, files: &mut Vec<Redirection>) -> HookCommand {
    let mut words = Words::default();
    let mut rest = command;
    while let Some((&byte, tail)) = rest.split_first() {
        let name = variable(rest);
        rest = tail;
        if let Some(name) = name {
            rest = &tail[name.len() + 1..];
            match meaning(name, module) {
                _ if !name.starts_with(b"RSYNC_") => {
                    return HookCommand::Shell(format!("the variable %{}%", escape(name)));
                }
                HookVariable::Plain(value) => words.push(&value),
                // Whatever it is, it is one word, and stands in messages as in the file.
                _ => words.push(&[b"%", name, b"%"].concat()),
            }
            continue;
        }
        match byte {
            b' ' | b'\t' => words.end(),
            b'\'' => match rest.iter().position(|byte| *byte == b'\'') {
                Some(end) => {
                    words.push(&rest[..end]);
                    rest = &rest[end + 1..];
                }
                None => return HookCommand::Shell("a quote without its end".to_string()),
            },
            b'"' => match rest.iter().position(|byte| b"\"$`\\%".contains(byte)) {
                Some(end) if rest[end] == b'"' => {
                    words.push(&rest[..end]);
                    rest = &rest[end + 1..];
                }
                _ => return HookCommand::Shell("a string that the shell expands".to_string()),
            },
            b'\\' => match rest.split_first() {
                Some((&next, tail)) if next != b'\n' => {
                    words.push(&[next]);
                    rest = tail;
                }
                _ => return HookCommand::Shell("a backslash at its end".to_string()),
            },
            b'<' | b'>' => match redirection(rest) {
                Some((file, tail)) => {
                    words.take_back_number();
                    let path = file.filter(|file| file.starts_with(b"/"));
                    files.extend(path.map(|path| Redirection {
                        file: PathBuf::from(OsStr::from_bytes(path)),
                        writes: byte == b'>' || rest.starts_with(b">"),
                    }));
                    rest = tail;
                }
                None => return HookCommand::Shell("a redirection".to_string()),
            },
            b';' | b'&' | b'|' | b'(' | b')' | b'$' | b'`' | b'*' | b'?' | b'[' | b'#' | b'~'
            | b'{' | b'}' | b'!' | b'\n' => {
                return HookCommand::Shell(format!("the shell's `{}`", escape(&[byte])));
            }
            _ => words.push(&[byte]),
        }
    }
    words.finish()
}

/// The file of a redirection whose `<` or `>` has been read, and what follows; none if it is not a
/// simple one. Of `>&2` there is no file.
fn redirection(text: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let operator = text.iter().take_while(|byte| b">&|".contains(byte)).count();
    let copies = text.starts_with(b"&");
    let text = text[operator..].trim_ascii_start();
    let length = text
        .iter()
        .take_while(|byte| byte.is_ascii_alphanumeric() || b"/._-+,:@=".contains(byte))
        .count();
    let ends = text.get(length).is_none_or(|byte| b" \t<>".contains(byte));
    let (file, tail) = text.split_at(length);
    (operator <= 1 && length > 0 && ends).then_some(((!copies).then_some(file), tail))
}

/// The words that have been read so far.
#[derive(Default)]
struct Words {
    done: Vec<Vec<u8>>,
    current: Option<Vec<u8>>,
}

impl Words {
    fn push(&mut self, bytes: &[u8]) {
        self.current.get_or_insert_default().extend_from_slice(bytes);
    }

    fn end(&mut self) {
        self.done.extend(self.current.take());
    }

    /// A number right before a redirection belongs to that.
    fn take_back_number(&mut self) {
        let is_number = |word: &Vec<u8>| word.iter().all(u8::is_ascii_digit);
        if self.current.as_ref().is_some_and(is_number) {
            self.current = None;
        }
        self.end();
    }

    fn finish(mut self) -> HookCommand {
        self.end();
        // The shell would go on as that program, so it is the same.
        if self.done.first().is_some_and(|word| word == b"exec") {
            self.done.remove(0);
        }
        match self.done.first() {
            None => HookCommand::Shell("no program".to_string()),
            Some(first) if first.contains(&b'=') => {
                HookCommand::Shell("an assignment of a variable".to_string())
            }
            Some(_) => HookCommand::Words(self.done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::rsyncd_conf::RsyncdConf;

    fn module(name: &str) -> RsyncdModule {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("rsyncd.conf");
        std::fs::write(&file, format!("[{name}]\npath = /srv/a b\n")).expect("written");
        RsyncdConf::read(&file).expect("read").module(name.as_bytes()).expect("it").clone()
    }

    fn words(command: &str) -> Option<Vec<String>> {
        match read(command.as_bytes(), &module("m")) {
            HookCommand::Words(words) => {
                Some(words.into_iter().map(|word| String::from_utf8(word).expect("text")).collect())
            }
            HookCommand::Shell(_) => None,
        }
    }

    #[test]
    fn one_program_with_arguments_is_understood() {
        for (command, expected) in [
            ("/usr/bin/x", &["/usr/bin/x"][..]),
            (" /usr/bin/x  pre-xfer\t", &["/usr/bin/x", "pre-xfer"]),
            (
                "'/opt/a b/x' --config \"/etc/c d\" e\\ f",
                &["/opt/a b/x", "--config", "/etc/c d", "e f"],
            ),
            ("exec /usr/bin/x post-xfer", &["/usr/bin/x", "post-xfer"]),
            ("/usr/bin/x >>/var/log/x 2>&1", &["/usr/bin/x"]),
            ("/usr/bin/x a2> /dev/null < /dev/null b", &["/usr/bin/x", "a2", "b"]),
            ("/usr/bin/x ''", &["/usr/bin/x", ""]),
            (
                "/usr/bin/x --config=/etc/%RSYNC_MODULE_NAME%.toml",
                &["/usr/bin/x", "--config=/etc/m.toml"],
            ),
            ("/usr/bin/x %RSYNC_USER_NAME%", &["/usr/bin/x", "%RSYNC_USER_NAME%"]),
            ("/usr/bin/x %RSYNC_PID% 100%", &["/usr/bin/x", "0", "100%"]),
        ] {
            let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
            assert_eq!(words(command), Some(expected), "{command}");
        }
    }

    #[test]
    fn the_files_of_redirections_are_found() {
        let found = |command: &str| {
            let files = redirections(command.as_bytes(), &module("m"));
            let shown = |one: Redirection| (one.file.display().to_string(), one.writes);
            files.into_iter().map(shown).collect::<Vec<_>>()
        };
        let file = |path: &str, writes| (path.to_string(), writes);
        for (command, expected) in [
            ("/usr/bin/x", vec![]),
            ("/usr/bin/x >>/var/log/x 2>&1", vec![file("/var/log/x", true)]),
            ("/usr/bin/x >| /a </b", vec![file("/a", true), file("/b", false)]),
            ("/usr/bin/x 2>x 0<>/c", vec![file("/c", true)]),
            ("/usr/bin/x >/a || true", vec![]),
            ("/usr/bin/x <</a", vec![]),
        ] {
            assert_eq!(found(command), expected, "{command}");
        }
    }

    #[test]
    fn what_a_shell_decides_is_not_predicted() {
        for command in [
            "",
            "  ",
            "/usr/bin/x; echo",
            "/usr/bin/x && y",
            "[ -x /usr/bin/x ] && /usr/bin/x",
            "/usr/bin/x $HOME",
            "/usr/bin/x \"$HOME\"",
            "/usr/bin/x `y`",
            "PATH=/bin x",
            "/usr/bin/x 'a",
            "/usr/bin/x \\",
            "/usr/bin/x > $LOG",
            "/usr/bin/x | logger",
            "%HOOKS%/x",
            "~/x",
        ] {
            assert_eq!(words(command), None, "{command}");
        }
    }

    #[test]
    fn variables_of_the_connection_are_known_for_what_they_hold() {
        let command =
            b"/x %RSYNC_MODULE_NAME% %RSYNC_MODULE_PATH% %RSYNC_USER_NAME% %RSYNC_REQUEST% %A%";
        let found = variables(command, &module("m"));
        let expected = [
            ("RSYNC_MODULE_NAME", HookVariable::Plain(b"m".to_vec())),
            ("RSYNC_MODULE_PATH", HookVariable::NeverPlain(b"/srv/a b".to_vec())),
            ("RSYNC_USER_NAME", HookVariable::OfClient),
            ("RSYNC_REQUEST", HookVariable::MostlyNot),
        ];
        assert_eq!(found, expected.map(|(name, meaning)| (name.to_string(), meaning)));
        let spaced = variables(b"/x %RSYNC_MODULE_NAME%", &module("two words"));
        assert!(matches!(spaced[0].1, HookVariable::NeverPlain(_)));
    }
}
