//! A file that the administrator names for the output of a command.
//!
//! A reader finds the old text or the new one, and never a part: the text is written into a
//! temporary file beside it, which then gets its name. Both last no longer than until the next run,
//! so neither is synced.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::tell::error::{Error, Result};
use crate::tell::escape::escape_path;

/// Each user may read the file: a program that reads metrics runs as a user of its own.
const MODE: u32 = 0o644;

/// The file, whose directory is open.
pub(crate) struct OutputFile {
    path: PathBuf,
    temporary: PathBuf,
    directory: File,
}

impl OutputFile {
    /// Looks whether the file may be replaced.
    ///
    /// # Errors
    /// If its directory cannot be opened, or if the path is that of something else than a file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = parent.unwrap_or(Path::new("."));
        // A device or a pipe would be gone for all programs.
        let is_file = match fs::symlink_metadata(path) {
            Ok(found) => found.is_file(),
            Err(error) => error.kind() == ErrorKind::NotFound,
        };
        let Some(name) = path.file_name().filter(|_| is_file) else {
            return Err(Error::Usage(format!(
                "{} cannot be replaced, for it is no file: name a file, which may be missing, in a \
                 directory that exists",
                escape_path(path)
            )));
        };
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}.tmp", std::process::id()));
        Ok(OutputFile {
            path: path.to_path_buf(),
            temporary: directory.join(temporary),
            directory: File::open(directory)
                .map_err(|cause| Error::io("open the directory", directory, cause))?,
        })
    }

    /// The directory, in which this process has to make and rename files.
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// If it cannot be written; then it is as it was.
    pub(crate) fn replace(&self, text: &str) -> Result<()> {
        let written = self.write(text).and_then(|()| fs::rename(&self.temporary, &self.path));
        written.map_err(|cause| {
            let _ = fs::remove_file(&self.temporary);
            Error::io("write", &self.path, cause)
        })
    }

    fn write(&self, text: &str) -> std::io::Result<()> {
        // Other users may be allowed to write into the directory. A file or a link that one of them
        // puts there is not written into.
        let _ = fs::remove_file(&self.temporary);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&self.temporary)?;
        file.set_permissions(Permissions::from_mode(MODE))?;
        file.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn the_file_is_replaced_as_a_whole_and_each_user_may_read_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("metrics.prom");
        for text in ["first\n", "second\n"] {
            let before = fs::metadata(&path).map(|found| found.ino()).ok();
            OutputFile::open(&path).expect("a file").replace(text).expect("replaced");
            assert_eq!(fs::read_to_string(&path).expect("readable"), text);
            let found = fs::metadata(&path).expect("a file");
            assert_eq!(found.mode() & 0o7777, MODE);
            assert_ne!(Some(found.ino()), before, "another file in its place");
        }
        let names = fs::read_dir(directory.path()).expect("listed");
        assert_eq!(names.count(), 1, "no temporary file is left");
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let link = directory.path().join("link");
        symlink("/dev/null", &link).expect("a link");
        for path in [Path::new("/dev/null"), directory.path(), &link, Path::new("/")] {
            let error = OutputFile::open(path).err().expect("refused").to_string();
            assert!(error.contains("it is no file"), "{error}");
        }
        let missing = directory.path().join("not there/metrics.prom");
        assert!(OutputFile::open(&missing).is_err());
    }

    #[test]
    fn another_users_temporary_file_is_not_written_into() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, other) = (directory.path().join("x.prom"), directory.path().join("other"));
        fs::write(&other, "kept").expect("a file");
        let output = OutputFile::open(&path).expect("a file");
        fs::hard_link(&other, &output.temporary).expect("a link");
        output.replace("new").expect("replaced");
        assert_eq!(fs::read_to_string(&other).expect("readable"), "kept");
        assert_eq!(fs::read_to_string(&path).expect("readable"), "new");
    }
}
