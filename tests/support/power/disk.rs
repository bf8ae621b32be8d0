//! A disk that logs all its writes and flushes: a FUSE file system with one file, behind a loop
//! device.
//!
//! The loop driver hands each flush of the file system on it to that file as an fsync, and has each
//! forced write (FUA) followed by a flush. The file is opened for direct I/O, so that no page cache
//! puts writes off.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use super::write_log::{Event, Image};
use crate::support::run::{Run, tool};

const FILE: INodeNo = INodeNo(2);
const NAME: &str = "disk";
const FOR_EVER: Duration = Duration::from_secs(1 << 30);

/// The content of the disk, and the log of its events.
struct Recording {
    image: Image,
    events: Vec<Event>,
}

/// The disk exists until this value is dropped.
pub(crate) struct Disk {
    recording: Arc<Mutex<Recording>>,
    /// Where it can be mounted from.
    pub(crate) device: PathBuf,
    place: PathBuf,
    session: Option<BackgroundSession>,
}

impl Disk {
    /// A disk that holds `image`; its file shows in the empty directory `place`.
    pub(crate) fn new(image: Image, place: &Path) -> Disk {
        let recording = Arc::new(Mutex::new(Recording { image, events: Vec::new() }));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("power-cut-test".to_string())];
        let file_system = OneFile { recording: Arc::clone(&recording) };
        let session = fuser::spawn_mount(file_system, place, &config).expect("a FUSE mount");
        let mut losetup = tool("losetup");
        let run = Run::of(losetup.args(["--find", "--show"]).arg(place.join(NAME))).exits(&[0]);
        Disk {
            recording,
            device: PathBuf::from(run.stdout().trim()),
            place: place.to_path_buf(),
            session: Some(session),
        }
    }

    /// How many events there have been.
    pub(crate) fn position(&self) -> usize {
        lock(&self.recording).events.len()
    }

    /// Removes the disk and returns its log. It must not be mounted.
    pub(crate) fn into_events(self) -> Vec<Event> {
        std::mem::take(&mut lock(&self.recording).events)
    }
}

impl Drop for Disk {
    /// The loop device is gone only when no process has it open any more, and before that the file
    /// is in use.
    fn drop(&mut self) {
        let _ = tool("losetup").arg("--detach").arg(&self.device).status();
        let is_unmounted =
            || tool("umount").arg(&self.place).output().is_ok_and(|output| output.status.success());
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_unmounted() {
            if Instant::now() > deadline {
                eprintln!("cannot unmount {}", self.place.display());
                let _ = tool("umount").arg("--lazy").arg(&self.place).status();
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        if let Some(Err(error)) = self.session.take().map(BackgroundSession::join) {
            eprintln!("the file of {}: {error}", self.device.display());
        }
    }
}

fn lock(recording: &Mutex<Recording>) -> MutexGuard<'_, Recording> {
    recording.lock().expect("nobody panics with it")
}

/// One request is answered before the next is read, so the order of events is that of their
/// answers.
struct OneFile {
    recording: Arc<Mutex<Recording>>,
}

impl OneFile {
    fn attributes(&self, number: INodeNo) -> FileAttr {
        let size = lock(&self.recording).image.length() as u64;
        let (kind, perm) = match number {
            FILE => (FileType::RegularFile, 0o600),
            _ => (FileType::Directory, 0o700),
        };
        FileAttr {
            ino: number,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for OneFile {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name == NAME {
            true => reply.entry(&FOR_EVER, &self.attributes(FILE), Generation(0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOR_EVER, &self.attributes(number));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let bytes = lock(&self.recording).image.bytes_at(offset as usize, size as usize);
        reply.data(&bytes);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut recording = lock(&self.recording);
        recording.image.write(offset as usize, bytes);
        recording.events.push(Event::Write { offset: offset as usize, bytes: bytes.to_vec() });
        reply.written(bytes.len() as u32);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        lock(&self.recording).events.push(Event::Flush);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Closing a descriptor makes nothing durable.
        reply.ok();
    }
}
