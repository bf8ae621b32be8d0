//! What `setup` is going to do: the steps, after everything that speaks against them has been
//! looked for.
//!
//! The rules are those of `check`: its doctor examines the configuration as it would be. What it
//! calls critical is refused here, before anything is written.

use std::cell::RefCell;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::command::doctor::Doctor;
use crate::command::doctor::logins::SecretsFile;
use crate::command::doctor::prober::Prober;
use crate::command::doctor::units;
use crate::command::finding::{Finding, Severity};
use crate::command::setup_conf::{PlannedConf, SetupConf};
use crate::command::setup_options::SetupOptions;
use crate::config::rsyncd_conf::RsyncdConf;
use crate::config::settings::Settings;
use crate::decide::file_system::FileSystemType;
use crate::decide::module_section::{LATEST, ModuleFacts, ModuleSection, sections};
use crate::decide::name::SnapshotName;
use crate::decide::setup_edits::with_secret;
use crate::decide::setup_request::{
    EntryKind, FoundDirectory, directory_refusal, host_refusal, name_refusal, path_refusal,
};
use crate::decide::zone::Zone;
use crate::module::context::Context;
use crate::module::target::Target;
use crate::run::setup::{SetupChange, SetupStep};
use crate::store::configuration_file as file;
use crate::store::layout::is_private;
use crate::store::root_checks;
use crate::system::mounts::Mounts;
use crate::tell::error::{Error, Result};
use crate::tell::escape::{escape, escape_path};

/// The name of the secrets file beside rsyncd.conf, if the configuration names none.
const SECRETS: &str = "rsyncd.secrets";

/// The drop-in for the units of rsync daemons.
const DROP_IN: &str = include_str!("../../examples/rsync.service.d/rsyncd-snapshot.conf");
const DROP_IN_NAME: &str = "rsyncd-snapshot.conf";

/// The unit if none is installed.
const USUAL_UNIT: &str = "rsync.service";

/// What file systems make in a new directory of theirs.
const LOST_AND_FOUND: &[u8] = b"lost+found";

/// The modes of what setup makes.
const PRIVATE_DIRECTORY: u32 = 0o700;
const PUBLIC_DIRECTORY: u32 = 0o755;
const PRIVATE_FILE: u32 = 0o600;
const PUBLIC_FILE: u32 = 0o644;

/// What is going to be done.
pub(crate) struct SetupPlan {
    pub(crate) steps: Vec<SetupStep>,
    pub(crate) sections: Vec<ModuleSection>,
    /// Which step writes the secret, if one is made.
    pub(crate) secret_step: Option<usize>,
    /// The port of the daemon for a URL, with its colon; empty for the usual one.
    pub(crate) port: String,
}

/// Plans the steps. `secret`: what a user without one gets.
///
/// # Errors
/// What speaks against it. Further findings of the doctor are logged.
pub(crate) fn plan(
    context: &Context,
    options: &SetupOptions,
    secret: &str,
    prober: &RefCell<Option<Prober>>,
) -> Result<SetupPlan> {
    let refused = |why: Option<String>| why.map_or(Ok(()), |why| Err(Error::Usage(why)));
    let name = options.module.as_bytes();
    let user = options.user.as_ref().map(|user| user.as_bytes());
    refused(name_refusal("module", name))?;
    refused(user.and_then(|user| name_refusal("user", user)))?;
    refused(options.hosts.iter().find_map(|host| host_refusal(host.as_bytes())))?;
    refused(path_refusal(options.path.as_os_str().as_bytes()))?;
    let root: PathBuf = options.path.components().collect();
    refused(found_refusal(&root)?)?;
    let conf = SetupConf::read(&context.settings.rsyncd_conf, name)?;
    let secrets = user.map(|_| SecretsPlace::of(&conf, name)).transpose()?;
    let empty = RsyncdConf { modules: Vec::new(), remarks: Vec::new() };
    let sections = sections(&ModuleFacts {
        name: name.to_vec(),
        root: root.as_os_str().as_bytes().to_vec(),
        user: user.map(<[u8]>::to_vec),
        secrets_file: secrets.as_ref().map_or(vec![], |it| it.named.as_os_str().as_bytes().into()),
        hosts: options.hosts.iter().map(|host| host.as_bytes().to_vec()).collect(),
        has_restore: options.restore,
        is_root: geteuid().is_root(),
        is_on_ceph: is_on_ceph(&resolved(&root)),
        hook: Doctor::new(&context.settings, &empty, prober).this_command().into_bytes(),
    });
    let planned = conf.plan(&sections)?;
    let settings = context.settings.planning(planned.conf.clone());
    ensure_sound(&settings, &root, &sections, secrets.as_ref().zip(user), prober)?;
    let port = port_of(&planned.conf, name);
    let (steps, secret_step) =
        steps(options, &root, conf, planned, &sections, secrets.zip(user), secret)?;
    Ok(SetupPlan { steps, sections, secret_step, port })
}

