//! What is refused because it would delete data, or back up the backup.
//!
//! rsync deletes from the destination whatever the source does not have, so a destination that is
//! the source, holds it, or was meant to be the source is a disaster. One check goes by the paths
//! alone, before anything is unlocked; the other looks at both directories when the disk is there.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::client::failure::{Failure, Result};
use crate::client::job::Job;
use crate::client::location::Destination;
use crate::client::rsync::arguments::EXCLUDED_ROOTS;
use crate::client::safety::known_destinations;
use crate::client::safety::probe::{Sight, TOKENS};
use crate::store::root::SnapshotRoot;
use crate::tell::error::Error;
use crate::tell::escape::{escape, escape_path};

/// Refuses what can be told from the paths alone.
///
/// # Errors
/// [`Failure::Refused`].
pub(crate) fn check_paths(job: &Job) -> Result<()> {
    let directory = match &job.destination {
        Destination::Daemon { directory, .. } => Path::new(OsStr::from_bytes(directory)),
        Destination::Local(directory) | Destination::Ssh { directory, .. } => directory,
    };
    // Where `..` leads cannot be told as long as what is before it does not exist.
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

/// Refuses what can be told from looking at source and destination, when the disk is mounted.
/// Returns the source that was judged, without symbolic links: rsync has to get that one.
///
/// # Errors
/// [`Failure::Refused`].
pub(crate) fn check_directories(job: &Job) -> Result<PathBuf> {
    let source = real_source(&job.source)?;
    let Some(directory) = job.destination.directory() else { return Ok(source) };
    let sight = Sight::of(job, directory)?;
    let destination = sight.path.as_path();
    if let (Destination::Local(_), Some(mount_point)) =
        (&job.destination, job.mount_point.as_deref())
    {
        check_is_on_disk(directory, destination, &real_path(mount_point))?;
    }
    if let Some(part) = sight.part_of_root() {
        return refuse(format!("the destination {} is {part}", escape_path(destination)));
    }
    if sight.is_here {
        check_nesting(job, &source, destination)?;
        // Elsewhere a copy of a backup is a copy, and strangers there are looked for in any case.
        check_is_no_restore(&source, &sight)?;
    }
    if !sight.is_empty() && is_empty(&source)? {
        return refuse_empty_source(&source);
    }
    if !sight.is_known() && !known_destinations::is_met(job, &sight) {
        check_strangers(&source, &sight)?;
    }
    Ok(source)
}

/// Whether there is nothing to back up.
///
/// # Errors
/// If that cannot be seen.
pub(crate) fn is_empty(source: &Path) -> Result<bool> {
    match std::fs::read_dir(source) {
        // The root of a new file system has one entry.
        Ok(entries) => Ok(entries.flatten().all(|entry| entry.file_name() == "lost+found")),
        // Then it may be for root, and rsync complains if it is not.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(false),
        Err(cause) => Err(Error::io("look into", source, cause).into()),
    }
}

/// Refuses to empty a module, by rsync's listing of it: more than the line of the directory itself.
///
/// # Errors
/// [`Failure::Refused`].
pub(crate) fn check_empty_source(source: &Path, listing: &[u8]) -> Result<()> {
    match listing.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count() {
        0 | 1 => Ok(()),
        _ => refuse_empty_source(source),
    }
}

fn refuse_empty_source<T>(source: &Path) -> Result<T> {
    refuse(format!(
        "the source {} is empty, and all that is in the destination would be deleted: is the source's disk mounted?",
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

/// Two directories of this machine, one within the other.
fn check_nesting(job: &Job, source: &Path, destination: &Path) -> Result<()> {
    if is_below(source, destination) {
        return refuse(format!(
            "the destination {} holds the source {}, which would be deleted: are they swapped?",
            escape_path(destination),
            escape_path(source)
        ));
    }
    match is_below(destination, source) {
        true => check_is_left_out(job, source, destination),
        false => Ok(()),
    }
}

/// From a backup into a directory that holds something and is none: whoever means to restore would
/// not have it emptied of all else.
fn check_is_no_restore(source: &Path, sight: &Sight) -> Result<()> {
    let is_backup = source
        .parent()
        .map(SnapshotRoot::registration)
        .transpose()?
        .flatten()
        .is_some_and(|registration| registration.path == escape_path(source))
        || has_token(source);
    if !is_backup || sight.is_known() || sight.is_empty() {
        return Ok(());
    }
    refuse(format!(
        "the source {} is a backup itself, and the destination {} is none: are they swapped? (To restore, use rsync, or an empty directory)",
        escape_path(source),
        escape_path(&sight.path)
    ))
}

fn has_token(directory: &Path) -> bool {
    TOKENS.iter().any(|name| directory.join(name).exists())
}

/// A destination within the source has to be left out, or each backup would hold all those before
/// it; and so have its snapshots, which appear in its parent.
fn check_is_left_out(job: &Job, source: &Path, destination: &Path) -> Result<()> {
    let place = if job.actions.snapshot {
        destination.parent().unwrap_or(destination)
    } else {
        destination
    };
    let is_other_file_system = !job.multi_fs && device(&existing_part(place)) != device(source);
    if is_other_file_system || is_excluded(place, source, &job.excludes) {
        return Ok(());
    }
    refuse(format!(
        "{} is within the source {}, so each backup would hold all earlier ones: exclude it with --exclude=/{}/, or choose a place on another file system",
        escape_path(place),
        escape_path(source),
        escape(place.strip_prefix(source).unwrap_or(place).as_os_str().as_bytes()),
    ))
}

/// Whether a rule leaves out `place`: one of the roots, or a pattern of the user that names it or a
/// directory above it in full. Others may, too, but to say so is rsync's business.
fn is_excluded<P: AsRef<OsStr>>(place: &Path, source: &Path, patterns: &[P]) -> bool {
    let within = |path: &Path| path.starts_with(source) && path != source;
    place.ancestors().filter(|path| within(path)).any(|path| {
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

/// Whether a path is what a pattern without wildcards names.
fn is_same(path: &[u8], pattern: &[u8]) -> bool {
    let pattern = pattern.strip_suffix(b"/").unwrap_or(pattern);
    !pattern.is_empty() && path == pattern
}

/// A directory that no backup went to before, and that holds what the source does not have, is most
/// likely the wrong one.
fn check_strangers(source: &Path, sight: &Sight) -> Result<()> {
    let is_missing = |name: &OsStr| {
        let found = source.join(name).symlink_metadata();
        found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    };
    let mut strangers = sight.names.iter().filter(|name| *name != "lost+found" && is_missing(name));
    match (strangers.next(), sight.is_whole) {
        (None, true) => Ok(()),
        (None, false) => refuse(format!(
            "not all that is in the destination {} can be seen, and no earlier backup went there. Choose an empty directory",
            escape_path(&sight.path)
        )),
        (Some(first), _) => refuse(format!(
            "{} would be deleted: it is in the destination {} and not in the source {}, and no earlier backup went there. Choose an empty directory, or move what is there",
            escape(first.as_bytes()),
            escape_path(&sight.path),
            escape_path(source)
        )),
    }
}

fn real_source(source: &Path) -> Result<PathBuf> {
    let path = std::fs::canonicalize(source)
        .map_err(|cause| Error::io("find the source", source, cause))?;
    match path.is_dir() {
        true => Ok(path),
        false => refuse(format!("the source {} is no directory", escape_path(source))),
    }
}

/// The path without symbolic links, as far as it exists and may be seen.
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

/// Whether `path` is `directory` or in it, part by part: /mnt/disk2 is not below /mnt/disk.
fn is_below(path: &Path, directory: &Path) -> bool {
    path.starts_with(directory) && !has_parent(path)
}

fn has_parent(path: &Path) -> bool {
    path.components().any(|part| part == std::path::Component::ParentDir)
}

fn refuse<T>(message: String) -> Result<T> {
    Err(Failure::Refused(message))
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
    fn a_place_is_left_out_by_the_roots_or_by_a_pattern_that_names_it() {
        let left_out = |place: &str, source: &str, patterns: &[&str]| {
            is_excluded(Path::new(place), Path::new(source), patterns)
        };
        assert!(left_out("/mnt/backups/laptop", "/", &[]));
        assert!(left_out("/tmp", "/", &[]));
        assert!(!left_out("/tmp/b/dst", "/tmp/b", &[]), "the root is not below the source");
        assert!(!left_out("/srv/backup", "/", &[]));
        assert!(left_out("/srv/backup/laptop", "/", &["/srv/backup/"]));
        assert!(left_out("/srv/backup/laptop", "/", &["backup"]));
        assert!(left_out("/home/me/backup", "/home/me", &["/backup"]));
        assert!(!left_out("/home/me/backup", "/home/me", &["/back*", "/other", "/"]));
    }
}
