//! Makes and replaces files of the server's configuration, durably.
//!
//! A file is written whole under a temporary name in its directory, gets its mode and owner, is
//! synced, is renamed over the old one, and the directory is synced. So at every moment the daemon
//! reads the old text or the new one. What a killed run leaves under the temporary name, the next
//! run writes anew; rsync does not include it, for its name does not end in `.conf`.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{
    DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown as change_owner,
};
use std::path::{Path, PathBuf};

use crate::store::dir::TEMPORARY;
use crate::tell::error::{Error, Result};

/// The file that `path` stands for: what a symbolic link leads to, or the path itself if nothing is
/// there.
///
/// # Errors
/// If a symbolic link leads nowhere, or something else than a file is there.
pub(crate) fn file_behind(path: &Path) -> Result<PathBuf> {
    match fs::canonicalize(path) {
        Ok(real) if real.is_file() => Ok(real),
        Ok(_) => Err(Error::io("replace", path, io::Error::other("it is no file"))),
        Err(cause) if cause.kind() == ErrorKind::NotFound && !path.is_symlink() => {
            Ok(path.to_path_buf())
        }
        Err(cause) => Err(Error::io("find the file", path, cause)),
    }
}

/// The text of the file; none if it does not exist.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(Error::io("read", path, cause)),
    }
}

/// Replaces the file, or makes it with `mode`. The mode and owner of an old one stay.
///
/// # Errors
/// If it cannot be written; then it is as it was.
pub(crate) fn write(path: &Path, text: &[u8], mode: u32) -> Result<()> {
    let (directory, name) = (directory_of(path), path.file_name().unwrap_or_default());
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(TEMPORARY);
    let temporary = directory.join(temporary);
    let written = write_draft(&temporary, path, text, mode)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|cause| {
            let _ = fs::remove_file(&temporary);
            Error::io("write", path, cause)
        });
    written.and_then(|()| sync(directory))
}

fn write_draft(temporary: &Path, path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    // A file or a link that another user puts there is not written into.
    let _ = fs::remove_file(temporary);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(temporary)?;
    file.write_all(text)?;
    let mode = match fs::metadata(path) {
        Ok(old) => {
            let new = file.metadata()?;
            if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
                change_owner(&file, Some(old.uid()), Some(old.gid()))?;
            }
            old.mode() & 0o7777
        }
        Err(_) => mode,
    };
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Makes the directory with `mode`, durably.
///
/// # Errors
/// If it is there already, or cannot be made.
pub(crate) fn make_directory(path: &Path, mode: u32) -> Result<()> {
    let made = DirBuilder::new().mode(0o700).create(path);
    // The umask of this process lets no other user in.
    let made = made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)));
    made.map_err(|cause| Error::io("make the directory", path, cause))?;
    sync(directory_of(path))
}

/// The nearest directory at or above `path` that exists.
pub(crate) fn nearest_directory(path: &Path) -> PathBuf {
    path.ancestors().find(|above| above.is_dir()).unwrap_or(Path::new("/")).to_path_buf()
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync(directory: &Path) -> Result<()> {
    let synced = File::open(directory).and_then(|opened| opened.sync_all());
    synced.map_err(|cause| Error::io("sync", directory, cause))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_mode_of_an_old_file_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("rsyncd.conf");
        write(&path, b"first", 0o644).expect("made");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o7777, 0o644);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("a mode");
        fs::write(directory.path().join(".rsyncd.conf.tmp"), "left").expect("a leftover");
        write(&path, b"second", 0o644).expect("replaced");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o7777, 0o640);
        assert_eq!(fs::read(&path).expect("readable"), b"second");
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 1);
    }

    #[test]
    fn a_link_is_followed_unless_it_leads_nowhere() {
        let directory = tempfile::tempdir().expect("a directory");
        let base = directory.path().canonicalize().expect("a path");
        let (file, link) = (base.join("file"), base.join("link"));
        assert_eq!(file_behind(&file).expect("missing"), file);
        symlink(&file, &link).expect("a link");
        assert!(file_behind(&link).is_err());
        fs::write(&file, "").expect("a file");
        assert_eq!(file_behind(&link).expect("a file"), file);
        assert!(file_behind(&base).is_err(), "a directory");
    }
}
