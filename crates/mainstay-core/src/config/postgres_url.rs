//! The part of a PostgreSQL URL before the parameters: login, hosts, database.

use super::draft::Draft;
use super::url::decode;
use super::{Config, Host, PostgresTarget, Secret, Target, refusal};
use crate::Result;
use crate::error::Error;
use std::net::Ipv6Addr;

/// More hosts than any cluster has; each costs an attempt to connect.
const MOST_HOSTS: usize = 32;
const DEFAULT_PORT: u16 = 5432;

/// How to write what has a meaning of its own inside a URL.
const ENCODE: &str = "percent-encode reserved characters in user and password: `@` is %40, `/` \
                      %2F, `:` %3A, `?` %3F, `#` %23, `%` %25";

/// The hosts that stand before the path, as they were written.
#[derive(Debug, Default)]
pub(super) struct Authority {
    addresses: Vec<Address>,
    /// There was nothing at all before the path: `postgres:///database`.
    is_blank: bool,
}

#[derive(Debug, Default)]
struct Address {
    name: String,
    port: Option<u16>,
}

/// Reads what stands between `postgres://` and the parameters.
pub(super) fn draft(body: &str, query: &str) -> Result<Draft> {
    let (authority, path) = body.split_once('/').unwrap_or((body, ""));
    let (login, list) = authority.rsplit_once('@').unwrap_or(("", authority));
    // Each of these is a reserved character of a password that ended the password too early. Other
    // programs would read them one way or the other; a wrong guess shows half of the password.
    let is_torn = path.contains('@') || query.contains('@') || login.contains('@');
    if is_torn || body.contains('#') || query.contains('#') {
        return Err(refusal("the URL has an `@` or `#` where none can be")
            .remedy(ENCODE)
            .into());
    }
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let user = or_postgres(decode(user, "the user")?);
    let password = decode(password, "the password")?;
    if path.contains('/') {
        return Err(refusal("the database name contains a `/`")
            .remedy("percent-encode it as %2F, or leave out what follows the name")
            .into());
    }
    let database = or_postgres(decode(path, "the database name")?);
    let mut target = PostgresTarget::new(tcp("localhost", DEFAULT_PORT), user, database);
    target.password = Some(password)
        .filter(|text| !text.is_empty())
        .map(Secret::new);
    let mut draft = Draft::new(Config::new(Target::Postgres(target)));
    draft.authority = Authority {
        addresses: list.split(',').map(address).collect::<Result<_>>()?,
        is_blank: authority.is_empty(),
    };
    Ok(draft)
}

/// Prisma's default for the database, and the name of the role that every server has.
fn or_postgres(text: String) -> String {
    if text.is_empty() {
        "postgres".to_owned()
    } else {
        text
    }
}

fn address(text: &str) -> Result<Address> {
    if let Some(rest) = text.strip_prefix('[') {
        let Some((name, port)) = rest.split_once(']') else {
            return Err(refusal("the `[` of an IPv6 address is not closed").into());
        };
        let port = match port.strip_prefix(':') {
            Some(port) => Some(self::port(port)?),
            None if port.is_empty() => None,
            None => return Err(refusal("a port begins with `:` after the `]`").into()),
        };
        let name = decode(name, "the host")?;
        return if is_ipv6(&name) {
            Ok(Address { name, port })
        } else {
            Err(bad_host())
        };
    }
    let (name, port) = match text.split_once(':') {
        Some((_, port)) if port.contains(':') => {
            return Err(refusal("a host has more than one `:`")
                .remedy(format!(
                    "put an IPv6 address in brackets, [::1]:5432; {ENCODE}"
                ))
                .into());
        }
        Some((name, port)) => (name, Some(self::port(port)?)),
        None => (text, None),
    };
    Ok(Address {
        name: decode(name, "the host")?,
        port,
    })
}

fn port(text: &str) -> Result<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|port| is_plain && *port > 0)
        .ok_or_else(|| {
            // It may be a password whose `@` is missing: never repeated.
            refusal("the port must be a number from 1 to 65535")
                .remedy(format!("a login ends with `@` before the host; {ENCODE}"))
                .into()
        })
}

/// The hosts, once `host=` and `port=` are known.
pub(super) fn hosts(
    authority: Authority,
    names: Option<&str>,
    port: Option<u16>,
) -> Result<Vec<Host>> {
    let is_blank = authority.is_blank;
    let mut addresses = match names {
        Some(names) => renamed(&authority.addresses, names)?,
        None => authority.addresses,
    };
    if addresses.len() > MOST_HOSTS {
        return Err(refusal(format!("there are more than {MOST_HOSTS} hosts")).into());
    }
    if port.is_some() && addresses.iter().any(|address| address.port.is_some()) {
        return Err(
            refusal("the port is given twice, next to the host and as port=")
                .remedy("leave one of them out")
                .into(),
        );
    }
    if let [only] = addresses.as_mut_slice()
        && is_blank
        && only.name.is_empty()
    {
        // As Prisma and libpq read it.
        "localhost".clone_into(&mut only.name);
    }
    addresses
        .into_iter()
        .map(|address| host(address.name, address.port.or(port).unwrap_or(DEFAULT_PORT)))
        .collect()
}

/// Replaces the names by those of `host=`; ports next to the old names stay, one for each or one
/// for all.
fn renamed(old: &[Address], names: &str) -> Result<Vec<Address>> {
    let names: Vec<&str> = names.split(',').collect();
    let ports: Vec<Option<u16>> = match old {
        [only] => vec![only.port; names.len()],
        several if several.len() == names.len() => several.iter().map(|a| a.port).collect(),
        _ => {
            return Err(refusal("host= lists another number of hosts than the URL")
                .remedy("list the hosts in one place only")
                .into());
        }
    };
    let bare = |name: &str| {
        name.trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned()
    };
    Ok(names
        .into_iter()
        .map(bare)
        .zip(ports)
        .map(|(name, port)| Address { name, port })
        .collect())
}

fn host(name: String, port: u16) -> Result<Host> {
    if name.is_empty() {
        return Err(refusal("the host is missing")
            .remedy(
                "write it after the `@` as in postgres://user@localhost/database, or name it with \
                 host=",
            )
            .into());
    }
    if name.starts_with('/') {
        return Ok(Host::Unix {
            directory: name.into(),
            port,
        });
    }
    let is_name = name
        .chars()
        .all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if is_name || is_ipv6(&name) {
        Ok(tcp(&name, port))
    } else {
        Err(bad_host())
    }
}

fn tcp(name: &str, port: u16) -> Host {
    Host::Tcp {
        host: name.to_owned(),
        port,
    }
}

fn is_ipv6(name: &str) -> bool {
    let (address, zone) = name.split_once('%').unwrap_or((name, "0"));
    address.parse::<Ipv6Addr>().is_ok()
        && !zone.is_empty()
        && zone
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn bad_host() -> Error {
    refusal("a host is neither a name nor an address")
        .remedy(format!(
            "a name has letters, digits, `-`, `_` and `.`; {ENCODE}"
        ))
        .into()
}
