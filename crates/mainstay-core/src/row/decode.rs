//! A row as a serde deserializer.

use super::value::{DecodeError, ValueDeserializer};
use super::{Columns, Row};
use crate::Value;
use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;
use std::cell::RefCell;

/// The name under which [`Row`] asks for itself.
const ROW: &str = "$mainstay::Row";

thread_local! {
    /// The row on its way from the deserializer to `Row::deserialize`, which run on the same stack.
    static PARKED: RefCell<Option<Row>> = const { RefCell::new(None) };
}

pub(super) struct RowDeserializer<'r> {
    row: &'r Row,
}

impl<'r> RowDeserializer<'r> {
    pub(super) fn new(row: &'r Row) -> Self {
        Self { row }
    }

    /// The only value of a one-column row.
    fn single(&self) -> Result<ValueDeserializer<'r>, DecodeError> {
        match self.row.values.as_slice() {
            [value] => Ok(ValueDeserializer(value)),
            values => Err(DecodeError::custom(format!(
                "a single value was asked for, but the row has {} columns ({})",
                values.len(),
                self.row.columns
            ))),
        }
    }

    fn named(&self) -> Result<Named<'r>, DecodeError> {
        if let Some(name) = self.row.columns.duplicate() {
            return Err(DecodeError::custom(format!(
                "two columns are called {name:?}; give one another name with `as`"
            )));
        }
        Ok(Named {
            columns: &self.row.columns,
            values: &self.row.values,
            next: 0,
        })
    }

    fn positional(&self, wanted: usize) -> Result<Positional<'r>, DecodeError> {
        if wanted != self.row.values.len() {
            return Err(DecodeError::custom(format!(
                "a tuple of {wanted} was asked for, but the row has {} columns ({})",
                self.row.values.len(),
                self.row.columns
            )));
        }
        Ok(self.sequence())
    }

    fn sequence(&self) -> Positional<'r> {
        Positional {
            columns: &self.row.columns,
            values: &self.row.values,
            next: 0,
        }
    }

    fn scalar<T>(
        &self,
        read: impl FnOnce(ValueDeserializer<'r>) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let value = self.single()?;
        read(value).map_err(|error| error.in_column(self.row.columns[0].name()))
    }
}

macro_rules! scalars {
    ($($method:ident)+) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            self.scalar(|value| value.$method(visitor))
        }
    )+};
}

impl<'de> Deserializer<'de> for RowDeserializer<'_> {
    type Error = DecodeError;

    scalars! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char deserialize_str
        deserialize_string deserialize_bytes deserialize_byte_buf
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.row.values.len() {
            1 => self.scalar(|value| value.deserialize_any(visitor)),
            _ => self.deserialize_map(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.row.values.as_slice() {
            [Value::Null] => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        if name == ROW {
            PARKED.set(Some(self.row.clone()));
            return visitor.visit_unit();
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        // `Vec<u8>` asks for a sequence: of one column of bytes or JSON it is that column's content.
        match self.row.values.as_slice() {
            [Value::Bytes(_) | Value::Json(_)] => {
                self.scalar(|value| value.deserialize_seq(visitor))
            }
            _ => visitor.visit_seq(self.sequence()),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_seq(self.positional(len)?)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_seq(self.positional(len)?)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_map(self.named()?)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_map(self.named()?)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.scalar(|value| value.deserialize_enum(name, variants, visitor))
    }

    forward_to_deserialize_any! { identifier ignored_any }
}

/// Columns by name.
struct Named<'r> {
    columns: &'r Columns,
    values: &'r [Value],
    next: usize,
}

impl<'de> MapAccess<'de> for Named<'_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, DecodeError> {
        if self.next == self.values.len() {
            return Ok(None);
        }
        let name: StrDeserializer<'_, DecodeError> =
            self.columns[self.next].name().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, DecodeError> {
        let index = self.next;
        self.next += 1;
        seed.deserialize(ValueDeserializer(&self.values[index]))
            .map_err(|error| error.in_column(self.columns[index].name()))
    }
}

/// Columns by position.
struct Positional<'r> {
    columns: &'r Columns,
    values: &'r [Value],
    next: usize,
}

impl<'de> SeqAccess<'de> for Positional<'_> {
    type Error = DecodeError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DecodeError> {
        let Some(value) = self.values.get(self.next) else {
            return Ok(None);
        };
        let index = self.next;
        self.next += 1;
        seed.deserialize(ValueDeserializer(value))
            .map(Some)
            .map_err(|error| error.in_column(self.columns[index].name()))
    }
}

impl<'de> de::Deserialize<'de> for Row {
    /// Works inside mainstay only: a row comes out of a row, not out of JSON.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parked;

        impl Visitor<'_> for Parked {
            type Value = Row;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a database row")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Row, E> {
                PARKED
                    .take()
                    .ok_or_else(|| E::custom("a Row can only be decoded from a row"))
            }
        }

        deserializer.deserialize_newtype_struct(ROW, Parked)
    }
}
