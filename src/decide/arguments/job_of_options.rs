//! From the options of a push to the [`PushJob`] that they describe.
//!
//! Clients spell one option in several ways and join letters in clusters. So each option gets its
//! long name here, and `no-X` removes X. Options that change only what is shown, how fast rsync
//! works or how the two sides talk are left out.

use std::collections::BTreeMap;

use crate::decide::arguments::Arguments;
use crate::decide::arguments::option_name::{GivenOption, OptionName};
use crate::decide::push_job::{OMIT_DIR_TIMES, PushJob, TIMES, normalized};
use crate::tell::escape::escape;

/// Options that make rsync transfer, delete or keep more.
#[rustfmt::skip]
const EXTENDING_OPTIONS: &[&str] = &[
    "acls", "delete", "delete-excluded", "delete-missing-args", "devices", "group", "hard-links",
    "links", "owner", "perms", "recursive", "specials", TIMES, "xattrs",
];

/// Options that make rsync leave something out. `--append` is one: it keeps the bytes that a file
/// has already.
#[rustfmt::skip]
const LIMITING_OPTIONS: &[&str] = &[
    "append", "compare-dest", "cvs-exclude", "dirs", "exclude", "exclude-from", "existing",
    "files-from", "filter", "ignore-existing", "ignore-missing-args", "include", "include-from",
    "list-only", "max-delete", "max-size", "min-size", OMIT_DIR_TIMES, "one-file-system",
    "prune-empty-dirs", "safe-links", "size-only", "stop-after", "stop-at", "time-limit",
    "update",
];

/// Options that do not change what is on disk once the push has ended well. The options that write
/// in place are among them: if a client is told to drop them, its next push is the same job.
#[rustfmt::skip]
const CHANGES_NOTHING: &[&str] = &[
    "8-bit-output", "address", "append-verify", "blocking-io", "block-size", "bwlimit",
    "checksum-choice", "checksum-seed", "compress", "compress-choice", "compress-level",
    "compress-threads", "contimeout", "debug", "fsync", "human-readable", "inc-recursive", "info",
    "inplace", "ipv4", "ipv6", "itemize-changes", "log-file", "log-file-format", "log-format",
    "max-alloc", "motd", "msgs2stderr", "new-compress", "old-args", "old-compress",
    "open-noatime", "outbuf", "out-format", "partial", "partial-dir", "password-file", "port",
    "preallocate", "progress", "protect-args", "protocol", "qsort", "quiet", "rsh", "rsync-path",
    "secluded-args", "server", "skip-compress", "sockopts", "stats", "stderr", "temp-dir",
    "timeout", "trust-sender", "verbose", "whole-file", "write-devices",
];

impl Arguments {
    /// The push that the arguments describe. `None` if one of them was not understood, or if they
    /// do not name exactly one place in the module.
    pub fn job(&self) -> Option<PushJob> {
        let destination = self.destination()?;
        let options = effective(&self.options);
        let named = |list: &[&str]| -> Vec<String> {
            let chosen = options.iter().filter(|(name, _)| list.contains(&name.as_str()));
            chosen.map(|(name, value)| shown(name, value.as_deref())).collect()
        };
        let mut limiting_options = named(LIMITING_OPTIONS);
        if options.contains_key("recursive") {
            // With `--recursive`, `--dirs` leaves nothing out.
            limiting_options.retain(|option| option != "dirs");
        }
        Some(PushJob {
            destination,
            extending_options: named(EXTENDING_OPTIONS),
            limiting_options,
            options_hash: hash(&options),
        })
    }

    /// The destination, relative to the module's directory: rsyncd has removed the module's name.
    fn destination(&self) -> Option<String> {
        let [dot, request] = self.operands.as_slice() else { return None };
        // rsyncd expands a pattern to names that exist, so a pattern names no certain place.
        let is_plain = !request.iter().any(|byte| b"*?[".contains(byte));
        (dot == b"." && is_plain).then(|| escape(&normalized(request)))
    }
}

