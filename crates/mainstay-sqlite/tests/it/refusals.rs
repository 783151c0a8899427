use crate::{Bench, PLAIN, WRITE, execute, on, scalar};
use mainstay_core::Kind;
use mainstay_core::backend::Condition;

const SESSION: [(&str, &str); 11] = [
    ("begin", "begin"),
    ("begin immediate", "begin"),
    ("commit", "commit"),
    ("end", "commit"),
    ("rollback", "rollback"),
    ("savepoint s", "savepoint"),
    ("release s", "release"),
    ("attach ':memory:' as other", "attach"),
    ("attach (select ':memory:') as other", "attach"),
    ("detach other", "detach"),
    ("pragma foreign_keys = off", "pragma"),
];

#[tokio::test]
async fn session_statements_are_refused_by_name() {
    let bench = Bench::new().await;
    for (text, keyword) in SESSION {
        // Hidden behind a comment, which no search of the text sees through.
        let text = format!("/* select */ {text}");
        let error = execute(&*bench.writer, &text).await.unwrap_err();
        assert_eq!(error.kind(), Kind::SessionStatement, "{text}");
        assert!(
            error.message().contains(&format!("`{keyword}`")),
            "{text}: {error}"
        );
        assert!(
            error.remedy().unwrap().contains("with_connection"),
            "{text}"
        );
    }
    assert_eq!(bench.writer.condition(), Condition::Clean);
    assert_eq!(
        scalar(
            &*bench.writer,
            "select foreign_keys from pragma_foreign_keys"
        )
        .await,
        1
    );
}

#[tokio::test]
async fn a_script_cannot_end_the_transaction_it_is_part_of() {
    let bench = Bench::with_table().await;
    // Exclusive use lifts the refusal for everything but the transaction that we began.
    bench.writer.hand_over();
    bench.writer.begin(PLAIN, on(WRITE)).await.unwrap();
    let text = "insert into t (a) values ('x'); commit; insert into t (a) values ('y')";
    let error = bench.writer.script(text, on(WRITE)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::SessionStatement);
    assert!(error.message().starts_with("statement 2"), "{error}");
    bench.writer.roll_back(on(WRITE)).await.unwrap();
    assert_eq!(bench.count("t").await, 0);
}

#[tokio::test]
async fn a_script_is_cut_where_sqlite_says() {
    let bench = Bench::with_table().await;
    let text = "
        -- a comment; with a semicolon
        insert into t (a) values ('one; two');
        create trigger on_t after insert on t begin
            update t set a = a || '!' where id = new.id;
            select 1;
        end;
        insert into t (a) values ('three') returning id;;
        /* nothing; at all */";
    bench.writer.script(text, on(WRITE)).await.unwrap();
    assert_eq!(
        scalar(
            &*bench.reader,
            "select count(*) from t where a in ('one; two', 'three!')"
        )
        .await,
        2
    );
}

#[tokio::test]
async fn one_call_is_one_statement() {
    let bench = Bench::with_table().await;
    for text in [
        "insert into t (a) values ('x'); delete from t",
        "",
        "-- nothing",
        " ; ",
    ] {
        let error = execute(&*bench.writer, text).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Statement, "{text:?}");
    }
    assert_eq!(bench.count("t").await, 0);
}

#[tokio::test]
async fn a_misspelt_column_is_no_string() {
    let bench = Bench::with_table().await;
    let error = execute(&*bench.writer, "select \"no_such_column\" from t")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Statement);
}

#[tokio::test]
async fn a_temporary_table_does_not_outlive_its_caller() {
    let bench = Bench::new().await;
    execute(&*bench.writer, "create temp table scratch (a)")
        .await
        .unwrap();
    assert_eq!(bench.writer.condition(), Condition::Dirty);
    bench.writer.clean(crate::soon()).await.unwrap();
    assert_eq!(bench.writer.condition(), Condition::Clean);
    assert!(
        execute(&*bench.writer, "select * from scratch")
            .await
            .is_err()
    );
}
