//! Schema migrations: numbered SQL files, applied once, in order, each with its record in one
//! transaction.
//!
//! A migration and the row that says so must be committed together, or the next start finds a table
//! that "does not exist yet". Two processes that start at the same time must not apply the same file
//! twice. And a file that was changed after it was applied must not go unnoticed. The three rules
//! are kept here, on both databases.
//!
//! Files are called `NNNN_name.sql`; a file `NNNN_name.sqlite.sql` or `NNNN_name.postgres.sql` takes
//! the place of the common one on that system.

mod file;
mod history;
mod runner;

pub use file::{Migration, Migrations};
pub use history::{Applied, MigrationStatus};
pub use include_dir;
pub use runner::{Deployed, Deployment};

/// Embeds a directory of migrations into the program: `embed_migrations!("$CARGO_MANIFEST_DIR/migrations")`.
///
/// ```no_run
/// # async fn example(db: &mainstay::Database) -> mainstay::Result<()> {
/// let migrations = mainstay::embed_migrations!("$CARGO_MANIFEST_DIR/tests/migrations");
/// db.migrate(&migrations?).await?;
/// # Ok(()) }
/// ```
#[macro_export]
macro_rules! embed_migrations {
    ($directory:tt) => {{
        use $crate::migrate::include_dir;
        static DIRECTORY: include_dir::Dir<'_> = include_dir::include_dir!($directory);
        $crate::migrate::Migrations::from_embedded(&DIRECTORY)
    }};
}
