//! What a client asks for before a transfer, and what `rsyncd.conf` lets it do.

use crate::decide::arguments::Arguments;
use crate::decide::client::Client;
use crate::decide::root_overlap::Opener;
use crate::decide::verdict_facts::Forbidden;

/// The path that rsyncd gives for a client that ends the connection before it has named one.
pub(crate) const NOTHING: &str = "(NONE)";

#[derive(Debug, Clone)]
pub(crate) struct TransferRequest {
    pub arguments: Arguments,
    /// What `rsyncd.conf` forbids this client.
    pub forbidden: Option<Forbidden>,
    /// Whether `rsyncd.conf` lets this client only read, whatever it asks for.
    pub reads_only: bool,
    /// The path that it asks for, escaped: `RSYNC_REQUEST`.
    pub path: String,
    pub client: Client,
    /// The process that serves the connection.
    pub pid: u32,
}

impl TransferRequest {
    /// The kind of work that the root is opened for: only a push that may write registers a root.
    pub(crate) fn opener(&self) -> Opener {
        let writes = self.arguments.kind.writes() && self.forbidden != Some(Forbidden::ReadOnly);
        match writes && !self.reads_only && self.path != NOTHING {
            true => Opener::Push,
            false => Opener::Reader,
        }
    }
}
