//! `async |tx| { … }` that borrows locals compiles where services need it.

use crate::script::Script;
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use mainstay::{Database, Result};

async fn handler(State(db): State<Database>, body: String) -> String {
    let name = body.as_str();
    let ids = [1_i64, 2];
    let result: Result<u64> = db
        .transaction(async |tx| {
            let mut affected = 0;
            for id in &ids {
                affected += tx
                    .execute("update t set name = $1 where id = $2", (name, id))
                    .await?;
            }
            tx.savepoint(async |tx| tx.execute("update t set seen = $1", (name,)).await)
                .await?;
            Ok(affected)
        })
        .await;
    let taken: Result<()> = db
        .with_connection(async |connection| connection.script(name).await)
        .await;
    format!("{:?} {:?}", result.ok(), taken.is_ok())
}

#[tokio::test]
async fn closures_that_borrow_compile_in_handlers_and_in_spawned_tasks() {
    let script = Script::new([]);
    let db = script.database(|_| {});
    let app: Router = Router::new()
        .route("/", post(handler))
        .with_state(db.clone());
    drop(app);
    let answer = tokio::spawn(async move { handler(State(db), "x".into()).await })
        .await
        .unwrap();
    assert_eq!(answer, "Some(2) true");
}

#[tokio::test]
async fn a_generic_error_may_be_borrowed_into_a_spawned_task() {
    let script = Script::new([]);
    let db = script.database(|_| {});
    let local = String::from("local");
    let spawned = tokio::spawn(async move {
        let borrowed = &local;
        db.try_transaction::<_, mainstay::Error, _, _>(async |tx| {
            tx.execute("update t set x = $1", (borrowed,)).await
        })
        .await
    });
    assert_eq!(spawned.await.unwrap().unwrap(), 1);
}
