//! What is refused, and in which words.

use crate::{POSTGRES, SQLITE, refusal};

/// Each URL, and what its refusal must say.
#[track_caller]
fn each_is_refused(cases: &[(&str, &[&str])]) {
    for (url, words) in cases {
        let message = refusal(url);
        for word in *words {
            assert!(
                message.contains(word),
                "{url}: `{word}` is missing in: {message}"
            );
        }
        assert!(
            !message.contains("hunter2"),
            "{url}: a secret is shown in: {message}"
        );
    }
}

#[test]
fn what_is_not_a_database_url_names_the_way_out() {
    each_is_refused(&[
        ("", &["empty", "file:./dev.db", "postgres://"]),
        ("  \n", &["empty"]),
        ("\"postgres://localhost/shop\"", &["quotation mark"]),
        ("dev.db", &["no scheme", "file:./dev.db"]),
        ("./dev.db", &["no scheme", "looks like a path"]),
        ("/data/dev.db", &["no scheme"]),
        ("C:\\data\\dev.db", &["no scheme"]),
        (
            "localhost:5432/shop",
            &["no scheme", "postgres://user@host/database"],
        ),
        ("app:hunter2@localhost/shop", &["no scheme"]),
        ("hunter2:x", &["no scheme"]),
        ("://", &["no scheme"]),
        ("postgres:localhost", &["`//` is missing"]),
    ]);
}

#[test]
fn other_schemes_are_refused_by_name() {
    each_is_refused(&[
        (
            "prisma://accelerate.example/?api_key=hunter2",
            &["prisma://", "DIRECT_URL", "postgres://"],
        ),
        (
            "prisma+postgres://accelerate.example/?api_key=hunter2",
            &["prisma+postgres://", "direct"],
        ),
        (
            "mysql://app:hunter2@localhost/shop",
            &["mysql", "not supported", "postgresql://", "sqlite:"],
        ),
        ("mariadb://localhost/shop", &["mariadb", "not supported"]),
        ("mongodb://localhost/shop", &["mongodb", "not supported"]),
        (
            "mongodb+srv://app:hunter2@cluster/shop",
            &["mongodb+srv", "not supported"],
        ),
        (
            "sqlserver://localhost:1433;password=hunter2",
            &["sqlserver", "not supported"],
        ),
        ("redis://:hunter2@localhost", &["redis", "not supported"]),
        (
            "jdbc:postgresql://localhost/shop?password=hunter2",
            &["jdbc", "postgres://"],
        ),
        (
            "postgresql+asyncpg://app:hunter2@localhost/shop",
            &["write postgres://"],
        ),
        (
            "postgress://app:hunter2@localhost/shop",
            &["did you mean postgres?"],
        ),
        ("sqlite3://dev.db", &["did you mean sqlite?"]),
    ]);
}

#[test]
fn a_missing_or_broken_host_is_said_so() {
    each_is_refused(&[
        (
            "postgres://app:hunter2@:5432/shop",
            &["host is missing", "host="],
        ),
        ("postgres://app:hunter2@/shop", &["host is missing"]),
        ("postgres://app@", &["host is missing"]),
        ("postgres://:5432/shop", &["host is missing"]),
        ("postgres://one,,two/shop", &["host is missing"]),
        ("postgres:///shop?host=one,", &["host is missing"]),
        ("postgres://app:hunter2@db:http/shop", &["port", "65535"]),
        ("postgres://app:hunter2@db:0/shop", &["port"]),
        ("postgres://app:hunter2@db:65536/shop", &["port"]),
        ("postgres://app:hunter2@db:+1/shop", &["port"]),
        ("postgres://app:hunter2@db:/shop", &["port"]),
        ("postgres://app:hunter2/shop", &["port", "`@`"]),
        ("postgres://::1/shop", &["IPv6", "[::1]:5432"]),
        ("postgres://[::1/shop", &["not closed"]),
        ("postgres://[::1]5432/shop", &["`:` after the `]`"]),
        (
            "postgres://[local]/shop",
            &["neither a name nor an address"],
        ),
        (
            "postgres://db;drop/shop",
            &["neither a name nor an address"],
        ),
        (
            "postgres:///shop?host=db:5432",
            &["neither a name nor an address"],
        ),
        ("postgres://db/shop/orders", &["database name", "%2F"]),
        ("postgres://db/my shop", &["space", "%20"]),
    ]);
    let many = format!("postgres://{}/shop", ["db"; 33].join(","));
    assert!(refusal(&many).contains("more than 32 hosts"));
}

