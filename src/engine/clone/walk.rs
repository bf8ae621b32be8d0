//! The walk of a clone: enters directory after directory, links their entries, and applies a
//! directory's attributes when it leaves it. A change of the directory after that would show in its
//! ctime, so nothing is done in it any more.

use std::ffi::CStr;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};

use crate::engine::attributes::{self, AttributeSource, XattrSource};
use crate::engine::children::{LEVEL_BYTES, PendingChildren};
use crate::engine::clone::entries::Linked;
use crate::engine::clone::{
    CloneContext, CloneFrame, CloneJob, CloneOutcome, DirectoryToClone, DirectoryToFinish,
    SubtreeToClone, TreeCloner,
};
use crate::engine::descent::DirectoryFd;
use crate::engine::frames::Step;
use crate::engine::index::{IndexRecord, SnapshotStamp, Stamp, now_ns};
use crate::system::syscalls::{is_gone, stat_entry};
use crate::tell::error::Result;
use crate::tell::progress;

impl TreeCloner<'_, '_> {
    pub(crate) fn run(&mut self) -> Result<()> {
        while let Some(frame) = self.frames.last_mut() {
            for part in frame.given.drain(..) {
                self.part.leave_gap(part);
            }
            match self.frames.next_step() {
                Some(Step::Enter(name, directory)) => {
                    self.share();
                    self.enter(&name, directory)?;
                }
                Some(Step::ReadAgain(rest)) => self.read_again(rest)?,
                Some(Step::Leave) | None => self.finish_directory()?,
            }
        }
        Ok(())
    }

    /// Gives a subtree away if a worker waits for one: the uppermost that can be reached cheaply.
    fn share(&mut self) {
        if self.pool.is_stopped() {
            // Another worker has failed, and with it the clone.
            self.frames.abandon();
        }
        if !self.pool.has_idle_worker() {
            return;
        }
        let is_near = |depth, _: &CloneFrame| self.staged.is_near(depth);
        let Some(depth) = self.frames.depth_to_share(&self.live, is_near) else { return };
        let (Ok(live), Ok(staged)) = (self.live.start_at(depth), self.staged.start_at(depth))
        else {
            return;
        };
        let frames = self.frames.down_to(depth);
        let depth = self.depth + u32::try_from(frames.len()).unwrap_or(u32::MAX);
        let Some(frame) = frames.last_mut() else { return };
        if let Some((name, directory)) = frame.pending.pop() {
            let part = self.shared.index.new_part();
            frame.given.push(part);
            let name = Some(name);
            let subtree = SubtreeToClone { live, staged, name, directory, depth, part };
            self.pool.give(CloneJob::Clone(subtree));
        }
    }

    pub(crate) fn enter(&mut self, name: &CStr, directory: DirectoryToClone) -> Result<()> {
        if self.keep(name, directory)? {
            return Ok(());
        }
        let now = now_ns();
        let is_cached = self.shared.knowledge.cache.is_some_and(|cache| !cache.is_empty());
        let entered = match is_cached {
            true => self.live.enter_for_lookups(name),
            false => self.live.enter(name),
        };
        let stat = match entered {
            Ok(stat) => stat,
            Err(cause) if is_gone(cause) => return self.lose(name, cause),
            // An empty directory, as `cp --one-file-system` makes: a mount point after a restore.
            Err(Errno::EXDEV) => {
                self.skip_mount(name);
                let record = IndexRecord::unfinished(0, Stamp::NEVER);
                self.part.push(self.current_depth(), name, record);
                return self.leave_empty(name, directory.is_new);
            }
            Err(cause) => return Err(self.live.error("open the directory", Some(name), cause)),
        };
        match self.staged.enter(name) {
            Ok(own) => self.note_other_change(directory, &own),
            // The live entry became a directory after its parent was read the first time.
            Err(cause) if is_gone(cause) => {
                self.live.leave();
                self.cloned.vanished += 1;
                return Ok(());
            }
            Err(cause) => return Err(self.live.error("open the staged copy of", None, cause)),
        }
        self.fill_directory(name, &stat, now, directory)
    }

