//! How parameters are given.
//!
//! `$1` is the first element of a tuple, an array or a slice. Values are checked when they are
//! bound, by the same rules for both databases, so that a statement that works on SQLite in
//! development is not refused by PostgreSQL in production.

use crate::error::Report;
use crate::{Date, DateTime, Decimal, Error, Kind, Result, TimeOfDay, Timestamp, Uuid, Value};
use std::sync::Arc;

/// The most parameters of one statement: PostgreSQL counts them in 16 bits, SQLite's own limit is
/// 32,766.
pub const PARAMS_MAX: usize = 32_766;

/// Checked parameters, cheap to clone.
#[derive(Clone)]
pub struct Params(Arc<[Value]>);

impl Params {
    /// Checks the values and takes them in order: the first is `$1`.
    ///
    /// # Errors
    ///
    /// NaN, a NUL in text, JSON with a NUL, or more than [`PARAMS_MAX`] values.
    pub fn new(values: Vec<Value>) -> Result<Self> {
        check(&values)?;
        Ok(Self(values.into()))
    }

    /// The same for a number that is known, which takes one allocation instead of two.
    fn of<const N: usize>(values: [Value; N]) -> Result<Self> {
        check(&values)?;
        Ok(Self(Arc::new(values)))
    }

    /// The values, first to last.
    #[must_use]
    pub fn as_slice(&self) -> &[Value] {
        &self.0
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Params {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Params({})", self.0.len())
    }
}

/// Refuses what cannot be bound, with its number.
fn check(values: &[Value]) -> Result<()> {
    if values.len() > PARAMS_MAX {
        let message = format!("{} parameters are more than {PARAMS_MAX}", values.len());
        return Err(refused(message));
    }
    for (index, value) in values.iter().enumerate() {
        if let Some(reason) = objection(value) {
            return Err(refused(format!("parameter ${} {reason}", index + 1)));
        }
    }
    Ok(())
}

/// Why a value may not be bound, on either database.
fn objection(value: &Value) -> Option<&'static str> {
    match value {
        Value::Float(float) if float.is_nan() => Some("is NaN, which SQLite would store as null"),
        Value::Text(text) | Value::Json(text) if text.contains('\0') => {
            Some("contains a NUL character, which PostgreSQL cannot store in text")
        }
        _ => None,
    }
}

fn refused(message: String) -> Error {
    Report::new(Kind::Decode, message).into()
}

/// The error of a conversion whose value no column can hold.
pub(crate) fn out_of_range(cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    Report::new(Kind::Decode, "a parameter is out of range")
        .source(cause)
        .into()
}

/// A type that can be bound to a parameter.
pub trait IntoValue {
    /// The value to bind.
    ///
    /// # Errors
    ///
    /// When the value does not fit what both databases can hold.
    fn into_value(self) -> Result<Value>;
}

/// The parameters of one statement: a tuple of up to 16, an array, a slice, a `Vec`, `()` for none,
/// or [`params!`](crate::params!) for any number of mixed types.
pub trait IntoParams {
    /// The checked parameters.
    ///
    /// # Errors
    ///
    /// When a value cannot be bound; see [`Params::new`].
    fn into_params(self) -> Result<Params>;
}

/// Parameters of mixed types and any number: `params![1, "two", None::<i64>]`.
///
/// ```
/// use mainstay_core::{params, IntoParams};
/// assert_eq!(params![1, "two", 3.0].into_params()?.len(), 3);
/// # Ok::<(), mainstay_core::Error>(())
/// ```
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        (|| -> $crate::Result<$crate::Params> {
            $crate::Params::new(vec![$($crate::IntoValue::into_value($value)?),*])
        })()
    };
}

impl IntoParams for Params {
    fn into_params(self) -> Result<Params> {
        Ok(self)
    }
}

impl IntoParams for Result<Params> {
    fn into_params(self) -> Result<Params> {
        self
    }
}

impl IntoParams for () {
    fn into_params(self) -> Result<Params> {
        Params::of([])
    }
}

impl<T: IntoValue, const N: usize> IntoParams for [T; N] {
    fn into_params(self) -> Result<Params> {
        collect(self)
    }
}

impl<T: IntoValue> IntoParams for Vec<T> {
    fn into_params(self) -> Result<Params> {
        collect(self)
    }
}

impl<T: IntoValue + Clone> IntoParams for &[T] {
    fn into_params(self) -> Result<Params> {
        collect(self.iter().cloned())
    }
}

impl<T: IntoValue + Clone> IntoParams for &Vec<T> {
    fn into_params(self) -> Result<Params> {
        self.as_slice().into_params()
    }
}

fn collect<T: IntoValue>(values: impl IntoIterator<Item = T>) -> Result<Params> {
    Params::new(
        values
            .into_iter()
            .map(IntoValue::into_value)
            .collect::<Result<_>>()?,
    )
}

