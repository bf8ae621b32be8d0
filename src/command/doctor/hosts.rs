//! What `check` finds in `hosts allow` and `hosts deny`: addresses of the examples, names that do
//! not resolve, words that stand for no client, and rules that let no client in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::command::finding::{Finding, Severity};
use crate::command::finding_id::FindingId;
use crate::config::rsyncd_module::RsyncdModule;
use crate::tell::escape::escape;

/// How long all names together may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// More names at once would not be faster.
const MAX_THREADS: usize = 32;

/// What one word of `hosts allow` is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// An address of a network that is only for documentation.
    Example,
    /// A name that rsync looks up.
    Name(String),
    /// It stands for no client: the reason, and what to write instead.
    NoClient(&'static str),
    /// An address, a network, a pattern, a netgroup.
    Other,
}

/// rsync splits at blanks and commas, whatever comes first. What is meant as a comment, and told as
/// such, is left out.
fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let words = value.split(|byte| b" ,\t".contains(byte)).filter(|word| !word.is_empty());
    words.take_while(|word| !word.starts_with(b"#"))
}

fn read(word: &[u8]) -> Host {
    let Ok(text) = std::str::from_utf8(word) else { return Host::Other };
    let address = text.split('/').next().unwrap_or_default();
    if let Ok(address) = address.parse::<IpAddr>() {
        let mask = text.split_once('/').map(|(_, mask)| mask);
        return match mask.is_some_and(|mask| !is_mask(address, mask)) {
            true => Host::NoClient("has a mask that rsync does not understand; correct it"),
            false if is_example(address) => Host::Example,
            false => Host::Other,
        };
    }
    let is_star = |text: &str| text.bytes().all(|byte| byte == b'*');
    if !is_star(text)
        && text.bytes().all(|byte| b"0123456789.*?".contains(&byte))
        && text.contains(['*', '?'])
    {
        return Host::NoClient(
            "is a pattern, which rsync compares with names only; write a network, such as \
             10.0.0.0/24",
        );
    }
    // rsync looks up neither patterns nor what looks like an address.
    let is_name = !text.starts_with('@')
        && !text.contains([':', '/', '*', '?', '['])
        && !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_name { Host::Name(text.to_string()) } else { Host::Other }
}

/// Whether rsync understands the mask of a network.
fn is_mask(address: IpAddr, mask: &str) -> bool {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    match mask.bytes().all(|byte| byte.is_ascii_digit()) {
        true => mask.parse::<u32>().is_ok_and(|length| length <= bits),
        false => mask.parse::<IpAddr>().is_ok_and(|mask| mask.is_ipv4() == address.is_ipv4()),
    }
}

/// Whether a value of `hosts deny` keeps out every client that `hosts allow` does not name.
fn denies_all(deny: &[u8]) -> bool {
    words(deny).any(|word| word.iter().all(|byte| *byte == b'*'))
}

/// The finding about a module without `hosts allow` that lets no client in.
pub(crate) fn denial(module: &RsyncdModule) -> Option<Finding> {
    let setting = module.setting("hosts deny")?;
    let message = format!(
        "{}: `hosts deny` lets no client in; add `hosts allow` with the addresses of the clients",
        setting.place
    );
    denies_all(&setting.value)
        .then(|| Finding::new(FindingId::HostsRefused, Severity::Critical, message))
}

/// Networks that RFC 5737 and RFC 3849 set aside for documentation: no client has such an address.
fn is_example(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let networks = [
                Ipv4Addr::new(192, 0, 2, 0),
                Ipv4Addr::new(198, 51, 100, 0),
                Ipv4Addr::new(203, 0, 113, 0),
            ];
            networks.iter().any(|network| network.octets()[..3] == address.octets()[..3])
        }
        IpAddr::V6(address) => {
            let network = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);
            network.segments()[..2] == address.segments()[..2]
        }
    }
}

/// The names in a value of `hosts allow` that rsync looks up.
pub(crate) fn names(value: &[u8]) -> impl Iterator<Item = String> {
    words(value).filter_map(|word| match read(word) {
        Host::Name(name) => Some(name),
        _ => None,
    })
}

/// The findings about a value at `place`. `deny`: the value of `hosts deny`. `resolves`: what is
/// known of each name.
pub(crate) fn findings(
    place: &str,
    value: &[u8],
    deny: &[u8],
    resolves: &BTreeMap<String, bool>,
) -> Vec<Finding> {
    // Without `hosts deny`, what `hosts allow` does not name stays out.
    let keeps_out = words(deny).next().is_none() || denies_all(deny);
    let no_client = |word: &[u8]| matches!(read(word), Host::NoClient(_));
    let (level, effect) = match keeps_out && words(value).all(no_client) {
        true => (Severity::Critical, ", so no client gets in"),
        false => (Severity::Warning, ""),
    };
    let finding = |word: &[u8]| match read(word) {
        Host::NoClient(why) => Some(Finding::new(
            FindingId::HostsRefused,
            level,
            format!(
                "{place}: hosts allow: {} stands for no client{effect}: it {why}",
                escape(word)
            ),
        )),
        Host::Example => Some(Finding::new(
            FindingId::HostsExample,
            Severity::Warning,
            format!(
                "{place}: hosts allow: {} is an address for examples, which no client has; put the \
                 client's address there, which rsyncd logs as `connect from` when the client \
                 tries to push",
                escape(word)
            ),
        )),
        Host::Name(name) if resolves.get(&name) == Some(&false) => Some(Finding::new(
            FindingId::HostsUnresolved,
            Severity::Unknown,
            format!(
                "{place}: hosts allow: the name {} did not resolve within a second, so whether \
                 that client gets in is unknown; correct the name, or put the client's address \
                 there",
                escape(word)
            ),
        )),
        _ => None,
    };
    words(value).filter_map(finding).collect()
}

/// Looks up names, all of them within a second. A name that has no address by then does not
/// resolve.
pub(crate) fn resolve(names: BTreeSet<String>) -> BTreeMap<String, bool> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_what_rsync_takes_it_for() {
        for (word, expected) in [
            ("192.0.2.17", Host::Example),
            ("192.0.2.0/24", Host::Example),
            ("198.51.100.1", Host::Example),
            ("203.0.113.9/255.255.255.0", Host::Example),
            ("2001:db8::1", Host::Example),
            ("2001:db8:1::/48", Host::Example),
            ("192.0.3.17", Host::Other),
            ("10.0.0.0/8", Host::Other),
            ("2001:db9::1", Host::Other),
            ("*", Host::Other),
            ("10.0.0.0/255.0.0.0", Host::Other),
            ("127.0.0.1/0", Host::Other),
            ("2001:db9::/64", Host::Other),
            ("fe80::1%eth0", Host::Other),
            ("*.example.org", Host::Other),
            ("@laptops", Host::Other),
            ("10.1", Host::Other),
            ("laptop", Host::Name("laptop".to_string())),
            ("laptop.example.org", Host::Name("laptop.example.org".to_string())),
        ] {
            assert_eq!(read(word.as_bytes()), expected, "{word}");
        }
    }

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
        ] {
            let found = findings("c:1", allow.as_bytes(), deny.as_bytes(), &BTreeMap::new());
            let levels: Vec<Severity> = found.iter().map(|finding| finding.level).collect();
            assert_eq!(levels, expected, "{allow} {deny}");
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
