//! Translates a `rotate-backups.ini`, the configuration of the program that this one replaces.
//!
//! [`ini`] reads the text, [`location`] reads section names, [`table`] translates options into keys
//! of our policy, and [`module`] finds the module that a section is about.

pub(crate) mod ini;
pub(crate) mod location;
pub(crate) mod module;
pub(crate) mod table;
mod value;

use std::collections::BTreeSet;
use std::path::Path;

use crate::migrate::ini::IniMistake;
use crate::migrate::location::SectionLocation;
use crate::migrate::table::PolicyTable;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path};

/// A section in terms of our policy.
#[derive(Debug, Clone)]
pub struct TranslatedSection {
    /// What stands between its brackets, not escaped.
    pub name: String,
    /// The line of its header, from 1.
    pub line: usize,
    /// The directories that it applies to.
    pub location: SectionLocation,
    /// Its options.
    pub table: PolicyTable,
}

/// Translates the `text` of `file`, section by section, in its order.
///
/// # Errors
/// [`Error::Policy`] with a line for each mistake, and if there is nothing to translate.
pub fn read(file: &Path, text: &[u8]) -> Result<Vec<TranslatedSection>> {
    let told = |mistakes: BTreeSet<IniMistake>| {
        let told = |mistake: IniMistake| {
            format!(
                "{}:{}: {}",
                escape_path(file),
                mistake.line,
                escape(mistake.message.as_bytes())
            )
        };
        Error::Policy(mistakes.into_iter().map(told).collect())
    };
    let sections = ini::read(text).map_err(|mistakes| told(mistakes.into_iter().collect()))?;
    if sections.is_empty() {
        let message = "has no section: rotate-backups takes a [directory] with its options, and \
                       without one there is nothing to translate";
        return Err(Error::Policy(vec![format!("{} {message}", escape_path(file))]));
    }
    // [DEFAULT] reaches each section, and its mistakes with it.
    let mut mistakes = BTreeSet::new();
    let mut translated = Vec::new();
    for section in &sections {
        let location = SectionLocation::parse(&section.name, |name| std::env::var(name).ok(), home);
        match PolicyTable::of(section, &sections) {
            Ok(table) => {
                translated.push(TranslatedSection {
                    name: section.name.clone(),
                    line: section.line,
                    location,
                    table,
                });
            }
            Err(mut found) => mistakes.append(&mut found),
        }
    }
    if mistakes.is_empty() { Ok(translated) } else { Err(told(mistakes)) }
}

/// The home directory of a user; of this process's user if `user` is empty.
fn home(user: &str) -> Option<String> {
    if user.is_empty()
        && let Ok(home) = std::env::var("HOME")
    {
        return Some(home);
    }
    let found = match user {
        "" => nix::unistd::User::from_uid(nix::unistd::Uid::current()),
        user => nix::unistd::User::from_name(user),
    };
    found.ok().flatten()?.dir.into_os_string().into_string().ok()
}
