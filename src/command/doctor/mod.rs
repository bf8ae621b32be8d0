//! The doctor of `check`: mistakes in rsyncd.conf and around it that would otherwise show only
//! after a push, or never.
//!
//! Each file beside this one has the facts about one matter as a struct, and the findings as a
//! function of them. This file collects the facts. It runs nothing: a program that a hook names is
//! compared with this one, and what needs another user's rights is tried by the [`prober`]. What
//! cannot be known is no mistake: it is a finding without a level, which only `--verbose` shows.

mod access;
mod accounts;
pub(crate) mod by_user;
pub(crate) mod daemon;
mod daemon_mounts;
mod daemon_user;
mod directory;
mod files;
mod filters;
mod hook_policy;
pub(crate) mod hooks;
mod host_word;
mod hosts;
mod identity;
pub(crate) mod logins;
pub(crate) mod prober;
pub(crate) mod prober_process;
mod programs;
mod restore_modules;
pub(crate) mod roots;
mod server;
mod snapshot_directory;
mod startup;
pub(crate) mod units;
mod values;
pub(crate) mod writing;

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::command::doctor::daemon::DaemonFacts;
use crate::command::doctor::daemon_user::DaemonUser;
use crate::command::doctor::hooks::{EARLY, ModuleHooks};
use crate::command::doctor::logins::{Secrets, SecretsFile};
use crate::command::doctor::prober::Prober;
use crate::command::doctor::programs::Programs;
use crate::command::doctor::roots::{PlannedRoot, PlannedRoots};
use crate::command::doctor::writing::WritingFacts;
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::config::hook_policy::{POST_XFER, PRE_XFER};
use crate::config::refused_push::offers_only_reading;
use crate::config::rsyncd_conf::RsyncdConf;
use crate::config::rsyncd_module::RsyncdModule;
use crate::config::settings::{RSYNCD_CONF, Settings};
use crate::decide::path_index::PathIndex;
use crate::engine::responsiveness::is_responsive;
use crate::module::root_location::remembered_root;
use crate::module::target::Target;
use crate::store::root::SnapshotRoot;
use crate::tell::error::Error;
use crate::tell::escape::{escape, escape_path};

/// What is read once for all modules.
pub(crate) struct Doctor<'a> {
    settings: &'a Settings,
    pub(crate) conf: &'a RsyncdConf,
    programs: Programs<'a>,
    /// The hooks of modules, by their names.
    hooks: RefCell<BTreeMap<Vec<u8>, Rc<ModuleHooks>>>,
    prober: &'a RefCell<Option<Prober>>,
    daemon: OnceCell<Option<DaemonFacts>>,
    /// As whom it serves modules, by their names.
    daemon_users: RefCell<BTreeMap<Vec<u8>, Option<DaemonUser>>>,
    /// The mounts of the daemon and of this process.
    mounts: OnceCell<Option<(String, String)>>,
    planned: OnceCell<PlannedRoots>,
    /// The roots that this machine remembers.
    known_roots: OnceCell<PathIndex<()>>,
    hosts: OnceCell<BTreeMap<String, bool>>,
    secrets: RefCell<BTreeMap<PathBuf, Secrets>>,
}

impl<'a> Doctor<'a> {
    pub(crate) fn new(
        settings: &'a Settings,
        conf: &'a RsyncdConf,
        prober: &'a RefCell<Option<Prober>>,
    ) -> Self {
        Doctor {
            settings,
            conf,
            programs: Programs::new(settings),
            hooks: RefCell::default(),
            prober,
            daemon: OnceCell::new(),
            daemon_users: RefCell::default(),
            mounts: OnceCell::new(),
            planned: OnceCell::new(),
            known_roots: OnceCell::new(),
            hosts: OnceCell::new(),
            secrets: RefCell::default(),
        }
    }

    /// Takes this for what the secrets file at `path` holds: it is not written yet.
    pub(crate) fn plan_secrets(&self, path: &Path, planned: SecretsFile) {
        self.secrets.borrow_mut().insert(path.to_path_buf(), Secrets::Read(planned));
    }

    /// The hooks of a module.
    pub(crate) fn hooks(&self, module: &RsyncdModule) -> Rc<ModuleHooks> {
        if let Some(known) = self.hooks.borrow().get(&module.name) {
            return Rc::clone(known);
        }
        let hooks = Rc::new(self.read_hooks(module));
        self.hooks.borrow_mut().insert(module.name.clone(), Rc::clone(&hooks));
        hooks
    }

