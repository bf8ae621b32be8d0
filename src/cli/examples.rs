//! The examples below the help of each command of rsyncd-snapshot.
//!
//! They are added to the command line here, so that one table holds them all. A test parses each.

use std::ffi::OsString;

use clap::{Command, Parser};

/// The examples of each command. `hold`, `restore` and `setup` have more to say below their
/// options, and have theirs there.
const EXAMPLES: [(&str, &str); 15] = [
    (
        "pre-xfer",
        "In rsyncd.conf:
    pre-xfer exec = /usr/bin/rsyncd-snapshot pre-xfer",
    ),
    (
        "post-xfer",
        "In rsyncd.conf:
    post-xfer exec = /usr/bin/rsyncd-snapshot post-xfer --detach",
    ),
    (
        "snapshot",
        "Examples:
    rsyncd-snapshot snapshot laptop
    rsyncd-snapshot snapshot --all --due    # what a timer runs
    rsyncd-snapshot snapshot /srv/backup/laptop/latest --status 0",
    ),
    (
        "rotate",
        "Examples:
    rsyncd-snapshot rotate laptop --dry-run
    rsyncd-snapshot rotate laptop --confirm    # the clock and the policy are right
    rsyncd-snapshot rotate --all --purge",
    ),
    (
        "plan",
        "Examples:
    rsyncd-snapshot plan laptop --sizes
    rsyncd-snapshot plan laptop --policy new.toml    # before a policy is changed
    rsyncd-snapshot plan --replay 2y --every 1h",
    ),
    (
        "list",
        "Examples:
    rsyncd-snapshot list
    rsyncd-snapshot list laptop --sizes
    rsyncd-snapshot list laptop --expired    # what undelete can bring back",
    ),
    (
        "pin",
        "Examples:
    rsyncd-snapshot pin laptop newest --reason 'before the upgrade'
    rsyncd-snapshot pin laptop 2026-11-22",
    ),
    (
        "unpin",
        "Examples:
    rsyncd-snapshot unpin laptop 2026-11-22",
    ),
    (
        "expire",
        "Examples:
    rsyncd-snapshot expire laptop 2026-11-22 --dry-run    # says what that frees
    rsyncd-snapshot expire laptop 2026-11-22T19-08-31Z --now",
    ),
    (
        "undelete",
        "Examples:
    rsyncd-snapshot list laptop --expired
    rsyncd-snapshot undelete laptop 2026-11-22",
    ),
    (
        "verify",
        "Examples:
    rsyncd-snapshot verify --all --quiet
    rsyncd-snapshot verify laptop --repair-attributes",
    ),
    (
        "release",
        "Examples:
    rsyncd-snapshot release laptop    # the large change was meant
    rsyncd-snapshot release laptop --torn",
    ),
    (
        "status",
        "Examples:
    rsyncd-snapshot status
    rsyncd-snapshot status laptop --verbose    # what to do next",
    ),
    (
        "check",
        "Examples:
    rsyncd-snapshot check
    rsyncd-snapshot check laptop --verbose
    rsyncd-snapshot check --quiet    # from cron: prints problems only
    rsyncd-snapshot check --prometheus --output /var/lib/prometheus/node-exporter/backup.prom",
    ),
    (
        "import-policy",
        "Example:
    rsyncd-snapshot import-policy /etc/rotate-backups.ini > rsyncd-snapshot.toml",
    ),
];

/// Reads a command line, whose help then has examples.
pub(crate) fn parse<CommandLine: Parser>(
    arguments: impl Iterator<Item = OsString>,
) -> Result<CommandLine, clap::Error> {
    let mut matches = added_to(CommandLine::command()).try_get_matches_from(arguments)?;
    CommandLine::from_arg_matches_mut(&mut matches)
        .map_err(|error| error.format(&mut CommandLine::command()))
}

/// The command line with its examples.
pub(crate) fn added_to(mut command: Command) -> Command {
    for (name, text) in EXAMPLES {
        command = command.mut_subcommand(name, |command| command.after_help(text));
    }
    command
}