    /// Keeps a directory of the recycled snapshot as it is, if neither it nor the live directory
    /// has changed since that snapshot was made. Its subdirectories become pending. Returns whether
    /// the directory was kept.
    fn keep(&mut self, name: &CStr, directory: DirectoryToClone) -> Result<bool> {
        let CloneContext { partial_dirs, .. } = self.shared.knowledge;
        // An earlier version linked the files of a partial directory.
        if directory.is_new || partial_dirs.is_some_and(|dirs| dirs.may_be(name.to_bytes())) {
            return Ok(false);
        }
        let Some((index, at)) = self.retired.as_ref().zip(directory.retired) else {
            return Ok(false);
        };
        let Some(record) = index.record(at) else { return Ok(false) };
        let is_leaf = index.leaf(at).is_some();
        let newest = self.newest.as_ref().zip(directory.newest);
        let known = newest.and_then(|(newest, at)| newest.unchanged(at));
        let live = match known {
            Some(stamp) => stamp,
            None => {
                let device = self.live.device();
                let live = self.live.lookup_directory();
                match live.and_then(|parent| Stamp::of_entry(parent.as_fd(), name, device)) {
                    Ok(Some(stamp)) => stamp,
                    _ => return Ok(false),
                }
            }
        };
        if live != record.live {
            return Ok(false);
        }
        if is_leaf {
            let parent = self
                .staged
                .lookup_directory()
                .map_err(|cause| self.staged.error("return to the staged copy of", None, cause))?;
            let is_intact = stat_entry(parent.as_fd(), name)
                .is_ok_and(|stat| SnapshotStamp::of(&stat) == record.own);
            if is_intact {
                self.count_kept(&record);
                self.part.push(self.current_depth(), name, record);
            }
            return Ok(is_intact);
        }
        let mut pending = PendingChildren::new(LEVEL_BYTES);
        if !self.look_up_kept(&mut pending, directory) {
            return Ok(false);
        }
        match self.staged.enter_for_lookups(name) {
            Ok(stat) if SnapshotStamp::of(&stat) == record.own => {}
            Ok(_) => {
                self.staged.leave();
                return Ok(false);
            }
            Err(_) => return Ok(false),
        }
        self.live.pass(name);
        self.count_kept(&record);
        self.frames.push(CloneFrame {
            directory,
            record,
            is_kept: true,
            pending,
            given: Vec::new(),
            unfinished: None,
        });
        Ok(true)
    }

    /// Goes on with the subdirectories that did not fit into memory.
    fn read_again(&mut self, mut pending: PendingChildren<DirectoryToClone>) -> Result<()> {
        let Some(mut frame) = self.frames.pop() else { return Ok(()) };
        if !frame.is_kept || !self.look_up_kept(&mut pending, frame.directory) {
            // Where the index cannot be read any more, the live directory is.
            pending.restart();
            if !self.list_directories(&mut pending)? {
                frame.doubt();
            }
            self.look_up(&mut pending, frame.directory);
        }
        self.frames.push(CloneFrame { pending, ..frame });
        Ok(())
    }

    fn count_kept(&mut self, record: &IndexRecord) {
        self.count(record.entries.into());
        progress::add(record.entries.into());
    }

    /// The depth below the tree's root of the directory whose frame is pushed next.
    fn current_depth(&self) -> u32 {
        self.depth + u32::try_from(self.frames.len()).unwrap_or(u32::MAX)
    }

