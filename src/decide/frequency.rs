//! The six rotation frequencies and how many slots of each a policy keeps.

use std::fmt;

/// How often a snapshot is wanted; finer frequencies compare smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Frequency {
    /// One slot per minute.
    Minutely,
    /// One slot per hour.
    Hourly,
    /// One slot per calendar day.
    Daily,
    /// One slot per ISO week, Monday to Sunday.
    Weekly,
    /// One slot per calendar month.
    Monthly,
    /// One slot per calendar year.
    Yearly,
}

impl Frequency {
    /// All of them, finest first.
    pub const ALL: [Frequency; 6] = [
        Frequency::Minutely,
        Frequency::Hourly,
        Frequency::Daily,
        Frequency::Weekly,
        Frequency::Monthly,
        Frequency::Yearly,
    ];

    /// The word for it in a policy.
    pub fn word(self) -> &'static str {
        match self {
            Frequency::Minutely => "minutely",
            Frequency::Hourly => "hourly",
            Frequency::Daily => "daily",
            Frequency::Weekly => "weekly",
            Frequency::Monthly => "monthly",
            Frequency::Yearly => "yearly",
        }
    }
}

impl fmt::Display for Frequency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// How many slots of one frequency are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotCount {
    /// This many of the newest; at least 1.
    Newest(u32),
    /// Every slot, for ever.
    Always,
}

impl SlotCount {
    /// Reads `always` or a product of positive numbers such as `24*7`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "always" {
            return Some(SlotCount::Always);
        }
        let mut product: u32 = 1;
        for factor in text.split('*') {
            let factor = factor.trim();
            if factor.is_empty() || !factor.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            product = product.checked_mul(factor.parse().ok()?)?;
        }
        (product > 0).then_some(SlotCount::Newest(product))
    }
}

impl fmt::Display for SlotCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SlotCount::Newest(number) => number.fmt(f),
            SlotCount::Always => f.write_str("always"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_a_product_or_always() {
        assert_eq!(SlotCount::parse("24*7"), Some(SlotCount::Newest(168)));
        assert_eq!(SlotCount::parse("2 * 3 * 4"), Some(SlotCount::Newest(24)));
        assert_eq!(SlotCount::parse("always"), Some(SlotCount::Always));
        for text in ["", "0", "0*7", "-1", "+3", "7*", "Always", "1e3", "99999*99999", "4294967296"]
        {
            assert_eq!(SlotCount::parse(text), None, "{text}");
        }
    }
}
