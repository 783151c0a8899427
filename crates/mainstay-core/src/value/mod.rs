//! What may be bound to a parameter and what may come back in a column.
//!
//! The two databases disagree about types: PostgreSQL has many and checks them, SQLite has five and
//! stores what it is given. [`Value`] is the set that means the same on both. Each variant has one
//! text form, and that form is what SQLite stores for types it does not have.

mod convert;
mod decimal;
mod temporal;

pub use decimal::{DIGITS_MAX, Decimal, DecimalError};
pub use temporal::{Date, DateTime, TemporalError, TimeOfDay, Timestamp};

/// A universally unique identifier. Text form: hyphenated, lower case.
pub use uuid::Uuid;

/// One value, of a type that both databases know or can store without loss.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// No value.
    Null,
    /// True or false. SQLite stores 1 and 0.
    Bool(bool),
    /// An integer of up to 64 bits.
    Int(i64),
    /// A 64-bit float; never NaN.
    Float(f64),
    /// An exact decimal number. SQLite stores its canonical text.
    Decimal(Decimal),
    /// Text without NUL.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// An identifier. SQLite stores its text.
    Uuid(Uuid),
    /// An instant, in UTC, to the microsecond. SQLite stores its text, which sorts as time does.
    Timestamp(Timestamp),
    /// A date and a time of day without a zone.
    DateTime(DateTime),
    /// A calendar day.
    Date(Date),
    /// A time of day.
    Time(TimeOfDay),
    /// A JSON document, as text.
    Json(String),
}

impl Value {
    /// The name of the value's type, for messages.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int(_) => "integer",
            Self::Float(_) => "float",
            Self::Decimal(_) => "decimal",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::Uuid(_) => "uuid",
            Self::Timestamp(_) => "timestamp",
            Self::DateTime(_) => "timestamp without zone",
            Self::Date(_) => "date",
            Self::Time(_) => "time",
            Self::Json(_) => "json",
        }
    }

    /// How many bytes it takes on its way to the database, about: exact where it can be many.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(text) | Self::Json(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            _ => size_of::<Self>(),
        }
    }

    /// Whether it is [`Value::Null`].
    #[must_use]
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}
