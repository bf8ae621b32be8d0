//! Whether a file is this program, under whatever name: a link, or a name of the administrator's.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use crate::engine::responsiveness::is_responsive;

/// Device and inode of this program.
static OWN: OnceLock<Option<(u64, u64)>> = OnceLock::new();

/// A server with many modules names few programs, so each is looked at once.
static KNOWN: Mutex<BTreeMap<PathBuf, bool>> = Mutex::new(BTreeMap::new());

/// Whether the file at the absolute `path` is this program. A copy of it is another file.
pub(crate) fn is_this_program(path: &Path) -> bool {
    if let Some(known) = KNOWN.lock().ok().and_then(|known| known.get(path).copied()) {
        return known;
    }
    let inode = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    // The kernel's link leads to the file that runs, even if another one has its name now.
    let own = OWN.get_or_init(|| inode(Path::new("/proc/self/exe")));
    let is_it = own.is_some() && is_responsive(path) && inode(path) == *own;
    if let Ok(mut known) = KNOWN.lock() {
        known.insert(path.to_path_buf(), is_it);
    }
    is_it
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::rsyncd_conf::RsyncdConf;

    #[test]
    fn a_link_is_this_program_and_another_file_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(std::env::current_exe().expect("it"), &link).expect("a link");
        assert!(is_this_program(&link) && is_this_program(&link));
        assert!(!is_this_program(Path::new("/bin/true")));
        assert!(!is_this_program(Path::new("/no/such/program")));
        let file = directory.path().join("conf");
        for (command, expected) in [
            (format!("{} --quiet", link.display()), true),
            (format!("exec '{}'", link.display()), true),
            ("/bin/true".to_string(), false),
        ] {
            fs::write(&file, format!("[m]\npost-xfer exec = {command}\n")).expect("written");
            let conf = RsyncdConf::read(&file).expect("read");
            let module = conf.module(b"m").expect("it");
            assert_eq!(module.runs_this_program("post-xfer exec"), expected, "{command}");
        }
    }
}
