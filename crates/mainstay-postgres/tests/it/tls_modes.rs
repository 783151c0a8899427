use crate::fixture::*;
use mainstay_core::backend::{Backend, Lane};
use mainstay_core::config::{ChannelBinding, PostgresTarget, SslMode};
use mainstay_core::{Class, Error, Kind, Value};
use mainstay_testkit::Cluster;
use std::path::Path;

/// Whether the session speaks TLS.
async fn is_encrypted(target: &PostgresTarget) -> Result<bool, Error> {
    let backend = backend_with(target, |_| {});
    let conn = backend.connect(Lane::Read, deadline()).await?;
    let text = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    match value(&conn, text, (), read()).await? {
        Value::Bool(ssl) => Ok(ssl),
        other => panic!("{other:?}"),
    }
}

fn with(cluster: &Cluster, mode: SslMode, host: &str, root: Option<&Path>) -> PostgresTarget {
    let mut target = target(cluster, "postgres");
    target.hosts = vec![tcp(host, cluster.port())];
    target.tls.mode = mode;
    target.tls.root_cert = root.map(Into::into);
    target
}

/// A CA that has signed nothing.
fn stranger(directory: &Path) -> std::path::PathBuf {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = params
        .self_signed(&rcgen::KeyPair::generate().unwrap())
        .unwrap()
        .pem();
    let path = directory.join("stranger.crt");
    std::fs::write(&path, pem).unwrap();
    path
}

