//! The files that make up `rsyncd.conf`: as they are on disk, or as a plan would have them.
//!
//! `setup` reads the configuration as it would be, before it writes any of it. So what it plans
//! takes the place of what is on disk, and all else is read from there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::system::small_file;
use crate::tell::error::Error;
use crate::tell::escape::escape_path;

/// A larger file is refused: a device may have no end.
const MAX_BYTES: u64 = 16 << 20;

/// The files of a configuration.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConfFiles {
    /// What files will hold that are not written yet.
    planned: BTreeMap<PathBuf, Vec<u8>>,
}

impl ConfFiles {
    /// The same with `text` in the file at `path`, whose directory counts as being there.
    #[must_use]
    pub(crate) fn with(mut self, path: &Path, text: &[u8]) -> Self {
        self.planned.insert(path.to_path_buf(), text.to_vec());
        self
    }

    /// Reads a file; `is_included`: by another one.
    pub(super) fn read(&self, file: &Path, is_included: bool) -> Result<Vec<u8>, Error> {
        if let Some(text) = self.planned.get(file) {
            return Ok(text.clone());
        }
        let refused = |problem| Error::RsyncdConf {
            place: format!("cannot read {}", escape_path(file)),
            problem,
            stops_rsync: false,
        };
        let read =
            File::open(file).and_then(|opened| small_file::read_opened(&opened, MAX_BYTES + 1));
        let read = read.or_else(|cause| match cause.kind() {
            // A directory in one that is included is an empty file to rsync.
            ErrorKind::IsADirectory if is_included => Ok(Vec::new()),
            _ => Err(cause),
        });
        let text = read.map_err(|cause| match cause.kind() {
            // A symbolic link in a directory that is included, which leads nowhere.
            ErrorKind::NotFound if is_included => Error::RsyncdConf {
                place: escape_path(file),
                problem: format!(
                    "{cause}, at which rsync stops, so every connection fails; make that file, or \
                     remove its link"
                ),
                stops_rsync: true,
            },
            ErrorKind::NotFound => refused(format!(
                "{cause}; if rsyncd's configuration has another name, give it with `--rsyncd-conf \
                 FILE`"
            )),
            _ => refused(cause.to_string()),
        })?;
        match text.len() as u64 <= MAX_BYTES {
            true => Ok(text),
            false => Err(refused(format!(
                "it has more than {} MiB and is not an rsyncd.conf",
                MAX_BYTES >> 20
            ))),
        }
    }

    /// The files that a directive's target stands for: itself, or those in it whose names end so,
    /// in the order of their names. And one file in it that has another name.
    pub(super) fn of(
        &self,
        target: &Path,
        suffix: &str,
    ) -> io::Result<(Vec<PathBuf>, Option<PathBuf>)> {
        let ends_so = |name: &[u8]| name.ends_with(suffix.as_bytes());
        let planned = self.planned.keys().filter(|path| path.parent() == Some(target));
        let planned = planned.filter_map(|path| path.file_name());
        let mut names: Vec<_> = planned.map(ToOwned::to_owned).collect();
        let is_planned = self.planned.contains_key(target);
        let metadata = match fs::metadata(target) {
            Ok(metadata) if metadata.is_file() => None,
            Ok(metadata) => Some(metadata),
            Err(_) if is_planned => None,
            Err(cause) if cause.kind() == ErrorKind::NotFound && !names.is_empty() => {
                names.retain(|name| ends_so(name.as_bytes()));
                return Ok((names.into_iter().map(|name| target.join(name)).collect(), None));
            }
            Err(cause) => return Err(cause),
        };
        let Some(metadata) = metadata else { return Ok((vec![target.to_path_buf()], None)) };
        if !metadata.is_dir() {
            return Err(io::Error::other("neither a file nor a directory"));
        }
        let mut others = Vec::new();
        for entry in fs::read_dir(target)? {
            let entry = entry?;
            let name = entry.file_name();
            match ends_so(name.as_bytes()) {
                true => names.push(name),
                false if entry.file_type()?.is_file() => others.push(entry.path()),
                false => {}
            }
        }
        names.retain(|name| ends_so(name.as_bytes()));
        names.sort();
        names.dedup();
        Ok((names.into_iter().map(|name| target.join(name)).collect(), others.into_iter().min()))
    }
}
