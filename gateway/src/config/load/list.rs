//! Finds what is wrong in a list of tables, such as `[[channels]]`, and remembers where its tables stand.

use toml::Value;

use crate::config::Place;

/// Where a table of a list stands, and its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) place: Place,
    pub(super) fields: Vec<(String, Place)>,
}

/// A wrong table of a list.
pub(super) struct Wrong {
    /// Its number, from 0.
    pub(super) number: usize,
    /// The key with the wrong value, unless it is the table itself that is wrong.
    pub(super) field: Option<String>,
    pub(super) error: toml::de::Error,
}

/// The first wrong table of a list; `read` reads a list.
pub(super) fn wrong(items: &[Value], read: impl Fn(Vec<Value>) -> Result<(), toml::de::Error>) -> Option<Wrong> {
    let fault = |item: Value| read(vec![item]).err();
    let (number, item, error) =
        items.iter().enumerate().find_map(|(number, item)| Some((number, item, fault(item.clone())?)))?;
    let table = item.as_table()?;
    // The error is about the key without which it would not be there.
    let field = table.keys().find(|name| {
        let mut less = table.clone();
        less.remove(*name);
        fault(less.into()).is_none_or(|other| other.message() != error.message())
    });
    Some(Wrong { number, field: field.cloned(), error })
}