/// The port of the daemon as a URL has it.
fn port_of(conf: &RsyncdConf, name: &[u8]) -> String {
    let module = conf.module(name);
    let port = module.and_then(|module| module.get("port").or_else(|| module.get("rsync port")));
    port.map_or(String::new(), |port| format!(":{}", escape(port)))
}

/// The secrets file.
struct SecretsPlace {
    named: PathBuf,
    real: PathBuf,
    text: Option<Vec<u8>>,
}

impl SecretsPlace {
    fn of(conf: &SetupConf, name: &[u8]) -> Result<Self> {
        let beside = || conf.conf.parent().unwrap_or(Path::new("/")).join(SECRETS);
        let named = conf.value(name, "secrets file");
        let named =
            named.map_or_else(beside, |value| PathBuf::from(std::ffi::OsStr::from_bytes(value)));
        if !named.is_absolute() || named.as_os_str().as_bytes().contains(&b'%') {
            return Err(Error::Usage(format!(
                "{}: `secrets file = {}` depends on the daemon or the connection, so no secret can \
                 be added there; nothing was written: name an absolute path",
                escape_path(&conf.conf),
                escape_path(&named)
            )));
        }
        let real = file::file_behind(&named)?;
        let text = file::read(&real)?;
        Ok(SecretsPlace { named, real, text })
    }

    /// The file as it is, or as it will be made.
    fn parsed(&self) -> SecretsFile {
        let found = fs::metadata(&self.real).ok();
        let (mode, owner) =
            found.map_or((PRIVATE_FILE, geteuid().as_raw()), |found| (found.mode(), found.uid()));
        SecretsFile::parse(self.text.as_deref().unwrap_or_default(), mode, owner)
    }

    fn has(&self, user: &[u8]) -> bool {
        self.parsed().users.iter().any(|known| known == user)
    }
}

/// Why the directory that is there cannot become the root.
fn found_refusal(root: &Path) -> Result<Option<String>> {
    let entries = match fs::read_dir(root) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|cause| Error::io("read the directory", root, cause))?,
    };
    let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    let is_usual = |name: &[u8]| {
        [LATEST.as_bytes(), LOST_AND_FOUND].contains(&name)
            || is_private(name)
            || SnapshotName::parse(name, &Zone::utc()).is_some()
    };
    let others = names.iter().map(|name| name.as_bytes()).filter(|name| !is_usual(name));
    let latest = fs::symlink_metadata(root.join(LATEST)).ok().map(|found| match found {
        found if found.is_dir() => EntryKind::Directory,
        found if found.is_symlink() => EntryKind::Symlink,
        _ => EntryKind::Other,
    });
    let found = FoundDirectory { others: others.collect(), latest };
    Ok(directory_refusal(&escape_path(root), &found))
}

