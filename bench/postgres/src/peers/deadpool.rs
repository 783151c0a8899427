//! deadpool-postgres with `Fast` recycling, which asks nothing of the server.

use super::{BALANCE, INSERT, Peer, UPDATE, Writer, select};
use crate::{Failure, LIMIT};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use tokio_postgres::NoTls;

#[derive(Clone)]
pub struct Deadpool(Pool);

pub async fn open(url: &str) -> Result<Deadpool, Failure> {
    let recycling_method = RecyclingMethod::Fast;
    let config = ManagerConfig { recycling_method };
    let manager = Manager::from_config(url.parse()?, NoTls, config);
    Ok(Deadpool(Pool::builder(manager).max_size(LIMIT).build()?))
}

impl Peer for Deadpool {
    async fn select(&self, id: i32) -> Result<(i32, i64), Failure> {
        let client = self.0.get().await?;
        let statement = client.prepare_cached(select()).await?;
        super::raw::account(&client.query_one(&statement, &[&id]).await?)
    }
}

impl Writer for Deadpool {
    async fn transfer(&self, id: i32, amount: i64) -> Result<(), Failure> {
        let mut client = self.0.get().await?;
        let tx = client.transaction().await?;
        let balance = tx.prepare_cached(BALANCE).await?;
        let update = tx.prepare_cached(UPDATE).await?;
        let insert = tx.prepare_cached(INSERT).await?;
        let _balance: i64 = tx.query_one(&balance, &[&id]).await?.try_get(0)?;
        tx.execute(&update, &[&id, &amount]).await?;
        tx.execute(&insert, &[&id, &amount]).await?;
        tx.commit().await?;
        Ok(())
    }
}
