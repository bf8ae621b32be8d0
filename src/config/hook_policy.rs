//! Which policy the hooks of a module use.
//!
//! The hooks decide what expires after each push, so a command that names no policy has to decide
//! by the same one: a snapshot that the hooks keep must not go because a timer or the administrator
//! runs a command. What a shell makes of a script is not predicted; then nothing is known.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::config::hook_command::{self, HookCommand};
use crate::config::own_program::is_this_program;
use crate::config::rsyncd_module::RsyncdModule;
use crate::tell::PROGRAM;
use crate::tell::escape::escape_path;

/// The hook that lets transfers in or turns them away.
pub(crate) const PRE_XFER: &str = "pre-xfer exec";
/// The hook that makes snapshots.
pub(crate) const POST_XFER: &str = "post-xfer exec";

/// What a command line of this program is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HookPurpose {
    PreXfer,
    PostXfer {
        detach: bool,
    },
    /// Another command.
    Other,
}

/// What the arguments of a hook mean to this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HookArguments {
    pub(crate) purpose: HookPurpose,
    /// The value of `--config`.
    pub(crate) config: Option<OsString>,
    /// The value of `--rsyncd-conf`.
    pub(crate) rsyncd_conf: Option<OsString>,
}

/// What the arguments of a hook mean, or what is wrong with them.
pub(crate) type HookLine = Result<HookArguments, String>;

/// Reads the arguments of a hook as this program would.
pub(crate) type ReadHookArguments = fn(&[OsString]) -> HookLine;

/// The policy that one hook uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HookPolicy {
    /// It names none.
    Default,
    File(PathBuf),
}

impl HookPolicy {
    fn shown(&self) -> String {
        match self {
            HookPolicy::Default => "no policy".to_string(),
            HookPolicy::File(file) => format!("the policy {}", escape_path(file)),
        }
    }
}

/// The policy that the hooks of a module use together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HooksPolicy {
    /// No hook surely runs this program.
    Unknown,
    Known(HookPolicy),
    /// Two hooks use different ones, or the client decides which; as the rest of a message.
    Undecided(String),
}

/// The policy that the module's hooks use. `are_same`: whether two policies are one file.
pub(crate) fn of_module(
    module: &RsyncdModule,
    read: impl Fn(Vec<OsString>) -> HookLine,
    are_same: impl Fn(&HookPolicy, &HookPolicy) -> bool,
) -> HooksPolicy {
    let hook = |parameter| policy_of(module, parameter, &read);
    let post = hook(POST_XFER);
    let (one, other) = match (hook(PRE_XFER), post) {
        (Some(pre), Some(post)) => (post, Some(pre)),
        (pre, post) => match post.or(pre) {
            Some(only) => (only, None),
            None => return HooksPolicy::Unknown,
        },
    };
    let place = |parameter| format!("{}: {parameter}", module.place_of(parameter));
    match other {
        Some(pre) if !are_same(&pre, &one) => HooksPolicy::Undecided(format!(
            "commands cannot tell which policy counts, since {} names {}, and {} names {}; give \
             both lines the same `--config`",
            place(PRE_XFER),
            pre.shown(),
            place(POST_XFER),
            one.shown(),
        )),
        _ => match &one {
            HookPolicy::File(file) if names_variable(file, module) => {
                HooksPolicy::Undecided(format!(
                    "commands cannot tell which policy counts, since the one that {} names, {}, \
                     depends on the client; name one without a variable",
                    place(POST_XFER),
                    escape_path(file)
                ))
            }
            _ => HooksPolicy::Known(one),
        },
    }
}

fn names_variable(file: &Path, module: &RsyncdModule) -> bool {
    !hook_command::variables(file.as_os_str().as_bytes(), module).is_empty()
}

/// The policy of one hook, if it surely runs this program, also by way of one such as `nice`.
fn policy_of(
    module: &RsyncdModule,
    parameter: &str,
    read: impl Fn(Vec<OsString>) -> HookLine,
) -> Option<HookPolicy> {
    let command = module.get(parameter).filter(|command| !command.is_empty())?;
    // Its files are then those below that directory.
    if module.get("daemon chroot").is_some_and(|chroot| !chroot.is_empty()) {
        return None;
    }
    let HookCommand::Words(words) = hook_command::read(command, module) else { return None };
    let program = words.iter().position(|word| is_own(word))?;
    let arguments = words[program + 1..].iter().map(|word| OsString::from_vec(word.clone()));
    Some(match read(arguments.collect()).ok()?.config {
        None => HookPolicy::Default,
        // A hook runs in the directory `/`.
        Some(file) => HookPolicy::File(Path::new("/").join(file)),
    })
}

