//! Asking the database about itself.
//!
//! What the server knows already costs a millisecond. Exact numbers of rows cost a scan of every table,
//! so they are counted only when asked for, each table by a statement of its own with a deadline of its
//! own: one huge table must not keep the others from being counted.

use crate::bound::{answer_by, frame};
use crate::database::Database;
use mainstay_core::backend::{BoxFuture, Info, Lane, Want};
use mainstay_core::{Class, Deadline, Error, Evidence, Result, Statement};
use std::future::IntoFuture;
use std::panic::Location;
use std::time::Duration;
use tokio::time::Instant;

/// A question about the database: `.await` asks it.
#[must_use = "nothing is asked until it is awaited"]
#[derive(Debug)]
pub struct AskInfo<'a> {
    db: &'a Database,
    exact: bool,
    timeout: Option<Duration>,
    site: &'static Location<'static>,
}

impl AskInfo<'_> {
    /// Counts the rows of every table instead of taking the server's estimates. The time is shared
    /// evenly: a table that cannot be counted in its share has `rows: None`, as has one that may not be
    /// read.
    pub fn exact(mut self) -> Self {
        self.exact = true;
        self
    }

    /// Bounds the whole of it. A deadline of the handle that ends earlier stays in force.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    async fn ask(&self, deadline: Deadline) -> Result<Info> {
        let lease = self.db.lease_at_home(deadline, self.site).await?;
        let info = self.db.engine().backend.info(&**lease, deadline);
        answer_by(deadline, Lane::Read, info).await
    }

    async fn count(&self, info: &mut Info, deadline: Deadline) -> Result<()> {
        let mut left = u32::try_from(info.tables.len()).unwrap_or(u32::MAX);
        for table in &mut info.tables {
            let now = Instant::now();
            let share = Deadline::after(now, deadline.remaining(now) / left.max(1));
            left = left.saturating_sub(1);
            if let Some(name) = &table.sql_name {
                table.rows = match self.rows_of(name, share).await {
                    Ok(rows) => Some(rows),
                    Err(error) if is_about_the_table(&error) => None,
                    Err(error) => return Err(error),
                };
            }
        }
        info.rows_are_estimates = false;
        Ok(())
    }

    /// On a lease of its own, so that a count that is given up is stopped behind our back.
    async fn rows_of(&self, name: &str, deadline: Deadline) -> Result<u64> {
        let lease = self.db.lease_at_home(deadline, self.site).await?;
        let statement = Statement::new(format!("select count(*) from {name}"), ())?;
        let call = frame(Lane::Read, deadline, Instant::now());
        let counting = lease.run(&statement, Want::Rows(1), call);
        let reply = answer_by(deadline, Lane::Read, counting).await?;
        reply.rows.first().map_or(Ok(0), mainstay_core::Row::decode)
    }
}

/// Whether a failure says something about the table and nothing about the database.
fn is_about_the_table(error: &Error) -> bool {
    let answered = error.class() == Class::Permanent && error.evidence() == Evidence::Answered;
    answered || error.is_timeout()
}

impl<'a> IntoFuture for AskInfo<'a> {
    type Output = Result<Info>;
    type IntoFuture = BoxFuture<'a, Result<Info>>;

    /// # Cancel safety
    ///
    /// Safe: it only reads.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let deadline = self.db.deadline_for(self.timeout);
            let mut info = self.ask(deadline).await?;
            if self.exact {
                self.count(&mut info, deadline).await?;
            }
            Ok(info)
        })
    }
}

impl Database {
    /// Server version, sessions and what they do, sizes, rows per table.
    ///
    /// ```no_run
    /// # async fn example(db: &mainstay::Database) -> mainstay::Result<()> {
    /// use std::time::Duration;
    ///
    /// let info = db.info().await?; // rows as the server estimates them
    /// let exact = db.info().exact().timeout(Duration::from_secs(60)).await?;
    /// # drop((info, exact)); Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Everything a statement can meet.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    #[track_caller]
    pub fn info(&self) -> AskInfo<'_> {
        AskInfo {
            db: self,
            exact: false,
            timeout: None,
            site: Location::caller(),
        }
    }
}
