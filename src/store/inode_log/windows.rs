//! The times in which runs made or removed links: `inodes/windows`.
//!
//! The kernel moves a file's change time when a link is made or removed. So a change time within
//! such a window does not show that a client changed the file. A run appends a record of 32 bytes
//! before its work and one after it. The first record is on disk before the work begins. So if the
//! run is killed, its work lies in a window that is still open. Such a window ends when the machine
//! stops, or when the next run opens a window.
//!
//! If a record cannot be read, the whole time between the records beside it counts as a window. So
//! does the time before the first record. Lost records thus hide changes, but no client is accused
//! wrongly.
//!
//! The file system's clock decides, so each window is widened to hold the change times of this
//! file. A step of the clock within a window widens it, too. Both ends are extended a little, since
//! the kernel stamps files with the time of its last tick.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::decide::boot_time::BootTime;
use crate::decide::clock_tick::STAMP_LAG_NS;
use crate::store::dir::{self, Dir, c_name};
use crate::tell::error::{Error, Result};

const FILE: &str = "windows";
const RECORD_BYTES: usize = 32;

/// Enough for some 16,000 runs. When the file is full, its older half is dropped.
const MAX_BYTES: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WindowEvent {
    /// The file begins; nothing is known of the time before.
    Begin,
    /// A run is about to make or remove links.
    Open,
    /// That run has finished.
    Close,
}

#[derive(Debug, Clone, Copy)]
struct WindowRecord {
    event: WindowEvent,
    boot: u32,
    wall_ns: i64,
    uptime_ns: i64,
}

impl WindowRecord {
    fn now(event: WindowEvent) -> Self {
        let BootTime { boot, nanoseconds } = BootTime::now();
        WindowRecord {
            event,
            boot: crc32fast::hash(boot.as_bytes()),
            wall_ns: wall_ns(),
            uptime_ns: nanoseconds,
        }
    }

    fn bytes(self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        let event = match self.event {
            WindowEvent::Begin => 1,
            WindowEvent::Open => 2,
            WindowEvent::Close => 3_u32,
        };
        bytes[..4].copy_from_slice(&event.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.boot.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.wall_ns.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.uptime_ns.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; RECORD_BYTES] = bytes.try_into().ok()?;
        let u32_at =
            |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
        let i64_at =
            |at: usize| i64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        let event = match u32_at(0) {
            1 => WindowEvent::Begin,
            2 => WindowEvent::Open,
            3 => WindowEvent::Close,
            _ => return None,
        };
        let mark =
            WindowRecord { event, boot: u32_at(4), wall_ns: i64_at(8), uptime_ns: i64_at(16) };
        (u32_at(28) == crc32fast::hash(&bytes[..28])).then_some(mark)
    }

    /// The window from this record to `end`, even if the clock was set in between.
    fn until(self, end: WindowRecord) -> (i64, i64) {
        if self.boot == end.boot {
            let elapsed = (end.uptime_ns - self.uptime_ns).max(0);
            let start = self.wall_ns.min(end.wall_ns.saturating_sub(elapsed));
            return (start, end.wall_ns.max(self.wall_ns.saturating_add(elapsed)));
        }
        // The run that wrote this record ended with its boot.
        let booted = end.wall_ns.saturating_sub(end.uptime_ns);
        (self.wall_ns.min(booted), booted.max(self.wall_ns))
    }
}

/// The times in which runs made or removed links.
#[derive(Debug, Clone, Default)]
pub struct LinkWindows {
    /// Since when windows are recorded; none if they are not.
    since_ns: Option<i64>,
    /// Start and end of each, nanoseconds since 1970.
    spans: Vec<(i64, i64)>,
}

impl LinkWindows {
    /// Reads the windows of a root; none are known if the file cannot be read.
    pub fn read(dir: Dir) -> Self {
        LinkWindows::try_read(dir).unwrap_or_default()
    }

