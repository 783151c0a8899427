//! Parameters, bound by the type that the statement wants.
//!
//! SQLite stores what it is given; PostgreSQL knows for every `$n` which type it must have, and the
//! driver refuses an `i64` where an `integer` is wanted. What an application means is nearly always
//! clear, so a value is converted to the wanted type wherever that loses nothing, and refused with
//! its number where it would. The rare types go in text form: the server reads them as it reads a
//! literal.

use bytes::{BufMut, BytesMut};
use mainstay_core::error::Report;
use mainstay_core::{Error, Kind, Result, Value};
use std::borrow::Cow;
use tokio_postgres::types::{Format, IsNull, Kind as TypeKind, ToSql, Type};

/// From 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
pub(crate) const EPOCH_DAYS: i32 = 10_957;
/// The same in microseconds.
pub(crate) const EPOCH_MICROS: i64 = 10_957 * 86_400 * 1_000_000;

/// Integers up to here are exact in a double, and in a float of four bytes.
const EXACT_IN_F64: u64 = 1 << 53;
const EXACT_IN_F32: u64 = 1 << 24;

/// One parameter in the form in which it travels.
#[derive(Clone, PartialEq)]
pub(crate) enum Bound<'a> {
    Null,
    Text(Cow<'a, str>),
    Bytes(&'a [u8]),
    /// Up to 16 bytes in binary form, and how many.
    Short([u8; 16], usize),
}

/// A type whose values are all given in text form and understood by the server: what a statement
/// is bound with when it has not been prepared.
pub(crate) fn unspecified() -> Type {
    Type::new("unspecified".into(), 0, TypeKind::Simple, String::new())
}

/// Converts all parameters, or names the first that does not fit.
///
/// # Errors
///
/// [`Kind::Decode`], with the parameter's number and the wanted type.
pub(crate) fn bind<'a>(values: &'a [Value], types: &[Type]) -> Result<Vec<Bound<'a>>> {
    values
        .iter()
        .zip(types)
        .enumerate()
        .map(|(index, (value, wanted))| {
            convert(value, wanted).ok_or_else(|| mismatch(index + 1, value, wanted))
        })
        .collect()
}

fn mismatch(number: usize, value: &Value, wanted: &Type) -> Error {
    let fits = match value {
        Value::Int(_) => "does not fit",
        _ => "cannot be stored without loss",
    };
    let message = format!(
        "parameter ${number} is of type {}, which {fits} where the statement wants {}",
        value.type_name(),
        wanted.name()
    );
    Report::new(Kind::Decode, message)
        .remedy("bind a value of that type, or cast the parameter in the statement")
        .into()
}

fn convert<'a>(value: &'a Value, wanted: &Type) -> Option<Bound<'a>> {
    let wanted = base(wanted);
    if value.is_null() {
        return Some(Bound::Null);
    }
    if wanted.oid() == 0 {
        return text_form(value);
    }
    match *wanted {
        Type::BOOL => boolean(value),
        Type::INT2 => integer(value, i16::try_from, i16::to_be_bytes),
        Type::INT4 => integer(value, i32::try_from, i32::to_be_bytes),
        Type::INT8 => integer(value, i64::try_from, i64::to_be_bytes),
        Type::OID => integer(value, u32::try_from, u32::to_be_bytes),
        Type::FLOAT4 => float4(value),
        Type::FLOAT8 => float8(value),
        Type::NUMERIC => numeric(value),
        Type::BYTEA => match value {
            Value::Bytes(bytes) => Some(Bound::Bytes(bytes)),
            _ => None,
        },
        Type::UUID => match value {
            Value::Uuid(uuid) => Some(Bound::Short(*uuid.as_bytes(), 16)),
            value => text_only(value),
        },
        Type::TIMESTAMPTZ | Type::TIMESTAMP => match value {
            // A time without a zone is UTC, on both databases.
            Value::Timestamp(at) => Some(short((at.unix_micros() - EPOCH_MICROS).to_be_bytes())),
            Value::DateTime(at) => Some(short((at.micros() - EPOCH_MICROS).to_be_bytes())),
            value => text_only(value),
        },
        Type::DATE => match value {
            Value::Date(day) => Some(short((day.unix_days() - EPOCH_DAYS).to_be_bytes())),
            value => text_only(value),
        },
        Type::TIME => match value {
            Value::Time(time) => Some(short(time.micros().to_be_bytes())),
            value => text_only(value),
        },
        Type::JSON | Type::JSONB => json(value),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN => match value {
            Value::Bytes(_) => None,
            value => text_form(value),
        },
        _ if wanted.name() == "citext" => match value {
            Value::Bytes(_) => None,
            value => text_form(value),
        },
        _ => text_only(value),
    }
}

/// A domain is bound as what it stands on.
pub(crate) fn base(mut wanted: &Type) -> &Type {
    while let TypeKind::Domain(inner) = wanted.kind() {
        wanted = inner;
    }
    wanted
}

