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
        let name = CStr::from_bytes_until_nul(&self.names[start as usize..]).unwrap_or_default().to_owned();
        self.names.truncate(start as usize);
        Some((name, what))
    }

    /// How many are left.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}
