//! What the migration runner needs, and making and emptying a database.

use crate::connect::{Connector, Opened};
use crate::flight::Leg;
use crate::session::{Flight, Link, PostgresSession, Style};
use mainstay_core::backend::{Begin, Call, Connection, Lane, MigrationDialect};
use mainstay_core::error::Report;
use mainstay_core::{Deadline, Error, Kind, Result};
use std::sync::Arc;
use tokio_postgres::types::{ToSql, Type};

/// The texts for the migration runner.
pub(crate) static DIALECT: MigrationDialect = MigrationDialect {
    create_history: "create table if not exists _mainstay_migrations (
        version bigint primary key,
        name text not null,
        checksum text not null,
        dialect text not null,
        started_at text not null,
        finished_at text,
        took_ms bigint,
        error text)",
    history_exists: "select pg_catalog.to_regclass('_mainstay_migrations') is not null",
    // Any number will do, if it is always the same; this one is "mainstay" in ASCII.
    lock: Some("select pg_catalog.pg_advisory_xact_lock(7881702205386203513)"),
};

/// Databases that exist on every server, in the order in which they are tried.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];

/// Creates the database if it does not exist; answers whether it did.
pub(crate) async fn create(connector: &Arc<Connector>, deadline: Deadline) -> Result<bool> {
    let wanted = connector.target().database.clone();
    match connector.open(Lane::Write, deadline).await {
        Ok(opened) => {
            adopt(connector, opened).close(deadline).await;
            return Ok(false);
        }
        Err(error) if error.sqlstate() == Some("3D000") => {}
        Err(error) => return Err(error),
    }
    let mut refused: Option<Error> = None;
    for database in MAINTENANCE {
        match connector.open_database(database, deadline).await {
            Ok(opened) => {
                let session = adopt(connector, opened);
                let created = session.link().create_database(&wanted, deadline).await;
                session.close(deadline).await;
                return created;
            }
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.unwrap_or_else(|| Report::new(Kind::Config, "no database to connect to").into()))
}

fn adopt(connector: &Arc<Connector>, opened: Opened) -> PostgresSession {
    let style = Style {
        lanes: false,
        pooled: false,
        demands: false,
        statements: 0,
    };
    PostgresSession::new(opened, Arc::clone(connector), style)
}

/// A name as it stands in SQL.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Link {
    async fn create_database(&self, name: &str, deadline: Deadline) -> Result<bool> {
        // Creating is no transaction: what was sent has happened, or will.
        let leg = self.leg(crate::classify::Phase::Write);
        let text = format!("create database {}", quoted(name));
        match self
            .answer(leg, deadline, self.client.batch_execute(&text))
            .await
        {
            Ok(()) => Ok(true),
            // Somebody else was quicker.
            Err(error) if matches!(error.sqlstate(), Some("42P04" | "23505")) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Drops the application's schema with everything in it, and makes it anew for the same people.
    pub(crate) async fn erase(self: &Arc<Self>, schema: &str, deadline: Deadline) -> Result<()> {
        let call = Call {
            lane: Lane::Write,
            deadline,
        };
        let begin = Begin {
            isolation: None,
            read_only: false,
        };
        self.begin(begin, call).await?;
        let flight = Flight::start(self);
        let erased = self.replace_schema(schema, deadline).await;
        flight.land();
        match erased {
            Ok(()) => self.commit(call).await,
            Err(error) => {
                if let Err(error) = self.roll_back(call).await {
                    tracing::debug!(%error, "a failed erasure could not be rolled back");
                }
                Err(error)
            }
        }
    }

    async fn replace_schema(&self, schema: &str, deadline: Deadline) -> Result<()> {
        let leg = self.leg(self.preparing());
        let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&schema, Type::TEXT)];
        let request = self.client.query_typed(SCHEMA, &parameters);
        let rows = self.answer(leg, deadline, request).await?;
        let mut text = format!(
            "drop schema if exists {0} cascade; create schema {0};",
            quoted(schema)
        );
        for row in &rows {
            // Written by the server, with every name quoted by it.
            let restore: String = self.text_of(leg, row)?;
            text.push_str(&restore);
        }
        self.answer(leg, deadline, self.client.batch_execute(&text))
            .await
    }

    fn text_of(&self, leg: Leg, row: &tokio_postgres::Row) -> Result<String> {
        row.try_get(0).map_err(|error| self.judge(leg, error))
    }
}

/// The statements that give a schema back its owner and its grants.
const SCHEMA: &str = "
select restore from (
    select 1 as turn, pg_catalog.format('alter schema %I owner to %I;', n.nspname,
            pg_catalog.pg_get_userbyid(n.nspowner)) as restore
        from pg_catalog.pg_namespace n
        where n.nspname = $1
            and n.nspowner <> (select oid from pg_catalog.pg_roles where rolname = current_user)
    union all
    select 2, pg_catalog.format('grant %s on schema %I to %s%s;', a.privilege_type, n.nspname,
            case a.grantee when 0 then 'public'
                else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) end,
            case when a.is_grantable then ' with grant option' else '' end)
        from pg_catalog.pg_namespace n
        cross join lateral pg_catalog.aclexplode(n.nspacl) a
        where n.nspname = $1 and a.grantee <> n.nspowner
) as steps
order by turn";
