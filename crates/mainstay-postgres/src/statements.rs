//! Prepared statements, a bounded number of them.
//!
//! Preparing costs a round trip and the planner's time, and it is how we learn which types the
//! parameters must have. Statements are kept by text, the least recently used goes first, and what
//! goes is closed on the server. With a cache of size 0, and behind a pooler that hands each
//! transaction to another server, nothing is prepared: parameters travel as text and the server
//! finds their types.

use crate::bind::{Bound, bind, unspecified};
use crate::decode::RowShape;
use crate::pace::Votes;
use crate::pooled::refuse_session_state;
use crate::session::Link;
use crate::sql;
use crate::stale::{News, StaleTexts};
use mainstay_core::error::Report;
use mainstay_core::{Deadline, Error, Kind, Result, Value};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use tokio::sync::watch;

/// A preparation that nobody waits for any more.
pub(crate) type Orphan =
    Pin<Box<dyn Future<Output = Result<tokio_postgres::Statement, tokio_postgres::Error>> + Send>>;

/// What a statement needs to be bound and read.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The driver's statement; `None` when it is not prepared on the server.
    pub(crate) statement: Option<tokio_postgres::Statement>,
    /// How its rows are read, where that is known beforehand.
    pub(crate) shape: Option<RowShape>,
    /// What its answers say of how long it takes.
    pub(crate) votes: Votes,
    parameters: u32,
    has_gap: bool,
}

impl Prepared {
    fn unnamed(text: &str) -> Self {
        let (parameters, has_gap) = sql::parameters(text);
        Self {
            statement: None,
            shape: None,
            votes: Votes::default(),
            parameters,
            has_gap,
        }
    }

    /// The parameters in the form in which they travel.
    pub(crate) fn bind<'a>(&self, values: &'a [Value]) -> Result<Vec<Bound<'a>>> {
        match &self.statement {
            Some(statement) => bind(values, statement.params()),
            None => bind(values, &vec![unspecified(); values.len()]),
        }
    }

    /// A statement that the server has prepared.
    pub(crate) fn of(text: &str, statement: tokio_postgres::Statement) -> Self {
        Self {
            shape: Some(RowShape::of(statement.columns())),
            statement: Some(statement),
            ..Self::unnamed(text)
        }
    }

    fn check_number_of(&self, values: &[Value]) -> Result<()> {
        if !self.has_gap && usize::try_from(self.parameters) == Ok(values.len()) {
            return Ok(());
        }
        let used = match (self.parameters, self.has_gap) {
            (0, _) => "no parameters".to_owned(),
            (1, false) => "$1".to_owned(),
            (highest, false) => format!("$1 … ${highest}"),
            (highest, true) => format!("$1 … ${highest} with gaps"),
        };
        let message = format!(
            "the statement uses {used} but {} values were given",
            values.len()
        );
        Err(Report::new(Kind::Statement, message).into())
    }
}

/// The statements of one session by text, least recently used first out.
#[derive(Debug)]
pub(crate) struct StatementCache {
    limit: usize,
    clock: u64,
    /// Reports of stale texts that are taken account of.
    reports: u64,
    entries: HashMap<Arc<str>, (Arc<Prepared>, u64)>,
    /// Preparations under way for all who share the session, as many at most as share it.
    preparing: HashMap<Arc<str>, Preparing>,
}

/// Tells those who wait how a preparation ended.
pub(crate) type Preparing = watch::Receiver<Option<Result<Arc<Prepared>>>>;

