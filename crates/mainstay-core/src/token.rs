//! The row by which a transaction can be asked for after its COMMIT was lost.
//!
//! When the answer to COMMIT does not come, the connection knows nothing any more, and the number of
//! a transaction may be given out again after a crash. A row cannot: it is there if the transaction
//! was committed, and while the transaction is open nobody else can write a row of the same key. So
//! a transaction that must be decided later writes a [`Token`] first.
//!
//! The row's `state` tells three things apart: a mark that begins with [`COMMITTED`] was written by
//! a transaction, [`TOMBSTONE`] by somebody who made sure that the transaction will never commit.

use crate::{Result, Statement};
use std::fmt;

/// The table of the rows.
pub const TABLE: &str = "_mainstay_tokens";

/// How the mark of a transaction begins.
pub const COMMITTED: &str = "tx";

/// The state that keeps a transaction from ever committing.
pub const TOMBSTONE: &str = "tomb";

/// What a transaction writes about itself before anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    key: String,
    mark: String,
}

impl Token {
    /// A token of this key. The nonce tells this attempt from another one with the same key.
    ///
    /// ```
    /// use mainstay_core::token::Token;
    /// let token = Token::new("order-7", "a1");
    /// assert_eq!((token.key(), token.mark()), ("order-7", "tx a1"));
    /// ```
    #[must_use]
    pub fn new(key: impl Into<String>, nonce: &str) -> Self {
        Self {
            key: key.into(),
            mark: format!("{COMMITTED} {nonce}"),
        }
    }

    /// The key of the row.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The state that the transaction writes.
    #[must_use]
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// The statement that writes the row.
    ///
    /// # Errors
    ///
    /// When the key holds a NUL.
    pub fn insert(&self) -> Result<Statement> {
        let text = "insert into _mainstay_tokens (token, state) values ($1, $2)";
        Statement::new(text, (self.key.as_str(), self.mark.as_str()))
    }
}

/// A session of the server, or behind a transaction pooler one transaction of it. The number of the
/// process alone would not do: numbers are given out again.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The process of the backend.
    pub process: i32,
    /// When session or transaction was started, in microseconds since 1970.
    pub started: i64,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "backend {}", self.process)
    }
}
