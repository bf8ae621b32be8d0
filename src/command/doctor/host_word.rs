//! What one word of `hosts allow` or `hosts deny` stands for, as rsync's `access.c` reads it.
//!
//! rsync compares a word with the client's name, as a pattern, and with its address. Only what has
//! nothing but digits and dots in it, or a colon, is an address or a network; the C library reads
//! it, and takes `10.5` for 10.0.0.5 and `010` for 8. What is neither is a name, which rsync looks
//! up unless it holds one of `:/*?[`. It knows none of the keywords, ranges, suffixes and brackets
//! of other programs: such words stand for no client, and rsync says nothing about them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::rsyncd_module::has_variable;
use crate::tell::escape::escape;

/// What one word stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HostWord {
    /// An address of a network that is only for documentation.
    Example,
    /// A name that rsync looks up.
    Name(String),
    /// A keyword of other programs, which is a name for rsync: what to write instead.
    Keyword(String, &'static str),
    /// It stands for no client: the rest of a sentence that begins with "it".
    NoClient(String),
    /// It stands for other clients than it seems to: the rest of such a sentence.
    Others(String),
    /// All clients with addresses of these kinds.
    All { v4: bool, v6: bool },
    /// It depends on a variable.
    Unclear,
    /// An address, a network, a pattern, a netgroup.
    Other,
}

/// rsync splits at blanks and commas, whatever comes first. What is meant as a comment, and told as
/// such, is left out.
pub(crate) fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let words = value.split(|byte| b" ,\t".contains(byte)).filter(|word| !word.is_empty());
    words.take_while(|word| !word.starts_with(b"#"))
}

pub(crate) fn read(word: &[u8]) -> HostWord {
    if has_variable(word) {
        return HostWord::Unclear;
    }
    let Ok(text) = std::str::from_utf8(word) else { return HostWord::Other };
    if text.len() > 1 && text.starts_with('@') {
        return HostWord::Other;
    }
    if text.bytes().all(|byte| byte == b'*') {
        return HostWord::All { v4: true, v6: true };
    }
    let (address, mask) = match text.split_once('/') {
        Some((address, mask)) => (address, Some(mask)),
        None => (text, None),
    };
    match address {
        _ if address.contains(':') => v6(address, mask),
        _ if is_of(address, b"0123456789.") && !address.is_empty() => v4(address, mask),
        _ => name(text),
    }
}

fn is_of(text: &str, bytes: &[u8]) -> bool {
    text.bytes().all(|byte| bytes.contains(&byte))
}

fn no_client(why: impl Into<String>) -> HostWord {
    HostWord::NoClient(why.into())
}

const BAD_MASK: &str = "has a mask that rsync does not understand; correct it";

/// The number of leading bits, or the mask itself, as rsync reads it; none if it does not.
fn mask_of<T>(
    mask: &str,
    most: u32,
    parse: impl Fn(&str) -> Option<T>,
    of_bits: impl Fn(u32) -> T,
) -> Option<T> {
    parse(mask).or_else(|| mask.parse::<u32>().ok().filter(|bits| *bits <= most).map(of_bits))
}

fn v4(address: &str, mask: Option<&str>) -> HostWord {
    let parts: Vec<&str> = address.split('.').collect();
    let Some(number) = aton(&parts) else {
        let known: Vec<&&str> = parts.iter().filter(|part| !part.is_empty()).collect();
        let is_beginning = address.ends_with('.') && (1..=3).contains(&known.len());
        let full = known.iter().map(|part| part.to_string()).chain([
            "0".to_string(),
            "0".into(),
            "0".into(),
        ]);
        let network = full.take(4).collect::<Vec<_>>().join(".");
        return no_client(match is_beginning && network.parse::<Ipv4Addr>().is_ok() {
            true => format!("is no address for rsync; write `{network}/{}`", 8 * known.len()),
            false => "is no address; correct it".to_string(),
        });
    };
    let bits = |bits: u32| u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    let parse = |mask: &str| mask.parse::<Ipv4Addr>().ok().map(u32::from);
    let Some(mask) = mask.map_or(Some(u32::MAX), |mask| mask_of(mask, 32, parse, bits)) else {
        return no_client(BAD_MASK);
    };
    if mask == 0 {
        return HostWord::All { v4: true, v6: false };
    }
    // What a reader takes it for: decimal numbers, and what is left out at the end is zero.
    let decimal: Option<Vec<u8>> = parts.iter().map(|part| part.parse().ok()).collect();
    let seen = decimal.map(|mut parts| {
        parts.resize(4, 0);
        u32::from_be_bytes([parts[0], parts[1], parts[2], parts[3]])
    });
    let network = number & mask;
    let shown = |number: u32| match mask {
        u32::MAX => Ipv4Addr::from(number).to_string(),
        mask => format!("{}/{}", Ipv4Addr::from(number), mask.count_ones()),
    };
    let is_nowhere = network >> 24 == 0 && mask >> 24 == 0xff;
    // `127.1` alone is a usual way to write 127.0.0.1.
    let is_misleading = parts.len() == 4 || mask != u32::MAX;
    if let Some(seen) = seen.filter(|seen| is_misleading && seen & mask != network) {
        let why = format!("means {}; write `{}`", shown(network), shown(seen & mask));
        return if is_nowhere { no_client(why) } else { HostWord::Others(why) };
    }
    if is_nowhere {
        return no_client(match number {
            0 => "is no client's address; write `*` for all clients".to_string(),
            _ => format!("means {}, which is no client's address; correct it", shown(network)),
        });
    }
    if is_example_v4(Ipv4Addr::from(number)) { HostWord::Example } else { HostWord::Other }
}

