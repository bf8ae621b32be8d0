//! What `check` finds about files and directories that the daemon's user has to use: a daemon of an
//! ordinary user often finds those of root in their place, and then every push fails, or gets no
//! snapshot. The prober tries each, since only the kernel knows all that gives or takes a right.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::command::doctor::accounts::{self, Account};
use crate::command::doctor::by_user::OfAnotherUser;
use crate::command::doctor::daemon_user::{self, DaemonUser};
use crate::command::doctor::directory::{self, RightFacts};
use crate::command::doctor::hooks::{HookReading, ProgramFile};
use crate::command::doctor::logins::{LoginFacts, Secrets, SecretsFile};
use crate::command::doctor::prober::{PathUse, WriteTrial};
use crate::command::doctor::{Doctor, files, filters, logins};
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::config::auth_users;
use crate::config::hook_command::{self, HookCommand};
use crate::config::rsyncd_module::RsyncdModule;
use crate::engine::responsiveness::is_responsive;
use crate::module::target::Target;
use crate::store::layout::PRIVATE;
use crate::tell::escape::{escape_path, shell_path, shell_word};

/// The lock file of rsync unless a module names another.
const LOCK_FILE: &str = "/var/run/rsyncd.lock";

/// Why the daemon's user cannot use a path.
struct Refusal {
    /// What the user may not do, as the end of a sentence.
    what: String,
    /// The command that gives the right.
    remedy: String,
}

