//! Which paths of a snapshot a command means, and where a restore lands each of them.
//!
//! A path is relative to the snapshot. `--to DIR` receives it as `cp -a SNAPSHOT/PATH DIR/` does:
//! under its last name, or with `/.` at its end as the content of DIR. In place, it lands where it
//! was in the module.

use crate::decide::name::SnapshotName;
use crate::decide::zone::Zone;
use crate::tell::escape::escape;

/// A path in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePath {
    /// The names from the snapshot's own directory on; none for that directory itself.
    pub names: Vec<Vec<u8>>,
    /// Only the content of the directory is meant, and the attributes of the directory itself.
    pub is_content: bool,
}

impl RestorePath {
    /// The snapshot's own directory with everything in it.
    pub fn whole() -> Self {
        RestorePath { names: Vec::new(), is_content: true }
    }

    /// The names, joined by slashes.
    pub fn bytes(&self) -> Vec<u8> {
        self.names.join(&b'/')
    }

    /// The path for a message, escaped.
    pub fn text(&self) -> String {
        if self.names.is_empty() { ".".to_string() } else { escape(&self.bytes()) }
    }

    fn holds(&self, other: &RestorePath) -> bool {
        other.names.starts_with(&self.names)
    }
}

/// Where a snapshot is: absolute paths inside it or inside its module name what is in it.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotPlace<'a> {
    /// The module's directory, if it is known.
    pub module: Option<&'a [u8]>,
    /// The directory that the snapshots are in.
    pub root: &'a [u8],
    /// The directory of retired snapshots, if a path may lie in one of those.
    pub retired: Option<&'a [u8]>,
    /// The snapshot's name; none if a path may lie in any snapshot.
    pub snapshot: Option<&'a str>,
}

/// Reads a path of the command line. A path that begins with a slash and lies neither in the module
/// nor in the snapshot root is one of the machine that was backed up as a whole.
///
/// # Errors
/// A message if it cannot be one in this snapshot.
pub fn read_path(given: &[u8], place: SnapshotPlace) -> Result<RestorePath, String> {
    let shown = || escape(given);
    if given.is_empty() {
        return Err("a path is empty: name a file or directory, or `.` for everything".to_string());
    }
    let single: Vec<u8> = given
        .iter()
        .enumerate()
        .filter(|(index, byte)| **byte != b'/' || *index == 0 || given[index - 1] != b'/')
        .map(|(_, byte)| *byte)
        .collect();
    let mut relative = single.as_slice();
    // CephFS snapshots are in a directory in the module.
    let is_in_module =
        |path: &[u8]| place.module.is_some_and(|module| below(path, module).is_some());
    let of_module = || place.module.and_then(|module| below(&single, module));
    if is_in_module(place.root)
        && let Some(inside) = below(&single, place.root)
    {
        let inside = in_snapshot(inside, place.snapshot);
        relative = inside.map_err(|problem| format!("{} {problem}", shown()))?;
    } else if let Some(inside) = of_module() {
        relative = inside;
    } else if let Some(inside) = place.retired.and_then(|retired| below(&single, retired)) {
        relative = in_snapshot(inside, None).map_err(|problem| format!("{} {problem}", shown()))?;
    } else if let Some(inside) = below(&single, place.root) {
        let inside = in_snapshot(inside, place.snapshot);
        relative = inside.map_err(|problem| format!("{} {problem}", shown()))?;
    }
    let names = relative.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
    let is_content = names.clone().next_back().is_none_or(|last| last == b".");
    let names: Vec<Vec<u8>> = names.filter(|name| *name != b".").map(<[u8]>::to_vec).collect();
    if names.iter().any(|name| name == b"..") {
        return Err(format!("{} holds `..`: name the path itself", shown()));
    }
    if names.iter().any(|name| name.contains(&0)) {
        return Err(format!("{} is not a path", shown()));
    }
    Ok(RestorePath { names, is_content })
}

