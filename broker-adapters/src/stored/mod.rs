//! What the log holds: the bytes of a record, the record that they stand for, and its place.

pub(crate) mod envelope;
pub(crate) mod extensions;
pub(crate) mod position;
pub(crate) mod record;

#[cfg(test)]
mod golden;