impl StatementCache {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            clock: 0,
            reports: 0,
            entries: HashMap::new(),
            preparing: HashMap::new(),
        }
    }

    /// A preparation of this text that is under way.
    pub(crate) fn preparing(&self, text: &str) -> Option<Preparing> {
        self.preparing.get(text).cloned()
    }

    /// A preparation begins.
    pub(crate) fn begin(&mut self, text: &Arc<str>, answer: Preparing) {
        self.preparing.insert(Arc::clone(text), answer);
    }

    /// A preparation has ended.
    pub(crate) fn end(&mut self, text: &Arc<str>, prepared: Option<&Arc<Prepared>>) {
        self.preparing.remove(text);
        if let Some(prepared) = prepared {
            self.keep(text, prepared);
        }
    }

    fn find(&mut self, text: &str) -> Option<Arc<Prepared>> {
        self.clock += 1;
        let (prepared, used) = self.entries.get_mut(text)?;
        *used = self.clock;
        Some(Arc::clone(prepared))
    }

    /// Keeps a statement; what has to go for it is closed by the driver when it is dropped.
    fn keep(&mut self, text: &Arc<str>, prepared: &Arc<Prepared>) {
        self.clock += 1;
        self.entries
            .insert(Arc::clone(text), (Arc::clone(prepared), self.clock));
        // Looked for only when something new comes, among as many as the limit allows.
        while self.entries.len() > self.limit {
            let oldest = self.entries.iter().min_by_key(|(_, (_, used))| *used);
            let Some(oldest) = oldest.map(|(text, _)| Arc::clone(text)) else {
                return;
            };
            self.entries.remove(&oldest);
        }
    }

    pub(crate) fn forget(&mut self, text: &str) {
        self.entries.remove(text);
    }

    /// Forgets what other sessions were refused.
    fn hear_of(&mut self, stale: &StaleTexts) {
        match stale.since(&mut self.reports) {
            None => {}
            Some(News::Texts(texts)) => texts.iter().for_each(|text| self.forget(text)),
            Some(News::Everything) => self.clear(),
        }
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }
}

impl Link {
    /// Finds or prepares a statement, and checks how many values were given for it.
    pub(crate) async fn prepared(
        &self,
        text: &Arc<str>,
        values: &[Value],
        deadline: Deadline,
    ) -> Result<Arc<Prepared>> {
        if let Some(known) = self.known(text, values)? {
            return Ok(known);
        }
        let statement = self.prepare(text, deadline).await?;
        let prepared = Arc::new(Prepared::of(text, statement));
        self.statements().keep(text, &prepared);
        Ok(prepared)
    }

    /// What is known about a text without asking the server, which is all where nothing is prepared.
    /// Checks what can be checked before asking.
    pub(crate) fn known(&self, text: &Arc<str>, values: &[Value]) -> Result<Option<Arc<Prepared>>> {
        let known = {
            let mut statements = self.statements();
            statements.hear_of(self.connector.stale());
            statements.find(text)
        };
        if let Some(known) = known {
            known.check_number_of(values)?;
            return Ok(Some(known));
        }
        refuse_unsendable(text)?;
        if self.style.pooled {
            refuse_session_state(text)?;
        }
        let unnamed = Prepared::unnamed(text);
        unnamed.check_number_of(values)?;
        Ok((self.style.statements == 0).then(|| Arc::new(unnamed)))
    }

    /// A plan was refused as stale: it is forgotten, by all sessions where it can fit none of them.
    pub(crate) fn forget_plan(&self, text: &Arc<str>, refused: &Error) {
        // What it was made for has changed; the other codes are about this session's statements.
        if matches!(refused.sqlstate(), Some("0A000" | "XX000")) {
            self.connector.stale().report(text);
        }
        let mut statements = self.statements();
        statements.hear_of(self.connector.stale());
        statements.forget(text);
    }

    pub(crate) async fn prepare(
        &self,
        text: &Arc<str>,
        deadline: Deadline,
    ) -> Result<tokio_postgres::Statement> {
        self.refuse_late(deadline)?;
        let leg = self.leg(self.preparing());
        let (client, owned) = (Arc::clone(&self.client), Arc::clone(text));
        let mut preparation = Preparation {
            link: self,
            future: Some(Box::pin(async move { client.prepare(&owned).await })),
        };
        let answer = self.answer(leg, deadline, preparation.landed()).await;
        if !self.style.pooled
            && let Err(error) = &answer
            && error.sqlstate() == Some("26000")
        {
            // A statement that is being prepared cannot be missing: it is the driver's own, with which it
            // asks for types, that somebody has deallocated, and the driver never makes it anew.
            self.usage().broken = true;
        }
        answer
    }
}

