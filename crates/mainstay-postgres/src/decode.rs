//! Columns, read by their type.
//!
//! Every type that [`Value`] can hold without loss is read from the binary form; the rest is
//! refused by name, before the statement runs, with the cast that would help. Nothing is
//! rounded or guessed: an infinite timestamp is an error, not a far one.

mod numeric;

use crate::bind::{EPOCH_DAYS, EPOCH_MICROS, base};
use crate::types::CustomTypes;
use mainstay_core::error::Report;
use mainstay_core::{
    Columns, Date, DateTime, Error, Kind, Result, Row, TimeOfDay, Timestamp, Uuid, Value,
};
use std::sync::Arc;
use tokio_postgres::types::{FromSql, Kind as TypeKind, Type};

/// How the rows of one statement are read.
#[derive(Clone, Debug)]
pub(crate) struct RowShape {
    columns: Arc<Columns>,
    types: Vec<Type>,
}

impl RowShape {
    /// The shape of columns whose types the driver knows.
    pub(crate) fn of(columns: &[tokio_postgres::Column]) -> Self {
        Self::with_types(columns, columns.iter().map(|column| column.type_().clone()))
    }

    /// The shape of columns with types of the database's own, or the numbers of those types that have
    /// to be asked for.
    pub(crate) fn resolved(
        columns: &[tokio_postgres::Column],
        custom: &CustomTypes,
    ) -> std::result::Result<Self, Vec<u32>> {
        let found: Vec<_> = columns.iter().map(|column| custom.of(column)).collect();
        let unknown: Vec<u32> = found.iter().filter_map(|one| one.clone().err()).collect();
        if !unknown.is_empty() {
            return Err(unknown);
        }
        Ok(Self::with_types(columns, found.into_iter().flatten()))
    }

    fn with_types(columns: &[tokio_postgres::Column], types: impl Iterator<Item = Type>) -> Self {
        Self {
            columns: Arc::new(Columns::from_names(
                columns.iter().map(tokio_postgres::Column::name),
            )),
            types: types.map(|column| base(&column).clone()).collect(),
        }
    }

    pub(crate) fn columns(&self) -> &Arc<Columns> {
        &self.columns
    }

    /// Says before the statement runs whether its rows can be read: afterwards it may have written.
    ///
    /// # Errors
    ///
    /// [`Kind::Decode`] that names the column and the cast.
    pub(crate) fn check(&self) -> Result<()> {
        for (index, wanted) in self.types.iter().enumerate() {
            if Reading::of(wanted).is_none() {
                let name = self.columns[index].name();
                let message = format!(
                    "column {name:?} is of type {}, which has no value here",
                    wanted.name()
                );
                return Err(Report::new(Kind::Decode, message)
                    .remedy("cast it in the statement, for instance to text")
                    .into());
            }
        }
        Ok(())
    }

    /// Reads one row.
    ///
    /// # Errors
    ///
    /// [`Kind::Decode`] that names the column.
    pub(crate) fn read(&self, row: &tokio_postgres::Row) -> Result<Row> {
        let values = self
            .types
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let raw: Option<Raw<'_>> = row
                    .try_get(index)
                    .map_err(|error| self.unreadable(index, error.to_string()))?;
                let Some(Raw(bytes)) = raw else {
                    return Ok(Value::Null);
                };
                value(column, bytes).map_err(|reason| self.unreadable(index, reason))
            })
            .collect::<Result<_>>()?;
        Ok(Row::new(Arc::clone(&self.columns), values))
    }

    fn unreadable(&self, index: usize, reason: impl std::fmt::Display) -> Error {
        let name = self.columns[index].name();
        Report::new(
            Kind::Decode,
            format!("column {name:?} cannot be read: {reason}"),
        )
        .into()
    }
}

/// The bytes of a column, whatever its type.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(
        _column: &Type,
        bytes: &'a [u8],
    ) -> std::result::Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(bytes))
    }

    fn accepts(_column: &Type) -> bool {
        true
    }
}

/// The ways in which bytes become a value.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Reading {
    Bool,
    Int2,
    Int4,
    Int8,
    Unsigned,
    Float4,
    Float8,
    Numeric,
    Text,
    Bytes,
    Uuid,
    Timestamp,
    DateTime,
    Date,
    Time,
    Json,
    Jsonb,
    Void,
    Char,
}

impl Reading {
    fn of(column: &Type) -> Option<Self> {
        Some(match *column {
            Type::BOOL => Self::Bool,
            Type::INT2 => Self::Int2,
            Type::INT4 => Self::Int4,
            Type::INT8 => Self::Int8,
            Type::OID | Type::XID | Type::CID => Self::Unsigned,
            Type::FLOAT4 => Self::Float4,
            Type::FLOAT8 => Self::Float8,
            Type::NUMERIC => Self::Numeric,
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::XML => {
                Self::Text
            }
            Type::BYTEA => Self::Bytes,
            Type::UUID => Self::Uuid,
            Type::TIMESTAMPTZ => Self::Timestamp,
            Type::TIMESTAMP => Self::DateTime,
            Type::DATE => Self::Date,
            Type::TIME => Self::Time,
            Type::JSON => Self::Json,
            Type::JSONB => Self::Jsonb,
            Type::VOID => Self::Void,
            Type::CHAR => Self::Char,
            _ if matches!(column.kind(), TypeKind::Enum(_)) || column.name() == "citext" => {
                Self::Text
            }
            _ => return None,
        })
    }
}

type Reason = &'static str;

const WRONG_LENGTH: Reason = "the server sent a value of the wrong length";
const OUT_OF_RANGE: Reason = "it lies outside the years 1 to 9999";

