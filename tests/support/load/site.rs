//! The backup server of a storm: its modules, their policies, and the clients of each.

use std::fs;
use std::path::PathBuf;

use super::note::Hooks;
use super::size::Size;
use crate::support::module::visible;
use crate::support::server::Server;

/// What the policy of a module is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing expires.
    KeepsAll,
    /// Almost everything expires, and is recycled.
    Rotates,
    /// Pushes close together make one snapshot.
    Spaced,
    /// A snapshot does not wait long for pushes that are still running.
    Impatient,
    /// Nothing expires, and rsyncd does not wait for the hook's work.
    Detached,
}

const KINDS: [Kind; 6] =
    [Kind::KeepsAll, Kind::KeepsAll, Kind::Rotates, Kind::Spaced, Kind::Impatient, Kind::Detached];

pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) root: PathBuf,
    pub(crate) latest: PathBuf,
    pub(crate) kind: Kind,
}

pub(crate) struct Site {
    pub(crate) server: Server,
    pub(crate) size: Size,
    pub(crate) hooks: Hooks,
    pub(crate) modules: Vec<Place>,
}

/// How far apart the snapshots of a [`Kind::Spaced`] module are.
pub(crate) const SPACING_SECONDS: u64 = 1;

const POLICY: &str = "[defaults]\nlock_wait = \"30s\"\nanomaly_share = \"100%\"\nmin_age = \"1d\"\n\
                      keep_partial = 1000000\n";
const ROTATING: &str =
    "keep = { minutely = 1 }\nmin_keep = 2\nmin_age = \"0s\"\ngrace = \"0s\"\nkeep_partial = 2\n";

impl Site {
    pub(crate) fn new(size: Size, hooks: Hooks) -> Site {
        let server = Server::new();
        let place = |number: usize| {
            let name = format!("m{number:02}");
            let root = server.directory.join("backup").join(&name);
            let kind = KINDS[number % KINDS.len()];
            Place { latest: root.join("latest"), root, name, kind }
        };
        let modules: Vec<Place> = (0..size.modules).map(place).collect();
        modules.iter().for_each(|module| fs::create_dir_all(&module.latest).expect("a module"));
        let site = Site { server, size, hooks, modules };
        site.server.write_policy(&site.policy());
        site
    }

    fn policy(&self) -> String {
        let mut policy = POLICY.to_string();
        for Place { name, kind, .. } in &self.modules {
            match kind {
                Kind::KeepsAll | Kind::Detached => {}
                Kind::Impatient if self.hooks == Hooks::PostOnly => {}
                Kind::Impatient => policy += &format!("[module.{name}]\nmax_defer = \"1s\"\n"),
                Kind::Rotates => policy += &format!("[module.{name}]\n{ROTATING}"),
                Kind::Spaced => {
                    policy += &format!("[module.{name}]\nmin_interval = \"{SPACING_SECONDS}s\"\n")
                }
            }
        }
        policy
    }

    /// What follows the usual global settings in `rsyncd.conf`.
    pub(crate) fn sections(&self) -> String {
        let mut text = "reverse lookup = no\nlisten backlog = 128\n".to_string();
        for Place { name, latest, kind, .. } in &self.modules {
            let detaches = *kind == Kind::Detached && self.hooks == Hooks::Pair;
            text += &format!(
                "[{name}]\n    path = {}\n    read only = no\n{}",
                latest.display(),
                self.hooks.settings(
                    &self.server,
                    if detaches { "post-xfer --detach" } else { "post-xfer" }
                )
            );
            if self.hooks == Hooks::PostOnly {
                text += "    refuse options = inplace append* write-devices\n";
            }
        }
        text
    }

    /// Each client has an address of its own, by which the program knows it.
    pub(crate) fn address(&self, client: usize) -> String {
        format!("127.0.0.{}", client + 2)
    }

    pub(crate) fn client_name(&self, client: usize) -> String {
        format!("c{client:02}")
    }

    /// The clients that write into a module.
    pub(crate) fn writers(&self, module: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.size.clients).filter(move |client| self.size.home(*client) == module)
    }
}

impl Place {
    /// The snapshots, oldest first.
    pub(crate) fn snapshots(&self) -> Vec<String> {
        visible(&self.root)
    }

    /// The complete ones of those.
    pub(crate) fn complete(&self) -> Vec<String> {
        self.snapshots().into_iter().filter(|name| !name.ends_with("-partial")).collect()
    }

    /// The entries of running transfers.
    pub(crate) fn ledger(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(".rsyncd-snapshot/transfers"));
        entries
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into())
            .collect()
    }

    /// What stands in the state under `mark`; none without a state.
    pub(crate) fn mark(&self, mark: &str) -> Option<toml::Value> {
        let text = fs::read_to_string(self.root.join(".rsyncd-snapshot/state.toml")).ok()?;
        text.parse::<toml::Table>().expect("a state").remove(mark)
    }
}
