//! The name of a module's file in this machine's memory, and of its ledger there.
//!
//! Two modules must never share a name: each would take the other's failures, marks and roots for
//! its own. So each path is encoded differently from every other one. An encoded path that is too
//! long for a file name is cut to its readable end, followed by a hash of the whole path.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How many characters of an encoded path are kept.
const MAX_CHARACTERS: usize = 200;

/// The character between the readable end and the hash; no encoded path holds it.
const HASH_MARK: char = '+';

/// Digits of the hash: 128 bits.
const HASH_DIGITS: usize = 32;

/// The name for the module at `module_path`, without an extension.
pub(crate) fn name(module_path: &Path) -> String {
    let written = written(module_path);
    match written.len() > MAX_CHARACTERS {
        false => written,
        true => {
            let hash = blake3::hash(module_path.as_os_str().as_bytes()).to_hex();
            format!("{}{HASH_MARK}{}", end(&written), &hash[..HASH_DIGITS])
        }
    }
}

/// The name that earlier versions used, if it differs: the end alone, which other paths may share.
pub(crate) fn earlier_name(module_path: &Path) -> Option<String> {
    let written = written(module_path);
    (written.len() > MAX_CHARACTERS).then(|| end(&written).to_string())
}

fn end(written: &str) -> &str {
    &written[written.len().saturating_sub(MAX_CHARACTERS)..]
}

/// The path encoded in letters, digits, `-`, `_` and `%`; different for every path.
fn written(module_path: &Path) -> String {
    let mut text = String::new();
    for &byte in module_path.as_os_str().as_bytes() {
        match byte.is_ascii_alphanumeric() || b"-_".contains(&byte) {
            true => text.push(char::from(byte)),
            false => text.push_str(&format!("%{byte:02x}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_paths_that_end_alike_have_different_names() {
        let end = "directory/".repeat(40);
        let [one, other] = ["/srv/one/", "/srv/other/"].map(|start| format!("{start}{end}latest"));
        let (one, other) = (Path::new(&one), Path::new(&other));
        assert_eq!(earlier_name(one), earlier_name(other), "earlier versions mixed them up");
        assert_ne!(name(one), name(other));
        for path in [one, other] {
            assert!(name(path).len() + ".toml.tmp".len() < 255, "{}", name(path));
            assert!(
                name(path).contains("directory%2flatest+"),
                "the end is readable: {}",
                name(path)
            );
        }
    }

    #[test]
    fn short_paths_keep_the_names_that_they_had() {
        for (path, expected) in [
            ("/srv/backup/laptop/latest", "%2fsrv%2fbackup%2flaptop%2flatest"),
            ("/a+b", "%2fa%2bb"),
            ("/100%", "%2f100%25"),
        ] {
            assert_eq!(name(Path::new(path)), expected);
            assert_eq!(earlier_name(Path::new(path)), None);
        }
    }
}
