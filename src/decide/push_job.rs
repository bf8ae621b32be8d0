//! The job of a push, as far as its arguments tell, and whether another push repeats it.
//!
//! The sources, the filter rules and a local `--files-from` never reach the server. So two jobs can
//! look equal here and still bring different files. The directories that a job left behind show
//! what it *finished*; see [`torn_mark`](crate::decide::torn_mark).

use serde::{Deserialize, Serialize};

/// A push, described by its arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushJob {
    /// Where it goes, from the module's directory on, without `.`, `..` and double slashes;
    /// escaped; empty for the module's directory itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub destination: String,
    /// Options that make rsync transfer, delete or keep more, by their long names; sorted.
    #[serde(rename = "does", default, skip_serializing_if = "Vec::is_empty")]
    pub extending_options: Vec<String>,
    /// Options that make rsync leave something out, with their values; sorted.
    #[serde(rename = "leaves_out", default, skip_serializing_if = "Vec::is_empty")]
    pub limiting_options: Vec<String>,
    /// A hash of all options but those that change nothing on disk, such as `-v` and `--bwlimit`.
    pub options_hash: String,
}

/// The option that makes rsync set the times of the directories that it has finished.
pub const TIMES: &str = "times";

/// The option that makes rsync leave the times of directories alone.
pub const OMIT_DIR_TIMES: &str = "omit-dir-times";

impl PushJob {
    /// Whether this job, done well, does all that `other` was to do, as far as arguments tell.
    pub fn covers(&self, other: &PushJob) -> bool {
        is_at_or_above(&self.destination, &other.destination)
            && other.extending_options.iter().all(|option| self.extending_options.contains(option))
            && self.limiting_options.iter().all(|option| other.limiting_options.contains(option))
    }

    /// Whether the arguments of both are equal, apart from options that change nothing on disk.
    pub fn is_same(&self, other: &PushJob) -> bool {
        (&self.destination, &self.options_hash) == (&other.destination, &other.options_hash)
    }

    /// Whether rsync sets the time of each directory that it has finished.
    pub fn sets_directory_times(&self) -> bool {
        let has = |list: &[String], name: &str| list.iter().any(|option| option == name);
        has(&self.extending_options, TIMES) && !has(&self.limiting_options, OMIT_DIR_TIMES)
    }
}

/// How the limiting options of a restore in place begin.
const SNAPSHOT: &str = "snapshot=";
const ONLY: &str = "only=";

/// The beginning of the options of a restore that replaces newer files.
const OVERWRITE: &str = "overwrite ";

/// A restore in place, as a job tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreInPlace<'a> {
    /// The snapshot's name, escaped.
    pub snapshot: &'a str,
    /// The paths, escaped.
    pub paths: Vec<&'a str>,
    /// Newer files were to be replaced.
    pub overwrites: bool,
}

/// Stands between the paths of a restore; an escaped path has no line break.
const SEPARATOR: &str = "\n";

impl PushJob {
    /// The job of a restore in place of `paths` from `snapshot`, all escaped; `place` is the
    /// directory that holds them all. Two things cover it: a push to `place` or above it that
    /// deletes what its client does not have, and the same restore. `overwrites` is kept for the
    /// command that repeats the restore. No comparison looks at it, because the restore that
    /// repeats a failed one may need it.
    pub fn of_restore(snapshot: &str, place: String, paths: &[String], overwrites: bool) -> Self {
        let extending_options = ["delete", "recursive", TIMES].map(str::to_string).to_vec();
        let mut limiting_options = vec![format!("{SNAPSHOT}{snapshot}")];
        if paths.iter().any(|path| *path != place) {
            limiting_options.push(format!("{ONLY}{}", paths.join(SEPARATOR)));
        }
        limiting_options.sort();
        let overwrite = if overwrites { OVERWRITE } else { "" };
        let options_hash = format!("{overwrite}{}", limiting_options.join(" "));
        PushJob { destination: place, extending_options, limiting_options, options_hash }
    }

    /// What a restore in place was to do; `None` if this is none, or an earlier version wrote
    /// several paths, which cannot be told apart.
    pub fn restored(&self) -> Option<RestoreInPlace<'_>> {
        let value = |begin| self.limiting_options.iter().find_map(|it| it.strip_prefix(begin));
        let snapshot = value(SNAPSHOT)?;
        let paths = match value(ONLY) {
            Some(only) if !only.contains(SEPARATOR) && only.contains(',') => return None,
            Some(only) => only.split(SEPARATOR).collect(),
            None => vec![self.destination.as_str()],
        };
        let overwrites = self.options_hash.starts_with(OVERWRITE);
        Some(RestoreInPlace { snapshot, paths, overwrites })
    }
}