/// The address as the C library reads it: up to four numbers, the last of which fills what is left;
/// one that begins with 0 is octal.
fn aton(parts: &[&str]) -> Option<u32> {
    let number = |part: &str| match part.strip_prefix('0') {
        Some("") => Some(0),
        Some(octal) => u32::from_str_radix(octal, 8).ok(),
        None => part.parse::<u32>().ok(),
    };
    let (last, first) = parts.split_last()?;
    let mut address = 0u32;
    for (place, part) in first.iter().enumerate() {
        let part = number(part).filter(|part| *part <= 255 && place < 3)?;
        address |= part << (24 - 8 * place);
    }
    let most = u32::MAX >> (8 * first.len());
    number(last).filter(|last| *last <= most).map(|last| address | last)
}

fn v6(address: &str, mask: Option<&str>) -> HostWord {
    let plain = address.split('%').next().unwrap_or_default();
    let Ok(parsed) = plain.parse::<Ipv6Addr>() else {
        if address.contains(['*', '?']) {
            return no_client(PATTERN);
        }
        let host = match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, _)) => host,
            None => address.rsplit_once(':').map_or(address, |(host, _)| host),
        };
        return no_client(match host.parse::<IpAddr>() {
            Ok(host) => format!("is an address with brackets or a port; write `{host}`"),
            Err(_) => "is no address; correct it".to_string(),
        });
    };
    let bits = |bits: u32| u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    let parse = |mask: &str| mask.parse::<Ipv6Addr>().ok().map(u128::from);
    let Some(mask) = mask.map_or(Some(u128::MAX), |mask| mask_of(mask, 128, parse, bits)) else {
        return no_client(BAD_MASK);
    };
    if mask == 0 {
        return HostWord::All { v4: false, v6: true };
    }
    if let Some(inner) = parsed.to_ipv4_mapped().filter(|_| mask.count_ones() >= 96) {
        let network = match mask.count_ones() - 96 {
            32 => inner.to_string(),
            bits => format!("{inner}/{bits}"),
        };
        return no_client(format!("is an IPv4 address in IPv6 form; write `{network}`"));
    }
    if parsed.is_unspecified() && mask == u128::MAX {
        return no_client("is no client's address; write `*` for all clients");
    }
    let documentation = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);
    match documentation.segments()[..2] == parsed.segments()[..2] {
        true => HostWord::Example,
        false => HostWord::Other,
    }
}

/// Networks that RFC 5737 sets aside for documentation: no client has such an address.
fn is_example_v4(address: Ipv4Addr) -> bool {
    let networks = [[192, 0, 2], [198, 51, 100], [203, 0, 113]];
    networks.iter().any(|network| address.octets()[..3] == network[..])
}

const PATTERN: &str = "is a pattern, which rsync compares with names only; write a network, such \
                       as 10.0.0.0/24";

