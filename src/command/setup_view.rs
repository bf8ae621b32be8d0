//! What `setup` prints: the steps, what to do next, and JSON.

use std::os::unix::ffi::OsStrExt;

use serde::Serialize;

use crate::command::check_view::CheckView;
use crate::command::setup_options::SetupOptions;
use crate::command::setup_plan::{SetupPlan, daemon_units};
use crate::decide::module_section::{restore_name, text_of};
use crate::run::setup::{SetupChange, SetupStep};
use crate::tell::escape::{escape, escape_path};

/// The result of the command.
#[derive(Serialize)]
pub(crate) struct SetupView {
    module: String,
    /// Whether the changes were made, and not only shown.
    is_written: bool,
    changes: Vec<StepView>,
    /// The secret, if it was made just now.
    secret: Option<String>,
    sections: String,
    /// What `check` finds then; none if nothing was written.
    check: Option<CheckView>,
}

/// One step.
#[derive(Serialize)]
struct StepView {
    path: String,
    what: String,
    changed: bool,
}

impl SetupView {
    pub(crate) fn new(
        options: &SetupOptions,
        plan: &SetupPlan,
        secret: Option<&str>,
        check: Option<CheckView>,
    ) -> Self {
        let step = |step: &SetupStep| StepView {
            path: escape_path(&step.path),
            what: step.what.clone(),
            changed: step.changes(),
        };
        SetupView {
            module: escape(options.module.as_bytes()),
            is_written: options.writes(),
            changes: plan.steps.iter().map(step).collect(),
            secret: secret.map(str::to_string),
            sections: String::from_utf8_lossy(&text_of(&plan.sections)).into_owned(),
            check,
        }
    }
}

/// The sections to be pasted, with all else as comments.
pub(crate) fn to_paste(plan: &SetupPlan) -> Vec<u8> {
    let mut text = text_of(&plan.sections);
    let steps: String =
        plan.steps.iter().map(|step| format!("#   {}\n", line(step, true))).collect();
    let head = "\n# Nothing was written. `setup` with --write does this:\n";
    text.extend([head.as_bytes(), steps.as_bytes()].concat());
    text
}

/// A line for each step. `is_planned`: it is not done yet.
pub(crate) fn steps(steps: &[SetupStep], is_planned: bool) -> String {
    steps.iter().map(|step| format!("{}\n", line(step, is_planned))).collect()
}

fn line(step: &SetupStep, is_planned: bool) -> String {
    let SetupStep { path, what, .. } = step;
    let verb = match (&step.change, is_planned) {
        (SetupChange::None, _) => "unchanged",
        (SetupChange::MakeDirectory { .. }, true) => "make",
        (SetupChange::MakeDirectory { .. }, false) => "made",
        (SetupChange::Write { .. }, true) => "write",
        (SetupChange::Write { .. }, false) => "wrote",
    };
    format!("{verb} {}: {what}", escape_path(path))
}

/// What the administrator does next: the commands for this server and for the client. `secret`: the
/// one that was made just now.
pub(crate) fn next(options: &SetupOptions, plan: &SetupPlan, secret: Option<&str>) -> String {
    let module = escape(options.module.as_bytes());
    let server = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let user = options.user.as_ref().map(|user| format!("{}@", escape(user.as_bytes())));
    let place = format!("rsync://{}{server}{}", user.unwrap_or_default(), plan.port);
    let password = secret.map_or(String::new(), |secret| format!("RSYNC_PASSWORD={secret} "));
    let mut text = String::new();
    if options.systemd {
        text += "\nFor the daemon to use the drop-ins, run on this server:\n    systemctl \
                 daemon-reload\n";
        // A daemon that has one connection, of a template, comes with the next one.
        let units = daemon_units(&options.unit_directory).into_iter();
        for unit in units.filter(|unit| !unit.contains('@')) {
            text += &format!("    systemctl restart {}\n", unit.trim_end_matches(".service"));
        }
    }
    text += "\nOn the client, push with a command such as this one";
    text += match (secret, &options.user) {
        (Some(_), _) => " (the secret is shown only now):\n",
        (None, Some(_)) => " (rsync asks for the secret that the user has already):\n",
        (None, None) => ":\n",
    };
    text += &format!("    {password}rsync -a --delete /etc {place}/{module}/\n");
    if options.restore {
        let restore = escape(&restore_name(options.module.as_bytes()));
        text += &format!(
            "and list the snapshots, which the client can copy from:\n    {password}rsync \
             {place}/{restore}/\n"
        );
    }
    text
}
