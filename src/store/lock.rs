//! The lock that admits one writer at a time to a snapshot root, and short locks on directories,
//! such as that of the root's state. All are `flock`s by fs2.
//!
//! The lock file is never unlinked: another run would make a new file and lock that. The file holds
//! a line about its [holder](crate::decide::lock_holder), for `check`, `status` and runs that wait.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::store::dir::{Dir, c_name};
use crate::store::layout::LOCK_FILE;
use crate::tell::error::{Error, Result};
use crate::tell::escape::one_line;

/// The pause between two attempts doubles from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(200);

/// The lock of a root, held for a whole run: only its holder may change the root. Comments call it
/// the *long* lock, unlike a [`DirLock`].
pub(crate) struct RootLock {
    file: Arc<File>,
    path: PathBuf,
    is_held: bool,
}

impl RootLock {
    /// Opens or makes the lock file, without locking it.
    pub(crate) fn open(private: Dir) -> Result<Self> {
        let path = private.path.join(LOCK_FILE);
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = openat(
            private.directory,
            c_name(LOCK_FILE).as_c_str(),
            flags,
            Mode::from_bits_truncate(0o600),
        );
        let file = opened.map_err(|cause| Error::io("open", &path, cause))?;
        Ok(RootLock { file: Arc::new(file.into()), path, is_held: false })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Takes the lock if it is free, and writes `holder` into it.
    pub(crate) fn try_acquire(&mut self, holder: &str) -> Result<bool> {
        // By full name: std has methods of the same name with other errors.
        match fs2::FileExt::try_lock_exclusive(&*self.file) {
            Ok(()) => {
                write_holder(&self.file, holder);
                self.is_held = true;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(Error::io("lock", &self.path, error)),
        }
    }

    /// Tries until `wait` is over or `is_needless` returns true; false if the lock stayed busy.
    /// `is_needless` is called after each attempt.
    pub(crate) fn acquire(
        &mut self,
        holder: &str,
        wait: Duration,
        mut is_needless: impl FnMut(&RootLock) -> Result<bool>,
    ) -> Result<bool> {
        let deadline = Instant::now() + wait;
        let mut pause = FIRST_PAUSE;
        loop {
            if self.try_acquire(holder)? {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || is_needless(self)? {
                return Ok(false);
            }
            sleep(pause.min(left));
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// The text that the holder wrote about itself.
    pub(crate) fn holder(&self) -> String {
        let mut bytes = [0; MAX_HOLDER_BYTES];
        let length = self.file.read_at(&mut bytes, 0).unwrap_or(0);
        let text = str::from_utf8(&bytes[..length]).unwrap_or_default();
        match text.lines().next() {
            Some(line) if !line.trim_matches('\0').is_empty() => one_line(line.trim()).into_owned(),
            _ => "an unknown process".to_string(),
        }
    }

    /// Writes new texts about the holder, which is this run.
    pub(crate) fn holder_writer(&self) -> impl Fn(&str) + use<> {
        let file = Arc::clone(&self.file);
        move |holder| write_holder(&file, holder)
    }

    /// Releases the lock. Closing the file, however the process ends, does so too.
    pub(crate) fn release(mut self) -> Result<()> {
        self.clear_holder();
        fs2::FileExt::unlock(&*self.file).map_err(|cause| Error::io("unlock", &self.path, cause))
    }
}

/// The text about the run that holds the lock of a root; none if no run does. Changes nothing.
///
/// To test the lock, this function takes it for a moment, and a run that does not wait would find
/// it busy in that moment. So the lock is tested only if `is_meant` returns true for the text.
pub(crate) fn holder_of(private: Dir, is_meant: &dyn Fn(&str) -> bool) -> Option<String> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file =
        openat(private.directory, c_name(LOCK_FILE).as_c_str(), flags, Mode::empty()).ok()?;
    let path = private.path.join(LOCK_FILE);
    let lock = RootLock { file: Arc::new(file.into()), path, is_held: false };
    let holder = lock.holder();
    if !is_meant(&holder) {
        return None;
    }
    // If no run holds the lock, the text may be that of a run that was killed.
    match fs2::FileExt::try_lock_shared(&*lock.file) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Some(holder),
        _ => None,
    }
}

/// Longer texts about a holder are not ours.
const MAX_HOLDER_BYTES: usize = 1_000;

/// Writes the text about the holder. It only serves messages, so a full disk must not keep the run
/// from working. A reader sees a whole line: the text is written at once, and what was longer is
/// cut off after that. If it cannot be written, the file must not name another run.
fn write_holder(file: &File, holder: &str) {
    let written = file.write_all_at(holder.as_bytes(), 0);
    let length = if written.is_ok() { holder.len() } else { 0 };
    let _ = file.set_len(length as u64);
}

impl RootLock {
    /// Without this, messages would name this run when another program locks the file.
    fn clear_holder(&mut self) {
        if std::mem::take(&mut self.is_held) {
            let _ = self.file.set_len(0);
        }
    }
}

impl Drop for RootLock {
    fn drop(&mut self) {
        self.clear_holder();
    }
}

/// A short lock on a directory; the lock is released when this value is dropped.
pub struct DirLock {
    _directory: File,
}

impl DirLock {
    /// Waits for the lock, which is never held for long.
    pub fn on_directory(dir: Dir) -> Result<Self> {
        let directory = DirLock::open(dir)?;
        loop {
            match fs2::FileExt::lock_exclusive(&directory) {
                Ok(()) => return Ok(DirLock { _directory: directory }),
                // A handled signal, such as SIGINT in `rsync-system-backup`, interrupts the wait.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("lock", dir.path, error)),
            }
        }
    }

    /// Takes the lock if it is free.
    pub fn try_on_directory(dir: Dir) -> Result<Option<Self>> {
        let directory = DirLock::open(dir)?;
        match fs2::FileExt::try_lock_exclusive(&directory) {
            Ok(()) => Ok(Some(DirLock { _directory: directory })),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(Error::io("lock", dir.path, error)),
        }
    }

    /// Opens the directory once more: a `flock` belongs to the open file and ends with it.
    fn open(dir: Dir) -> Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = openat(dir.directory, c".", flags, Mode::empty());
        opened.map(File::from).map_err(|cause| Error::io("lock", dir.path, cause))
    }
}
