//! The options that an rsync server knows: which of them take a value, and the effect of the few
//! that decide what a transfer does.
//!
//! The table is the union of what rsync 3.0.9 to 3.5.0 know. No option ever changed whether it
//! takes a value, so one table serves all versions. If the installed rsyncd does not know an option
//! yet, it refuses the transfer. The options that end or fail every daemon that reads them are left
//! out: `--help`, `--version`, `-V`, `--daemon`, `--detach`, `--no-detach`, `--config` and
//! `--dparam`.

/// The effect of an option on what a transfer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OptionEffect {
    Sender,
    DryRun,
    ListOnly,
    Recursive(bool),
    Directories(bool),
    Existing,
    IgnoreExisting,
    Delete,
    RemoveSource,
    /// `--only-write-batch`: rsyncd treats it like `--dry-run`.
    OnlyBatch,
    /// `--write-batch`, which overrides `--only-write-batch`.
    Batch,
    Inplace(bool),
    Append,
    AppendVerify,
    NoAppend,
    WriteDevices(bool),
    /// The option does not matter here.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ServerOption {
    pub(crate) effect: OptionEffect,
    pub(crate) takes_value: bool,
}

/// The option with that long name, which is given without its dashes.
pub(crate) fn long(name: &[u8]) -> Option<ServerOption> {
    if let Some(effect) = long_that_matters(name) {
        return Some(ServerOption {
            effect,
            takes_value: matches!(effect, OptionEffect::OnlyBatch | OptionEffect::Batch),
        });
    }
    let name = std::str::from_utf8(name).ok()?;
    let takes_value = if VALUES.contains(&name) {
        true
    } else if SWITCHES.contains(&name) {
        false
    } else {
        return None;
    };
    Some(ServerOption { effect: OptionEffect::Other, takes_value })
}

/// The option with that letter.
pub(crate) fn short(letter: u8) -> Option<ServerOption> {
    let effect = match letter {
        b'n' => OptionEffect::DryRun,
        b'a' | b'r' => OptionEffect::Recursive(true),
        b'd' => OptionEffect::Directories(true),
        _ => OptionEffect::Other,
    };
    let takes_value = LETTERS_WITH_VALUES.contains(&letter);
    let known = takes_value || LETTERS.contains(&letter);
    known.then_some(ServerOption { effect, takes_value })
}

fn long_that_matters(name: &[u8]) -> Option<OptionEffect> {
    Some(match name {
        b"sender" => OptionEffect::Sender,
        b"dry-run" => OptionEffect::DryRun,
        b"list-only" => OptionEffect::ListOnly,
        b"archive" | b"recursive" => OptionEffect::Recursive(true),
        b"no-recursive" | b"no-r" => OptionEffect::Recursive(false),
        b"dirs" | b"old-dirs" | b"old-d" => OptionEffect::Directories(true),
        b"no-dirs" | b"no-d" => OptionEffect::Directories(false),
        b"existing" | b"ignore-non-existing" => OptionEffect::Existing,
        b"ignore-existing" => OptionEffect::IgnoreExisting,
        b"del"
        | b"delete"
        | b"delete-after"
        | b"delete-before"
        | b"delete-delay"
        | b"delete-during"
        | b"delete-excluded"
        | b"delete-missing-args" => OptionEffect::Delete,
        b"remove-sent-files" | b"remove-source-files" => OptionEffect::RemoveSource,
        b"only-write-batch" => OptionEffect::OnlyBatch,
        b"write-batch" => OptionEffect::Batch,
        b"inplace" => OptionEffect::Inplace(true),
        b"no-inplace" => OptionEffect::Inplace(false),
        b"append" => OptionEffect::Append,
        b"append-verify" => OptionEffect::AppendVerify,
        b"no-append" => OptionEffect::NoAppend,
        b"write-devices" => OptionEffect::WriteDevices(true),
        b"no-write-devices" => OptionEffect::WriteDevices(false),
        _ => return None,
    })
}