    /// Reads the windows of a root; none are known if there is no file.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn try_read(dir: Dir) -> Result<Self> {
        let bytes = dir::read_bytes(dir, FILE, 2 * MAX_BYTES)?;
        let now = WindowRecord::now(WindowEvent::Open);
        Ok(bytes.map_or_else(LinkWindows::default, |bytes| LinkWindows::of(&bytes, now)))
    }

    fn of(bytes: &[u8], now: WindowRecord) -> Self {
        let mut windows = LinkWindows::default();
        let mut open: Option<WindowRecord> = None;
        let (mut last_ns, mut is_hole) = (i64::MIN, false);
        for record in bytes.chunks_exact(RECORD_BYTES) {
            let Some(mark) = WindowRecord::read(record) else {
                is_hole = true;
                continue;
            };
            if std::mem::take(&mut is_hole) {
                windows.spans.push((last_ns.min(mark.wall_ns), last_ns.max(mark.wall_ns)));
            }
            if let Some(open) = open.take() {
                windows.spans.push(open.until(mark));
            }
            match mark.event {
                WindowEvent::Begin => windows.since_ns = windows.since_ns.or(Some(mark.wall_ns)),
                WindowEvent::Open => open = Some(mark),
                WindowEvent::Close => {}
            }
            last_ns = mark.wall_ns;
        }
        if is_hole {
            windows.spans.push((last_ns, i64::MAX));
        }
        match open {
            // The window is open: a run is active, or it was killed.
            Some(open) if open.boot == now.boot => windows.spans.push((open.wall_ns, i64::MAX)),
            Some(open) => windows.spans.push(open.until(now)),
            None => {}
        }
        windows.spans = joined(windows.spans);
        windows
    }

    /// Whether a run may have caused a change time, in nanoseconds since 1970. Always true if no
    /// windows are known.
    pub fn cover(&self, ns: i64) -> bool {
        let Some(since) = self.since_ns else { return true };
        ns < since.saturating_add(STAMP_LAG_NS) || self.is_within(ns, 0)
    }

    /// Whether a change time lies in a known window without its widened ends. A change just before
    /// a run thus counts as one of a client.
    pub fn contain(&self, ns: i64) -> bool {
        self.is_within(ns, STAMP_LAG_NS)
    }

    fn is_within(&self, ns: i64, margin_ns: i64) -> bool {
        let next = self.spans.partition_point(|(start, _)| *start <= ns);
        let Some((start, end)) = next.checked_sub(1).map(|last| self.spans[last]) else {
            return false;
        };
        ns >= start.saturating_add(margin_ns) && ns <= end.saturating_sub(margin_ns)
    }

    /// Whether windows are recorded at all.
    pub fn are_known(&self) -> bool {
        self.since_ns.is_some()
    }
}

/// The spans, each widened at both ends, in order, overlapping ones joined.
fn joined(mut spans: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    spans.sort_unstable();
    let mut joined: Vec<(i64, i64)> = Vec::with_capacity(spans.len());
    for (start, end) in spans {
        let (start, end) = (start.saturating_sub(STAMP_LAG_NS), end.saturating_add(STAMP_LAG_NS));
        match joined.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => joined.push((start, end)),
        }
    }
    joined
}

/// An open window: the run may make and remove links until this value is dropped.
pub struct LinkWindow {
    file: Option<File>,
}

impl LinkWindow {
    /// Records an open window on disk. If the disk is full, the file is removed instead: then no
    /// windows are known, and no change time counts as a sign until a window can be recorded.
    pub fn open(dir: Dir) -> Result<Self> {
        match append(dir) {
            Ok(file) => Ok(LinkWindow { file: Some(file) }),
            Err(error) => {
                // This is only logged: `verify` reports it as long as no windows are known.
                log::info!(
                    "{error}; until a later run can write it, `verify` cannot use change times"
                );
                match unlinkat(dir.directory, c_name(FILE).as_c_str(), UnlinkatFlags::NoRemoveDir) {
                    Ok(()) | Err(nix::errno::Errno::ENOENT) => Ok(LinkWindow { file: None }),
                    Err(cause) => Err(Error::io("remove", &dir.path.join(FILE), cause)),
                }
            }
        }
    }
}

impl Drop for LinkWindow {
    fn drop(&mut self) {
        // If this fails, the window stays open until the next run opens one.
        if let Some(file) = &mut self.file
            && let Err(cause) = record(file, WindowRecord::now(WindowEvent::Close))
        {
            log::debug!(
                "inodes/windows does not say when this run stopped making links, so `verify` \
                 cannot use change times from then to the next run: {cause}"
            );
        }
    }
}

