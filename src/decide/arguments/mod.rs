//! What a transfer is going to do, from the arguments that rsyncd hands to a pre-xfer hook.
//!
//! rsyncd parses what the client sends like its own command line, with popt and one table of
//! options. It passes the same words on as `RSYNC_ARG0` to `RSYNC_ARGn`, byte for byte. They are
//! read here by the same rules: letters in clusters, values that are attached or are the next word,
//! options after paths, and the last of two contradicting options wins. With `--secluded-args` the
//! client sends two lists; rsyncd combines their effects and passes them on as one list.
//!
//! Whatever a client sends, two mistakes must never happen: to take a push for something else,
//! because it would get no snapshot, and to miss an option that rewrites files in place. Three
//! rules prevent them:
//!
//! * A word is an option here exactly if it is one for rsyncd. The two could differ only if an
//!   option took a value for one and not for the other, and that never changed from rsync 3.0.9 to
//!   3.5.0. So for both, `--backup-dir --sender` is a push with a backup directory of that name.
//! * One word that is not understood for sure makes the whole list suspect: an unknown option, a
//!   missing or surplus value, or a bare `-` or `--`. A list without `--server` in front or without
//!   a dot before the paths is suspect, too. A suspect list counts as a push. Every word in it that
//!   looks like an option that rewrites files, or like one that names a partial directory, counts
//!   as that option, even if another word would revoke it. Today's rsyncd refuses nearly all such
//!   lists. A later rsyncd may know the option; then a pull may count as a push, which costs one
//!   comparison.
//! * A value that makes no sense is not examined: rsyncd refuses the transfer because of it.

mod combined_effect;
mod job_of_options;
pub mod option_name;
mod options;
mod partial;
pub mod read_paths;
mod reading;
pub mod rewriting_option;
pub mod snapshot_words;
pub mod transfer_kind;

use crate::decide::arguments::combined_effect::{CombinedEffect, suspected_rewriting};
use crate::decide::arguments::option_name::{GivenOption, OptionName};
use crate::decide::arguments::reading::ReadArguments;
use crate::decide::arguments::rewriting_option::RewritingOption;
use crate::decide::arguments::snapshot_words::names_snapshots;
use crate::decide::arguments::transfer_kind::TransferKind;

/// The arguments of a transfer, classified.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arguments {
    /// What the transfer does.
    pub kind: TransferKind,
    /// The options in effect that rewrite files, sorted, each once. Pulls and dry runs may name
    /// them, too, but rewrite nothing, so ask [`TransferKind::writes`] first.
    pub rewriting: Vec<RewritingOption>,
    /// The directories in which rsync would continue files in place: the values of `--partial-dir`,
    /// or that of `--delay-updates`. Ask [`TransferKind::writes`] first here, too.
    pub partial_dirs: Vec<Vec<u8>>,
    /// The first word that names the directory of snapshots of CephFS. Ask
    /// [`TransferKind::writes`] first here, too.
    pub snapshot_word: Option<Vec<u8>>,
    /// Every option, in the order of the command line; empty if a word was not understood.
    pub options: Vec<GivenOption>,
    /// The words that are not options, from the dot before the paths on; empty if a word was not
    /// understood.
    pub operands: Vec<Vec<u8>>,
}

impl Arguments {
    /// The arguments of a transfer about which nothing is known: it is assumed to write.
    pub fn unknown() -> Self {
        Arguments { kind: TransferKind::Push, ..Arguments::default() }
    }

    /// Reads the arguments, of which the first is the program's name.
    pub fn parse(arguments: &[Vec<u8>]) -> Self {
        let snapshot_word = arguments.iter().find(|word| names_snapshots(word)).cloned();
        match reading::read(arguments) {
            Some(ReadArguments { effects, options, operands }) => {
                let effect = CombinedEffect::of(&effects);
                // A sender writes no file.
                let partial_dirs =
                    if effect.sender { Vec::new() } else { partial::partial_dirs(&options) };
                let (kind, rewriting) = (effect.kind(), effect.rewriting());
                Arguments { kind, rewriting, partial_dirs, snapshot_word, options, operands }
            }
            None => Arguments {
                rewriting: suspected_rewriting(arguments),
                partial_dirs: partial::suspected(arguments),
                snapshot_word,
                ..Arguments::unknown()
            },
        }
    }

    /// The values of an option with this long name, in the order of the command line.
    pub fn values(&self, name: &str) -> Vec<Vec<u8>> {
        partial::values(&self.options, name)
    }

