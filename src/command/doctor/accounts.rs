//! The user and the groups that rsyncd becomes for a module.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::{Mutex, PoisonError};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::command::doctor::daemon_user::{self, DaemonUser};
use crate::config::auth_users::words;
use crate::config::rsyncd_module::RsyncdModule;
use crate::tell::escape::escape;

/// What rsyncd uses if a module names no user, and the daemon is root.
const NOBODY: &str = "nobody";
/// The names of its group on the distributions.
const NOBODYS_GROUPS: [&str; 2] = ["nogroup", "nobody"];

/// Who writes into a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    /// At least one; the first is that of new files.
    pub(crate) gids: Vec<u32>,
    /// As `rsyncd.conf` or the default names them, escaped.
    pub(crate) user: String,
    pub(crate) group: String,
}

/// Why there is no account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoAccount {
    /// rsyncd refuses each connection: the parameter and the name, escaped.
    Invalid(&'static str, String),
    /// It is not known here.
    Unclear(String),
}

/// The account of a module, if its daemon has this user.
pub(crate) fn of(module: &RsyncdModule, daemon: Option<&DaemonUser>) -> Result<Account, NoAccount> {
    let by_root = by_root(module);
    match (daemon, by_root) {
        (_, Err(invalid @ NoAccount::Invalid(..))) => Err(invalid),
        (None, _) => Err(NoAccount::Unclear("as which user the rsync daemon runs".to_string())),
        (Some(daemon), by_root) if daemon.is_root() => by_root,
        (Some(daemon), by_root) => {
            let is_set = |parameter| module.get(parameter).is_some_and(|value| !value.is_empty());
            let (set_uid, set_gid) = (is_set("uid"), is_set("gid"));
            let own = || daemon_user::name_of(daemon.uid);
            let mut account = Account {
                uid: daemon.uid,
                gids: daemon.gids.clone(),
                user: own(),
                group: daemon.gids.first().copied().unwrap_or_default().to_string(),
            };
            if set_uid {
                let set = uid_of_module(module);
                account.uid = set.filter(|uid| daemon.may_become_user(*uid)).unwrap_or(daemon.uid);
            }
            if set_gid && daemon.may_set_groups() {
                account = Account { uid: account.uid, user: own(), ..by_root? };
            }
            Ok(account)
        }
    }
}

/// The user that a module names.
pub(crate) fn uid_of_module(module: &RsyncdModule) -> Option<u32> {
    let name = module.get("uid").filter(|name| !name.is_empty() && !name.contains(&b'%'))?;
    uid_of("uid", name).ok()
}

/// The group of `daemon gid`, if that is set; none if it is not known.
pub(crate) fn daemon_gid(module: &RsyncdModule) -> Option<Option<u32>> {
    match module.get("daemon gid").filter(|name| !name.is_empty()) {
        None => Some(None),
        Some(name) if name.contains(&b'%') => None,
        Some(name) => gid_of(name).ok().map(Some),
    }
}

/// The account of a module whose daemon is root.
pub(crate) fn by_root(module: &RsyncdModule) -> Result<Account, NoAccount> {
    let is_set = |value: &&[u8]| !value.is_empty();
    let named = |parameter| module.get(parameter).filter(is_set);
    for parameter in ["uid", "gid", "daemon chroot"] {
        let value = named(parameter).unwrap_or_default();
        if parameter.starts_with("daemon") && !value.is_empty() || value.contains(&b'%') {
            return Err(NoAccount::Unclear(format!(
                "what `{parameter} = {}` comes to",
                escape(value)
            )));
        }
    }
    let user = named("uid").unwrap_or(NOBODY.as_bytes());
    let uid = uid_of("uid", user)?;
    let groups: Vec<&[u8]> = words(named("gid").unwrap_or_default()).collect();
    let (mut gids, group) = match groups.as_slice() {
        [] => nobodys_group()?,
        [b"*", ..] => (groups_of(uid)?, escape(b"*")),
        [first, ..] => (Vec::new(), escape(first)),
    };
    // `*` counts only in the first place.
    for name in groups.iter().enumerate().filter(|(at, name)| *at > 0 || **name != b"*") {
        gids.push(gid_of(name.1)?);
    }
    Ok(Account { uid, gids, user: escape(user), group })
}