fn value(column: &Type, bytes: &[u8]) -> std::result::Result<Value, Reason> {
    let Some(reading) = Reading::of(column) else {
        return Err("its type has no value here; cast it in the statement, for instance to text");
    };
    Ok(match reading {
        Reading::Bool => Value::Bool(fixed::<1>(bytes)? != [0]),
        Reading::Int2 => Value::Int(i16::from_be_bytes(fixed(bytes)?).into()),
        Reading::Int4 => Value::Int(i32::from_be_bytes(fixed(bytes)?).into()),
        Reading::Int8 => Value::Int(i64::from_be_bytes(fixed(bytes)?)),
        Reading::Unsigned => Value::Int(u32::from_be_bytes(fixed(bytes)?).into()),
        // The exact value: `real` 1.1 is 1.10000002384185791015625, as the server's own cast says.
        Reading::Float4 => float(f32::from_be_bytes(fixed(bytes)?).into())?,
        Reading::Float8 => float(f64::from_be_bytes(fixed(bytes)?))?,
        Reading::Numeric => Value::Decimal(numeric::decimal(bytes)?),
        Reading::Text => Value::Text(text(bytes)?),
        Reading::Bytes => Value::Bytes(bytes.to_vec()),
        Reading::Uuid => Value::Uuid(Uuid::from_bytes(fixed(bytes)?)),
        Reading::Timestamp => Timestamp::from_unix_micros(micros(bytes)?)
            .map(Value::Timestamp)
            .map_err(|_| OUT_OF_RANGE)?,
        Reading::DateTime => DateTime::from_micros(micros(bytes)?)
            .map(Value::DateTime)
            .map_err(|_| OUT_OF_RANGE)?,
        Reading::Date => Date::from_unix_days(days(bytes)?)
            .map(Value::Date)
            .map_err(|_| OUT_OF_RANGE)?,
        // 24:00:00 is a time of day in PostgreSQL and nowhere else.
        Reading::Time => TimeOfDay::from_micros(i64::from_be_bytes(fixed(bytes)?))
            .map(Value::Time)
            .map_err(|_| "it is 24:00:00, which is no time of day")?,
        Reading::Json => Value::Json(text(bytes)?),
        Reading::Jsonb => match bytes.split_first() {
            Some((1, document)) => Value::Json(text(document)?),
            _ => return Err("the server sent jsonb of an unknown version"),
        },
        Reading::Void => Value::Null,
        Reading::Char => {
            let [byte] = fixed::<1>(bytes)?;
            Value::Text(if byte == 0 {
                String::new()
            } else {
                char::from(byte).to_string()
            })
        }
    })
}

fn fixed<const N: usize>(bytes: &[u8]) -> std::result::Result<[u8; N], Reason> {
    bytes.try_into().map_err(|_| WRONG_LENGTH)
}

fn text(bytes: &[u8]) -> std::result::Result<String, Reason> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "the server sent text that is not UTF-8")
}

fn float(number: f64) -> std::result::Result<Value, Reason> {
    if number.is_nan() {
        return Err("it is NaN, which SQLite cannot store and no comparison finds again");
    }
    Ok(Value::Float(number))
}

fn micros(bytes: &[u8]) -> std::result::Result<i64, Reason> {
    let micros = i64::from_be_bytes(fixed(bytes)?);
    if matches!(micros, i64::MIN | i64::MAX) {
        return Err("it is infinite");
    }
    micros.checked_add(EPOCH_MICROS).ok_or(OUT_OF_RANGE)
}

fn days(bytes: &[u8]) -> std::result::Result<i32, Reason> {
    let days = i32::from_be_bytes(fixed(bytes)?);
    if matches!(days, i32::MIN | i32::MAX) {
        return Err("it is infinite");
    }
    days.checked_add(EPOCH_DAYS).ok_or(OUT_OF_RANGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_any_width_are_integers() {
        assert_eq!(
            value(&Type::INT2, &(-5_i16).to_be_bytes()),
            Ok(Value::Int(-5))
        );
        assert_eq!(
            value(&Type::INT8, &i64::MIN.to_be_bytes()),
            Ok(Value::Int(i64::MIN))
        );
        assert_eq!(
            value(&Type::OID, &u32::MAX.to_be_bytes()),
            Ok(Value::Int(4_294_967_295))
        );
    }

    #[test]
    fn what_has_no_value_is_an_error_and_not_a_guess() {
        assert!(value(&Type::FLOAT8, &f64::NAN.to_be_bytes()).is_err());
        assert!(value(&Type::TIMESTAMPTZ, &i64::MAX.to_be_bytes()).is_err());
        assert!(value(&Type::TIMESTAMP, &i64::MIN.to_be_bytes()).is_err());
        assert!(value(&Type::DATE, &i32::MAX.to_be_bytes()).is_err());
        assert!(value(&Type::DATE, &(-800_000_i32).to_be_bytes()).is_err());
        assert!(value(&Type::TIME, &(86_400_000_000_i64).to_be_bytes()).is_err());
        assert!(value(&Type::INTERVAL, &[0; 16]).is_err());
    }

    #[test]
    fn a_value_of_the_wrong_length_does_not_panic() {
        for column in [
            Type::BOOL,
            Type::INT4,
            Type::UUID,
            Type::NUMERIC,
            Type::JSONB,
            Type::CHAR,
        ] {
            assert!(value(&column, &[]).is_err(), "{column}");
        }
    }

    #[test]
    fn the_epoch_is_the_servers() {
        let instant = value(&Type::TIMESTAMPTZ, &0_i64.to_be_bytes()).unwrap();
        assert_eq!(
            instant,
            Value::Timestamp("2000-01-01T00:00:00Z".parse().unwrap())
        );
        let day = value(&Type::DATE, &0_i32.to_be_bytes()).unwrap();
        assert_eq!(day, Value::Date("2000-01-01".parse().unwrap()));
    }
}
