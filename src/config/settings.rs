//! The policy file and rsyncd.conf as one run sees them.
//!
//! A policy file with a mistake must stop expiry, but not snapshots. So its mistakes are kept as
//! data in [`PolicySource`], and every module still gets a policy: the built-in one.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use crate::config::hook_policy::{HookLine, ReadHookArguments};
use crate::config::policy_file::Policies;
use crate::config::rsyncd_conf::RsyncdConf;
use crate::config::rsyncd_module::ModuleDirectory;
use crate::decide::policy::Policy;
use crate::store::memory::MachineMemory;
use crate::tell::error::Result;
use crate::tell::escape::{escape_path, shell_path};

/// Where the policy is unless `--config` says otherwise.
pub(crate) const POLICY_FILE: &str = "/etc/rsyncd-snapshot.toml";
/// Where rsyncd's configuration is unless `--rsyncd-conf` says otherwise.
pub(crate) const RSYNCD_CONF: &str = "/etc/rsyncd.conf";

/// The configuration of a run.
pub struct Settings {
    /// The policy file that was named or is the default.
    pub policy_file: PathBuf,
    /// rsyncd's configuration file.
    pub rsyncd_conf: PathBuf,
    /// Whether the command line named the policy file and rsyncd's configuration.
    pub(crate) are_named: (bool, bool),
    /// How reading the policy ended.
    pub source: PolicySource,
    /// This machine's memory of roots and failures.
    pub memory: MachineMemory,
    policies: Policies,
    /// rsyncd's configuration, once it was read without error.
    rsyncd: OnceCell<Arc<RsyncdConf>>,
    /// Reads the arguments of hooks; none in a hook, which uses what its own line names.
    read_hook: Option<ReadHookArguments>,
    /// What arguments of hooks mean. Most modules have the same.
    read_arguments: RefCell<BTreeMap<Vec<OsString>, HookLine>>,
    /// Those with the policies that hooks name, by policy file.
    pub(crate) of_hooks: RefCell<BTreeMap<PathBuf, Rc<Settings>>>,
}

/// How reading the policy file ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicySource {
    /// It was read without error.
    File,
    /// There is none, and none was named.
    BuiltIn,
    /// It cannot be used; one line per mistake.
    Trouble(Vec<String>),
}

impl Settings {
    /// Reads the policy; never fails, see [`PolicySource`].
    pub fn read(policy_file: Option<&Path>, rsyncd_conf: Option<&Path>) -> Self {
        let file = policy_file.unwrap_or(Path::new(POLICY_FILE)).to_path_buf();
        let read = match fs::read(&file).map(String::from_utf8) {
            Ok(Ok(text)) => Policies::parse(&file, &text).map(|found| (PolicySource::File, found)),
            Ok(Err(_)) => Err(vec![format!("{}: is not UTF-8 text", escape_path(&file))]),
            Err(error) if error.kind() == ErrorKind::NotFound && policy_file.is_none() => {
                Ok((PolicySource::BuiltIn, Policies::built_in()))
            }
            Err(error) => Err(vec![format!("{}: cannot be read: {error}", escape_path(&file))]),
        };
        let (source, policies) =
            read.unwrap_or_else(|mistakes| (PolicySource::Trouble(mistakes), Policies::built_in()));
        let are_named = (policy_file.is_some(), rsyncd_conf.is_some());
        let rsyncd_conf = rsyncd_conf.unwrap_or(Path::new(RSYNCD_CONF)).to_path_buf();
        Settings {
            policy_file: file,
            rsyncd_conf,
            are_named,
            source,
            memory: MachineMemory::from_environment(),
            policies,
            rsyncd: OnceCell::new(),
            read_hook: None,
            read_arguments: RefCell::default(),
            of_hooks: RefCell::default(),
        }
    }

    /// The same for a command: without a policy on its command line it uses for each module the one
    /// that the module's hooks use.
    #[must_use]
    pub(crate) fn reading_hooks(self, read: ReadHookArguments) -> Self {
        Settings { read_hook: Some(read), ..self }
    }

