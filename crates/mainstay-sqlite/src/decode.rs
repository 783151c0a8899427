//! Rows.
//!
//! SQLite stores five kinds of value and knows no others. What a column was *declared* as is a hint
//! for values that only the application's types can tell apart: 1 in a `BOOLEAN` column is true. A
//! hint is followed only where the stored value really is of that type; otherwise the value is
//! handed out as it is stored. Expressions have no declared type, and rows are decoded by the
//! wanted Rust type in any case, so nothing depends on the hint.

use mainstay_core::error::Report;
use mainstay_core::{Column, Columns, Kind, Result, Row, Value};
use rusqlite::types::ValueRef;
use std::sync::Arc;

/// What a declared type says about the values of its column.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Hint {
    None,
    Bool,
    Timestamp { zoned: bool },
    Date,
    Time,
    Uuid,
    Json,
    Decimal,
}

/// The columns of a result, and what their declarations say.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) columns: Arc<Columns>,
    hints: Vec<Hint>,
}

impl Shape {
    /// The shape of a prepared statement. To be asked after the first step: the step may prepare
    /// the statement anew because the schema has changed.
    pub(crate) fn of(statement: &rusqlite::Statement<'_>) -> Self {
        let mut columns = Vec::with_capacity(statement.column_count());
        let mut hints = Vec::with_capacity(statement.column_count());
        for column in statement.columns() {
            columns.push(Column::new(column.name()));
            hints.push(column.decl_type().map_or(Hint::None, hint));
        }
        Self {
            columns: Arc::new(Columns::new(columns)),
            hints,
        }
    }

    /// One row, and roughly how many bytes it takes.
    pub(crate) fn row(&self, row: &rusqlite::Row<'_>) -> Result<(Row, usize)> {
        let mut values = Vec::with_capacity(self.hints.len());
        let mut bytes = 0;
        for (index, &hint) in self.hints.iter().enumerate() {
            let stored = row.get_ref(index).map_err(|error| {
                let message = format!("column {index} of a row is not there");
                Report::new(Kind::Decode, message)
                    .source(error)
                    .into_error()
            })?;
            bytes += size_of::<Value>() + length(stored);
            values.push(value(stored, hint).map_err(|reason| {
                let name = self.columns[index].name();
                let message = format!("column {name:?} cannot be read: {reason}");
                Report::new(Kind::Decode, message)
                    .remedy("store bytes in a BLOB column, or read it with cast(… as blob)")
                    .into_error()
            })?);
        }
        Ok((Row::new(Arc::clone(&self.columns), values), bytes))
    }
}

fn length(stored: ValueRef<'_>) -> usize {
    match stored {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
        _ => 0,
    }
}

fn value(stored: ValueRef<'_>, hint: Hint) -> Result<Value, &'static str> {
    Ok(match stored {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number @ (0 | 1)) if hint == Hint::Bool => Value::Bool(number == 1),
        ValueRef::Integer(number) => Value::Int(number),
        ValueRef::Real(number) => Value::Float(number),
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
        ValueRef::Text(bytes) => {
            let text = std::str::from_utf8(bytes).map_err(|_| "its text is not valid UTF-8")?;
            hinted(text, hint).unwrap_or_else(|| Value::Text(text.to_owned()))
        }
    })
}

/// A text as the declared type wants it, if it is of that type.
fn hinted(text: &str, hint: Hint) -> Option<Value> {
    match hint {
        Hint::None | Hint::Bool => None,
        Hint::Timestamp { zoned } if zoned || has_offset(text) => {
            text.parse().ok().map(Value::Timestamp)
        }
        Hint::Timestamp { .. } => text.parse().ok().map(Value::DateTime),
        Hint::Date => text.parse().ok().map(Value::Date),
        Hint::Time => text.parse().ok().map(Value::Time),
        Hint::Uuid => text.parse().ok().map(Value::Uuid),
        Hint::Decimal => text.parse().ok().map(Value::Decimal),
        Hint::Json => {
            let is_json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
            is_json.then(|| Value::Json(text.to_owned()))
        }
    }
}

/// Whether a date and time ends with an offset: `Z`, `+01:00` or `-08`, behind the ten characters
/// of the date.
fn has_offset(text: &str) -> bool {
    text.get(10..)
        .is_some_and(|time| time.contains(['Z', 'z', '+', '-']))
}

fn hint(declared: &str) -> Hint {
    let declared = declared.trim().to_ascii_uppercase();
    let name = declared.split(['(', ' ']).next().unwrap_or_default();
    let zoned = declared.contains("TZ") || declared.contains("WITH TIME ZONE");
    match name {
        "BOOL" | "BOOLEAN" => Hint::Bool,
        "UUID" => Hint::Uuid,
        "JSON" | "JSONB" => Hint::Json,
        "DATE" => Hint::Date,
        _ if name.starts_with("DATETIME") || name.starts_with("TIMESTAMP") => {
            Hint::Timestamp { zoned }
        }
        "TIME" => Hint::Time,
        _ if name.starts_with("DECIMAL") || name.starts_with("NUMERIC") => Hint::Decimal,
        _ => Hint::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(declared: &str, text: &str) -> Value {
        value(ValueRef::Text(text.as_bytes()), hint(declared)).unwrap()
    }

    #[test]
    fn a_declared_type_is_a_hint() {
        assert!(matches!(
            decoded("TIMESTAMPTZ", "2026-01-31 13:45:00"),
            Value::Timestamp(_)
        ));
        let zoned = "timestamp with time zone";
        assert!(matches!(
            decoded(zoned, "2026-01-31 13:45:00"),
            Value::Timestamp(_)
        ));
        assert!(matches!(
            decoded("timestamp", "2026-01-31 13:45:00+01:00"),
            Value::Timestamp(_)
        ));
        assert!(matches!(
            decoded("TIMESTAMP", "2026-01-31 13:45:00"),
            Value::DateTime(_)
        ));
        assert!(matches!(
            decoded("DATETIME", "2026-01-31T13:45:00Z"),
            Value::Timestamp(_)
        ));
        assert!(matches!(decoded("date", "2026-01-31"), Value::Date(_)));
        assert!(matches!(decoded("time", "13:45:00"), Value::Time(_)));
        let uuid = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        assert!(matches!(decoded("UUID", uuid), Value::Uuid(_)));
        assert!(matches!(decoded("JSONB", "{\"a\": [1]}"), Value::Json(_)));
        assert!(matches!(
            decoded("DECIMAL_TEXT", "12.50"),
            Value::Decimal(_)
        ));
        assert!(matches!(
            decoded("NUMERIC(10, 2)", "12.50"),
            Value::Decimal(_)
        ));
    }

    #[test]
    fn what_is_not_of_the_declared_type_stays_as_it_is_stored() {
        for declared in [
            "TIMESTAMP",
            "DATE",
            "TIME",
            "UUID",
            "JSON",
            "DECIMAL",
            "BOOLEAN",
            "TEXT",
        ] {
            assert_eq!(
                decoded(declared, "soon"),
                Value::Text("soon".into()),
                "{declared}"
            );
        }
        assert_eq!(value(ValueRef::Integer(7), Hint::Bool), Ok(Value::Int(7)));
        assert_eq!(
            value(ValueRef::Integer(1), Hint::Bool),
            Ok(Value::Bool(true))
        );
        assert!(value(ValueRef::Text(&[0xff]), Hint::None).is_err());
    }
}
