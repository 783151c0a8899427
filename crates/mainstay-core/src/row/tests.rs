use super::*;
use crate::{Date, Timestamp, Uuid};
use std::collections::BTreeMap;

fn row(columns: &[(&str, Value)]) -> Row {
    let names = columns.iter().map(|(name, _)| *name);
    let values = columns.iter().map(|(_, value)| value.clone()).collect();
    Row::new(Arc::new(Columns::from_names(names)), values)
}

fn one(value: Value) -> Row {
    row(&[("value", value)])
}

#[derive(serde::Deserialize, Debug, PartialEq)]
struct Order {
    id: i64,
    note: Option<String>,
}

#[test]
fn structs_are_read_by_name_and_surplus_columns_are_ignored() {
    let row = row(&[
        ("surplus", Value::Bool(true)),
        ("note", Value::Null),
        ("id", Value::Int(7)),
    ]);
    assert_eq!(row.decode::<Order>().unwrap(), Order { id: 7, note: None });
}

#[test]
fn a_missing_required_column_is_an_error_that_names_it() {
    let error = row(&[("note", Value::Null)]).decode::<Order>().unwrap_err();
    assert_eq!(error.kind(), Kind::Decode);
    assert!(error.to_string().contains("id"), "{error}");
}

#[test]
fn duplicate_columns_cannot_be_read_by_name() {
    let row = row(&[("id", Value::Int(1)), ("id", Value::Int(2))]);
    let error = row.decode::<Order>().unwrap_err();
    assert!(
        error.to_string().contains("two columns are called \"id\""),
        "{error}"
    );
    assert!(row.get::<i64>("id").is_err());
    assert_eq!(row.decode::<(i64, i64)>().unwrap(), (1, 2));
}

#[test]
fn tuples_are_read_by_position_and_must_have_the_length_of_the_row() {
    let row = row(&[("a", Value::Int(1)), ("b", Value::Text("x".into()))]);
    assert_eq!(row.decode::<(i64, String)>().unwrap(), (1, "x".to_owned()));
    assert!(row.decode::<(i64,)>().is_err());
    assert!(row.decode::<i64>().is_err());
}

#[test]
fn integers_are_checked_and_come_from_whole_decimals() {
    assert_eq!(one(Value::Int(255)).decode::<u8>().unwrap(), 255);
    assert!(one(Value::Int(256)).decode::<u8>().is_err());
    assert!(one(Value::Int(-1)).decode::<u64>().is_err());
    assert_eq!(
        one(Value::Decimal("10.0".parse().unwrap()))
            .decode::<i64>()
            .unwrap(),
        10
    );
    assert!(
        one(Value::Decimal("10.5".parse().unwrap()))
            .decode::<i64>()
            .is_err()
    );
    assert!(one(Value::Float(1.0)).decode::<i64>().is_err());
}

#[test]
fn a_bool_comes_from_a_bool_or_from_zero_and_one_only() {
    assert!(one(Value::Bool(true)).decode::<bool>().unwrap());
    assert!(one(Value::Int(1)).decode::<bool>().unwrap());
    assert!(one(Value::Int(7)).decode::<bool>().is_err());
    assert!(one(Value::Text("true".into())).decode::<bool>().is_err());
}

#[test]
fn null_needs_an_option_and_the_error_says_so() {
    assert_eq!(one(Value::Null).decode::<Option<i64>>().unwrap(), None);
    let error = one(Value::Null).decode::<i64>().unwrap_err();
    assert!(error.to_string().contains("use Option"), "{error}");
}

#[test]
fn an_error_never_shows_the_value() {
    let error = one(Value::Text("hunter2".into()))
        .decode::<i64>()
        .unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[test]
fn instants_are_read_from_the_type_and_from_the_stored_text() {
    let at: Timestamp = "2026-01-31T13:45:00Z".parse().unwrap();
    assert_eq!(one(Value::Timestamp(at)).decode::<Timestamp>().unwrap(), at);
    assert_eq!(
        one(Value::Text(at.to_string()))
            .decode::<Timestamp>()
            .unwrap(),
        at
    );
    let read: jiff::Timestamp = jiff::Timestamp::from_microsecond(at.unix_micros()).unwrap();
    assert_eq!(read.to_string(), "2026-01-31T13:45:00Z");
    // A String keeps the text as it is stored.
    assert_eq!(
        one(Value::Text(at.to_string())).decode::<String>().unwrap(),
        at.to_string()
    );
    let day: Date = "2026-01-31".parse().unwrap();
    assert_eq!(one(Value::Date(day)).decode::<Date>().unwrap(), day);
}

#[test]
fn identifiers_are_read_as_text() {
    let id = Uuid::from_u128(0x1234);
    assert_eq!(
        one(Value::Uuid(id)).decode::<String>().unwrap(),
        id.to_string()
    );
}

#[test]
fn bytes_are_read_as_a_vector() {
    assert_eq!(
        one(Value::Bytes(vec![0, 255])).decode::<Vec<u8>>().unwrap(),
        [0, 255]
    );
}

#[test]
fn json_columns_are_read_into_structures() {
    let order = one(Value::Json(r#"{"id": 3, "note": "x"}"#.into()));
    let (read,): (Order,) = order.decode().unwrap();
    assert_eq!(
        read,
        Order {
            id: 3,
            note: Some("x".into())
        }
    );
    let tags = one(Value::Json("[1,2]".into()))
        .decode::<Vec<i64>>()
        .unwrap();
    assert_eq!(tags, [1, 2]);
    assert!(one(Value::Json("{".into())).decode::<(Order,)>().is_err());
}

#[test]
fn enums_are_read_from_the_text_of_a_variant() {
    #[derive(serde::Deserialize, Debug, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Status {
        Paid,
    }
    assert_eq!(
        one(Value::Text("paid".into())).decode::<Status>().unwrap(),
        Status::Paid
    );
    assert!(one(Value::Text("lost".into())).decode::<Status>().is_err());
}

#[test]
fn a_row_can_be_asked_for_as_it_is_and_as_a_map() {
    let row = row(&[("a", Value::Int(1)), ("b", Value::Int(2))]);
    assert_eq!(row.decode::<Row>().unwrap(), row);
    let map: BTreeMap<String, i64> = row.decode().unwrap();
    assert_eq!(map["b"], 2);
    assert!(serde_json::from_str::<Row>("{}").is_err());
}

#[test]
fn newtypes_are_transparent() {
    #[derive(serde::Deserialize, Debug, PartialEq)]
    struct Id(i64);
    assert_eq!(one(Value::Int(3)).decode::<Id>().unwrap(), Id(3));
    assert_eq!(
        one(Value::Int(3)).decode::<Option<Id>>().unwrap(),
        Some(Id(3))
    );
}