fn short<const N: usize>(bytes: [u8; N]) -> Bound<'static> {
    let mut all = [0; 16];
    let length = N.min(16);
    all[..length].copy_from_slice(&bytes[..length]);
    Bound::Short(all, length)
}

fn text(text: impl Into<String>) -> Bound<'static> {
    Bound::Text(Cow::Owned(text.into()))
}

/// Text is read by the server as a literal of the wanted type would be.
fn text_only(value: &Value) -> Option<Bound<'_>> {
    match value {
        Value::Text(text) => Some(Bound::Text(Cow::Borrowed(text))),
        _ => None,
    }
}

fn boolean(value: &Value) -> Option<Bound<'_>> {
    match value {
        Value::Bool(flag) => Some(short([u8::from(*flag)])),
        // What SQLite stores for a bool.
        Value::Int(number @ (0 | 1)) => Some(short([u8::from(*number == 1)])),
        value => text_only(value),
    }
}

fn integer<'a, I, E, const N: usize>(
    value: &'a Value,
    narrow: impl Fn(i64) -> std::result::Result<I, E>,
    bytes: impl Fn(I) -> [u8; N],
) -> Option<Bound<'a>> {
    let number = match value {
        Value::Int(number) => *number,
        Value::Bool(flag) => i64::from(*flag),
        Value::Decimal(decimal) => i64::try_from(decimal.to_i128()?).ok()?,
        value => return text_only(value),
    };
    narrow(number).ok().map(|number| short(bytes(number)))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the range is checked right after"
)]
#[expect(
    clippy::cast_precision_loss,
    reason = "exact below the bound that is checked"
)]
fn float4(value: &Value) -> Option<Bound<'_>> {
    match value {
        Value::Float(number) => {
            let narrow = *number as f32;
            (narrow.is_finite() || number.is_infinite()).then(|| short(narrow.to_be_bytes()))
        }
        Value::Int(number) => {
            (number.unsigned_abs() <= EXACT_IN_F32).then(|| short((*number as f32).to_be_bytes()))
        }
        Value::Decimal(decimal) => Some(Bound::Text(Cow::Borrowed(decimal.as_str()))),
        value => text_only(value),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "exact below the bound that is checked"
)]
fn float8(value: &Value) -> Option<Bound<'_>> {
    match value {
        Value::Float(number) => Some(short(number.to_be_bytes())),
        Value::Int(number) => {
            (number.unsigned_abs() <= EXACT_IN_F64).then(|| short((*number as f64).to_be_bytes()))
        }
        Value::Decimal(decimal) => Some(Bound::Text(Cow::Borrowed(decimal.as_str()))),
        value => text_only(value),
    }
}

fn numeric(value: &Value) -> Option<Bound<'_>> {
    match value {
        Value::Decimal(decimal) => Some(Bound::Text(Cow::Borrowed(decimal.as_str()))),
        Value::Int(number) => Some(text(number.to_string())),
        Value::Float(number) if number.is_finite() => Some(text(float_text(*number))),
        value => text_only(value),
    }
}

/// A JSON column takes documents, and the scalars that are documents themselves.
fn json(value: &Value) -> Option<Bound<'_>> {
    match value {
        Value::Json(document) => Some(Bound::Text(Cow::Borrowed(document))),
        Value::Bool(_) | Value::Int(_) | Value::Decimal(_) => text_form(value),
        Value::Float(number) if number.is_finite() => text_form(value),
        value => text_only(value),
    }
}

/// The one text form of each value, the same that SQLite stores.
fn text_form(value: &Value) -> Option<Bound<'_>> {
    Some(match value {
        Value::Null => Bound::Null,
        Value::Bool(flag) => text(flag.to_string()),
        Value::Int(number) => text(number.to_string()),
        Value::Float(number) => text(float_text(*number)),
        Value::Decimal(decimal) => Bound::Text(Cow::Borrowed(decimal.as_str())),
        Value::Text(text) | Value::Json(text) => Bound::Text(Cow::Borrowed(text)),
        Value::Bytes(bytes) => text(hex(bytes)),
        Value::Uuid(uuid) => text(uuid.to_string()),
        Value::Timestamp(at) => text(at.to_string()),
        Value::DateTime(at) => text(at.to_string()),
        Value::Date(day) => text(day.to_string()),
        Value::Time(time) => text(time.to_string()),
        _ => return None,
    })
}

/// The shortest text that reads back as the same number.
fn float_text(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        }
        .to_owned();
    }
    format!("{number:e}")
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    let digits = |byte: &u8| {
        [
            DIGITS[usize::from(byte >> 4)],
            DIGITS[usize::from(byte & 15)],
        ]
    };
    "\\x".chars().chain(bytes.iter().flat_map(digits)).collect()
}

/// Shows the shape, never the value: the driver logs parameters.
impl std::fmt::Debug for Bound<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Text(_) => "text",
            Self::Bytes(_) | Self::Short(..) => "binary",
        })
    }
}

