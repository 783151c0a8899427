//! Every type of value comes back as it was stored, at its extremes too, and null stays null.

use super::subject::{ensure, refused, same};
use super::{Law, Saboteur, Subject, Verdict, law};
use mainstay::{Date, DateTime, Decimal, IntoValue, TimeOfDay, Timestamp, Uuid, Value};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

pub(super) fn laws() -> Vec<Law> {
    vec![
        law!(booleans_round_trip, Saboteur::value(negate), booleans),
        law!(integers_round_trip, Saboteur::value(narrow), integers),
        law!(floats_round_trip, Saboteur::value(single_precision), floats),
        law!(
            decimals_round_trip,
            Saboteur::value(through_float),
            decimals
        ),
        law!(texts_round_trip, Saboteur::value(trimmed), texts),
        law!(bytes_round_trip, Saboteur::value(without_zeros), bytes),
        law!(identifiers_round_trip, Saboteur::value(upper), identifiers),
        law!(
            instants_round_trip,
            Saboteur::value(to_the_second),
            instants
        ),
        law!(
            local_times_round_trip,
            Saboteur::value(to_the_second),
            local_times
        ),
        law!(dates_round_trip, Saboteur::value(a_day_later), dates),
        law!(
            times_of_day_round_trip,
            Saboteur::value(to_the_second),
            times_of_day
        ),
        law!(
            documents_round_trip,
            Saboteur::value(empty_document),
            documents
        ),
        law!(
            null_is_null_in_every_type,
            Saboteur::value(default_for_null),
            nulls
        ),
        law!(
            what_does_not_fit_is_refused,
            Saboteur::value(saturated),
            misfits
        ),
    ]
}

/// Stores each value in a column of the type and reads it back.
async fn round_trip<T>(subject: &Subject, column: &str, values: &[T]) -> Verdict
where
    T: IntoValue + DeserializeOwned + Clone + PartialEq + Debug + Send,
{
    let create = format!("create table stored (id bigint primary key, value {column})");
    subject.db.execute(&create, ()).await?;
    for (id, value) in (0_i64..).zip(values) {
        subject
            .db
            .execute("insert into stored values ($1, $2)", (id, value.clone()))
            .await?;
        let read: T = subject
            .db
            .fetch_one("select value from stored where id = $1", (id,))
            .await?;
        ensure!(read == *value, "{value:?} came back as {read:?}");
    }
    Ok(())
}

async fn booleans(subject: Subject) -> Verdict {
    round_trip(&subject, "boolean", &[true, false]).await
}

async fn integers(subject: Subject) -> Verdict {
    let values = [0, 1, -1, i64::from(i32::MAX) + 1, i64::MAX, i64::MIN];
    round_trip(&subject, "bigint", &values).await
}

async fn floats(subject: Subject) -> Verdict {
    let values = [
        0.0,
        0.1,
        -1.5,
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        5e-324,
        f64::INFINITY,
    ];
    round_trip(&subject, "double precision", &values).await
}

async fn decimals(subject: Subject) -> Verdict {
    let texts = [
        "0",
        "-0.01",
        "12345678901234567890.12",
        "0.000000000000000000001",
        "100.00",
        "-99999999",
    ];
    let values: Vec<Decimal> = texts.iter().filter_map(|text| text.parse().ok()).collect();
    same!(values.len(), texts.len());
    round_trip(&subject, subject.dialect("text", "numeric"), &values).await
}

async fn texts(subject: Subject) -> Verdict {
    let values = [
        String::new(),
        " leading and trailing ".to_owned(),
        "quotes ' \" ` $1 ? :x \\ --".to_owned(),
        "Ünïcödé 漢字 🦀 \u{10FFFF}".to_owned(),
        "line\r\nbreak\ttab".to_owned(),
        "long".repeat(250_000),
    ];
    round_trip(&subject, "text", &values).await
}

async fn bytes(subject: Subject) -> Verdict {
    let all: Vec<u8> = (0..=255).collect();
    let values = [Vec::new(), vec![0], all.clone(), all.repeat(4_000)];
    round_trip(&subject, subject.dialect("blob", "bytea"), &values).await
}

