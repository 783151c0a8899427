use crate::{Bench, READ, WRITE, execute, run};
use mainstay_core::{Kind, Params, Value};

/// One value of every kind, extremes included, each with the declared type that it is stored under.
fn extremes() -> Vec<(&'static str, Value)> {
    let text = |text: &str| Value::Text(text.to_owned());
    vec![
        ("bigint", Value::Null),
        ("boolean", Value::Bool(true)),
        ("boolean", Value::Bool(false)),
        ("bigint", Value::Int(i64::MIN)),
        ("bigint", Value::Int(i64::MAX)),
        ("double precision", Value::Float(f64::MIN_POSITIVE)),
        ("double precision", Value::Float(-f64::MAX)),
        ("double precision", Value::Float(f64::INFINITY)),
        (
            "decimal_text",
            Value::Decimal("12345678901234567890.120".parse().unwrap()),
        ),
        (
            "decimal_text",
            Value::Decimal("-0.00000000000000000001".parse().unwrap()),
        ),
        ("text", text("")),
        ("text", text("a'b\"c; -- \u{1F980}\n$1")),
        ("text", text(&"x".repeat(1 << 20))),
        ("blob", Value::Bytes(Vec::new())),
        ("blob", Value::Bytes((0..=255).collect())),
        (
            "uuid",
            Value::Uuid("ffffffff-ffff-4fff-bfff-ffffffffffff".parse().unwrap()),
        ),
        (
            "timestamptz",
            Value::Timestamp("0001-01-01T00:00:00Z".parse().unwrap()),
        ),
        (
            "timestamptz",
            Value::Timestamp("9999-12-31T23:59:59.999999Z".parse().unwrap()),
        ),
        (
            "timestamp",
            Value::DateTime("9999-12-31T23:59:59.999999".parse().unwrap()),
        ),
        ("date", Value::Date("0001-01-01".parse().unwrap())),
        ("time", Value::Time("23:59:59.999999".parse().unwrap())),
        (
            "json",
            Value::Json("{\"a\": [1, null, \"\\u00e9\"]}".to_owned()),
        ),
    ]
}

#[tokio::test]
async fn every_value_comes_back_as_it_was_given() {
    let bench = Bench::new().await;
    for (number, (declared, given)) in extremes().into_iter().enumerate() {
        execute(
            &*bench.writer,
            &format!("create table v{number} (v {declared})"),
        )
        .await
        .unwrap();
        let params = Params::new(vec![given.clone()]).unwrap();
        let insert = format!("insert into v{number} values ($1)");
        let reply = run(&*bench.writer, &insert, params, WRITE).await.unwrap();
        assert_eq!(reply.affected, 1);
        let read = run(
            &*bench.reader,
            &format!("select v from v{number}"),
            (),
            READ,
        )
        .await
        .unwrap();
        assert_eq!(read.rows[0].values(), [given], "{declared}");
    }
}

#[tokio::test]
async fn what_sqlite_stores_is_the_canonical_text() {
    let bench = Bench::new().await;
    let params = Params::new(vec![
        Value::Bool(true),
        Value::Timestamp("2026-01-31T14:45:00+01:00".parse().unwrap()),
        Value::Date("2026-01-31".parse().unwrap()),
    ]);
    let reply = run(&*bench.reader, "select typeof($1), $2, $3", params, READ)
        .await
        .unwrap();
    let texts = ["integer", "2026-01-31 13:45:00.000000+00:00", "2026-01-31"];
    assert_eq!(
        reply.rows[0].values(),
        texts.map(|text| Value::Text(text.to_owned()))
    );
}

#[tokio::test]
async fn current_timestamp_of_a_zoned_column_is_utc() {
    let bench = Bench::new().await;
    execute(
        &*bench.writer,
        "create table t (at timestamptz default current_timestamp, id int)",
    )
    .await
    .unwrap();
    execute(&*bench.writer, "insert into t (id) values (1)")
        .await
        .unwrap();
    let reply = run(&*bench.reader, "select at from t", (), READ)
        .await
        .unwrap();
    assert!(
        matches!(reply.rows[0].values()[0], Value::Timestamp(_)),
        "{:?}",
        reply.rows
    );
}

#[tokio::test]
async fn text_that_is_not_utf8_names_its_column() {
    let bench = Bench::new().await;
    let text = "select 1 as fine, cast(x'ff' as text) as odd";
    let error = run(&*bench.reader, text, (), READ).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Decode);
    assert!(error.message().contains("\"odd\""), "{error}");
}

#[tokio::test]
async fn affected_rows_are_those_of_this_statement() {
    let bench = Bench::with_table().await;
    let insert = "insert into t (a) values ('x'), ('y'), ('z')";
    assert_eq!(execute(&*bench.writer, insert).await.unwrap(), 3);
    // SQLite itself would tell the three of the insert again.
    assert_eq!(
        execute(&*bench.writer, "create table u (a)").await.unwrap(),
        0
    );
    assert_eq!(
        execute(&*bench.writer, "update t set a = a where a > 'x'")
            .await
            .unwrap(),
        2
    );
    assert_eq!(
        execute(&*bench.writer, "delete from t where a = 'none'")
            .await
            .unwrap(),
        0
    );
    assert_eq!(execute(&*bench.writer, "select * from t").await.unwrap(), 3);
    let returning = "delete from t where a > 'x' returning a";
    let reply = run(&*bench.writer, returning, (), WRITE).await.unwrap();
    assert_eq!((reply.affected, reply.rows.len()), (2, 2));
}
