//! Refuses backups that would delete data, or back up the backup.
//!
//! rsync deletes from the destination everything that the source does not have. So a destination
//! must not be the source, contain it, or be swapped with it. [`check_paths`] uses only the paths,
//! before anything is unlocked. [`check_directories`] looks at both directories after the disk is
//! mounted.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::client::backup_job::BackupJob;
use crate::client::destination::Destination;
use crate::client::error::{ClientError, Result};
use crate::client::rsync::arguments::EXCLUDED_ROOTS;
use crate::client::safety::known_destinations;
use crate::client::safety::probe::{ProbedDestination, TOKENS};
use crate::store::root::SnapshotRoot;
use crate::tell::error::Error;
use crate::tell::escape::{escape, escape_path};

/// Refuses paths that are dangerous whatever the directories contain.
///
/// # Errors
/// [`ClientError::Refused`].
pub(crate) fn check_paths(job: &BackupJob) -> Result<()> {
    let directory = match &job.destination {
        Destination::Daemon { directory, .. } => Path::new(OsStr::from_bytes(directory)),
        Destination::Local(directory) | Destination::Ssh { directory, .. } => directory,
    };
    // A `..` after a directory that does not exist yet may lead anywhere.
    let mount_point = job.mount_point.as_deref().unwrap_or(Path::new(""));
    if let Some(path) = [directory, mount_point].into_iter().find(|path| has_parent(path)) {
        return refuse(format!(
            "there is a `..` in the path {}: write it without",
            escape_path(path)
        ));
    }
    if job.destination.is_daemon() {
        return Ok(());
    }
    if directory.components().all(|part| !matches!(part, std::path::Component::Normal(_))) {
        return refuse(format!(
            "the destination is {}: everything there that is not in the source would be deleted",
            job.destination
        ));
    }
    match &job.mount_point {
        Some(mount_point) if !is_below(directory, mount_point) => refuse(format!(
            "the destination {} is not below the mount point {}",
            escape_path(directory),
            escape_path(mount_point)
        )),
        _ => Ok(()),
    }
}

/// Looks at source and destination when the disk is mounted, and refuses what would delete data.
/// Returns the path of the source without symbolic links, for rsync: the link may change meanwhile.
///
/// # Errors
/// [`ClientError::Refused`].
pub(crate) fn check_directories(job: &BackupJob) -> Result<PathBuf> {
    let source = real_source(&job.source)?;
    let Some(directory) = job.destination.directory() else { return Ok(source) };
    let probed = ProbedDestination::probe(job, directory)?;
    let destination = probed.path.as_path();
    if let (Destination::Local(_), Some(mount_point)) =
        (&job.destination, job.mount_point.as_deref())
    {
        check_is_on_disk(directory, destination, &real_path(mount_point))?;
    }
    if let Some(part) = probed.part_of_root() {
        return refuse(format!("the destination {} is {part}", escape_path(destination)));
    }
    if probed.is_this_machine {
        check_nesting(job, &source, destination)?;
        // On another machine, the destination of a copied backup is checked for unrelated files
        // only.
        refuse_restore(&source, &probed)?;
    }
    if !probed.is_empty() && is_empty(&source)? {
        return refuse_empty_source(&source);
    }
    if !probed.has_backup() && !known_destinations::contains(job, &probed) {
        refuse_deleting_unrelated(&source, &probed)?;
    }
    Ok(source)
}

/// Whether the source contains nothing to back up.
pub(crate) fn is_empty(source: &Path) -> Result<bool> {
    match std::fs::read_dir(source) {
        // The root of a new file system has only this entry.
        Ok(entries) => Ok(entries.flatten().all(|entry| entry.file_name() == "lost+found")),
        // rsync may run as root and can read it; otherwise rsync fails.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(false),
        Err(cause) => Err(Error::io("look into", source, cause).into()),
    }
}

