//! What `check` finds in `hosts allow` and `hosts deny`: addresses of the examples, names that do
//! not resolve, words that stand for no client, and rules that let no client in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::ToSocketAddrs;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::command::doctor::Doctor;
use crate::command::doctor::host_word::{HostWord, read, words};
use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::config::rsyncd_module::RsyncdModule;
use crate::tell::escape::escape;

/// How long all names together may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// More names at once would not be faster.
const MAX_THREADS: usize = 32;

/// Which clients a value of `hosts deny` keeps out unless `hosts allow` names them.
fn denied(deny: &[u8]) -> (bool, bool) {
    words(deny).fold((false, false), |(v4, v6), word| match read(word) {
        HostWord::All { v4: more4, v6: more6 } => (v4 || more4, v6 || more6),
        _ => (v4, v6),
    })
}

/// The finding about a module without `hosts allow` that lets no client in.
fn denial(place: &str, deny: &[u8]) -> Option<Finding> {
    let whom = match denied(deny) {
        (true, true) => "no client",
        (true, false) => "no client with an IPv4 address",
        (false, _) => return None,
    };
    let message = format!(
        "{place}: `hosts deny` lets {whom} in; add `hosts allow` with the addresses of the clients"
    );
    Some(Finding::new(FindingId::HostsRefused, Severity::Critical, message))
}

/// The names in a value of `hosts allow` or `hosts deny` that rsync looks up.
fn names(value: &[u8]) -> impl Iterator<Item = String> {
    words(value).filter_map(|word| match read(word) {
        HostWord::Name(name) | HostWord::Keyword(name, _) => Some(name),
        _ => None,
    })
}

/// The findings about a value of `hosts allow` at `place`. `deny`: the value of `hosts deny`.
/// `resolves`: what is known of each name.
fn findings(
    place: &str,
    value: &[u8],
    deny: &[u8],
    resolves: &BTreeMap<String, bool>,
) -> Vec<Finding> {
    // Without `hosts deny`, what `hosts allow` does not name stays out.
    let keeps_out = words(deny).next().is_none() || denied(deny).0;
    let is_keyword = |name: &String| resolves.get(name) != Some(&true);
    let is_nobody = |word: &[u8]| match read(word) {
        HostWord::NoClient(_) => true,
        HostWord::Keyword(name, _) => is_keyword(&name),
        _ => false,
    };
    let is_useless = |word: &[u8]| is_nobody(word) || matches!(read(word), HostWord::Others(_));
    let level = match keeps_out && words(value).all(is_useless) {
        true => Severity::Critical,
        false => Severity::Warning,
    };
    let effect = match keeps_out && words(value).all(is_nobody) {
        true => ", so no client gets in",
        false => "",
    };
    let finding = |word: &[u8]| {
        let shown = escape(word);
        let told = |id, level, text: String| {
            Some(Finding::new(id, level, format!("{place}: hosts allow: {text}")))
        };
        match read(word) {
            HostWord::NoClient(why) => told(
                FindingId::HostsRefused,
                level,
                format!("{shown} stands for no client{effect}: it {why}"),
            ),
            HostWord::Keyword(name, instead) if is_keyword(&name) => told(
                FindingId::HostsRefused,
                level,
                format!(
                    "{shown} stands for no client{effect}: rsync knows no such word and takes it \
                     for a name; write {instead}"
                ),
            ),
            HostWord::Others(why) => told(
                FindingId::HostsRefused,
                level,
                format!("{shown} stands for other clients than it seems to: it {why}"),
            ),
            HostWord::Example => told(
                FindingId::HostsExample,
                Severity::Warning,
                format!(
                    "{shown} is an address for examples, which no client has; replace it by the \
                     client's address: when the client tries to push, the daemon writes `connect \
                     from` and the address to its log (the `log file` of rsyncd.conf, otherwise \
                     syslog)"
                ),
            ),
            HostWord::Name(name) if resolves.get(&name) == Some(&false) => told(
                FindingId::HostsUnresolved,
                Severity::Unknown,
                format!(
                    "the name {shown} did not resolve within a second, so whether that client gets \
                     in is unknown; correct the name, or put the client's address there"
                ),
            ),
            HostWord::Unclear => {
                let why = format!("{place}: hosts allow: which clients {shown} stands for");
                Some(Finding::cannot_tell(FindingId::HostsRefused, why))
            }
            _ => None,
        }
    };
    words(value).filter_map(finding).collect()
}

/// The findings about names in a value of `hosts deny` at `place`: rsync 3.5 takes one that does
/// not resolve for that of each client.
fn deny_findings(place: &str, deny: &[u8], resolves: &BTreeMap<String, bool>) -> Vec<Finding> {
    let finding = |name: String| {
        let is_gone = resolves.get(&name) == Some(&false);
        let message = format!(
            "{place}: hosts deny: the name {} did not resolve within a second, and then rsync \
             keeps out each client that `hosts allow` does not name; correct the name, or put its \
             address there",
            escape(name.as_bytes())
        );
        is_gone.then(|| Finding::new(FindingId::HostsUnresolved, Severity::Unknown, message))
    };
    names(deny).filter_map(finding).collect()
}

