//! Finds the snapshots that a command names, and the modules that they belong to.
//!
//! All of the named snapshots are found before the first one is changed. So a wrong name changes
//! nothing.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::command::snapshot_choice::{means_snapshot, without_slashes};
use crate::decide::name::SnapshotName;
use crate::decide::snapshot_choice::{
    DayMeans, NoChoice, WordContext, choose_by_word, nearest_of_all, proposals,
};
use crate::decide::zone::Zone;
use crate::module::context::Context;
use crate::module::known_modules::Needs;
use crate::module::named_module::named;
use crate::module::target::Target;
use crate::run::restore_source::prefixed_names;
use crate::store::pinning::is_visible;
use crate::store::root::SnapshotRoot;
use crate::system::clock::Clock;
use crate::tell::error::{Error, Result};
use crate::tell::escape::escape;

/// The arguments of such a command: a module, then names of snapshots. The module may be left out
/// if no other module has a snapshot of that name.
pub(crate) type ModuleAndSnapshots<'a> = &'a [OsString];

/// What messages call a visible snapshot, and a retired one.
const VISIBLE: &str = "snapshot";
pub(crate) const RETIRED: &str = "retired snapshot";

/// The snapshots of one kind, such as those that are retired, oldest first.
pub(crate) type SnapshotsOf<'a> = &'a dyn Fn(&Target, &SnapshotRoot) -> Result<Vec<SnapshotName>>;

/// The named snapshots among those that `of` tells, each once, with their modules. `what` says in
/// messages what those are. A day has to have only one of them, because these commands change
/// snapshots.
///
/// # Errors
/// [`Error::Usage`] if no module has one of them, or several are meant.
pub(crate) fn find_all(
    context: &Context,
    named: ModuleAndSnapshots,
    what: &str,
    of: SnapshotsOf,
) -> Result<Vec<(Target, String)>> {
    find_each(context, named, (what, of), DayMeans::OnlyOne)
}

/// The named visible snapshots, each once, with their modules. A day means its newest complete one.
///
/// # Errors
/// [`Error::Usage`] if no module has one of them, or several are meant.
pub(crate) fn find_visible(
    context: &Context,
    named: ModuleAndSnapshots,
) -> Result<Vec<(Target, String)>> {
    find_each(context, named, (VISIBLE, &visible), DayMeans::Newest)
}

fn find_each(
    context: &Context,
    named: ModuleAndSnapshots,
    (what, of): (&str, SnapshotsOf),
    day: DayMeans,
) -> Result<Vec<(Target, String)>> {
    let (module, names) = split(named, |first| is_name(context, first));
    let search = SnapshotSearch { context, module, what, of, day };
    let mut found: Vec<(Target, String)> = Vec::new();
    for name in names {
        let (target, name) = search.find(name)?;
        let is_known =
            |(of, known): &(Target, String)| *known == name && of.root_path == target.root_path;
        if !found.iter().any(is_known) {
            found.push((target, name));
        }
    }
    Ok(found)
}

/// The visible snapshots of a module.
///
/// # Errors
/// If the root cannot be read.
pub(crate) fn visible(target: &Target, root: &SnapshotRoot) -> Result<Vec<SnapshotName>> {
    let names = prefixed_names(root.snapshots().path, "", &target.policy.time_zone)?;
    let look = |name: SnapshotName| Ok(is_visible(root, &name.text)?.then_some(name));
    names.into_iter().filter_map(|name| look(name).transpose()).collect()
}

/// Snapshots by names, oldest first. What is no name of a snapshot is left out.
pub(crate) fn by_names<'a>(
    names: impl IntoIterator<Item = &'a String>,
    zone: &Zone,
) -> Vec<SnapshotName> {
    let parsed = names.into_iter().filter_map(|name| SnapshotName::parse(name.as_bytes(), zone));
    let mut parsed: Vec<SnapshotName> = parsed.collect();
    parsed.sort_by(|a, b| (a.time, &a.text).cmp(&(b.time, &b.text)));
    parsed
}

fn is_name(context: &Context, first: &OsStr) -> bool {
    means_snapshot(context, without_slashes(first)) || root_and_name(first).is_some()
}

/// The root and the name of a snapshot that is named by its path.
fn root_and_name(path: &OsStr) -> Option<(&Path, &OsStr)> {
    let path = Some(Path::new(path)).filter(|path| path.is_absolute())?;
    let (root, name) = (path.parent()?, path.file_name()?);
    SnapshotName::parse(name.as_bytes(), &Zone::utc())?;
    SnapshotRoot::registration(root).ok().flatten().map(|_| (root, name))
}

/// The module, if one is named, and the names of snapshots. The first of several arguments is a
/// module unless `is_name` takes it for the name of a snapshot. A module with such a name is given
/// by its path.
fn split(
    named: ModuleAndSnapshots<'_>,
    is_name: impl Fn(&OsStr) -> bool,
) -> (Option<&OsStr>, &[OsString]) {
    match named {
        [first, rest @ ..] if !rest.is_empty() && !is_name(first) => (Some(first), rest),
        names => (None, names),
    }
}

