//! Which pushes are turned away, and what their client is told.
//!
//! Snapshots share files with the module. An option with which rsync writes into an existing file,
//! instead of making a new one, would change the snapshots, too. A module without snapshots has
//! none to lose, so there such pushes are let in.
//!
//! On CephFS a push that names the directory of snapshots is turned away, whether the module has
//! any or not.

use crate::decide::arguments::Arguments;
use crate::decide::arguments::rewriting_option::RewritingOption;
use crate::decide::arguments::snapshot_words::{SNAPSHOT_DIRECTORY, names_snapshots};
use crate::decide::partial_dirs::{BUILT_IN, Leftover, PartialDirs};
use crate::tell::escape::escape;

/// How many snapshots share files with the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// So many.
    Snapshots(usize),
    /// It cannot be found out.
    Unknown,
}

/// The sentence for a client that names a partial directory, or one for backups, that is not
/// accepted.
pub fn partial_dir_refusal(arguments: &Arguments, accepted: &PartialDirs) -> Option<String> {
    if !arguments.kind.writes() || arguments.partial_dirs.is_empty() {
        return None;
    }
    if let Some(value) = arguments.partial_dirs.iter().find(|value| !accepted.accepts(value)) {
        return Some(format!(
            "with --partial-dir={0} rsync would write into files in {0} that snapshots share; \
             please use --partial-dir={1}",
            escape(value),
            BUILT_IN[0],
        ));
    }
    // A file that is replaced would be moved there with all its names, and written into later in
    // the same push.
    let backup_dir =
        arguments.values("backup-dir").into_iter().find(|value| accepted.contain(value))?;
    Some(format!(
        "--backup-dir={} would move files that snapshots share to where rsync writes in place; \
         please use another directory",
        escape(&backup_dir),
    ))
}

/// The sentence for a client that names a partial directory where rsync would follow a symbolic
/// link of that name, which the same push may bring.
pub fn link_refusal(arguments: &Arguments) -> String {
    format!(
        "with {} rsync could follow a symbolic link to files that snapshots share; please drop \
         the option (to the administrator: `rsyncd-snapshot check` names the line that allows it)",
        partial_option(arguments)
    )
}

/// The sentence for a client that names a partial directory together with an option by which the
/// same push could give a file that snapshots share another name there: rsync would then write into
/// it. Without such an option all that a push puts there is new.
pub fn mover_refusal(arguments: &Arguments) -> Option<String> {
    // If the list was not understood, only the suspicion is known.
    if arguments.options.is_empty() {
        return Some(link_refusal(arguments));
    }
    let has_value = |name: &str| !arguments.values(name).is_empty();
    let movers = [
        (arguments.has('H', "hard-links"), "--hard-links"),
        (has_value("link-dest"), "--link-dest"),
        (arguments.has('b', "backup") || has_value("backup-dir"), "--backup"),
    ];
    let given: Vec<&str> =
        movers.iter().filter(|(given, _)| *given).map(|(_, name)| *name).collect();
    let option = partial_option(arguments);
    (!given.is_empty()).then(|| {
        format!(
            "with {option} and {} rsync could write into files that snapshots share; please drop \
             {option}",
            given.join(" and ")
        )
    })
}

fn partial_option(arguments: &Arguments) -> &'static str {
    if arguments.values("partial-dir").is_empty() { "--delay-updates" } else { "--partial-dir" }
}

/// The sentence for a client whose push names snapshots of a module on CephFS. `path`: what it asks
/// for. `None` if it names none, or only reads.
pub fn snapshot_directory_refusal(arguments: &Arguments, path: &str) -> Option<String> {
    if !arguments.kind.writes() {
        return None;
    }
    let is_named = |path: &&[u8]| names_snapshots(path);
    let path = Some(path.as_bytes()).filter(is_named);
    let word = arguments.snapshot_word.as_deref().or(path)?;
    Some(format!(
        "{} leads to {SNAPSHOT_DIRECTORY}, where CephFS keeps the snapshots of a directory, which \
         a push could delete; please use another path",
        escape(word)
    ))
}

/// The sentence for a client whose push could continue an existing file in place, which `found`
/// names.
pub fn leftover_refusal(arguments: &Arguments, found: &Leftover) -> Option<String> {
    let option = partial_option(arguments);
    let what = match found {
        Leftover::Nothing => return None,
        Leftover::File(path) => {
            format!("rsync would write into {}, which snapshots may share", escape(path))
        }
        Leftover::Link(path) => {
            format!(
                "the symbolic link {} would lead rsync to files that snapshots share",
                escape(path)
            )
        }
        Leftover::Unknown => {
            return Some(format!(
                "with {option} rsync could write into files that snapshots share; please drop the \
                 option"
            ));
        }
    };
    Some(format!(
        "with {option} {what}; please drop the option, or remove that file from the module first"
    ))
}

