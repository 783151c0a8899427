//! Credentials that change while the service runs.

use mainstay::config::{Credentials, Secret};
use mainstay::{Builder, Class, Database, Error, Kind};
use mainstay_testkit::{Cluster, wait_for};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// What a vault would be: the present login, and how often it was asked for.
#[derive(Clone)]
struct Vault {
    login: Arc<Mutex<Result<(String, String), String>>>,
    asked: Arc<AtomicU32>,
}

impl Vault {
    fn new(user: &str, password: &str) -> Self {
        Self {
            login: Arc::new(Mutex::new(Ok((user.into(), password.into())))),
            asked: Arc::default(),
        }
    }

    fn set(&self, login: Result<(&str, &str), &str>) {
        let owned = login.map(|(user, password)| (user.into(), password.into()));
        *self.login.lock().unwrap() = owned.map_err(str::to_owned);
    }

    fn builder(&self, cluster: &Cluster) -> Builder {
        // The URL has neither the role nor the password.
        let url = format!("postgres://nobody@127.0.0.1:{}/postgres", cluster.port());
        let vault = self.clone();
        Database::builder(&url)
            .connection_limit(4)
            .credentials(move || {
                vault.asked.fetch_add(1, Ordering::Relaxed);
                let login = vault.login.lock().unwrap().clone();
                async move { login.map(|(user, password)| Credentials::new(user, password)) }
            })
    }
}

async fn start() -> Cluster {
    let start = || {
        let cluster = Cluster::start().unwrap();
        cluster
            .psql("create role app login password 'first'")
            .unwrap();
        cluster
    };
    tokio::task::spawn_blocking(start).await.unwrap()
}

async fn sql(cluster: &Cluster, text: &'static str) {
    cluster
        .run(move |cluster| cluster.psql(text))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_changed_while_running_is_picked_up_by_the_next_connection() {
    let cluster = start().await;
    let vault = Vault::new("app", "first");
    let db = vault.builder(&cluster).open().await.unwrap();
    let user: String = db.fetch_one("select current_user::text", ()).await.unwrap();
    assert_eq!(user, "app");
    sql(&cluster, "alter role app password 'second'").await;
    vault.set(Ok(("app", "second")));
    cluster.run(Cluster::kill_backends).await.unwrap();
    let one: i64 = db.fetch_one("select 1", ()).await.unwrap();
    assert_eq!(one, 1);
    // A role of another name, too.
    sql(
        &cluster,
        "create role later login password 'third'; drop role app",
    )
    .await;
    vault.set(Ok(("later", "third")));
    cluster.run(Cluster::kill_backends).await.unwrap();
    let user: String = db.fetch_one("select current_user::text", ()).await.unwrap();
    assert_eq!(user, "later");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_replaced_between_question_and_login_is_asked_for_once_more() {
    let cluster = start().await;
    let url = format!("postgres://app@127.0.0.1:{}/postgres", cluster.port());
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let builder = Database::builder(&url)
        .connection_limit(1)
        .credentials(move || {
            let number = count.fetch_add(1, Ordering::Relaxed);
            let password = if number == 0 { "old" } else { "first" };
            async move { Ok::<_, Error>(Credentials::password(password)) }
        });
    let db = builder.open().await.unwrap();
    assert_eq!(db.fetch_one::<i64>("select 1", ()).await.unwrap(), 1);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_fails_is_named_and_asked_again() {
    let cluster = start().await;
    let vault = Vault::new("app", "first");
    let db = vault.builder(&cluster).open().await.unwrap();
    vault.set(Err("the vault is sealed"));
    cluster.run(Cluster::kill_backends).await.unwrap();
    let error = db
        .fetch_one::<i64>("select 1", ())
        .timeout(Duration::from_millis(500))
        .await
        .unwrap_err();
    let mut chain = vec![format!("{error}")];
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        chain.push(cause.to_string());
        source = cause.source();
    }
    let chain = chain.join("; ");
    assert!(
        chain.contains("the provider of the credentials failed"),
        "{chain}"
    );
    vault.set(Ok(("app", "first")));
    wait_for("the next question", LONG, async || {
        db.fetch_one::<i64>("select 1", ()).await.ok()
    })
    .await
    .unwrap();
    // A wrong answer is refused at once, and nothing shows it.
    vault.set(Ok(("app", "hunter2")));
    let error = vault.builder(&cluster).open().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (Kind::Credentials, Class::Permanent)
    );
    assert!(
        !format!("{error} {error:?}").contains("hunter2"),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_hangs_costs_one_attempt_to_connect() {
    let cluster = start().await;
    let url = format!("postgres://app@127.0.0.1:{}/postgres", cluster.port());
    let builder = Database::builder(&url)
        .connect_timeout(Duration::from_millis(300))
        .credentials(std::future::pending::<Result<Credentials, Error>>);
    let started = tokio::time::Instant::now();
    let error = builder.open().await.unwrap_err();
    assert!(started.elapsed() < LONG / 6, "{:?}", started.elapsed());
    assert!(
        matches!(error.kind(), Kind::Credentials | Kind::Unreachable),
        "{error}"
    );
}

#[tokio::test]
async fn a_sqlite_file_asks_for_no_credentials() {
    let builder = Database::builder("file::memory:")
        .credentials(|| async { Ok::<_, Error>(Credentials::password("x")) });
    assert_eq!(builder.open().await.unwrap_err().kind(), Kind::Config);
    assert_eq!(format!("{:?}", Secret::new("x")), "***");
}
