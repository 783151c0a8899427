//! A violated constraint is the same kind of error on every database.

use super::subject::{ensure, refused};
use super::{Law, Saboteur, Subject, Verdict, law};
use mainstay::{Error, Kind};

pub(super) fn laws() -> Vec<Law> {
    vec![
        law!(
            a_duplicate_key_is_a_unique_violation,
            Saboteur::error(vague),
            unique
        ),
        law!(
            a_dangling_reference_is_a_foreign_key_violation,
            Saboteur::error(vague),
            dangling
        ),
        law!(
            a_missing_value_is_a_not_null_violation,
            Saboteur::error(vague),
            missing
        ),
        law!(
            a_forbidden_value_is_a_check_violation,
            Saboteur::error(vague),
            forbidden
        ),
        law!(
            a_wrong_statement_is_a_statement_error,
            Saboteur::error(vague),
            wrong
        ),
        law!(
            an_error_tells_no_values,
            Saboteur::error(talkative),
            discreet
        ),
    ]
}

const INSERT: &str = "insert into items (name, price, parent) values ($1, $2, $3)";

async fn unique(subject: Subject) -> Verdict {
    subject.items().await?;
    subject.db.execute(INSERT, ("a", 1, None::<i64>)).await?;
    let error = refused!(
        subject.db.execute(INSERT, ("a", 2, None::<i64>)).await,
        Unique
    );
    let constraint = error.constraint().unwrap_or_default();
    ensure!(
        constraint.contains("name"),
        "the constraint is called {constraint:?}"
    );
    ensure!(
        error.code() == Some("P2002"),
        "the code is {:?}",
        error.code()
    );
    Ok(())
}

async fn dangling(subject: Subject) -> Verdict {
    subject.items().await?;
    refused!(
        subject.db.execute(INSERT, ("a", 1, Some(404))).await,
        ForeignKey
    );
    subject
        .db
        .execute("insert into items (id, name) values (1, 'parent')", ())
        .await?;
    subject.db.execute(INSERT, ("child", 1, Some(1))).await?;
    refused!(
        subject
            .db
            .execute("delete from items where id = 1", ())
            .await,
        ForeignKey
    );
    Ok(())
}

async fn missing(subject: Subject) -> Verdict {
    subject.items().await?;
    refused!(
        subject
            .db
            .execute(INSERT, (None::<String>, 1, None::<i64>))
            .await,
        NotNull
    );
    Ok(())
}

async fn forbidden(subject: Subject) -> Verdict {
    subject.items().await?;
    refused!(
        subject.db.execute(INSERT, ("a", -1, None::<i64>)).await,
        Check
    );
    Ok(())
}

async fn wrong(subject: Subject) -> Verdict {
    let db = &subject.db;
    refused!(db.execute("select from where", ()).await, Statement);
    refused!(
        db.fetch_all::<i64>("select 1 from nowhere", ()).await,
        Statement
    );
    refused!(
        db.execute("insert into nowhere values (1)", ()).await,
        Statement
    );
    refused!(db.fetch_one::<i64>("select nothing", ()).await, Statement);
    Ok(())
}

async fn discreet(subject: Subject) -> Verdict {
    subject.items().await?;
    subject
        .db
        .execute(INSERT, ("hunter2", 1, None::<i64>))
        .await?;
    let error = refused!(
        subject
            .db
            .execute(INSERT, ("hunter2", 1, None::<i64>))
            .await,
        Unique
    );
    ensure!(
        !error.to_string().contains("hunter2"),
        "the error shows a value: {error}"
    );
    Ok(())
}

fn vague(error: Error) -> Error {
    error.into_report().kind(Kind::Other).into()
}

fn talkative(error: Error) -> Error {
    let message = format!("{error}: Key (name)=(hunter2) already exists");
    error.into_report().message(message).into()
}
