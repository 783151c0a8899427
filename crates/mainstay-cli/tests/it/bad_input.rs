//! Every mistake gets one clear line: what, where, what to try. Within the connect timeout, with the
//! right kind, and never with the password in it.

use crate::bed::{Bed, Ran, bare};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, SystemTime};

const SECRET: &str = "hunter2";

/// What the URLs here say.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a loaded machine may take to start a process, twice.
const START: Duration = Duration::from_secs(2);

/// What is expected of one mistake.
struct Expected<'a> {
    kind: &'a str,
    code: i32,
    words: &'a [&'a str],
}

/// Runs `check` for people and for machines and looks at everything that was promised.
fn refused(url: &str, expected: &Expected<'_>) {
    for arguments in [
        &["check"][..],
        &["check", "-vv"],
        &["check", "--json"],
        &["check", "-q"],
    ] {
        let mut command = bare(arguments);
        command.env("DATABASE_URL", url);
        refused_by(command, arguments, expected);
    }
}

fn refused_by(command: std::process::Command, arguments: &[&str], expected: &Expected<'_>) {
    let began = SystemTime::now();
    let ran = Ran::of(command);
    let took = began.elapsed().unwrap_or_default();
    assert_eq!(ran.code, Some(expected.code), "{ran:?}");
    assert!(took < CONNECT_TIMEOUT + START, "took {took:?}: {ran:?}");
    assert!(!ran.said().contains(SECRET), "a secret was shown: {ran:?}");
    assert!(!ran.said().contains("panicked"), "{ran:?}");
    for word in expected.words {
        assert!(ran.said().contains(word), "no {word:?} in {ran:?}");
    }
    let lines = |start: &str| {
        ran.err
            .lines()
            .filter(|line| line.starts_with(start))
            .count()
    };
    if arguments.contains(&"--json") {
        let error = &ran.document()["error"];
        assert_eq!(error["kind"], expected.kind, "{error}");
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty()),
            "{error}"
        );
        assert!(
            error["remedy"]
                .as_str()
                .is_some_and(|remedy| !remedy.is_empty()),
            "{error}"
        );
        assert_eq!(ran.err, "");
    } else {
        assert_eq!((lines("error: "), lines("hint: ")), (1, 1), "{ran:?}");
        assert_eq!(ran.out, "", "{ran:?}");
        if !arguments.contains(&"-vv") {
            assert_eq!(ran.err.lines().count() - lines("Database: "), 2, "{ran:?}");
        }
    }
}

const CONFIG: fn(&'static [&'static str]) -> Expected<'static> = |words| Expected {
    kind: "config",
    code: 2,
    words,
};

#[test]
fn a_url_that_is_none() {
    refused("", &CONFIG(&["DATABASE_URL"]));
    refused("./dev.db", &CONFIG(&["file:"]));
    refused("postgres://app:hunter2@db:port/app", &CONFIG(&["port"]));
    refused("postgres://app:hunter2#3@db/app", &CONFIG(&[]));
}

#[test]
fn an_unknown_scheme_names_those_that_are_known() {
    for scheme in ["mysql", "mongodb", "sqlserver", "http"] {
        let url = format!("{scheme}://app:hunter2@db/app");
        refused(&url, &CONFIG(&["file:", "postgres"]));
    }
    refused(
        "postgre://app:hunter2@db/app",
        &CONFIG(&["did you mean postgres?"]),
    );
}

#[test]
fn prisma_s_own_urls_are_refused_with_the_way_out() {
    refused(
        "prisma://accelerate.prisma-data.net/?api_key=hunter2",
        &CONFIG(&["prisma"]),
    );
    refused(
        "prisma+postgres://accelerate.prisma-data.net/?api_key=hunter2",
        &CONFIG(&["prisma"]),
    );
}

#[test]
fn an_unknown_parameter_gets_the_nearest_known_one() {
    refused(
        "postgres://app:hunter2@db/app?conection_limit=5",
        &CONFIG(&["conection_limit", "did you mean connection_limit"]),
    );
}

#[test]
fn a_limit_of_zero_is_refused() {
    refused(
        "postgres://app:hunter2@db/app?connection_limit=0",
        &CONFIG(&["connection_limit"]),
    );
    refused(
        "file:./dev.db?connection_limit=0",
        &CONFIG(&["connection_limit"]),
    );
}

#[test]
fn an_authority_without_a_host_is_refused() {
    refused("postgres://app:hunter2@:5432/app", &CONFIG(&["host"]));
}

#[test]
fn a_directory_is_no_database_file() {
    let bed = Bed::sqlite();
    let url = format!("file:{}", bed.path("").display());
    refused(&url, &CONFIG(&["directory"]));
}

