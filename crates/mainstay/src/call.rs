//! The builders behind `execute` and `fetch_*`.
//!
//! A call is complete when it is made; what may be added (`timeout`, `idempotent`, `write`) is added
//! before it is awaited, so that the common case stays one line.

use crate::database::Database;
use crate::lease::Lease;
use crate::one_shot::OneShot;
use crate::tx::Tx;
use mainstay_core::backend::{BoxFuture, Reply, Want};
use mainstay_core::error::Report;
use mainstay_core::{IntoParams, Kind, Params, Result, Row, Statement};
use serde::de::DeserializeOwned;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::panic::Location;
use std::time::Duration;
use tokio::time::Instant;

/// What becomes of a statement's reply.
pub trait Outcome: Send {
    /// What the call answers.
    type Output: Send;
    /// What is asked of the database.
    #[doc(hidden)]
    const WANT: Want;
    /// Turns the reply into the answer.
    #[doc(hidden)]
    fn read(reply: Reply, strict: Strictness<'_>) -> Result<Self::Output>;
}

/// What a missing column for an optional field means, and for which text.
#[doc(hidden)]
#[derive(Copy, Clone, Debug)]
pub struct Strictness<'a> {
    pub(crate) text: &'a str,
    pub(crate) strict: bool,
    pub(crate) warned: &'a crate::stream::Warned,
}

/// The number of affected rows.
#[derive(Debug)]
pub struct Affected(());

/// All rows.
#[derive(Debug)]
pub struct All<T>(PhantomData<fn() -> T>);

/// Exactly one row.
#[derive(Debug)]
pub struct Exactly<T>(PhantomData<fn() -> T>);

/// One row or none.
#[derive(Debug)]
pub struct Optional<T>(PhantomData<fn() -> T>);

impl Outcome for Affected {
    type Output = u64;
    const WANT: Want = Want::Affected;

    fn read(reply: Reply, _: Strictness<'_>) -> Result<u64> {
        Ok(reply.affected)
    }
}

impl<T: DeserializeOwned + Send> Outcome for All<T> {
    type Output = Vec<T>;
    const WANT: Want = Want::Rows(usize::MAX);

    fn read(reply: Reply, strict: Strictness<'_>) -> Result<Vec<T>> {
        strict.check::<T>(&reply.columns)?;
        reply.rows.iter().map(Row::decode).collect()
    }
}

impl<T: DeserializeOwned + Send> Outcome for Exactly<T> {
    type Output = T;
    const WANT: Want = Want::Rows(2);

    fn read(reply: Reply, strict: Strictness<'_>) -> Result<T> {
        Optional::<T>::read(reply, strict)?.ok_or_else(|| {
            Report::new(Kind::NoRows, "exactly one row was asked for and none came")
                .remedy("use fetch_optional if there may be none")
                .into()
        })
    }
}

impl<T: DeserializeOwned + Send> Outcome for Optional<T> {
    type Output = Option<T>;
    const WANT: Want = Want::Rows(2);

    fn read(reply: Reply, strict: Strictness<'_>) -> Result<Option<T>> {
        strict.check::<T>(&reply.columns)?;
        match reply.rows.as_slice() {
            [] => Ok(None),
            [row] => row.decode().map(Some),
            _ => Err(Report::new(
                Kind::TooManyRows,
                "at most one row was asked for and more came",
            )
            .remedy("add a condition or `limit 1`, or use fetch_all")
            .into()),
        }
    }
}

