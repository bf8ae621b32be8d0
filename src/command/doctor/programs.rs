//! Examines the programs that hooks name, without running any.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::command::doctor::hooks::{HookFacts, HookReading, ProgramFile};
use crate::config::hook_command::{self, HookCommand, HookVariable, Redirection};
use crate::config::rsyncd_module::{RsyncdModule, Setting};
use crate::config::settings::Settings;
use crate::decide::similar::closest;
use crate::engine::responsiveness::is_responsive;
use crate::store::memory::STATE_DIRECTORY_VARIABLE;
use crate::tell::PROGRAM;
use crate::tell::escape::{escape, escape_path, shell_path};

/// Where a shell looks for a program without a path, if the daemon was started as usual.
const DIRECTORIES: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A larger file is not searched: it is none of ours.
const MAX_SEARCHED: u64 = 512 << 20;

/// What has been found out about programs, each of them examined once.
pub(crate) struct Programs<'a> {
    settings: &'a Settings,
    /// This program, if the kernel tells.
    this: Option<(PathBuf, Metadata)>,
    examined: RefCell<BTreeMap<PathBuf, Examined>>,
}

/// A program's file, or why it cannot be examined.
type Examined = Result<ProgramFile, String>;

impl<'a> Programs<'a> {
    pub(crate) fn new(settings: &'a Settings) -> Self {
        let this = std::env::current_exe().ok();
        let this = this.and_then(|path| fs::metadata(&path).ok().map(|found| (path, found)));
        Programs { settings, this, examined: RefCell::default() }
    }

    /// The path of this program, escaped.
    pub(crate) fn this_program(&self) -> String {
        let path = self.this.as_ref().map(|(path, _)| escape_path(path));
        path.unwrap_or_else(|| format!("/usr/bin/{PROGRAM}"))
    }

    /// What is known of the hook `parameter` of a module.
    pub(crate) fn hook(&self, module: &RsyncdModule, parameter: &'static str) -> HookFacts {
        let command = module.get(parameter).filter(|command| !command.is_empty());
        let variables = command.map(|command| hook_command::variables(command, module));
        let is_empty = |setting: &Setting| setting.is_own && setting.value.is_empty();
        let files = command.map(|command| hook_command::redirections(command, module));
        HookFacts {
            parameter,
            place: module.place_of(parameter).to_string(),
            variables: variables.unwrap_or_default(),
            failing_redirection: files.unwrap_or_default().iter().find_map(failure),
            is_emptied: module.setting(parameter).is_some_and(is_empty),
            reading: command
                .map_or(HookReading::Unset, |command| self.reading(module, parameter, command)),
        }
    }

    fn reading(&self, module: &RsyncdModule, parameter: &str, command: &[u8]) -> HookReading {
        let unclear = |why: String| HookReading::Unclear {
            why,
            names_this_program: module.runs_this_program(parameter),
        };
        if module.get("daemon chroot").is_some_and(|chroot| !chroot.is_empty()) {
            return unclear("it runs in the directory of `daemon chroot`".to_string());
        }
        let words = match hook_command::read(command, module) {
            HookCommand::Words(words) => words,
            HookCommand::Shell(why) => {
                return unclear(format!("a shell decides what runs, because of {why}"));
            }
        };
        let (Some(program), arguments) = (words.first(), &words[1..]) else {
            return unclear("it is empty".to_string());
        };
        let Some(path) = found(program) else {
            return unclear(format!("{} is looked for in the daemon's PATH", escape(program)));
        };
        let file = match self.file(&path) {
            Ok(file) => file,
            Err(why) => return unclear(why),
        };
        // Another program may start this one.
        let is_named = module.runs_this_program(parameter);
        if matches!(file, ProgramFile::Foreign | ProgramFile::Unrelated) && is_named {
            return unclear(format!("{} may run {PROGRAM}", escape_path(&path)));
        }
        let file = match file {
            ProgramFile::Unrelated if may_start(&path, arguments) => ProgramFile::Foreign,
            file => file,
        };
        let arguments = arguments.iter().map(|word| OsString::from_vec(word.clone())).collect();
        let arguments = self.settings.read_hook(arguments);
        let is_fixed = |file: &&Path| variables_in(file, module).is_empty();
        let missing = |file: &Option<OsString>| {
            let file = file.as_ref().map(Path::new).filter(|file| file.is_absolute());
            file.filter(is_fixed).filter(|file| is_missing(file)).map(escape_path)
        };
        let read = arguments.as_ref().ok();
        let missing_config = read.and_then(|read| missing(&read.config));
        let missing_conf = read.and_then(|read| missing(&read.rsyncd_conf));
        HookReading::Program {
            names_this_program: is_named || is_meant(&path),
            path: escape_path(&path),
            file,
            missing_config,
            missing_conf,
            arguments,
        }
    }

    fn file(&self, path: &Path) -> Examined {
        if let Some(known) = self.examined.borrow().get(path) {
            return known.clone();
        }
        let file = self.examine(path);
        self.examined.borrow_mut().insert(path.to_path_buf(), file.clone());
        file
    }

