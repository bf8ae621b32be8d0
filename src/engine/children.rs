//! The subdirectories of one directory that a walk has still to visit, in the order of their names.
//!
//! Names lie in one arena, whose size is limited: of a directory with a million subdirectories,
//! only the next ones in order are held. When these have been visited, or were dropped to free
//! memory, the walk reads the directory again for the names after the last one visited. So each
//! subdirectory is visited once, and memory is bounded whatever the shape of the tree.

use std::ffi::{CStr, CString};

/// Subdirectories with what is known of each before it is visited.
pub(crate) struct PendingChildren<T> {
    names: Vec<u8>,
    /// In descending order once [`ready`](Self::ready).
    list: Vec<(u32, T)>,
    limit_bytes: usize,
    /// Where the name that was taken last begins.
    taken: Option<u32>,
    /// The last name that was taken after an earlier reading; all names up to it are done.
    visited: Option<CString>,
    /// All names after this one were dropped.
    last: Option<CString>,
    /// Whether anything was dropped.
    is_partial: bool,
    /// What the [`Budget`] was charged for this list.
    charged_bytes: usize,
}

impl<T: Copy> PendingChildren<T> {
    /// An empty list, which will never take more than about `limit_bytes`.
    pub(crate) fn new(limit_bytes: usize) -> Self {
        PendingChildren {
            names: Vec::new(),
            list: Vec::new(),
            limit_bytes,
            taken: None,
            visited: None,
            last: None,
            is_partial: false,
            charged_bytes: 0,
        }
    }

    /// Adds a subdirectory, unless it has been visited or comes after the last that the limit
    /// admits.
    pub(crate) fn push(&mut self, name: &CStr, what: T) {
        if self.visited.as_deref().is_some_and(|visited| name <= visited) {
            return;
        }
        if self.last.as_deref().is_some_and(|last| name > last) {
            self.is_partial = true;
            return;
        }
        // A limit keeps it far below 4 GiB.
        let start = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let bytes = name.to_bytes_with_nul();
        if self.names.capacity() - self.names.len() < bytes.len()
            && self.names.len() > self.limit_bytes / 4
        {
            // Doubling might take more than the limit.
            self.names.reserve_exact(self.limit_bytes / 4 + bytes.len());
        }
        self.names.extend_from_slice(bytes);
        self.list.push((start, what));
        // Not each time, so that sorting costs little.
        if self.bytes() > 2 * self.limit_bytes {
            self.drop_last();
        }
    }

    /// Sorts the list. The caller calls this once all subdirectories are added.
    pub(crate) fn ready(&mut self) {
        let names = &self.names;
        self.list.sort_unstable_by(|(a, _), (b, _)| name_at(names, *b).cmp(name_at(names, *a)));
    }

    pub(crate) fn pop(&mut self) -> Option<(CString, T)> {
        let (start, what) = self.list.pop()?;
        self.taken = Some(start);
        Some((name_at(&self.names, start).to_owned(), what))
    }

    /// Drops the subdirectories that are left; the next reading of the directory lists them again.
    fn evict(&mut self) {
        self.is_partial |= !self.list.is_empty();
        self.visited = self.visited();
        self.taken = None;
        self.names = Vec::new();
        self.list = Vec::new();
    }

    fn visited(&self) -> Option<CString> {
        let taken = self.taken.map(|start| name_at(&self.names, start).to_owned());
        taken.or_else(|| self.visited.clone())
    }

    /// Takes back what was added since the list was made.
    pub(crate) fn restart(&mut self) {
        *self = PendingChildren {
            visited: self.visited.take(),
            ..PendingChildren::new(self.limit_bytes)
        };
    }

    /// For an empty list: a new list for the subdirectories that were dropped, if any were.
    pub(crate) fn next(&self) -> Option<Self> {
        self.is_partial.then(|| PendingChildren {
            visited: self.visited(),
            ..PendingChildren::new(self.limit_bytes)
        })
    }

