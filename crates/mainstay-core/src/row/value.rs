//! One value as a serde deserializer: the wanted type decides.

use crate::Value;
use serde::de::value::{SeqDeserializer, StrDeserializer};
use serde::de::{self, Deserializer, Error as _, IntoDeserializer, Visitor};
use std::fmt;

/// Why a row does not fit a type, and in which column.
#[derive(Debug)]
pub(super) struct DecodeError {
    message: String,
    column: Option<String>,
}

impl DecodeError {
    /// Names the column, unless a deeper one is named already.
    pub(super) fn in_column(mut self, name: &str) -> Self {
        self.column.get_or_insert_with(|| name.to_owned());
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.column {
            Some(column) => write!(f, "column {column:?}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            message: message.to_string(),
            column: None,
        }
    }
}

#[derive(Copy, Clone)]
pub(super) struct ValueDeserializer<'v>(pub(super) &'v Value);

impl ValueDeserializer<'_> {
    /// Says which types do not fit; never shows the value, which may be a secret.
    fn mismatch(self, wanted: &str) -> DecodeError {
        DecodeError::custom(match self.0 {
            Value::Null => format!("null where {wanted} was asked for; use Option"),
            value => format!("{} where {wanted} was asked for", value.type_name()),
        })
    }

    fn integer(self) -> Result<i128, DecodeError> {
        match self.0 {
            Value::Int(int) => Ok(i128::from(*int)),
            Value::Decimal(decimal) => decimal.to_i128().ok_or_else(|| {
                DecodeError::custom("a decimal that is no whole number, or too large, where an integer was asked for")
            }),
            _ => Err(self.mismatch("an integer")),
        }
    }

    fn float(self) -> Result<f64, DecodeError> {
        /// Integers up to this size have an exact float.
        const EXACT: i64 = 1 << 53;
        match self.0 {
            Value::Float(float) => Ok(*float),
            #[expect(clippy::cast_precision_loss, reason = "the guard keeps it exact")]
            Value::Int(int) if (-EXACT..=EXACT).contains(int) => Ok(*int as f64),
            Value::Int(_) => Err(DecodeError::custom(
                "an integer too large for an exact float",
            )),
            Value::Decimal(decimal) => Ok(decimal.to_f64()),
            _ => Err(self.mismatch("a float")),
        }
    }

    /// The text of everything that has one; dates in ISO 8601, which is what date types read.
    fn text(self) -> Result<std::borrow::Cow<'static, str>, DecodeError> {
        Ok(match self.0 {
            Value::Uuid(uuid) => uuid.hyphenated().to_string(),
            Value::Timestamp(at) => at.rfc3339(),
            Value::DateTime(at) => at.iso8601(),
            Value::Date(day) => day.to_string(),
            Value::Time(time) => time.to_string(),
            Value::Decimal(decimal) => decimal.to_string(),
            _ => return Err(self.mismatch("text")),
        }
        .into())
    }

    fn json<'de, V: Visitor<'de>>(
        text: &str,
        read: impl FnOnce(serde_json::Value, V) -> Result<V::Value, serde_json::Error>,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        serde_json::from_str(text)
            .and_then(|document| read(document, visitor))
            .map_err(|error| DecodeError::custom(format!("JSON that does not fit: {error}")))
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty;)+) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            let wide = self.integer()?;
            let narrow = <$type>::try_from(wide).map_err(|_| {
                DecodeError::custom(concat!("an integer that does not fit ", stringify!($type)))
            })?;
            visitor.$visit(narrow)
        }
    )+};
}

impl<'de> Deserializer<'de> for ValueDeserializer<'_> {
    type Error = DecodeError;

    integers! {
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_i128 visit_i128 i128;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_u128 visit_u128 u128;
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            Value::Bool(bool) => visitor.visit_bool(*bool),
            Value::Int(int) => visitor.visit_i64(*int),
            Value::Float(float) => visitor.visit_f64(*float),
            Value::Text(text) => visitor.visit_str(text),
            Value::Bytes(bytes) => visitor.visit_bytes(bytes),
            Value::Json(text) => Self::json(
                text,
                |document, visitor| document.deserialize_any(visitor),
                visitor,
            ),
            _ => visitor.visit_string(self.text()?.into_owned()),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.0 {
            Value::Bool(bool) => visitor.visit_bool(*bool),
            Value::Int(0) => visitor.visit_bool(false),
            Value::Int(1) => visitor.visit_bool(true),
            Value::Int(_) => Err(DecodeError::custom(
                "an integer other than 0 and 1 where a bool was asked for",
            )),
            _ => Err(self.mismatch("a bool")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the caller asked for f32 precision"
        )]
        visitor.visit_f32(self.float()? as f32)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_f64(self.float()?)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.0 {
            // Types that parse text ask for `str`, `String` asks for `string`: only the former are
            // given the instant that SQLite stores with a space in the form of RFC 3339.
            Value::Text(text) => match stored_timestamp(text) {
                Some(rfc3339) => visitor.visit_string(rfc3339),
                None => visitor.visit_str(text),
            },
            Value::Json(text) => visitor.visit_str(text),
            _ => visitor.visit_string(self.text()?.into_owned()),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.0 {
            Value::Text(text) | Value::Json(text) => visitor.visit_str(text),
            _ => visitor.visit_string(self.text()?.into_owned()),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.0 {
            Value::Bytes(bytes) => visitor.visit_bytes(bytes),
            _ => Err(self.mismatch("bytes")),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.0.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.0.is_null() {
            visitor.visit_unit()
        } else {
            Err(self.mismatch("nothing"))
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.0 {
            Value::Bytes(bytes) => visitor.visit_seq(SeqDeserializer::<_, DecodeError>::new(
                bytes.iter().copied(),
            )),
            Value::Json(text) => Self::json(
                text,
                |document, visitor| document.deserialize_seq(visitor),
                visitor,
            ),
            Value::Text(text) if text.starts_with('[') => Self::json(
                text,
                |document, visitor| document.deserialize_seq(visitor),
                visitor,
            ),
            _ => Err(self.mismatch("a sequence")),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.0 {
            Value::Json(text) | Value::Text(text) => Self::json(
                text,
                |document, visitor| document.deserialize_map(visitor),
                visitor,
            ),
            _ => Err(self.mismatch("a JSON object")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.0 {
            Value::Json(text) | Value::Text(text) => Self::json(
                text,
                |document, visitor| document.deserialize_struct(name, fields, visitor),
                visitor,
            ),
            _ => Err(self.mismatch("a JSON object")),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.0 {
            Value::Text(text) => {
                let variant: StrDeserializer<'_, DecodeError> = text.as_str().into_deserializer();
                visitor.visit_enum(variant)
            }
            Value::Json(text) => Self::json(
                text,
                |document, visitor| document.deserialize_enum(name, variants, visitor),
                visitor,
            ),
            _ => Err(self.mismatch("the text of a variant")),
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }
}

/// RFC 3339 for a text that has exactly the form in which instants are stored on SQLite.
fn stored_timestamp(text: &str) -> Option<String> {
    const FORM: &[u8] = b"0000-00-00 00:00:00.000000+00:00";
    let is_stored = text.len() == FORM.len()
        && text
            .bytes()
            .zip(FORM)
            .enumerate()
            .all(|(index, (byte, form))| match form {
                b'0' if index < 26 => byte.is_ascii_digit(),
                _ => byte == *form,
            });
    is_stored.then(|| format!("{}T{}Z", &text[..10], &text[11..26]))
}