impl Doctor<'_> {
    /// What the daemon's user cannot use of that which rsyncd.conf names for a module.
    pub(crate) fn access_findings(&self, module: &RsyncdModule) -> Vec<Finding> {
        let Some(user) = self.daemon_user(module).filter(|user| !user.is_root()) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        let mut tell = |id, parameter: &str, effect: &str, refusal: &Refusal, remedy: &str| {
            let message = format!(
                "{}: {parameter}: {}, who {}, so {effect}; {remedy}",
                module.place_of(parameter),
                user.because,
                refusal.what
            );
            found.push(Finding::new(id, Severity::Critical, message));
        };
        if let Some(path) = self.secrets_path(module)
            && let Some(refusal) = self.refusal(&user, &path, PathUse::Read)
        {
            let effect = "no user can log in";
            tell(FindingId::SecretsFile, "secrets file", effect, &refusal, &refusal.remedy);
        }
        let lists = ["exclude from", "include from"];
        let named = lists.map(|parameter| (parameter, files::named(module, parameter)));
        let named = named.into_iter().filter_map(|(parameter, path)| Some((parameter, path?)));
        let merged = filters::merged_files(module).into_iter().map(|path| ("filter", path));
        for (parameter, path) in named.chain(merged).filter(|(_, path)| path.is_absolute()) {
            if let Some(refusal) = self.refusal(&user, &path, PathUse::Read) {
                let effect = "rsync turns every push away";
                tell(FindingId::ConfFile, parameter, effect, &refusal, &refusal.remedy);
            }
        }
        if let Some(refusal) = self.lock_refusal(module, &user) {
            let effect = "rsync turns every connection away";
            tell(FindingId::ConfFile, "lock file", effect, &refusal, &refusal.remedy);
        }
        let hooks = self.hooks(module);
        let mut powerless = Vec::new();
        for hook in [&hooks.early, &hooks.pre, &hooks.post] {
            // What cannot run for any user is told as that.
            let is_told = matches!(
                hook.reading,
                HookReading::Program { file: ProgramFile::NotExecutable, .. }
            );
            let command = module.get(hook.parameter).filter(|_| !is_told).unwrap_or_default();
            let HookCommand::Words(words) = hook_command::read(command, module) else { continue };
            powerless.extend(words.first().and_then(|word| self.powerless(hook, word, &user)));
            let program = words.first().map(|word| path_of(word)).filter(|path| path.is_absolute());
            if let Some(refusal) =
                program.and_then(|path| self.refusal(&user, &path, PathUse::Execute))
            {
                let effect = hook.consequence().trim_start_matches("so ");
                tell(FindingId::Hook, hook.parameter, effect, &refusal, &refusal.remedy);
            }
        }
        found.extend(powerless);
        found
    }

    /// Why the daemon's user cannot open the lock file, if rsync needs it.
    fn lock_refusal(&self, module: &RsyncdModule, user: &DaemonUser) -> Option<Refusal> {
        if files::max_connections(module) < 1 {
            return None;
        }
        let path = match module.get("lock file") {
            None => PathBuf::from(LOCK_FILE),
            // That it is empty is told as a mistake of its own.
            Some(b"") => return None,
            Some(_) => files::named(module, "lock file").filter(|path| path.is_absolute())?,
        };
        let is_there = is_responsive(&path) && fs::symlink_metadata(&path).is_ok();
        let (subject, how) = match is_there {
            true => (path.as_path(), PathUse::Write),
            false => (path.parent()?, PathUse::WriteIn),
        };
        let refusal = self.refusal(user, subject, how)?;
        let directory = module.path().ok();
        let root = directory.as_ref().and_then(|directory| self.planned_root(module, directory));
        let example = root.map_or(String::new(), |root| {
            format!(", such as `lock file = {}`", escape_path(&root.join(".rsyncd.lock")))
        });
        let what = match is_there {
            true => refusal.what,
            false => format!("cannot make {}", escape_path(&path)),
        };
        let remedy =
            format!("name a file that this user can write{example}, or take `max connections` out");
        Some(Refusal { what, remedy })
    }

    /// Why the daemon's user may not use the path; none if it may, or if that is not known. A file
    /// in the place of a directory, or the reverse, is no matter of rights: it is told as that.
    fn refusal(&self, user: &DaemonUser, path: &Path, how: PathUse) -> Option<Refusal> {
        if user.gids.is_empty() || !is_responsive(path) {
            return None;
        }
        if fs::metadata(path).is_ok_and(|found| found.is_dir() != (how == PathUse::WriteIn)) {
            return None;
        }
        let may = |path: &Path, how| {
            let mut prober = self.prober.borrow_mut();
            let trial = prober.as_mut().map(|it| it.can_use(path, user.uid, &user.gids, how));
            trial != Some(WriteTrial::Cannot(libc::EACCES))
        };
        if may(path, how) {
            return None;
        }
        let above: Vec<&Path> = path.ancestors().skip(1).collect();
        if let Some(closed) = above.into_iter().rev().find(|above| !may(above, PathUse::Execute)) {
            return Some(Refusal {
                what: format!("may not enter {}", escape_path(closed)),
                remedy: format!("let that user in: `chmod o+x {}`", shell_path(closed)),
            });
        }
        let (word, mode) = match how {
            PathUse::Read => ("read", "u+r"),
            PathUse::Write => ("write to", "u+rw"),
            PathUse::WriteIn => ("write into", "u+rwx"),
            PathUse::Execute => ("execute", "o+rx"),
        };
        let owner = fs::metadata(path).ok();
        let shown = owner.as_ref().map_or(String::new(), |it| {
            format!(" (mode {:04o}, owner {}:{})", it.mode() & 0o7777, it.uid(), it.gid())
        });
        let is_own = owner.is_some_and(|it| it.uid() == user.uid);
        let remedy = match is_own || how == PathUse::Execute {
            true => format!("run `chmod {mode} {}`", shell_path(path)),
            false => format!("run `chown {} {}`", user.uid, shell_path(path)),
        };
        Some(Refusal { what: format!("cannot {word} {}{shown}", escape_path(path)), remedy })
    }

    /// What the daemon's user cannot do in the snapshot root, or what is found about a history that
    /// only another user can look at. What this process sees of the root does not matter then.
    pub(crate) fn root_access(
        &self,
        module: Option<&RsyncdModule>,
        target: &Target,
    ) -> Option<OfAnotherUser> {
        let (directory, root) = (&target.module_path, &target.root_path);
        // A file in the place of a directory is told as that.
        let is_file = |path: &Path| fs::metadata(path).is_ok_and(|found| !found.is_dir());
        if is_responsive(root) && root.ancestors().any(is_file) {
            return None;
        }
        let facts = self.daemon_user_facts(module, Some(directory), Some(root));
        let decided = daemon_user::decide(facts).map(|(user, _)| user);
        let user = module.and_then(|module| self.daemon_user(module));
        let user = user.filter(|user| !user.is_root() && decided == Some(user.uid));
        let critical =
            |message| Some(Finding::new(FindingId::Root, Severity::Critical, message).into());
        if let Some(user) = &user {
            let shown = escape_path(root);
            if let Some(owner) = facts.private.filter(|owner| *owner != user.uid) {
                return critical(format!(
                    "{}, and the history in {shown} belongs to user {}, so no push gets a \
                     snapshot; let the daemon run as that user, or move {} away, and then a push \
                     begins a new history",
                    user.because,
                    daemon_user::name_of(owner),
                    escape_path(&root.join(PRIVATE))
                ));
            }
            let is_there = facts.root.is_some();
            let (subject, owner) = match is_there {
                true => (root.as_path(), facts.root),
                false => (root.parent()?, None),
            };
            // Another owner than root could exchange snapshots, so the hook refuses the root.
            let is_others = owner.is_some_and(|owner| owner != 0 && owner != user.uid);
            let refusal = match is_others {
                true => Some(Refusal {
                    what: format!("does not own the snapshot root {shown}"),
                    remedy: format!("run `chown {} {}`", user.uid, shell_path(root)),
                }),
                false => self.refusal(user, subject, PathUse::WriteIn),
            };
            if let Some(Refusal { what, remedy }) = refusal {
                let remedy = match is_there {
                    true => remedy,
                    false => {
                        format!("run `install -d -m 0700 -o {} {}`", user.uid, shell_path(root))
                    }
                };
                return critical(format!(
                    "{}, who {what}, where the snapshots would be, so no push gets a snapshot; \
                     {remedy}",
                    user.because
                ));
            }
        }
        let theirs = daemon_user::seen_by(facts, decided)?;
        let gids = user.as_ref().map_or(&[][..], |user| &user.gids);
        if facts.own == 0
            && let Some(found) = self.checked_by(theirs, gids, target)
        {
            return Some(found);
        }
        let (name, check) = (daemon_user::name_of(theirs), target.command("check", ""));
        let why = match (facts.own, user) {
            (0, Some(user)) => format!("{}, and so this history is theirs", user.because),
            (0, None) => format!("this history belongs to user {theirs}"),
            (own, _) => {
                format!("this history belongs to user {theirs}, and this process is user {own}")
            }
        };
        let message = format!(
            "cannot tell how the backups are: {why}; run `sudo -u {} {check}`",
            shell_word(name.as_bytes())
        );
        Some(Finding::new(FindingId::Root, Severity::Unknown, message).into())
    }

    /// Whether the module's user can write into the module's directory, and into `temp dir`.
    pub(crate) fn rights(
        &self,
        module: &RsyncdModule,
        target: &Target,
        is_registered: bool,
    ) -> Vec<Finding> {
        let user = self.daemon_user(module);
        let account = accounts::of(module, user.as_ref());
        let Ok(found) = fs::metadata(&target.module_path) else { return Vec::new() };
        if let Some(user) = user.as_ref().filter(|user| !user.is_root())
            && let Some(refusal) = self.refusal(user, &target.module_path, PathUse::WriteIn)
            && (found.uid() != user.uid || found.mode() & 0o100 == 0)
        {
            let message = format!(
                "{}: {}, who {}, so every push fails; {}",
                module.place_of("path"),
                user.because,
                refusal.what,
                refusal.remedy
            );
            return vec![Finding::new(FindingId::ModuleAccess, Severity::Critical, message)];
        }
        let trial = |path: &Path, account: &Account| {
            let mut prober = self.prober.borrow_mut();
            let prober = prober.as_mut()?;
            Some(prober.can_write(path, account.uid, &account.gids))
        };
        let of_directory = |account: &Account| trial(&target.module_path, account);
        let tried = account.as_ref().ok().and_then(of_directory).unwrap_or(WriteTrial::Unknown);
        let mut told: Vec<Finding> = directory::right_finding(&RightFacts {
            place: module.place_of("uid").to_string(),
            has_uid: module.get("uid").is_some_and(|uid| !uid.is_empty()),
            directory: &target.module_path,
            owner: (found.uid(), found.gid(), found.mode()),
            account: account.as_ref(),
            trial: tried,
            has_history: is_registered,
        })
        .into_iter()
        .collect();
        let temporary = files::temp_dir(module).filter(|path| is_responsive(path) && path.is_dir());
        if let (Some(path), Ok(account)) = (temporary, &account)
            && trial(&path, account) == Some(WriteTrial::Cannot(libc::EACCES))
        {
            let message = format!(
                "{}: temp dir: pushes are written as user {}, who cannot write into {}, so every \
                 file of a push is refused; take `temp dir` out, or run `chown {} {}`",
                module.place_of("temp dir"),
                account.user,
                escape_path(&path),
                account.uid,
                shell_path(&path)
            );
            told.push(Finding::new(FindingId::ModuleAccess, Severity::Critical, message));
        }
        told
    }

    /// Whether the users of a module can log in.
    pub(crate) fn login_findings(&self, module: &RsyncdModule) -> Vec<Finding> {
        let value = module.get("secrets file").unwrap_or_default();
        let rules: Vec<_> = auth_users::rules(module).collect();
        let named = self.secrets_path(module);
        let secrets = match &named {
            _ if rules.is_empty() || value.is_empty() => Secrets::Unset,
            None => Secrets::Unclear("its path depends on the daemon".to_string()),
            Some(path) => {
                let mut known = self.secrets.borrow_mut();
                known.entry(path.clone()).or_insert_with(|| read(path)).clone()
            }
        };
        let as_written = path_of(value);
        logins::findings(&LoginFacts {
            rules,
            is_read_only: module.boolean("read only", true),
            unknown_digest: logins::unknown_digest(module),
            users_place: module.place_of("auth users").to_string(),
            secrets_place: module.place_of("secrets file").to_string(),
            secrets_path: named.as_deref().unwrap_or(&as_written),
            secrets,
            is_strict: module.boolean("strict modes", true),
            daemon_is_root: self.daemon_user(module).map(|user| user.is_root()),
        })
    }

    /// The secrets file of a module whose clients log in, if its path does not depend on the
    /// connection or the daemon.
    pub(crate) fn secrets_path(&self, module: &RsyncdModule) -> Option<PathBuf> {
        let is_set = |parameter| module.get(parameter).is_some_and(|value| !value.is_empty());
        if is_set("daemon chroot") || !is_set("auth users") {
            return None;
        }
        files::named(module, "secrets file").filter(|path| path.is_absolute())
    }
}

/// The path that a parameter names.
pub(crate) fn path_of(value: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(value))
}

fn read(path: &Path) -> Secrets {
    if !is_responsive(path) {
        return Secrets::Unclear("its file system does not answer".to_string());
    }
    let read = || {
        let found = fs::metadata(path)?;
        // Opening a pipe would wait for its writer.
        let text = if found.is_file() { Some(fs::read(path)?) } else { None };
        Ok((text, found))
    };
    match read() {
        Ok((None, found)) => Secrets::NoFile { is_directory: found.is_dir() },
        Ok((Some(text), found)) => {
            Secrets::Read(SecretsFile::parse(&text, found.mode(), found.uid()))
        }
        Err(error) => {
            let error: std::io::Error = error;
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => Secrets::Missing,
                _ => Secrets::Unclear(error.to_string()),
            }
        }
    }
}
