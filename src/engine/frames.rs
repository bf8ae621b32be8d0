//! The directories that a walk has entered and not yet left, and the memory of what they hold.
//!
//! Each frame holds the subdirectories of one directory that are still to be visited. Their memory
//! is charged to one budget when a frame is pushed and refunded when it is popped, so a walk needs
//! no more than that budget, whatever the shape of the tree.

use std::ffi::CString;

use crate::engine::children::{Budget, LEVEL_BYTES, PendingChildren};
use crate::engine::descent::Descent;

/// What a walk remembers of a directory that it has entered.
pub(crate) trait Frame {
    /// What is known of a pending subdirectory before the walk enters it.
    type Directory: Copy;

    fn pending(&self) -> &PendingChildren<Self::Directory>;

    fn pending_mut(&mut self) -> &mut PendingChildren<Self::Directory>;
}

impl<T: Copy> Frame for PendingChildren<T> {
    type Directory = T;

    fn pending(&self) -> &PendingChildren<T> {
        self
    }

    fn pending_mut(&mut self) -> &mut PendingChildren<T> {
        self
    }
}

/// What a walk does next in the lowest directory.
pub(crate) enum Step<T> {
    /// Visit this subdirectory.
    Enter(CString, T),
    /// Read the directory again, for the subdirectories that did not fit into memory.
    ReadAgain(PendingChildren<T>),
    /// All subdirectories have been visited.
    Leave,
}

pub(crate) struct FrameStack<F> {
    frames: Vec<F>,
    budget: Budget,
    /// How many levels below the start of the descent the first frame is.
    base: usize,
}

impl<F: Frame> FrameStack<F> {
    /// An empty stack, whose first frame will be `base` levels below the start of the descent.
    pub(crate) fn new(base: usize) -> Self {
        FrameStack { frames: Vec::new(), budget: Budget::default(), base }
    }

    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    pub(crate) fn last_mut(&mut self) -> Option<&mut F> {
        self.frames.last_mut()
    }

    pub(crate) fn push(&mut self, mut frame: F) {
        let above = self.frames.iter_mut().map(F::pending_mut);
        self.budget.charge(frame.pending_mut(), above);
        self.frames.push(frame);
    }

    pub(crate) fn pop(&mut self) -> Option<F> {
        let mut frame = self.frames.pop()?;
        self.budget.refund(frame.pending_mut());
        Some(frame)
    }

    /// The next step of the walk; `None` once all directories have been left.
    pub(crate) fn next_step(&mut self) -> Option<Step<F::Directory>> {
        let pending = self.frames.last_mut()?.pending_mut();
        let step = match pending.pop() {
            Some((name, directory)) => Step::Enter(name, directory),
            None => pending.next().map_or(Step::Leave, Step::ReadAgain),
        };
        Some(step)
    }

    /// Forgets all subdirectories that have not been visited.
    pub(crate) fn abandon(&mut self) {
        for frame in &mut self.frames {
            *frame.pending_mut() = PendingChildren::new(LEVEL_BYTES);
        }
    }

    /// At which depth of `descent` a subtree can be given to another worker: the uppermost that has
    /// a subdirectory to give, is near an open level, and is `fit`.
    pub(crate) fn depth_to_share(
        &self,
        descent: &Descent,
        fit: impl Fn(usize, &F) -> bool,
    ) -> Option<usize> {
        descent.near_levels(|depth| {
            let frame = depth.checked_sub(self.base).and_then(|index| self.frames.get(index));
            frame.is_some_and(|frame| !frame.pending().is_empty() && fit(depth, frame))
        })
    }

    /// The frames from the first to the one at `depth`, which
    /// [`depth_to_share`](Self::depth_to_share) has returned.
    pub(crate) fn down_to(&mut self, depth: usize) -> &mut [F] {
        &mut self.frames[..=depth - self.base]
    }
}
