//! mainstay, as it comes: breaker, retries, deadlines, metrics and spans are on.

use super::{BALANCE, INSERT, Peer, UPDATE, Writer, select};
use crate::{Failure, LIMIT};
use ::mainstay::{Database, Statement, statement};

#[derive(serde::Deserialize)]
struct Account {
    id: i32,
    name: String,
    balance: i64,
}

/// One-shot selects; `lease` gives each a connection of its own, by the write lane.
#[derive(Clone)]
pub struct Mainstay {
    db: Database,
    lease: bool,
}

pub async fn open(url: &str, lease: bool) -> Result<Mainstay, Failure> {
    let db = Database::builder(url)
        .connection_limit(LIMIT)
        .open()
        .await?;
    Ok(Mainstay { db, lease })
}

impl Peer for Mainstay {
    async fn select(&self, id: i32) -> Result<(i32, i64), Failure> {
        let call = self.db.fetch_one::<Account>(select(), (id,));
        let call = if self.lease { call.write() } else { call };
        let account = call.await?;
        Ok((account.id, check(&account.name, account.balance)?))
    }
}

fn check(name: &str, balance: i64) -> Result<i64, Failure> {
    if name.is_empty() {
        return Err("a row without a name".into());
    }
    Ok(balance)
}

/// Write transactions through a closure.
#[derive(Clone)]
pub struct Closure(Database);

pub async fn closure(url: &str) -> Result<Closure, Failure> {
    let db = Database::builder(url).connection_limit(LIMIT);
    Ok(Closure(db.min_connections(LIMIT).open().await?))
}

impl Writer for Closure {
    async fn transfer(&self, id: i32, amount: i64) -> Result<(), Failure> {
        let moved = self.0.transaction(async |tx| {
            let balance: i64 = tx.fetch_one(BALANCE, (id,)).await?;
            tx.execute(UPDATE, (id, amount)).await?;
            tx.execute(INSERT, (id, amount)).await?;
            Ok(balance)
        });
        moved.await?;
        Ok(())
    }
}

/// The same as one batch.
#[derive(Clone)]
pub struct Batch(Database);

pub async fn batch(url: &str) -> Result<Batch, Failure> {
    let Closure(db) = closure(url).await?;
    Ok(Batch(db))
}

impl Writer for Batch {
    async fn transfer(&self, id: i32, amount: i64) -> Result<(), Failure> {
        let unit: [Statement; 3] = [
            statement(BALANCE, (id,))?,
            statement(UPDATE, (id, amount))?,
            statement(INSERT, (id, amount))?,
        ];
        self.0.batch(unit).await?;
        Ok(())
    }
}

/// One-shot selects through a handle that is there already.
pub fn of(db: Database) -> Mainstay {
    Mainstay { db, lease: false }
}
