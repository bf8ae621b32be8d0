//! The paths that a shell pattern stands for in the trees of a module.
//!
//! A name without wildcards is looked up, and a directory is read only if several of its names may
//! match. `**` reads every directory below, by a walk that suits a tree of any depth.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::FileStat;

use crate::decide::glob_pattern::NamePattern;
use crate::decide::path_patterns::{PathNames, PathPatterns, PatternPlaces, path_text};
use crate::engine::descent::{Descent, DescentStart};
use crate::engine::listing::Listing;
use crate::engine::path_lookup::{Descended, EntryPlace, descend};
use crate::engine::walk::{Subtree, VisitedFile, Visitor, is_no_part_of_tree, walk_from_here};
use crate::system::identity::SysResult;
use crate::system::syscalls::{open_directory, open_for_lookups};
use crate::tell::error::{Error, Result};
use crate::tell::progress::LongWork;

/// A pattern stands for at most so many paths.
const MAX_MATCHES: usize = 1_000;

/// The paths have at most so many bytes together. A client may nest directories very deeply.
const MAX_BYTES: usize = 4 << 20;

/// A path has at most so many names with wildcards: each of them keeps a directory open.
const MAX_PATTERNS: usize = 16;

/// The paths found so far.
pub(crate) struct PathMatches<'a> {
    names: &'a [Vec<u8>],
    patterns: PathPatterns,
    found: BTreeSet<PathNames>,
    found_bytes: usize,
    /// What kept it from looking into a directory.
    failed: Option<Errno>,
    work: LongWork,
}

impl<'a> PathMatches<'a> {
    /// Of the pattern `names`, no path yet.
    ///
    /// # Errors
    /// [`Error::Usage`] if it has too many wildcards.
    pub(crate) fn new(names: &'a [Vec<u8>]) -> Result<Self> {
        let wildcards = names.iter().filter(|name| NamePattern::of(name).is_some());
        if wildcards.count() > MAX_PATTERNS {
            return Err(Error::Usage(format!(
                "{} has more than {MAX_PATTERNS} names with wildcards: name fewer paths",
                path_text(names)
            )));
        }
        Ok(PathMatches {
            names,
            patterns: PathPatterns::new(&[names.to_vec()]),
            found: BTreeSet::new(),
            found_bytes: 0,
            failed: None,
            work: LongWork::begin("looking for matching names"),
        })
    }

    /// Adds the paths in the tree `top`, whose path is for messages.
    ///
    /// # Errors
    /// The first directory that could not be looked into; the others were.
    pub(crate) fn add_from(&mut self, top: BorrowedFd, top_path: &Path) -> SysResult<()> {
        let expanded = self.expand((top, top_path), self.patterns.begin(), &mut Vec::new());
        expanded.err().or(self.failed.take()).map_or(Ok(()), Err)
    }

    /// # Errors
    /// [`Error::Usage`] if there are too many paths.
    pub(crate) fn ensure_few(&self) -> Result<()> {
        let shown = || path_text(self.names);
        match (self.found.len() > MAX_MATCHES, self.is_full()) {
            (true, _) => Err(Error::Usage(format!(
                "{} stands for more than {MAX_MATCHES} paths: name fewer",
                shown()
            ))),
            (false, true) => Err(Error::Usage(format!(
                "{} stands for paths of more than {} MiB together: name fewer",
                shown(),
                MAX_BYTES >> 20
            ))),
            (false, false) => Ok(()),
        }
    }

    /// All paths, sorted.
    pub(crate) fn into_paths(self) -> Vec<PathNames> {
        self.found.into_iter().collect()
    }

    fn is_full(&self) -> bool {
        self.found.len() > MAX_MATCHES || self.found_bytes > MAX_BYTES
    }

    fn note(&mut self, path: PathNames) {
        let bytes: usize = path.iter().map(Vec::len).sum();
        if self.found.insert(path) {
            self.found_bytes += bytes;
        }
    }

    fn note_failure(&mut self, cause: Errno) {
        // What is in the other directories counts all the same. No snapshot has what is mounted in
        // a module.
        if !is_no_part_of_tree(cause) {
            self.failed.get_or_insert(cause);
        }
    }