    /// Changes what is known of each, in the order of the list.
    pub(crate) fn update(&mut self, mut change: impl FnMut(&CStr, &mut T)) {
        for (start, what) in &mut self.list {
            change(name_at(&self.names, *start), what);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.names.len() + self.list.len() * size_of::<(u32, T)>()
    }

    /// Drops the second half, by name.
    fn drop_last(&mut self) {
        self.ready();
        let dropped = self.list.len() / 2;
        self.list.drain(..dropped);
        self.is_partial = true;
        let mut names = Vec::with_capacity(self.names.len() / 2);
        for (start, _) in &mut self.list {
            let name = name_at(&self.names, *start).to_bytes_with_nul();
            *start = u32::try_from(names.len()).unwrap_or(u32::MAX);
            names.extend_from_slice(name);
        }
        self.names = names;
        self.last = self.list.first().map(|(start, _)| name_at(&self.names, *start).to_owned());
    }
}

fn name_at(names: &[u8], start: u32) -> &CStr {
    // Every name was stored with its NUL, so the default is never taken.
    CStr::from_bytes_until_nul(names.get(start as usize..).unwrap_or_default()).unwrap_or_default()
}

/// Memory for the pending subdirectories of a walk, over all its levels.
const PENDING_BYTES: usize = 4 << 20;

/// Memory for the pending subdirectories of one directory.
pub(crate) const LEVEL_BYTES: usize = PENDING_BYTES / 2;

/// How much memory the pending subdirectories of one walk take, over all its levels.
#[derive(Default)]
pub(crate) struct Budget {
    used_bytes: usize,
}

impl Budget {
    /// Charges for a new level. If that exceeds the budget, the lists of `levels` above it are
    /// dropped, the uppermost first: they are needed last.
    pub(crate) fn charge<'a, T: Copy + 'a>(
        &mut self,
        new: &mut PendingChildren<T>,
        levels: impl Iterator<Item = &'a mut PendingChildren<T>>,
    ) {
        new.charged_bytes = new.bytes();
        self.used_bytes += new.charged_bytes;
        if self.used_bytes <= PENDING_BYTES {
            return;
        }
        for level in levels {
            // More is freed than needed, so that this is rare.
            if self.used_bytes <= PENDING_BYTES / 2 {
                return;
            }
            level.evict();
            self.refund(level);
        }
    }

    pub(crate) fn refund<T>(&mut self, done: &mut PendingChildren<T>) {
        self.used_bytes -= std::mem::take(&mut done.charged_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<CString> {
        // In another order than by name.
        (0..count)
            .map(|number| CString::new(format!("{:05}", number * 7_919 % count)).expect("no NUL"))
            .collect()
    }

    /// Visits as a walk does, with at most `limit` bytes.
    fn visit(all: &[CString], limit: usize, evict_every: usize) -> Vec<CString> {
        let mut visited = Vec::new();
        let mut children = PendingChildren::new(limit);
        loop {
            all.iter().for_each(|name| children.push(name, ()));
            children.ready();
            assert!(children.bytes() <= 2 * limit.max(20), "{} bytes", children.bytes());
            while let Some((name, ())) = children.pop() {
                visited.push(name.clone());
                if visited.len().is_multiple_of(evict_every) {
                    children.evict();
                }
            }
            match children.next() {
                Some(next) => children = next,
                None => return visited,
            }
        }
    }

    #[test]
    fn each_is_visited_once_in_the_order_of_names_whatever_the_limit() {
        for count in [0, 1, 2, 100, 1_000] {
            let all = names(count);
            let mut sorted = all.clone();
            sorted.sort();
            for limit in [10, 100, 1_000, 1 << 20] {
                for evict_every in [1, 7, usize::MAX] {
                    assert_eq!(
                        visit(&all, limit, evict_every),
                        sorted,
                        "{count} {limit} {evict_every}"
                    );
                }
            }
        }
    }
}
