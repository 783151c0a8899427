//! sqlx, as it comes (a ping before every use) and without the ping.

use super::{BALANCE, INSERT, Peer, UPDATE, Writer, select};
use crate::{Failure, LIMIT};
use ::sqlx::postgres::{PgPool, PgPoolOptions};

#[derive(Clone)]
pub struct Sqlx(PgPool);

pub async fn open(url: &str, ping: bool) -> Result<Sqlx, Failure> {
    let options = PgPoolOptions::new()
        .max_connections(LIMIT as u32)
        .test_before_acquire(ping);
    Ok(Sqlx(options.connect(url).await?))
}

impl Peer for Sqlx {
    async fn select(&self, id: i32) -> Result<(i32, i64), Failure> {
        let (id, name, balance): (i32, String, i64) = ::sqlx::query_as(select())
            .bind(id)
            .fetch_one(&self.0)
            .await?;
        if name.is_empty() {
            return Err("a row without a name".into());
        }
        Ok((id, balance))
    }
}

impl Writer for Sqlx {
    async fn transfer(&self, id: i32, amount: i64) -> Result<(), Failure> {
        let mut tx = self.0.begin().await?;
        let _balance: i64 = ::sqlx::query_scalar(BALANCE)
            .bind(id)
            .fetch_one(&mut *tx)
            .await?;
        ::sqlx::query(UPDATE)
            .bind(id)
            .bind(amount)
            .execute(&mut *tx)
            .await?;
        ::sqlx::query(INSERT)
            .bind(id)
            .bind(amount)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }
}