/// The path without symbolic links, of which the last parts may not exist yet.
fn resolved(path: &Path) -> PathBuf {
    let nearest = path.ancestors().find(|above| above.symlink_metadata().is_ok());
    let real = nearest.and_then(|nearest| nearest.canonicalize().ok());
    match (real, nearest.and_then(|nearest| path.strip_prefix(nearest).ok())) {
        (Some(real), Some(rest)) => real.join(rest).components().collect(),
        _ => path.to_path_buf(),
    }
}

fn is_on_ceph(path: &Path) -> bool {
    Mounts::read().is_some_and(|mounts| mounts.kind_of(path).is_some_and(FileSystemType::is_ceph))
}

/// Refuses what `check` would call critical about the modules as they would be.
fn ensure_sound(
    settings: &Settings,
    root: &Path,
    sections: &[ModuleSection],
    secrets: Option<(&SecretsPlace, &[u8])>,
    prober: &RefCell<Option<Prober>>,
) -> Result<()> {
    let conf = settings.rsyncd()?;
    let doctor = Doctor::new(settings, conf, prober);
    if let Some((place, user)) = secrets {
        let mut planned = place.parsed();
        planned.users.push(user.to_vec());
        doctor.plan_secrets(&place.named, planned);
    }
    let modules = sections.iter().filter_map(|section| conf.module(&section.name));
    let mut found: Vec<Finding> =
        modules.clone().flat_map(|module| doctor.of_section(module, false)).collect();
    let module_path = resolved(&root.join(LATEST));
    let Some(module) = modules.clone().next() else {
        return Err(Error::Bug("a module that was planned is not read"));
    };
    let target = Target::of_lost_directory(settings, Some(module.name.clone()), &module_path)?;
    if Some(target.root_path.as_path()) != module_path.parent() {
        return Err(Error::Usage(format!(
            "the snapshots of module {} belong into {}, by `snapshot_root` of the policy or by \
             what this machine remembers of it, and not into {}; nothing was written: change the \
             policy, or write the module's section by hand",
            escape(&module.name),
            escape_path(&target.root_path),
            escape_path(root)
        )));
    }
    target.check_nesting()?;
    match module_path.is_dir() {
        true => target.look_at_root()?.check_method()?,
        false => root_checks::check_planned(&target.root_path, &module_path)?,
    }
    found.extend(doctor.of_places(module, &target, target.is_registered()));
    found.extend(doctor.root_access(Some(module), &target).into_iter().flat_map(|it| it.findings));
    let critical: Vec<&Finding> =
        found.iter().filter(|finding| finding.level == Severity::Critical).collect();
    let Some((last, others)) = critical.split_last() else { return Ok(()) };
    others.iter().for_each(|finding| log::error!("{}", finding.message));
    Err(Error::Usage(format!("{}; nothing was written", last.message)))
}

fn steps(
    options: &SetupOptions,
    root: &Path,
    conf: SetupConf,
    planned: PlannedConf,
    sections: &[ModuleSection],
    secrets: Option<(SecretsPlace, &[u8])>,
    secret: &str,
) -> Result<(Vec<SetupStep>, Option<usize>)> {
    let mut steps = Vec::new();
    directory_steps(&mut steps, root, PUBLIC_DIRECTORY, PRIVATE_DIRECTORY);
    directory_steps(&mut steps, &root.join(LATEST), PRIVATE_DIRECTORY, PRIVATE_DIRECTORY);
    if planned.file.is_some() || planned.including.is_some() {
        directory_steps(&mut steps, &conf.directory, PUBLIC_DIRECTORY, PUBLIC_DIRECTORY);
    }
    let mut secret_step = None;
    if let Some((place, user)) = secrets {
        let shown = escape(user);
        let (change, what) = match place.has(user) {
            true => (SetupChange::None, format!("user {shown}, whose secret stays")),
            false => {
                secret_step = Some(steps.len());
                let text = with_secret(place.text.as_deref().unwrap_or_default(), user, secret);
                let change = SetupChange::Write { real: place.real, text, mode: PRIVATE_FILE };
                (change, format!("user {shown} with a new secret"))
            }
        };
        steps.push(SetupStep { path: place.named, change, what });
    }
    if options.systemd {
        drop_in_steps(&mut steps, &options.unit_directory)?;
    }
    let names: Vec<String> =
        sections.iter().map(|section| format!("[{}]", escape(&section.name))).collect();
    let mut file_step = |path: PathBuf, real: PathBuf, text: Option<Vec<u8>>, what: String| {
        let change = text.map_or(SetupChange::None, |text| SetupChange::Write {
            real,
            text,
            mode: PUBLIC_FILE,
        });
        steps.push(SetupStep { path, change, what });
    };
    if planned.file.is_some() || planned.including.is_some() || conf.file_text.is_some() {
        file_step(conf.file, conf.real_file, planned.file, names.join(" and "));
        let what = format!("&include {}", escape_path(&conf.directory));
        file_step(conf.conf, conf.real_conf, planned.including, what);
    } else {
        file_step(conf.conf, conf.real_conf, None, names.join(" and "));
    }
    Ok((steps, secret_step))
}

