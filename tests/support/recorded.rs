//! Recorded command lines of clients, and the arguments that rsyncd passed to pre-xfer.

use std::fs;
use std::path::Path;

use rsyncd_snapshot::decide::arguments::rewriting_option::RewritingOption;
use rsyncd_snapshot::decide::arguments::transfer_kind::TransferKind;
use serde::Deserialize;

const RECORDED: &str = include_str!("../arguments/recorded.toml");

/// A recorded command line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Command {
    /// What rsync is run with; words in braces stand for places.
    pub(crate) run: Vec<String>,
    pub(crate) kind: TransferKind,
    #[serde(default)]
    pub(crate) rewriting: Vec<RewritingOption>,
    pub(crate) sent: Vec<Sent>,
}

/// `RSYNC_ARG0` and so on, and the versions of the clients that sent these.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sent {
    pub(crate) by: Vec<String>,
    pub(crate) arguments: Vec<String>,
}

impl Command {
    /// What the arguments have to be classified as.
    pub(crate) fn expected(&self) -> (TransferKind, Vec<RewritingOption>) {
        (self.kind, self.rewriting.clone())
    }

    /// What the module needs beyond a path.
    pub(crate) fn rsyncd_conf(&self) -> &'static str {
        if self.run.iter().any(|word| word.contains("{text}")) { "charset = utf-8" } else { "" }
    }
}

pub(crate) fn commands() -> Vec<Command> {
    #[derive(Deserialize)]
    struct Document {
        command: Vec<Command>,
    }
    let document: Document = toml::from_str(RECORDED).expect("recorded.toml");
    document.command
}

/// The arguments in an environment that `env -0` wrote; none if it wrote nothing.
pub(crate) fn dumped(file: &Path) -> Vec<Vec<u8>> {
    let environment = fs::read(file).unwrap_or_default();
    let value = |number: usize| {
        let name = format!("RSYNC_ARG{number}=").into_bytes();
        environment
            .split(|byte| *byte == 0)
            .find_map(|variable| variable.strip_prefix(name.as_slice()))
    };
    (0..).map_while(value).map(<[u8]>::to_vec).collect()
}