impl OptionName {
    /// The letters and long names that mean this option, its own name included.
    pub fn spellings(&self) -> Vec<String> {
        let (mut spellings, long) = match self {
            OptionName::Letter(letter) => (vec![letter.to_string()], names_of_letter(*letter)),
            OptionName::Long(name) => (vec![name.clone()], names_of_long(name)),
        };
        let is_letter_of =
            |letter: &char| names_of_letter(*letter).iter().any(|name| long.contains(name));
        let letters = ('0'..='z').filter(char::is_ascii_alphanumeric).filter(is_letter_of);
        spellings.extend(letters.map(String::from));
        spellings.extend(long);
        spellings
    }
}

type Options = BTreeMap<String, Option<Vec<u8>>>;

/// The options in effect, by their long names.
fn effective(given: &[GivenOption]) -> Options {
    let mut options = Options::new();
    for GivenOption { name, value } in given {
        match name {
            OptionName::Letter(letter) => {
                for name in names_of_letter(*letter) {
                    options.insert(name.to_string(), value.clone());
                }
            }
            OptionName::Long(name) => match name.strip_prefix("no-") {
                Some(taken_back) => {
                    for name in names_of_long(taken_back) {
                        options.remove(&name);
                    }
                }
                None => {
                    for name in names_of_long(name) {
                        options.insert(name, value.clone());
                    }
                }
            },
        }
    }
    options
}

/// The long names that a letter means; the letter itself if it has no long name that matters here.
fn names_of_letter(letter: char) -> Vec<String> {
    let names: &[&str] = match letter {
        'a' => &["recursive", "links", "perms", TIMES, "group", "owner", "devices", "specials"],
        'A' => &["acls"],
        'B' => &["block-size"],
        'b' => &["backup"],
        'C' => &["cvs-exclude"],
        'c' => &["checksum"],
        'D' => &["devices", "specials"],
        'd' => &["dirs"],
        'E' => &["executability"],
        'e' => &["rsh"],
        'F' | 'f' => &["filter"],
        'g' => &["group"],
        'H' => &["hard-links"],
        'h' => &["human-readable"],
        'I' => &["ignore-times"],
        'i' => &["itemize-changes"],
        'J' => &["omit-link-times"],
        'K' => &["keep-dirlinks"],
        'k' => &["copy-dirlinks"],
        'L' => &["copy-links"],
        'l' => &["links"],
        'M' => &["remote-option"],
        'm' => &["prune-empty-dirs"],
        'N' => &["crtimes"],
        'n' => &["dry-run"],
        'O' => &[OMIT_DIR_TIMES],
        'o' => &["owner"],
        'P' => &["partial", "progress"],
        'p' => &["perms"],
        'q' => &["quiet"],
        'R' => &["relative"],
        'r' => &["recursive"],
        'S' => &["sparse"],
        's' => &["secluded-args"],
        'T' => &["temp-dir"],
        't' => &[TIMES],
        'U' => &["atimes"],
        'u' => &["update"],
        'v' => &["verbose"],
        'W' => &["whole-file"],
        'X' => &["xattrs"],
        'x' => &["one-file-system"],
        'y' => &["fuzzy"],
        'z' => &["compress"],
        '0' => &["from0"],
        '4' => &["ipv4"],
        '6' => &["ipv6"],
        '8' => &["8-bit-output"],
        '@' => &["modify-window"],
        _ => return vec![letter.to_string()],
    };
    names.iter().map(|name| (*name).to_string()).collect()
}

/// The one name that is used here for an option with several names. An option that stands for
/// several others becomes those.
fn names_of_long(name: &str) -> Vec<String> {
    let mut letters = name.chars();
    if let (Some(letter), None) = (letters.next(), letters.next()) {
        return names_of_letter(letter);
    }
    let names: &[&str] = match name {
        "archive" => return names_of_letter('a'),
        "del" | "delete-before" | "delete-during" | "delete-delay" | "delete-after" => &["delete"],
        "delete-excluded" => &["delete", "delete-excluded"],
        "ignore-non-existing" => &["existing"],
        "old-dirs" | "old-d" => &["dirs"],
        "i-r" => &["inc-recursive"],
        "i-d" => &["implied-dirs"],
        "cc" => &["checksum-choice"],
        "zc" => &["compress-choice"],
        "zl" => &["compress-level"],
        "zt" => &["compress-threads"],
        "remove-sent-files" => &["remove-source-files"],
        "protect-args" => &["secluded-args"],
        _ => return vec![name.to_string()],
    };
    names.iter().map(|name| (*name).to_string()).collect()
}

