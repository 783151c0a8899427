//! tokio-postgres alone: one client, shared by all callers, one statement prepared beforehand.

use super::{Peer, select};
use crate::Failure;
use std::sync::Arc;
use tokio_postgres::{Client, NoTls, Row, Statement};

#[derive(Clone)]
pub struct Raw(Arc<(Client, Statement)>);

pub async fn open(url: &str) -> Result<Raw, Failure> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    let statement = client.prepare(select()).await?;
    Ok(Raw(Arc::new((client, statement))))
}

impl Peer for Raw {
    async fn select(&self, id: i32) -> Result<(i32, i64), Failure> {
        let (client, statement) = &*self.0;
        account(&client.query_one(statement, &[&id]).await?)
    }
}

pub fn account(row: &Row) -> Result<(i32, i64), Failure> {
    let name: String = row.try_get(1)?;
    if name.is_empty() {
        return Err("a row without a name".into());
    }
    Ok((row.try_get(0)?, row.try_get(2)?))
}
