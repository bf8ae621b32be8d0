//! Writes the commands in a message of `check` as a person types them.
//!
//! Messages that several commands share name a command of this program without program and module,
//! such as `rotate --confirm`: there the reader has just typed both. A line of monitoring stands
//! alone, so `check` writes `rsyncd-snapshot rotate laptop --confirm`. If `check` itself was given
//! a policy file or a configuration of rsyncd, each command gets the same: without, it would act
//! on another server.

use crate::decide::name::SnapshotName;
use crate::decide::zone::Zone;
use crate::tell::PROGRAM;

/// The commands that work on one module and need nothing else than options.
const COMMANDS: [&str; 6] = ["list", "plan", "release", "rotate", "snapshot", "verify"];

/// The commands that want a module and then the name of a snapshot.
const SNAPSHOT_COMMANDS: [&str; 4] = ["diff", "pin", "restore", "unpin"];

/// All commands that messages name.
const ALL_COMMANDS: [&str; 15] = [
    "check",
    "diff",
    "expire",
    "hold",
    "import-policy",
    "list",
    "pin",
    "plan",
    "release",
    "restore",
    "rotate",
    "snapshot",
    "undelete",
    "unpin",
    "verify",
];

/// `message` with whole commands on the module that a shell knows as `module`.
pub(crate) fn with_module(message: &str, module: &str) -> String {
    with_code(message, |code| whole(code, module))
}

/// `message` with these options of this program in each of its commands.
pub(crate) fn with_options(message: &str, options: &str) -> String {
    with_code(message, |code| {
        let (before, command) = code.split_once(PROGRAM)?;
        let mut words = command.strip_prefix(' ')?.split(' ');
        let is_command = words.next().is_some_and(|name| ALL_COMMANDS.contains(&name));
        let is_run = before.is_empty() || before.starts_with("sudo ");
        let has_options = words.any(|word| ["--config", "--rsyncd-conf"].contains(&word));
        if options.is_empty() || !is_command || !is_run || has_options {
            return None;
        }
        Some(match code.split_once(" -- ") {
            Some((own, rest)) => format!("{own} {options} -- {rest}"),
            None => format!("{code} {options}"),
        })
    })
}

/// `message` with each command of this program run by the user whom a shell knows as `user`.
pub(crate) fn by_user(message: &str, user: &str) -> String {
    with_code(message, |code| {
        let name = code.strip_prefix(PROGRAM)?.strip_prefix(' ')?.split(' ').next()?;
        ALL_COMMANDS.contains(&name).then(|| format!("sudo -u {user} {code}"))
    })
}

/// `message` with other text for what stands in backticks, where there is some.
fn with_code(message: &str, changed: impl Fn(&str) -> Option<String>) -> String {
    let mut parts = message.split('`');
    let mut text = parts.next().unwrap_or_default().to_string();
    let mut is_code = true;
    for part in parts {
        text.push('`');
        match changed(part).filter(|_| is_code) {
            Some(command) => text.push_str(&command),
            None => text.push_str(part),
        }
        is_code = !is_code;
    }
    text
}

/// The whole command; `None` if this is no command, or one that is whole already.
fn whole(code: &str, module: &str) -> Option<String> {
    let code = code.strip_prefix(PROGRAM).and_then(|code| code.strip_prefix(' ')).unwrap_or(code);
    let (command, options) = code.split_once(' ').map_or((code, ""), |(one, rest)| (one, rest));
    let mut words = options.split_ascii_whitespace();
    let quoted = options.strip_prefix('\'').and_then(|rest| rest.split('\'').next());
    let names_snapshot = quoted
        .or_else(|| words.clone().next())
        .is_some_and(|word| SnapshotName::parse(word.as_bytes(), &Zone::utc()).is_some());
    let lacks_module = match SNAPSHOT_COMMANDS.contains(&command) {
        true => names_snapshot,
        false => COMMANDS.contains(&command) && words.all(|word| word.starts_with("--")),
    };
    (lacks_module && !options.contains("--all")).then(|| {
        let gap = if options.is_empty() { "" } else { " " };
        format!("{PROGRAM} {command} {module}{gap}{options}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_gets_its_program_and_module() {
        for (message, expected) in [
            ("run `rotate --confirm`", "run `rsyncd-snapshot rotate laptop --confirm`"),
            (
                "look at `plan`; then `release`",
                "look at `rsyncd-snapshot plan laptop`; then `rsyncd-snapshot release laptop`",
            ),
            ("`list`", "`rsyncd-snapshot list laptop`"),
            (
                "`diff 2026-11-30T01-02-03Z`, `rsyncd-snapshot restore 2026-11-30T01-02-03Z a`",
                "`rsyncd-snapshot diff laptop 2026-11-30T01-02-03Z`, \
                 `rsyncd-snapshot restore laptop 2026-11-30T01-02-03Z a`",
            ),
            ("`rsyncd-snapshot release`", "`rsyncd-snapshot release laptop`"),
            (
                "`unpin '2019-08-02 12:00:00'`",
                "`rsyncd-snapshot unpin laptop '2019-08-02 12:00:00'`",
            ),
        ] {
            assert_eq!(with_module(message, "laptop"), expected);
        }
        for other in [
            "",
            "no command",
            "rotate `min_keep`",
            "`chmod 0700 /srv`, `umount`",
            "`rsyncd-snapshot release data --torn`",
            "`snapshot --all --due`",
            "`snapshot data`",
            "`rsyncd-snapshot pin data 2026-11-30T01-02-03Z`",
            "`snapshot_root`",
            "not `closed",
        ] {
            assert_eq!(with_module(other, "laptop"), other);
        }
    }

    #[test]
    fn a_command_is_run_by_the_user_whose_history_it_works_on() {
        let message = "run `rsyncd-snapshot list a`, or `chmod 0700 /a`";
        let expected = "run `sudo -u '#7' rsyncd-snapshot list a`, or `chmod 0700 /a`";
        assert_eq!(by_user(message, "'#7'"), expected);
        assert_eq!(by_user(expected, "'#7'"), expected);
    }

    #[test]
    fn a_command_gets_the_files_that_check_was_given() {
        let options = "--config /p";
        for (message, expected) in [
            ("run `rsyncd-snapshot list a`", "run `rsyncd-snapshot list a --config /p`"),
            (
                "`rsyncd-snapshot hold a 1 -- ls {}`",
                "`rsyncd-snapshot hold a 1 --config /p -- ls {}`",
            ),
            ("`sudo rsyncd-snapshot check`", "`sudo rsyncd-snapshot check --config /p`"),
            (
                "`sudo -u anna rsyncd-snapshot check a`",
                "`sudo -u anna rsyncd-snapshot check a --config /p`",
            ),
            ("`rsyncd-snapshot list a --config /q`", "`rsyncd-snapshot list a --config /q`"),
            ("`x = /bin/rsyncd-snapshot pre-xfer`", "`x = /bin/rsyncd-snapshot pre-xfer`"),
            ("`rsyncd-snapshot` `rsyncd-snapshot x`", "`rsyncd-snapshot` `rsyncd-snapshot x`"),
            ("rsyncd-snapshot list `chmod x`", "rsyncd-snapshot list `chmod x`"),
        ] {
            assert_eq!(with_options(message, options), expected);
            assert_eq!(with_options(message, ""), message);
        }
    }
}
