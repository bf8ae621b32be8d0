//! What `check` finds about the hooks of a module, before any transfer has run them.
//!
//! rsyncd discards the status of a hook, and a client sees no more than that its push was turned
//! away. So each mistake is told here, with its line.

use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::config::hook_command::HookVariable;
use crate::config::hook_policy::{HookArguments, HookPurpose, POST_XFER, PRE_XFER};
use crate::tell::PROGRAM;

pub(crate) const EARLY: &str = "early exec";
pub(crate) const NAME_CONVERTER: &str = "name converter";
pub(crate) const PRE_XFER_COMMAND: &str = "pre-xfer";

/// The file that a hook names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProgramFile {
    /// It is this program, or has the same content.
    This,
    /// It is another version of this program.
    OtherVersion,
    /// It is no program of this name, though it is called so.
    Impostor,
    /// It is something else: a script, or a program that may start this one.
    Foreign,
    /// It is a program that has not to do with this one, such as `/bin/true`.
    Unrelated,
    Missing,
    NoFile,
    NotExecutable,
    /// It is a script whose first line the kernel cannot follow, and why.
    BrokenScript(String),
}

/// What is known of a hook's command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HookReading {
    Unset,
    /// A shell decides what runs, or the file cannot be examined.
    Unclear {
        why: String,
        /// Whether the command names this program.
        names_this_program: bool,
    },
    Program {
        /// Escaped.
        path: String,
        file: ProgramFile,
        /// Whether the command names this program, perhaps with a typing mistake.
        names_this_program: bool,
        arguments: Result<HookArguments, String>,
        /// The file of `--config`, escaped, if it is missing.
        missing_config: Option<String>,
        /// The file of `--rsyncd-conf`, escaped, if it is missing.
        missing_conf: Option<String>,
    },
}

/// One hook of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HookFacts {
    /// Its parameter.
    pub(crate) parameter: &'static str,
    /// File and line.
    pub(crate) place: String,
    pub(crate) variables: Vec<(String, HookVariable)>,
    /// Why a redirection fails; the shell then runs nothing.
    pub(crate) failing_redirection: Option<String>,
    /// Whether the module itself has an empty line for it, which takes away one above all modules.
    pub(crate) is_emptied: bool,
    pub(crate) reading: HookReading,
}

impl HookFacts {
    /// Whether the hook is meant to run this program.
    pub(crate) fn is_ours(&self) -> bool {
        match &self.reading {
            HookReading::Unset => false,
            HookReading::Unclear { names_this_program, .. } => *names_this_program,
            HookReading::Program { file, names_this_program, .. } => match file {
                ProgramFile::This | ProgramFile::OtherVersion | ProgramFile::Impostor => true,
                ProgramFile::Foreign | ProgramFile::Unrelated => false,
                ProgramFile::Missing
                | ProgramFile::NoFile
                | ProgramFile::NotExecutable
                | ProgramFile::BrokenScript(_) => *names_this_program,
            },
        }
    }

    /// Whether it is not known if the hook runs this program, as of a script.
    pub(crate) fn may_be_ours(&self) -> bool {
        self.may_name_policy() && !self.is_ours()
    }

    /// Whether a shell or another program decides which policy is used.
    pub(crate) fn may_name_policy(&self) -> bool {
        match &self.reading {
            HookReading::Unclear { .. } => true,
            HookReading::Program { file, .. } => *file == ProgramFile::Foreign,
            HookReading::Unset => false,
        }
    }

    /// The missing file of `--config`, escaped.
    pub(crate) fn missing_config(&self) -> Option<&String> {
        match &self.reading {
            HookReading::Program { file: ProgramFile::This, missing_config, .. } => {
                missing_config.as_ref()
            }
            _ => None,
        }
    }

    /// What the hook does, if it is sure that this program runs.
    fn purpose(&self) -> Option<&HookPurpose> {
        match &self.reading {
            HookReading::Program {
                file: ProgramFile::This | ProgramFile::OtherVersion,
                arguments: Ok(arguments),
                ..
            } => Some(&arguments.purpose),
            _ => None,
        }
    }

    /// Whether the hook hands its work to a process that outlives the connection.
    pub(crate) fn detaches(&self) -> bool {
        self.purpose() == Some(&HookPurpose::PostXfer { detach: true })
    }

