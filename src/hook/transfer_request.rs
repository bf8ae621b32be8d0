//! A client that asks for a transfer.

use crate::decide::arguments::Arguments;
use crate::decide::client::Client;
use crate::decide::root_overlap::Opener;
use crate::decide::verdict_facts::Forbidden;

/// What rsyncd says is requested by a client that hangs up before it has said so.
pub(crate) const NOTHING: &str = "(NONE)";

/// Who wants to transfer what.
#[derive(Debug, Clone)]
pub(crate) struct TransferRequest {
    /// What it asks for.
    pub arguments: Arguments,
    /// What `rsyncd.conf` forbids of it.
    pub forbidden: Option<Forbidden>,
    /// Whether `rsyncd.conf` lets it only read, whatever it asks for.
    pub reads_only: bool,
    /// The same as a path, escaped: `RSYNC_REQUEST`.
    pub request: String,
    /// Who it is.
    pub client: Client,
    /// The number of the process that serves the connection.
    pub pid: u32,
}

impl TransferRequest {
    /// Who opens the root: only a push that may write registers one.
    pub(crate) fn opener(&self) -> Opener {
        let writes = self.arguments.kind.writes() && self.forbidden != Some(Forbidden::ReadOnly);
        match writes && !self.reads_only && self.request != NOTHING {
            true => Opener::Push,
            false => Opener::Reader,
        }
    }
}
