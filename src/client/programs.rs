//! Looks up programs in fixed directories, and quotes arguments for a shell.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where programs are looked up, whatever the caller's `PATH`.
pub(crate) const DIRECTORIES: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The path of an installed program. A name with a slash is a path already.
pub(crate) fn find(program: &OsStr) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        let path = PathBuf::from(program);
        return is_program(&path).then_some(path);
    }
    DIRECTORIES
        .split(':')
        .map(|directory| Path::new(directory).join(program))
        .find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// Quotes an argument so that a POSIX shell reads it back unchanged.
pub(crate) fn shell_quote(argument: &[u8]) -> Vec<u8> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"%+,-./:=@_".contains(byte);
    if !argument.is_empty() && argument.iter().all(is_plain) {
        return argument.to_vec();
    }
    let mut quoted = vec![b'\''];
    for &byte in argument {
        match byte {
            b'\'' => quoted.extend(b"'\\''"),
            _ => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

/// A command line as an administrator would type it.
pub(crate) fn shell_line<W: AsRef<OsStr>>(args: &[W]) -> Vec<u8> {
    let quoted: Vec<Vec<u8>> =
        args.iter().map(|argument| shell_quote(argument.as_ref().as_bytes())).collect();
    quoted.join(&b' ')
}

/// A script file as one line, without its comments.
///
/// A script for another machine passes the shell of the account there, and csh allows no line break
/// within quotes. So each command in such a file ends in `;`, as on one line, and a comment has a
/// line of its own.
pub(crate) fn one_line(script: &str) -> String {
    let lines = script.lines().map(str::trim);
    let commands: Vec<&str> =
        lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    commands.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_quoted_arguments_back_unchanged() {
        for (argument, quoted) in [
            ("plain/path-1.0:x", "plain/path-1.0:x"),
            ("", "''"),
            ("two words", "'two words'"),
            ("it's", r"'it'\''s'"),
            ("$HOME `id` \"x\"", "'$HOME `id` \"x\"'"),
            ("~root", "'~root'"),
        ] {
            assert_eq!(shell_quote(argument.as_bytes()), quoted.as_bytes());
        }
    }

    #[test]
    fn a_script_becomes_one_line_without_comments() {
        assert_eq!(one_line("#!/bin/sh\n# Why.\nif a; then\n    b;\nfi;\n"), "if a; then b; fi;");
    }
}
