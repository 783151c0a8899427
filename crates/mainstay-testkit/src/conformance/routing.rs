//! A write reaches the write lane, however it looks; a session statement reaches nobody.

use super::saboteur::ReadLane;
use super::subject::{ensure, refused, same};
use super::{Law, Saboteur, Subject, Verdict, law};
use mainstay::backend::Presumption;
use mainstay::{Error, Kind};

pub(super) fn laws() -> Vec<Law> {
    vec![
        law!(
            a_write_through_fetch_writes,
            Saboteur::reads(ReadLane::SwallowsRefusals),
            fetch_writes
        ),
        law!(
            a_write_behind_a_with_clause_or_a_comment_writes,
            Saboteur::reads(ReadLane::SwallowsRefusals),
            disguised
        ),
        law!(
            a_forced_write_lane_is_taken,
            Saboteur::reads(ReadLane::SwallowsRefusals),
            forced
        ),
        law!(
            session_statements_are_refused_by_name,
            Saboteur::error(vague).and_presumption(Presumption::Unknown),
            session_statements
        ),
    ]
}

fn vague(error: Error) -> Error {
    error.into_report().kind(Kind::Other).into()
}

async fn fetch_writes(subject: Subject) -> Verdict {
    subject.items().await?;
    let db = &subject.db;
    let text = "insert into items (name) values ($1) returning id";
    let one: i64 = db.fetch_one(text, ("a",)).await?;
    let all: Vec<i64> = db.fetch_all(text, ("b",)).await?;
    let maybe: Option<i64> = db.fetch_optional(text, ("c",)).await?;
    let mut stream = db.fetch::<i64>(text, ("d",));
    let streamed = stream.next().await?;
    ensure!(stream.next().await?.is_none(), "more than one row came");
    drop(stream);
    ensure!(
        one > 0 && all.len() == 1 && maybe.is_some() && streamed.is_some(),
        "no id came back"
    );
    same!(subject.count().await?, 4);
    Ok(())
}

async fn disguised(subject: Subject) -> Verdict {
    subject.items().await?;
    let db = &subject.db;
    let with = "with given (name) as (values ('a')) \
                insert into items (name) select name from given";
    db.execute(with, ()).await?;
    db.execute(
        "/* select */ -- select\n insert into items (name) values ('b')",
        (),
    )
    .await?;
    same!(subject.count().await?, 2);
    // The second time the answer is remembered.
    let with = "with given (name) as (values ('c')) \
                insert into items (name) select name from given returning id";
    let _: i64 = db.fetch_one(with, ()).await?;
    db.execute("delete from items where name = 'c'", ()).await?;
    let _: i64 = db.fetch_one(with, ()).await?;
    same!(subject.count().await?, 3);
    Ok(())
}

async fn forced(subject: Subject) -> Verdict {
    subject.items().await?;
    let text = "insert into items (name) values ($1) returning id";
    let _: i64 = subject.db.fetch_one(text, ("a",)).write().await?;
    same!(subject.count().await?, 1);
    same!(
        subject
            .db
            .fetch_one::<i64>("select count(*) from items", ())
            .write()
            .await?,
        1
    );
    Ok(())
}

async fn session_statements(subject: Subject) -> Verdict {
    let common = ["begin", "commit", "rollback", "savepoint x", " /* */ BEGIN"];
    let own: &[&str] = match subject.system() {
        mainstay::System::Sqlite => &["pragma foreign_keys = off", "attach ':memory:' as other"],
        _ => &[
            "set work_mem = '8MB'",
            "listen x",
            "prepare p as select 1",
            "discard all",
        ],
    };
    for text in common.iter().chain(own) {
        let error = refused!(subject.db.execute(text, ()).await, SessionStatement);
        ensure!(
            error.to_string().contains("with_connection"),
            "the refusal of {text:?} names no way out: {error}"
        );
    }
    Ok(())
}