/// Refuses to empty a module. `listing` is rsync's: its first line is the directory itself.
///
/// # Errors
/// [`ClientError::Refused`].
pub(crate) fn check_empty_source(source: &Path, listing: &[u8]) -> Result<()> {
    match listing.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count() {
        0 | 1 => Ok(()),
        _ => refuse_empty_source(source),
    }
}

fn refuse_empty_source<T>(source: &Path) -> Result<T> {
    refuse(format!(
        "the source {} is empty, and all that is in the destination would be deleted: is the \
         source's disk mounted?",
        escape_path(source)
    ))
}

fn check_is_on_disk(directory: &Path, destination: &Path, mount_point: &Path) -> Result<()> {
    match is_below(destination, mount_point) {
        true => Ok(()),
        false => refuse(format!(
            "the destination {} leads to {}, which is not below the mount point {}",
            escape_path(directory),
            escape_path(destination),
            escape_path(mount_point)
        )),
    }
}

/// Refuses two directories of this machine of which one contains the other.
fn check_nesting(job: &BackupJob, source: &Path, destination: &Path) -> Result<()> {
    if is_below(source, destination) {
        return refuse(format!(
            "the destination {} holds the source {}, which would be deleted: are they swapped?",
            escape_path(destination),
            escape_path(source)
        ));
    }
    match is_below(destination, source) {
        true => check_is_excluded(job, source, destination),
        false => Ok(()),
    }
}

/// Refuses to back up a backup into a directory that is not empty and not a backup: that is a
/// restore, which must not delete the other files there.
fn refuse_restore(source: &Path, probed: &ProbedDestination) -> Result<()> {
    let is_backup = source
        .parent()
        .map(SnapshotRoot::registration)
        .transpose()?
        .flatten()
        .is_some_and(|registration| registration.path == escape_path(source))
        || has_token(source);
    if !is_backup || probed.has_backup() || probed.is_empty() {
        return Ok(());
    }
    refuse(format!(
        "the source {} is a backup itself, and the destination {} is none: are they swapped? (To \
         restore, use rsync, or an empty directory)",
        escape_path(source),
        escape_path(&probed.path)
    ))
}

fn has_token(directory: &Path) -> bool {
    TOKENS.iter().any(|name| directory.join(name).exists())
}

/// Refuses a destination within the source that is not excluded, because each backup would contain
/// all earlier ones. Snapshots are in its parent, so with snapshots the parent must be excluded.
fn check_is_excluded(job: &BackupJob, source: &Path, destination: &Path) -> Result<()> {
    let top = if job.actions.snapshot {
        destination.parent().unwrap_or(destination)
    } else {
        destination
    };
    let is_other_file_system = !job.multi_fs && device(&existing_part(top)) != device(source);
    if is_other_file_system || is_excluded(top, source, &job.excludes) {
        return Ok(());
    }
    refuse(format!(
        "{} is within the source {}, so each backup would hold all earlier ones: exclude it with \
         --exclude=/{}/, or choose a place on another file system",
        escape_path(top),
        escape_path(source),
        escape(top.strip_prefix(source).unwrap_or(top).as_os_str().as_bytes()),
    ))
}

/// Whether rsync excludes `directory` by [`EXCLUDED_ROOTS`], or by a pattern without wildcards that
/// names the directory or a parent of it. Patterns with wildcards are not evaluated here.
fn is_excluded<P: AsRef<OsStr>>(directory: &Path, source: &Path, patterns: &[P]) -> bool {
    let within = |path: &Path| path.starts_with(source) && path != source;
    directory.ancestors().filter(|path| within(path)).any(|path| {
        let rooted =
            EXCLUDED_ROOTS.iter().any(|root| is_same(path.as_os_str().as_bytes(), root.as_bytes()));
        let relative = path.strip_prefix(source).unwrap_or(path).as_os_str().as_bytes();
        let named = patterns.iter().any(|pattern| match pattern.as_ref().as_bytes() {
            [b'/', pattern @ ..] => is_same(relative, pattern),
            pattern => path.file_name().is_some_and(|name| is_same(name.as_bytes(), pattern)),
        });
        rooted || named
    })
}

