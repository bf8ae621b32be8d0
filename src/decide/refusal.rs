//! Which pushes are turned away, and what their client is told.
//!
//! Snapshots share files with the module. An option with which rsync writes into a file that is there, instead of
//! making a new one, would rewrite history. While there is no snapshot there is none to rewrite.

use crate::config::arguments::{Arguments, Rewriting};

/// How many snapshots share files with the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// So many.
    Snapshots(usize),
    /// It cannot be found out.
    Unknown,
}

/// The sentence for a client whose transfer is turned away, if it is.
pub fn refusal(arguments: &Arguments, allowed: &[Rewriting], sharing: Sharing) -> Option<String> {
    let is_refused = |option: &&Rewriting| !allowed.contains(option);
    let refused: Vec<&str> =
        arguments.rewriting.iter().filter(is_refused).map(|option| option.option()).collect();
    // Whoever only reads names such options, too, and rewrites nothing.
    if !arguments.kind.writes() || refused.is_empty() || sharing == Sharing::Snapshots(0) {
        return None;
    }
    let what = match sharing {
        Sharing::Snapshots(1) => "would rewrite 1 snapshot that shares these files".to_string(),
        Sharing::Snapshots(count) => format!("would rewrite {count} snapshots that share these files"),
        Sharing::Unknown => "could rewrite snapshots that share these files".to_string(),
    };
    let them = if refused.len() == 1 { "the option" } else { "the options" };
    Some(format!("{} {what}; please drop {them}", refused.join(" and ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::arguments::Kind;
    use Rewriting::{Append, Inplace};

    fn push(rewriting: &[Rewriting]) -> Arguments {
        Arguments { rewriting: rewriting.to_vec(), ..Arguments::unknown() }
    }

    #[test]
    fn the_client_is_told_which_option_would_rewrite_how_many_snapshots() {
        let told = |rewriting: &[Rewriting], allowed: &[Rewriting], count| {
            refusal(&push(rewriting), allowed, Sharing::Snapshots(count))
        };
        assert_eq!(
            told(&[Inplace], &[], 214).as_deref(),
            Some("--inplace would rewrite 214 snapshots that share these files; please drop the option")
        );
        assert_eq!(
            told(&[Inplace, Append], &[], 1).as_deref(),
            Some(
                "--inplace and --append would rewrite 1 snapshot that shares these files; please drop the options"
            )
        );
        assert_eq!(told(&[Inplace], &[Inplace], 214), None);
        assert_eq!(
            told(&[Inplace, Append], &[Inplace], 2).as_deref(),
            Some("--append would rewrite 2 snapshots that share these files; please drop the option")
        );
    }

    #[test]
    fn without_a_snapshot_there_is_nothing_to_rewrite_unless_nobody_knows() {
        assert_eq!(refusal(&push(&[Inplace]), &[], Sharing::Snapshots(0)), None);
        assert_eq!(refusal(&push(&[]), &[], Sharing::Unknown), None);
        let told = refusal(&push(&[Inplace]), &[], Sharing::Unknown);
        assert!(told.is_some_and(|told| told.contains("could rewrite")));
        let pull = Arguments { kind: Kind::Pull, ..push(&[Inplace]) };
        assert_eq!(refusal(&pull, &[], Sharing::Snapshots(3)), None);
    }
}