fn append(dir: Dir) -> Result<File> {
    let path = dir.path.join(FILE);
    let failed = |cause: std::io::Error| Error::io("write", &path, cause);
    let flags =
        OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_APPEND | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened =
        openat(dir.directory, c_name(FILE).as_c_str(), flags, Mode::from_bits_truncate(0o600));
    let mut file = File::from(opened.map_err(|cause| failed(cause.into()))?);
    let mut size = file.metadata().map_err(failed)?.len();
    if size > MAX_BYTES {
        drop_older_half(dir, &file)?;
        return append(dir);
    }
    // A full disk may have cut the last record short.
    let torn = size % RECORD_BYTES as u64;
    if torn > 0 {
        size -= torn;
        file.set_len(size).map_err(failed)?;
    }
    if size == 0 {
        record(&mut file, WindowRecord::now(WindowEvent::Begin)).map_err(failed)?;
    }
    record(&mut file, WindowRecord::now(WindowEvent::Open)).map_err(failed)?;
    file.sync_data().map_err(failed)?;
    Ok(file)
}

/// Appends a record. Its time is the machine's or the file system's, whichever makes the window
/// wider.
fn record(file: &mut File, mut mark: WindowRecord) -> std::io::Result<()> {
    file.write_all(&mark.bytes())?;
    let metadata = file.metadata()?;
    let written_ns =
        metadata.ctime().saturating_mul(1_000_000_000).saturating_add(metadata.ctime_nsec());
    let wider = match mark.event {
        WindowEvent::Open => written_ns.min(mark.wall_ns),
        WindowEvent::Begin | WindowEvent::Close => written_ns.max(mark.wall_ns),
    };
    if (wider - mark.wall_ns).abs() > STAMP_LAG_NS / 2 {
        mark.wall_ns = wider;
        // The descriptor only appends, so the record is cut off before it is written again.
        file.set_len(metadata.len() - RECORD_BYTES as u64)?;
        file.write_all(&mark.bytes())?;
    }
    Ok(())
}

fn drop_older_half(dir: Dir, file: &File) -> Result<()> {
    let path = dir.path.join(FILE);
    let mut bytes = Vec::new();
    let mut reader = file;
    reader.read_to_end(&mut bytes).map_err(|cause| Error::io("read", &path, cause))?;
    let records: Vec<&[u8]> = bytes.chunks_exact(RECORD_BYTES).collect();
    let newer = &records[records.len() / 2..];
    let first = newer.iter().position(|record| {
        WindowRecord::read(record).is_some_and(|mark| mark.event == WindowEvent::Open)
    });
    let mut kept = Vec::new();
    if let Some(mark) = first.and_then(|first| WindowRecord::read(newer[first])) {
        kept.extend(WindowRecord { event: WindowEvent::Begin, ..mark }.bytes());
        kept.extend(newer[first.unwrap_or(0)..].concat());
    }
    dir::write_before_syncfs(dir, FILE, &kept)
}