/// The steps that make a directory and those above it, as far as they are missing.
fn directory_steps(steps: &mut Vec<SetupStep>, path: &Path, above: u32, own: u32) {
    let is_planned = |path: &Path, steps: &[SetupStep]| steps.iter().any(|step| step.path == path);
    let mut missing: Vec<&Path> = path
        .ancestors()
        .take_while(|above| above.symlink_metadata().is_err() && !is_planned(above, steps))
        .collect();
    if missing.is_empty() {
        missing = vec![path];
    }
    for directory in missing.into_iter().rev() {
        let mode = if directory == path { own } else { above };
        let (change, what) = match directory.symlink_metadata() {
            Ok(_) => (SetupChange::None, "directory".to_string()),
            Err(_) => {
                (SetupChange::MakeDirectory { mode }, format!("directory with mode {mode:04o}"))
            }
        };
        steps.push(SetupStep { path: directory.to_path_buf(), change, what });
    }
}

/// The units of rsync daemons that are installed, or the usual one.
pub(crate) fn daemon_units(unit_directory: &Path) -> Vec<&'static str> {
    let mut units = units::of_daemons(Path::new("/"), unit_directory);
    if units.is_empty() {
        units.push(USUAL_UNIT);
    }
    units
}

/// The drop-ins of these units.
fn drop_in_steps(steps: &mut Vec<SetupStep>, unit_directory: &Path) -> Result<()> {
    for name in daemon_units(unit_directory) {
        let directory = unit_directory.join(format!("{name}.d"));
        let path = directory.join(DROP_IN_NAME);
        let real = file::file_behind(&path)?;
        let change = match file::read(&real)? {
            Some(text) if text == DROP_IN.as_bytes() => SetupChange::None,
            Some(_) => {
                return Err(Error::Usage(format!(
                    "{} is there already with other content; nothing was written: move it away, \
                     or leave out --systemd",
                    escape_path(&path)
                )));
            }
            None => SetupChange::Write { real, text: DROP_IN.into(), mode: PUBLIC_FILE },
        };
        if !directory.exists() {
            directory_steps(steps, &directory, PUBLIC_DIRECTORY, PUBLIC_DIRECTORY);
        }
        steps.push(SetupStep { path, change, what: format!("drop-in for {name}") });
    }
    Ok(())
}

impl SetupPlan {
    pub(crate) fn changes(&self) -> bool {
        self.steps.iter().any(SetupStep::changes)
    }

    /// The directories in or below which something is made.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        let changed = self.steps.iter().filter(|step| step.changes());
        let mut directories: Vec<PathBuf> = changed
            .map(|step| file::nearest_directory(step.written().parent().unwrap_or(Path::new("/"))))
            .collect();
        directories.sort();
        directories.dedup();
        directories
    }
}
