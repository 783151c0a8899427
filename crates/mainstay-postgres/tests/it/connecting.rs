use crate::fixture::*;
use mainstay_core::backend::{Backend, Lane};
use mainstay_core::config::{PostgresTarget, Secret};
use mainstay_core::{Class, Error, Evidence, Kind};
use mainstay_testkit::Proxy;
use mainstay_testkit::cluster::Mode;
use std::time::Duration;
use tokio::time::Instant;

async fn refused(target: &PostgresTarget) -> Error {
    backend_with(target, |_| {})
        .connect(Lane::Read, deadline())
        .await
        .unwrap_err()
}

fn labels(error: &Error) -> (Kind, Class, Evidence) {
    (error.kind(), error.class(), error.evidence())
}

#[tokio::test]
async fn a_wrong_password_is_said_without_the_password() {
    let home = Home::new().await;
    let mut target = home.target.clone();
    target.password = Some(Secret::new("hunter2"));
    let error = refused(&target).await;
    assert_eq!(
        labels(&error),
        (Kind::Credentials, Class::Permanent, Evidence::Answered)
    );
    assert_eq!(error.sqlstate(), Some("28P01"));
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    target.password = None;
    let error = refused(&target).await;
    assert_eq!(
        labels(&error),
        (Kind::Credentials, Class::Permanent, Evidence::Answered)
    );
    assert!(error.to_string().contains("none is configured"), "{error}");
}

