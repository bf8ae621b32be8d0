//! The client of a transfer, as rsyncd tells it.

use serde::{Deserialize, Serialize};

use crate::tell::escape::{deserialize_line, escape};

/// What rsyncd gives as the name of a host: by `reverse lookup = no`, and if the lookup fails.
const UNRESOLVED: [&str; 2] = ["UNDETERMINED", "UNKNOWN"];

/// The client of a push that `snapshot --status` has told of.
const WITHOUT_DAEMON: &str = "a transfer without a daemon";

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

    /// Its host: the name if rsyncd could look it up, otherwise the address.
    fn host(&self) -> &str {
        let is_known = !self.name.is_empty() && !UNRESOLVED.contains(&self.name.as_str());
        if is_known { &self.name } else { &self.address }
    }

    /// Whether this is the same user on the same host. Several machines may log in as one user, and
    /// one of them may be dead; so this is narrower than an equal [`identity`](Self::identity).
    pub fn is_same_machine(&self, other: &Client) -> bool {
        (&self.user, self.host()) == (&other.user, other.host())
    }

    /// Whether the administrator means this client by `name`: its user, host name or address.
    pub fn is_called(&self, name: &str) -> bool {
        let name = escape(name.as_bytes());
        let is_it = self.user == name || self.address == name;
        !name.is_empty() && (is_it || self.name.eq_ignore_ascii_case(&name))
    }

    /// The client for a message: its user, if it has one, and its host.
    pub fn label(&self) -> String {
        match self.user.as_str() {
            _ if *self == Client::default() => WITHOUT_DAEMON.to_string(),
            _ if *self == Client::restore() => RESTORE.to_string(),
            "" => self.host().to_string(),
            user => format!("{user}@{}", self.host()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(user: &str, name: &str, address: &str) -> Client {
        let [user, name, address] = [user, name, address].map(str::to_string);
        Client { address, name, user }
    }

    #[test]
    fn a_client_is_called_by_its_user_host_name_or_address() {
        let laptop = client("anna", "Laptop.example", "192.0.2.7");
        for name in ["anna", "laptop.example", "192.0.2.7"] {
            assert!(laptop.is_called(name), "{name}");
        }
        for name in ["", "laptop", "Anna", "192.0.2.70"] {
            assert!(!laptop.is_called(name), "{name}");
        }
    }

    #[test]
    fn machines_that_log_in_as_one_user_are_told_apart() {
        let [one, two] = ["web1", "web2"].map(|name| client("backup", name, "192.0.2.7"));
        assert!(!one.is_same_machine(&two));
        assert!(one.is_same_machine(&client("backup", "web1", "192.0.2.9")), "another address");
        let unresolved = |address| client("", "UNDETERMINED", address);
        assert!(!unresolved("192.0.2.7").is_same_machine(&unresolved("192.0.2.8")));
        assert_eq!(unresolved("192.0.2.7").label(), "192.0.2.7");
        assert_eq!(one.label(), "backup@web1");
        assert_eq!(Client::default().label(), WITHOUT_DAEMON);
        assert_eq!(Client::restore().label(), RESTORE);
    }
}