    /// Adds the paths below a directory, which `at` leads to and in which `places` apply. It calls
    /// itself once for each name with wildcards.
    fn expand(
        &mut self,
        (directory, top_path): (BorrowedFd, &Path),
        mut places: PatternPlaces,
        at: &mut PathNames,
    ) -> SysResult<()> {
        let mut literal = PathNames::new();
        while let Some(name) = self.patterns.only_name(&places) {
            literal.push(name.to_vec());
            places = self.patterns.next(&places, name);
        }
        // `a/**` stands for `a`, too, whatever kind of entry that is.
        if places.is_match && EntryPlace::find(directory, &literal)?.inspect().is_ok() {
            self.note(at.iter().chain(&literal).cloned().collect());
        }
        if places.is_end() {
            return Ok(());
        }
        let Descended { directory, stopped, .. } = descend(directory, &literal)?;
        if let Some(cause) = stopped {
            return Err(cause);
        }
        let depth = at.len();
        at.append(&mut literal);
        let opened = (directory.as_fd(), top_path);
        let done = match self.patterns.is_at_any_depth(&places) {
            true => self.walk(opened, places, at),
            false => self.read(opened, &places, at),
        };
        at.truncate(depth);
        done
    }

    /// Adds what matches in one directory, and below those of its directories that lead on.
    fn read(
        &mut self,
        (directory, top_path): (BorrowedFd, &Path),
        places: &PatternPlaces,
        at: &mut PathNames,
    ) -> SysResult<()> {
        let readable = open_directory(directory, c".")?;
        let listing = Listing::read(readable.as_fd())?;
        self.work.add(listing.entries().len() as u64);
        for entry in listing.entries() {
            let name = listing.name(entry);
            let inside = self.patterns.next(places, name.to_bytes());
            let leads_on = entry.is_directory && !inside.is_end();
            if self.is_full() || !(inside.is_match || leads_on) {
                continue;
            }
            at.push(name.to_bytes().to_vec());
            if inside.is_match {
                self.note(at.clone());
            }
            if leads_on {
                let below = open_for_lookups(directory, name)
                    .and_then(|below| self.expand((below.as_fd(), top_path), inside, at));
                below.unwrap_or_else(|cause| self.note_failure(cause));
            }
            at.pop();
        }
        Ok(())
    }

    /// Adds what matches in a directory and in all directories below it.
    fn walk(
        &mut self,
        (directory, top_path): (BorrowedFd, &Path),
        places: PatternPlaces,
        at: &PathNames,
    ) -> SysResult<()> {
        let mut descent = Descent::new(DescentStart::root(directory, top_path)?)?;
        let mut visitor = MatchVisitor { matches: self, at, places: vec![places] };
        // What was found tells whether the walk has ended early.
        let _ = walk_from_here(&mut descent, &mut visitor);
        Ok(())
    }
}

/// Matches the entries that a walk meets.
struct MatchVisitor<'m, 'a> {
    matches: &'m mut PathMatches<'a>,
    /// The path of the directory that the walk starts in.
    at: &'m PathNames,
    /// Of the directories that the walk is in.
    places: Vec<PatternPlaces>,
}

impl MatchVisitor<'_, '_> {
    /// Notes the entry `name` of the lowest directory if it matches; `path` leads to it from the
    /// start of the walk.
    fn look_at(&mut self, name: &CStr, path: impl FnOnce() -> Vec<u8>) -> PatternPlaces {
        self.matches.work.add(1);
        let Some(above) = self.places.last() else { return PatternPlaces::default() };
        let inside = self.matches.patterns.next(above, name.to_bytes());
        if inside.is_match {
            let path = path();
            let names = path.split(|byte| *byte == b'/').map(<[u8]>::to_vec);
            self.matches.note(self.at.iter().cloned().chain(names).collect());
        }
        inside
    }
}

impl Visitor for MatchVisitor<'_, '_> {
    fn go_on(&mut self) -> ControlFlow<()> {
        match self.matches.is_full() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn entered(&mut self, descent: &mut Descent, name: &CStr, _: &FileStat) -> Subtree {
        let inside = self.look_at(name, || descent.relative_path(None));
        self.places.push(inside);
        Subtree::Visit
    }

    fn leaves(&mut self, _: &mut Descent) -> ControlFlow<()> {
        self.places.pop();
        ControlFlow::Continue(())
    }

    fn is_left_out(&self, _: Errno) -> bool {
        false
    }

    fn file(&mut self, file: &VisitedFile) -> ControlFlow<()> {
        self.look_at(file.name, || file.descent.relative_path(Some(file.name)));
        self.go_on()
    }

    fn failed(&mut self, descent: &Descent, name: Option<&CStr>, cause: Errno) -> ControlFlow<()> {
        // A directory that cannot be entered is there all the same.
        if let Some(name) = name {
            self.look_at(name, || descent.relative_path(Some(name)));
        }
        self.matches.note_failure(cause);
        ControlFlow::Continue(())
    }
}