    fn examine(&self, path: &Path) -> Examined {
        if !is_responsive(path) {
            return Err(format!("the file system of {} does not answer", escape_path(path)));
        }
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if is_absent(&error) => return Ok(ProgramFile::Missing),
            Err(error) => return Err(format!("{}: {error}", escape_path(path))),
        };
        if !metadata.is_file() {
            return Ok(ProgramFile::NoFile);
        }
        if metadata.permissions().mode() & 0o111 == 0 || is_on_noexec(path) {
            return Ok(ProgramFile::NotExecutable);
        }
        let Some((this, own)) = &self.this else { return Ok(ProgramFile::This) };
        if (metadata.dev(), metadata.ino()) == (own.dev(), own.ino()) {
            return Ok(ProgramFile::This);
        }
        let content = |path: &Path| File::open(path).map(BufReader::new);
        let failed = |error: std::io::Error| format!("{}: {error}", escape_path(path));
        if metadata.len() == own.len()
            && are_equal(content(path).map_err(failed)?, content(this).map_err(failed)?)
        {
            return Ok(ProgramFile::This);
        }
        let mut start = Vec::new();
        content(path).map_err(failed)?.take(256).read_to_end(&mut start).map_err(failed)?;
        if let Some(why) = broken_script(path, &start) {
            return Ok(ProgramFile::BrokenScript(why));
        }
        match (start.starts_with(b"\x7fELF"), is_called_so(path)) {
            (true, _) if metadata.len() > MAX_SEARCHED => Ok(ProgramFile::Foreign),
            (true, _) if holds(path, STATE_DIRECTORY_VARIABLE) => Ok(ProgramFile::OtherVersion),
            // A shell runs a file without `#!` as a script, and an empty one does nothing.
            (true, true) => Ok(ProgramFile::Impostor),
            (false, true) if metadata.len() == 0 => Ok(ProgramFile::Impostor),
            // A compiled wrapper holds the name of what it runs.
            (true, false) if !holds(path, PROGRAM) => Ok(ProgramFile::Unrelated),
            _ => Ok(ProgramFile::Foreign),
        }
    }
}

/// Why a shell surely cannot open the file of a redirection, with the remedy.
fn failure(redirection: &Redirection) -> Option<String> {
    let Redirection { file, writes } = redirection;
    let shown = escape_path(file);
    let parent = file.parent()?;
    if !is_responsive(file) {
        return None;
    }
    if file.is_dir() && *writes {
        return Some(format!("{shown}, which it is to write to, is a directory; name a file"));
    }
    if *writes && is_missing(parent) {
        let make = shell_path(parent);
        return Some(format!(
            "{shown}, which it is to write to, is in a directory that does not exist; run \
             `install -d {make}`, or correct the line"
        ));
    }
    (!writes && is_missing(file)).then(|| {
        format!("{shown}, which it is to read, does not exist; make it, or correct the line")
    })
}

/// Why the kernel surely cannot run a script with this beginning, with the remedy.
fn broken_script(path: &Path, start: &[u8]) -> Option<String> {
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    if line.ends_with(b"\r") {
        return Some(format!(
            "its lines end as on Windows, so its interpreter is not found; run `sed -i 's/\\r$//' \
             {}`",
            shell_path(path)
        ));
    }
    let interpreter = line.trim_ascii_start().split(|byte| b" \t".contains(byte)).next()?;
    let file = Path::new(OsStr::from_bytes(interpreter));
    (file.is_absolute() && is_missing(file)).then(|| {
        format!("its interpreter {} does not exist; correct its first line", escape(interpreter))
    })
}

/// The path of the program that a shell runs for `word`; none if that depends on the daemon.
pub(crate) fn found(word: &[u8]) -> Option<PathBuf> {
    let path = Path::new(OsStr::from_bytes(word));
    if path.is_absolute() {
        return Some(path.to_path_buf());
    }
    if word.contains(&b'/') {
        return None;
    }
    DIRECTORIES.iter().map(|directory| Path::new(directory).join(path)).find(|path| path.is_file())
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP))
}

fn is_missing(path: &Path) -> bool {
    is_responsive(path) && fs::metadata(path).is_err_and(|error| is_absent(&error))
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn is_called_so(path: &Path) -> bool {
    file_name(path) == PROGRAM
}

/// Whether a path is this program's, perhaps with a typing mistake.
fn is_meant(path: &Path) -> bool {
    let names = path.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
    closest(&file_name(path), [PROGRAM]).is_some() || names.into_iter().any(|name| name == PROGRAM)
}

fn is_on_noexec(path: &Path) -> bool {
    let flags = rustix::fs::statvfs(path).map(|facts| facts.f_flag);
    flags.is_ok_and(|flags| flags.contains(rustix::fs::StatVfsMountFlags::NOEXEC))
}

fn are_equal(mut one: impl Read, mut other: impl Read) -> bool {
    let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        match (fill(&mut one, &mut left), fill(&mut other, &mut right)) {
            (Ok(0), Ok(0)) => return true,
            (Ok(some), Ok(same)) if left[..some] == right[..same] => {}
            _ => return false,
        }
    }
}

fn fill(source: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match source.read(&mut buffer[length..])? {
            0 => break,
            some => length += some,
        }
    }
    Ok(length)
}

/// Programs that run no other program.
const RUN_NOTHING: [&str; 8] =
    ["true", "false", "echo", "logger", "touch", "sync", "date", "sleep"];

/// Whether a program may start this one by what its arguments name, such as `sh` with a script.
fn may_start(path: &Path, arguments: &[Vec<u8>]) -> bool {
    let names_a_file = |word: &Vec<u8>| word.contains(&b'/') || found(word).is_some();
    !RUN_NOTHING.contains(&file_name(path).as_str()) && arguments.iter().any(names_a_file)
}

fn variables_in(file: &Path, module: &RsyncdModule) -> Vec<(String, HookVariable)> {
    hook_command::variables(file.as_os_str().as_bytes(), module)
}

/// Whether a file holds this text. Each version of this program holds the name of the variable that
/// it reads.
fn holds(path: &Path, text: &str) -> bool {
    let Ok(content) = fs::read(path) else { return true };
    let mut rest = content.as_slice();
    while let Some(at) = rest.iter().position(|byte| *byte == text.as_bytes()[0]) {
        rest = &rest[at..];
        if rest.starts_with(text.as_bytes()) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}