/// The part of `path` that is below a snapshot: below the one of this `name`, or below any. `path`
/// is relative to a snapshot root, or to the directory of retired snapshots.
fn in_snapshot<'a>(path: &'a [u8], name: Option<&str>) -> Result<&'a [u8], String> {
    let slashes = path.iter().take_while(|byte| **byte == b'/').count();
    let path = &path[slashes..];
    let (first, rest) = match path.iter().position(|byte| *byte == b'/') {
        Some(slash) => path.split_at(slash),
        None => (path, &b""[..]),
    };
    let is_snapshot = || SnapshotName::parse(first, &Zone::utc()).is_some();
    match name {
        Some(name) if first == name.as_bytes() => Ok(rest),
        Some(name) if is_snapshot() => {
            Err(format!("lies in another snapshot than {name}: name one of the two"))
        }
        None if is_snapshot() => Ok(rest),
        _ => Err("lies in the snapshot root, but in no snapshot".to_string()),
    }
}

/// What follows `directory` in `path`, if it lies there or is it.
fn below<'a>(path: &'a [u8], directory: &[u8]) -> Option<&'a [u8]> {
    path.strip_prefix(directory).filter(|rest| rest.is_empty() || rest[0] == b'/')
}

/// The paths that `--to DIR` receives: all of them, or the whole snapshot if none is given.
///
/// # Errors
/// A message if two of them would land under one name.
pub fn paths_under(mut paths: Vec<RestorePath>) -> Result<Vec<RestorePath>, String> {
    if paths.is_empty() {
        paths.push(RestorePath::whole());
    }
    if let ([_, _, ..], Some(content)) = (&*paths, paths.iter().find(|path| path.is_content)) {
        return Err(format!(
            "{} is the content of a directory and would mix with the other paths: restore it by \
             itself",
            content.text()
        ));
    }
    for (index, path) in paths.iter().enumerate() {
        let is_same = |other: &&RestorePath| other.names.last() == path.names.last();
        if let Some(other) = paths[..index].iter().find(is_same) {
            return Err(format!(
                "{} and {} would land under one name: restore them into two directories",
                other.text(),
                path.text()
            ));
        }
    }
    Ok(paths)
}

/// The paths to restore in place: without those that another one holds.
///
/// # Errors
/// A message if there is none.
pub fn paths_in_place(paths: Vec<RestorePath>) -> Result<Vec<RestorePath>, String> {
    if paths.is_empty() {
        return Err("name what to restore in place, or `.` for the whole module".to_string());
    }
    let mut kept: Vec<RestorePath> = Vec::new();
    for path in paths {
        if kept.iter().any(|known| known.holds(&path)) {
            continue;
        }
        kept.retain(|known| !path.holds(known));
        let is_content = path.names.is_empty();
        kept.push(RestorePath { is_content, ..path });
    }
    Ok(kept)
}

