//! The subdirectories of one directory that a walk has still to visit.
//!
//! Names lie in one arena: a million of them are two allocations.

use std::ffi::{CStr, CString};

/// Subdirectories with what is known of each.
#[derive(Default)]
pub struct Children<T> {
    names: Vec<u8>,
    list: Vec<(u32, T)>,
}

impl<T: Copy> Children<T> {
    /// None yet.
    pub fn new() -> Self {
        Children { names: Vec::new(), list: Vec::new() }
    }

    /// Adds one.
    pub fn push(&mut self, name: &CStr, what: T) {
        // More than 4 GiB of names in one directory is beyond every file system.
        let start = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.extend_from_slice(name.to_bytes_with_nul());
        self.list.push((start, what));
    }

    /// Takes the last one.
    pub fn pop(&mut self) -> Option<(CString, T)> {
        let (start, what) = self.list.pop()?;
        Some((name(&self.names, start).to_owned(), what))
    }

    /// Sorts so that names are taken in their order.
    pub fn sort(&mut self) {
        let names = &self.names;
        self.list.sort_unstable_by(|(a, _), (b, _)| name(names, *b).cmp(name(names, *a)));
    }

    /// Changes what is known of each.
    pub fn update(&mut self, change: impl Fn(&CStr, &mut T)) {
        for (start, what) in &mut self.list {
            change(name(&self.names, *start), what);
        }
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

fn name(names: &[u8], start: u32) -> &CStr {
    // Every name was stored with its NUL, so the default is never taken.
    CStr::from_bytes_until_nul(names.get(start as usize..).unwrap_or_default()).unwrap_or_default()
}
