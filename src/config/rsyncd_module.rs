//! One module of `rsyncd.conf`: its parameters, and its directory as far as the file says it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::config::own_program::is_this_program;
use crate::config::rsyncd_syntax::is_space;
use crate::engine::responsiveness::is_responsive;
use crate::tell::PROGRAM;
use crate::tell::error::Error;
use crate::tell::escape::{escape, escape_path};

/// A file of the configuration and a line in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfPlace {
    pub(crate) file: Arc<Path>,
    pub(crate) line: usize,
}

impl fmt::Display for ConfPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", escape_path(&self.file), self.line)
    }
}

/// The value of a parameter, and where it comes from.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) value: Vec<u8>,
    pub(crate) place: ConfPlace,
    /// Whether the module's own section has it, and not the defaults.
    pub(crate) is_own: bool,
}

/// A line that rsync reads and ignores.
#[derive(Debug, Clone)]
pub(crate) struct IgnoredSetting {
    /// As it stands in the file.
    pub(crate) name: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) place: ConfPlace,
    pub(crate) because: IgnoredBecause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IgnoredBecause {
    /// rsync 3.5 has no such parameter.
    Unknown,
    /// The value is neither yes nor no.
    NoBoolean,
    /// It is a parameter of the whole daemon, and stands in the section of a module.
    Global,
}

/// Parameters as they are for one module, or as defaults.
#[derive(Debug, Clone, Default)]
pub(crate) struct ModuleParameters {
    /// By [`canonical`] name.
    pub(crate) settings: BTreeMap<Vec<u8>, Setting>,
    pub(crate) ignored: Vec<IgnoredSetting>,
}

/// One module.
#[derive(Debug, Clone)]
pub struct RsyncdModule {
    /// Its name as clients and hooks know it.
    pub name: Vec<u8>,
    /// Its parameters over the defaults; parameters that rsync 3.5 does not know are among them.
    pub(crate) parameters: ModuleParameters,
    /// Its first header.
    pub(crate) place: ConfPlace,
}

/// What `rsyncd.conf` says about the directory of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModuleDirectory {
    /// This path.
    At(PathBuf),
    /// The path depends on the connection or on the daemon. rsyncd gives it to the hooks.
    Unknown {
        /// Why, as the rest of a sentence about the module.
        why: String,
    },
}

impl RsyncdModule {
    /// The value of a parameter; as in the file, neither case nor whitespace matter in its name.
    /// `None` when rsync's built-in default holds.
    pub fn get(&self, parameter: &str) -> Option<&[u8]> {
        self.setting(parameter).map(|setting| setting.value.as_slice())
    }

    /// [`get`](Self::get) with the place.
    pub(crate) fn setting(&self, parameter: &str) -> Option<&Setting> {
        self.parameters.settings.get(&canonical(parameter.as_bytes()))
    }

    /// Where the parameter stands, or else where the module's section begins.
    pub(crate) fn place_of(&self, parameter: &str) -> &ConfPlace {
        self.setting(parameter).map_or(&self.place, |setting| &setting.place)
    }

    /// The last line for this parameter that rsync ignores, if none after it counts.
    pub(crate) fn ignored(&self, parameter: &str) -> Option<&IgnoredSetting> {
        let key = canonical(parameter.as_bytes());
        self.parameters.ignored.iter().rev().find(|line| canonical(&line.name) == key)
    }

    /// A parameter of yes or no; none if it is not certain, because it depends on a variable.
    pub(crate) fn boolean(&self, parameter: &str, default: bool) -> Option<bool> {
        self.get(parameter).map_or(Some(default), read_bool)
    }

    /// Whether rsyncd runs this program as the hook `parameter`: the command names it, or the file
    /// that it begins with is this program under another name.
    pub fn runs_this_program(&self, parameter: &str) -> bool {
        let name = PROGRAM.as_bytes();
        self.get(parameter).is_some_and(|command| {
            command.windows(name.len()).any(|part| part == name)
                || first_path(command).is_some_and(is_this_program)
        })
    }

    /// The module's directory, the same path that rsyncd gives to its hooks.
    ///
    /// # Errors
    /// If it has none, or another one for each connection.
    pub fn path(&self) -> Result<PathBuf, Error> {
        match self.whereabouts()? {
            ModuleDirectory::At(path) => Ok(path),
            ModuleDirectory::Unknown { why } => Err(self.refused(&why)),
        }
    }

