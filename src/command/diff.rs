//! `diff`: what changed between two snapshots of a module, or between a snapshot and the module.
//!
//! Nothing is written, not even a lease: so it works for an ordinary user and on a disk that is
//! full or read-only. A snapshot that is retired meanwhile stays as it is for a time; if one is no
//! longer in its place in the end, the command fails and says so.

use std::ffi::{OsStr, OsString};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::command::diff_options::DiffOptions;
use crate::command::diff_view::{DiffFormat, DiffPrinter};
use crate::command::snapshot_choice::{ChosenSnapshot, choose, choose_beside, means_snapshot};
use crate::decide::grade::Grade;
use crate::decide::path_patterns::{PathPatterns, is_plain};
use crate::decide::restore_paths::read_path;
use crate::decide::snapshot_choice::{LIVE, NEWEST};
use crate::engine::descent::DescentStart;
use crate::engine::diff::indexes::{DiffIndexes, NewIndex};
use crate::engine::diff::report_differences;
use crate::engine::index::reader::DirectoryIndex;
use crate::module::context::Context;
use crate::module::known_modules::ensure_answers;
use crate::module::target::Target;
use crate::run::lost_directory::lost_directory_error;
use crate::run::restore_source::SnapshotSource;
use crate::store::dir::OwnedDir;
use crate::store::index_file;
use crate::system::mounts::note_mounts_below;
use crate::system::syscalls::{is_gone, stat_below};
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path};
use crate::tell::exit::Exit;

/// Prints how B differs from A.
///
/// # Errors
/// If one of them cannot be compared at all.
pub(crate) fn run(context: &Context, options: &DiffOptions, json: bool) -> Result<Exit> {
    let named = &options.named;
    if let [module, word, ..] = named.as_slice()
        && word == LIVE
        && !means_snapshot(context, module)
    {
        return Err(Error::Usage(format!(
            "`{LIVE}` is the state now, so it comes last: `diff {} {NEWEST} {LIVE}`",
            escape(module.as_bytes())
        )));
    }
    let (chosen, rest) = choose(context, named, None)?;
    let (inside, rest) = path_inside(named, &rest);
    let other = match rest {
        [] => LIVE.as_ref(),
        [word] => *word,
        [_, extra, ..] => {
            return Err(Error::Usage(format!(
                "{} is one name too many: two snapshots are compared; paths come after `--`",
                escape(extra.as_bytes())
            )));
        }
    };
    if let Some(target) = &chosen.target {
        context.set_level(target);
    }
    let old = SnapshotSource::open(&chosen.root_path, &chosen.name.text)?;
    let new = NewTree::open(context, &chosen, other)?;
    let paths = paths_of(&chosen, inside, &options.paths)?;
    for names in paths.iter().filter(|names| is_plain(names)) {
        ensure_exists(&old, &new, names)?;
    }
    tell_of_partial(&chosen, &new);

    let format = match (json, options.stat) {
        (json, true) => DiffFormat::Counts { json },
        (true, false) => DiffFormat::Json,
        (false, false) => DiffFormat::Lines,
    };
    let mut printer = DiffPrinter::new(format);
    let indexes = Indexes::open(&chosen, &new);
    let done = report_differences(
        old.start()?,
        new.start()?,
        indexes.as_ref().map(Indexes::of_diff),
        old.twins(),
        &PathPatterns::new(&paths),
        &mut printer,
    );
    done.map_err(|cause| Error::io("open", &old.path(), cause))?;
    let summary = printer.finish()?;
    for source in std::iter::once(&old).chain(new.snapshot()) {
        if !source.is_still_there() {
            return Err(Error::SnapshotChanged { path: escape_path(&source.path()) });
        }
    }
    log::info!("{summary} from {} to {}", old.name, new.name());
    Ok(Exit::Done)
}

/// The tree that is compared with a snapshot.
enum NewTree {
    Snapshot(SnapshotSource, Grade),
    Live(OwnedDir),
}

impl NewTree {
    fn open(context: &Context, chosen: &ChosenSnapshot, word: &OsStr) -> Result<Self> {
        match &chosen.target {
            Some(target) if is_live(target, word) => NewTree::open_live(target),
            None if word == LIVE => Err(Error::Usage(format!(
                "the module of {} is not known here, so it cannot be compared: name the module, or \
                 a second snapshot",
                escape_path(&chosen.root_path)
            ))),
            _ => {
                let other = choose_beside(context, chosen, word)?;
                let source = SnapshotSource::open(&other.root_path, &other.name.text)?;
                Ok(NewTree::Snapshot(source, other.name.grade))
            }
        }
    }

