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