/// What the system's lists had: most modules have the same user, and each question reads the list.
struct Asked<K, V>(Mutex<BTreeMap<K, V>>);

impl<K: Ord, V: Clone> Asked<K, V> {
    const fn new() -> Self {
        Asked(Mutex::new(BTreeMap::new()))
    }

    fn ask(&self, key: K, ask: impl FnOnce(&K) -> V) -> V {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(key).or_insert_with_key(ask).clone()
    }
}

pub(crate) fn uid_of(parameter: &'static str, name: &[u8]) -> Result<u32, NoAccount> {
    static USERS: Asked<Vec<u8>, Option<u32>> = Asked::new();
    if let Some(number) = number(name) {
        return number.ok_or_else(|| unknown(parameter, name));
    }
    let ask = |name: &Vec<u8>| User::from_name(str::from_utf8(name).ok()?).ok().flatten();
    let uid = |name: &Vec<u8>| ask(name).map(|user| user.uid.as_raw());
    USERS.ask(name.to_vec(), uid).ok_or_else(|| unknown(parameter, name))
}

pub(crate) fn gid_of(name: &[u8]) -> Result<u32, NoAccount> {
    static GROUPS: Asked<Vec<u8>, Option<u32>> = Asked::new();
    if let Some(number) = number(name) {
        return number.ok_or_else(|| unknown("gid", name));
    }
    let ask = |name: &Vec<u8>| Group::from_name(str::from_utf8(name).ok()?).ok().flatten();
    let gid = |name: &Vec<u8>| ask(name).map(|group| group.gid.as_raw());
    GROUPS.ask(name.to_vec(), gid).ok_or_else(|| unknown("gid", name))
}

/// A name of digits alone is a number for rsync.
fn number(name: &[u8]) -> Option<Option<u32>> {
    let is_number = name.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(name).ok().and_then(|digits| digits.parse().ok()))
}

fn nobodys_group() -> Result<(Vec<u32>, String), NoAccount> {
    let found = NOBODYS_GROUPS.iter().find_map(|name| Some((name, gid_of(name.as_bytes()).ok()?)));
    let found = found.map(|(name, gid)| (vec![gid], (*name).to_string()));
    found.ok_or_else(|| NoAccount::Unclear("which group stands for no `gid`".to_string()))
}

pub(crate) fn groups_of(uid: u32) -> Result<Vec<u32>, NoAccount> {
    static GROUPS: Asked<u32, Option<Vec<u32>>> = Asked::new();
    let ask = |uid: &u32| {
        let user = User::from_uid(Uid::from_raw(*uid)).ok().flatten()?;
        let groups = getgrouplist(&CString::new(user.name).ok()?, user.gid).ok()?;
        Some(groups.into_iter().map(Gid::as_raw).collect())
    };
    GROUPS.ask(uid, ask).ok_or_else(|| NoAccount::Unclear(format!("the groups of user {uid}")))
}

/// Whether the system's list of users is all that rsyncd asks. A program that is linked statically
/// sees no users of a directory service.
fn unknown(parameter: &'static str, name: &[u8]) -> NoAccount {
    if cfg!(target_env = "gnu") || is_files_only() {
        return NoAccount::Invalid(parameter, escape(name));
    }
    NoAccount::Unclear(format!("whether a directory service knows `{}`", escape(name)))
}

fn is_files_only() -> bool {
    let Ok(text) = std::fs::read_to_string("/etc/nsswitch.conf") else { return true };
    let sources = text
        .lines()
        .filter_map(|line| line.strip_prefix("passwd:").or_else(|| line.strip_prefix("group:")));
    let known = ["files", "compat", "db", "systemd"];
    sources.flat_map(str::split_whitespace).all(|source| known.contains(&source))
}
