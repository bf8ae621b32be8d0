//! Has a history checked by the user whose it is: another user, root included, cannot read it
//! safely, or at all.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::absolute;

use nix::unistd::User;
use serde::Deserialize;

use crate::command::doctor::prober::RunByUser;
use crate::command::doctor::{Doctor, accounts, daemon_user};
use crate::command::finding::Finding;
use crate::command::finding_id::FindingId;
use crate::command::full_commands::by_user;
use crate::module::target::Target;
use crate::store::memory::{RUNTIME_DIRECTORY_VARIABLE, STATE_DIRECTORY_VARIABLE};
use crate::tell::escape::{escape, escape_path, shell_word};

/// What is read of the JSON of `check`.
#[derive(Deserialize)]
struct Output {
    modules: Vec<OutputOfModule>,
}

#[derive(Deserialize)]
struct OutputOfModule {
    findings: Vec<Finding>,
}

impl Doctor<'_> {
    /// The findings about the history of the user `uid`, as a `check` by that user tells them; none
    /// if there can be no such `check`. `gids`: the groups of that user, if they are known.
    pub(super) fn findings_by(
        &self,
        uid: u32,
        gids: &[u32],
        target: &Target,
    ) -> Option<Vec<Finding>> {
        let gids = match gids {
            [] => accounts::groups_of(uid)
                .or_else(|_| fs::metadata(&target.root_path).map(|root| vec![root.gid()]))
                .ok()?,
            known => known.to_vec(),
        };
        let mut arguments: Vec<String> = ["check", "--json", "--"].map(str::to_string).into();
        arguments.push(match &target.name {
            Some(name) if target.argument() == shell_word(name) => escape(name),
            _ => escape_path(&target.module_path),
        });
        let (names_policy, names_conf) = self.settings.are_named;
        for (option, file, _) in [
            ("--config", &self.settings.policy_file, names_policy),
            ("--rsyncd-conf", &self.settings.rsyncd_conf, names_conf),
        ]
        .iter()
        .filter(|(.., is_named)| *is_named)
        {
            let file = escape_path(&absolute(file).ok()?);
            arguments.splice(0..0, [option.to_string(), file]);
        }
        let variable = |name: &str, value: &OsStr| (name.to_string(), escape(value.as_bytes()));
        let home = User::from_uid(uid.into()).ok().flatten();
        let home = home.map(|user| variable("HOME", user.dir.as_os_str()));
        let ours = [STATE_DIRECTORY_VARIABLE, RUNTIME_DIRECTORY_VARIABLE];
        let ours = ours
            .into_iter()
            .filter_map(|name| std::env::var_os(name).map(|value| variable(name, &value)));
        let environment = home.into_iter().chain(ours).collect();
        let run = RunByUser { uid, gids, arguments, environment };
        let text = self.prober.borrow_mut().as_mut()?.output_to(run)?;
        let output: Output = serde_json::from_str(&text).ok()?;
        let found = output.modules.into_iter().next()?.findings;
        // A process of that user could have written anything.
        let is_safe = |one: &Finding| !one.message.contains(char::is_control);
        let is_unknown =
            |one: &Finding| matches!(one.id, FindingId::ConfUnreadable | FindingId::ModuleUnknown);
        if !found.iter().all(is_safe) || found.iter().any(is_unknown) {
            return None;
        }
        let name = shell_word(daemon_user::name_of(uid).as_bytes());
        let of_history = found
            .into_iter()
            .filter(|one| one.id.is_of_history() || one.id == FindingId::PolicyMistake);
        Some(
            of_history
                .map(|one| Finding { message: by_user(&one.message, &name), ..one })
                .collect(),
        )
    }
}