    /// Handles a live entry that is no directory any more. It is linked in one more attempt only: a
    /// client that keeps swapping it must not keep the run here.
    fn lose(&mut self, name: &CStr, cause: Errno) -> Result<()> {
        self.uncount();
        let staged = self.open_staged()?;
        self.remove_staged(staged.as_fd(), name)?;
        self.touch()?;
        let live = match self.live.directory() {
            Ok(live) if cause != Errno::ENOENT => live,
            Err(cause) if !is_gone(cause) => return Err(self.live.error("return to", None, cause)),
            // The entry has gone, or its directory has been moved away.
            Ok(_) | Err(_) => {
                self.cloned.vanished += 1;
                return Ok(());
            }
        };
        self.count(1);
        // This is rare and need not be cheap.
        self.copies_files = self.is_partial_dir(None);
        if self.link_entry(live.as_fd(), staged.as_fd(), name)? == Linked::IsDirectory {
            self.uncount();
            self.cloned.vanished += 1;
        }
        self.recorder.record_waiting(staged.as_fd());
        Ok(())
    }

    /// Makes the current staged directory equal to the live one, whose `stat` was read after `now`.
    /// Its subdirectories become pending; its attributes are applied when it is left.
    pub(crate) fn fill_directory(
        &mut self,
        name: &CStr,
        stat: &FileStat,
        now: i64,
        directory: DirectoryToClone,
    ) -> Result<()> {
        let cached = self.shared.knowledge.cache.and_then(|cache| cache.take(stat));
        let live = match cached {
            Some(_) => self.live.lookup_directory(),
            None => self.live.directory(),
        };
        let live = live.map_err(|cause| self.live.error("open", None, cause))?;
        let directories = (live, self.open_staged()?);
        let has_no_xattrs = cached.as_ref().is_some_and(|cached| cached.has_no_xattrs);
        let cached = cached.map(|cached| cached.listing);
        let mut pending = PendingChildren::new(LEVEL_BYTES);
        let changes = |cloned: &CloneOutcome| cloned.made + cloned.removed;
        let doubts = |cloned: &CloneOutcome| {
            (cloned.copied, cloned.skipped_mounts.len(), cloned.temporaries.count)
        };
        let before = (changes(&self.cloned), doubts(&self.cloned));
        self.cloned.directories_read += u64::from(cached.is_none());
        self.copies_files = self.is_partial_dir(Some(name));
        let entries = match directory.is_new {
            true => self.link_all(&directories, cached.as_ref(), &mut pending)?,
            false => self.align(&directories, cached.as_ref(), &mut pending)?,
        };
        self.recorder.record_waiting(directories.1.as_fd());
        progress::add(entries);
        let is_certain = before.1 == doubts(&self.cloned);
        let stamp = if is_certain { Stamp::of(stat).settled(now) } else { Stamp::NEVER };
        let is_touched = directory.is_new || before.0 != changes(&self.cloned);
        self.look_up(&mut pending, directory);
        self.frames.push(CloneFrame {
            directory,
            record: IndexRecord::unfinished(entries, stamp),
            is_kept: false,
            pending,
            given: Vec::new(),
            unfinished: Some(DirectoryToFinish { stat: *stat, is_touched, has_no_xattrs }),
        });
        Ok(())
    }

    /// Whether the current live directory is a partial directory. `name` excludes most of them at
    /// little cost.
    fn is_partial_dir(&self, name: Option<&CStr>) -> bool {
        let Some(dirs) = self.shared.knowledge.partial_dirs else { return false };
        name.is_none_or(|name| dirs.may_be(name.to_bytes()))
            && dirs.includes(&self.live.relative_path(None))
    }

    /// Finds the subdirectories of a directory that was kept, by the index; false if not all of
    /// them can be read from it.
    fn look_up_kept(
        &self,
        pending: &mut PendingChildren<DirectoryToClone>,
        parent: DirectoryToClone,
    ) -> bool {
        let Some((index, at)) = self.retired.as_ref().zip(parent.retired) else { return false };
        let mut newest = self.newest.as_ref().map(|newest| newest.children(parent.newest));
        let is_whole = index.for_each_child(at, |name, retired| {
            let newest = newest.as_mut().and_then(|newest| newest.find(name));
            pending.push(name, DirectoryToClone { is_new: false, newest, retired: Some(retired) });
        });
        pending.ready();
        is_whole
    }

