//! Free disk space, as the policy wants it and as messages tell it.

use std::fmt;

/// How much of a file system has to stay free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreeSpace {
    /// A share of its size, 1 to 90.
    Percent(u8),
    /// Bytes.
    Bytes(u64),
}

/// Unit letters of byte counts, by powers of 1,024.
pub(crate) const UNITS: [(char, u64); 4] =
    [('T', 1 << 40), ('G', 1 << 30), ('M', 1 << 20), ('K', 1 << 10)];

impl FreeSpace {
    /// Reads `10%`, or a number followed by `K`, `M`, `G` or `T`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let unit = text.chars().last()?;
        let number =
            text.strip_suffix(unit).filter(|number| is_number(number))?.parse::<u64>().ok()?;
        if unit == '%' {
            return u8::try_from(number)
                .ok()
                .filter(|share| (1..=90).contains(share))
                .map(FreeSpace::Percent);
        }
        let (_, bytes) = UNITS.into_iter().find(|(letter, _)| *letter == unit)?;
        number.checked_mul(bytes).filter(|bytes| *bytes > 0).map(FreeSpace::Bytes)
    }

    /// The bytes that have to be free on a file system of `size_bytes`.
    pub fn wanted_bytes(self, size_bytes: u64) -> u64 {
        match self {
            FreeSpace::Percent(share) => size_bytes / 100 * u64::from(share),
            FreeSpace::Bytes(bytes) => bytes,
        }
    }
}

/// Whether less than a twentieth of a file system's bytes or inodes is free. False if it has no
/// fixed number of them.
pub(crate) fn is_short(free: u64, total: u64) -> bool {
    total > 0 && free < total / 20
}

pub(crate) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for FreeSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FreeSpace::Percent(share) => write!(f, "{share}%"),
            FreeSpace::Bytes(bytes) => f.write_str(&bytes_text(*bytes)),
        }
    }
}

/// A number of bytes for messages, in the largest unit of which it has at least two.
pub fn bytes_text(bytes: u64) -> String {
    match UNITS.into_iter().find(|(_, size)| bytes >= 2 * size) {
        Some((unit, size)) => format!("{} {unit}iB", bytes / size),
        None => format!("{bytes} byte{}", if bytes == 1 { "" } else { "s" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_or_a_number_of_bytes() {
        assert_eq!(FreeSpace::parse("10%"), Some(FreeSpace::Percent(10)));
        assert_eq!(FreeSpace::parse("3G"), Some(FreeSpace::Bytes(3 << 30)));
        for text in [
            "",
            "%",
            "0%",
            "91%",
            "G",
            "0G",
            "-1G",
            "10",
            "1.5G",
            "10 G",
            "99999999999999999999T",
            "1é",
        ] {
            assert_eq!(FreeSpace::parse(text), None, "{text}");
        }
        assert_eq!(FreeSpace::Percent(10).wanted_bytes(1_000), 100);
        assert_eq!(FreeSpace::Bytes(5 << 20).to_string(), "5 MiB");
    }
}
