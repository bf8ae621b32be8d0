//! What the hooks of a storm note about themselves: when they ran, and how they ended.

use std::fs;
use std::path::{Path, PathBuf};

use super::event::Moment;
use crate::support::BINARY;
use crate::support::server::Server;

/// Which hooks the modules have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hooks {
    /// `pre-xfer` and `post-xfer`.
    Pair,
    /// Only the latter.
    PostOnly,
}

/// One hook that came to its end.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    pub(crate) is_pre: bool,
    /// `RSYNC_PID`: the same for both hooks of a connection.
    pub(crate) pid: u32,
    pub(crate) address: String,
    pub(crate) began: Moment,
    pub(crate) ended: Moment,
    /// Of the transfer; none before it.
    pub(crate) transfer: Option<i32>,
    pub(crate) exit: i32,
}

impl Hooks {
    /// The lines of `rsyncd.conf`, `post_xfer` being the command of our program. Both hooks leave
    /// notes, whether our program is in them or not.
    pub(crate) fn settings(self, server: &Server, post_xfer: &str) -> String {
        let program = |name: &str| {
            format!(
                "'{BINARY}' --config '{}' --rsyncd-conf '{}' {name}",
                server.policy.display(),
                server.rsyncd_conf.display()
            )
        };
        let before = if self == Hooks::Pair { program("pre-xfer") } else { "true".to_string() };
        // rsyncd expands environment variables between % signs, so there are none here.
        let noted = |name: &str, command: &str, status: &str| {
            let file = file(server);
            format!(
                "read began idle </proc/uptime; {command} ; code=$?; read ended idle </proc/uptime; echo \"{name} \
                 $RSYNC_PID $RSYNC_HOST_ADDR $began $ended {status} $code\" >>'{}'; exit $code",
                file.display()
            )
        };
        format!(
            "    pre-xfer exec = {}\n    post-xfer exec = {}\n",
            noted("pre", &before, "-"),
            noted("post", &program(post_xfer), "$RSYNC_EXIT_STATUS")
        )
    }
}

/// All notes so far, in order.
pub(crate) fn read(server: &Server) -> Vec<Note> {
    let text = fs::read_to_string(file(server)).unwrap_or_default();
    text.lines()
        .map(|line| parse(line).unwrap_or_else(|| panic!("half a note: {line:?}")))
        .collect()
}

fn parse(line: &str) -> Option<Note> {
    let words: Vec<&str> = line.split(' ').collect();
    let [hook, pid, address, began, ended, transfer, exit] = words.try_into().ok()?;
    Some(Note {
        is_pre: hook == "pre",
        pid: pid.parse().ok()?,
        address: address.to_string(),
        began: Moment::of_uptime(began)?,
        ended: Moment::of_uptime(ended)?,
        transfer: transfer.parse().ok(),
        exit: exit.parse().ok()?,
    })
}

fn file(server: &Server) -> PathBuf {
    Path::new(&server.directory).join("hook-notes")
}
