//! Splits arguments into options, by the rules of popt, with which rsync reads its own.

use crate::decide::arguments::option_name::{GivenOption, OptionName};
use crate::decide::arguments::options::{self, OptionEffect, ServerOption};

/// What the arguments say, word by word.
#[derive(Debug, Default)]
pub(crate) struct ReadArguments {
    /// What each option means, in the order of the command line.
    pub(crate) effects: Vec<OptionEffect>,
    /// These options by name and value.
    pub(crate) options: Vec<GivenOption>,
    /// The words that are no options, the dot before the paths included.
    pub(crate) operands: Vec<Vec<u8>>,
}

/// The options among the arguments of a daemon, or nothing when there is one word that this
/// program does not understand for sure.
pub(crate) fn read(arguments: &[Vec<u8>]) -> Option<ReadArguments> {
    // Every client sends `--server` first and a dot before the paths. Before `--server` rsync would
    // expand the aliases of /etc/popt, and a list without a dot may have been cut short.
    let [_, server, rest @ ..] = arguments else { return None };
    if server != b"--server" || !rest.iter().any(|word| word == b".") {
        return None;
    }
    let mut read = ReadArguments::default();
    let mut words = rest.iter().map(Vec::as_slice);
    while let Some(word) = words.next() {
        match word {
            // No client sends these. Versions of popt read a lone dash in two ways. After two
            // dashes popt reads no options, but only to the end of the first of two secluded lists.
            b"-" | b"--" => return None,
            [b'-', b'-', long @ ..] => long_option(long, &mut words, &mut read)?,
            [b'-', cluster @ ..] => short_options(cluster, &mut words, &mut read)?,
            // A path. Options may follow it: popt looks for them in all of the list.
            _ => read.operands.push(word.to_vec()),
        }
    }
    Some(read)
}

/// `name`, `name=value`, or `name` with the next word as its value, whatever that looks like.
fn long_option<'a>(
    long: &[u8],
    words: &mut impl Iterator<Item = &'a [u8]>,
    read: &mut ReadArguments,
) -> Option<()> {
    let equals = long.iter().position(|byte| *byte == b'=');
    let name = &long[..equals.unwrap_or(long.len())];
    let ServerOption { effect, takes_value } = options::long(name)?;
    let value = match (takes_value, equals) {
        (true, None) => Some(words.next()?.to_vec()),
        (true, Some(equals)) => Some(long[equals + 1..].to_vec()),
        (false, None) => None,
        (false, Some(_)) => return None,
    };
    read.effects.push(effect);
    let name = OptionName::Long(String::from_utf8(name.to_vec()).ok()?);
    read.options.push(GivenOption { name, value });
    Some(())
}

/// Letters up to one that takes a value: the rest of the cluster or, at its end, the next word.
fn short_options<'a>(
    cluster: &[u8],
    words: &mut impl Iterator<Item = &'a [u8]>,
    read: &mut ReadArguments,
) -> Option<()> {
    for (index, letter) in cluster.iter().enumerate() {
        let ServerOption { effect, takes_value } = options::short(*letter)?;
        read.effects.push(effect);
        let name = OptionName::Letter(char::from(*letter));
        if takes_value {
            let attached = &cluster[index + 1..];
            let value = if attached.is_empty() { words.next()? } else { attached };
            // popt takes `-B=700` for `-B700`.
            let value = value.strip_prefix(b"=").filter(|_| !attached.is_empty()).unwrap_or(value);
            read.options.push(GivenOption { name, value: Some(value.to_vec()) });
            return Some(());
        }
        read.options.push(GivenOption { name, value: None });
    }
    Some(())
}