#[test]
fn a_file_without_its_directory_is_refused() {
    let bed = Bed::sqlite();
    let url = format!("file:{}", bed.path("nowhere/app.db").display());
    refused(&url, &CONFIG(&["nowhere"]));
    let mut command = bed.command(&["deploy"]);
    bed.write(
        "migrations/0001_tags.sql",
        "create table tags (name text primary key);",
    );
    command.env("DATABASE_URL", &url);
    let ran = Ran::of(command);
    assert!(
        ran.err.contains("nowhere") && ran.code != Some(0),
        "{ran:?}"
    );
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let bed = Bed::sqlite();
    bed.write(
        "app.db",
        &"this is a letter to my aunt, and a long one. ".repeat(100),
    );
    let ran = bed.run(&["check", "--json"]);
    assert_ne!(ran.code, Some(0), "{ran:?}");
    let kind = ran.document()["error"]["kind"].clone();
    assert!(kind == "storage" || kind == "config", "{ran:?}");
}

#[cfg(unix)]
#[test]
fn a_read_only_file_is_refused_by_name() {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    let bed = Bed::sqlite();
    bed.done(&["init"]);
    set_permissions(bed.path("app.db"), Permissions::from_mode(0o444)).unwrap();
    set_permissions(bed.path(""), Permissions::from_mode(0o555)).unwrap();
    for arguments in [&["check"][..], &["check", "--json"]] {
        // Root, too, is told: permissions do not bind it, but they say what was meant.
        let ran = bed.run(arguments);
        assert!(ran.code == Some(1) || ran.code == Some(2), "{ran:?}");
        assert!(
            ran.said().contains("app.db") && ran.said().contains("read"),
            "{ran:?}"
        );
    }
    set_permissions(bed.path(""), Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_wrong_password_is_told_as_such() {
    let bed = Bed::postgres();
    let (authority, database) = bed.url.rsplit_once('@').unwrap();
    let user = authority.split(':').nth(1).unwrap().trim_start_matches('/');
    let url = format!("postgres://{user}:{SECRET}@{database}?connect_timeout=3");
    refused(
        &url,
        &Expected {
            kind: "credentials",
            code: 1,
            words: &["password"],
        },
    );
}

#[test]
fn an_unknown_database_is_told_as_such() {
    let bed = Bed::absent_postgres();
    let url = format!("{}?connect_timeout=3", bed.url);
    let words = ["does not exist", bed.name.as_str()];
    refused(
        &url,
        &Expected {
            kind: "config",
            code: 2,
            words: &words,
        },
    );
    let mut command = bare(&["check", "--json"]);
    command.env("DATABASE_URL", &url);
    assert_eq!(Ran::of(command).document()["error"]["code"], "P1003");
}

#[test]
fn a_host_that_does_not_exist_is_told_as_such() {
    let url = "postgres://app:hunter2@no-such-host.invalid/app?connect_timeout=3";
    refused(
        url,
        &Expected {
            kind: "unreachable",
            code: 1,
            words: &["no-such-host.invalid"],
        },
    );
}

#[test]
fn a_refused_port_is_told_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let url = format!("postgres://app:hunter2@127.0.0.1:{port}/app?connect_timeout=3");
    let words = ["refused", &format!("127.0.0.1:{port}")];
    refused(
        &url,
        &Expected {
            kind: "unreachable",
            code: 1,
            words: &words,
        },
    );
}

#[test]
fn a_server_that_says_nothing_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("postgres://app:hunter2@127.0.0.1:{port}/app?connect_timeout=3");
    refused(
        &url,
        &Expected {
            kind: "unreachable",
            code: 1,
            words: &[],
        },
    );
}

#[test]
fn a_server_that_is_starting_up_is_told_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Ends with the process; the listener is its only resource.
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            starting_up(client).ok(); // a client that leaves early is its own affair
        }
    });
    let url = format!("postgres://app:hunter2@127.0.0.1:{port}/app?connect_timeout=3");
    refused(
        &url,
        &Expected {
            kind: "unreachable",
            code: 1,
            words: &["starting up"],
        },
    );
}

/// A server that answers every start-up packet with 57P03.
fn starting_up(mut client: TcpStream) -> std::io::Result<()> {
    const SSL_REQUEST: u32 = 80_877_103;
    loop {
        let mut head = [0; 8];
        if client.read_exact(&mut head).is_err() {
            return Ok(()); // the client has gone
        }
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let code = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        client.read_exact(&mut vec![0; length.saturating_sub(8)])?;
        if code == SSL_REQUEST {
            client.write_all(b"N")?;
            continue;
        }
        let fields = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0";
        let length = u32::try_from(fields.len() + 4).unwrap();
        client.write_all(b"E")?;
        client.write_all(&length.to_be_bytes())?;
        client.write_all(fields)?;
        return Ok(());
    }
}

#[test]
fn a_url_in_the_wrong_place_is_not_repeated() {
    let ran = Ran::of(bare(&["check", "postgres://app:hunter2@db/app"]));
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(!ran.said().contains(SECRET), "{ran:?}");
    let ran = Ran::of(bare(&["--json", "check", "postgres://app:hunter2@db/app"]));
    assert!(!ran.said().contains(SECRET), "{ran:?}");
}
