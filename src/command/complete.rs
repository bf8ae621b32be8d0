//! `complete`, which `--help` does not show: the names that a shell offers for the next word of a
//! command line, one a line. contrib/completion has the script that runs it.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use crate::config::settings::Settings;
use crate::module::context::Context;
use crate::module::known_modules::{Needs, RememberedModule};
use crate::module::named_module::named;
use crate::module::target::Target;
use crate::run::restore_source::snapshot_names;
use crate::store::retire;
use crate::tell::error::Result;
use crate::tell::exit::Exit;
use crate::tell::output::print_whole;

/// Prints the names of modules; with a module, those of its snapshots, or of its retired ones.
pub(crate) fn run(context: &Context, module: Option<&OsStr>, expired: bool) -> Result<Exit> {
    let settings = &context.settings;
    let names = match module {
        None => modules(settings)?,
        Some(module) => {
            let found = named(settings, module, Needs::Root)?;
            let targets = found.into_iter().filter_map(|(_, target)| target.ok());
            let names = targets.map(|target| snapshots(&target, expired));
            names.collect::<Result<Vec<_>>>()?.concat()
        }
    };
    // A terminal would obey control characters, and a name of two lines would be two names.
    let is_plain = |name: &&String| !name.is_empty() && !name.chars().any(char::is_control);
    print_whole(
        &names.iter().filter(is_plain).map(|name| format!("{name}\n")).collect::<String>(),
    )?;
    Ok(Exit::Done)
}

/// The modules of rsyncd.conf, and those that only this machine remembers.
fn modules(settings: &Settings) -> Result<Vec<String>> {
    let configured = settings.rsyncd()?.modules.iter().map(|module| module.name.clone());
    let remembered = RememberedModule::all(settings, &BTreeSet::new());
    let remembered = remembered.into_iter().filter_map(|one| one.name);
    let names: BTreeSet<Vec<u8>> = configured.chain(remembered).collect();
    Ok(names.into_iter().filter_map(|name| String::from_utf8(name).ok()).collect())
}

fn snapshots(target: &Target, expired: bool) -> Result<Vec<String>> {
    if expired {
        return retire::retired(&target.look_at_root()?);
    }
    let names = snapshot_names(&target.root_path, &target.policy.time_zone)?;
    Ok(names.into_iter().map(|name| name.text).collect())
}
