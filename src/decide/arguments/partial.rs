//! The directories in which a push would have rsync go on in place, and those that it moves old
//! files to.

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

/// The partial directories that a list may name of which a word was not understood: every word that
/// looks like such an option counts.
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
            // The option itself stands for a value that is missing.
            None => words.peek().map_or(word, |next| *next).clone(),
        });
    }
    named
}
