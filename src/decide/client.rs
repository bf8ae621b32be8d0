//! The client of a transfer, as rsyncd tells it.

use serde::{Deserialize, Serialize};

use crate::tell::escape::deserialize_line;

/// The client of a transfer, as rsyncd tells it, escaped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// `RSYNC_HOST_ADDR`.
    #[serde(default, deserialize_with = "deserialize_line")]
    pub address: String,
    /// `RSYNC_HOST_NAME`, which may come from reverse DNS.
    #[serde(default, deserialize_with = "deserialize_line")]
    pub name: String,
    /// `RSYNC_USER_NAME`; empty for an anonymous module.
    #[serde(default, deserialize_with = "deserialize_line")]
    pub user: String,
}

/// The identity of a restore in place, which writes to a module as a push does.
pub const RESTORE: &str = "restore";

impl Client {
    /// The client that stands for a restore in place. A real client has an address.
    pub fn restore() -> Self {
        Client { user: RESTORE.to_string(), ..Client::default() }
    }

    /// Who it is, from one transfer to the next: its user, or its address where no user has to log
    /// in.
    pub fn identity(&self) -> String {
        match self.user.is_empty() {
            false if *self == Client::restore() => RESTORE.to_string(),
            true => format!("address {}", self.address),
            false => format!("user {}", self.user),
        }
    }
}