    fn open_live(target: &Target) -> Result<Self> {
        ensure_answers(target)?;
        lost_directory_error(target).map_or(Ok(()), Err)?;
        note_mounts_below(&[&target.module_path]);
        OwnedDir::open(&target.module_path).map(NewTree::Live)
    }

    fn directory(&self) -> BorrowedFd<'_> {
        match self {
            NewTree::Snapshot(source, _) => source.directory(),
            NewTree::Live(directory) => directory.dir().directory,
        }
    }

    fn start(&self) -> Result<DescentStart> {
        match self {
            NewTree::Snapshot(source, _) => source.start(),
            NewTree::Live(directory) => {
                let dir = directory.dir();
                let start = DescentStart::root(dir.directory, dir.path);
                start.map_err(|cause| Error::io("open", dir.path, cause))
            }
        }
    }

    fn snapshot(&self) -> Option<&SnapshotSource> {
        match self {
            NewTree::Snapshot(source, _) => Some(source),
            NewTree::Live(_) => None,
        }
    }

    fn name(&self) -> &str {
        self.snapshot().map_or(LIVE, |source| &source.name)
    }
}

/// The indexes of the two trees, which an ordinary user may not read.
struct Indexes {
    old: DirectoryIndex,
    /// `None` for the module itself.
    new: Option<DirectoryIndex>,
}

impl Indexes {
    fn open(chosen: &ChosenSnapshot, new: &NewTree) -> Option<Self> {
        let target = chosen.target.as_ref()?;
        let root = target.look_at_root().ok().filter(|root| root.path == chosen.root_path)?;
        let old = index_file::open(&root, &chosen.name.text)?;
        let new = match new.snapshot() {
            Some(source) => Some(index_file::open(&root, &source.name)?),
            None => None,
        };
        Some(Indexes { old, new })
    }

    fn of_diff(&self) -> DiffIndexes<'_> {
        let new = self.new.as_ref().map_or(NewIndex::Live, NewIndex::Of);
        DiffIndexes { old: &self.old, new }
    }
}

/// Whether a word means the module's directory.
fn is_live(target: &Target, word: &OsStr) -> bool {
    let is_directory = |path: &Path| {
        path.is_absolute()
            && std::fs::canonicalize(path).is_ok_and(|path| path == target.module_path)
    };
    word == LIVE || is_directory(Path::new(word))
}

/// If snapshot A was named by a path inside it, that path is what is compared.
fn path_inside<'a, 'r>(
    named: &'a [OsString],
    rest: &'r [&'a OsStr],
) -> (Option<&'a OsStr>, &'r [&'a OsStr]) {
    match (named, rest) {
        ([first, ..], [inside, rest @ ..]) if std::ptr::eq(first.as_os_str(), *inside) => {
            (Some(inside), rest)
        }
        _ => (None, rest),
    }
}

/// The names of each path that is compared, from the tree's root on.
fn paths_of(
    chosen: &ChosenSnapshot,
    inside: Option<&OsStr>,
    given: &[OsString],
) -> Result<Vec<Vec<Vec<u8>>>> {
    let place = chosen.place();
    let given = inside.into_iter().chain(given.iter().map(OsString::as_os_str));
    let paths = given.map(|path| read_path(path.as_bytes(), place).map(|path| path.names));
    paths.collect::<std::result::Result<_, _>>().map_err(Error::Usage)
}

/// A mistyped path would look like one without differences.
fn ensure_exists(old: &SnapshotSource, new: &NewTree, names: &[Vec<u8>]) -> Result<()> {
    let path = names.join(&b'/');
    let is_missing = |directory| stat_below(directory, &path).is_err_and(is_gone);
    if names.is_empty() || !is_missing(old.directory()) || !is_missing(new.directory()) {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "neither {} nor {} has {}: name a path from the module's directory on",
        old.name,
        new.name(),
        escape(&path)
    )))
}

fn tell_of_partial(old: &ChosenSnapshot, new: &NewTree) {
    let new = match new {
        NewTree::Snapshot(source, grade) => Some((&source.name, *grade)),
        NewTree::Live(_) => None,
    };
    for (name, grade) in std::iter::once((&old.name.text, old.name.grade)).chain(new) {
        if grade == Grade::Partial {
            log::info!("{name} is partial: it may be a mixture of two states");
        }
    }
}