fn is_own(word: &[u8]) -> bool {
    let path = Path::new(OsStr::from_bytes(word));
    path.file_name() == Some(OsStr::new(PROGRAM)) || path.is_absolute() && is_this_program(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::rsyncd_conf::RsyncdConf;

    fn read(arguments: Vec<OsString>) -> HookLine {
        let mut config = None;
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            match word.to_str() {
                Some("--config") => config = words.next().cloned(),
                Some("pre-xfer" | "post-xfer") => {}
                _ => return Err("unexpected".to_string()),
            }
        }
        Ok(HookArguments { purpose: HookPurpose::Other, config, rsyncd_conf: None })
    }

    fn of(pre: &str, post: &str, above: &str) -> HooksPolicy {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("rsyncd.conf");
        let line = |parameter: &str, command: &str| match command {
            "" => String::new(),
            command => format!("{parameter} = {command}\n"),
        };
        let text = format!(
            "{above}[m]\npath = /srv/m\n{}{}",
            line("pre-xfer exec", pre),
            line("post-xfer exec", post)
        );
        std::fs::write(&file, text).expect("written");
        let conf = RsyncdConf::read(&file).expect("read");
        of_module(conf.module(b"m").expect("it"), read, |one, other| one == other)
    }

    #[test]
    fn the_hooks_say_which_policy_they_use() {
        let own = "/usr/bin/rsyncd-snapshot";
        let file = |path: &str| HooksPolicy::Known(HookPolicy::File(path.into()));
        let default = HooksPolicy::Known(HookPolicy::Default);
        for (pre, post, expected) in [
            ("", "", HooksPolicy::Unknown),
            ("", "@", default.clone()),
            ("@ pre-xfer", "@", default.clone()),
            ("", "@ --config /p", file("/p")),
            ("@ --config /p pre-xfer", "@ --config /p", file("/p")),
            ("@ --config /p pre-xfer", "", file("/p")),
            // A script is as unknown as no hook.
            ("@ --config /p pre-xfer", "/usr/local/bin/script", file("/p")),
            ("/usr/local/bin/script --config /q", "@ --config /p", file("/p")),
            ("", "/usr/local/bin/script --config /p", HooksPolicy::Unknown),
            ("", "@ --config /p | logger", HooksPolicy::Unknown),
            ("", "@ --no-such-option --config /p", HooksPolicy::Unknown),
            ("", "nice -n 19 @ --config /p post-xfer >>/var/log/x 2>&1", file("/p")),
            ("", "rsyncd-snapshot --config /p", file("/p")),
            ("", "@ --config p", file("/p")),
            ("", "@ --config /etc/%RSYNC_MODULE_NAME%.toml", file("/etc/m.toml")),
        ] {
            let (pre, post) = (pre.replace('@', own), post.replace('@', own));
            assert_eq!(of(&pre, &post, ""), expected, "{pre} {post}");
        }
        let chroot = "daemon chroot = /srv\n";
        assert_eq!(of("", &format!("{own} --config /p"), chroot), HooksPolicy::Unknown);
    }

    #[test]
    fn different_policies_are_told_with_both_lines() {
        let own = "/usr/bin/rsyncd-snapshot";
        for (pre, post, pre_names, post_names) in [
            ("@ --config /p pre-xfer", "@ --config /q", "the policy /p", "the policy /q"),
            ("@ pre-xfer", "@ --config /q", "no policy", "the policy /q"),
            ("@ --config /p pre-xfer", "@", "the policy /p", "no policy"),
        ] {
            let (pre, post) = (pre.replace('@', own), post.replace('@', own));
            let HooksPolicy::Undecided(why) = of(&pre, &post, "") else { panic!("{pre} {post}") };
            for told in [
                format!("rsyncd.conf:3: pre-xfer exec names {pre_names}"),
                format!("rsyncd.conf:4: post-xfer exec names {post_names}"),
            ] {
                assert!(why.contains(&told), "{why}");
            }
        }
        let of_client = of("", &format!("{own} --config /etc/%RSYNC_USER_NAME%.toml"), "");
        assert!(matches!(of_client, HooksPolicy::Undecided(why) if why.contains("the client")));
    }
}
