//! The peers, each used as its documentation shows it.

pub mod bb8;
pub mod deadpool;
pub mod diesel;
pub mod mainstay;
pub mod raw;
pub mod sqlx;

use crate::Failure;
use crate::report::{Row, Turn};
use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

/// The statement of a point select.
const SELECT: &str = "select id, name, balance from accounts where id = $1";
/// The statements of a write transaction.
pub const BALANCE: &str = "select balance from accounts where id = $1";
pub const UPDATE: &str = "update accounts set balance = balance - $2 where id = $1";
pub const INSERT: &str = "insert into movements (account, amount) values ($1, $2)";

static WITH_WORK: OnceLock<String> = OnceLock::new();

/// Lets every select keep its session busy for so long; said once, before anybody asks.
pub fn keep_busy(work: Duration) {
    let seconds = work.as_secs_f64();
    let text = format!("select id, name, balance from accounts, pg_sleep({seconds}) where id = $1");
    WITH_WORK.set(text).expect("said once");
}

/// The text of a select.
pub fn select() -> &'static str {
    WITH_WORK.get().map_or(SELECT, String::as_str)
}

/// Who asks for one row: answers id and balance, having read the name as well.
pub trait Peer: Clone + Send + Sync + 'static {
    fn select(&self, id: i32) -> impl Future<Output = Result<(i32, i64), Failure>> + Send;
}

/// Who moves money: begin, select, update, insert, commit.
pub trait Writer: Clone + Send + Sync + 'static {
    fn transfer(&self, id: i32, amount: i64) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Notes a turn; the first failure voids the row.
pub fn note(rows: &mut Vec<Row>, name: &'static str, outcome: Result<Turn, Failure>) {
    let index = rows
        .iter()
        .position(|row| row.name == name)
        .unwrap_or_else(|| {
            rows.push(Row {
                name,
                turns: Vec::new(),
                void: None,
            });
            rows.len() - 1
        });
    match outcome {
        Ok(turn) => rows[index].turns.push(turn),
        Err(error) => rows[index].void = Some(error.to_string()),
    }
}