    /// What the arguments of a hook mean, or what is wrong with them.
    pub(crate) fn read_hook(&self, arguments: Vec<OsString>) -> HookLine {
        let Some(read) = self.read_hook else { return Err("it is not read here".to_string()) };
        let mut known = self.read_arguments.borrow_mut();
        known.entry(arguments).or_insert_with_key(|arguments| read(arguments)).clone()
    }

    /// Whether modules get the policies that their hooks use.
    pub(crate) fn follows_hooks(&self) -> bool {
        self.read_hook.is_some() && !self.are_named.0
    }

    /// The same without a usable policy, and why.
    pub(crate) fn without_policy(&self, why: String) -> Self {
        let source = PolicySource::Trouble(vec![why]);
        Settings { source, policies: Policies::built_in(), ..self.with_policy(None) }
    }

    /// The same with another policy file; none named means the default one.
    pub(crate) fn with_policy(&self, file: Option<&Path>) -> Self {
        let (_, names_conf) = self.are_named;
        let other = Settings::read(file, names_conf.then_some(self.rsyncd_conf.as_path()));
        if let Ok(conf) = self.shared_rsyncd() {
            let _ = other.rsyncd.set(conf.clone());
        }
        Settings { memory: self.memory.clone(), ..other }
    }

    /// The same files, read anew.
    pub(crate) fn read_again(&self) -> Self {
        let (names_policy, names_conf) = self.are_named;
        let read = Settings::read(
            names_policy.then_some(self.policy_file.as_path()),
            names_conf.then_some(self.rsyncd_conf.as_path()),
        );
        Settings { memory: self.memory.clone(), read_hook: self.read_hook, ..read }
    }

    /// The same with `conf` in the place of rsyncd's configuration.
    pub(crate) fn planning(&self, conf: RsyncdConf) -> Self {
        Settings { rsyncd: OnceCell::from(Arc::new(conf)), ..self.read_again() }
    }

    /// The options with which a command uses the same files, as a shell takes them.
    pub(crate) fn options(&self) -> String {
        let (names_policy, names_conf) = self.are_named;
        // The command may be typed in another directory.
        let path = |file: &Path| {
            shell_path(&std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf()))
        };
        let named = [
            names_policy.then(|| format!("--config {}", path(&self.policy_file))),
            names_conf.then(|| format!("--rsyncd-conf {}", path(&self.rsyncd_conf))),
        ];
        named.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// The policy of a module; the built-in defaults where the file cannot be used.
    pub fn policy(&self, module: Option<&[u8]>) -> Policy {
        self.policies.for_module(module)
    }

    /// The names that have a table of their own in the policy.
    pub fn policy_modules(&self) -> Vec<String> {
        self.policies.modules().map(str::to_string).collect()
    }

    /// rsyncd's configuration, as it was when it was first read.
    pub fn rsyncd(&self) -> Result<&RsyncdConf> {
        self.shared_rsyncd().map(Arc::as_ref)
    }

    /// [`rsyncd`](Self::rsyncd) for a holder that outlives these settings.
    pub(crate) fn shared_rsyncd(&self) -> Result<&Arc<RsyncdConf>> {
        if let Some(conf) = self.rsyncd.get() {
            return Ok(conf);
        }
        let conf = RsyncdConf::read(&self.rsyncd_conf)?;
        Ok(self.rsyncd.get_or_init(|| Arc::new(conf)))
    }

    /// Whether a module's name does not say that it is the one in `directory`: it may stand for
    /// several directories, or rsyncd.conf gives it to another one, as that of another daemon does.
    pub fn is_ambiguous(&self, name: &[u8], directory: &Path) -> bool {
        let module = self.rsyncd().ok().and_then(|conf| conf.module(name));
        module.is_some_and(|module| match module.whereabouts() {
            Ok(ModuleDirectory::Unknown { .. }) => true,
            Ok(ModuleDirectory::At(_)) => !module.may_be_at(directory),
            Err(_) => false,
        })
    }
}