#[tokio::test]
async fn an_unknown_database_says_how_to_create_it() {
    let home = Home::new().await;
    let mut target = home.target.clone();
    target.database = "nowhere".into();
    let error = refused(&target).await;
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::Config, Class::Permanent)
    );
    assert_eq!(
        (error.sqlstate(), error.code()),
        (Some("3D000"), Some("P1003"))
    );
    let shown = error.to_string();
    assert!(
        shown.contains("\"nowhere\" does not exist") && shown.contains("mainstay init"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_refused_port_and_an_unknown_host_are_named() {
    let home = Home::new().await;
    let mut target = home.target.clone();
    let proxy = Proxy::start(("127.0.0.1", home.database.cluster().port()))
        .await
        .unwrap();
    proxy.refuse().await.unwrap();
    target.hosts = vec![tcp("127.0.0.1", proxy.port())];
    let error = refused(&target).await;
    assert_eq!(
        labels(&error),
        (Kind::Unreachable, Class::NotSent, Evidence::Silent)
    );
    let expected = format!(
        "cannot reach 127.0.0.1:{}: connection refused",
        proxy.port()
    );
    assert_eq!(error.message(), expected);

    target.hosts = vec![tcp("no-such-host.invalid", 5432)];
    let error = refused(&target).await;
    assert_eq!(
        labels(&error),
        (Kind::Unreachable, Class::NotSent, Evidence::Silent)
    );
    assert!(
        error.to_string().contains("no-such-host.invalid"),
        "{error}"
    );
}

#[tokio::test]
async fn a_missing_socket_is_named() {
    let home = Home::new().await;
    let directory = tempfile::tempdir().unwrap();
    let mut target = home.target.clone();
    target.hosts = vec![mainstay_core::config::Host::Unix {
        directory: directory.path().into(),
        port: 5432,
    }];
    let error = refused(&target).await;
    assert_eq!(
        labels(&error),
        (Kind::Unreachable, Class::NotSent, Evidence::Silent)
    );
    let host = format!("{}:5432", directory.path().display());
    assert!(error.to_string().contains(&host), "{error}");
}

#[tokio::test]
async fn the_unix_socket_serves_as_well() {
    let home = Home::new().await;
    let cluster = home.database.cluster();
    let mut target = home.target.clone();
    target.hosts = vec![mainstay_core::config::Host::Unix {
        directory: cluster.socket_directory().into(),
        port: cluster.port(),
    }];
    target.tls.mode = mainstay_core::config::SslMode::VerifyFull;
    let backend = backend_with(&target, |_| {});
    let conn = backend.connect(Lane::Read, deadline()).await.unwrap();
    assert_eq!(fetch(&conn, "select 1", (), read()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_host_that_swallows_everything_ends_with_the_deadline() {
    let home = Home::new().await;
    let proxy = Proxy::start(("127.0.0.1", home.database.cluster().port()))
        .await
        .unwrap();
    proxy.black_hole().await.unwrap();
    let mut target = home.target.clone();
    target.hosts = vec![tcp("127.0.0.1", proxy.port())];
    let limit = Duration::from_millis(300);
    let backend = backend_with(&target, |config| config.connect_timeout = limit);
    let started = Instant::now();
    let error = backend.connect(Lane::Read, deadline()).await.unwrap_err();
    assert!(started.elapsed() < limit * 10, "{:?}", started.elapsed());
    assert_eq!(
        labels(&error),
        (Kind::Unreachable, Class::NotSent, Evidence::Silent)
    );
    assert!(error.is_timeout() && error.waited().is_some(), "{error:?}");

    // The next host of a list still gets its share of the time.
    target
        .hosts
        .push(tcp("127.0.0.1", home.database.cluster().port()));
    let backend = backend_with(&target, |config| {
        config.connect_timeout = Duration::from_secs(4)
    });
    backend.connect(Lane::Read, deadline()).await.unwrap();
}

#[tokio::test]
async fn each_host_of_a_list_is_named_when_none_answers() {
    let home = Home::new().await;
    let mut target = home.target.clone();
    target.hosts = vec![tcp("a.invalid", 1), tcp("b.invalid", 2)];
    let error = refused(&target).await;
    assert_eq!(
        labels(&error),
        (Kind::Unreachable, Class::NotSent, Evidence::Silent)
    );
    let shown = error.to_string();
    assert!(
        shown.contains("a.invalid") && shown.contains("b.invalid"),
        "{shown}"
    );
}

#[tokio::test]
async fn something_else_on_the_port_is_no_server() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stranger = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = [0; 8];
        stream.read_exact(&mut hello).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
    });
    let mut target = PostgresTarget::new(tcp("127.0.0.1", port), "u", "d");
    target.password = Some(Secret::new("p"));
    let error = refused(&target).await;
    assert_eq!(error.kind(), Kind::Config);
    assert!(
        error.to_string().contains("does not speak PostgreSQL"),
        "{error}"
    );
    stranger.await.unwrap();
}

#[tokio::test]
async fn a_full_server_is_exhausted_and_not_silent() {
    let cluster = start(
        mainstay_testkit::Cluster::builder()
            .setting("max_connections", 3)
            .setting("superuser_reserved_connections", 0),
    )
    .await;
    let target = target(&cluster, "postgres");
    let backend = backend_with(&target, |_| {});
    let mut taken = Vec::new();
    let error = loop {
        match backend.connect(Lane::Read, deadline()).await {
            Ok(conn) => taken.push(conn),
            Err(error) => break error,
        }
    };
    assert_eq!(taken.len(), 3);
    assert_eq!(
        labels(&error),
        (Kind::Unreachable, Class::NotSent, Evidence::Exhausted)
    );
    assert_eq!(error.sqlstate(), Some("53300"));
}

#[tokio::test]
async fn a_stopped_server_is_unreachable() {
    let cluster = start(mainstay_testkit::Cluster::builder()).await;
    let target = target(&cluster, "postgres");
    cluster
        .run(|cluster| cluster.stop(Mode::Fast))
        .await
        .unwrap();
    let error = refused(&target).await;
    assert_eq!(
        labels(&error),
        (Kind::Unreachable, Class::NotSent, Evidence::Silent)
    );
}

#[tokio::test]
async fn the_session_begins_with_what_the_configuration_says() {
    let home = Home::new().await;
    home.sql("create schema \"my schema\"; create table \"my schema\".t (a int)")
        .await;
    let mut target = home.target.clone();
    target.schema = Some("my schema".into());
    target.application_name = Some("shop".into());
    target.options = Some("-c work_mem=5MB".into());
    let backend = backend_with(&target, |config| {
        config.statement_timeout = Some(Duration::from_millis(12_345));
    });
    for (lane, read_only) in [(Lane::Read, "on"), (Lane::Write, "off")] {
        let conn = backend.connect(lane, deadline()).await.unwrap();
        // As the server has it; the first statement brings its lane along.
        assert_eq!(conn.lane(), Lane::Write);
        let row = fetch(
            &conn,
            "select current_setting('application_name'), current_setting('work_mem'),
                current_setting('statement_timeout'),
                current_setting('default_transaction_read_only'), count(*)::text from t",
            (),
            call(lane),
        )
        .await
        .unwrap()
        .remove(0);
        let row: (String, String, String, String, String) = row.decode().unwrap();
        let expected = ("shop", "5MB", "12345ms", read_only, "0");
        assert_eq!((&*row.0, &*row.1, &*row.2, &*row.3, &*row.4), expected);
    }
}