/// Whether the escaped path `place` is `other` or a directory above it.
pub fn is_at_or_above(place: &str, other: &str) -> bool {
    place.is_empty()
        || other == place
        || other.strip_prefix(place).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether `path` lies below the directory `place`.
pub fn is_below(path: &str, place: &str) -> bool {
    path != place && !path.is_empty() && is_at_or_above(place, path)
}

/// A path that a client sent, cleaned as rsync cleans it: without empty names and `.`, and with
/// `..` leading nowhere above the top.
pub fn normalized(path: &[u8]) -> Vec<u8> {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(destination: &str, extending_options: &[&str], limiting_options: &[&str]) -> PushJob {
        let texts = |words: &[&str]| words.iter().map(|word| (*word).to_string()).collect();
        PushJob {
            destination: destination.to_string(),
            extending_options: texts(extending_options),
            limiting_options: texts(limiting_options),
            options_hash: format!("{extending_options:?}{limiting_options:?}"),
        }
    }

    #[test]
    fn a_path_is_cleaned_as_rsync_cleans_it() {
        for (sent, cleaned) in [
            ("", ""),
            (".", ""),
            ("./", ""),
            ("a/", "a"),
            ("a//b/./c/", "a/b/c"),
            ("a/../b", "b"),
            ("../../a", "a"),
            ("a/b/../../..", ""),
        ] {
            assert_eq!(normalized(sent.as_bytes()), cleaned.as_bytes(), "{sent}");
        }
    }

    #[test]
    fn a_job_covers_what_goes_to_its_place_or_below() {
        let torn = job("home/x", &[], &[]);
        for (destination, covers) in [
            ("", true),
            ("home", true),
            ("home/x", true),
            ("home/xy", false),
            ("hom", false),
            ("etc", false),
        ] {
            assert_eq!(job(destination, &[], &[]).covers(&torn), covers, "{destination}");
        }
    }

    #[test]
    fn a_job_covers_another_that_does_no_more_and_leaves_out_no_less() {
        let torn = job("", &["delete", "recursive"], &["update"]);
        for (good, covers) in [
            (job("", &["delete", "recursive"], &["update"]), true),
            (job("", &["delete", "links", "recursive"], &[]), true),
            (job("", &["recursive"], &["update"]), false),
            (job("", &["delete"], &[]), false),
            (job("", &["delete", "recursive"], &["max-size=10M"]), false),
            (job("", &["delete", "recursive"], &["size-only", "update"]), false),
        ] {
            assert_eq!(good.covers(&torn), covers, "{good:?}");
        }
    }

    #[test]
    fn a_restore_is_covered_by_itself_and_by_a_push_that_deletes() {
        let texts = |paths: &[&str]| -> Vec<String> {
            paths.iter().map(|path| (*path).to_string()).collect()
        };
        let restore = |snapshot: &str, place: &str, paths: &[&str]| {
            PushJob::of_restore(snapshot, place.to_string(), &texts(paths), false)
        };
        let torn = restore("one", "home", &["home/a", "home/b"]);
        for (good, covers) in [
            (torn.clone(), true),
            (restore("one", "home", &["home"]), true),
            (restore("one", "", &[""]), true),
            (restore("two", "home", &["home/a", "home/b"]), false),
            (restore("one", "home", &["home/a", "home/c"]), false),
            (restore("one", "home/a", &["home/a"]), false),
            (job("", &["delete", "links", "recursive", "times"], &[]), true),
            (job("home", &["delete", "recursive", "times"], &[]), true),
            (job("", &["links", "recursive", "times"], &[]), false),
            (job("", &["delete", "recursive", "times"], &["update"]), false),
        ] {
            assert_eq!(good.covers(&torn), covers, "{good:?}");
        }
        // Whether newer files are replaced is told, and compared with nothing.
        let again = PushJob::of_restore("one", "home".to_string(), &texts(&["home/a"]), true);
        let told = again.restored().expect("a restore");
        assert_eq!(
            (told.snapshot, &told.paths[..], told.overwrites),
            ("one", &["home/a"][..], true)
        );
        let without = restore("one", "home", &["home/a"]);
        assert!(without.covers(&again) && again.covers(&without));
        assert!(!torn.restored().expect("a restore").overwrites);
        // A restore does not do what a client was to do.
        let push = job("home", &["delete", "links", "recursive", "times"], &[]);
        assert!(!restore("one", "", &[""]).covers(&push));
    }

    #[test]
    fn directories_below_a_place_are_told_from_it() {
        assert!(is_below("a", "") && is_below("a/b", "a") && is_below("a/b/c", "a"));
        assert!(
            !is_below("", "") && !is_below("a", "a") && !is_below("ab", "a") && !is_below("b", "a")
        );
    }
}
