use crate::{Bench, READ, run};
use mainstay_core::{Kind, Value};

#[tokio::test]
async fn parameters_are_bound_by_number_in_any_order() {
    let bench = Bench::new().await;
    let text = "select $2 || '-' || $1 || '-' || $2";
    let reply = run(&*bench.reader, text, ("one", "two"), READ)
        .await
        .unwrap();
    assert_eq!(reply.rows[0].values(), [Value::Text("two-one-two".into())]);
}

#[tokio::test]
async fn a_number_inside_a_string_or_comment_is_no_placeholder() {
    let bench = Bench::new().await;
    let text = "select '$2', \"x\" /* $3 */ from (select $1 as x) -- $4";
    let reply = run(&*bench.reader, text, (7,), READ).await.unwrap();
    assert_eq!(
        reply.rows[0].values(),
        [Value::Text("$2".into()), Value::Int(7)]
    );
}

#[tokio::test]
async fn numbers_that_do_not_fit_the_values_are_refused() {
    let bench = Bench::new().await;
    let one_value = ["select 1", "select $1, $2", "select $2", "select $1, $3"];
    for text in one_value {
        let error = run(&*bench.reader, text, (1,), READ).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Statement, "{text}");
        assert!(error.message().ends_with("values were given"), "{error}");
    }
    let error = run(&*bench.reader, "select $1 + $3", (1, 2, 3), READ)
        .await
        .unwrap_err();
    assert!(error.message().contains("$2"), "{error}");
}

#[tokio::test]
async fn other_placeholders_are_refused() {
    let bench = Bench::new().await;
    for text in [
        "select ?",
        "select ?1",
        "select :x",
        "select @x",
        "select $x",
        "select $1::int",
    ] {
        let error = run(&*bench.reader, text, (1,), READ).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Statement, "{text}");
    }
}
