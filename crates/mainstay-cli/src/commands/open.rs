//! Opening for the time of one command. A command that only looks must not create the file that it
//! looks for, and one that deploys may meet a server on which the database does not exist yet.

use crate::failure::{Failure, Result};
use crate::interrupt::interruptible;
use crate::plan::Plan;
use mainstay::{Builder, Database};
use std::time::Duration;

/// How long the work of one command may take: a backup or an index takes hours, and somebody who has
/// waited long enough presses Ctrl-C.
pub(crate) const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the end is waited for. Nothing runs any more by then.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// PostgreSQL's "database does not exist".
const UNKNOWN_DATABASE: &str = "3D000";

/// Works on a database that must be there.
pub(crate) async fn with_existing<T>(
    plan: &Plan,
    work: impl AsyncFnOnce(&Database) -> Result<T>,
) -> Result<T> {
    if let Some(file) = plan.file()
        && !file.try_exists().unwrap_or(true)
    {
        let message = format!("there is no database file {}", file.display());
        return Err(Failure::no_database(message));
    }
    let db = open(Builder::from_config(plan.config.clone())).await?;
    let done = interruptible(work(&db)).await;
    finish(&db, done).await
}

/// Works on a database that is created if it is not there; the work is told whether it was.
pub(crate) async fn with_created<T>(
    plan: &Plan,
    work: impl AsyncFnOnce(&Database, bool) -> Result<T>,
) -> Result<T> {
    let builder = Builder::from_config(plan.config.clone());
    let new_file = plan
        .file()
        .is_some_and(|file| !file.try_exists().unwrap_or(true));
    let (db, created) = match open(builder.clone()).await {
        Ok(db) => (db, new_file),
        Err(failure) if failure.sqlstate.as_deref() == Some(UNKNOWN_DATABASE) => {
            let absent = builder.clone().open_lazy()?;
            let created = interruptible(async { Ok(absent.create().await?) }).await;
            let created = finish(&absent, created).await?;
            (open(builder).await?, created)
        }
        Err(failure) => return Err(failure),
    };
    let done = interruptible(work(&db, created)).await;
    finish(&db, done).await
}

async fn open(builder: Builder) -> Result<Database> {
    interruptible(async { Ok(builder.open().await?) }).await
}

/// Closes, whatever came out of the work. What was interrupted is cancelled on the server, too.
async fn finish<T>(db: &Database, result: Result<T>) -> Result<T> {
    db.close_within(CLOSE_GRACE).await;
    result
}