    pub(crate) fn consequence(&self) -> &'static str {
        match self.parameter {
            POST_XFER => "so no snapshot is made",
            NAME_CONVERTER => "so pushes with files of another owner than root break off",
            _ => "so every transfer is turned away",
        }
    }

    fn critical(&self, text: &str) -> Finding {
        let message = format!("{}: {}: {text}", self.place, self.parameter);
        Finding::new(FindingId::Hook, Severity::Critical, message)
    }
}

/// The hooks of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModuleHooks {
    pub(crate) early: HookFacts,
    pub(crate) pre: HookFacts,
    pub(crate) post: HookFacts,
    /// Whether some client may write to the module.
    pub(crate) is_writable: bool,
    /// The path of this program, escaped.
    pub(crate) this_program: String,
    /// The same with the options that its hooks need, as a line of rsyncd.conf has it.
    pub(crate) this_command: String,
}

/// All findings about the hooks of a module that is meant to get snapshots.
pub(crate) fn findings(hooks: &ModuleHooks) -> Vec<Finding> {
    let ModuleHooks { early, pre, post, .. } = hooks;
    let mut found = Vec::new();
    for hook in [early, pre, post] {
        found.extend(file_finding(hook, &hooks.this_program));
        found.extend(hook.failing_redirection.iter().map(|why| {
            hook.critical(&format!("the shell runs nothing, {}: {why}", hook.consequence()))
        }));
        found.extend(argument_findings(hook));
        found.extend(hook.variables.iter().filter_map(|named| variable_finding(hook, named)));
    }
    found.extend(missing_policies(hooks));
    found.extend(purpose_findings(hooks));
    found.extend(missing_hook(hooks));
    found
}

pub(crate) fn file_finding(hook: &HookFacts, this: &str) -> Option<Finding> {
    let cannot_tell = |why: String| {
        let why = format!("{}: {}: {why}", hook.place, hook.parameter);
        Some(Finding::cannot_tell(FindingId::Hook, why))
    };
    let (path, file) = match &hook.reading {
        HookReading::Unset => return None,
        HookReading::Unclear { why, .. } => return cannot_tell(why.clone()),
        HookReading::Program { path, file, .. } => (path, file),
    };
    let so = hook.consequence();
    let mend = match hook.is_ours() {
        true => format!("name {this} in that line"),
        false => "correct the line, or take it out".to_string(),
    };
    let text = match file {
        ProgramFile::This => return None,
        ProgramFile::Foreign => {
            return cannot_tell(format!(
                "{path} is another program, which may run {PROGRAM} or not"
            ));
        }
        ProgramFile::Unrelated if hook.parameter != POST_XFER && path.ends_with("/false") => {
            format!("{path} always fails, {so}; take the line out when clients shall push again")
        }
        // What another program does before a transfer is no matter of this one.
        ProgramFile::Unrelated if hook.parameter != POST_XFER => return None,
        ProgramFile::Unrelated => {
            let message = format!(
                "{}: {}: {path} is another program and no script that could run {PROGRAM}, so it \
                 seems that no snapshot is made; name {this} in \
                 that line",
                hook.place, hook.parameter
            );
            return Some(Finding::new(FindingId::Hook, Severity::Warning, message));
        }
        ProgramFile::OtherVersion => {
            let message = format!(
                "{}: {}: {path} is another version of this program ({this}), which therefore \
                 cannot tell what it does; install one version in both places, or name {this} \
                 in that line",
                hook.place, hook.parameter
            );
            return Some(Finding::new(FindingId::Hook, Severity::Warning, message));
        }
        // A command that is quoted as a whole is one name for the shell.
        ProgramFile::Missing if path.contains(' ') => format!(
            "{path} does not exist, {so}: quotes around a whole command make one name of it; leave \
             them out"
        ),
        ProgramFile::Missing if hook.is_ours() => {
            format!("{path} does not exist (this program is {this}), {so}; {mend}")
        }
        ProgramFile::Missing => format!("{path} does not exist, {so}; {mend}"),
        ProgramFile::NoFile => format!("{path} is no file, {so}; {mend}"),
        ProgramFile::Impostor => {
            format!("{path} is not {PROGRAM}, though it is called so, {so}; {mend}")
        }
        ProgramFile::BrokenScript(why) => format!("{path} cannot run, {so}: {why}"),
        ProgramFile::NotExecutable => format!(
            "{path} cannot be executed, {so}; {mend}, or if it is a program that you want to run, \
             `chmod +x {path}`, which does not help where the file system is mounted with `noexec`"
        ),
    };
    Some(hook.critical(&text))
}

