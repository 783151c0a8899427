//! Rows become what was asked for, or an error that says why not.

use super::subject::{ensure, refused, same};
use super::{Law, Saboteur, Subject, Verdict, law};
use mainstay::backend::{Reply, Want};
use mainstay::{Columns, Row, Value};
use std::sync::Arc;

pub(super) fn laws() -> Vec<Law> {
    vec![
        law!(
            structs_are_read_by_name,
            Saboteur::reply(anonymous),
            by_name
        ),
        law!(
            a_missing_required_column_is_an_error,
            Saboteur::reply(with_note),
            missing_required
        ),
        law!(
            a_missing_optional_column_is_none,
            Saboteur::reply(with_note),
            missing_optional
        ),
        law!(
            duplicate_columns_are_an_error,
            Saboteur::reply(anonymous),
            duplicates
        ),
        law!(
            surplus_columns_are_ignored,
            Saboteur::reply(first_column_only),
            surplus
        ),
        law!(
            tuples_are_read_by_position,
            Saboteur::reply(backwards),
            by_position
        ),
        law!(
            one_row_means_one_row,
            Saboteur::want(Want::Rows(1)),
            exactly_one
        ),
        law!(
            affected_rows_are_counted,
            Saboteur::reply(uncounted),
            counted
        ),
    ]
}

#[derive(serde::Deserialize, Debug, PartialEq)]
struct Item {
    id: i64,
    name: String,
}

#[derive(serde::Deserialize, Debug, PartialEq)]
struct Noted {
    id: i64,
    note: Option<String>,
}

#[derive(serde::Deserialize, Debug)]
struct NotedAlways {
    #[expect(dead_code, reason = "it is only decoded")]
    note: String,
}

async fn by_name(subject: Subject) -> Verdict {
    let text = "select cast('x' as text) as name, 1 as id";
    let item: Item = subject.db.fetch_one(text, ()).await?;
    same!(
        item,
        Item {
            id: 1,
            name: "x".into()
        }
    );
    Ok(())
}

async fn missing_required(subject: Subject) -> Verdict {
    let result = subject
        .db
        .fetch_one::<NotedAlways>("select 1 as id", ())
        .await;
    let error = refused!(result, Decode);
    ensure!(
        error.to_string().contains("note"),
        "the error does not name the column: {error}"
    );
    Ok(())
}

async fn missing_optional(subject: Subject) -> Verdict {
    let noted: Noted = subject.db.fetch_one("select 1 as id", ()).await?;
    same!(noted, Noted { id: 1, note: None });
    Ok(())
}

async fn duplicates(subject: Subject) -> Verdict {
    let text = "select 1 as id, cast('x' as text) as name, 2 as id";
    let error = refused!(subject.db.fetch_one::<Item>(text, ()).await, Decode);
    ensure!(
        error.to_string().contains("two columns"),
        "the error does not say why: {error}"
    );
    Ok(())
}

async fn surplus(subject: Subject) -> Verdict {
    let text = "select true as surplus, 1 as id, cast('x' as text) as name";
    let item: Item = subject.db.fetch_one(text, ()).await?;
    same!(
        item,
        Item {
            id: 1,
            name: "x".into()
        }
    );
    Ok(())
}

async fn by_position(subject: Subject) -> Verdict {
    let row: (i64, String) = subject
        .db
        .fetch_one("select 1, cast('x' as text)", ())
        .await?;
    same!(row, (1, "x".to_owned()));
    refused!(
        subject.db.fetch_one::<(i64,)>("select 1, 2", ()).await,
        Decode
    );
    Ok(())
}

async fn exactly_one(subject: Subject) -> Verdict {
    let db = &subject.db;
    refused!(
        db.fetch_one::<i64>("select 1 where 1 = 0", ()).await,
        NoRows
    );
    same!(
        db.fetch_optional::<i64>("select 1 where 1 = 0", ()).await?,
        None
    );
    refused!(
        db.fetch_one::<i64>("select 1 union all select 2", ()).await,
        TooManyRows
    );
    refused!(
        db.fetch_optional::<i64>("select 1 union all select 2", ())
            .await,
        TooManyRows
    );
    Ok(())
}

async fn counted(subject: Subject) -> Verdict {
    subject.items().await?;
    let db = &subject.db;
    let insert = "insert into items (name) values ('a'), ('b'), ('c')";
    same!(db.execute(insert, ()).await?, 3);
    same!(
        db.execute("update items set price = 1 where name <> 'a'", ())
            .await?,
        2
    );
    same!(
        db.execute("delete from items where name = 'none'", ())
            .await?,
        0
    );
    Ok(())
}

fn remade(reply: Reply, names: Vec<String>, pick: impl Fn(Vec<Value>) -> Vec<Value>) -> Reply {
    let columns = Arc::new(Columns::from_names(names));
    let rows = reply.rows.into_iter();
    let rows = rows
        .map(|row| Row::new(Arc::clone(&columns), pick(row.into_values())))
        .collect();
    Reply {
        burden: None,
        columns,
        rows,
        affected: reply.affected,
    }
}

fn names(reply: &Reply) -> Vec<String> {
    reply
        .columns
        .iter()
        .map(|column| column.name().to_owned())
        .collect()
}

fn anonymous(reply: Reply) -> Reply {
    let names = (0..reply.columns.len())
        .map(|index| format!("column{index}"))
        .collect();
    remade(reply, names, |values| values)
}

fn with_note(reply: Reply) -> Reply {
    let mut names = names(&reply);
    names.push("note".into());
    remade(reply, names, |mut values| {
        values.push(Value::Text("invented".into()));
        values
    })
}

fn first_column_only(reply: Reply) -> Reply {
    let names = names(&reply).into_iter().take(1).collect();
    remade(reply, names, |values| values.into_iter().take(1).collect())
}

fn backwards(reply: Reply) -> Reply {
    let names = names(&reply).into_iter().rev().collect();
    remade(reply, names, |values| values.into_iter().rev().collect())
}

fn uncounted(reply: Reply) -> Reply {
    Reply {
        burden: None,
        affected: 0,
        ..reply
    }
}