    fn read_hooks(&self, module: &RsyncdModule) -> ModuleHooks {
        ModuleHooks {
            early: self.programs.hook(module, EARLY),
            pre: self.programs.hook(module, PRE_XFER),
            post: self.programs.hook(module, POST_XFER),
            is_writable: !offers_only_reading(module),
            this_program: self.programs.this_program(),
            this_command: self.command_of(&self.settings.of_configured(module)),
        }
    }

    /// The path of this program and its options, as a line of rsyncd.conf has them.
    pub(crate) fn this_command(&self) -> String {
        self.command_of(self.settings)
    }

    fn command_of(&self, settings: &Settings) -> String {
        match settings.options() {
            options if options.is_empty() => self.programs.this_program(),
            options => format!("{} {options}", self.programs.this_program()),
        }
    }

    /// Whether a hook of the module runs this program, or is meant to.
    pub(crate) fn concerns(&self, module: &RsyncdModule) -> bool {
        let hooks = self.hooks(module);
        [&hooks.early, &hooks.pre, &hooks.post].iter().any(|hook| hook.is_ours())
    }

    /// Whether a hook of the module certainly fails, or is not there.
    pub(crate) fn hook_fails(&self, module: &RsyncdModule) -> bool {
        let is_of_hook = |id| matches!(id, FindingId::Hook | FindingId::HookMissing);
        let found = hooks::findings(&self.hooks(module));
        found.iter().any(|one| one.level == Severity::Critical && is_of_hook(one.id))
    }

    /// What rsyncd.conf alone shows about a module. `has_history`: it has snapshots.
    pub(crate) fn of_section(&self, module: &RsyncdModule, has_history: bool) -> Vec<Finding> {
        let hooks = self.hooks(module);
        let is_ours = [&hooks.early, &hooks.pre, &hooks.post].iter().any(|hook| hook.is_ours());
        let mut found = Vec::new();
        if is_ours || has_history && hooks.is_writable {
            found.extend(hooks::findings(&hooks));
        }
        if is_ours {
            found.extend(writing::finding(&self.writing(module, has_history)));
        }
        found.extend(self.missing_restore_hooks(module, &hooks));
        // Without any hook the module is no matter of this program.
        if is_ours || has_history {
            found.extend(self.login_findings(module));
            found.extend(self.host_findings(module));
            found.extend(filters::findings(module));
            found.extend(directory::quoted_path(module));
            found.extend(directory::unexpanded_path(module));
            if hooks.is_writable {
                found.extend(files::findings(module));
                found.extend(self.value_findings(module));
            }
            found.extend(directory::chroot_finding(module));
            found.extend(self.identity_findings(module));
            found.extend(self.access_findings(module));
        }
        found
    }

    /// What shows about the directory and the root of a module that clients push to.
    pub(crate) fn of_places(
        &self,
        module: &RsyncdModule,
        target: &Target,
        is_registered: bool,
    ) -> Vec<Finding> {
        if offers_only_reading(module) || !self.concerns(module) {
            return Vec::new();
        }
        let mut found = self.rights(module, target, is_registered);
        if !is_registered {
            found.extend(self.shared_root(module, target));
        }
        found.extend(self.daemon_mounts(target));
        found
    }

    /// The error of a module that cannot be resolved, with the commands that make its directory if
    /// that is missing and the module is new.
    pub(crate) fn explained(&self, module: &RsyncdModule, error: &Error) -> String {
        let text = error.to_string();
        let Ok(path) = module.path() else { return text };
        if !self.is_missing(module) {
            return text;
        }
        if let Some(remedy) = directory::commented_path(module) {
            return format!("{text}: {remedy}");
        }
        let root = remembered_root(&self.settings.memory, &path);
        let user = self.daemon_user(module);
        let account = accounts::of(module, user.as_ref()).ok();
        let is_root = user.is_none_or(|user| user.is_root());
        let make = directory::how_to_make(&path, account.as_ref(), is_root);
        directory::missing(&text, self.only_shows(module), root.as_deref(), make)
    }

    /// Whether the directory of the module surely does not exist.
    fn is_missing(&self, module: &RsyncdModule) -> bool {
        let is_gone = |path: PathBuf| {
            let error = fs::metadata(&path).err().and_then(|error| error.raw_os_error());
            matches!(error, Some(libc::ENOENT | libc::ENOTDIR))
        };
        module.path().is_ok_and(|path| is_responsive(&path) && is_gone(path))
    }

    /// Whether the module is there for reading: it is read only, and that on purpose, or by the
    /// defaults although hooks above all modules reach it.
    fn only_shows(&self, module: &RsyncdModule) -> bool {
        let is_own = |parameter| module.setting(parameter).is_some_and(|setting| setting.is_own);
        let is_read_only = module.boolean("read only", true) == Some(true);
        let is_meant = module.setting("read only").is_some()
            || self.shows_snapshots(module)
            || !is_own(POST_XFER) && module.ignored("read only").is_none();
        is_read_only && offers_only_reading(module) && is_meant
    }