fn argument_findings(hook: &HookFacts) -> Vec<Finding> {
    let HookReading::Program { path, file: ProgramFile::This, arguments, missing_conf, .. } =
        &hook.reading
    else {
        return Vec::new();
    };
    let wrong = arguments.as_ref().err().map(|problem| {
        hook.critical(&format!(
            "{path} does not understand this command line: {problem}; {}; correct that line, \
             `{path} --help` shows what it may say",
            hook.consequence()
        ))
    });
    let blind = missing_conf.as_ref().map(|file| {
        let message = format!(
            "{}: {}: {file} does not exist, so the hook does not know the other modules, whose \
             clients could write to its snapshots; correct `--rsyncd-conf`",
            hook.place, hook.parameter
        );
        Finding::new(FindingId::Hook, Severity::Warning, message)
    });
    wrong.into_iter().chain(blind).collect()
}

/// The policies that hooks name and that are not there, each told once.
fn missing_policies(hooks: &ModuleHooks) -> Vec<Finding> {
    let told = |hook: &HookFacts, file: &str, other: &str| {
        hook.critical(&format!(
            "the policy file {file} does not exist, so nothing ever expires; correct \
             `--config`{other}, or make that file ([defaults] is enough)"
        ))
    };
    let (pre, post) = (&hooks.pre, &hooks.post);
    match (pre.missing_config(), post.missing_config()) {
        (Some(file), Some(same)) if file == same => {
            let other = format!(" there and in {}", post.place);
            vec![told(pre, file, &other)]
        }
        (of_pre, of_post) => {
            let both = [(pre, of_pre), (post, of_post)].into_iter();
            both.filter_map(|(hook, file)| Some(told(hook, file?, ""))).collect()
        }
    }
}

fn variable_finding(hook: &HookFacts, named: &(String, HookVariable)) -> Option<Finding> {
    let (name, meaning) = named;
    let (severity, text) = match meaning {
        HookVariable::Plain(_) => return None,
        HookVariable::NeverPlain(_) => (
            Severity::Critical,
            "rsync turns every transfer away, since its value has a blank or another letter that \
             a shell interprets",
        ),
        HookVariable::MostlyNot => (
            Severity::Critical,
            "rsync turns each transfer away in which its value has a blank or another letter that \
             a shell interprets",
        ),
        HookVariable::OfClient => (
            Severity::Warning,
            "rsync turns a transfer away if its value has a blank or another letter that a shell \
             interprets, and the client decides that",
        ),
    };
    let message = format!(
        "{}: {} uses %{name}%: {text}; leave it out, since {PROGRAM} reads all of that from its \
         environment",
        hook.place, hook.parameter
    );
    Some(Finding::new(FindingId::HookVariable, severity, message))
}

/// What the hooks do in each other's place.
fn purpose_findings(hooks: &ModuleHooks) -> Vec<Finding> {
    let ModuleHooks { early, pre, post, this_command, .. } = hooks;
    let mut found = Vec::new();
    match post.purpose() {
        Some(HookPurpose::PreXfer) => found.push(post.critical(&format!(
            "it runs `{PROGRAM} {PRE_XFER_COMMAND}`, so no snapshot is made; leave out the last \
             word"
        ))),
        Some(HookPurpose::Other) => found.push(post.critical(&format!(
            "it runs another command, so no snapshot is made; write `{POST_XFER} = {this_command}`"
        ))),
        Some(HookPurpose::PostXfer { .. }) | None => {}
    }
    match pre.purpose() {
        Some(HookPurpose::PreXfer) | None => {}
        Some(HookPurpose::PostXfer { .. } | HookPurpose::Other) => {
            found.push(pre.critical(&format!(
                "it has to run `{this_command} {PRE_XFER_COMMAND}`; as it is, every transfer is \
                 turned away"
            )));
        }
    }
    if early.is_ours() {
        found.push(early.critical(&format!(
            "rsyncd tells this hook nothing about the transfer; move the command to \
             `{PRE_XFER}`"
        )));
    }
    found
}

