//! Parameters by number.
//!
//! For SQLite `$2` is a *name*, numbered by where it appears first: `select $2 || $1` with two
//! values would silently swap them. So every placeholder is bound by the number that its name says.

use mainstay_core::error::Report;
use mainstay_core::{Error, Kind, Result, Value};
use rusqlite::types::{ToSqlOutput, ValueRef};

/// Binds the values to `$1` … `$n`.
pub(crate) fn bind(statement: &mut rusqlite::Statement<'_>, values: &[Value]) -> Result<()> {
    let places = statement.parameter_count();
    if places == 0 && values.is_empty() {
        return Ok(());
    }
    let mut numbers = Vec::with_capacity(places);
    for place in 1..=places {
        numbers.push(number_of(statement.parameter_name(place))?);
    }
    check_numbers(&numbers, values.len())?;
    for (place, number) in (1..=places).zip(numbers) {
        let bound = statement.raw_bind_parameter(place, Stored(&values[number - 1]));
        bound.map_err(|error| refused(number, &values[number - 1], error))?;
    }
    Ok(())
}

/// The number that a placeholder's name says.
fn number_of(name: Option<&str>) -> Result<usize> {
    let digits = name.and_then(|name| name.strip_prefix('$'));
    let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse::<usize>().ok());
    if let Some(number) = number.filter(|&number| number > 0) {
        return Ok(number);
    }
    let name = name.unwrap_or("?");
    let remedy = if name.contains("::") {
        "SQLite has no `::type`; write cast(… as type)"
    } else {
        "number the placeholders: $1, $2, …"
    };
    let message = format!("`{name}` is not a placeholder that both databases know");
    Err(Report::new(Kind::Statement, message).remedy(remedy).into())
}

/// Whether the numbers are exactly 1 to `given`.
fn check_numbers(numbers: &[usize], given: usize) -> Result<()> {
    let highest = numbers.iter().copied().max().unwrap_or(0);
    if highest != given {
        let used = match highest {
            0 => "no parameters".to_owned(),
            1 => "$1".to_owned(),
            highest => format!("$1 … ${highest}"),
        };
        let message = format!("the statement uses {used} but {given} values were given");
        return Err(Report::new(Kind::Statement, message).into());
    }
    let mut is_used = vec![false; given];
    for &number in numbers {
        is_used[number - 1] = true;
    }
    match is_used.iter().position(|&used| !used) {
        None => Ok(()),
        Some(gap) => {
            let message = format!(
                "the statement does not use ${} but {given} values were given",
                gap + 1
            );
            Err(Report::new(Kind::Statement, message).into())
        }
    }
}

fn refused(number: usize, value: &Value, cause: rusqlite::Error) -> Error {
    let message = format!(
        "parameter ${number} ({}) cannot be stored",
        value.type_name()
    );
    Report::new(Kind::Decode, message).source(cause).into()
}

/// A value as SQLite stores it.
struct Stored<'v>(&'v Value);

impl rusqlite::ToSql for Stored<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let text = |text: String| ToSqlOutput::Owned(rusqlite::types::Value::Text(text));
        Ok(match self.0 {
            Value::Bool(value) => ToSqlOutput::Owned(i64::from(*value).into()),
            Value::Int(value) => ToSqlOutput::Owned((*value).into()),
            Value::Float(value) => ToSqlOutput::Owned((*value).into()),
            Value::Decimal(value) => {
                ToSqlOutput::Borrowed(ValueRef::Text(value.as_str().as_bytes()))
            }
            Value::Text(value) | Value::Json(value) => {
                ToSqlOutput::Borrowed(ValueRef::Text(value.as_bytes()))
            }
            Value::Bytes(value) => ToSqlOutput::Borrowed(ValueRef::Blob(value)),
            Value::Uuid(value) => text(value.to_string()),
            Value::Timestamp(value) => text(value.to_string()),
            Value::DateTime(value) => text(value.to_string()),
            Value::Date(value) => text(value.to_string()),
            Value::Time(value) => text(value.to_string()),
            Value::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            // A kind of value that this version does not know must not become something else.
            other => {
                let message = format!("SQLite cannot store a {}", other.type_name());
                return Err(rusqlite::Error::ToSqlConversionFailure(message.into()));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_to_fit_the_values() {
        assert!(check_numbers(&[], 0).is_ok());
        assert!(check_numbers(&[2, 1, 2], 2).is_ok());
        for (numbers, given, message) in [
            (
                &[][..],
                1,
                "the statement uses no parameters but 1 values were given",
            ),
            (&[1], 0, "the statement uses $1 but 0 values were given"),
            (
                &[1, 2, 3],
                2,
                "the statement uses $1 … $3 but 2 values were given",
            ),
            (
                &[1, 3],
                3,
                "the statement does not use $2 but 3 values were given",
            ),
        ] {
            let error = check_numbers(numbers, given).unwrap_err();
            assert_eq!((error.kind(), error.message()), (Kind::Statement, message));
        }
    }

    #[test]
    fn only_numbered_placeholders_are_taken() {
        assert_eq!(number_of(Some("$12")).unwrap(), 12);
        for name in [
            None,
            Some(":x"),
            Some("@x"),
            Some("?1"),
            Some("$0"),
            Some("$a"),
            Some("$+1"),
            Some("$1::int"),
            Some("$99999999999999999999"),
        ] {
            assert_eq!(
                number_of(name).unwrap_err().kind(),
                Kind::Statement,
                "{name:?}"
            );
        }
    }
}