async fn identifiers(subject: Subject) -> Verdict {
    let values = [
        Uuid::from_u128(0),
        Uuid::from_u128(u128::MAX),
        Uuid::from_u128(0x1e3 << 64),
    ];
    let column = subject.dialect("text", "uuid");
    let create = format!("create table stored (id bigint primary key, value {column})");
    subject.db.execute(&create, ()).await?;
    for (id, value) in (0_i64..).zip(values) {
        subject
            .db
            .execute("insert into stored values ($1, $2)", (id, value))
            .await?;
        let text: String = subject
            .db
            .fetch_one("select value from stored where id = $1", (id,))
            .await?;
        same!(text, value.hyphenated().to_string());
    }
    Ok(())
}

const MICROS: [i64; 5] = [
    -62_135_596_800_000_000,
    -1,
    0,
    1_769_867_100_123_456,
    253_402_300_799_999_999,
];

async fn instants(subject: Subject) -> Verdict {
    let values: Vec<Timestamp> = MICROS
        .iter()
        .filter_map(|&micros| Timestamp::from_unix_micros(micros).ok())
        .collect();
    same!(values.len(), MICROS.len());
    round_trip(&subject, subject.dialect("text", "timestamptz"), &values).await?;
    // They sort as time does, on both.
    let sorted: Vec<Timestamp> = subject
        .db
        .fetch_all("select value from stored order by value", ())
        .await?;
    same!(sorted, values);
    Ok(())
}

async fn local_times(subject: Subject) -> Verdict {
    let values: Vec<DateTime> = MICROS
        .iter()
        .filter_map(|&micros| DateTime::from_micros(micros).ok())
        .collect();
    same!(values.len(), MICROS.len());
    round_trip(&subject, subject.dialect("text", "timestamp"), &values).await
}

async fn dates(subject: Subject) -> Verdict {
    let days = [-719_162, -1, 0, 20_484, 2_932_896];
    let values: Vec<Date> = days
        .iter()
        .filter_map(|&days| Date::from_unix_days(days).ok())
        .collect();
    same!(values.len(), days.len());
    round_trip(&subject, subject.dialect("text", "date"), &values).await
}

async fn times_of_day(subject: Subject) -> Verdict {
    let micros = [0, 1, 49_500_000_000, 86_399_999_999];
    let values: Vec<TimeOfDay> = micros
        .iter()
        .filter_map(|&micros| TimeOfDay::from_micros(micros).ok())
        .collect();
    same!(values.len(), micros.len());
    round_trip(&subject, subject.dialect("text", "time"), &values).await
}

#[derive(serde::Deserialize, PartialEq, Debug)]
struct Document {
    tags: Vec<String>,
    deep: std::collections::BTreeMap<String, Option<f64>>,
}

#[derive(serde::Deserialize)]
struct Holder {
    value: Document,
}

async fn documents(subject: Subject) -> Verdict {
    let column = subject.dialect("text", "jsonb");
    subject
        .db
        .execute(&format!("create table stored (value {column})"), ())
        .await?;
    let text = r#"{"tags": ["a", "ü"], "deep": {"x": 1.5, "y": null}}"#;
    subject
        .db
        .execute(
            "insert into stored values ($1)",
            (Value::Json(text.into()),),
        )
        .await?;
    let Holder { value } = subject.db.fetch_one("select value from stored", ()).await?;
    let deep = [("x".to_owned(), Some(1.5)), ("y".to_owned(), None)].into();
    same!(
        value,
        Document {
            tags: vec!["a".into(), "ü".into()],
            deep
        }
    );
    Ok(())
}