/// Nanoseconds since 1970, now.
pub fn wall_ns() -> i64 {
    clock_gettime(ClockId::CLOCK_REALTIME)
        .map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn mark(event: WindowEvent, boot: u32, wall: i64, uptime: i64) -> WindowRecord {
        WindowRecord { event, boot, wall_ns: wall * SECOND, uptime_ns: uptime * SECOND }
    }

    fn windows(marks: &[WindowRecord], now: WindowRecord) -> LinkWindows {
        let bytes: Vec<u8> = marks.iter().flat_map(|mark| mark.bytes()).collect();
        LinkWindows::of(&bytes, now)
    }

    fn covered(windows: &LinkWindows, range: std::ops::Range<i64>) -> Vec<i64> {
        range.filter(|second| windows.cover(second * SECOND)).collect()
    }

    #[test]
    fn only_what_lies_in_a_window_or_before_all_of_them_is_ours() {
        let now = mark(WindowEvent::Open, 1, 130, 130);
        let marks = [
            mark(WindowEvent::Begin, 1, 100, 100),
            mark(WindowEvent::Open, 1, 104, 104),
            mark(WindowEvent::Close, 1, 106, 106),
            mark(WindowEvent::Open, 1, 110, 110),
            mark(WindowEvent::Close, 1, 110, 110),
        ];
        assert_eq!(covered(&windows(&marks, now), 98..115), [98, 99, 100, 104, 105, 106, 110]);
        assert_eq!(covered(&windows(&[], now), 0..3), [0, 1, 2], "nothing is known");
        assert_eq!(covered(&windows(&marks[1..], now), 0..3), [0, 1, 2], "nor since when");
    }

    #[test]
    fn a_window_left_open_ends_with_the_next_or_with_its_boot() {
        let begin = mark(WindowEvent::Begin, 1, 100, 100);
        let killed = mark(WindowEvent::Open, 1, 105, 105);
        let same_boot = mark(WindowEvent::Open, 1, 120, 120);
        assert_eq!(
            covered(&windows(&[begin, killed], same_boot), 101..125).len(),
            20,
            "to this day"
        );
        let closed = mark(WindowEvent::Close, 1, 108, 108);
        let next = mark(WindowEvent::Open, 1, 107, 107);
        assert_eq!(
            covered(&windows(&[begin, killed, next, closed], same_boot), 101..125),
            [105, 106, 107, 108]
        );
        let rebooted = mark(WindowEvent::Open, 2, 120, 10);
        assert_eq!(
            covered(&windows(&[begin, killed], rebooted), 101..125),
            [105, 106, 107, 108, 109, 110]
        );
    }

    #[test]
    fn a_step_of_the_clock_widens_the_window_that_it_falls_in() {
        let now = mark(WindowEvent::Open, 1, 200, 200);
        let begin = mark(WindowEvent::Begin, 1, 100, 100);
        let back =
            [begin, mark(WindowEvent::Open, 1, 120, 120), mark(WindowEvent::Close, 1, 113, 123)];
        assert_eq!(covered(&windows(&back, now), 101..130), (110..=123).collect::<Vec<_>>());
        let forth =
            [begin, mark(WindowEvent::Open, 1, 120, 120), mark(WindowEvent::Close, 1, 126, 122)];
        assert_eq!(covered(&windows(&forth, now), 101..130), (120..=126).collect::<Vec<_>>());
    }

    #[test]
    fn a_damaged_record_makes_a_hole_and_raises_no_alarm() {
        let now = mark(WindowEvent::Open, 1, 200, 200);
        let marks = [
            mark(WindowEvent::Begin, 1, 100, 100),
            mark(WindowEvent::Open, 1, 104, 104),
            mark(WindowEvent::Close, 1, 105, 105),
            mark(WindowEvent::Open, 1, 110, 110),
            mark(WindowEvent::Close, 1, 111, 111),
            mark(WindowEvent::Open, 1, 120, 120),
            mark(WindowEvent::Close, 1, 121, 121),
        ];
        let whole = windows(&marks, now);
        let bytes: Vec<u8> = marks.iter().flat_map(|mark| mark.bytes()).collect();
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            let damaged = LinkWindows::of(&bytes, now);
            for second in 90..130 {
                assert!(
                    damaged.cover(second * SECOND) || !whole.cover(second * SECOND),
                    "byte {at}, {second}"
                );
            }
        }
    }

    #[test]
    fn links_made_in_an_open_window_are_covered_and_others_are_not() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let directory = File::open(scratch.path()).expect("it");
        let dir = Dir { directory: std::os::fd::AsFd::as_fd(&directory), path: scratch.path() };
        let file = |name: &str| scratch.path().join(name);
        let pause = || std::thread::sleep(std::time::Duration::from_millis(60));
        std::fs::write(file("a"), "").expect("a file");
        drop(LinkWindow::open(dir).expect("a window"));
        pause();
        std::fs::write(file("between"), "").expect("a file");
        pause();
        let window = LinkWindow::open(dir).expect("a window");
        std::fs::hard_link(file("a"), file("b")).expect("a link");
        drop(window);
        pause();
        std::fs::write(file("after"), "").expect("a file");
        let windows = LinkWindows::read(dir);
        let changed = |name: &str| {
            let metadata = std::fs::metadata(file(name)).expect("metadata");
            metadata.ctime() * SECOND + metadata.ctime_nsec()
        };
        assert!(windows.cover(changed("a")));
        assert!(!windows.cover(changed("between")));
        assert!(!windows.cover(changed("after")));
    }
}
