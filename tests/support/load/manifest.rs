//! The manifest of a client's directory: what it holds when the client has finished a push.
//!
//! rsync transfers the files of a directory before its subdirectories and those in order, so a file
//! in the last directory is the last of all.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::shown::{Content, Shown};

/// Where the manifest is, in the directory that sorts last.
pub(crate) const PATH: &str = "zz/manifest";

/// The directory whose files no manifest lists.
pub(crate) const UNLISTED: &str = "litter/";

/// The text of a manifest.
pub(crate) fn text(owner: &str, sequence: u64, files: &BTreeMap<String, Content>) -> String {
    let mut text = format!("{owner} {sequence}\n");
    for (path, content) in files {
        let _ = writeln!(text, "{} {} {path}", content.size, content.checksum);
    }
    text
}

/// Whether `directory` is what its manifest says, and which state of its client that is.
///
/// # Errors
/// The first difference, for messages.
pub(crate) fn verify(directory: &Path, shown: &mut Shown) -> Result<u64, String> {
    let text = std::fs::read_to_string(directory.join(PATH))
        .map_err(|error| format!("no manifest: {error}"))?;
    let (sequence, listed) = parse(&text).ok_or_else(|| format!("half a manifest: {text:?}"))?;
    let mut found = shown.contents(directory);
    found.retain(|path, _| path != PATH && !path.starts_with(UNLISTED));
    if found == listed {
        return Ok(sequence);
    }
    let mut differences = Vec::new();
    for (path, content) in &listed {
        match found.get(path) {
            None => differences.push(format!("{path} is missing")),
            Some(other) if other != content => {
                differences.push(format!("{path} is {other:?} instead of {content:?}"));
            }
            Some(_) => {}
        }
    }
    differences.extend(
        found
            .keys()
            .filter(|path| !listed.contains_key(*path))
            .map(|path| format!("{path} is too much")),
    );
    let count = differences.len();
    differences.truncate(4);
    Err(format!(
        "not state {sequence} of its client, {count} differences: {}",
        differences.join(", ")
    ))
}

fn parse(text: &str) -> Option<(u64, BTreeMap<String, Content>)> {
    let mut lines = text.strip_suffix('\n')?.split('\n');
    let sequence = lines.next()?.split_once(' ')?.1.parse().ok()?;
    let content = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let size = words.next()?.parse().ok()?;
        let checksum = words.next()?.parse().ok()?;
        Some((words.next()?.to_string(), Content { size, checksum }))
    };
    Some((sequence, lines.map(content).collect::<Option<_>>()?))
}
