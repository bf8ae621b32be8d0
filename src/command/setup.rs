//! `setup`: makes a module that clients can push to, with its directories, its secret and its
//! sections in rsyncd.conf.
//!
//! Everything is decided before anything is written ([`setup_plan`]), and
//! [`run::setup`](crate::run::setup) says why the order of the writing is safe. The end is that of
//! `check`, for the same module, with the configuration read anew.

use std::cell::RefCell;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::command::check;
use crate::command::doctor::prober::Prober;
use crate::command::finding::Severity;
use crate::command::print_json;
use crate::command::setup_options::SetupOptions;
use crate::command::setup_plan::{self, SetupPlan};
use crate::command::setup_view::{self, SetupView};
use crate::decide::setup_edits::{self, SECRET_BYTES};
use crate::module::confine;
use crate::module::context::Context;
use crate::run::setup::carry_out;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path};
use crate::tell::exit::Exit;
use crate::tell::output::{print, print_whole};

/// Sets the module up, or shows how. `prober`: started before this process gave up its rights.
///
/// # Errors
/// If something speaks against it, before anything is written; or if a step fails.
pub(crate) fn run(
    context: &Context,
    options: &SetupOptions,
    json: bool,
    prober: Option<Prober>,
) -> Result<Exit> {
    let prober = RefCell::new(prober);
    let _lock = options.writes().then(|| lock(&context.settings.rsyncd_conf)).transpose()?;
    let secret = random_secret()?;
    let plan = setup_plan::plan(context, options, &secret, &prober)?;
    if options.user.is_none() && options.hosts.is_empty() {
        log::warn!(
            "{}: without --user and --hosts, every machine that reaches this server may push to \
             the module",
            escape(options.module.as_encoded_bytes())
        );
    }
    if !options.writes() {
        return show(options, &plan, json);
    }
    confine_to(&plan)?;
    let (done, outcome) = carry_out(&plan.steps);
    let secret = plan.secret_step.filter(|step| *step < done).map(|_| secret.as_str());
    if !json && !context.is_quiet() {
        print(&setup_view::steps(&plan.steps[..done], false))?;
    }
    // A secret that was written is shown even if a later step failed.
    if !json && (outcome.is_ok() && !context.is_quiet() || secret.is_some()) {
        print_whole(&setup_view::next(options, &plan, secret))?;
    }
    outcome?;
    let context = &context.reading_again();
    let found = check::find(context, Some(options.module.as_os_str()), &prober);
    let exit = match found.status {
        Severity::Ok => Exit::Done,
        Severity::Warning | Severity::Unknown => Exit::Warnings,
        Severity::Critical => Exit::Failed,
    };
    if json {
        print_json(true, &[SetupView::new(options, &plan, secret, Some(found))])?;
        return Ok(exit);
    }
    if !context.is_quiet() {
        print(if plan.changes() { "\n" } else { "\nNothing had to be changed.\n\n" })?;
    }
    check::print_text(context, found)?;
    Ok(exit)
}

fn show(options: &SetupOptions, plan: &SetupPlan, json: bool) -> Result<Exit> {
    if json {
        print_json(true, &[SetupView::new(options, plan, None, None)])?;
    } else if options.write {
        print(&setup_view::steps(&plan.steps, true))?;
    } else {
        print_whole(&String::from_utf8_lossy(&setup_view::to_paste(plan)))?;
    }
    Ok(Exit::Done)
}

/// Keeps another `setup` from reading files that this one is about to write.
fn lock(rsyncd_conf: &Path) -> Result<File> {
    let conf = std::path::absolute(rsyncd_conf).unwrap_or_else(|_| rsyncd_conf.to_path_buf());
    let directory = conf.parent().unwrap_or(Path::new("/"));
    let opened = File::open(directory);
    let opened = opened.map_err(|cause| Error::io("open the directory", directory, cause))?;
    fs2::FileExt::lock_exclusive(&opened)
        .map_err(|cause| Error::io("lock the directory", directory, cause))?;
    Ok(opened)
}

fn random_secret() -> Result<String> {
    let mut random = [0; SECRET_BYTES];
    // The kernel gives so few bytes as a whole.
    getrandom(&mut random, GetRandomFlags::empty())
        .map_err(|cause| Error::io("get random bytes from", Path::new("the kernel"), cause))?;
    Ok(setup_edits::secret(&random))
}

/// Confines this process to the directories that the plan changes.
fn confine_to(plan: &SetupPlan) -> Result<()> {
    let directories = plan.directories();
    let open =
        |path| File::open(path).map_err(|cause| Error::io("open the directory", path, cause));
    let opened = directories.iter().map(|path| open(path)).collect::<Result<Vec<File>>>()?;
    let opened: Vec<_> = opened.iter().map(AsFd::as_fd).collect();
    confine::to_configuration(&opened);
    log::debug!(
        "writes below {}",
        directories.iter().map(|path| escape_path(path)).collect::<Vec<_>>().join(", ")
    );
    Ok(())
}