struct SnapshotSearch<'a> {
    context: &'a Context,
    module: Option<&'a OsStr>,
    what: &'a str,
    of: SnapshotsOf<'a>,
    day: DayMeans,
}

impl SnapshotSearch<'_> {
    /// The module that has the snapshot that `word` means, and the whole name of that. Without a
    /// module, exactly one module has to have it.
    fn find(&self, word: &OsStr) -> Result<(Target, String)> {
        let word = without_slashes(word);
        if word.is_empty() {
            return Err(Error::Usage(
                "a name is empty: name a snapshot; `list` shows them".to_string(),
            ));
        }
        let shown = escape(word.as_bytes());
        let (module, word) = match root_and_name(word) {
            Some((root, name)) => (Some(root.as_os_str()), name),
            None => (self.module, word),
        };
        let mut owners = Vec::new();
        let mut refusals = Vec::new();
        for (label, target) in self.context.targets(module, false, Needs::Root)? {
            let found = target.and_then(|target| Ok((self.chosen(&target, word)?, target)));
            match found {
                Ok((Ok(name), target)) => owners.push((target, name)),
                Ok((Err(why), _)) => refusals.push(why),
                Err(error) if module.is_some() => return Err(error),
                Err(error) => log::warn!("{label}: {error}"),
            }
        }
        let labels: Vec<String> = owners.iter().map(|(target, _)| target.label()).collect();
        match owners.pop() {
            None => Err(self.nowhere(module, word, &shown, refusals)),
            Some(found) if owners.is_empty() => Ok(found),
            Some(_) => Err(Error::Usage(format!(
                "several modules have {shown}: name one of {}",
                labels.join(", ")
            ))),
        }
    }

    /// The whole name of the snapshot of one module that `word` means.
    fn chosen(
        &self,
        target: &Target,
        word: &OsStr,
    ) -> Result<std::result::Result<String, NoChoice>> {
        let names = (self.of)(target, &target.look_at_root()?)?;
        let zone = &target.policy.time_zone;
        let context = WordContext { zone, now: Clock::System.now(), day: self.day };
        let Some(word) = word.to_str() else { return Ok(Err(NoChoice::NoneOf(Vec::new()))) };
        Ok(choose_by_word(word, &names, context).map(|name| name.text.clone()))
    }

    fn nowhere(
        &self,
        module: Option<&OsStr>,
        word: &OsStr,
        shown: &str,
        refusals: Vec<NoChoice>,
    ) -> Error {
        let what = self.what;
        let several = refusals.iter().find(|why| matches!(why, NoChoice::Several(_)));
        let problem = match (several, module) {
            (Some(several), _) => {
                return Error::Usage(format!("{}: name one of them", several.problem(shown)));
            }
            (None, Some(module)) => {
                format!("{} has no {what} {shown}", escape(module.as_bytes()))
            }
            (None, None) if self.is_module(word) => {
                format!("{shown} is a module: name one of its snapshots, too")
            }
            (None, None) => format!("no module has a {what} {shown}"),
        };
        let is_visible = self.what != VISIBLE
            && SnapshotSearch { module, what: VISIBLE, of: &visible, ..*self }.find(word).is_ok();
        let visible = match (is_visible, what == RETIRED) {
            (false, _) => String::new(),
            (true, true) => format!(": {shown} is visible and was not deleted"),
            (true, false) => format!(": {shown} is visible and has no pin"),
        };
        let near = proposals(shown, &nearest_of_all(shown, &refusals));
        Error::Usage(format!(
            "{problem}{visible}{near}; `list` shows snapshots and pins, `list --expired` what is \
             retired"
        ))
    }

    /// Whether the word names a module in place of a snapshot.
    fn is_module(&self, word: &OsStr) -> bool {
        let found = named(&self.context.settings, word, Needs::Root);
        let is_registered = |target: &Result<Target>| match target {
            Ok(target) => target.is_surely_registered(),
            Err(_) => false,
        };
        let is_configured =
            || self.context.settings.rsyncd().is_ok_and(|it| it.module(word.as_bytes()).is_some());
        found.is_ok_and(|found| found.iter().any(|(_, target)| is_registered(target)))
            || is_configured()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::snapshot_choice::is_snapshot_word;

    #[test]
    fn the_first_argument_is_a_module_unless_it_looks_like_a_snapshot() {
        let arguments = |text: &str| text.split(',').map(OsString::from).collect::<Vec<_>>();
        let (first, second) = ("2026-11-22T19-08-31Z", "2019-08-02 12:00:00");
        for (named, module, count) in [
            (first.to_string(), None, 1),
            ("laptop".to_string(), None, 1),
            (format!("laptop,{first}"), Some("laptop"), 1),
            (format!("laptop,{first},{second}"), Some("laptop"), 2),
            (format!("{first},{second}"), None, 2),
            (format!("/srv/2026-11-22T19-08-31Z,{second}"), Some("/srv/2026-11-22T19-08-31Z"), 1),
        ] {
            let named = arguments(&named);
            let is_name = |first: &OsStr| is_snapshot_word(first.as_bytes());
            let (found, names) = split(&named, is_name);
            assert_eq!((found, names.len()), (module.map(OsStr::new), count), "{named:?}");
        }
    }
}
