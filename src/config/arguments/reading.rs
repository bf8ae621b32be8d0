//! Arguments to options, in the order and by the rules of popt, with which rsync reads its own.

use super::options::{self, Described, Meaning};

/// The options among the arguments of a daemon, or nothing when there is one word that this
/// program does not understand for sure.
pub(super) fn read(arguments: &[Vec<u8>]) -> Option<Vec<Meaning>> {
    // Every client sends `--server` first and a dot before the paths. Before `--server` rsync would
    // expand the aliases of /etc/popt, and a list without a dot may have been cut short.
    let [_, server, rest @ ..] = arguments else { return None };
    if server != b"--server" || !rest.iter().any(|word| word == b".") {
        return None;
    }
    let mut meanings = Vec::new();
    let mut words = rest.iter().map(Vec::as_slice);
    while let Some(word) = words.next() {
        match word {
            // No client sends these; popt has read a lone dash in two ways, and after two dashes
            // it reads no options, but only to the end of the first of two secluded lists.
            b"-" | b"--" => return None,
            [b'-', b'-', long @ ..] => meanings.push(long_option(long, &mut words)?),
            [b'-', cluster @ ..] => short_options(cluster, &mut words, &mut meanings)?,
            // A path. Options may follow it: popt looks for them in all of the list.
            _ => {}
        }
    }
    Some(meanings)
}

/// `name`, `name=value`, or `name` with the next word as its value, whatever that looks like.
fn long_option<'a>(long: &[u8], words: &mut impl Iterator<Item = &'a [u8]>) -> Option<Meaning> {
    let equals = long.iter().position(|byte| *byte == b'=');
    let Described { meaning, takes_value } = options::long(&long[..equals.unwrap_or(long.len())])?;
    match (takes_value, equals) {
        (true, None) => words.next().map(|_| meaning),
        (true, Some(_)) | (false, None) => Some(meaning),
        (false, Some(_)) => None,
    }
}

/// Letters up to one that takes a value: the rest of the cluster or, at its end, the next word.
fn short_options<'a>(
    cluster: &[u8],
    words: &mut impl Iterator<Item = &'a [u8]>,
    meanings: &mut Vec<Meaning>,
) -> Option<()> {
    for (index, letter) in cluster.iter().enumerate() {
        let Described { meaning, takes_value } = options::short(*letter)?;
        meanings.push(meaning);
        if takes_value {
            let attached = index + 1 < cluster.len();
            return if attached { Some(()) } else { words.next().map(|_| ()) };
        }
    }
    Some(())
}