/// A preparation under way. The server keeps what was prepared under a name that only the driver's
/// future knows, so a future that nobody awaits any more is kept until the session is cleaned.
struct Preparation<'a> {
    link: &'a Link,
    future: Option<Orphan>,
}

impl Preparation<'_> {
    async fn landed(&mut self) -> Result<tokio_postgres::Statement, tokio_postgres::Error> {
        let answer = match self.future.as_mut() {
            Some(future) => poll_fn(|context| future.as_mut().poll(context)).await,
            None => std::future::pending().await,
        };
        self.future = None;
        answer
    }
}

impl Drop for Preparation<'_> {
    fn drop(&mut self) {
        // At most one for each dropped call, and the session is cleaned before it is lent again.
        if let Some(future) = self.future.take() {
            self.link
                .orphans
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(future);
        }
    }
}

/// What the protocol cannot carry, or would never come back from.
pub(crate) fn refuse_unsendable(text: &str) -> Result<()> {
    if text.contains('\0') {
        return Err(Report::new(Kind::Statement, "the statement contains a NUL character").into());
    }
    let copies = sql::first_keyword(text).as_deref() == Some("copy");
    let through_us = |token| matches!(token, sql::Token::Word { name, quoted: false } if name == "stdin" || name == "stdout");
    if copies && sql::tokens(text).any(through_us) {
        return Err(copy_refused());
    }
    Ok(())
}

fn copy_refused() -> Error {
    Report::new(
        Kind::Statement,
        "COPY from stdin or to stdout does not work as a statement",
    )
    .remedy("use copy_in and copy_out of a lease: db.acquire()")
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(text: &str) -> Arc<Prepared> {
        Arc::new(Prepared::unnamed(text))
    }

    #[test]
    fn the_least_recently_used_statement_goes_first() {
        let mut cache = StatementCache::new(2);
        let texts: Vec<Arc<str>> = ["a", "b", "c"].map(Arc::from).into();
        cache.keep(&texts[0], &prepared("a"));
        cache.keep(&texts[1], &prepared("b"));
        assert!(cache.find("a").is_some());
        cache.keep(&texts[2], &prepared("c"));
        assert!(cache.find("b").is_none());
        assert!(cache.find("a").is_some() && cache.find("c").is_some());
        assert_eq!(cache.entries.len(), 2);
    }

    #[test]
    fn the_number_of_values_must_be_the_number_of_parameters() {
        let one = [Value::Int(1)];
        assert!(prepared("select $1").check_number_of(&one).is_ok());
        for (text, message) in [
            (
                "select 1",
                "the statement uses no parameters but 1 values were given",
            ),
            (
                "select $1, $2",
                "the statement uses $1 … $2 but 1 values were given",
            ),
            (
                "select $2",
                "the statement uses $1 … $2 with gaps but 1 values were given",
            ),
        ] {
            let error = prepared(text).check_number_of(&one).unwrap_err();
            assert_eq!((error.kind(), error.message()), (Kind::Statement, message));
        }
    }

    #[test]
    fn copy_through_the_connection_is_refused() {
        assert!(refuse_unsendable("copy t from stdin").is_err());
        assert!(refuse_unsendable("/* x */ COPY (select 1) TO STDOUT").is_err());
        assert!(refuse_unsendable("select 'copy', stdin from t").is_ok());
        assert!(refuse_unsendable("copy t from '/tmp/stdin'").is_ok());
        assert!(refuse_unsendable("select '\0'").is_err());
    }
}