#[test]
fn a_reserved_character_in_a_password_gets_a_hint() {
    for reserved in ["@", "/", "#", "?", "?a=b&", "@x?y=", "%", "%zz", "%ff", " "] {
        let message = refusal(&format!(
            "postgres://app:hunter2{reserved}Tr0ub4dor@db/shop"
        ));
        assert!(message.contains("ncod"), "{reserved}: {message}");
        for secret in ["hunter2", "Tr0ub4dor"] {
            assert!(!message.contains(secret), "{reserved}: {message}");
        }
    }
    assert!(refusal("postgres://app:hunter2%00@db/shop").contains("NUL"));
}

#[test]
fn a_path_that_is_no_file_is_refused() {
    each_is_refused(&[
        ("file:", &["names no file"]),
        ("sqlite:", &["names no file"]),
        ("sqlite://", &["names no file"]),
        ("file:?connection_limit=1", &["names no file"]),
        ("file:?temp=false", &["names no file"]),
        ("file:./dev.db?temp", &["has no path", "leave temp out"]),
        ("sqlite::memory:?temp=true", &["has no path"]),
        ("file:./data/", &["directory"]),
        ("file:/", &["directory"]),
        ("file://dev.db", &["name of a machine", "file:./dev.db"]),
        ("file://server/share/dev.db", &["name of a machine"]),
        ("file:./100%.db", &["percent-encoding of the path", "%25"]),
        ("file:./dev.db#1", &["%23"]),
        ("file:./dev\u{7}.db", &["control character"]),
        ("file:./dev.db%00", &["NUL"]),
    ]);
}

#[test]
fn an_unknown_parameter_gets_the_nearest_known_one() {
    each_is_refused(&[
        (
            "postgres://app:hunter2@db/shop?conection_limit=10",
            &["unknown parameter conection_limit; did you mean connection_limit?"],
        ),
        (
            "file:./dev.db?conection_limit=10",
            &["did you mean connection_limit?"],
        ),
        (
            "file:./dev.db?connectionLimit=10",
            &["connectionLimit", "did you mean connection_limit?"],
        ),
        (
            "postgres://db/shop?sslmod=require",
            &["did you mean sslmode?"],
        ),
        (
            "postgres://db/shop?pool_timout=1",
            &["did you mean pool_timeout?"],
        ),
        (
            "postgres://db/shop?max_connections=1",
            &["did you mean connection_limit?"],
        ),
        (
            "postgres://db/shop?pool_size=1",
            &["did you mean connection_limit?"],
        ),
        (
            "postgres://db/shop?idle_timeout=1",
            &["did you mean max_idle_connection_lifetime?"],
        ),
        (
            "postgres://db/shop?workers=1",
            &["unknown parameter workers; leave it out"],
        ),
        ("postgres://db/shop?password=hunter2", &["before the `?`"]),
        (
            "postgres://db/shop?target_session_attrs=read-writ",
            &["must be one of any, read-write", "did you mean"],
        ),
        (
            "file::memory:?cache=shared",
            &["unknown parameter cache", "leave it out"],
        ),
        ("file:./dev.db?mode=ro", &["unknown parameter mode"]),
    ]);
}

#[test]
fn a_malformed_parameter_is_named() {
    each_is_refused(&[
        (
            "file:./dev.db?connection_limit",
            &["connection_limit has no value", "connection_limit="],
        ),
        (
            "file:./dev.db?connection_limit=",
            &["connection_limit is empty", "connection_limit=20"],
        ),
        ("file:./dev.db?=5", &["name=value"]),
        ("file:./dev.db?a%20b=5", &["name=value"]),
        (
            "file:./dev.db?connection_limit=2&connection_limit=3",
            &["connection_limit is given twice"],
        ),
        (
            "postgres://db/shop?schema=%zz",
            &["percent-encoding of schema"],
        ),
        (
            "postgres://db/shop?schema=%ff",
            &["percent-encoding of schema", "UTF-8"],
        ),
        ("postgres://db/shop?schema=a%00b", &["schema", "NUL"]),
    ]);
}

#[test]
fn the_other_databases_parameters_are_refused() {
    for name in [
        "schema",
        "host",
        "port",
        "application_name",
        "options",
        "pgbouncer",
        "read_from",
        "sslmode",
        "channel_binding",
        "sslaccept",
        "sslcert",
        "sslkey",
        "sslrootcert",
        "sslidentity",
        "sslpassword",
        "statement_timeout",
    ] {
        let message = refusal(&format!("{SQLITE}?{name}=1"));
        assert!(
            message.contains(&format!("{name} is a parameter for PostgreSQL only")),
            "{message}"
        );
    }
    for name in [
        "durability",
        "busy_timeout",
        "write_probe",
        "network_file_system",
        "temp",
    ] {
        let message = refusal(&format!("{POSTGRES}?{name}=1"));
        assert!(
            message.contains(&format!("{name} is a parameter for SQLite only")),
            "{message}"
        );
    }
}
