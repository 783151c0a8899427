//! Which database a URL names.

use crate::{postgres, refusal, sqlite};
use mainstay_core::config::{Host, SqlitePath, Target};

fn hosts(url: &str) -> Vec<String> {
    postgres(url)
        .hosts
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn every_part_of_a_login_is_read_and_decoded() {
    let target = postgres("postgresql://my%20app:p%40ss%2F%3A%3F%23%25w%C3%B6rd@db:6543/my%2Fdb");
    assert_eq!(target.user, "my app");
    assert_eq!(target.password.unwrap().expose(), "p@ss/:?#%wörd");
    assert_eq!(target.database, "my/db");
    assert_eq!(
        hosts("postgresql://my%20app:x@db:6543/my%2Fdb"),
        ["db:6543"]
    );
}

#[test]
fn what_is_left_out_has_a_default() {
    for url in [
        "postgres://",
        "postgres:///",
        "POSTGRES://",
        "  postgres://\n",
    ] {
        let target = postgres(url);
        assert_eq!(
            (target.user.as_str(), target.database.as_str()),
            ("postgres", "postgres")
        );
        assert!(target.password.is_none());
        assert_eq!(hosts(url), ["localhost:5432"], "{url:?}");
    }
    assert_eq!(hosts("postgres:///shop"), ["localhost:5432"]);
    assert_eq!(postgres("postgres:///shop").database, "shop");
    assert_eq!(hosts("postgres:///shop?port=6000"), ["localhost:6000"]);
    assert!(postgres("postgres://app:@db").password.is_none());
}

#[test]
fn several_hosts_keep_their_order_and_ports() {
    assert_eq!(
        hosts("postgres://app@one:1,two,[::1]:3,[fe80::1%25eth0],10.0.0.5:4/shop"),
        [
            "one:1",
            "two:5432",
            "[::1]:3",
            "[fe80::1%eth0]:5432",
            "10.0.0.5:4"
        ]
    );
    assert_eq!(hosts("postgres://one,two/shop?port=7"), ["one:7", "two:7"]);
}

#[test]
fn a_socket_directory_is_named_in_the_authority_or_as_host() {
    let socket = Host::Unix {
        directory: "/var/run/postgresql".into(),
        port: 5432,
    };
    for url in [
        "postgres://app@%2Fvar%2Frun%2Fpostgresql/shop",
        "postgres:///shop?host=/var/run/postgresql",
        "postgres://app@/shop?host=%2Fvar%2Frun%2Fpostgresql",
        "postgres://app@localhost/shop?host=/var/run/postgresql",
    ] {
        assert_eq!(postgres(url).hosts, std::slice::from_ref(&socket), "{url}");
    }
    // The port is a part of the socket's name, wherever it is written.
    let socket = Host::Unix {
        directory: "/tmp".into(),
        port: 6543,
    };
    for url in [
        "postgres://localhost:6543/shop?host=/tmp",
        "postgres://app:pw@:6543/shop?host=/tmp",
        "postgres:///shop?host=/tmp&port=6543",
        "postgres://%2Ftmp:6543/shop",
    ] {
        assert_eq!(postgres(url).hosts, std::slice::from_ref(&socket), "{url}");
    }
}

#[test]
fn host_replaces_the_names_and_keeps_the_ports() {
    assert_eq!(hosts("postgres://old:7/shop?host=new"), ["new:7"]);
    assert_eq!(
        hosts("postgres://old:7/shop?host=one,two"),
        ["one:7", "two:7"]
    );
    assert_eq!(
        hosts("postgres://a:1,b:2/shop?host=one,::1"),
        ["one:1", "[::1]:2"]
    );
    assert!(refusal("postgres://a:1,b:2/shop?host=one").contains("another number of hosts"));
    assert!(refusal("postgres://a:1/shop?port=2").contains("given twice"));
}

#[test]
fn every_spelling_of_a_file_is_read() {
    for (url, path) in [
        ("file:./dev.db", "./dev.db"),
        ("file:dev.db", "dev.db"),
        ("file:../data/dev.db", "../data/dev.db"),
        ("file:/data/dev.db", "/data/dev.db"),
        ("file:///data/dev.db", "/data/dev.db"),
        ("file://localhost/data/dev.db", "/data/dev.db"),
        ("FILE:dev.db", "dev.db"),
        ("sqlite:dev.db", "dev.db"),
        ("sqlite:./dev.db", "./dev.db"),
        ("sqlite:/data/dev.db", "/data/dev.db"),
        ("sqlite://dev.db", "dev.db"),
        ("sqlite://./dev.db", "./dev.db"),
        ("sqlite:///data/dev.db", "/data/dev.db"),
        ("file:./my data.db", "./my data.db"),
        ("file:./100%25%3F%23.db", "./100%?#.db"),
        ("file:./a+b.db?strict_rows=true", "./a+b.db"),
    ] {
        assert_eq!(sqlite(url).path, SqlitePath::File(path.into()), "{url}");
    }
}

#[test]
fn every_spelling_of_memory_is_memory() {
    for url in [
        ":memory:",
        ":memory:?strict_rows=true",
        "file::memory:",
        "file://:memory:",
        "sqlite::memory:",
        "sqlite://:memory:",
        "sqlite::memory:?connection_limit=1",
    ] {
        assert_eq!(sqlite(url).path, SqlitePath::Memory, "{url}");
    }
}

#[test]
fn every_spelling_of_a_temporary_file_is_one() {
    for url in [
        "file:?temp",
        "file://?temp",
        "sqlite:?temp",
        "sqlite://?temp",
        "file:?temp=true&connection_limit=3",
        "file:?connection_limit=3&temp",
    ] {
        let target = sqlite(url);
        assert_eq!(target.path, SqlitePath::Temporary, "{url}");
        assert_eq!(Target::Sqlite(target).to_string(), "file:?temp");
    }
    let kept = sqlite("file:./dev.db?temp=false").path;
    assert_eq!(kept, SqlitePath::File("./dev.db".into()));
}

#[test]
fn a_flag_alone_is_true() {
    assert!(crate::config("file:./dev.db?strict_rows").strict_rows);
    assert!(!crate::config("file:./dev.db?strict_rows=false").strict_rows);
}

#[test]
fn several_hosts_mean_the_one_that_takes_writes_unless_something_else_is_asked_for() {
    use mainstay_core::config::SessionAttrs;
    for (url, wanted) in [
        ("postgres://one/shop", SessionAttrs::Any),
        ("postgres://one,two/shop", SessionAttrs::ReadWrite),
        (
            "postgres://one,two/shop?target_session_attrs=any",
            SessionAttrs::Any,
        ),
        (
            "postgres://one/shop?target_session_attrs=prefer-standby",
            SessionAttrs::PreferStandby,
        ),
    ] {
        assert_eq!(postgres(url).wanted(), wanted, "{url}");
    }
}