    /// Whether the file system of `path` has hard links, if that can be tried.
    pub(crate) fn has_links(&self, path: &Path) -> Option<bool> {
        self.prober.borrow_mut().as_mut()?.has_links(path)
    }

    /// How many bytes the children of the process `pid` have written, if that can be seen.
    pub(crate) fn bytes_written_below(&self, pid: u32) -> Option<u64> {
        self.prober.borrow_mut().as_mut()?.bytes_written_below(pid)
    }

    fn planned(&self) -> &PlannedRoots {
        let gets_snapshots =
            |module: &RsyncdModule| self.programs.hook(module, POST_XFER).is_ours();
        let template = |module: &RsyncdModule| self.root_template(module);
        self.planned.get_or_init(|| PlannedRoots::of(self.conf, gets_snapshots, template))
    }

    /// `snapshot_root` of a module.
    fn root_template(&self, module: &RsyncdModule) -> Option<String> {
        self.settings.of_configured(module).policy(Some(&module.name)).snapshot_root
    }

    /// Where the snapshots of a module belong by the text of the configuration.
    fn planned_root(&self, module: &RsyncdModule, directory: &Path) -> Option<PathBuf> {
        roots::planned_root(&module.name, directory, self.root_template(module))
    }

    fn writing(&self, module: &RsyncdModule, has_history: bool) -> WritingFacts {
        let only_reads = offers_only_reading(module);
        if !only_reads {
            return WritingFacts::default();
        }
        let setting = module.setting("read only");
        let is_own = |parameter| module.setting(parameter).is_some_and(|setting| setting.is_own);
        let is_hooked = |other: &RsyncdModule| {
            other.name != module.name
                && !offers_only_reading(other)
                && self.programs.hook(other, POST_XFER).is_ours()
        };
        let ignored = module.ignored("read only");
        WritingFacts {
            module: escape(&module.name),
            only_reads,
            by_users: writing::by_users(module),
            users_place: module.place_of("auth users").to_string(),
            place: module.place_of("read only").to_string(),
            is_explicit: setting.is_some(),
            ignored: ignored.map(|line| (line.place.to_string(), escape(&line.value))),
            has_own_hooks: is_own(POST_XFER) || is_own(PRE_XFER),
            shows_snapshots: self.shows_snapshots(module)
                || self.is_missing(module) && self.only_shows(module),
            has_history,
            others_are_writable: self.conf.modules.iter().any(is_hooked),
        }
    }

    fn daemon(&self) -> Option<&DaemonFacts> {
        let file = &self.settings.rsyncd_conf;
        let find = || {
            let mut prober = self.prober.borrow_mut();
            daemon::find(file, file == Path::new(RSYNCD_CONF), prober.as_mut())
        };
        self.daemon.get_or_init(find).as_ref()
    }

    fn shared_root(&self, module: &RsyncdModule, target: &Target) -> Option<Finding> {
        // A root that is in use is told by its registration, and without a policy it is not known
        // where the others are.
        let is_free = matches!(SnapshotRoot::registration(&target.root_path), Ok(None));
        if !is_free || !target.trouble.is_empty() {
            return None;
        }
        let own = PlannedRoot {
            module: module.name.clone(),
            directory: target.module_path.clone(),
            root: target.root_path.clone(),
        };
        let place = module.place_of("path").to_string();
        let file = target.policy_file.as_ref().unwrap_or(&self.settings.policy_file);
        roots::shared(self.planned(), &own, &place, &escape_path(file))
    }

    fn daemon_mounts(&self, target: &Target) -> Option<Finding> {
        let daemon = self.daemon()?;
        let (theirs, own) = self.mounts()?;
        daemon_mounts::mount_findings(daemon, theirs, own, &target.module_path, &target.root_path)
    }

    /// The mounts of the daemon and of this process.
    fn mounts(&self) -> Option<&(String, String)> {
        let read = || {
            let theirs = self.prober.borrow_mut().as_mut()?.mounts_of(self.daemon()?.pid)?;
            let own = fs::read("/proc/self/mountinfo").ok()?;
            let text = |list: Vec<u8>| String::from_utf8_lossy(&list).into_owned();
            Some((text(theirs), text(own)))
        };
        // The daemon is looked for with the prober, before it is borrowed here.
        self.daemon()?;
        self.mounts.get_or_init(read).as_ref()
    }
}
