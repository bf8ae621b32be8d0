//! Which paths of a module a client is going to read, by its arguments.

use crate::decide::arguments::Arguments;

/// The most paths that are told apart. A client that names more reads anything.
const MOST_PATHS: usize = 64;

/// What a client reads of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadPaths {
    /// These paths and what is below them: names of directories from the module's directory on. An
    /// empty path is the module's directory itself.
    Named(Vec<Vec<Vec<u8>>>),
    /// The arguments do not tell.
    Any,
}

/// Options with which a client reads other files than those below the paths that it names: a list
/// of files, or what symbolic links lead to.
#[rustfmt::skip]
const READING_ELSEWHERE: &[(char, &str)] = &[
    ('L', "copy-links"), ('k', "copy-dirlinks"), ('\0', "copy-unsafe-links"),
    ('\0', "files-from"), ('\0', "iconv"),
];

impl Arguments {
    /// What a client that pulls or lists reads.
    pub fn read_paths(&self) -> ReadPaths {
        let reads_elsewhere =
            READING_ELSEWHERE.iter().any(|(letter, long)| self.has(*letter, long));
        match self.operands.split_first() {
            Some((dot, paths))
                if dot == b"." && !reads_elsewhere && (1..=MOST_PATHS).contains(&paths.len()) =>
            {
                let named: Option<Vec<_>> = paths.iter().map(|path| names_of(path)).collect();
                named.map_or(ReadPaths::Any, ReadPaths::Named)
            }
            _ => ReadPaths::Any,
        }
    }
}

/// None if the path goes up, or may be a pattern. rsyncd expands patterns and goes up before it
/// runs the hook, but not every version does.
fn names_of(path: &[u8]) -> Option<Vec<Vec<u8>>> {
    let is_plain = !path.iter().any(|byte| b"*?[\\".contains(byte));
    let names: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").collect();
    (is_plain && !names.iter().any(|name| *name == b".."))
        .then(|| names.into_iter().map(<[u8]>::to_vec).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> ReadPaths {
        let all = ["rsyncd", "--server", "--sender"].iter().chain(words);
        Arguments::parse(&all.map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>()).read_paths()
    }

    fn named(paths: &[&[&str]]) -> ReadPaths {
        let path =
            |names: &&[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect::<Vec<_>>();
        ReadPaths::Named(paths.iter().map(path).collect())
    }

    #[test]
    fn plain_paths_are_told_apart() {
        let archive = "-logDtpre.iLsfxCIvu";
        for (words, expected) in [
            (&[archive, ".", "S/etc/"][..], named(&[&["S", "etc"]])),
            (&[archive, ".", "S/etc", "T"], named(&[&["S", "etc"], &["T"]])),
            (&["-logDtprRe.iLsfxCIvu", ".", "./S/./etc"], named(&[&["S", "etc"]])),
            (&["-de.LsfxCIvu", ".", "."], named(&[&[]])),
            (
                &[archive, ".", "2019-08-02 12:00:00/a\nb"],
                named(&[&["2019-08-02 12:00:00", "a\nb"]]),
            ),
        ] {
            assert_eq!(read(words), expected, "{words:?}");
        }
    }

    #[test]
    fn what_does_not_tell_is_anything() {
        let many: Vec<&str> = std::iter::once(".").chain(std::iter::repeat_n("S", 65)).collect();
        for words in [
            &["-r", "."][..],
            &["-r", ".", "S/../T"],
            &["-r", ".", "2026-*/etc"],
            &["-r", ".", "S/[ab]"],
            &["-r", ".", "S/a\\b"],
            &["-rL", ".", "S"],
            &["-rk", ".", "S"],
            &["-r", "--copy-unsafe-links", ".", "S"],
            &["-r", "--files-from=-", "--from0", ".", "."],
            &["-r", "--iconv=UTF-16", ".", "S"],
            &["-r", "--unheard-of", ".", "S"],
            &many,
        ] {
            assert_eq!(read(words), ReadPaths::Any, "{words:?}");
        }
        assert_eq!(Arguments::unknown().read_paths(), ReadPaths::Any);
    }
}