macro_rules! tuple {
    ($($name:ident)+) => {
        impl<$($name: IntoValue),+> IntoParams for ($($name,)+) {
            #[expect(non_snake_case, reason = "the type's name doubles as the binding's")]
            fn into_params(self) -> Result<Params> {
                let ($($name,)+) = self;
                Params::of([$($name.into_value()?),+])
            }
        }
    };
}

tuple!(A);
tuple!(A B);
tuple!(A B C);
tuple!(A B C D);
tuple!(A B C D E);
tuple!(A B C D E F);
tuple!(A B C D E F G);
tuple!(A B C D E F G H);
tuple!(A B C D E F G H I);
tuple!(A B C D E F G H I J);
tuple!(A B C D E F G H I J K);
tuple!(A B C D E F G H I J K L);
tuple!(A B C D E F G H I J K L M);
tuple!(A B C D E F G H I J K L M N);
tuple!(A B C D E F G H I J K L M N O);
tuple!(A B C D E F G H I J K L M N O P);

macro_rules! infallible {
    ($($type:ty => |$value:ident| $into:expr;)+) => {$(
        impl IntoValue for $type {
            fn into_value(self) -> Result<Value> {
                let $value = self;
                Ok($into)
            }
        }
    )+};
}

infallible! {
    Value => |value| value;
    bool => |value| Value::Bool(value);
    i8 => |value| Value::Int(value.into());
    i16 => |value| Value::Int(value.into());
    i32 => |value| Value::Int(value.into());
    i64 => |value| Value::Int(value);
    u8 => |value| Value::Int(value.into());
    u16 => |value| Value::Int(value.into());
    u32 => |value| Value::Int(value.into());
    f32 => |value| Value::Float(value.into());
    f64 => |value| Value::Float(value);
    char => |value| Value::Text(value.to_string());
    String => |value| Value::Text(value);
    &str => |value| Value::Text(value.to_owned());
    Box<str> => |value| Value::Text(value.into());
    Arc<str> => |value| Value::Text(value.as_ref().to_owned());
    std::borrow::Cow<'_, str> => |value| Value::Text(value.into_owned());
    Vec<u8> => |value| Value::Bytes(value);
    &[u8] => |value| Value::Bytes(value.to_vec());
    Decimal => |value| Value::Decimal(value);
    Uuid => |value| Value::Uuid(value);
    Timestamp => |value| Value::Timestamp(value);
    DateTime => |value| Value::DateTime(value);
    Date => |value| Value::Date(value);
    TimeOfDay => |value| Value::Time(value);
}

impl<const N: usize> IntoValue for [u8; N] {
    fn into_value(self) -> Result<Value> {
        Ok(Value::Bytes(self.to_vec()))
    }
}

impl<const N: usize> IntoValue for &[u8; N] {
    fn into_value(self) -> Result<Value> {
        Ok(Value::Bytes(self.to_vec()))
    }
}

/// Unsigned and machine-sized integers are refused above 2⁶³−1, which no column of either holds.
macro_rules! checked {
    ($($type:ty)+) => {$(
        impl IntoValue for $type {
            fn into_value(self) -> Result<Value> {
                i64::try_from(self).map(Value::Int).map_err(out_of_range)
            }
        }
    )+};
}

checked!(u64 usize isize i128 u128);

impl<T: IntoValue> IntoValue for Option<T> {
    fn into_value(self) -> Result<Value> {
        self.map_or(Ok(Value::Null), IntoValue::into_value)
    }
}

/// Borrowed values are cloned, so that `(&name, &id)` works as `(name, id)` does.
macro_rules! borrowed {
    ($($type:ty)+) => {$(
        impl IntoValue for &$type {
            fn into_value(self) -> Result<Value> {
                self.clone().into_value()
            }
        }
    )+};
}

borrowed! { Value bool i8 i16 i32 i64 u8 u16 u32 u64 usize f32 f64 String Vec<u8> Decimal Uuid Timestamp DateTime Date TimeOfDay }

impl<T: IntoValue + Clone> IntoValue for &Option<T> {
    fn into_value(self) -> Result<Value> {
        self.clone().into_value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_come_in_the_order_of_the_tuple() {
        let params = (1, "two", None::<i64>, 4.5).into_params().unwrap();
        let expected = [
            Value::Int(1),
            Value::Text("two".into()),
            Value::Null,
            Value::Float(4.5),
        ];
        assert_eq!(params.as_slice(), expected);
    }

    #[test]
    fn what_neither_database_holds_is_refused_with_its_number() {
        let error = (1, f64::NAN).into_params().unwrap_err();
        assert_eq!(error.kind(), Kind::Decode);
        assert!(error.to_string().contains("$2"), "{error}");
        assert!(("a\0b",).into_params().is_err());
        assert!((u64::MAX,).into_params().is_err());
        assert!(vec![0_i64; PARAMS_MAX + 1].into_params().is_err());
    }

    #[test]
    fn a_statement_never_shows_its_parameters() {
        let statement = crate::Statement::new("select $1", ("hunter2",)).unwrap();
        assert!(!format!("{statement:?}").contains("hunter2"));
    }
}