/// Where a call runs.
#[derive(Debug)]
enum Place<'a> {
    Database(&'a Database),
    Tx(&'a Tx),
    Lease(&'a Lease),
}

/// How a call runs.
#[derive(Copy, Clone, Debug)]
pub(crate) struct CallOptions {
    pub(crate) timeout: Option<Duration>,
    pub(crate) idempotent: bool,
    pub(crate) write: bool,
    pub(crate) site: &'static Location<'static>,
}

/// A statement that is about to be sent: `.await` sends it.
#[must_use = "a call does nothing until it is awaited"]
#[derive(Debug)]
pub struct Call<'a, O> {
    place: Place<'a>,
    text: &'a str,
    params: Result<Params>,
    options: CallOptions,
    outcome: PhantomData<fn() -> O>,
}

impl<'a, O: Outcome> Call<'a, O> {
    #[track_caller]
    fn new(place: Place<'a>, text: &'a str, params: impl IntoParams) -> Self {
        let site = Location::caller();
        let options = CallOptions {
            timeout: None,
            idempotent: false,
            write: false,
            site,
        };
        Self {
            place,
            text,
            params: params.into_params(),
            options,
            outcome: PhantomData,
        }
    }

    /// Bounds everything this call does: waiting, executing, repeating. A deadline of the handle
    /// that ends earlier stays in force.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Says that doing it twice is the same as doing it once, so it may be repeated after an unknown
    /// outcome. Without effect inside a transaction, whose unit is the whole closure.
    pub fn idempotent(mut self) -> Self {
        self.options.idempotent = true;
        self
    }

    /// Forces the write lane. Without effect inside a transaction, which has its lane already.
    pub fn write(mut self) -> Self {
        self.options.write = true;
        self
    }
}

impl<'a, O: Outcome + 'a> IntoFuture for Call<'a, O> {
    type Output = Result<O::Output>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    /// # Cancel safety
    ///
    /// Dropping the future stops waiting at once; what the server still runs is cancelled in the
    /// background before its connection is lent again. A write that was dropped may have happened.
    /// Inside a transaction it ends the whole transaction, which is rolled back.
    fn into_future(self) -> Self::IntoFuture {
        let Self {
            place,
            text,
            params,
            options,
            ..
        } = self;
        Box::pin(async move {
            let params = params?;
            let engine = match place {
                Place::Database(db) => db.engine(),
                Place::Tx(tx) => tx.engine(),
                Place::Lease(lease) => lease.engine(),
            };
            let reply = match place {
                Place::Database(db) => {
                    let now = Instant::now();
                    let shot = OneShot {
                        engine,
                        statement: Statement::new(text, params)?,
                        want: O::WANT,
                        options,
                        deadline: db.deadline_from(now, options.timeout),
                        started: now,
                    };
                    shot.run().await?
                }
                Place::Tx(tx) => tx.run(text, params, O::WANT, options.timeout).await?,
                Place::Lease(lease) => lease.run(text, params, O::WANT, options.timeout).await?,
            };
            let strict = Strictness {
                text,
                strict: engine.config.strict_rows,
                warned: &engine.warned,
            };
            O::read(reply, strict)
        })
    }
}

/// The statement methods of a handle, written once for all three.
macro_rules! statement_methods {
    ($handle:ty, $place:ident) => {
        impl $handle {
            /// Runs a statement and answers the number of affected rows.
            ///
            /// # Errors
            ///
            /// Everything a statement can meet; see [`Kind`](crate::Kind).
            ///
            /// # Cancel safety
            ///
            /// See [`Call`].
            #[track_caller]
            pub fn execute<'a>(
                &'a self,
                text: &'a str,
                params: impl IntoParams,
            ) -> Call<'a, Affected> {
                Call::new(Place::$place(self), text, params)
            }

            /// Runs a statement and answers all its rows.
            ///
            /// # Errors
            ///
            /// Everything a statement can meet, and [`Kind::Decode`](crate::Kind::Decode).
            ///
            /// # Cancel safety
            ///
            /// See [`Call`].
            #[track_caller]
            pub fn fetch_all<'a, T: DeserializeOwned + Send>(
                &'a self,
                text: &'a str,
                params: impl IntoParams,
            ) -> Call<'a, All<T>> {
                Call::new(Place::$place(self), text, params)
            }

            /// Runs a statement and answers its only row.
            ///
            /// # Errors
            ///
            /// [`Kind::NoRows`](crate::Kind::NoRows) and
            /// [`Kind::TooManyRows`](crate::Kind::TooManyRows) when it is not exactly one.
            ///
            /// # Cancel safety
            ///
            /// See [`Call`].
            #[track_caller]
            pub fn fetch_one<'a, T: DeserializeOwned + Send>(
                &'a self,
                text: &'a str,
                params: impl IntoParams,
            ) -> Call<'a, Exactly<T>> {
                Call::new(Place::$place(self), text, params)
            }

            /// Runs a statement and answers its row, if there is one.
            ///
            /// # Errors
            ///
            /// [`Kind::TooManyRows`](crate::Kind::TooManyRows) when there are more.
            ///
            /// # Cancel safety
            ///
            /// See [`Call`].
            #[track_caller]
            pub fn fetch_optional<'a, T: DeserializeOwned + Send>(
                &'a self,
                text: &'a str,
                params: impl IntoParams,
            ) -> Call<'a, Optional<T>> {
                Call::new(Place::$place(self), text, params)
            }
        }
    };
}

statement_methods!(Database, Database);
statement_methods!(Tx, Tx);
statement_methods!(Lease, Lease);