/// The place that a restore in place of `paths` writes to: the lowest directory that holds all of
/// them, or the path if it is only one.
pub fn common_place(paths: &[RestorePath]) -> Vec<u8> {
    let Some((first, others)) = paths.split_first() else { return Vec::new() };
    let mut names = first.names.as_slice();
    for other in others {
        let is_common = |(a, b): &(&Vec<u8>, &Vec<u8>)| a == b;
        let common = names.iter().zip(&other.names).take_while(is_common).count();
        names = &names[..common];
    }
    names.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: SnapshotPlace = SnapshotPlace {
        module: Some(b"/srv/backup/laptop/latest"),
        root: b"/srv/backup/laptop",
        retired: None,
        snapshot: Some("2026-11-22T19-08-31Z"),
    };

    fn read(given: &str) -> Result<(String, bool), String> {
        read_path(given.as_bytes(), PLACE).map(|path| (path.text(), path.is_content))
    }

    #[test]
    fn a_path_is_one_of_the_snapshot() {
        for (given, text, is_content) in [
            (".", ".", true),
            ("./", ".", true),
            ("/", ".", true),
            ("etc", "etc", false),
            ("etc/", "etc", false),
            ("./etc//fstab", "etc/fstab", false),
            ("etc/.", "etc", true),
            ("etc/./", "etc", true),
            ("/etc/fstab", "etc/fstab", false),
            ("/srv/backup/laptop/latest/etc", "etc", false),
            ("/srv/backup/laptop/latest", ".", true),
            ("/srv/backup/laptop/latestetc", "", false),
            ("/srv/backup/laptop/2026-11-22T19-08-31Z/a/b", "a/b", false),
            ("/srv/backup/laptop//2026-11-22T19-08-31Z/", ".", true),
            ("/srv/backup/laptops/x", "srv/backup/laptops/x", false),
            ("...", "...", false),
        ] {
            match text {
                "" => assert!(read(given).is_err(), "{given}"),
                text => assert_eq!(read(given), Ok((text.to_string(), is_content)), "{given}"),
            }
        }
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        for (given, why) in [
            ("", "empty"),
            ("../etc", "`..`"),
            ("etc/../../x", "`..`"),
            ("/srv/backup/laptop/2026-11-23T19-08-31Z/etc", "another snapshot"),
            ("/srv/backup/laptop/.rsyncd-snapshot/lock", "in no snapshot"),
        ] {
            let message = read(given).expect_err(given);
            assert!(message.contains(why), "{given}: {message}");
        }
    }

    #[test]
    fn a_path_in_any_snapshot_is_one_of_the_module() {
        let retired = Some(&b"/srv/backup/laptop/.rsyncd-snapshot/expired"[..]);
        let place = SnapshotPlace { retired, snapshot: None, ..PLACE };
        for (given, expected) in [
            ("etc/fstab", Ok("etc/fstab")),
            ("/srv/backup/laptop/latest/etc", Ok("etc")),
            ("/srv/backup/laptop/2026-11-22T19-08-31Z/etc", Ok("etc")),
            ("/srv/backup/laptop/2019-08-02 12:00:00/etc", Ok("etc")),
            ("/srv/backup/laptop/2026-11-23T19-08-31Z-partial/", Ok(".")),
            ("/srv/backup/laptop/.rsyncd-snapshot/expired/2026-11-20T19-08-31Z/etc", Ok("etc")),
            ("/srv/backup/laptop/.rsyncd-snapshot/expired/x/etc", Err("in no snapshot")),
            ("/srv/backup/laptop/.rsyncd-snapshot/staging/x", Err("in no snapshot")),
            ("/srv/backup/laptop/other/etc", Err("in no snapshot")),
            ("/srv/backup/laptop", Err("in no snapshot")),
        ] {
            let found = read_path(given.as_bytes(), place);
            match (found, expected) {
                (Ok(path), Ok(text)) => assert_eq!(path.text(), text, "{given}"),
                (Err(message), Err(why)) => assert!(message.contains(why), "{given}: {message}"),
                (found, _) => panic!("{given}: {found:?}"),
            }
        }
    }

    fn paths(given: &[&str]) -> Vec<RestorePath> {
        given.iter().map(|path| read_path(path.as_bytes(), PLACE).expect("a path")).collect()
    }

    fn texts(paths: &[RestorePath]) -> Vec<String> {
        paths.iter().map(RestorePath::text).collect()
    }

    #[test]
    fn two_paths_never_land_under_one_name() {
        for (given, is_accepted) in [
            (&[][..], true),
            (&["etc"][..], true),
            (&["etc", "home"], true),
            (&["etc", "etc/ssh"], true),
            (&["etc", "usr/etc"], false),
            (&["etc", "etc"], false),
            (&["etc/."], true),
            (&["etc/.", "home"], false),
            (&[".", "home"], false),
        ] {
            assert_eq!(paths_under(paths(given)).is_ok(), is_accepted, "{given:?}");
        }
        assert_eq!(paths_under(Vec::new()), Ok(vec![RestorePath::whole()]));
    }

    #[test]
    fn in_place_a_path_covers_those_below_it() {
        for (given, kept) in [
            (&["etc", "home"][..], &["etc", "home"][..]),
            (&["etc/ssh", "etc", "etc/x/y"], &["etc"]),
            (&["etc", "etcetera"], &["etc", "etcetera"]),
            (&["etc/."], &["etc"]),
            (&["a", "."], &["."]),
        ] {
            let found = paths_in_place(paths(given)).expect("paths");
            assert_eq!(texts(&found), kept, "{given:?}");
            assert!(found.iter().all(|path| path.is_content == path.names.is_empty()));
        }
        assert!(paths_in_place(Vec::new()).is_err());
    }

    #[test]
    fn the_common_place_holds_all_paths() {
        for (given, place) in [
            (&[][..], ""),
            (&["etc/fstab"][..], "etc/fstab"),
            (&["home/anna/a", "home/anna/b"], "home/anna"),
            (&["home/anna", "home/annabel"], "home"),
            (&["etc", "home"], ""),
            (&["."], ""),
        ] {
            assert_eq!(common_place(&paths(given)), place.as_bytes(), "{given:?}");
        }
    }
}
