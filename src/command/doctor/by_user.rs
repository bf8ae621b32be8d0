//! Has a history checked by the user whose it is: another user, root included, cannot read it
//! safely, or at all.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::absolute;

use nix::unistd::User;
use serde::Deserialize;

use crate::command::client_view::ClientView;
use crate::command::doctor::prober::RunByUser;
use crate::command::doctor::{Doctor, accounts, daemon_user};
use crate::command::finding::Finding;
use crate::command::finding_id::FindingId;
use crate::command::full_commands::by_user;
use crate::command::module_findings::stops_expiry;
use crate::command::module_numbers::ModuleNumbers;
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
    is_module: bool,
    findings: Vec<Finding>,
    numbers: Option<ModuleNumbers>,
    clients: Vec<ClientView>,
}

/// What is known of a module whose root only another user can look at.
pub(crate) struct OfAnotherUser {
    pub(crate) findings: Vec<Finding>,
    pub(crate) numbers: Option<ModuleNumbers>,
    pub(crate) clients: Vec<ClientView>,
}

impl From<Finding> for OfAnotherUser {
    fn from(finding: Finding) -> Self {
        OfAnotherUser { findings: vec![finding], numbers: None, clients: Vec::new() }
    }
}

impl Doctor<'_> {
    /// What a `check` by the user `uid` tells of that user's history; none if there can be no such
    /// `check`. `gids`: the groups of that user, if they are known.
    pub(super) fn checked_by(
        &self,
        uid: u32,
        gids: &[u32],
        target: &Target,
    ) -> Option<OfAnotherUser> {
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
        // A process of that user could have written anything.
        if !is_printable(&text) {
            return None;
        }
        let output: Output = serde_json::from_str(&text).ok()?;
        let mut modules = output.modules.into_iter();
        let OutputOfModule { findings, numbers, clients, .. } = modules.next()?;
        let is_unknown =
            |one: &Finding| matches!(one.id, FindingId::ConfUnreadable | FindingId::ModuleUnknown);
        if findings.iter().any(is_unknown) {
            return None;
        }
        // The lines of `policy` are not shown: for this user the policy may have no mistake.
        let of_policy = modules.filter(|one| !one.is_module).flat_map(|one| one.findings);
        let told_elsewhere = |one: &Finding| one.is_consequence && one.id == POLICY_MISTAKE;
        let mistakes: Vec<Finding> = match findings.iter().any(told_elsewhere) {
            true => of_policy.filter(|one| one.id == POLICY_MISTAKE).map(stops_expiry).collect(),
            false => Vec::new(),
        };
        let name = shell_word(daemon_user::name_of(uid).as_bytes());
        let of_history = findings
            .into_iter()
            .filter(|one| !told_elsewhere(one))
            .filter(|one| one.id.is_of_history() || one.id == POLICY_MISTAKE)
            .chain(mistakes)
            .map(|one| Finding { message: by_user(&one.message, &name), ..one })
            .collect();
        Some(OfAnotherUser { findings: of_history, numbers, clients })
    }
}

const POLICY_MISTAKE: FindingId = FindingId::PolicyMistake;

/// Whether JSON holds no character that a terminal would obey, in whatever form.
fn is_printable(json: &str) -> bool {
    let rest = json.replace(r"\\", "").replace("\\\"", "");
    !rest.contains(|one: char| one == '\\' || one.is_control() && one != '\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_found_in_each_form() {
        for (json, expected) in [
            (r#"{"a": "b\\u001b \"c\" ä"}"#, true),
            ("[\n  1\n]\n", true),
            (r#"["\u001b[31m"]"#, false),
            (r#"["\\\u001b"]"#, false),
            (r#"["\n"]"#, false),
            ("[\"\u{9b}\"]", false),
            ("[\"\u{1b}\"]", false),
        ] {
            assert_eq!(is_printable(json), expected, "{json}");
        }
    }
}
