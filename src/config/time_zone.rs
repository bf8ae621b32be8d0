//! Reads the rules of a time zone from the system's tzdata, which the distribution keeps current.

use tz::TimeZone;

use crate::decide::zone::Zone;

/// The system's zone: `TZ` if set, else `/etc/localtime`, else UTC, as the C library does.
pub(crate) fn local() -> Zone {
    let rules = match std::env::var("TZ") {
        Ok(value) if !value.is_empty() => TimeZone::from_posix_tz(&value),
        _ => TimeZone::local(),
    };
    Zone::new("local", rules.unwrap_or_else(|_| TimeZone::utc()))
}

/// `local`, or an IANA name such as `Europe/Amsterdam`; `None` when the system's tzdata lacks it.
pub fn named(name: &str) -> Option<Zone> {
    if name == "local" {
        return Some(local());
    }
    // The library would also take paths and POSIX rules; a policy holds IANA names only.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-+".contains(&byte);
    if !name.starts_with(|first: char| first.is_ascii_alphabetic()) || !name.bytes().all(is_plain) {
        return None;
    }
    if name == "UTC" {
        return Some(Zone::utc());
    }
    let rules = TimeZone::from_posix_tz(&format!(":{name}")).ok()?;
    Some(Zone::new(name, rules))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_iana_names_and_local_are_zones() {
        for name in [
            "",
            "/etc/passwd",
            "../../etc/localtime",
            ":UTC",
            "CET-1CEST",
            "Mars/Olympus",
            "Europe/Amsterdam\n",
            "UTC0",
        ] {
            assert!(named(name).is_none(), "{name}");
        }
        assert!(named("local").is_some() && named("UTC").is_some());
    }
}
