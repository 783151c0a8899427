//! Which columns a type looks for.
//!
//! serde turns a missing column for an `Option` field into `None` without a word, which hides a
//! misspelt column for ever. Asking the type for its field names, once per statement text, lets the
//! facade compare them with the columns and say so.

use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;

/// The field names of a struct that is decoded by name; `None` for every other type, and for a
/// struct that collects unknown columns (`#[serde(flatten)]`).
///
/// ```
/// #[derive(serde::Deserialize)]
/// struct Order { id: i64, note: Option<String> }
/// assert_eq!(mainstay_core::row::field_names::<Order>(), Some(["id", "note"].as_slice()));
/// assert_eq!(mainstay_core::row::field_names::<i64>(), None);
/// ```
#[must_use]
pub fn field_names<T: DeserializeOwned>() -> Option<&'static [&'static str]> {
    let mut names = None;
    // The probe answers every question with an error: only the question is of interest.
    drop(T::deserialize(Probe { names: &mut names }));
    names
}

struct Probe<'a> {
    names: &'a mut Option<&'static [&'static str]>,
}

type Never = serde::de::value::Error;

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Never;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Never> {
        Err(Never::custom("not a struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Never> {
        *self.names = Some(fields);
        Err(Never::custom("asked"))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Never> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        option unit unit_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
