//! A URL, as far as both databases have the same: scheme, parameters, percent-encoding.
//!
//! What a URL holds is half of a login, so no message repeats a part of it other than a known or
//! plainly written name. Reserved characters that were left unencoded are refused with a hint
//! instead of being read one way by us and another way by the next program.

use super::draft::Draft;
use super::parameters::Parameter;
use super::suggest::nearest;
use super::{Config, postgres_url, refusal, sqlite_url};
use crate::Result;
use crate::error::Report;
use percent_encoding::percent_decode_str;

const EXAMPLES: &str = "write file:./dev.db for SQLite or postgres://user@host/database for \
                        PostgreSQL";

/// The schemes that are understood.
const SCHEMES: [&str; 4] = ["postgres", "postgresql", "file", "sqlite"];

impl Config {
    /// Reads a URL with all its parameters, and nothing else: no environment, no file.
    ///
    /// * `file:./dev.db`, `file:/abs/app.db`, `file:///abs/app.db`, `sqlite:dev.db`,
    ///   `sqlite://dev.db`: a SQLite file; `:memory:`, `file::memory:`, `sqlite::memory:`: memory;
    ///   `file:?temp`, `sqlite://?temp`: a file for as long as it is open.
    /// * `postgres://` or `postgresql://`, then `user:password@`, then `host:port` once or several
    ///   times with commas between, then `/database`. Left out, they are `postgres`, `localhost`,
    ///   5432 and `postgres`. A host that begins with `%2F` is the directory of a Unix socket. An
    ///   authority that has a user or a port but no host is an error unless `host=` names one.
    /// * after `?`, parameters: [`PARAMETERS`](super::PARAMETERS) lists them all. One that is true
    ///   or false is true without a value.
    ///
    /// User, password, database and values are percent-encoded; a `+` is a plus sign.
    ///
    /// ```
    /// use mainstay_core::Config;
    /// use std::time::Duration;
    ///
    /// let config = Config::from_url("postgres://app@db/shop?connection_limit=10&pool_timeout=2")?;
    /// assert_eq!(config.connection_limit, 10);
    /// assert_eq!(config.pool_timeout, Some(Duration::from_secs(2)));
    ///
    /// let error = Config::from_url("file:./shop.db?conection_limit=10").unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "unknown parameter conection_limit; did you mean connection_limit?",
    /// );
    /// # Ok::<(), mainstay_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Kind::Config`](crate::Kind::Config), naming what is wrong and what to write instead, and
    /// never repeating a part of the URL that can be a secret.
    pub fn from_url(url: &str) -> Result<Self> {
        draft(url)?.settle()?.finish()
    }
}