    /// Whether an option was given, by its letter or by its long name.
    pub fn has(&self, letter: char, long: &str) -> bool {
        self.options.iter().any(|option| match &option.name {
            OptionName::Letter(name) => *name == letter,
            OptionName::Long(name) => name == long,
        })
    }

    /// After how many seconds without data from the server the client gives up; `None` if it waits
    /// without a limit.
    pub fn timeout_seconds(&self) -> Option<u64> {
        let value = self.values("timeout").pop()?;
        std::str::from_utf8(&value).ok()?.parse().ok().filter(|seconds| *seconds > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Classifies words that a client would send after `--server`, with a path behind them.
    fn classified(words: &[&str]) -> Arguments {
        let all = ["rsyncd", "--server"].iter().chain(words).chain(&[".", "data/"]);
        Arguments::parse(&all.map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>())
    }

    #[track_caller]
    fn assert_kind(kind: TransferKind, cases: &[&[&str]]) {
        for words in cases {
            assert_eq!(classified(words).kind, kind, "{words:?}");
        }
    }

    #[track_caller]
    fn assert_rewriting(rewriting: &[RewritingOption], cases: &[&[&str]]) {
        for words in cases {
            assert_eq!(classified(words).rewriting, rewriting, "{words:?}");
        }
    }

    #[test]
    fn only_a_sender_option_makes_a_pull() {
        let cases: [&[&str]; 4] = [
            &["--sender", "-vlogDtpre.iLsfxCIvu"],
            &["-r", "--sender"],
            &["--sender", "--sender", "-B700", "--timeout=60"],
            &["--sender", "-dr"],
        ];
        assert_kind(TransferKind::Pull, &cases);
        assert_kind(
            TransferKind::Push,
            &[&["-vlogDtpre.iLsfxCIvu"], &[], &["-d"], &["--list-only"]],
        );
    }

    #[test]
    fn a_value_is_no_option_whatever_it_looks_like() {
        let cases: [&[&str]; 9] = [
            &["--backup-dir", "--sender"],
            &["--backup-dir=--sender"],
            &["-logDtpre.iLs", "--partial-dir", "-n", "--temp-dir", "--list-only"],
            &["-rT", "--sender"],
            &["-rT--sender"],
            &["-re--sender", "-f", "--sender"],
            &["-@", "--sender", "-B", "-n", "-M", "--sender"],
            &["--remote-option", "--sender"],
            &["--write-batch", "--only-write-batch"],
        ];
        assert_kind(TransferKind::Push, &cases);
        assert_rewriting(
            &[],
            &[&["--backup-dir", "--inplace", "-T", "--append"], &["--suffix=--inplace"]],
        );
    }

    #[test]
    fn the_value_in_a_cluster_ends_it() {
        assert_kind(TransferKind::Push, &[&["-en"], &["-re.n"], &["-B700n"], &["-e=n"]]);
        assert_kind(TransferKind::DryRun, &[&["-rne."], &["-nB", "700"], &["-vn"]]);
    }

    #[test]
    fn options_are_found_behind_paths_too() {
        let all = ["rsyncd", "--server", "-r", ".", "data", "--sender"]
            .map(|word| word.as_bytes().to_vec());
        assert_eq!(Arguments::parse(&all).kind, TransferKind::Pull);
    }

    #[test]
    fn a_listing_names_what_it_wants_or_directories_alone() {
        let cases: [&[&str]; 5] = [
            &["--sender", "-de.Ls"],
            &["--sender", "-re.Ls", "--list-only"],
            &["--sender", "--dirs"],
            &["--sender", "-rd", "--no-r"],
            &["--sender", "-nd"],
        ];
        assert_kind(TransferKind::Listing, &cases);
        assert_kind(TransferKind::Pull, &[&["--sender", "-d", "--no-d"], &["--sender", "-da"]]);
    }

    #[test]
    fn a_dry_run_writes_nothing_in_either_direction() {
        let cases: [&[&str]; 5] = [
            &["--sender", "-nr"],
            &["--dry-run", "--delete"],
            &["-rn", "--inplace"],
            &["--only-write-batch=X"],
            &["--write-batch=X", "--only-write-batch", "Y"],
        ];
        assert_kind(TransferKind::DryRun, &cases);
        assert_kind(TransferKind::Push, &[&["--only-write-batch=X", "--write-batch=Y"]]);
    }

    #[test]
    fn a_push_that_may_write_no_file_only_deletes() {
        let deletes = [
            "--delete",
            "--del",
            "--delete-before",
            "--delete-during",
            "--delete-delay",
            "--delete-after",
            "--delete-excluded",
            "--delete-missing-args",
        ];
        for delete in deletes {
            assert_kind(
                TransferKind::DeletionOnly,
                &[&["-r", delete, "--existing", "--ignore-existing"]],
            );
            assert_kind(
                TransferKind::DeletionOnly,
                &[&["--ignore-existing", "--ignore-non-existing", delete]],
            );
            assert_kind(
                TransferKind::Push,
                &[&["-r", delete], &[delete, "--existing"], &[delete, "--ignore-existing"]],
            );
        }
        assert_kind(TransferKind::Push, &[&["--existing", "--ignore-existing"]]);
    }

    #[test]
    fn a_pull_that_removes_what_it_sent_deletes() {
        let cases: [&[&str]; 3] = [
            &["--sender", "-r", "--remove-source-files"],
            &["--sender", "-r", "--remove-sent-files"],
            &["--sender", "-d", "--list-only", "--remove-source-files"],
        ];
        assert_kind(TransferKind::DeletionOnly, &cases);
        assert_kind(TransferKind::DryRun, &[&["--sender", "-rn", "--remove-source-files"]]);
        assert_kind(TransferKind::Push, &[&["-r", "--remove-source-files"]]);
    }

    #[test]
    fn the_last_of_two_contradictory_options_counts() {
        assert_rewriting(
            &[],
            &[&["--inplace", "--no-inplace"], &["--append", "--append-verify", "--no-append"]],
        );
        assert_rewriting(&[], &[&["--write-devices", "--no-write-devices"]]);
        assert_rewriting(
            &[RewritingOption::Inplace],
            &[&["--no-inplace", "--inplace"], &["--inplace", "--no-append"]],
        );
        assert_rewriting(
            &[RewritingOption::Append],
            &[&["--append"], &["--append-verify", "--no-append", "--append"]],
        );
        assert_rewriting(&[RewritingOption::Append], &[&["--append", "--no-inplace"]]);
    }

    #[test]
    fn append_twice_verifies() {
        assert_rewriting(
            &[RewritingOption::AppendVerify],
            &[&["--append", "--append"], &["--append-verify"]],
        );
        assert_rewriting(&[RewritingOption::AppendVerify], &[&["--append-verify", "--append"]]);
    }

    #[test]
    fn the_options_that_rewrite_come_sorted_and_once() {
        let all = [
            RewritingOption::Inplace,
            RewritingOption::AppendVerify,
            RewritingOption::WriteDevices,
        ];
        let words: &[&str] = &["--write-devices", "--append", "--inplace", "--append", "--inplace"];
        assert_rewriting(&all, &[words]);
        let texts: Vec<_> = all.iter().map(|rewriting| rewriting.option()).collect();
        assert_eq!(texts, ["--inplace", "--append-verify", "--write-devices"]);
    }

    #[test]
    fn one_word_that_is_not_understood_makes_all_of_it_a_push() {
        let cases: [&[&str]; 16] = [
            &["--sender", "--unheard-of"],
            &["--unheard-of", "--sender"],
            &["--sender", "-rG"],
            &["--sender=1"],
            &["--sender", "-n=1"],
            &["--sender", "--"],
            &["--sender", "-"],
            &["--", "--sender"],
            &["--sender", "--daemon"],
            &["--sender", "--help"],
            &["--sender", "-V"],
            &["--sender", "---r"],
            &["--sender", "--=x"],
            &["--sender", "--Recursive"],
            &["--sender", "--list"],
            &["--dry-run", "--list-only", "--inplace=no"],
        ];
        assert_kind(TransferKind::Push, &cases);
    }

    #[test]
    fn a_list_that_no_client_sends_is_a_push() {
        let lists: [&[&[u8]]; 8] = [
            &[],
            &[b"rsyncd"],
            &[b"rsyncd", b"--sender", b"."],
            &[b"rsyncd", b"--sender", b"--server", b"."],
            &[b"rsyncd", b"--server", b"--sender"],
            &[b"rsyncd", b"--server", b"--sender", b".", b"--backup-dir"],
            &[b"rsyncd", b"--server", b"--sender", b".", b"-rT"],
            &[b"rsyncd", b"--server", b"--sender", b"--\xff\xfe", b"."],
        ];
        for list in lists {
            let list: Vec<_> = list.iter().map(|word| word.to_vec()).collect();
            assert_eq!(Arguments::parse(&list).kind, TransferKind::Push, "{list:?}");
        }
    }

    #[test]
    fn in_a_suspect_list_every_word_that_would_rewrite_counts() {
        let inplace = [RewritingOption::Inplace];
        let cases: [&[&str]; 5] = [
            &["--unheard-of", "--inplace"],
            &["--inplace", "--unheard-of", "--no-inplace"],
            &["--inplace=yes"],
            &["--", "--inplace"],
            &["--unheard-of", "--backup-dir", "--inplace"],
        ];
        assert_rewriting(&inplace, &cases);
        assert_rewriting(&[RewritingOption::Append], &[&["-G", "--append", "--no-append"]]);
        assert_rewriting(&[RewritingOption::AppendVerify], &[&["-G", "--append", "--append"]]);
        assert_rewriting(&[], &[&["-G", "--no-inplace", "--backup-dir=--inplace"]]);
    }

    fn partial_dirs(words: &[&str]) -> Vec<String> {
        let list: Vec<Vec<u8>> = ["rsyncd", "--server"]
            .iter()
            .chain(words)
            .chain(&["."])
            .map(|word| word.as_bytes().to_vec())
            .collect();
        Arguments::parse(&list)
            .partial_dirs
            .iter()
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect()
    }

    #[test]
    fn every_way_to_name_a_partial_directory_is_seen() {
        assert_eq!(partial_dirs(&["--partial-dir", "docs"]), ["docs"]);
        assert_eq!(partial_dirs(&["--partial-dir=/docs", "-r"]), ["/docs"]);
        assert_eq!(
            partial_dirs(&["--partial-dir=a", "--partial-dir=b"]),
            ["a", "b"],
            "more than rsync's last one"
        );
        assert_eq!(partial_dirs(&["--delay-updates"]), [".~tmp~"]);
        assert_eq!(partial_dirs(&["--delay-updates", "--partial-dir=p"]), ["p"]);
        assert_eq!(partial_dirs(&["--no-delay-updates", "--delay-updates"]), [".~tmp~"]);
        let none: [&[&str]; 5] = [
            &["--delay-updates", "--no-delay-updates"],
            &["--partial-dir="],
            &["--partial-dir", "./"],
            &["--partial"],
            &["--backup-dir", "--partial-dir=docs"],
        ];
        for words in none {
            assert_eq!(partial_dirs(words), [""; 0], "{words:?}");
        }
    }

    #[test]
    fn in_a_suspect_list_whatever_looks_like_a_partial_directory_counts() {
        assert_eq!(partial_dirs(&["--unheard-of", "--partial-dir=docs"]), ["docs"]);
        assert_eq!(partial_dirs(&["--unheard-of", "--backup-dir", "--partial-dir=docs"]), ["docs"]);
        assert_eq!(partial_dirs(&["--unheard-of", "--partial-dir", "docs"]), ["docs"]);
        assert_eq!(
            partial_dirs(&["--unheard-of", "--partial-dirs=docs"]),
            ["."],
            "no value of its own"
        );
        assert_eq!(
            partial_dirs(&["--unheard-of", "--delay-updates", "--no-delay-updates"]),
            [".~tmp~"]
        );
    }

    #[test]
    fn the_last_timeout_counts_and_zero_is_none() {
        let seconds = |words: &[&str]| {
            let list: Vec<Vec<u8>> = ["rsyncd", "--server"]
                .iter()
                .chain(words)
                .chain(&["."])
                .map(|word| word.as_bytes().to_vec())
                .collect();
            Arguments::parse(&list).timeout_seconds()
        };
        assert_eq!(seconds(&["--timeout=5"]), Some(5));
        assert_eq!(seconds(&["--timeout=5", "--timeout", "60"]), Some(60));
        assert_eq!(seconds(&["--timeout=0"]), None);
        assert_eq!(seconds(&["--timeout=x"]), None);
        assert_eq!(seconds(&["-r"]), None);
    }

    #[test]
    fn kinds_and_options_are_stored_as_they_are_shown() {
        for kind in [
            TransferKind::Push,
            TransferKind::DeletionOnly,
            TransferKind::Pull,
            TransferKind::Listing,
            TransferKind::DryRun,
        ] {
            assert_eq!(serde_json::to_value(kind).expect("JSON"), kind.to_string());
            assert_eq!(
                kind.writes(),
                matches!(kind, TransferKind::Push | TransferKind::DeletionOnly)
            );
        }
        for rewriting in [RewritingOption::Append, RewritingOption::WriteDevices] {
            let text = serde_json::to_value(rewriting).expect("JSON");
            assert_eq!(text, rewriting.option().trim_start_matches('-'));
        }
    }
}
