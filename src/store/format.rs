//! The format number that our text files begin with.
//!
//! A file of a newer version is neither read nor overwritten: it may hold keys that this version
//! does not know. So the number is checked before the rest is parsed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::dir::Dir;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape_path, one_line};

/// The value that `text`, the content of the file at `path`, holds.
///
/// # Errors
/// [`Error::Newer`] if a newer version wrote it, [`Error::Damaged`] if it cannot be understood.
pub(crate) fn read<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    read_up_to(path, text, FORMAT)
}

fn read_up_to<T: DeserializeOwned>(path: &Path, text: &str, newest: u32) -> Result<T> {
    let path = || escape_path(path);
    match number(text) {
        Some(format) if format > newest.into() => {
            return Err(Error::Newer { path: path(), format, known: newest });
        }
        _ => {}
    }
    toml::from_str(text)
        .map_err(|error| Error::Damaged { path: path(), problem: first_line(&error) })
}

/// What texts of one kind were parsed to. A run reads the state a dozen times and each record
/// twice, mostly unchanged, and to compare texts takes far less time than to parse them.
pub(crate) struct ParsedTexts<T> {
    most: usize,
    max_bytes: usize,
    newest: u32,
    known: Mutex<BTreeMap<String, T>>,
}

impl<T: DeserializeOwned + Clone> ParsedTexts<T> {
    /// Keeps at most the last `most` texts, and none of more than `max_bytes`: such a text is
    /// parsed each time.
    pub(crate) const fn new(most: usize, max_bytes: usize) -> Self {
        ParsedTexts::up_to(FORMAT, most, max_bytes)
    }

    /// [`new`](Self::new) for texts of a format up to `newest`.
    pub(crate) const fn up_to(newest: u32, most: usize, max_bytes: usize) -> Self {
        ParsedTexts { most, max_bytes, newest, known: Mutex::new(BTreeMap::new()) }
    }

    /// [`read`] of a text that may have been read before.
    ///
    /// # Errors
    /// As [`read`].
    pub(crate) fn read(&self, path: &Path, text: &str) -> Result<T> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = known.get(text) {
            return Ok(value.clone());
        }
        let value: T = read_up_to(path, text, self.newest)?;
        if known.len() >= self.most {
            known.clear();
        }
        if text.len() <= self.max_bytes {
            known.insert(text.to_string(), value.clone());
        }
        Ok(value)
    }
}

/// The number of the top-level key `format`, which we write before every table.
fn number(text: &str) -> Option<u64> {
    let mut top = text.lines().map(str::trim).take_while(|line| !line.starts_with('['));
    top.find_map(|line| {
        line.strip_prefix("format")?.trim_start().strip_prefix('=')?.trim().parse().ok()
    })
}

/// The format of all files but the registration of a root whose snapshots are no hard links. That
/// one keeps earlier versions, which know only hard links, away from the whole root.
pub(crate) const FORMAT: u32 = 1;

/// The format of that registration.
pub(crate) const FORMAT_WITH_METHOD: u32 = 2;

/// TOML text of one of our own structures.
pub(crate) fn to_toml(value: &impl Serialize, dir: Dir) -> Result<String> {
    let damaged = |error: toml::ser::Error| Error::Damaged {
        path: escape_path(dir.path),
        problem: error.to_string(),
    };
    toml::to_string(value).map_err(damaged)
}

/// The message of a TOML error with its position, on one line. It quotes the file, which may hold
/// any bytes, so it is escaped.
pub(crate) fn first_line(error: &toml::de::Error) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    one_line(&lines.join(" ")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ledger_entry::LedgerEntry;
    use crate::store::registration::Registration;
    use crate::store::state::State;

    const ROOT_KEYS: &str = "format module path method module_inode";
    const STATE_KEYS: &str = "\
        format policy_file state_lost records_lost last_run torn due deferred_since \
        written_in_place shortfall pushes full_comparison clock_jump sequence clock \
        confirmed_future brake damage catalogue_bytes paired rules pins retired";
    const TRANSFER_KEYS: &str = "\
        format kind refused began began_at sequence request rewriting job forbidden \
        client owner worker";

    #[test]
    fn the_number_is_that_of_the_top_level_key() {
        for (text, expected) in [
            ("format = 1\nmodule = \"a\"\n", Some(1)),
            ("module = \"format = 3\"\nformat=2\n", Some(2)),
            ("a = 1\n[table]\nformat = 9\n", None),
            ("formats = 7\n", None),
            ("format = \"x\"\n", None),
            ("", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
    }

    #[test]
    fn a_text_that_has_changed_is_parsed_anew() {
        #[derive(Clone, serde::Deserialize)]
        struct Counted {
            count: u32,
        }
        let known = ParsedTexts::<Counted>::new(1, 99);
        let path = Path::new("/root.toml");
        for count in [1, 1, 2, 1] {
            let value = known.read(path, &format!("count = {count}\n")).expect("a number");
            assert_eq!(value.count, count);
            assert!(known.read(path, "count = \"x\"\n").is_err());
        }
    }

    #[test]
    fn newer_files_are_told_apart_from_damaged_ones() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Known {
            #[expect(dead_code, reason = "only read")]
            format: u32,
        }
        let read = |text: &str| read::<Known>(Path::new("/root.toml"), text);
        assert!(read("format = 1\n").is_ok());
        let newer = read("format = 2\nunknown = true\n").unwrap_err();
        assert!(matches!(newer, Error::Newer { format: 2, .. }), "{newer}");
        assert!(newer.to_string().contains("newer version"), "{newer}");
        for text in ["format = 1\nunknown = true\n", "", "%"] {
            let damaged = read(text).unwrap_err();
            assert!(matches!(damaged, Error::Damaged { .. }), "{text}: {damaged}");
        }
    }

    /// The keys that a structure has; it refuses all others.
    fn keys<T: DeserializeOwned>() -> Vec<String> {
        let error = toml::from_str::<T>("no_such_key = 1").err().expect("it refuses unknown keys");
        let message = error.message().to_string();
        let (_, expected) = message.split_once("expected").expect("the keys");
        expected.split('`').skip(1).step_by(2).map(str::to_string).collect()
    }

    /// An earlier version refuses a key that it does not know, and takes the file for damaged,
    /// unless the number tells it that the file is newer.
    #[test]
    fn a_new_key_takes_a_new_format() {
        assert_eq!((FORMAT, FORMAT_WITH_METHOD), (1, 2), "list the keys of the new format");
        for (kind, actual, expected) in [
            ("root.toml", keys::<Registration>(), ROOT_KEYS),
            ("state.toml", keys::<State>(), STATE_KEYS),
            ("transfers", keys::<LedgerEntry>(), TRANSFER_KEYS),
        ] {
            assert_eq!(actual.join(" "), expected, "{kind}: raise FORMAT");
        }
    }
}
