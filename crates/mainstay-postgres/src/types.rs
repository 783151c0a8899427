//! The database's own types, where statements are not prepared.
//!
//! A column's type is a number. Those that every server has are known; an enum, or a type of an
//! extension, has to be asked for, once for each database. The question is one statement without a
//! name, which a transaction pooler passes on like any other, and it is asked when the rows are
//! there: nothing waits behind it.

use crate::classify::Phase;
use crate::session::Link;
use mainstay_core::error::Report;
use mainstay_core::{Class, Deadline, Error, Evidence, Kind, Result};
use std::collections::{BTreeSet, HashMap};
use std::sync::{PoisonError, RwLock};
use tokio_postgres::Column;
use tokio_postgres::types::{Kind as TypeKind, ToSql, Type};

/// More types than a database has. Beyond it they are asked for anew.
const TYPES_MAX: usize = 10_000;

const TYPES: &str = "
select t.oid, t.typname::text, n.nspname::text, t.typtype = 'e'
from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace
where t.oid = any($1)";

/// What is known about the types of one database; shared by its sessions.
#[derive(Debug, Default)]
pub(crate) struct CustomTypes {
    known: RwLock<HashMap<u32, Type>>,
    /// Met in a result that could not wait for the answer.
    wanted: RwLock<BTreeSet<u32>>,
}

impl CustomTypes {
    /// The true type of a column, or its number while that is all that is known.
    pub(crate) fn of(&self, column: &Column) -> Result<Type, u32> {
        let Some(number) = number_of(column) else {
            return Ok(column.type_().clone());
        };
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&number).cloned().ok_or(number)
    }

    fn keep(&self, types: impl IntoIterator<Item = Type>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() > TYPES_MAX {
            known.clear();
        }
        known.extend(types.into_iter().map(|found| (found.oid(), found)));
    }

    /// Notes types to be asked for before the next result is opened.
    fn want(&self, numbers: &[u32]) {
        let mut wanted = self.wanted.write().unwrap_or_else(PoisonError::into_inner);
        if wanted.len() < TYPES_MAX {
            wanted.extend(numbers);
        }
    }

    fn take_wanted(&self) -> Vec<u32> {
        if self
            .wanted
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
        {
            return Vec::new();
        }
        let mut wanted = self.wanted.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *wanted).into_iter().collect()
    }
}

/// The number that the wire has put into the place of the modifier; `unknown` itself has none.
fn number_of(column: &Column) -> Option<u32> {
    let modifier = column.type_modifier();
    (*column.type_() == Type::UNKNOWN && modifier != -1).then(|| modifier.cast_unsigned())
}

impl Link {
    /// Asks for the types of columns that are not known yet.
    pub(crate) async fn learn_types(&self, columns: &[Column], deadline: Deadline) -> Result<()> {
        let types = self.connector.types();
        let numbers = columns.iter().filter_map(|column| types.of(column).err());
        self.ask_for_types(numbers.collect(), deadline).await
    }

    /// Asks for the types that an earlier result could not wait for.
    pub(crate) async fn learn_wanted_types(&self, deadline: Deadline) -> Result<()> {
        let wanted = self.connector.types().take_wanted();
        self.ask_for_types(wanted, deadline).await
    }

    async fn ask_for_types(&self, numbers: Vec<u32>, deadline: Deadline) -> Result<()> {
        if numbers.is_empty() {
            return Ok(());
        }
        let leg = self.leg(self.preparing());
        let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&numbers, Type::OID_ARRAY)];
        let request = self.client.query_typed(TYPES, &parameters);
        let rows = self.answer(leg, deadline, request).await?;
        let described = rows.iter().map(|row| {
            let kind = match row.try_get(3)? {
                true => TypeKind::Enum(Vec::new()),
                false => TypeKind::Simple,
            };
            Ok(Type::new(
                row.try_get(1)?,
                row.try_get(0)?,
                kind,
                row.try_get(2)?,
            ))
        });
        let described: Result<Vec<Type>, tokio_postgres::Error> = described.collect();
        let described = described.map_err(|error| self.judge(leg, error))?;
        // A type that is gone by now has no value either way.
        let gone = numbers
            .into_iter()
            .filter(|number| described.iter().all(|found| found.oid() != *number))
            .map(|number| {
                let name = format!("number {number}");
                Type::new(name, number, TypeKind::Simple, String::new())
            });
        let gone: Vec<Type> = gone.collect();
        self.connector
            .types()
            .keep(described.into_iter().chain(gone));
        Ok(())
    }

    /// The error of a result that is read piece by piece and has types that nobody has asked for yet.
    /// It is asked before the result is opened again.
    pub(crate) fn unlearned(&self, numbers: &[u32], phase: Phase) -> Error {
        self.connector.types().want(numbers);
        let class = match phase {
            Phase::Read => Class::ReadLost,
            Phase::Transaction => Class::RolledBack,
            // It has run and committed.
            _ => Class::Permanent,
        };
        let message = "a column has a type that was not known before";
        Report::new(Kind::Decode, message)
            .class(class)
            .evidence(Evidence::Answered)
            .remedy("read it again, or cast the column in the statement, for instance to text")
            .into()
    }
}