/// A word that is neither an address nor a network.
fn name(text: &str) -> HostWord {
    let is_pattern = text.contains(['*', '?', '[']);
    let has_digit = text.bytes().any(|byte| byte.is_ascii_digit());
    if is_pattern {
        // A name may begin with digits, but hardly with such as 127.0.0.
        let is_address = is_of(text, b"0123456789.*?[]-!^") && has_digit;
        return if is_address { no_client(PATTERN) } else { HostWord::Other };
    }
    if let Some((first, _)) = text.split_once('-')
        && first.parse::<Ipv4Addr>().is_ok()
    {
        return no_client(
            "is a range, which rsync does not know; write each address, or a network such as \
             10.0.0.0/24",
        );
    }
    if let Some(suffix) = text.strip_prefix('.').filter(|suffix| !suffix.is_empty()) {
        return no_client(format!("begins with a dot; write `*.{}`", escape(suffix.as_bytes())));
    }
    if text.contains('/') {
        return no_client("is a name with a mask; write a network, such as 10.0.0.0/24");
    }
    if text.contains([';', '|', '&']) || text == "@" {
        return no_client("is no name; write a blank or a comma between names");
    }
    match text.to_ascii_lowercase().as_str() {
        "all" | "any" => HostWord::Keyword(text.to_string(), "`*`"),
        "local" => HostWord::Keyword(text.to_string(), "a network, such as 10.0.0.0/24"),
        _ => HostWord::Name(text.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(word: &str) -> &'static str {
        match read(word.as_bytes()) {
            HostWord::Example => "example",
            HostWord::Name(_) => "name",
            HostWord::Keyword(..) => "keyword",
            HostWord::NoClient(_) => "none",
            HostWord::Others(_) => "others",
            HostWord::All { v4: true, v6: true } => "all",
            HostWord::All { v4: true, .. } => "all v4",
            HostWord::All { .. } => "all v6",
            HostWord::Unclear => "unclear",
            HostWord::Other => "other",
        }
    }

    /// Each word but those with other networks was tried on the rsync daemon.
    #[test]
    fn each_word_is_what_rsync_takes_it_for() {
        for (expected, words) in [
            (
                "example",
                "192.0.2.17 192.0.2.0/24 198.51.100.1 203.0.113.9/255.255.255.0 2001:db8::1 \
                 2001:db8:1::/48",
            ),
            (
                "other",
                "192.0.3.17 10.0.0.0/8 2001:db9::1 10.0.0.0/255.0.0.0 2001:db9::/64 fe80::1%eth0 \
                 *.example.org *.* l* @laptops 10.1 127.1 127.0/16 127.0.0.1/+8 127.0.0.1/08 \
                 127.0.0.01 2130706433 0.0.0.0/1 ::1 127.0.0.1/255.0.0.0",
            ),
            ("all", "* **"),
            ("all v4", "127.0.0.1/0 0.0.0.0/0 0.0.0.0/0.0.0.0 1.2.3.4/0 127.0.0.1/+0"),
            ("all v6", "::/0 fe80::/0"),
            (
                "none",
                "127.0.0. 127.0. 127.0.0.1. 127.0.0.300 127.0.0.08 [::1] [::1]:873 127.0.0.1:873 \
                 [127.0.0.1]:873 0.0.0.0 :: ::ffff:127.0.0.1 ::ffff:10.0.0.0/104 127/8 \
                 127.0.0.1/33 127.0.0.1/x 127.0.0.1/ 127.0.0.1/-1 127.0.0.1/255 ::1/129 127.0.0.* \
                 127.0.0.[1-9] 2001:db8:* .example.org 127.0.0.1-127.0.0.9 10.0.0.1-20 a;b \
                 localhost/24 @",
            ),
            ("others", "127.5/16 10.1.2/24 192.168.010.5 0177.0.0.1"),
            ("keyword", "ALL all Any LOCAL"),
            ("name", "laptop laptop.example.org 1host x-1"),
            ("unclear", "%RSYNC_HOST_ADDR% 10.%NET%.0/8"),
        ] {
            for word in words.split(' ').filter(|word| !word.is_empty()) {
                assert_eq!(kind(word), expected, "{word}: {:?}", read(word.as_bytes()));
            }
        }
    }

    #[test]
    fn what_was_meant_is_written_as_rsync_reads_it() {
        for (word, expected) in [
            ("127.0.0.", "write `127.0.0.0/24`"),
            ("10.", "write `10.0.0.0/8`"),
            ("127.5/16", "means 127.0.0.0/16; write `127.5.0.0/16`"),
            ("127/8", "means 0.0.0.0/8; write `127.0.0.0/8`"),
            ("192.168.010.5", "means 192.168.8.5; write `192.168.10.5`"),
            ("[::1]:873", "write `::1`"),
            ("127.0.0.1:873", "write `127.0.0.1`"),
            ("::ffff:10.0.0.0/104", "write `10.0.0.0/8`"),
            (".example.org", "write `*.example.org`"),
        ] {
            let text = match read(word.as_bytes()) {
                HostWord::NoClient(text) | HostWord::Others(text) => text,
                other => panic!("{word}: {other:?}"),
            };
            assert!(text.contains(expected), "{word}: {text}");
        }
    }
}
