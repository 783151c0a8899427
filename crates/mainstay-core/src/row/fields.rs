//! Which columns a type looks for.
//!
//! serde turns a missing column for an `Option` field into `None` without a word, which hides a
//! misspelt column for ever. Asking the type for its field names, once per statement text, lets the
//! facade compare them with the columns and say so.

use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde::forward_to_deserialize_any;
use std::fmt;

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

/// The probe's answer to everything. It is given for each reply, so it has no text to allocate.
#[derive(Debug)]
struct Asked;

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("only the question was of interest")
    }
}

impl std::error::Error for Asked {}

impl serde::de::Error for Asked {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Asked;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Asked> {
        Err(Asked)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Asked> {
        *self.names = Some(fields);
        Err(Asked)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Asked> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        option unit unit_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