    /// Sorts the subdirectories of `parent` as in the index, and finds each in both indexes.
    fn look_up(&self, pending: &mut PendingChildren<DirectoryToClone>, parent: DirectoryToClone) {
        pending.ready();
        let mut newest = self.newest.as_ref().map(|index| index.children(parent.newest));
        let mut retired = self.retired.as_ref().map(|index| index.children(parent.retired));
        pending.update(|name, directory| {
            directory.newest = newest.as_mut().and_then(|children| children.find(name));
            directory.retired = retired.as_mut().and_then(|children| children.find(name));
        });
    }

    /// Notes that the current staged directory has changed after it was filled, so that it differs
    /// from the live one. A directory that was kept has to get its attributes back, too.
    pub(crate) fn touch(&mut self) -> Result<()> {
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        frame.doubt();
        match &mut frame.unfinished {
            Some(unfinished) => unfinished.is_touched = true,
            None => match self.live.directory().and_then(fstat) {
                Ok(stat) => {
                    frame.unfinished =
                        Some(DirectoryToFinish { stat, is_touched: true, has_no_xattrs: false });
                }
                Err(cause) if is_gone(cause) => {}
                Err(cause) => return Err(self.live.error("inspect", None, cause)),
            },
        }
        Ok(())
    }

    fn finish_directory(&mut self) -> Result<()> {
        let Some(CloneFrame { mut record, unfinished, .. }) = self.frames.pop() else {
            return Ok(());
        };
        if let Some(unfinished) = unfinished {
            self.apply_attributes(&unfinished, &mut record)?;
        }
        let name = self.live.leave();
        self.staged.leave();
        self.part.push(self.current_depth(), &name, record);
        Ok(())
    }

    /// Gives the current staged directory its attributes, and completes its record.
    fn apply_attributes(
        &mut self,
        unfinished: &DirectoryToFinish,
        record: &mut IndexRecord,
    ) -> Result<()> {
        let DirectoryToFinish { stat, is_touched, has_no_xattrs } = unfinished;
        let staged = self.open_staged()?;
        let live = match has_no_xattrs {
            true => None,
            false => match self.live.directory() {
                // Moved away: what was read of it counts, except for its extended attributes.
                Err(cause) if is_gone(cause) => {
                    record.live = Stamp::NEVER;
                    Some(staged.clone())
                }
                live => Some(live.map_err(|cause| self.live.error("open", None, cause))?),
            },
        };
        let xattrs = live.as_ref().map_or(XattrSource::None, |live| XattrSource::Of(live.as_fd()));
        let original = AttributeSource { stat, xattrs };
        let is_due = match is_touched {
            true => Ok(true),
            false => {
                fstat(&staged).and_then(|own| attributes::differ(original, staged.as_fd(), &own))
            }
        };
        let applied = is_due.and_then(|is_due| match is_due {
            true => attributes::apply(original, staged.as_fd()),
            false => Ok(true),
        });
        if !applied.map_err(|cause| self.live.error("keep the attributes of", None, cause))? {
            self.cloned.attributes_lost += 1;
        }
        let own = fstat(&staged)
            .map_err(|cause| self.staged.error("inspect the staged copy of", None, cause))?;
        record.own = SnapshotStamp::of(&own);
        Ok(())
    }

    pub(crate) fn open_staged(&mut self) -> Result<DirectoryFd> {
        self.staged
            .directory()
            .map_err(|cause| self.staged.error("return to the staged copy of", None, cause))
    }

    pub(crate) fn skip_mount(&mut self, name: &CStr) {
        self.cloned.skipped_mounts.push(self.live.relative_path(Some(name)));
    }
}

impl CloneFrame {
    /// Lets the next run read the directory, since its snapshot may differ from the live one.
    fn doubt(&mut self) {
        self.record.live = Stamp::NEVER;
        if self.is_kept {
            self.record.own = SnapshotStamp::UNKNOWN;
        }
    }
}