pub(crate) const LETTERS_WITH_VALUES: &[u8] = b"@BMTef";
const LETTERS: &[u8] = b"0468ACDEFHIJKLNOPRSUWXabcdghiklmnopqrstuvxyz";

/// Long options that take a value and have no effect that matters here.
#[rustfmt::skip]
const VALUES: &[&str] = &[
    "address", "backup-dir", "block-size", "bwlimit", "cc", "checksum-choice", "checksum-seed",
    "chmod", "chown", "compare-dest", "compress-choice", "compress-level", "compress-threads",
    "confine-root", "contimeout", "copy-as", "copy-dest", "debug", "early-input", "exclude",
    "exclude-from", "files-from", "filter", "groupmap", "iconv", "include", "include-from", "info",
    "link-dest", "log-file", "log-file-format", "log-format", "max-alloc", "max-delete", "max-size",
    "min-size", "modify-window", "out-format", "outbuf", "partial-dir", "password-file", "port",
    "protocol", "read-batch", "remote-option", "rsh", "rsync-path", "skip-compress", "sockopts",
    "stderr", "stop-after", "stop-at", "suffix", "temp-dir", "time-limit", "timeout", "usermap",
    "zc", "zl", "zt",
];

/// Long options that take no value and have no effect that matters here.
#[rustfmt::skip]
const SWITCHES: &[&str] = &[
    "8-bit-output", "acls", "atimes", "backup", "blocking-io", "checksum", "compress",
    "copy-devices", "copy-dirlinks", "copy-links", "copy-unsafe-links", "crtimes", "cvs-exclude",
    "delay-updates", "devices", "drop-D", "executability", "fake-super", "force", "from0", "fsync",
    "fuzzy", "group", "hard-links", "human-readable", "i-d", "i-r", "ignore-errors",
    "ignore-missing-args", "ignore-times", "implied-dirs", "inc-recursive", "insecure-links",
    "ipv4", "ipv6", "itemize-changes", "keep-dirlinks", "links", "mkpath", "motd", "msgs2stderr",
    "munge-links", "new-compress", "no-8", "no-8-bit-output", "no-A", "no-D", "no-H", "no-J",
    "no-N", "no-O", "no-R", "no-S", "no-U", "no-W", "no-X", "no-acls", "no-atimes", "no-backup",
    "no-blocking-io", "no-bwlimit", "no-c", "no-checksum", "no-compress", "no-contimeout",
    "no-crtimes", "no-delay-updates", "no-devices", "no-drop-D", "no-force", "no-from0", "no-fuzzy",
    "no-g", "no-group", "no-h", "no-hard-links", "no-human-readable", "no-i", "no-i-d", "no-i-r",
    "no-iconv", "no-ignore-errors", "no-implied-dirs", "no-inc-recursive", "no-insecure-links",
    "no-itemize-changes", "no-l", "no-links", "no-m", "no-mkpath", "no-motd", "no-msgs2stderr",
    "no-munge-links", "no-numeric-ids", "no-o", "no-old-args", "no-omit-dir-times",
    "no-omit-link-times", "no-one-file-system", "no-open-noatime", "no-owner", "no-p", "no-partial",
    "no-perms", "no-progress", "no-protect-args", "no-prune-empty-dirs", "no-relative", "no-s",
    "no-secluded-args", "no-sparse", "no-specials", "no-super", "no-t", "no-timeout", "no-times",
    "no-v", "no-verbose", "no-whole-file", "no-x", "no-xattrs", "no-y", "no-z", "numeric-ids",
    "old-args", "old-compress", "omit-dir-times", "omit-link-times", "one-file-system",
    "open-noatime", "owner", "partial", "perms", "preallocate", "progress", "protect-args",
    "prune-empty-dirs", "qsort", "quiet", "relative", "safe-links", "secluded-args", "server",
    "size-only", "sparse", "specials", "stats", "super", "times", "trust-sender", "update",
    "verbose", "whole-file", "xattrs",
];
