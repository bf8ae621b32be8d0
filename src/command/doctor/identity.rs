//! Asks the system as which user the daemon runs, and tells what that user cannot become.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, getegid, geteuid, getgroups};

use crate::command::doctor::daemon::how_to_set;
use crate::command::doctor::daemon_user::{
    DaemonUser, DaemonUserEvidence, DaemonUserFacts, chroot_finding, decide, name_of,
};
use crate::command::doctor::hooks::HookFacts;
use crate::command::doctor::units::Unit;
use crate::command::doctor::{Doctor, accounts, programs};
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::config::rsyncd_module::RsyncdModule;
use crate::config::settings::RSYNCD_CONF;
use crate::engine::responsiveness::is_responsive;
use crate::module::target::Target;
use crate::store::layout::PRIVATE;
use crate::tell::escape::{escape, escape_path};

/// Programs that do nothing without the rights of another user.
const CHANGE_USER: [&str; 4] = ["sudo", "su", "doas", "pkexec"];

impl Doctor<'_> {
    /// Who has to do with a module whose directory and snapshot root are these.
    pub(crate) fn daemon_user_facts(
        &self,
        module: Option<&RsyncdModule>,
        directory: Option<&Path>,
        root: Option<&Path>,
    ) -> DaemonUserFacts {
        let owner = |path: &Path| fs::metadata(path).ok().map(|found| found.uid());
        let directory = directory.filter(|directory| is_responsive(directory));
        // What answers for a directory answers for its parent, too, and for what is in that.
        let answers =
            |root: &&Path| directory.and_then(Path::parent) == Some(*root) || is_responsive(root);
        let root = root.filter(answers);
        let set = module.and_then(daemon_uid).and_then(Result::ok);
        let secrets = module.filter(|module| module.boolean("strict modes", true) == Some(true));
        let secrets = secrets.and_then(|module| self.secrets_path(module));
        DaemonUserFacts {
            own: geteuid().as_raw(),
            running: self.daemon().map(|daemon| daemon.uid),
            set,
            conf: owner(&self.settings.rsyncd_conf),
            root: root.and_then(owner),
            private: root
                .and_then(|root| fs::symlink_metadata(root.join(PRIVATE)).ok())
                .map(|found| found.uid()),
            module: directory.and_then(owner),
            secrets: secrets.filter(|path| is_responsive(path)).and_then(|path| owner(&path)),
            account: module.and_then(|module| accounts::by_root(module).ok()).map(|it| it.uid),
        }
    }

    /// The user as whom the daemon serves the module; none if that is open.
    pub(crate) fn daemon_user(&self, module: &RsyncdModule) -> Option<DaemonUser> {
        if let Some(known) = self.daemon_users.borrow().get(&module.name) {
            return known.clone();
        }
        let directory = module.path().ok();
        let root = directory.as_ref().and_then(|directory| self.planned_root(module, directory));
        let facts = self.daemon_user_facts(Some(module), directory.as_deref(), root.as_deref());
        let found = decide(facts).map(|decided| self.described(module, facts, decided));
        self.daemon_users.borrow_mut().insert(module.name.clone(), found.clone());
        found
    }

    fn described(
        &self,
        module: &RsyncdModule,
        facts: DaemonUserFacts,
        (uid, evidence): (u32, DaemonUserEvidence),
    ) -> DaemonUser {
        let daemon = self.daemon();
        let user = || format!("user {}", name_of(uid));
        let process = || daemon.map_or(String::new(), |it| format!(" (process {})", it.pid));
        let because = match evidence {
            DaemonUserEvidence::Running => {
                format!("the rsync daemon{} runs as {}", process(), user())
            }
            DaemonUserEvidence::DaemonUid => format!(
                "`daemon uid = {}` makes the rsync daemon {}",
                escape(module.get("daemon uid").unwrap_or_default()),
                user()
            ),
            DaemonUserEvidence::Owners | DaemonUserEvidence::Usual => {
                format!("the rsync daemon seems to run as {}, who owns its files", user())
            }
        };
        let groups = match evidence {
            DaemonUserEvidence::Running => daemon.map(|it| it.groups.clone()),
            // rsync keeps the groups of root, but for the first one.
            DaemonUserEvidence::DaemonUid => {
                let more = daemon.map_or_else(|| vec![0], |it| it.groups.clone());
                accounts::daemon_gid(module)
                    .map(|first| [first.into_iter().collect(), more].concat())
            }
            _ if uid == facts.own => Some(own_groups()),
            // A user without a name has at least the group of the files.
            _ => accounts::groups_of(uid).ok().or_else(|| {
                let directory = module.path().ok()?;
                let root = self.planned_root(module, &directory);
                let owned = [Some(directory), root]
                    .into_iter()
                    .flatten()
                    .filter_map(|path| fs::metadata(path).ok().filter(|found| found.uid() == uid));
                owned.map(|found| vec![found.gid()]).next()
            }),
        };
        let capabilities = match (evidence, daemon) {
            (DaemonUserEvidence::Running, Some(daemon)) => daemon.capabilities,
            (DaemonUserEvidence::DaemonUid, Some(daemon)) if uid == 0 => daemon.capabilities,
            _ if uid == 0 => u64::MAX,
            _ => 0,
        };
        DaemonUser { uid, gids: groups.unwrap_or_default(), capabilities, because }
    }

    /// What makes the owner of a root no mistake, if that is open: the end of a message.
    pub(crate) fn doubt_of_owner(
        &self,
        module: Option<&RsyncdModule>,
        target: &Target,
    ) -> Option<String> {
        let (directory, root) = (&target.module_path, &target.root_path);
        let facts = self.daemon_user_facts(module, Some(directory), Some(root));
        let owner = facts.root.filter(|owner| *owner != 0 && facts.module == Some(*owner))?;
        (decide(facts) == Some((0, DaemonUserEvidence::Usual))).then(|| {
            let name = name_of(owner);
            format!(
                "; but if the rsync daemon runs as user {name}, start it and run `check` again, \
                 which then knows"
            )
        })
    }

    /// What the daemon cannot become for the module.
    pub(crate) fn identity_findings(&self, module: &RsyncdModule) -> Vec<Finding> {
        let critical = |parameter, text: String| {
            let message = format!("{}: {text}", module.place_of(parameter));
            Finding::new(FindingId::ModuleAccess, Severity::Critical, message)
        };
        if let Some(Err(name)) = daemon_uid(module) {
            let text = format!(
                "`daemon uid = {name}` is unknown to this system, so rsync turns every connection \
                 away; correct it"
            );
            return vec![critical("daemon uid", text)];
        }
        let Some(user) = self.daemon_user(module) else { return Vec::new() };
        let mut found = Vec::new();
        if let Some(Ok(set)) = daemon_uid(module).filter(|set| *set != Ok(user.uid)) {
            let text = format!(
                "{}, who cannot become user {set} of `daemon uid`, so every connection is closed; \
                 take `daemon uid` out",
                user.because
            );
            found.push(critical("daemon uid", text));
        }
        found.extend(self.account_finding(module, &user));
        found.extend(chroot_finding(module, &user));
        found
    }

    /// A hook that changes its user, in a daemon none of whose programs can.
    pub(crate) fn powerless(
        &self,
        hook: &HookFacts,
        word: &[u8],
        user: &DaemonUser,
    ) -> Option<Finding> {
        let program = programs::found(word).filter(|path| is_responsive(path))?;
        let file = fs::metadata(&program).ok()?;
        if file.mode() & libc::S_ISUID == 0 || file.uid() == user.uid {
            return None;
        }
        let is_default = self.settings.rsyncd_conf == Path::new(RSYNCD_CONF);
        let (subject, unit) = match self.daemon() {
            Some(daemon) if daemon.no_new_privileges => {
                (format!("process {}", daemon.pid), daemon.unit.clone())
            }
            None if is_default => {
                let unit = Unit::enabled(Path::new("/")).filter(Unit::forbids_new_privileges)?;
                (unit.name.clone(), Some(unit.name))
            }
            _ => return None,
        };
        let name = program.file_name().unwrap_or_default();
        let always_fails = CHANGE_USER.iter().any(|known| name == *known);
        let (level, effect) = match always_fails {
            true => (Severity::Critical, hook.consequence().trim_start_matches("so ")),
            false => (Severity::Warning, "what it does may fail"),
        };
        let remedy = match unit {
            Some(unit) => how_to_set("NoNewPrivileges=no", &unit),
            None => "start the daemon without `no_new_privs`".to_string(),
        };
        let message = format!(
            "{}: {}: {} takes the rights of another user, which the rsync daemon ({subject}) \
             forbids to its programs (`NoNewPrivileges`), so {effect}; {remedy}",
            hook.place,
            hook.parameter,
            escape_path(&program)
        );
        Some(Finding::new(FindingId::Hook, level, message))
    }

    /// `uid` or `gid` that the daemon may not take.
    fn account_finding(&self, module: &RsyncdModule, user: &DaemonUser) -> Option<Finding> {
        let is_set = |parameter: &&str| module.get(parameter).is_some_and(|it| !it.is_empty());
        let sets = ["uid", "gid"].into_iter().filter(is_set);
        let refused: Vec<&str> = sets
            .filter(|parameter| match *parameter {
                "uid" => {
                    accounts::uid_of_module(module).is_some_and(|uid| !user.may_become_user(uid))
                }
                _ => !user.may_set_groups(),
            })
            .collect();
        let first = refused.first()?;
        let lines: Vec<String> = refused
            .iter()
            .map(|parameter| {
                let value = escape(module.get(parameter).unwrap_or_default());
                format!("`{parameter} = {value}` ({})", module.place_of(parameter))
            })
            .collect();
        let message = format!(
            "{}: {}, who may become no other user or group, so rsync turns every connection away; \
             take out {}",
            module.place_of(first),
            user.because,
            lines.join(" and ")
        );
        Some(Finding::new(FindingId::ModuleAccess, Severity::Critical, message))
    }
}

/// The user of `daemon uid`, if it is set and does not depend on a variable, or else its name,
/// escaped.
fn daemon_uid(module: &RsyncdModule) -> Option<Result<u32, String>> {
    let name = module.get("daemon uid").filter(|name| !name.is_empty() && !name.contains(&b'%'))?;
    match accounts::uid_of("daemon uid", name) {
        Ok(uid) => Some(Ok(uid)),
        Err(accounts::NoAccount::Invalid(_, name)) => Some(Err(name)),
        Err(accounts::NoAccount::Unclear(_)) => None,
    }
}

fn own_groups() -> Vec<u32> {
    let more = getgroups().unwrap_or_default();
    std::iter::once(getegid()).chain(more).map(Gid::as_raw).collect()
}
