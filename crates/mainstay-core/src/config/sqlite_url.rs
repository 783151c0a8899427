//! The part of a SQLite URL before the parameters: a path, or memory, or nothing, which only a
//! temporary database may have.

use super::draft::Draft;
use super::url::decode;
use super::{Config, SqlitePath, SqliteTarget, Target, refusal};
use crate::Result;

const MEMORY: &str = ":memory:";

/// `file:`, as RFC 8089 and Prisma have it: `file:dev.db`, `file:/abs`, `file:///abs`.
pub(super) fn file(body: &str) -> Result<Draft> {
    let Some(rest) = body.strip_prefix("//") else {
        return draft(body);
    };
    if rest == MEMORY || rest.is_empty() {
        return draft(rest);
    }
    // Between `//` and the next `/` stands a machine's name, so `file://dev.db` names no file.
    match rest.find('/').map(|slash| rest.split_at(slash)) {
        Some(("" | "localhost", path)) => draft(path),
        _ => Err(
            refusal("what follows file:// is read as the name of a machine")
                .remedy("write file:./dev.db for a relative path, file:/data/dev.db if absolute")
                .into(),
        ),
    }
}

/// `sqlite:`, as sqlx and others have it: `sqlite:dev.db`, `sqlite://dev.db`, `sqlite:///abs`.
pub(super) fn sqlite(body: &str) -> Result<Draft> {
    draft(body.strip_prefix("//").unwrap_or(body))
}

fn draft(path: &str) -> Result<Draft> {
    let path = decode(path, "the path")?;
    if path.ends_with('/') {
        return Err(refusal("the URL names a directory, not a file")
            .remedy("add the file's name, for example file:./data/dev.db")
            .into());
    }
    let path = if path == MEMORY {
        SqlitePath::Memory
    } else {
        SqlitePath::File(path.into())
    };
    Ok(Draft::new(Config::new(Target::Sqlite(SqliteTarget::new(
        path,
    )))))
}

/// Where the database is, once the parameters have been read.
pub(super) fn settle(path: &SqlitePath, is_temporary: bool) -> Result<SqlitePath> {
    let is_empty = matches!(path, SqlitePath::File(path) if path.as_os_str().is_empty());
    match (is_empty, is_temporary) {
        (true, true) => Ok(SqlitePath::Temporary),
        (false, false) => Ok(path.clone()),
        (true, false) => Err(refusal("the URL names no file")
            .remedy("for example file:./dev.db")
            .into()),
        (false, true) => Err(refusal("a temporary database has no path")
            .remedy("write file:?temp, or leave temp out to keep the file")
            .into()),
    }
}
