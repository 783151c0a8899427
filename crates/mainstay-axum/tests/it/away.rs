//! A database that cannot be reached: it refuses, or it never answers.

use mainstay::backend::{
    Backend, BoxFuture, Connection, Info, Lane, Layout, MigrationDialect, Presumption, Progress,
};
use mainstay::config::{Config, Host, PostgresTarget, Target};
use mainstay::{Backup, Database, Deadline, Error, Kind, Result, System};
use mainstay_core::error::Report;
use std::path::Path;
use std::sync::Arc;

/// Part of every message of this backend; no client may ever read it.
pub(crate) const SECRET: &str = "db-7.internal";

#[derive(Debug)]
pub(crate) enum Away {
    Refuses,
    Silent,
}

impl Away {
    /// The system says PostgreSQL, so that there is a breaker.
    pub(crate) fn database(self) -> Database {
        let host = Host::Tcp {
            host: SECRET.into(),
            port: 1,
        };
        let config = Config::new(Target::Postgres(PostgresTarget::new(host, "u", "d")));
        Database::with_backend(config, Arc::new(self))
    }
}

fn away() -> Error {
    Report::new(Kind::Unreachable, format!("refused by {SECRET}")).into()
}

impl Backend for Away {
    fn system(&self) -> System {
        System::Postgres
    }

    fn target(&self) -> &str {
        SECRET
    }

    fn layout(&self) -> Layout {
        Layout::Shared { limit: 2 }
    }

    fn connect(&self, _: Lane, _: Deadline) -> BoxFuture<'_, Result<Arc<dyn Connection>>> {
        Box::pin(async {
            match self {
                Self::Refuses => Err(away()),
                Self::Silent => std::future::pending().await,
            }
        })
    }

    fn presume(&self, _: &str) -> Presumption {
        Presumption::Unknown
    }

    fn route<'a>(
        &'a self,
        _: &'a dyn Connection,
        _: &'a Arc<str>,
        _: Deadline,
    ) -> BoxFuture<'a, Result<Lane>> {
        Box::pin(async { Ok(Lane::Read) })
    }

    fn is_permanent(&self, _: &Error) -> bool {
        false
    }

    fn info<'a>(&'a self, _: &'a dyn Connection, _: Deadline) -> BoxFuture<'a, Result<Info>> {
        Box::pin(async { Err(away()) })
    }

    fn migrations(&self) -> &'static MigrationDialect {
        &MigrationDialect {
            create_history: "",
            history_exists: "",
            lock: None,
        }
    }

    fn create(&self, _: Deadline) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async { Err(away()) })
    }

    fn erase<'a>(&'a self, _: &'a dyn Connection, _: Deadline) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Err(away()) })
    }

    fn backup<'a>(&'a self, _: &'a Path, _: Progress<'a>) -> BoxFuture<'a, Result<Backup>> {
        Box::pin(async { Err(away()) })
    }
}