#[tokio::test]
async fn every_mode_does_what_it_says_with_a_server_that_speaks_tls() {
    use SslMode::{Allow, Disable, Prefer, Require, VerifyCa, VerifyFull};
    let cluster = start(Cluster::builder().tls()).await;
    let directory = tempfile::tempdir().unwrap();
    let (right, wrong) = (cluster.ca_file().unwrap(), stranger(directory.path()));
    for (mode, host, root, outcome) in [
        (Disable, "127.0.0.1", None, Some(false)),
        (Allow, "127.0.0.1", None, Some(false)),
        (Prefer, "127.0.0.1", None, Some(true)),
        (Prefer, "127.0.0.1", Some(&*wrong), None),
        (Require, "127.0.0.1", None, Some(true)),
        (Require, "127.0.0.1", Some(right), Some(true)),
        (Require, "127.0.0.1", Some(&*wrong), None),
        (VerifyCa, "127.0.0.1", Some(right), Some(true)),
        (VerifyCa, "127.0.0.1", Some(&*wrong), None),
        (VerifyFull, "127.0.0.1", Some(right), Some(true)),
        (VerifyFull, "localhost", Some(right), Some(true)),
        (VerifyFull, "127.0.0.1", Some(&*wrong), None),
        // The system's authorities have not signed it either.
        (VerifyFull, "127.0.0.1", Some(Path::new("system")), None),
        (VerifyFull, "127.0.0.1", None, None),
    ] {
        let found = is_encrypted(&with(&cluster, mode, host, root)).await;
        match (outcome, found) {
            (Some(expected), found) => assert_eq!(found.unwrap(), expected, "{mode:?} {root:?}"),
            (None, found) => {
                let error = found.unwrap_err();
                let labels = (error.kind(), error.class());
                assert!(
                    matches!(labels, (Kind::Tls | Kind::Config, Class::Permanent)),
                    "{error:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn the_name_is_checked_by_verify_full_alone() {
    let cluster = start(
        Cluster::builder()
            .tls()
            .setting("listen_addresses", "127.0.0.1,127.0.0.2"),
    )
    .await;
    let root = cluster.ca_file();
    let by_authority = with(&cluster, SslMode::VerifyCa, "127.0.0.2", root);
    assert!(is_encrypted(&by_authority).await.unwrap());
    let by_name = with(&cluster, SslMode::VerifyFull, "127.0.0.2", root);
    let error = is_encrypted(&by_name).await.unwrap_err();
    assert_eq!((error.kind(), error.class()), (Kind::Tls, Class::Permanent));
}

#[tokio::test]
async fn every_mode_does_what_it_says_with_a_server_that_does_not() {
    use SslMode::{Allow, Prefer, Require, VerifyCa, VerifyFull};
    let cluster = start(Cluster::builder()).await;
    let directory = tempfile::tempdir().unwrap();
    let root = stranger(directory.path());
    for mode in [SslMode::Disable, Allow, Prefer] {
        assert!(
            !is_encrypted(&with(&cluster, mode, "127.0.0.1", None))
                .await
                .unwrap(),
            "{mode:?}"
        );
    }
    for mode in [Require, VerifyCa, VerifyFull] {
        let error = is_encrypted(&with(&cluster, mode, "127.0.0.1", Some(&root)))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.class()),
            (Kind::Tls, Class::Permanent),
            "{mode:?}"
        );
        assert!(error.to_string().contains("does not speak TLS"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_insists_is_met_by_allow_and_not_by_disable() {
    let cluster = start(Cluster::builder().tls_only()).await;
    assert!(
        is_encrypted(&with(&cluster, SslMode::Allow, "127.0.0.1", None))
            .await
            .unwrap()
    );
    let error = is_encrypted(&with(&cluster, SslMode::Disable, "127.0.0.1", None))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.sqlstate()),
        (Kind::Credentials, Some("28000"))
    );
}

#[tokio::test]
async fn a_client_certificate_is_shown_when_there_is_one() {
    let cluster = start(Cluster::builder().client_certificates()).await;
    let mut target = with(
        &cluster,
        SslMode::VerifyFull,
        "127.0.0.1",
        cluster.ca_file(),
    );
    let error = is_encrypted(&target).await.unwrap_err();
    assert!(
        matches!(error.kind(), Kind::Tls | Kind::Credentials),
        "{error:?}"
    );
    let (certificate, key) = cluster.client_certificate().unwrap();
    target.tls.client_cert = Some(certificate.into());
    target.tls.client_key = Some(key.into());
    assert!(is_encrypted(&target).await.unwrap());
}

#[tokio::test]
async fn the_login_is_bound_to_the_channel_or_refused() {
    let cluster = start(Cluster::builder().tls()).await;
    let mut target = with(&cluster, SslMode::Require, "127.0.0.1", None);
    target.channel_binding = ChannelBinding::Require;
    assert!(is_encrypted(&target).await.unwrap());
    target.tls.mode = SslMode::Disable;
    let error = is_encrypted(&target).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::Credentials, Class::Permanent)
    );
    assert!(error.to_string().contains("channel binding"), "{error}");
}

#[tokio::test]
async fn a_running_statement_is_cancelled_through_tls() {
    let cluster = start(Cluster::builder().tls()).await;
    let backend = backend_with(&with(&cluster, SslMode::Require, "127.0.0.1", None), |_| {});
    let conn = backend.connect(Lane::Read, deadline()).await.unwrap();
    let sleep = async { execute(&conn, "select pg_sleep(600)", read()).await };
    let cancel = async {
        let busy = "select 1 from pg_stat_activity where query like '%pg_sleep%' and state = 'active' and pid <> pg_backend_pid()";
        mainstay_testkit::wait_for("the statement to run", LIMIT, async || {
            let found = cluster
                .run(move |cluster| cluster.psql(busy))
                .await
                .unwrap();
            (found == "1").then_some(())
        })
        .await
        .unwrap();
        conn.cancel(deadline()).await.unwrap();
    };
    let (slept, ()) = tokio::join!(sleep, cancel);
    assert_eq!(slept.unwrap_err().kind(), Kind::Cancelled);
}

/// Everything that is permanently wrong is said at once, in its own words.
#[tokio::test]
async fn each_thing_that_is_wrong_is_said_in_its_own_words() {
    use SslMode::{Require, VerifyCa, VerifyFull};
    let cluster = start(
        Cluster::builder()
            .tls()
            .setting("listen_addresses", "127.0.0.1,127.0.0.2"),
    )
    .await;
    let expired = start(Cluster::builder().expired_certificate()).await;
    let plain = start(Cluster::builder()).await;
    let directory = tempfile::tempdir().unwrap();
    let wrong = stranger(directory.path());
    let home = "127.0.0.1";
    let mut wrong_password = with(&cluster, Require, home, cluster.ca_file());
    wrong_password.password = Some(mainstay_core::config::Secret::new("hunter2"));
    for (target, kind, words, remedy) in [
        (
            with(&cluster, VerifyFull, home, Some(&wrong)),
            Kind::Tls,
            "is not from a trusted authority",
            "sslrootcert",
        ),
        (
            with(&cluster, VerifyCa, home, Some(&wrong)),
            Kind::Tls,
            "is not from a trusted authority",
            "sslrootcert",
        ),
        (
            with(&cluster, VerifyFull, "127.0.0.2", cluster.ca_file()),
            Kind::Tls,
            "is for another host",
            "verify-ca",
        ),
        (
            with(&expired, VerifyFull, home, expired.ca_file()),
            Kind::Tls,
            "has expired",
            "new certificate",
        ),
        (
            with(&expired, VerifyCa, home, expired.ca_file()),
            Kind::Tls,
            "has expired",
            "new certificate",
        ),
        (
            with(&plain, Require, home, None),
            Kind::Tls,
            "does not speak TLS",
            "postgresql.conf",
        ),
        (
            wrong_password,
            Kind::Credentials,
            "refused the password of \"postgres\"",
            "DATABASE_URL",
        ),
    ] {
        let started = tokio::time::Instant::now();
        let error = is_encrypted(&target).await.unwrap_err();
        assert!(started.elapsed() < LIMIT / 6, "{:?}", started.elapsed());
        assert_eq!((error.kind(), error.class()), (kind, Class::Permanent));
        assert!(error.message().contains(words), "{error}");
        assert!(error.remedy().unwrap().contains(remedy), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

/// Encrypted and unchecked is what `require` without an authority means.
#[tokio::test]
async fn an_expired_certificate_is_taken_where_none_is_checked() {
    let expired = start(Cluster::builder().expired_certificate()).await;
    let unchecked = with(&expired, SslMode::Require, "127.0.0.1", None);
    assert!(is_encrypted(&unchecked).await.unwrap());
}

/// A server that takes part in SCRAM up to its challenge, which says so many iterations.
async fn challenge(iterations: u32) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = vec![0; 4_096];
        let hello = stream.read(&mut heard).await.unwrap();
        assert!(hello > 0);
        let mut mechanisms = 10_u32.to_be_bytes().to_vec();
        mechanisms.extend(b"SCRAM-SHA-256\0\0");
        stream
            .write_all(&crate::scripted::message(b'R', &mechanisms))
            .await
            .unwrap();
        let length = stream.read(&mut heard).await.unwrap();
        let said = String::from_utf8_lossy(&heard[..length]).into_owned();
        let nonce = said.rsplit("r=").next().unwrap();
        let mut first = 11_u32.to_be_bytes().to_vec();
        first.extend(format!("r={nonce}more,s=c2FsdA==,i={iterations}").bytes());
        stream
            .write_all(&crate::scripted::message(b'R', &first))
            .await
            .unwrap();
        // Whoever believes it answers with a proof; nobody waits for longer than the test.
        let length = stream.read(&mut heard).await.unwrap();
        if length > 0 {
            let error = b"SFATAL\0VFATAL\0C28P01\0Mbelieved\0\0";
            stream
                .write_all(&crate::scripted::message(b'E', error))
                .await
                .unwrap();
        }
    });
    port
}

#[tokio::test]
async fn a_server_cannot_keep_us_busy_with_a_challenge() {
    for (iterations, words) in [
        (4_096, "refused the password"),
        (u32::MAX, "iteration count"),
    ] {
        let port = challenge(iterations).await;
        let mut target = PostgresTarget::new(tcp("127.0.0.1", port), "app", "shop");
        target.password = Some(mainstay_core::config::Secret::new("hunter2"));
        target.tls.mode = SslMode::Disable;
        let error = is_encrypted(&target).await.unwrap_err();
        let labels = (error.kind(), error.class());
        assert_eq!(labels, (Kind::Credentials, Class::Permanent), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_password_in_clear_is_not_sent_where_binding_is_required() {
    let cluster = start(
        Cluster::builder()
            .tls()
            .auth(mainstay_testkit::cluster::Auth::Password),
    )
    .await;
    let mut target = with(&cluster, SslMode::Require, "127.0.0.1", None);
    target.channel_binding = ChannelBinding::Require;
    let error = is_encrypted(&target).await.unwrap_err();
    let labels = (error.kind(), error.class());
    assert_eq!(labels, (Kind::Credentials, Class::Permanent), "{error}");
    assert!(error.to_string().contains("channel binding"), "{error}");
}
