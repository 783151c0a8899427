//! The table of all parameters. Pool first, then limits in time, then what happens on failure, then
//! what only one of the databases has (SQLite's in `sqlite_table`).

use super::check::MOST_CONNECTIONS;
use super::draft::{Accept, Draft};
use super::duration::Unit;
use super::form::{Form, Time};
use super::parameters::{Applies, Parameter};
use super::{ChannelBinding, SslMode, Target, hosts_table, sqlite_table, tcp_table};
use crate::backend::Isolation;
use std::time::Duration;

/// All parameters that a URL may have.
pub static PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "connection_limit",
        applies: Applies::Both,
        form: Form::Count {
            least: 1,
            most: MOST_CONNECTIONS,
            example: "20",
            set: |draft, count| draft.config.connection_limit = count as usize,
        },
        default: "cores × 2 + 1",
        environment: Some("DB_CONNECTION_LIMIT"),
        meaning: "most connections open at once, both lanes and all hosts together",
        reason: "Prisma's formula: two statements in flight a core keep it busy while others wait \
            for the disk",
    },
    Parameter {
        name: "min_connections",
        applies: Applies::Both,
        form: Form::Count {
            least: 0,
            most: MOST_CONNECTIONS,
            example: "2",
            set: |draft, count| draft.config.min_connections = count as usize,
        },
        default: "0",
        environment: Some("DB_MIN_CONNECTIONS"),
        meaning: "connections kept open even when idle",
        reason: "opening on demand keeps a fleet of idle services from filling the server",
    },
    Parameter {
        name: "max_waiters",
        applies: Applies::Both,
        form: Form::Count {
            least: 1,
            most: 1_000_000,
            example: "1000",
            set: |draft, count| draft.config.max_waiters = count as usize,
        },
        default: "10000",
        environment: Some("DB_MAX_WAITERS"),
        meaning: "most callers that wait for a connection at once; the next one is refused",
        reason: "bounds memory; with 10 connections and 10 ms each it is ten seconds of work",
    },
    Parameter {
        name: "pool_timeout",
        applies: Applies::Both,
        form: Form::Time(Time {
            zero: Some("until the call's own deadline"),
            variable: Unit::Seconds,
            most_bare: None,
            example: "10s",
            set: |draft, time| draft.config.pool_timeout = unless_zero(time),
        }),
        default: "10s",
        environment: Some("DB_POOL_TIMEOUT"),
        meaning: "how long a call waits for a connection",
        reason: "Prisma's; long enough for a burst, short enough that a browser is still there",
    },
    Parameter {
        name: "connect_timeout",
        applies: Applies::Both,
        form: Form::Time(Time {
            zero: Some("as long as `timeout`"),
            variable: Unit::Seconds,
            most_bare: None,
            example: "5s",
            set: |draft, time| draft.config.connect_timeout = time,
        }),
        default: "5s",
        environment: Some("DB_CONNECT_TIMEOUT"),
        meaning: "how long one attempt to open a connection may take, name lookup and login \
            included",
        reason: "Prisma's; three SYNs fit, and a dead host is noticed before the caller gives up",
    },
    Parameter {
        name: "timeout",
        applies: Applies::Both,
        form: Form::Time(Time {
            zero: None,
            variable: Unit::Seconds,
            most_bare: None,
            example: "30s",
            set: |draft, time| draft.config.timeout = time,
        }),
        default: "30s",
        environment: Some("DB_TIMEOUT"),
        meaning: "how long one call may take as a whole: waiting, connecting, executing, retrying",
        reason: "the usual patience of load balancers and browsers",
    },
    Parameter {
        name: "socket_timeout",
        applies: Applies::Both,
        form: Form::Time(Time {
            zero: None,
            variable: Unit::Seconds,
            most_bare: None,
            example: "30s",
            set: set_socket_timeout,
        }),
        default: "-",
        environment: None,
        meaning: "Prisma's name of `timeout` on PostgreSQL and of `busy_timeout` on SQLite",
        reason: "the setting's own name has the default",
    },
    Parameter {
        name: "statement_timeout",
        applies: Applies::Postgres,
        form: Form::Time(Time {
            zero: Some("no limit"),
            variable: Unit::Milliseconds,
            most_bare: Some(Duration::from_secs(999)),
            example: "30s",
            set: |draft, time| draft.config.statement_timeout = unless_zero(time),
        }),
        default: "0",
        environment: Some("DB_STATEMENT_TIMEOUT"),
        meaning: "how long the server lets one statement run; a bare number above 999 in the URL \
            is refused because PostgreSQL's own setting counts milliseconds",
        reason: "the call's own deadline cancels; a limit on the server is the operator's choice",
    },
    Parameter {
        name: "max_connection_lifetime",
        applies: Applies::Both,
        form: Form::Time(Time {
            zero: Some("for ever"),
            variable: Unit::Seconds,
            most_bare: None,
            example: "30m",
            set: |draft, time| draft.config.max_connection_lifetime = unless_zero(time),
        }),
        default: "30m",
        environment: Some("DB_MAX_CONNECTION_LIFETIME"),
        meaning: "a connection is replaced after this long, ± 25 %",
        reason: "below the usual limits of firewalls and proxies, and memory that a backend hoards \
            is given back; Prisma has no limit",
    },
    Parameter {
        name: "max_idle_connection_lifetime",
        applies: Applies::Both,
        form: Form::Time(Time {
            zero: Some("for ever"),
            variable: Unit::Seconds,
            most_bare: None,
            example: "5m",
            set: |draft, time| draft.config.max_idle_connection_lifetime = unless_zero(time),
        }),
        default: "5m",
        environment: Some("DB_MAX_IDLE_CONNECTION_LIFETIME"),
        meaning: "a connection above the minimum is closed after this long without use",
        reason: "Prisma's",
    },
    Parameter {
        name: "close_grace",
        applies: Applies::Both,
        form: Form::Time(Time {
            zero: Some("cancel at once"),
            variable: Unit::Seconds,
            most_bare: None,
            example: "20s",
            set: |draft, time| draft.config.close_grace = time,
        }),
        default: "20s",
        environment: Some("DB_CLOSE_GRACE"),
        meaning: "how long closing waits for leases before it cancels what runs",
        reason: "Kubernetes gives a process 30 s; a third is left for everything else it has to \
            end",
    },
    Parameter {
        name: "shed_after",
        applies: Applies::Both,
        form: Form::Time(Time {
            zero: Some("never"),
            variable: Unit::Milliseconds,
            most_bare: None,
            example: "100ms",
            set: |draft, time| draft.config.shed_after = unless_zero(time),
        }),
        default: "0",
        environment: Some("DB_SHED_AFTER"),
        meaning: "when everybody has waited longer than this for a connection, for a second, those who \
            have waited twice as long are refused; 100ms is a good value for a service under load",
        reason: "never: `pool_timeout` says how long one is willing to wait",
    },
    Parameter {
        name: "slow_statement",
        applies: Applies::Both,
        form: Form::Time(Time {
            zero: Some("never"),
            variable: Unit::Milliseconds,
            most_bare: None,
            example: "500ms",
            set: |draft, time| draft.config.slow_statement = unless_zero(time),
        }),
        default: "1s",
        environment: Some("DB_SLOW_STATEMENT"),
        meaning: "a statement that takes longer is logged, without its parameters",
        reason: "a person notices a second",
    },
    Parameter {
        name: "long_hold",
        applies: Applies::Both,
        form: Form::Time(Time {
            zero: Some("never"),
            variable: Unit::Seconds,
            most_bare: None,
            example: "30s",
            set: |draft, time| draft.config.long_hold = unless_zero(time),
        }),
        default: "30s",
        environment: Some("DB_LONG_HOLD"),
        meaning: "a lease held longer is logged with its call site",
        reason: "longer than any request should hold a connection",
    },
    Parameter {
        name: "ride_through",
        applies: Applies::Both,
        form: Form::Time(Time {
            zero: Some("off"),
            variable: Unit::Seconds,
            most_bare: None,
            example: "2s",
            set: |draft, time| draft.config.ride_through = time,
        }),
        default: "2s",
        environment: Some("DB_RIDE_THROUGH"),
        meaning: "an outage up to this long is waited out within the call's deadline",
        reason: "a restart of a small server and most failovers of a proxy are done by then",
    },
    Parameter {
        name: "retry_max",
        applies: Applies::Both,
        form: Form::Count {
            least: 0,
            most: 1000,
            example: "3",
            set: |draft, count| draft.config.retry_max = count,
        },
        default: "3",
        environment: Some("DB_RETRY_MAX"),
        meaning: "how often a failed call is tried again at most; 0 = never",
        reason: "three repetitions ride out a failover's first seconds; the budget bounds the sum",
    },
    Parameter {
        name: "retry_base",
        applies: Applies::Both,
        form: Form::Time(Time {
            zero: Some("no delay"),
            variable: Unit::Milliseconds,
            most_bare: Some(Duration::from_secs(9)),
            example: "50ms",
            set: |draft, time| draft.config.retry_base = time,
        }),
        default: "50ms",
        environment: Some("DB_RETRY_BASE"),
        meaning: "first delay before a repetition, doubled each time, with full jitter; a bare \
            number above 9 in the URL is refused because it was meant as milliseconds",
        reason: "longer than a round trip, shorter than anybody notices",
    },
    Parameter {
        name: "isolation",
        applies: Applies::Both,
        form: Form::Word {
            choices: &[
                ("read_committed", |draft| {
                    draft.config.isolation = Some(Isolation::ReadCommitted)
                }),
                ("repeatable_read", |draft| {
                    draft.config.isolation = Some(Isolation::RepeatableRead);
                }),
                ("serializable", |draft| {
                    draft.config.isolation = Some(Isolation::Serializable)
                }),
            ],
        },
        default: "-",
        environment: Some("DB_ISOLATION"),
        meaning: "isolation of transactions that do not say otherwise; SQLite's writers are serial \
            in any case",
        reason: "the database's own: under SERIALIZABLE a hot row turns waiting into reruns",
    },
    Parameter {
        name: "statement_cache_size",
        applies: Applies::Both,
        form: Form::Count {
            least: 0,
            most: 100_000,
            example: "100",
            set: |draft, count| draft.config.statement_cache_size = count as usize,
        },
        default: "100",
        environment: Some("DB_STATEMENT_CACHE_SIZE"),
        meaning: "prepared statements kept for each connection",
        reason: "Prisma's; an application rarely has more distinct texts in its hot paths",
    },
    Parameter {
        name: "strict_rows",
        applies: Applies::Both,
        form: Form::Flag {
            set: |draft, strict| draft.config.strict_rows = strict,
        },
        default: "false",
        environment: Some("DB_STRICT_ROWS"),
        meaning: "whether a missing column for an optional field is an error instead of a warning",
        reason: "a view that lags behind a deployment should not stop the service",
    },
    Parameter {
        name: "schema",
        applies: Applies::Postgres,
        form: Form::Text {
            what: "name",
            example: "app",
            set: |draft, text| draft.on_postgres(|target| target.schema = Some(text)),
        },
        default: "-",
        environment: None,
        meaning: "the schema that is searched first",
        reason: "the role's own search path, which starts with `public` unless it was changed",
    },
    Parameter {
        name: "host",
        applies: Applies::Postgres,
        form: Form::Text {
            what: "names or socket directories, separated by commas",
            example: "/var/run/postgresql",
            set: |draft, text| draft.host = Some(text),
        },
        default: "-",
        environment: None,
        meaning: "replaces the hosts before the path; a name that begins with `/` is the directory \
            of a Unix socket",
        reason: "the URL's own hosts, and `localhost` if it names none",
    },
    Parameter {
        name: "port",
        applies: Applies::Postgres,
        form: Form::Count {
            least: 1,
            most: 65_535,
            example: "5432",
            set: |draft, port| draft.port = u16::try_from(port).ok(),
        },
        default: "5432",
        environment: None,
        meaning: "port of all hosts, where the URL gives none next to them",
        reason: "PostgreSQL's",
    },
    Parameter {
        name: "application_name",
        applies: Applies::Postgres,
        form: Form::Text {
            what: "text",
            example: "shop",
            set: |draft, text| draft.on_postgres(|target| target.application_name = Some(text)),
        },
        default: "-",
        environment: None,
        meaning: "what the server shows for our sessions, in `pg_stat_activity` and its log",
        reason: "only the operator knows a good name",
    },
    Parameter {
        name: "options",
        applies: Applies::Postgres,
        form: Form::Text {
            what: "text, spaces as `%20`",
            example: "-c%20work_mem=64MB",
            set: |draft, text| draft.on_postgres(|target| target.options = Some(text)),
        },
        default: "-",
        environment: None,
        meaning: "libpq's `options` for the start of a session",
        reason: "the server's own settings",
    },
    Parameter {
        name: "pgbouncer",
        applies: Applies::Postgres,
        form: Form::Flag {
            set: |draft, pooled| draft.on_postgres(|target| target.pgbouncer = pooled),
        },
        default: "false",
        environment: None,
        meaning: "whether a pooler in transaction mode stands between; nothing of the session is \
            relied on then",
        reason: "a direct connection can do more and is the usual case",
    },
    hosts_table::SESSION_ATTRS,
    hosts_table::READ_FROM,
    hosts_table::MAX_REPLICA_LAG,
    Parameter {
        name: "channel_binding",
        applies: Applies::Postgres,
        form: Form::Word {
            choices: &[
                ("disable", |draft| {
                    bind_channel(draft, ChannelBinding::Disable)
                }),
                ("prefer", |draft| {
                    bind_channel(draft, ChannelBinding::Prefer)
                }),
                ("require", |draft| {
                    bind_channel(draft, ChannelBinding::Require)
                }),
            ],
        },
        default: "prefer",
        environment: None,
        meaning: "whether SCRAM binds the login to the TLS channel",
        reason: "libpq's",
    },
    Parameter {
        name: "sslmode",
        applies: Applies::Postgres,
        form: Form::Word {
            choices: &[
                ("disable", |draft| draft.tls.mode = Some(SslMode::Disable)),
                ("allow", |draft| draft.tls.mode = Some(SslMode::Allow)),
                ("prefer", |draft| draft.tls.mode = Some(SslMode::Prefer)),
                ("require", |draft| draft.tls.mode = Some(SslMode::Require)),
                ("verify-ca", |draft| {
                    draft.tls.mode = Some(SslMode::VerifyCa)
                }),
                ("verify-full", |draft| {
                    draft.tls.mode = Some(SslMode::VerifyFull)
                }),
            ],
        },
        default: "prefer",
        environment: None,
        meaning: "how much TLS is demanded, in libpq's words and with libpq's meaning",
        reason: "libpq's; across a network that is not yours, write `verify-full`",
    },
    Parameter {
        name: "sslaccept",
        applies: Applies::Postgres,
        form: Form::Word {
            choices: &[
                ("strict", |draft| draft.tls.accept = Some(Accept::Strict)),
                ("accept_invalid_certs", |draft| {
                    draft.tls.accept = Some(Accept::InvalidCertificates);
                }),
            ],
        },
        default: "-",
        environment: None,
        meaning: "Prisma's word: `strict` is `sslmode=verify-full`, `accept_invalid_certs` checks \
            nothing; next to an `sslmode` that says otherwise it is an error",
        reason: "`sslmode` decides",
    },
    Parameter {
        name: "sslrootcert",
        applies: Applies::Postgres,
        form: Form::Text {
            what: "PEM file, or `system`",
            example: "/etc/ssl/db-ca.pem",
            set: |draft, text| draft.tls.root_cert = Some(text.into()),
        },
        default: "-",
        environment: None,
        meaning: "the authorities that are trusted; `system` means the operating system's and \
            implies `verify-full`",
        reason: "the operating system's, where `sslmode` asks for a check",
    },
    Parameter {
        name: "sslcert",
        applies: Applies::Postgres,
        form: Form::Text {
            what: "PEM file",
            example: "client.pem",
            set: |draft, text| draft.tls.client_cert = Some(text.into()),
        },
        default: "-",
        environment: None,
        meaning: "the client's certificate, as in libpq; needs `sslkey`. Prisma's `sslcert` is \
            `sslrootcert` here",
        reason: "most servers ask for a password",
    },
    Parameter {
        name: "sslkey",
        applies: Applies::Postgres,
        form: Form::Text {
            what: "PEM file",
            example: "client.key",
            set: |draft, text| draft.tls.client_key = Some(text.into()),
        },
        default: "-",
        environment: None,
        meaning: "the private key of `sslcert`",
        reason: "most servers ask for a password",
    },
    Parameter {
        name: "sslidentity",
        applies: Applies::Postgres,
        form: NO_PKCS12,
        default: "-",
        environment: None,
        meaning: "Prisma's PKCS#12 file; convert it to `sslcert` and `sslkey`",
        reason: "PEM is what libpq and the rest of the tools read",
    },
    Parameter {
        name: "sslpassword",
        applies: Applies::Postgres,
        form: NO_PKCS12,
        default: "-",
        environment: None,
        meaning: "password of `sslidentity`",
        reason: "PEM is what libpq and the rest of the tools read",
    },
    tcp_table::KEEPALIVES,
    tcp_table::KEEPALIVES_IDLE,
    tcp_table::KEEPALIVES_INTERVAL,
    tcp_table::KEEPALIVES_COUNT,
    tcp_table::USER_TIMEOUT,
    sqlite_table::DURABILITY,
    sqlite_table::BUSY_TIMEOUT,
    sqlite_table::WRITE_PROBE,
    sqlite_table::NETWORK_FILE_SYSTEM,
    sqlite_table::WAL_LIMIT_MIB,
    sqlite_table::TEMP,
];

const NO_PKCS12: Form = Form::Refused {
    because: "PKCS#12 files are not read",
    instead: "convert the file with `openssl pkcs12 -in id.p12 -clcerts -nokeys -out client.pem` \
              and `openssl pkcs12 -in id.p12 -nocerts -nodes -out client.key`, then write \
              sslcert=client.pem and sslkey=client.key",
};

fn unless_zero(time: Duration) -> Option<Duration> {
    Some(time).filter(|time| !time.is_zero())
}

fn set_socket_timeout(draft: &mut Draft, time: Duration) {
    match &mut draft.config.target {
        Target::Postgres(_) => draft.config.timeout = time,
        Target::Sqlite(target) => target.busy_timeout = time,
    }
}

fn bind_channel(draft: &mut Draft, binding: ChannelBinding) {
    draft.on_postgres(|target| target.channel_binding = binding);
}
