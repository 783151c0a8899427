//! diesel-async with its deadpool pool.

use super::Peer;
use crate::{Failure, LIMIT};
use ::diesel::prelude::*;
use diesel_async::pooled_connection::AsyncDieselConnectionManager;
use diesel_async::pooled_connection::deadpool::Pool;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

::diesel::table! {
    accounts (id) {
        id -> Integer,
        name -> Text,
        balance -> BigInt,
    }
}

#[derive(Clone)]
pub struct Diesel(Pool<AsyncPgConnection>);

pub async fn open(url: &str) -> Result<Diesel, Failure> {
    let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url);
    Ok(Diesel(Pool::builder(manager).max_size(LIMIT).build()?))
}

impl Peer for Diesel {
    async fn select(&self, id: i32) -> Result<(i32, i64), Failure> {
        let mut connection = self.0.get().await?;
        let (id, name, balance) = accounts::table
            .find(id)
            .first::<(i32, String, i64)>(&mut connection)
            .await?;
        if name.is_empty() {
            return Err("a row without a name".into());
        }
        Ok((id, balance))
    }
}
