//! Parameters are bound by number, and every number has a value.

use super::subject::{refused, same};
use super::{Law, Saboteur, Subject, Verdict, law};
use mainstay::{Statement, Value};

pub(super) fn laws() -> Vec<Law> {
    vec![
        law!(
            parameters_are_bound_by_number_and_not_by_appearance,
            Saboteur::statement(reversed),
            by_number
        ),
        law!(
            a_parameter_may_be_used_twice,
            Saboteur::statement(reversed),
            used_twice
        ),
        law!(
            numbers_and_values_must_match,
            Saboteur::statement(padded),
            numbers_must_match
        ),
        law!(
            a_parameter_is_never_read_as_sql,
            Saboteur::statement(interpolated),
            never_sql
        ),
    ]
}

async fn by_number(subject: Subject) -> Verdict {
    let text = "select cast($2 as text) || '-' || cast($1 as text)";
    let joined: String = subject.db.fetch_one(text, ("one", "two")).await?;
    same!(joined, "two-one");
    let text = "select cast($1 as text) || cast($3 as text) || cast($2 as text)";
    let joined: String = subject.db.fetch_one(text, ("a", "b", "c")).await?;
    same!(joined, "acb");
    Ok(())
}

async fn used_twice(subject: Subject) -> Verdict {
    let text = "select cast($1 as text) || cast($2 as text) || cast($1 as text)";
    let joined: String = subject.db.fetch_one(text, ("a", "b")).await?;
    same!(joined, "aba");
    Ok(())
}

async fn numbers_must_match(subject: Subject) -> Verdict {
    let db = &subject.db;
    refused!(
        db.fetch_one::<String>("select cast($1 as text)", ()).await,
        Statement
    );
    refused!(
        db.fetch_one::<String>("select cast($1 as text)", ("a", "b"))
            .await,
        Statement
    );
    refused!(
        db.fetch_one::<String>("select cast($2 as text)", ("a",))
            .await,
        Statement
    );
    refused!(db.fetch_one::<i64>("select 1", (1,)).await, Statement);
    Ok(())
}

async fn never_sql(subject: Subject) -> Verdict {
    subject.items().await?;
    let name = "x'); drop table items; --";
    subject
        .db
        .execute("insert into items (name) values ($1)", (name,))
        .await?;
    let read: String = subject.db.fetch_one("select name from items", ()).await?;
    same!(read, name);
    Ok(())
}

fn remade(statement: &Statement, text: &str, params: Vec<Value>) -> Statement {
    Statement::new(text, params).unwrap_or_else(|_| statement.clone())
}

fn reversed(statement: &Statement) -> Statement {
    let params = statement.params().iter().rev().cloned().collect();
    remade(statement, statement.text(), params)
}

/// As many values as the text names, whatever was given.
fn padded(statement: &Statement) -> Statement {
    let named = (1..10)
        .filter(|number| statement.text().contains(&format!("${number}")))
        .max();
    let mut params = statement.params().to_vec();
    params.resize(named.unwrap_or(0), Value::Text("padding".into()));
    remade(statement, statement.text(), params)
}

/// The oldest mistake of all.
fn interpolated(statement: &Statement) -> Statement {
    let mut text = statement.text().to_string();
    for (index, value) in statement.params().iter().enumerate() {
        if let Value::Text(value) = value {
            text = text.replace(&format!("${}", index + 1), &format!("'{value}'"));
        }
    }
    remade(statement, &text, Vec::new())
}