/// Whether a pattern without wildcards names the path.
fn is_same(path: &[u8], pattern: &[u8]) -> bool {
    let pattern = pattern.strip_suffix(b"/").unwrap_or(pattern);
    !pattern.is_empty() && path == pattern
}

/// Refuses a destination without an earlier backup that contains files which the source does not
/// have: it is most likely the wrong directory.
fn refuse_deleting_unrelated(source: &Path, probed: &ProbedDestination) -> Result<()> {
    let is_missing = |name: &OsStr| {
        let found = source.join(name).symlink_metadata();
        found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    };
    let mut unrelated =
        probed.names.iter().filter(|name| *name != "lost+found" && is_missing(name));
    match (unrelated.next(), probed.is_complete) {
        (None, true) => Ok(()),
        (None, false) => refuse(format!(
            "not all that is in the destination {} can be seen, and no earlier backup went there. \
             Choose an empty directory",
            escape_path(&probed.path)
        )),
        (Some(first), _) => refuse(format!(
            "{} would be deleted: it is in the destination {} and not in the source {}, and no \
             earlier backup went there. Choose an empty directory, or move what is there",
            escape(first.as_bytes()),
            escape_path(&probed.path),
            escape_path(source)
        )),
    }
}

fn real_source(source: &Path) -> Result<PathBuf> {
    let path = std::fs::canonicalize(source)
        .map_err(|cause| Error::io("find the source", source, cause))?;
    match path.is_dir() {
        true => Ok(path),
        false => refuse(format!("the source {} is not a directory", escape_path(source))),
    }
}

/// Resolves symbolic links in the part of the path that exists.
pub(crate) fn real_path(path: &Path) -> PathBuf {
    let existing = existing_part(path);
    let rest = path.strip_prefix(&existing).unwrap_or(Path::new(""));
    let real = std::fs::canonicalize(&existing).unwrap_or(existing);
    if rest.as_os_str().is_empty() { real } else { real.join(rest) }
}

fn existing_part(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_path_buf()
}

fn device(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|metadata| metadata.dev())
}

/// Whether `path` is `directory` or in it. Compares whole names: /mnt/disk2 is not below /mnt/disk.
fn is_below(path: &Path, directory: &Path) -> bool {
    path.starts_with(directory) && !has_parent(path)
}

fn has_parent(path: &Path) -> bool {
    path.components().any(|part| part == std::path::Component::ParentDir)
}

fn refuse<T>(message: String) -> Result<T> {
    Err(ClientError::Refused(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_goes_by_whole_names() {
        let is_below =
            |path: &str, directory: &str| is_below(Path::new(path), Path::new(directory));
        assert!(is_below("/mnt/disk/latest", "/mnt/disk") && is_below("/mnt/disk", "/mnt/disk"));
        assert!(!is_below("/mnt/disk2/latest", "/mnt/disk"));
        assert!(!is_below("/mnt/disk/../other", "/mnt/disk"));
        assert!(is_below("/anything", "/"));
    }

    #[test]
    fn a_directory_is_excluded_by_roots_or_by_its_name() {
        let is_excluded = |directory: &str, source: &str, patterns: &[&str]| {
            is_excluded(Path::new(directory), Path::new(source), patterns)
        };
        assert!(is_excluded("/mnt/backups/laptop", "/", &[]));
        assert!(is_excluded("/tmp", "/", &[]));
        assert!(!is_excluded("/tmp/b/dst", "/tmp/b", &[]), "the root is not below the source");
        assert!(!is_excluded("/srv/backup", "/", &[]));
        assert!(is_excluded("/srv/backup/laptop", "/", &["/srv/backup/"]));
        assert!(is_excluded("/srv/backup/laptop", "/", &["backup"]));
        assert!(is_excluded("/home/me/backup", "/home/me", &["/backup"]));
        assert!(!is_excluded("/home/me/backup", "/home/me", &["/back*", "/other", "/"]));
    }
}
