use crate::fixture::*;
use mainstay_core::{Date, DateTime, Decimal, Kind, TimeOfDay, Timestamp, Uuid, Value, params};

async fn round_trip(conn: &Conn, column: &str, given: Value) -> Value {
    let text = format!("select $1::{column}");
    value(conn, &text, (given,), read()).await.unwrap()
}

#[tokio::test]
async fn every_type_round_trips_with_its_extremes() {
    let home = Home::new().await;
    let conn = home.reader().await;
    let decimal = |text: &str| Value::Decimal(text.parse::<Decimal>().unwrap());
    let micros = [-62_135_596_800_000_000, -1, 0, 1, 253_402_300_799_999_999];
    let mut cases = vec![
        ("bool", Value::Bool(true)),
        ("bool", Value::Bool(false)),
        ("int2", Value::Int(i16::MIN.into())),
        ("int4", Value::Int(i32::MAX.into())),
        ("int8", Value::Int(i64::MIN)),
        ("int8", Value::Int(i64::MAX)),
        ("oid", Value::Int(u32::MAX.into())),
        ("float8", Value::Float(f64::MIN_POSITIVE)),
        ("float8", Value::Float(f64::MAX)),
        ("float8", Value::Float(f64::INFINITY)),
        ("float8", Value::Float(-0.1)),
        ("float4", Value::Float(1.5)),
        ("numeric", decimal("0")),
        ("numeric", decimal("-12345678901234567890.1230")),
        ("numeric", decimal("0.000000000000000000001")),
        ("numeric", decimal("10000")),
        ("numeric", decimal(&"9".repeat(500))),
        ("text", Value::Text(String::new())),
        ("text", Value::Text("grüße, 世界 'quoted' \\ $1".into())),
        ("varchar(5)", Value::Text("abc".into())),
        ("char(3)", Value::Text("abc".into())),
        ("name", Value::Text("abc".into())),
        ("bytea", Value::Bytes(Vec::new())),
        ("bytea", Value::Bytes((0..=255).collect())),
        ("uuid", Value::Uuid(Uuid::nil())),
        ("uuid", Value::Uuid(Uuid::max())),
        ("date", Value::Date(Date::from_unix_days(-719_162).unwrap())),
        (
            "date",
            Value::Date(Date::from_unix_days(2_932_896).unwrap()),
        ),
        ("time", Value::Time(TimeOfDay::from_micros(0).unwrap())),
        (
            "time",
            Value::Time(TimeOfDay::from_micros(86_399_999_999).unwrap()),
        ),
        ("json", Value::Json(r#"{"a": [1, null]}"#.into())),
        ("jsonb", Value::Json(r#"{"a": [1, null]}"#.into())),
        ("text", Value::Null),
        ("int4", Value::Null),
        ("interval::text", Value::Null),
    ];
    for micros in micros {
        cases.push((
            "timestamptz",
            Value::Timestamp(Timestamp::from_unix_micros(micros).unwrap()),
        ));
        cases.push((
            "timestamp",
            Value::DateTime(DateTime::from_micros(micros).unwrap()),
        ));
    }
    for (column, given) in cases {
        assert_eq!(
            round_trip(&conn, column, given.clone()).await,
            given,
            "{column}"
        );
    }
}

#[tokio::test]
async fn every_type_round_trips_without_prepared_statements() {
    let home = Home::with(|config| config.statement_cache_size = 0).await;
    let conn = home.reader().await;
    for (column, given) in [
        ("bool", Value::Bool(true)),
        ("int4", Value::Int(i32::MIN.into())),
        ("float8", Value::Float(1e-300)),
        ("float8", Value::Float(f64::NEG_INFINITY)),
        ("numeric", Value::Decimal("-0.50".parse().unwrap())),
        ("text", Value::Text("$1 ?".into())),
        ("bytea", Value::Bytes(vec![0, 1, 255])),
        ("uuid", Value::Uuid(Uuid::max())),
        (
            "timestamptz",
            Value::Timestamp(Timestamp::from_unix_micros(-1).unwrap()),
        ),
        (
            "timestamp",
            Value::DateTime(DateTime::from_micros(1).unwrap()),
        ),
        ("date", Value::Date(Date::from_unix_days(-1).unwrap())),
        ("time", Value::Time(TimeOfDay::from_micros(1).unwrap())),
        ("jsonb", Value::Json("[1]".into())),
        ("text", Value::Null),
    ] {
        assert_eq!(
            round_trip(&conn, column, given.clone()).await,
            given,
            "{column}"
        );
    }
    let prepared = value(
        &conn,
        "select count(*) from pg_prepared_statements",
        (),
        read(),
    )
    .await;
    assert_eq!(prepared.unwrap(), Value::Int(0));
}

#[tokio::test]
async fn values_are_bound_by_the_type_that_is_wanted() {
    let home = Home::new().await;
    home.sql(
        "create type mood as enum ('glad', 'sad'); create domain small as int2 check (value > 0);
         create table t (a int2, b numeric, c uuid, d timestamptz, e jsonb, f mood, g small, h inet,
             i text, j real, k interval)",
    )
    .await;
    let conn = home.writer().await;
    let given = params![
        7,
        8,
        "6b3f7a52-1111-4222-8333-444455556666",
        "2026-01-31T14:45:00+01:00",
        "{\"a\":1}",
        "sad",
        9,
        "10.0.0.1",
        12,
        "1.25".parse::<Decimal>().unwrap(),
        "2 days"
    ];
    let insert = "insert into t values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        returning a, b, c, d, e, f, g, h::text as h, i, j, k::text as k";
    let rows = fetch(&conn, insert, given, write()).await.unwrap();
    let expected = [
        Value::Int(7),
        Value::Decimal("8".parse().unwrap()),
        Value::Uuid("6b3f7a52-1111-4222-8333-444455556666".parse().unwrap()),
        Value::Timestamp("2026-01-31T13:45:00Z".parse().unwrap()),
        Value::Json("{\"a\": 1}".into()),
        Value::Text("sad".into()),
        Value::Int(9),
        Value::Text("10.0.0.1/32".into()),
        Value::Text("12".into()),
        Value::Float(1.25),
        Value::Text("2 days".into()),
    ];
    assert_eq!(rows[0].values(), expected);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_by_number_before_anything_is_sent() {
    let home = Home::new().await;
    home.sql("create table t (a int2, b text)").await;
    let conn = home.writer().await;
    let insert = statement("insert into t values ($1, $2)", (70_000, "x"));
    let error = conn
        .run(&insert, mainstay_core::backend::Want::Affected, write())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Decode);
    assert!(error.to_string().contains("$1"), "{error}");
    assert_eq!(home.sql("select count(*) from t").await, "0");
}

#[tokio::test]
async fn a_column_that_has_no_value_is_named_before_the_statement_runs() {
    let home = Home::new().await;
    home.sql("create table t (id int, span interval, tags text[])")
        .await;
    let conn = home.writer().await;
    for column in ["span", "tags"] {
        let insert = format!("insert into t (id) values (1) returning {column}");
        let error = fetch(&conn, &insert, (), write()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Decode);
        assert!(error.to_string().contains(column), "{error}");
        assert!(error.to_string().contains("cast"), "{error}");
    }
    assert_eq!(home.sql("select count(*) from t").await, "0");
}

#[tokio::test]
async fn values_that_neither_type_holds_are_errors_that_name_the_column() {
    let home = Home::new().await;
    let conn = home.reader().await;
    for text in [
        "select 'NaN'::float8 as it",
        "select 'NaN'::numeric as it",
        "select 'infinity'::timestamptz as it",
        "select '-infinity'::date as it",
        "select '0044-03-15 BC'::date as it",
        "select '24:00'::time as it",
    ] {
        let error = fetch(&conn, text, (), read()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Decode, "{text}");
        assert!(error.to_string().contains("\"it\""), "{error}");
        assert_eq!(
            conn.condition(),
            mainstay_core::backend::Condition::Clean,
            "{text}"
        );
    }
}

#[tokio::test]
async fn the_numbers_of_parameters_and_values_must_agree() {
    let home = Home::new().await;
    let conn = home.reader().await;
    assert_eq!(
        value(&conn, "select $2 || $1", ("a", "b"), read())
            .await
            .unwrap(),
        Value::Text("ba".into())
    );
    let one = fetch(&conn, "select $1::int, $2::int", (1,), read())
        .await
        .unwrap_err();
    assert_eq!(one.kind(), Kind::Statement);
    assert_eq!(
        one.message(),
        "the statement uses $1 … $2 but 1 values were given"
    );
    let gap = fetch(&conn, "select $2::int", (1, 2), read())
        .await
        .unwrap_err();
    assert_eq!(gap.kind(), Kind::Statement);
}

#[tokio::test]
async fn offending_values_stay_out_of_errors() {
    let home = Home::new().await;
    home.sql("create table t (secret text primary key)").await;
    let conn = home.writer().await;
    let insert = "insert into t values ($1)";
    fetch(&conn, insert, ("hunter2",), write()).await.unwrap();
    let unique = fetch(&conn, insert, ("hunter2",), write())
        .await
        .unwrap_err();
    assert_eq!(
        (unique.kind(), unique.constraint()),
        (Kind::Unique, Some("t_pkey"))
    );
    let syntax = fetch(&conn, "select $1::text::int", ("hunter2",), write())
        .await
        .unwrap_err();
    for error in [unique, syntax] {
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
