//! Random edits of a live tree, as a client or a user of the server may make them.
//!
//! Names come from a small set, so edits collide: directories replace files, files replace links,
//! and a new entry soon gets the name of a moved one. An edit that the kernel refuses, such as a
//! directory moved into itself or a name that is too long, is skipped.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{
    CWD, FileType, IFlags, Mode, RenameFlags, XattrFlags, makedev, mknodat, renameat_with,
};

use super::random::Random;
use super::{is_root, tree};

const NAMES: &[&[u8]] = &[
    b"a",
    b"b",
    b"c",
    b"d",
    b"with space",
    b"new\nline",
    b"\xff\xfe no UTF-8",
    b"-rf",
    b"\x1b[31m",
    b".hidden",
    b"caf\xc3\xa9",
    &[b'l'; 181],
];

/// More entries than this are too slow to compare again and again.
const PLENTY: usize = 150;

/// One kind of edit.
type Edit = (&'static str, fn(&mut Edits) -> io::Result<()>);

/// All kinds. A kind that is listed twice is chosen twice as often.
const KINDS: &[Edit] = &[
    ("write a file", Edits::write_file),
    ("write a file", Edits::write_file),
    ("write a file", Edits::write_file),
    ("write a file in place", Edits::write_in_place),
    ("remove a file", Edits::remove_file),
    ("remove a file", Edits::remove_file),
    ("rename a file", Edits::rename_file),
    ("rename a file", Edits::rename_file),
    ("exchange two entries", Edits::exchange),
    ("exchange two entries", Edits::exchange),
    ("make a directory", Edits::make_directory),
    ("make a directory", Edits::make_directory),
    ("remove a directory", Edits::remove_directory),
    ("move a directory", Edits::move_directory),
    ("move a directory and another one into its place", Edits::move_another_into_its_place),
    ("make a directory again, with other files", Edits::remake_directory),
    ("make a directory again, with the same files", Edits::relink_directory),
    ("make deep directories", Edits::make_deep),
    ("replace a directory by a file", Edits::directory_to_file),
    ("replace a directory by a link to it", Edits::directory_to_symlink),
    ("replace a file by a directory", Edits::file_to_directory),
    ("make a symbolic link", Edits::make_symlink),
    ("link a file", Edits::link_file),
    ("link a file", Edits::link_file),
    ("make a special file", Edits::make_special),
    ("change a directory's mode", Edits::change_mode),
    ("change a directory's owner", Edits::change_owner),
    ("change a directory's attributes", Edits::change_attribute),
    ("remove a directory's attributes", Edits::remove_attribute),
    ("change a directory's ACL", Edits::change_acl),
    ("change a directory's time", Edits::change_time),
    ("change a file's mode and time", Edits::change_file),
    ("make a file immutable", Edits::make_immutable),
    ("make a file mutable", Edits::make_mutable),
];

/// Edits the tree in a directory, and logs the edits.
pub(crate) struct Edits {
    pub(crate) random: Random,
    directory: PathBuf,
    /// The log of all edits, for the message of a failed test.
    pub(crate) log: Vec<String>,
    /// The log of the current edit.
    paths: Vec<String>,
    /// Skip edits of inodes that snapshots share.
    pub(crate) spare_shared: bool,
    /// Below the directory: directories, it included, and everything else.
    directories: Vec<PathBuf>,
    files: Vec<PathBuf>,
    /// Whether a file was ever made immutable.
    immutable: bool,
    written: usize,
}

impl Edits {
    pub(crate) fn new(directory: &Path, random: Random) -> Edits {
        Edits {
            random,
            directory: directory.to_path_buf(),
            log: Vec::new(),
            paths: Vec::new(),
            spare_shared: false,
            directories: Vec::new(),
            files: Vec::new(),
            immutable: false,
            written: 0,
        }
    }

    /// Makes `count` edits. After some of them the times of all directories are set back, as rsync
    /// does if the client asks for it.
    pub(crate) fn make(&mut self, count: usize) {
        for _ in 0..count {
            self.look();
            let &(what, edit) = match self.directories.len() + self.files.len() > PLENTY {
                true => &("remove a directory", Edits::remove_directory as fn(&mut Edits) -> _),
                false => self.random.of(KINDS).expect("kinds"),
            };
            let times = if self.random.once_in(3) { self.times() } else { Vec::new() };
            let done = edit(self);
            self.restore(&times);
            let secret = if times.is_empty() { "" } else { " in secret" };
            let refused = done.err().map(|error| format!(": {error}")).unwrap_or_default();
            let paths = std::mem::take(&mut self.paths).join(", ");
            self.log.push(format!("{what}{secret}: {paths}{refused}"));
        }
    }

    fn look(&mut self) {
        (self.directories, self.files) = (vec![self.directory.clone()], Vec::new());
        let mut next = 0;
        while let Some(directory) = self.directories.get(next).cloned() {
            next += 1;
            // Directories deeper than PATH_MAX are not edited.
            let mut entries: Vec<_> =
                fs::read_dir(&directory).into_iter().flatten().flatten().collect();
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    true => self.directories.push(entry.path()),
                    false => self.files.push(entry.path()),
                }
            }
        }
    }

    /// Directories that are still there get their times back.
    fn restore(&self, times: &[(PathBuf, SystemTime)]) {
        for (path, time) in times {
            if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
                && modified(path).is_some_and(|now| now != *time)
            {
                tree::set_mtime(path, *time);
            }
        }
    }

    fn times(&self) -> Vec<(PathBuf, SystemTime)> {
        let time = |path: &PathBuf| Some((path.clone(), modified(path)?));
        self.directories.iter().filter_map(time).collect()
    }

    fn note(&mut self, path: &Path) {
        let path = path.strip_prefix(&self.directory).unwrap_or(path);
        let text = path.as_os_str().as_bytes().escape_ascii().to_string();
        self.paths.push(text.replace("lllll", ""));
    }

    // -- Choices -----------------------------------------------------------------------------------

    fn directory(&mut self) -> PathBuf {
        let path = self.random.of(&self.directories).expect("at least the root").clone();
        self.note(&path);
        path
    }

    /// A directory other than the root.
    fn subdirectory(&mut self) -> io::Result<PathBuf> {
        let path =
            self.random.of(&self.directories[1..]).cloned().ok_or(io::ErrorKind::NotFound)?;
        self.note(&path);
        Ok(path)
    }

    fn file(&mut self) -> io::Result<PathBuf> {
        let path = self.random.of(&self.files).cloned().ok_or(io::ErrorKind::NotFound)?;
        self.note(&path);
        Ok(path)
    }

    /// Any path; an entry may have it already.
    fn path(&mut self) -> PathBuf {
        let name = self.random.of(NAMES).expect("names");
        let path = self.directory().join(OsStr::from_bytes(name));
        self.note(&path);
        path
    }

    fn content(&mut self) -> String {
        self.written += 1;
        format!("content {}\n", self.written)
    }

    // -- Files -------------------------------------------------------------------------------------

    /// As rsync writes: under another name, then renamed.
    fn write_file(&mut self) -> io::Result<()> {
        let path = self.path();
        let aside = aside(&path);
        fs::write(&aside, self.content())?;
        fs::rename(&aside, &path).inspect_err(|_| drop(fs::remove_file(&aside)))
    }

    fn write_in_place(&mut self) -> io::Result<()> {
        let path = self.path();
        if path.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::write(path, self.content())
    }

    fn remove_file(&mut self) -> io::Result<()> {
        fs::remove_file(self.file()?)
    }

    fn rename_file(&mut self) -> io::Result<()> {
        let (from, to) = (self.file()?, self.path());
        fs::rename(from, to)
    }

    fn exchange(&mut self) -> io::Result<()> {
        let mut all = self.directories[1..].to_vec();
        all.extend_from_slice(&self.files);
        let (Some(a), Some(b)) = (self.random.of(&all).cloned(), self.random.of(&all).cloned())
        else {
            return Err(io::ErrorKind::NotFound.into());
        };
        self.note(&a);
        self.note(&b);
        Ok(renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
    }

    /// Under a new name, or in place of what has that name.
    fn link_file(&mut self) -> io::Result<()> {
        let (from, to) = (self.file()?, self.path());
        let aside = aside(&to);
        fs::hard_link(&from, &aside)?;
        let renamed = fs::rename(&aside, &to);
        // Two names of one file: then nothing is renamed.
        let _ = fs::remove_file(&aside);
        renamed
    }

    fn make_symlink(&mut self) -> io::Result<()> {
        let (target, path) = (self.path(), self.path());
        symlink(target, path)
    }

    fn make_special(&mut self) -> io::Result<()> {
        let kinds = [
            (FileType::Fifo, 0),
            (FileType::Socket, 0),
            (FileType::CharacterDevice, makedev(1, 3)),
            (FileType::BlockDevice, makedev(7, 200)),
        ];
        let kinds = if is_root() { &kinds[..] } else { &kinds[..2] };
        let (kind, device) = *self.random.of(kinds).expect("kinds");
        let path = self.path();
        Ok(mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device)?)
    }

    /// Snapshots share mode and time of the inode, so they still equal the tree.
    fn change_file(&mut self) -> io::Result<()> {
        let path = self.file()?;
        if self.spare_shared || !path.symlink_metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        fs::set_permissions(
            &path,
            fs::Permissions::from_mode([0o600, 0o644, 0o4755][self.random.below(3)]),
        )?;
        let time = self.time();
        File::options().write(true).open(&path)?.set_modified(time)
    }

    /// A new file: an immutable inode that snapshots share would prevent their removal.
    fn make_immutable(&mut self) -> io::Result<()> {
        let path = self.path();
        File::options().write(true).create_new(true).open(&path)?;
        fs::write(&path, self.content())?;
        self.immutable = true;
        set_immutable(&path, true)
    }

    fn make_mutable(&mut self) -> io::Result<()> {
        let immutable: Vec<PathBuf> =
            self.files.iter().filter(|path| is_immutable(path)).cloned().collect();
        let path = self.random.of(&immutable).ok_or(io::ErrorKind::NotFound)?.clone();
        self.note(&path);
        set_immutable(&path, false)
    }

    // -- Directories -------------------------------------------------------------------------------

    fn make_directory(&mut self) -> io::Result<()> {
        let path = self.path();
        fs::create_dir(&path)?;
        self.fill(&path)
    }

    fn fill(&mut self, path: &Path) -> io::Result<()> {
        for name in &NAMES[..self.random.below(4)] {
            fs::write(path.join(OsStr::from_bytes(name)), self.content())?;
        }
        Ok(())
    }

    fn make_deep(&mut self) -> io::Result<()> {
        let path = self.path();
        let is_long = path.as_os_str().len() > 3_000;
        if is_long || path.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        tree::deep(&path, 2 + self.random.below(10), 3);
        Ok(())
    }

    fn remove_directory(&mut self) -> io::Result<()> {
        fs::remove_dir_all(self.subdirectory()?)
    }

    fn move_directory(&mut self) -> io::Result<()> {
        let (from, to) = (self.subdirectory()?, self.path());
        fs::rename(from, to)
    }

    fn move_another_into_its_place(&mut self) -> io::Result<()> {
        let (one, other, elsewhere) = (self.subdirectory()?, self.subdirectory()?, self.path());
        fs::rename(&one, elsewhere)?;
        fs::rename(other, one)
    }

    /// The new directory often gets the inode number of the old one.
    fn remake_directory(&mut self) -> io::Result<()> {
        let path = self.subdirectory()?;
        fs::remove_dir_all(&path)?;
        fs::create_dir(&path)?;
        self.fill(&path)
    }

    /// Another directory with the same files in it, at the same time.
    fn relink_directory(&mut self) -> io::Result<()> {
        let path = self.subdirectory()?;
        let aside = aside(&path);
        let time = modified(&path).ok_or(io::ErrorKind::NotFound)?;
        fs::create_dir(&aside)?;
        for entry in fs::read_dir(&path)?.flatten() {
            // The subdirectories of the old directory are removed with it.
            let _ = fs::hard_link(entry.path(), aside.join(entry.file_name()));
        }
        renameat_with(CWD, &path, CWD, &aside, RenameFlags::EXCHANGE)?;
        fs::remove_dir_all(&aside)?;
        tree::set_mtime(&path, time);
        Ok(())
    }

    fn directory_to_file(&mut self) -> io::Result<()> {
        let path = self.subdirectory()?;
        fs::remove_dir_all(&path)?;
        fs::write(path, self.content())
    }

    /// The directory stays, under another name.
    fn directory_to_symlink(&mut self) -> io::Result<()> {
        let (path, elsewhere) = (self.subdirectory()?, self.path());
        fs::rename(&path, &elsewhere)?;
        symlink(elsewhere, path)
    }

    fn file_to_directory(&mut self) -> io::Result<()> {
        let path = self.file()?;
        fs::remove_file(&path)?;
        fs::create_dir(&path)?;
        self.fill(&path)
    }

    // -- Attributes of directories -----------------------------------------------------------------

    fn change_mode(&mut self) -> io::Result<()> {
        // The owner has to be able to read it, and root can anyway.
        let modes = [0o755, 0o700, 0o777, 0o1777, 0o2755, 0o555, 0o7777, 0o000];
        let modes = if is_root() { &modes[..] } else { &modes[..5] };
        let mode = *self.random.of(modes).expect("modes");
        fs::set_permissions(self.directory(), fs::Permissions::from_mode(mode))
    }

    fn change_owner(&mut self) -> io::Result<()> {
        let owners = [0, 1000, 65_534, 4_000_000_000];
        let (owner, group) = (self.random.of(&owners).copied(), self.random.of(&owners).copied());
        chown(self.directory(), owner, group)
    }

    fn attribute(&mut self) -> &'static str {
        ["user.a", "user.b", "user.c", "system.posix_acl_default"][self.random.below(4)]
    }

    fn change_attribute(&mut self) -> io::Result<()> {
        let (path, name) = (self.directory(), self.attribute());
        let length = if self.random.once_in(4) { 900 } else { self.random.below(30) };
        let value = self.random.bytes(length);
        Ok(rustix::fs::setxattr(path, name, &value, XattrFlags::empty())?)
    }

    fn remove_attribute(&mut self) -> io::Result<()> {
        let (path, name) = (self.directory(), self.attribute());
        Ok(rustix::fs::removexattr(path, name)?)
    }

    fn change_acl(&mut self) -> io::Result<()> {
        let (path, user) = (self.directory(), 1000 + self.random.below(3) as u32);
        let name = ["system.posix_acl_access", "system.posix_acl_default"][self.random.below(2)];
        let group = [0o5, 0o7][self.random.below(2)];
        Ok(rustix::fs::setxattr(path, name, &tree::acl(0o7, group, user), XattrFlags::empty())?)
    }

    fn change_time(&mut self) -> io::Result<()> {
        let (path, time) = (self.directory(), self.time());
        File::open(path)?.set_modified(time)
    }

    /// One of few times, so that some are equal, or any.
    fn time(&mut self) -> SystemTime {
        match self.random.below(4) {
            0 => UNIX_EPOCH - Duration::new(86_400, 5),
            1 => UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789),
            2 => UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_790),
            _ => UNIX_EPOCH + Duration::from_secs(self.random.below(1_700_000_000) as u64),
        }
    }
}

impl Drop for Edits {
    /// Makes the tree removable: clears the immutable flag of all its files.
    fn drop(&mut self) {
        if self.immutable {
            self.look();
            for path in self.files.iter().filter(|path| is_immutable(path)) {
                let _ = set_immutable(path, false);
            }
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::symlink_metadata(path).ok()?.modified().ok()
}

/// A name beside `path` for what is about to be renamed to it.
fn aside(path: &Path) -> PathBuf {
    path.with_file_name(".aside")
}

/// Whether the file at `path` can be neither linked nor removed.
pub(crate) fn is_immutable(path: &Path) -> bool {
    let is_regular = path.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
    let flags = || -> io::Result<IFlags> { Ok(rustix::fs::ioctl_getflags(File::open(path)?)?) };
    is_regular && flags().is_ok_and(|flags| flags.contains(IFlags::IMMUTABLE))
}

fn set_immutable(path: &Path, immutable: bool) -> io::Result<()> {
    let file = File::open(path)?;
    let mut flags = rustix::fs::ioctl_getflags(&file)?;
    flags.set(IFlags::IMMUTABLE, immutable);
    Ok(rustix::fs::ioctl_setflags(&file, flags)?)
}