fn shown(name: &str, value: Option<&[u8]>) -> String {
    value.map_or(name.to_string(), |value| format!("{name}={}", escape(value)))
}

fn hash(options: &Options) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, value) in
        options.iter().filter(|(name, _)| !CHANGES_NOTHING.contains(&name.as_str()))
    {
        // A NUL ends each option, because neither names nor values can contain one.
        hasher
            .update(name.as_bytes())
            .update(b"=")
            .update(value.as_deref().unwrap_or_default())
            .update(b"\0");
    }
    hasher.finalize().to_hex()[..16].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(words: &[&str]) -> PushJob {
        let all = ["rsyncd", "--server"].iter().chain(words);
        let all: Vec<Vec<u8>> = all.map(|word| word.as_bytes().to_vec()).collect();
        Arguments::parse(&all).job().expect("a job")
    }

    #[test]
    fn what_a_client_of_debian_sends_is_read() {
        let job = job(&["-vlogDtpre.iLsfxCIvu", "--delete", "--partial-dir=x", ".", "home/"]);
        assert_eq!(job.destination, "home");
        let expected = [
            "delete",
            "devices",
            "group",
            "links",
            "owner",
            "perms",
            "recursive",
            "specials",
            "times",
        ];
        assert_eq!(job.extending_options, expected);
        assert!(job.limiting_options.is_empty() && job.sets_directory_times(), "{job:?}");
    }

    #[test]
    fn what_changes_nothing_on_disk_makes_no_other_job() {
        let plain = job(&["-logDtpre.iLsfxCIvu", "--delete", ".", "."]);
        for words in [
            &["-vvlogDtprze.LsfxC", "--delete", ".", "./"][..],
            &[
                "-logDtpre.iLsfxCIvu",
                "--delete-before",
                "--bwlimit=100",
                "--timeout=9",
                ".",
                "././",
            ],
            &["-avP", "--delete-after", "--stats", "--info=progress2", ".", ".//"],
            &["-aHz", "--no-H", "--delete", ".", "x/.."],
        ] {
            assert!(job(words).is_same(&plain), "{words:?}: {:?}", job(words));
        }
        for words in [
            &["-logDtre.iLsfxCIvu", "--delete", ".", "."][..],
            &["-logDtpre.iLsfxCIvu", ".", "."],
            &["-logDtpre.iLsfxCIvu", "--delete", ".", "x"],
            &["-ulogDtpre.iLsfxCIvu", "--delete", ".", "."],
            &["-logDtpre.iLsfxCIvu", "--delete", "--max-size=3", ".", "."],
        ] {
            assert!(!job(words).is_same(&plain), "{words:?}");
        }
    }

    #[test]
    fn selecting_options_are_known_with_their_values() {
        let words = [
            "-rOt",
            "--min-size=3",
            "--max-size",
            "4",
            "--existing",
            "-u",
            "--size-only",
            ".",
            "d",
        ];
        let job = job(&words);
        let expected =
            ["existing", "max-size=4", "min-size=3", "omit-dir-times", "size-only", "update"];
        assert_eq!(job.limiting_options, expected);
        assert!(!job.sets_directory_times());
    }

    #[test]
    fn a_place_that_is_no_single_name_is_no_job() {
        for words in [&["-r", ".", "*"][..], &["-r", ".", "a", "b"], &["-r", "."]] {
            let all = ["rsyncd", "--server"].iter().chain(words);
            let all: Vec<Vec<u8>> = all.map(|word| word.as_bytes().to_vec()).collect();
            assert_eq!(Arguments::parse(&all).job(), None, "{words:?}");
        }
    }
}