/// One hook without the other.
fn missing_hook(hooks: &ModuleHooks) -> Option<Finding> {
    let ModuleHooks { pre, post, is_writable, this_command, .. } = hooks;
    // An empty line takes away what stands above all modules, so that is the line to mend.
    let emptied = |hook: &HookFacts, command: &str, so: &str| {
        hook.is_emptied.then(|| {
            format!(
                "{}: this empty `{} =` leaves the module without that hook, {so}; take the line \
                 out if the hook stands above all modules, or else write `{} = {command}` there",
                hook.place, hook.parameter, hook.parameter
            )
        })
    };
    match (pre.is_ours(), post.is_ours()) {
        (true, false) if post.reading == HookReading::Unset => {
            let missing = || {
                format!(
                    "{}: {PRE_XFER} without {POST_XFER}: no snapshot is made, and each push leaves \
                     the module torn; add `{POST_XFER} = {this_command}`",
                    pre.place
                )
            };
            let so = "so no snapshot is made, and each push leaves the module torn";
            let message = emptied(post, this_command, so).unwrap_or_else(missing);
            Some(Finding::new(FindingId::HookMissing, Severity::Critical, message))
        }
        (false, false) if post.reading == HookReading::Unset => {
            let missing = || {
                format!(
                    "{}: the module has no {POST_XFER} that runs {PROGRAM}, so no snapshot is \
                     made; add `{POST_XFER} = {this_command}`",
                    post.place
                )
            };
            let message = emptied(post, this_command, "so no snapshot is made");
            let message = message.unwrap_or_else(missing);
            Some(Finding::new(FindingId::HookMissing, Severity::Warning, message))
        }
        (false, true) if *is_writable && pre.reading == HookReading::Unset => {
            let command = format!("{this_command} {PRE_XFER_COMMAND}");
            let why = "which keeps pushes apart from snapshots";
            let message = emptied(pre, &command, why)
                .unwrap_or_else(|| format!("`{PRE_XFER} = {command}` is recommended, {why}"));
            Some(Finding::new(FindingId::PreXferMissing, Severity::Ok, message))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(parameter: &'static str, reading: HookReading) -> HookFacts {
        let place = "/etc/rsyncd.conf:7".to_string();
        HookFacts {
            parameter,
            place,
            variables: Vec::new(),
            failing_redirection: None,
            is_emptied: false,
            reading,
        }
    }

    fn program(file: ProgramFile, purpose: HookPurpose) -> HookReading {
        HookReading::Program {
            path: "/usr/bin/rsyncd-snapshot".to_string(),
            file,
            names_this_program: true,
            arguments: Ok(HookArguments { purpose, config: None, rsyncd_conf: None }),
            missing_config: None,
            missing_conf: None,
        }
    }

    fn unclear(names_this_program: bool) -> HookReading {
        HookReading::Unclear { why: "a script".to_string(), names_this_program }
    }

    /// A hook that is no matter of this program and certainly fails.
    fn broken() -> HookReading {
        HookReading::Program {
            path: "/usr/local/sbin/push-hook".to_string(),
            file: ProgramFile::Missing,
            names_this_program: false,
            arguments: Err("none".to_string()),
            missing_config: None,
            missing_conf: None,
        }
    }

    const POST: HookPurpose = HookPurpose::PostXfer { detach: false };

    /// The worst finding that is more than a note.
    fn worst(pre: HookReading, post: HookReading) -> Option<(FindingId, Severity)> {
        let hooks = ModuleHooks {
            early: hook(EARLY, HookReading::Unset),
            pre: hook(PRE_XFER, pre),
            post: hook(POST_XFER, post),
            is_writable: true,
            this_program: "/usr/bin/rsyncd-snapshot".to_string(),
            this_command: "/usr/bin/rsyncd-snapshot".to_string(),
        };
        let found = findings(&hooks);
        let worst = found.iter().max_by_key(|finding| finding.level)?;
        (worst.level > Severity::Ok).then_some((worst.id, worst.level))
    }

    #[test]
    fn each_mistake_of_a_hook_is_found_and_its_look_alike_is_not() {
        use ProgramFile::{
            Foreign, Impostor, Missing, NoFile, NotExecutable, OtherVersion, This, Unrelated,
        };
        let pre = || program(This, HookPurpose::PreXfer);
        let post = || program(This, POST);
        let critical = Some((FindingId::Hook, Severity::Critical));
        for (pre, post, expected) in [
            (pre(), post(), None),
            (HookReading::Unset, post(), None),
            (pre(), program(This, HookPurpose::PostXfer { detach: true }), None),
            (unclear(true), unclear(true), None),
            (unclear(false), unclear(false), None),
            (pre(), unclear(false), None),
            (program(Foreign, POST), program(Foreign, POST), None),
            (pre(), program(Unrelated, POST), Some((FindingId::Hook, Severity::Warning))),
            (program(Unrelated, POST), post(), None),
            (broken(), post(), critical),
            (pre(), broken(), critical),
            (pre(), program(Missing, POST), critical),
            (program(Missing, HookPurpose::PreXfer), post(), critical),
            (pre(), program(NoFile, POST), critical),
            (pre(), program(Impostor, POST), critical),
            (pre(), program(NotExecutable, POST), critical),
            (pre(), program(OtherVersion, POST), Some((FindingId::Hook, Severity::Warning))),
            (pre(), program(This, HookPurpose::PreXfer), critical),
            (pre(), program(This, HookPurpose::Other), critical),
            (program(This, POST), post(), critical),
            (pre(), HookReading::Unset, Some((FindingId::HookMissing, Severity::Critical))),
            (
                HookReading::Unset,
                HookReading::Unset,
                Some((FindingId::HookMissing, Severity::Warning)),
            ),
        ] {
            assert_eq!(worst(pre.clone(), post.clone()), expected, "{pre:?} {post:?}");
        }
    }

    #[test]
    fn arguments_and_a_missing_policy_are_named() {
        let with = |arguments, missing_config: Option<&str>| HookReading::Program {
            path: "/x".to_string(),
            file: ProgramFile::This,
            names_this_program: true,
            arguments,
            missing_config: missing_config.map(str::to_string),
            missing_conf: None,
        };
        let good = || Ok(HookArguments { purpose: POST, config: None, rsyncd_conf: None });
        let wrong = hook(POST_XFER, with(Err("unexpected argument '--now'".to_string()), None));
        let found = argument_findings(&wrong);
        assert!(found[0].message.contains("unexpected argument '--now'"), "{found:?}");
        assert!(argument_findings(&hook(POST_XFER, with(good(), None))).is_empty());
        let missing = |pre: Option<&str>, post: Option<&str>| {
            let hooks = ModuleHooks {
                early: hook(EARLY, HookReading::Unset),
                pre: hook(PRE_XFER, with(good(), pre)),
                post: hook(POST_XFER, with(good(), post)),
                is_writable: true,
                this_program: "/x".to_string(),
                this_command: "/x".to_string(),
            };
            missing_policies(&hooks)
        };
        let file = Some("/etc/x.toml");
        assert!(missing(None, file)[0].message.contains("/etc/x.toml does not exist"));
        assert!(missing(file, file)[0].message.contains("there and in /etc/rsyncd.conf:7"));
        for (pre, post, count) in
            [(None, None, 0), (file, None, 1), (file, file, 1), (file, Some("/etc/y.toml"), 2)]
        {
            assert_eq!(missing(pre, post).len(), count, "{pre:?} {post:?}");
        }
    }

    #[test]
    fn a_variable_is_as_bad_as_its_values() {
        let used = hook(POST_XFER, HookReading::Unset);
        for (meaning, expected) in [
            (HookVariable::Plain(b"m".to_vec()), None),
            (HookVariable::NeverPlain(b"a b".to_vec()), Some(Severity::Critical)),
            (HookVariable::MostlyNot, Some(Severity::Critical)),
            (HookVariable::OfClient, Some(Severity::Warning)),
        ] {
            let found = variable_finding(&used, &("RSYNC_X".to_string(), meaning));
            assert_eq!(found.map(|finding| finding.level), expected);
        }
    }
}