impl ToSql for Bound<'_> {
    fn to_sql(
        &self,
        _wanted: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => return Ok(IsNull::Yes),
            Self::Text(text) => out.put_slice(text.as_bytes()),
            Self::Bytes(bytes) => out.put_slice(bytes),
            Self::Short(bytes, length) => out.put_slice(&bytes[..*length]),
        }
        Ok(IsNull::No)
    }

    fn accepts(_wanted: &Type) -> bool {
        true
    }

    fn encode_format(&self, _wanted: &Type) -> Format {
        match self {
            Self::Text(_) => Format::Text,
            _ => Format::Binary,
        }
    }

    tokio_postgres::types::to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(value: &Value, wanted: &Type) -> Option<Bound<'static>> {
        Some(match convert(value, wanted)? {
            Bound::Null => Bound::Null,
            Bound::Text(text) => Bound::Text(Cow::Owned(text.into_owned())),
            Bound::Bytes(bytes) => Bound::Text(Cow::Owned(hex(bytes))),
            Bound::Short(bytes, length) => Bound::Short(bytes, length),
        })
    }

    #[test]
    fn an_integer_is_bound_to_every_type_that_holds_it() {
        let seven = Value::Int(7);
        assert_eq!(bound(&seven, &Type::INT2), Some(short(7_i16.to_be_bytes())));
        assert_eq!(bound(&seven, &Type::INT4), Some(short(7_i32.to_be_bytes())));
        assert_eq!(bound(&seven, &Type::INT8), Some(short(7_i64.to_be_bytes())));
        assert_eq!(
            bound(&seven, &Type::FLOAT8),
            Some(short(7_f64.to_be_bytes()))
        );
        assert_eq!(bound(&seven, &Type::NUMERIC), Some(text("7")));
        assert_eq!(bound(&seven, &Type::TEXT), Some(text("7")));
        assert_eq!(bound(&seven, &Type::BOOL), None);
        assert_eq!(bound(&seven, &Type::DATE), None);
    }

    #[test]
    fn what_would_be_cut_or_rounded_is_refused() {
        assert_eq!(bound(&Value::Int(40_000), &Type::INT2), None);
        assert_eq!(bound(&Value::Int(i64::MAX), &Type::INT4), None);
        assert_eq!(bound(&Value::Int(-1), &Type::OID), None);
        assert_eq!(bound(&Value::Int(i64::MAX), &Type::FLOAT8), None);
        assert_eq!(bound(&Value::Int((1 << 24) + 1), &Type::FLOAT4), None);
        assert_eq!(bound(&Value::Float(1e300), &Type::FLOAT4), None);
        assert_eq!(bound(&Value::Float(1.5), &Type::INT4), None);
        assert_eq!(bound(&Value::Bytes(vec![1]), &Type::TEXT), None);
        assert_eq!(bound(&Value::Text("a".into()), &Type::BYTEA), None);
        let half = Value::Decimal("1.5".parse().unwrap());
        assert_eq!(bound(&half, &Type::INT8), None);
    }

    #[test]
    fn the_error_names_the_parameter_and_both_types_but_not_the_value() {
        let values = [Value::Int(1), Value::Int(70_000)];
        let error = bind(&values, &[Type::INT4, Type::INT2]).unwrap_err();
        let shown = error.to_string();
        assert_eq!(error.kind(), Kind::Decode);
        assert!(shown.contains("$2") && shown.contains("int2"), "{shown}");
        assert!(!shown.contains("70000"), "{shown}");
    }

    #[test]
    fn text_goes_wherever_a_literal_would() {
        for wanted in [
            Type::UUID,
            Type::INET,
            Type::INTERVAL,
            Type::TIMESTAMPTZ,
            Type::INT4_ARRAY,
        ] {
            assert_eq!(
                bound(&Value::Text("x".into()), &wanted),
                Some(text("x")),
                "{wanted}"
            );
        }
    }

    #[test]
    fn domains_are_bound_as_their_base() {
        let domain = Type::new(
            "small".into(),
            99_999,
            TypeKind::Domain(Type::INT2),
            "public".into(),
        );
        assert_eq!(
            bound(&Value::Int(3), &domain),
            Some(short(3_i16.to_be_bytes()))
        );
    }

    #[test]
    fn without_a_type_everything_has_a_text_form() {
        let any = unspecified();
        assert_eq!(
            bound(&Value::Bytes(vec![0, 255]), &any),
            Some(text("\\x00ff"))
        );
        assert_eq!(bound(&Value::Float(0.1), &any), Some(text("1e-1")));
        assert_eq!(
            bound(&Value::Float(f64::NEG_INFINITY), &any),
            Some(text("-Infinity"))
        );
        assert_eq!(bound(&Value::Bool(true), &any), Some(text("true")));
        assert_eq!(bound(&Value::Null, &any), Some(Bound::Null));
    }

    #[test]
    fn values_are_never_shown() {
        let values = [Value::Text("hunter2".into())];
        let bound = bind(&values, &[Type::TEXT]).unwrap();
        assert_eq!(format!("{bound:?}"), "[text]");
    }
}
