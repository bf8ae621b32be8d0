//! Options by their names.

/// How an option is spelt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionName {
    /// A letter, without its dash.
    Letter(char),
    /// A long name, without its dashes.
    Long(String),
}

/// An option as the client sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenOption {
    /// Its name.
    pub name: OptionName,
    /// Its value, for an option that takes one.
    pub value: Option<Vec<u8>>,
}
