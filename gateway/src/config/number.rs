//! Whole numbers within bounds.

use std::{fmt, marker::PhantomData};

use serde::{Deserializer, de};

/// Reads a number from `MIN` to `MAX`, which `T` must be able to hold.
pub(super) fn between<'de, D, T, const MIN: u64, const MAX: u64>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    deserializer.deserialize_u64(Between::<T, MIN, MAX>(PhantomData))
}

/// As [`between`], for a key that need not be there.
pub(super) fn some_between<'de, D, T, const MIN: u64, const MAX: u64>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    between::<D, T, MIN, MAX>(deserializer).map(Some)
}

struct Between<T, const MIN: u64, const MAX: u64>(PhantomData<T>);

impl<T: TryFrom<u64>, const MIN: u64, const MAX: u64> de::Visitor<'_> for Between<T, MIN, MAX> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        let within = (MIN..=MAX).contains(&number).then_some(number);
        let value = within.and_then(|number| T::try_from(number).ok());
        value.ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
        }
    }
}