/// Looks up names, all of them within a second. A name that has no address by then does not
/// resolve.
fn resolve(names: BTreeSet<String>) -> BTreeMap<String, bool> {
    let mut answers: BTreeMap<String, bool> =
        names.iter().map(|name| (name.clone(), false)).collect();
    let end = Instant::now() + PATIENCE;
    let threads = names.len().min(MAX_THREADS);
    let queue = Arc::new(Mutex::new(names));
    let (sender, receiver) = mpsc::channel();
    for _ in 0..threads {
        let (queue, sender) = (Arc::clone(&queue), sender.clone());
        // A thread that hangs in a look-up ends with the process.
        let work = move || {
            while let Some(name) = queue.lock().ok().and_then(|mut queue| queue.pop_first()) {
                let is_known = (name.as_str(), 0).to_socket_addrs().is_ok();
                if sender.send((name, is_known)).is_err() {
                    return;
                }
            }
        };
        if thread::Builder::new().stack_size(512 << 10).spawn(work).is_err() {
            break;
        }
    }
    drop(sender);
    while let Ok((name, is_known)) =
        receiver.recv_timeout(end.saturating_duration_since(Instant::now()))
    {
        answers.insert(name, is_known);
    }
    answers
}

/// Whether a name has an address.
pub(crate) fn is_known(name: &str) -> bool {
    resolve(BTreeSet::from([name.to_string()])).into_values().all(|is_known| is_known)
}

impl Doctor<'_> {
    pub(crate) fn host_findings(&self, module: &RsyncdModule) -> Vec<Finding> {
        const HOSTS: [&str; 2] = ["hosts allow", "hosts deny"];
        let value = |module: &RsyncdModule, parameter| {
            module.with_name(module.get(parameter).unwrap_or_default())
        };
        let place = |parameter| module.place_of(parameter).to_string();
        let [allow, deny] = HOSTS.map(|parameter| value(module, parameter));
        let looks_up = |module: &RsyncdModule| module.boolean("forward lookup", true) == Some(true);
        let all = || -> BTreeSet<String> {
            let modules = self.conf.modules.iter().filter(|one| looks_up(one));
            let values = modules.flat_map(|one| HOSTS.map(|parameter| value(one, parameter)));
            values.flat_map(|value| names(&value).collect::<Vec<_>>()).collect()
        };
        let none = BTreeMap::new();
        let resolves = match looks_up(module) && !(allow.is_empty() && deny.is_empty()) {
            true => self.hosts.get_or_init(|| resolve(all())),
            false => &none,
        };
        let mut found = match allow.is_empty() {
            true => denial(&place("hosts deny"), &deny).into_iter().collect(),
            false => findings(&place("hosts allow"), &allow, &deny, resolves),
        };
        if !denied(&deny).0 {
            found.extend(deny_findings(&place("hosts deny"), &deny, resolves));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_warns_and_a_name_without_address_is_unknown() {
        let resolves = BTreeMap::from([("here".to_string(), true), ("gone".to_string(), false)]);
        let levels = |value: &str| -> Vec<Severity> {
            let found = findings("c:1", value.as_bytes(), b"", &resolves);
            found.iter().map(|finding| finding.level).collect()
        };
        assert!(levels("10.0.0.1, here *.lan").is_empty());
        assert_eq!(levels("192.0.2.17 gone"), [Severity::Warning, Severity::Unknown]);
        assert!(levels("10.0.0.1 # 192.0.2.17 of gone").is_empty());
    }

    #[test]
    fn a_word_that_stands_for_no_client_is_named() {
        use Severity::{Critical, Warning};
        for (allow, deny, expected) in [
            ("127.0.0.*", "", &[Critical][..]),
            ("127.0.0.*", "*", &[Critical]),
            ("127.0.0.*", "10.0.0.1", &[Warning]),
            ("127.0.0.1/33 127.0.0.1", "", &[Warning]),
            ("127.0.0.1/x", "", &[Critical]),
            ("127.0.0.1/", "", &[Critical]),
            ("127.0.0.0/8 *.lan *", "", &[]),
            ("127.5/16", "", &[Critical]),
            ("127.5/16 127.0.0.1", "", &[Warning]),
            ("127.5/16 [::1]", "10.0.0.1", &[Warning, Warning]),
            ("127.0.0. [::1]", "0.0.0.0/0", &[Critical, Critical]),
            ("ALL", "", &[Critical]),
            ("ALL %NET%", "", &[Warning, Severity::Ok]),
        ] {
            let found = findings("c:1", allow.as_bytes(), deny.as_bytes(), &BTreeMap::new());
            let levels: Vec<Severity> = found.iter().map(|finding| finding.level).collect();
            assert_eq!(levels, expected, "{allow} {deny}");
        }
    }

    #[test]
    fn a_value_that_keeps_all_clients_out_is_named() {
        let resolves = BTreeMap::from([("gone".to_string(), false), ("here".to_string(), true)]);
        for (deny, all, unknown) in [
            ("*", Some("no client in"), 0),
            ("0.0.0.0/0", Some("IPv4"), 0),
            ("0.0.0.0/0.0.0.0 ::/0", Some("no client in"), 0),
            ("::/0", None, 0),
            ("0.0.0.0", None, 0),
            ("10.0.0.0/8 *.lan", None, 0),
            ("here", None, 0),
            ("here gone", None, 1),
        ] {
            let found = denial("c:1", deny.as_bytes());
            assert_eq!(found.is_some(), all.is_some(), "{deny}");
            assert!(found.is_none_or(|it| it.message.contains(all.unwrap_or_default())), "{deny}");
            assert_eq!(deny_findings("c:1", deny.as_bytes(), &resolves).len(), unknown, "{deny}");
        }
    }

    #[test]
    fn names_are_looked_up_within_a_second() {
        let names = ["localhost", "no-such-host.invalid"].map(str::to_string);
        let begun = Instant::now();
        let answers = resolve(names.clone().into());
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        assert_eq!(answers.get(&names[0]), Some(&true));
        assert_eq!(answers.get(&names[1]), Some(&false));
        assert!(resolve(BTreeSet::new()).is_empty());
    }
}
