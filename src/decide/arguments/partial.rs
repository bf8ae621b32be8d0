//! The directories in which a push would have rsync continue files in place, and those to which it
//! moves old files.

use crate::decide::arguments::option_name::{GivenOption, OptionName};
use crate::decide::partial_dirs::{DELAYED, is_none};

/// The values of an option with this long name, in the order of the command line.
pub(crate) fn values(options: &[GivenOption], name: &str) -> Vec<Vec<u8>> {
    let is_meant = |option: &&GivenOption| option.name == OptionName::Long(name.to_string());
    options.iter().filter(is_meant).filter_map(|option| option.value.clone()).collect()
}

/// The partial directories that the options name. Only the last one is in effect, but all count.
pub(crate) fn partial_dirs(options: &[GivenOption]) -> Vec<Vec<u8>> {
    let given = |name: &str| {
        options.iter().rposition(|option| option.name == OptionName::Long(name.into()))
    };
    let mut named = values(options, "partial-dir");
    named.retain(|value| !is_none(value));
    if named.is_empty() && given("delay-updates") > given("no-delay-updates") {
        named.push(DELAYED.into());
    }
    named
}

/// The partial directories that a list may name if it holds a word which was not understood. Every
/// word that looks like such an option counts.
pub(crate) fn suspected(arguments: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut named = Vec::new();
    let mut words = arguments.iter().peekable();
    while let Some(word) = words.next() {
        let Some(rest) = word.strip_prefix(b"--partial-dir") else {
            if word.starts_with(b"--delay-updates") {
                named.push(DELAYED.into());
            }
            continue;
        };
        named.push(match rest.strip_prefix(b"=") {
            Some(value) => value.to_vec(),
            // If the value is missing, the option's own word counts as the value.
            None => words.peek().map_or(word, |next| *next).clone(),
        });
    }
    named
}