/// Reads a URL and leaves open what is settled at the end.
pub(super) fn draft(url: &str) -> Result<Draft> {
    // Files with secrets end with a line break more often than not.
    let url = url.trim();
    let (scheme, rest) = scheme(url)?;
    // A path may have spaces; in a login or a host they are always a mistake.
    let is_postgres = matches!(scheme, Scheme::Postgres);
    if rest
        .chars()
        .any(|c| c.is_control() || (is_postgres && c.is_whitespace()))
    {
        return Err(refusal("the URL contains a space or a control character")
            .remedy("percent-encode it (a space is %20)")
            .into());
    }
    let (body, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut draft = match scheme {
        Scheme::Postgres => postgres_url::draft(body, query)?,
        Scheme::File => sqlite_url::file(body)?,
        Scheme::Sqlite => sqlite_url::sqlite(body)?,
    };
    if rest.contains('#') {
        return Err(refusal("the URL contains a `#`")
            .remedy("percent-encode it as %23")
            .into());
    }
    for piece in query.split('&').filter(|piece| !piece.is_empty()) {
        parameter(&mut draft, piece)?;
    }
    Ok(draft)
}

#[derive(Copy, Clone, Debug)]
enum Scheme {
    Postgres,
    File,
    Sqlite,
}

fn scheme(url: &str) -> Result<(Scheme, &str)> {
    if url.is_empty() {
        return Err(refusal("the database URL is empty").remedy(EXAMPLES).into());
    }
    if url.starts_with(['"', '\'', '`']) {
        return Err(refusal("the database URL begins with a quotation mark")
            .remedy("leave the quotation marks out")
            .into());
    }
    if url == ":memory:" || url.starts_with(":memory:?") {
        return Ok((Scheme::Sqlite, url));
    }
    let Some((word, rest)) = url.split_once(':') else {
        return Err(without_scheme().into());
    };
    match word.to_ascii_lowercase().as_str() {
        "postgres" | "postgresql" => match rest.strip_prefix("//") {
            Some(rest) => Ok((Scheme::Postgres, rest)),
            None => Err(refusal("`//` is missing after the scheme")
                .remedy(EXAMPLES)
                .into()),
        },
        "file" => Ok((Scheme::File, rest)),
        "sqlite" => Ok((Scheme::Sqlite, rest)),
        // Without the slashes it may be anything, a login included: it is not repeated.
        word if rest.starts_with("//") && is_plain(word) => Err(unsupported(word).into()),
        "jdbc" => Err(unsupported("jdbc").into()),
        _ => Err(without_scheme().into()),
    }
}

fn without_scheme() -> Report {
    refusal("the database URL has no scheme: it looks like a path or a host").remedy(EXAMPLES)
}

fn unsupported(scheme: &str) -> Report {
    if matches!(scheme, "prisma" | "prisma+postgres") {
        return refusal(format!(
            "{scheme}:// leads to a service of Prisma, not to a database"
        ))
        .remedy("use the direct postgres:// URL of the database behind it (Prisma's DIRECT_URL)");
    }
    let report = refusal(format!("the scheme {scheme} is not supported"));
    if scheme == "jdbc" || scheme.starts_with("postgres+") || scheme.starts_with("postgresql+") {
        return report.remedy("write postgres://user@host/database");
    }
    match nearest(scheme, SCHEMES, 3) {
        Some(near) => report.remedy(format!("did you mean {near}?")),
        None => report.remedy("postgres://, postgresql://, file: and sqlite: are"),
    }
}

fn parameter(draft: &mut Draft, piece: &str) -> Result<()> {
    let (name, value) = piece
        .split_once('=')
        .map_or((piece, None), |(n, v)| (n, Some(v)));
    if !is_plain(name) {
        return Err(
            refusal("a parameter's name is not made of letters, digits and `_`")
                .remedy(
                    "write name=value, and `&` between two of them; percent-encode what belongs \
                     to a password",
                )
                .into(),
        );
    }
    let Some(parameter) = Parameter::named(name) else {
        return Err(unknown(name).into());
    };
    // A flag says all there is to say by being there.
    let value = value.or(parameter.form.is_flag().then_some("true"));
    let Some(value) = value else {
        return Err(refusal(format!("the parameter {name} has no value"))
            .remedy(format!("write {name}=…"))
            .into());
    };
    let value = decode(value, name)?;
    draft.set_from_url(parameter, &value)
}

fn unknown(name: &str) -> Report {
    let report = refusal(format!("unknown parameter {name}"));
    match name {
        "user" | "password" | "dbname" => {
            report.remedy("it belongs before the `?`: postgres://user:password@host/database")
        }
        "mode" | "cache" | "vfs" | "immutable" => {
            report.remedy("leave it out: SQLite's own URI parameters are not passed on")
        }
        _ => match Parameter::meant_by(name, 3) {
            Some(known) => report.remedy(format!("did you mean {}?", known.name)),
            None => report.remedy("leave it out: a parameter without effect would be misleading"),
        },
    }
}

/// Whether a word is written plainly enough to be repeated in a message.
fn is_plain(word: &str) -> bool {
    let is_plain_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.+".contains(&byte);
    (1..=64).contains(&word.len()) && word.bytes().all(is_plain_byte)
}

/// Undoes percent-encoding, strictly: what is not well-formed is refused, never passed through.
pub(super) fn decode(text: &str, what: &str) -> Result<String> {
    let is_encoded = text.split('%').skip(1).all(|rest| {
        rest.as_bytes()
            .get(..2)
            .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    let refuse = |why: &str| {
        refusal(format!("the percent-encoding of {what} {why}"))
            .remedy("a percent sign itself is written %25")
    };
    if !is_encoded {
        return Err(refuse("is broken: two hexadecimal digits belong after each `%`").into());
    }
    let text = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| refuse("does not give UTF-8"))?;
    if text.contains('\0') {
        return Err(refusal(format!("{what} contains a NUL character")).into());
    }
    Ok(text.into_owned())
}
