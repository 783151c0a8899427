//! bb8-postgres, as it comes: a check before every use.

use super::{Peer, select};
use crate::{Failure, LIMIT};
use bb8_postgres::PostgresConnectionManager;
use bb8_postgres::bb8::Pool;
use tokio_postgres::NoTls;

#[derive(Clone)]
pub struct Bb8(Pool<PostgresConnectionManager<NoTls>>);

pub async fn open(url: &str) -> Result<Bb8, Failure> {
    let manager = PostgresConnectionManager::new(url.parse()?, NoTls);
    Ok(Bb8(Pool::builder()
        .max_size(LIMIT as u32)
        .build(manager)
        .await?))
}

impl Peer for Bb8 {
    async fn select(&self, id: i32) -> Result<(i32, i64), Failure> {
        let client = self.0.get().await?;
        // It keeps no statements, so its users ask without preparing.
        super::raw::account(&client.query_one(select(), &[&id]).await?)
    }
}