    /// The module's directory, as far as `rsyncd.conf` says it.
    ///
    /// # Errors
    /// If it has none.
    pub fn whereabouts(&self) -> Result<ModuleDirectory, Error> {
        let is_set = |value: &&[u8]| !value.is_empty();
        let Some(value) = self.get("path").filter(is_set) else {
            return Err(self.refused("has no path; set `path = /DIRECTORY` in it"));
        };
        let unknown = |why| Ok(ModuleDirectory::Unknown { why });
        if let Some(chroot) = self.get("daemon chroot").filter(is_set) {
            return unknown(format!(
                "is inside `daemon chroot = {}`: name the directory instead of the module",
                escape(chroot)
            ));
        }
        let expanded = match self.expanded(value) {
            Ok(expanded) => expanded,
            Err(why) => return unknown(why),
        };
        if !expanded.starts_with(b"/") {
            return unknown(format!(
                "has the relative path {}, which depends on where the daemon was started: make it \
                 absolute",
                escape(value)
            ));
        }
        Ok(ModuleDirectory::At(normalized(Path::new(&OsString::from_vec(expanded)))))
    }

    /// Whether the module's directory may be this one, whose path is canonical.
    pub(crate) fn may_be_at(&self, directory: &Path) -> bool {
        match self.whereabouts() {
            Ok(ModuleDirectory::At(path)) if path == directory => true,
            Ok(ModuleDirectory::At(path)) => {
                is_responsive(&path) && path.canonicalize().is_ok_and(|path| path == directory)
            }
            Ok(ModuleDirectory::Unknown { .. }) => true,
            Err(_) => false,
        }
    }

    /// Replaces the only variable that does not depend on the connection or the daemon's
    /// environment. Another variable is an error.
    pub(crate) fn expanded(&self, value: &[u8]) -> Result<Vec<u8>, String> {
        let mut expanded = Vec::new();
        let mut rest = value;
        while let Some((&first, tail)) = rest.split_first() {
            match variable(rest) {
                Some(b"RSYNC_MODULE_NAME") => {
                    expanded.extend_from_slice(&self.name);
                    rest = &rest[b"%RSYNC_MODULE_NAME%".len()..];
                }
                Some(name) => {
                    return Err(format!(
                        "has the path {}, which depends on the connection or the daemon's \
                         environment because of %{}%: name the directory instead of the module",
                        escape(value),
                        escape(name)
                    ));
                }
                None => {
                    expanded.push(first);
                    rest = tail;
                }
            }
        }
        Ok(expanded)
    }

    /// `value` with the module's name in it, and with other variables as they stand.
    pub(crate) fn with_name(&self, value: &[u8]) -> Vec<u8> {
        let mut named = Vec::new();
        let mut rest = value;
        while let Some((&first, tail)) = rest.split_first() {
            match rest.strip_prefix(b"%RSYNC_MODULE_NAME%") {
                Some(behind) => {
                    named.extend_from_slice(&self.name);
                    rest = behind;
                }
                None => {
                    named.push(first);
                    rest = tail;
                }
            }
        }
        named
    }

    pub(crate) fn refused(&self, problem: &str) -> Error {
        let problem = format!("module {} {problem}", escape(&self.name));
        Error::RsyncdConf { place: self.place.to_string(), problem, stops_rsync: false }
    }
}

/// The absolute path that a command begins with, if it is written without anything for the shell.
fn first_path(command: &[u8]) -> Option<&Path> {
    let mut words = command.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let word = words.by_ref().find(|word| *word != b"exec")?;
    let quoted = |quote: &[u8]| word.strip_prefix(quote)?.strip_suffix(quote);
    let word = quoted(b"'").or_else(|| quoted(b"\"")).unwrap_or(word);
    word.starts_with(b"/").then(|| Path::new(OsStr::from_bytes(word)))
}

/// A value of yes or no as rsync reads it; none for one that it does not understand.
pub(crate) fn read_bool(value: &[u8]) -> Option<bool> {
    let value = canonical(value);
    let is = |words: &[&str]| words.iter().any(|word| value == word.as_bytes());
    if is(&["yes", "true", "1"]) {
        Some(true)
    } else if is(&["no", "false", "0"]) {
        Some(false)
    } else {
        None
    }
}

/// A name as rsync compares it: without whitespace, in one case.
pub(crate) fn canonical(name: &[u8]) -> Vec<u8> {
    name.iter().filter(|byte| !is_space(**byte)).map(u8::to_ascii_lowercase).collect()
}

/// The name of the variable that `text` begins with: `%`, a capital, and all before the next `%`.
pub(crate) fn variable(text: &[u8]) -> Option<&[u8]> {
    let name = text.strip_prefix(b"%")?;
    let end = name.iter().position(|byte| *byte == b'%')?;
    name.first()?.is_ascii_uppercase().then(|| &name[..end])
}

/// Whether a word holds a variable, which rsync replaces if the daemon or the connection has it.
pub(crate) fn has_variable(word: &[u8]) -> bool {
    (0..word.len()).any(|at| variable(&word[at..]).is_some())
}

/// `path` without doubled slashes, `.` and `..`, by its text alone, as rsync cleans it.
pub(crate) fn normalized(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            _ => {}
        }
    }
    clean
}