async fn nulls(subject: Subject) -> Verdict {
    let types = [
        "boolean",
        "bigint",
        "double precision",
        "text",
        subject.dialect("blob", "bytea"),
        subject.dialect("text", "numeric"),
        subject.dialect("text", "uuid"),
        subject.dialect("text", "timestamptz"),
        subject.dialect("text", "jsonb"),
    ];
    for (number, column) in types.iter().enumerate() {
        let create = format!("create table stored_{number} (value {column})");
        subject.db.execute(&create, ()).await?;
        let insert = format!("insert into stored_{number} values ($1)");
        subject.db.execute(&insert, (None::<i64>,)).await?;
        let select = format!("select value from stored_{number}");
        same!(
            subject.db.fetch_one::<Option<bool>>(&select, ()).await?,
            None
        );
        same!(
            subject.db.fetch_one::<Option<String>>(&select, ()).await?,
            None
        );
        refused!(subject.db.fetch_one::<i64>(&select, ()).await, Decode);
    }
    Ok(())
}

async fn misfits(subject: Subject) -> Verdict {
    let db = &subject.db;
    refused!(db.fetch_one::<i8>("select 300", ()).await, Decode);
    refused!(db.fetch_one::<u64>("select -1", ()).await, Decode);
    refused!(db.fetch_one::<bool>("select 7", ()).await, Decode);
    refused!(
        db.fetch_one::<i64>("select cast('x' as text)", ()).await,
        Decode
    );
    refused!(db.execute("select $1", (f64::NAN,)).await, Decode);
    refused!(db.execute("select $1", ("nul \0",)).await, Decode);
    refused!(db.execute("select $1", (u64::MAX,)).await, Decode);
    Ok(())
}

fn negate(value: Value) -> Value {
    match value {
        Value::Bool(bool) => Value::Bool(!bool),
        Value::Int(int @ (0 | 1)) => Value::Int(1 - int),
        other => other,
    }
}

fn narrow(value: Value) -> Value {
    match value {
        Value::Int(int) => Value::Int(int.clamp(i64::from(i32::MIN), i64::from(i32::MAX))),
        other => other,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the lie is the lost precision"
)]
fn single_precision(value: Value) -> Value {
    match value {
        Value::Float(float) => Value::Float(f64::from(float as f32)),
        other => other,
    }
}

fn through_float(value: Value) -> Value {
    match value {
        Value::Decimal(decimal) => Value::Float(decimal.to_f64()),
        Value::Text(text) => text.parse().map_or(Value::Text(text), Value::Float),
        other => other,
    }
}

fn trimmed(value: Value) -> Value {
    match value {
        Value::Text(text) => Value::Text(text.trim().to_owned()),
        other => other,
    }
}

fn without_zeros(value: Value) -> Value {
    match value {
        Value::Bytes(bytes) => Value::Bytes(bytes.into_iter().filter(|byte| *byte != 0).collect()),
        other => other,
    }
}

fn upper(value: Value) -> Value {
    match value {
        Value::Text(text) => Value::Text(text.to_uppercase()),
        Value::Uuid(uuid) => Value::Text(uuid.simple().to_string()),
        other => other,
    }
}

/// Cuts microseconds from whatever has them, stored as text or not.
fn to_the_second(value: Value) -> Value {
    let text = match value {
        Value::Timestamp(at) => at.to_string(),
        Value::DateTime(at) => at.to_string(),
        Value::Time(at) => at.to_string(),
        Value::Text(text) => text,
        other => return other,
    };
    match text.split_once('.') {
        Some((seconds, rest)) => {
            let offset = rest.find('+').map_or("", |at| &rest[at..]);
            Value::Text(format!("{seconds}.000000{offset}"))
        }
        None => Value::Text(text),
    }
}

fn a_day_later(value: Value) -> Value {
    let day = match &value {
        Value::Date(day) => *day,
        Value::Text(text) => match text.parse() {
            Ok(day) => day,
            Err(_) => return value,
        },
        _ => return value,
    };
    Date::from_unix_days(day.unix_days() + 1).map_or(value, Value::Date)
}

fn empty_document(value: Value) -> Value {
    match value {
        Value::Json(_) | Value::Text(_) => Value::Json("{}".into()),
        other => other,
    }
}

fn default_for_null(value: Value) -> Value {
    match value {
        Value::Null => Value::Int(0),
        other => other,
    }
}

fn saturated(value: Value) -> Value {
    match value {
        Value::Int(int) => Value::Int(int.clamp(0, 1)),
        other => other,
    }
}
