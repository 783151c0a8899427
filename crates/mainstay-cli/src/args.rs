//! The command line, as typed.

use crate::exit::Exit;
use clap::{ArgAction, Args as Group, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

const EXAMPLES: &str = "Examples:
  mainstay --url file:./dev.db init       make the database and a first migration
  mainstay deploy                         apply what is pending, as DATABASE_URL says
  mainstay status --json                  the same facts for a machine
  mainstay backup nightly.db --force      a consistent copy while the database is in use";

/// Look after a database: the schema's migrations, its health, its backups. The same commands on
/// SQLite and PostgreSQL; the URL decides.
#[derive(Debug, Parser)]
#[command(
    name = "mainstay",
    version,
    arg_required_else_help = true,
    after_help = format!("{EXAMPLES}\n\n{}", Exit::table())
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Debug, Group)]
pub(crate) struct Global {
    /// The database: file:./dev.db, postgres://user@host/app. DB_* variables are respected too
    ///
    /// A password is better kept in the variable: other users of the machine can read a program's
    /// arguments.
    #[arg(
        long,
        global = true,
        env = "DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(crate) url: Option<String>,

    /// The directory of the migrations (NNNN_name.sql) and the seed
    #[arg(
        long,
        global = true,
        env = "MAINSTAY_MIGRATIONS",
        default_value = "./migrations",
        value_name = "DIR"
    )]
    pub(crate) migrations: PathBuf,

    /// One JSON document on standard output, for errors too
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Only errors; the exit code says the rest
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// The causes of errors and what happens meanwhile, on standard error; twice for more
    #[arg(long, short, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// How much `status` is to find out.
#[derive(Debug, Group)]
pub(crate) struct Status {
    /// Count the rows of every table instead of taking the server's estimates; takes time on large ones
    #[arg(long)]
    pub(crate) exact: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Open the database, ask it, and tell what answered
    #[command(after_help = "Nothing is created and nothing is changed.
Exit code 0 when the database answers, 1 when it does not.")]
    Check,

    /// Create the database if it is missing, mainstay's own tables, and a first migration file
    #[command(after_help = "What is there already stays as it is, so it may be repeated.")]
    Init,

    /// Tell about the server, its tables and the migrations
    #[command(
        after_help = "Exit code 0 when the schema is up to date, 1 when migrations are \
pending, 2 when one failed or was changed after it was applied.
Migrations that were applied and have no file here are listed; they do not change the exit code."
    )]
    Status(Status),

    /// Apply the migrations that are pending, in order
    #[command(
        after_help = "Each migration is committed together with its record. Processes that \
deploy at the same time wait for each other. A database that is missing is created."
    )]
    Deploy,

    /// Remove everything from the database, then migrate and seed it
    #[command(
        after_help = "Asks for the database's name first. Without a terminal it refuses, \
unless --force is given.
Exit code 130 when declined."
    )]
    Reset(Reset),

    /// Run the seed in one transaction
    #[command(
        after_help = "Without --file it is seed.sqlite.sql or seed.postgres.sql in the \
directory of the migrations, else seed.sql."
    )]
    Seed(Seed),

    /// Write a consistent copy of the database to a file, while it is in use
    #[command(
        after_help = "PostgreSQL: pg_dump's custom format, for pg_restore. SQLite: a \
database file."
    )]
    Backup(Backup),
}

#[derive(Debug, Group)]
pub(crate) struct Reset {
    /// Do not ask
    #[arg(long)]
    pub(crate) force: bool,
    /// Leave the database empty but for its schema
    #[arg(long)]
    pub(crate) skip_seed: bool,
}

#[derive(Debug, Group)]
pub(crate) struct Seed {
    /// The seed's SQL
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Group)]
pub(crate) struct Backup {
    /// Where to
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Replace the file if there is one; it stays until the new copy is complete
    #[arg(long)]
    pub(crate) force: bool,
}

/// Whether a machine listens, told before the arguments are understood, so that it learns in its own
/// language that they were not.
pub(crate) fn wants_json(arguments: &[OsString]) -> bool {
    arguments
        .iter()
        .skip(1)
        .take_while(|argument| *argument != "--")
        .any(|one| one == "--json")
}

/// What clap has to say, without the URLs in it: `mainstay check postgres://app:secret@…` is a
/// mistake that is easily made, and the answer must not repeat the password.
pub(crate) fn redacted(text: &str, arguments: &[OsString]) -> String {
    let mut text = text.to_owned();
    for argument in arguments
        .iter()
        .skip(1)
        .map(|argument| argument.to_string_lossy())
    {
        // A value may be glued to its option: `--uri=postgres://…`.
        let value = match argument.split_once('=') {
            Some((option, value)) if option.starts_with('-') => value,
            _ => &argument,
        };
        if let Some((scheme, rest)) = value.split_once(':')
            && !rest.is_empty()
        {
            text = text.replace(value, &format!("{scheme}:…"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_explains_itself() {
        for command in Args::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            assert!(command.get_after_help().is_some(), "{}", command.get_name());
        }
    }

    #[test]
    fn a_url_in_the_wrong_place_is_not_repeated() {
        let wrong = [
            "mainstay check postgres://app:hunter2@db/app",
            "mainstay check --uri=postgres://app:hunter2@db/app",
            "mainstay postgres://app:hunter2@db/app",
            "mainstay --url postgres://app:hunter2@db/app --url postgres://app:hunter2@db/app check",
        ];
        for line in wrong {
            let arguments = words(line);
            let error = Args::try_parse_from(&arguments).unwrap_err();
            let shown = redacted(&error.to_string(), &arguments);
            assert!(!shown.contains("hunter2"), "{line}: {shown}");
        }
    }

    #[test]
    fn json_is_recognised_before_the_rest_is_understood() {
        assert!(wants_json(&words("mainstay chekc --json")));
        assert!(!wants_json(&words("mainstay backup -- --json")));
    }
}
