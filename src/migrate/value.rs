//! The counts and other values of `rotate-backups.ini`, as rotate-backups reads them.
//!
//! A count there is an expression of Python: `7`, `24*7`, `7 * 2 # two weeks`. Whole numbers, `+`,
//! `-`, `*` and parentheses are understood here; for anything else, the message asks for the
//! number.

use crate::decide::frequency::SlotCount;
use crate::migrate::ini::stripped;

/// Parentheses and signs nested deeper than this are no count.
const MAX_DEPTH: usize = 32;

/// A retention period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RetentionCount {
    /// `always`.
    Always,
    /// A number of slots, which may be none or less, and the expression that it is the value of.
    Slots(i64, String),
}

impl RetentionCount {
    /// The count as our policy takes it: a product stays one, any other expression becomes its
    /// value. `None` if no count is as large.
    pub(crate) fn to_toml(&self) -> Option<String> {
        let RetentionCount::Slots(slots, expression) = self else {
            return Some("\"always\"".to_string());
        };
        let slots = u32::try_from(*slots).ok()?;
        let is_product = expression.contains('*') && SlotCount::parse(expression).is_some();
        Some(if is_product { format!("\"{expression}\"") } else { slots.to_string() })
    }
}

/// Reads a retention period; otherwise what is wrong with it and what to do.
pub(crate) fn period(value: &str) -> Result<RetentionCount, &'static str> {
    let value = stripped(value);
    if value.to_lowercase() == "always" {
        return Ok(RetentionCount::Always);
    }
    if value.contains('\n') {
        return Err(
            "a count has one line: if the next line is an option of its own, indent it no deeper \
             than this one",
        );
    }
    let expression = stripped(value.split('#').next().unwrap_or_default());
    if expression.contains(['/', '%', '.']) || expression.contains("**") {
        return Err("only +, -, * and parentheses between whole numbers are understood, and \
             rotate-backups fails on fractions: write the number");
    }
    let mut rest = Expression { rest: expression, depth: 0 };
    match rest.sum().filter(|_| rest.next().is_none()) {
        Some(slots) => Ok(RetentionCount::Slots(slots, expression.to_string())),
        None => Err("this is not a count: write a number, an expression such as 24*7, or always"),
    }
}

/// Reads a boolean as `humanfriendly.coerce_boolean` does.
pub(crate) fn boolean(value: &str) -> Result<bool, &'static str> {
    match stripped(value).to_lowercase().as_str() {
        "1" | "yes" | "true" | "on" => Ok(true),
        "0" | "no" | "false" | "off" | "" => Ok(false),
        _ => Err("this is neither yes (1, true, on) nor no (0, false, off): write one of them"),
    }
}

/// The entries of a list that has commas between them.
pub(crate) fn list(value: &str) -> Vec<&str> {
    value.split(',').map(stripped).filter(|entry| !entry.is_empty()).collect()
}

/// Whether the option of this name has a value that rotate-backups acts on.
pub(crate) fn is_set(name: &str, value: &str) -> bool {
    match name {
        "prefer-recent" => boolean(value) == Ok(true),
        "exclude-list" | "include-list" => !list(value).is_empty(),
        _ => !value.is_empty(),
    }
}

/// What is left to read of an expression.
struct Expression<'a> {
    rest: &'a str,
    depth: usize,
}

impl Expression<'_> {
    fn sum(&mut self) -> Option<i64> {
        let mut sum = self.product()?;
        loop {
            match self.next() {
                Some('+') => sum = sum.checked_add(self.after_sign(Self::product)?)?,
                Some('-') => sum = sum.checked_sub(self.after_sign(Self::product)?)?,
                _ => return Some(sum),
            }
        }
    }

    fn product(&mut self) -> Option<i64> {
        let mut product = self.factor()?;
        while self.next() == Some('*') {
            product = product.checked_mul(self.after_sign(Self::factor)?)?;
        }
        Some(product)
    }

    fn factor(&mut self) -> Option<i64> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let factor = match self.next()? {
            '-' => self.after_sign(Self::factor)?.checked_neg(),
            '+' => self.after_sign(Self::factor),
            '(' => {
                let sum = self.after_sign(Self::sum)?;
                (self.next() == Some(')')).then(|| self.after_sign(|_| Some(sum)))?
            }
            _ => self.number(),
        };
        self.depth -= 1;
        factor
    }

    fn number(&mut self) -> Option<i64> {
        let length = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(length);
        // Python takes a leading zero for the mark of an octal number that has lost its o.
        let is_octal = digits.starts_with('0') && digits.bytes().any(|digit| digit != b'0');
        self.rest = rest;
        if is_octal { None } else { digits.parse().ok() }
    }

    /// The character that comes next, blanks aside.
    fn next(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
        self.rest.chars().next()
    }

    /// What `read` makes of the text after the sign that comes next, which is one byte long.
    fn after_sign(&mut self, read: impl Fn(&mut Self) -> Option<i64>) -> Option<i64> {
        self.rest = &self.rest[1..];
        read(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(value: &str) -> Option<i64> {
        match period(value) {
            Ok(RetentionCount::Slots(slots, _)) => Some(slots),
            _ => None,
        }
    }

    #[test]
    fn expressions_of_whole_numbers_have_their_value() {
        for (value, expected) in [
            ("7", 7),
            (" 24*7 ", 168),
            ("24 * 7 # a week", 168),
            ("2*(3 + 4)-1", 13),
            ("10-2-3", 5),
            ("2+3*4", 14),
            ("-(2)", -2),
            ("--2", 2),
            ("+0", 0),
            ("00", 0),
        ] {
            assert_eq!(slots(value), Some(expected), "{value}");
        }
        assert_eq!(period("24*7 # x"), Ok(RetentionCount::Slots(168, "24*7".into())));
    }

    #[test]
    fn always_has_no_case_and_no_company() {
        assert_eq!(period(" ALWAYS "), Ok(RetentionCount::Always));
        assert!(period("always # x").is_err());
    }

    #[test]
    fn a_product_stays_one_in_our_policy() {
        for (value, expected) in [
            ("24 * 7 # x", "\"24 * 7\""),
            ("(24)*7", "168"),
            ("3+4", "7"),
            ("07*1", ""),
            ("Always", "\"always\""),
        ] {
            let toml = period(value).ok().and_then(|period| period.to_toml());
            assert_eq!(toml.unwrap_or_default(), expected, "{value}");
        }
        assert_eq!(period("4294967296").map(|period| period.to_toml()), Ok(None));
    }

    #[test]
    fn what_is_no_count_is_refused() {
        let deep = "(".repeat(1_000_000);
        for value in [
            "",
            "#",
            "seven",
            "7 days",
            "7;",
            "2**3",
            "7/2",
            "1.5",
            "1e3",
            "0x10",
            "007",
            "(1",
            "1)",
            "1 2",
            "*2",
            "2*",
            "٣",
            "9223372036854775808",
            "9999999999*9999999999",
            "7\n8",
            "True",
            &deep,
        ] {
            assert!(period(value).is_err(), "{value:.20}");
        }
    }

    #[test]
    fn booleans_and_lists_are_those_of_humanfriendly() {
        assert_eq!((boolean("Yes"), boolean(" oN")), (Ok(true), Ok(true)));
        assert_eq!((boolean(""), boolean("0"), boolean("OFF")), (Ok(false), Ok(false), Ok(false)));
        assert!(boolean("y").is_err() && boolean("yes # x").is_err());
        assert_eq!(list(" a, ,b c,\n,d\n e"), ["a", "b c", "d\n e"]);
        assert!(list("").is_empty());
    }
}