/// The sentence for a client that would write in place, if it is turned away.
pub fn in_place_refusal(
    arguments: &Arguments,
    allowed: &[RewritingOption],
    sharing: Sharing,
) -> Option<String> {
    let is_refused = |option: &&RewritingOption| !allowed.contains(option);
    let refused: Vec<RewritingOption> =
        arguments.rewriting.iter().filter(is_refused).copied().collect();
    // A pull may name such options, too; it rewrites nothing.
    if !arguments.kind.writes() || refused.is_empty() || sharing == Sharing::Snapshots(0) {
        return None;
    }
    let what = match sharing {
        Sharing::Snapshots(1) => "would rewrite 1 snapshot that shares these files".to_string(),
        Sharing::Snapshots(count) => {
            format!("would rewrite {count} snapshots that share these files")
        }
        Sharing::Unknown => "could rewrite snapshots that share these files".to_string(),
    };
    let options = named_options(&refused, arguments);
    let them = if options.len() == 1 { "the option" } else { "the options" };
    Some(format!("{} {what}; please drop {them}", options.join(" and ")))
}

/// How the refused options are told to a client: with --write-devices, rsync sends --inplace as
/// well, which the client may never have given.
fn named_options(refused: &[RewritingOption], arguments: &Arguments) -> Vec<&'static str> {
    let implies_inplace = arguments.rewriting.contains(&RewritingOption::WriteDevices);
    let name = |option: &RewritingOption| match option {
        RewritingOption::Inplace if !implies_inplace => Some(option.option()),
        RewritingOption::Inplace if refused.contains(&RewritingOption::WriteDevices) => None,
        RewritingOption::Inplace => Some("--inplace, which --write-devices turns on,"),
        RewritingOption::WriteDevices if refused.contains(&RewritingOption::Inplace) => {
            Some("--write-devices, which turns on --inplace,")
        }
        _ => Some(option.option()),
    };
    refused.iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::arguments::transfer_kind::TransferKind;
    use RewritingOption::{Append, Inplace, WriteDevices};

    fn push(rewriting: &[RewritingOption]) -> Arguments {
        Arguments { rewriting: rewriting.to_vec(), ..Arguments::unknown() }
    }

    #[test]
    fn the_client_is_told_which_option_would_rewrite_how_many_snapshots() {
        let told = |rewriting: &[RewritingOption], allowed: &[RewritingOption], count| {
            in_place_refusal(&push(rewriting), allowed, Sharing::Snapshots(count))
        };
        assert_eq!(
            told(&[Inplace], &[], 214).as_deref(),
            Some(
                "--inplace would rewrite 214 snapshots that share these files; please drop the \
                 option"
            )
        );
        assert_eq!(
            told(&[Inplace, Append], &[], 1).as_deref(),
            Some(
                "--inplace and --append would rewrite 1 snapshot that shares these files; please \
                 drop the options"
            )
        );
        assert_eq!(told(&[Inplace], &[Inplace], 214), None);
        assert_eq!(
            told(&[Inplace, Append], &[Inplace], 2).as_deref(),
            Some(
                "--append would rewrite 2 snapshots that share these files; please drop the option"
            )
        );
    }

    #[test]
    fn write_devices_is_named_where_it_brings_inplace() {
        let told = |rewriting: &[RewritingOption], allowed: &[RewritingOption]| {
            in_place_refusal(&push(rewriting), allowed, Sharing::Snapshots(2)).unwrap_or_default()
        };
        let what = "would rewrite 2 snapshots that share these files; please drop the option";
        for (allowed, expected) in [
            (&[][..], format!("--write-devices, which turns on --inplace, {what}")),
            (&[WriteDevices], format!("--inplace, which --write-devices turns on, {what}")),
            (&[Inplace], format!("--write-devices {what}")),
        ] {
            assert_eq!(told(&[Inplace, WriteDevices], allowed), expected);
        }
        let both = told(&[Inplace, Append, WriteDevices], &[]);
        assert!(both.ends_with("please drop the options"), "{both}");
        assert!(both.starts_with("--append and --write-devices, which"), "{both}");
    }

    #[test]
    fn without_a_snapshot_there_is_nothing_to_rewrite_unless_unknown() {
        assert_eq!(in_place_refusal(&push(&[Inplace]), &[], Sharing::Snapshots(0)), None);
        assert_eq!(in_place_refusal(&push(&[]), &[], Sharing::Unknown), None);
        let told = in_place_refusal(&push(&[Inplace]), &[], Sharing::Unknown);
        assert!(told.is_some_and(|told| told.contains("could rewrite")));
        let pull = Arguments { kind: TransferKind::Pull, ..push(&[Inplace]) };
        assert_eq!(in_place_refusal(&pull, &[], Sharing::Snapshots(3)), None);
    }

    fn with_partial_dir(value: &str) -> Arguments {
        let list =
            ["rsyncd", "--server", "-r", "--partial-dir", value, "--backup-dir=a/.~tmp~", ".", "."];
        Arguments::parse(&list.map(|word| word.as_bytes().to_vec()))
    }

    #[test]
    fn a_partial_directory_is_one_of_a_few() {
        let accepted = PartialDirs::listed(&["parts".to_string()]);
        for value in ["docs", "/docs", "a/docs", "/.rsync-partial", "../x"] {
            let told = partial_dir_refusal(&with_partial_dir(value), &accepted).unwrap_or_default();
            let expected =
                format!("with --partial-dir={value} rsync would write into files in {value} that");
            assert!(told.starts_with(&expected), "{told}");
            assert!(told.ends_with("please use --partial-dir=.rsync-partial"), "{told}");
        }
        let told = partial_dir_refusal(&with_partial_dir("parts"), &accepted).unwrap_or_default();
        assert!(told.starts_with("--backup-dir=a/.~tmp~ would move files"), "{told}");
        let pull = Arguments { kind: TransferKind::Pull, ..with_partial_dir("docs") };
        assert_eq!(partial_dir_refusal(&pull, &accepted), None);
    }

    #[test]
    fn a_partial_file_that_snapshots_may_share_is_named() {
        let push = with_partial_dir(".rsync-partial");
        assert_eq!(leftover_refusal(&push, &Leftover::Nothing), None);
        for (found, expected) in [
            (
                Leftover::File(b".rsync-partial/x".to_vec()),
                "rsync would write into .rsync-partial/x",
            ),
            (Leftover::Link(b".rsync-partial".to_vec()), "the symbolic link .rsync-partial would"),
            (Leftover::Unknown, "with --partial-dir rsync could write"),
        ] {
            let told = leftover_refusal(&push, &found).unwrap_or_default();
            assert!(told.contains(expected), "{told}");
        }
    }

    fn told_of(words: &[&str], path: &str) -> Option<String> {
        let all = ["rsyncd", "--server"].iter().chain(words);
        let list: Vec<_> = all.map(|word| word.as_bytes().to_vec()).collect();
        snapshot_directory_refusal(&Arguments::parse(&list), path)
    }

    #[test]
    fn a_push_that_names_snapshots_is_told_the_word() {
        for (words, path, named) in [
            (&["-r", "--partial-dir", ".snap/x", ".", "data/"][..], "data/", ".snap/x"),
            (&["-r", "--partial-dir=.snap/x", ".", "data/"], "data/", "--partial-dir=.snap/x"),
            (&["-r", ".", "data/.snap/x"], "data/.snap/x", "data/.snap/x"),
            (&["-r", ".", "data/.snap/x\n"], "data/.snap/x", "data/.snap/x\\x0a"),
            (&["-r", ".", "x"], "data/.snap", "data/.snap"),
            (&["--unheard-of", ".snap", "-r", ".", "x"], "data/", ".snap"),
            (&["--sender", "--remove-source-files", ".", ".snap/x"], "data/.snap/x", ".snap/x"),
        ] {
            let told = told_of(words, path).unwrap_or_default();
            let expected = format!("{named} leads to .snap, where CephFS keeps");
            assert!(told.starts_with(&expected), "{told}");
        }
    }

    #[test]
    fn who_only_reads_may_name_snapshots() {
        assert_eq!(told_of(&["--sender", "-r", ".", ".snap/x"], "data/.snap/x"), None);
        assert_eq!(told_of(&["-rn", ".", ".snap/x"], "data/.snap/x"), None);
        assert_eq!(told_of(&["-r", ".", "data/"], "data/"), None);
        let pull = Arguments { kind: TransferKind::Pull, ..Arguments::unknown() };
        assert_eq!(snapshot_directory_refusal(&pull, "data/.snap"), None);
        assert!(snapshot_directory_refusal(&Arguments::unknown(), "data/.snap").is_some());
    }
}
