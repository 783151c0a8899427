//! Starting the program, asking it, ending it.

use mainstay_testkit::{TestDatabase, wait_for};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Far beyond what anything here takes; it ends a broken test with a sentence.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const ADA: &str = "demo-ada";
pub(crate) const BOB: &str = "demo-bob";

/// A running shop. It is killed when dropped.
pub(crate) struct Shop {
    child: Child,
    pub(crate) url: String,
    pub(crate) client: reqwest::Client,
    directory: TempDir,
}

/// What it answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

/// The program, in an empty directory of its own, without the environment of whoever runs the test.
pub(crate) fn program(directory: &TempDir, database_url: &str) -> Command {
    let log = std::fs::File::create(directory.path().join("log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
    command
        .current_dir(directory.path())
        .env_clear()
        .env("DATABASE_URL", database_url)
        .env("LISTEN_ADDR", "127.0.0.1:0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true);
    command
}

impl Shop {
    /// Starts it and reads its address, the first line on standard output.
    pub(crate) async fn start(database_url: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut child = program(&directory, database_url).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
        let log = || std::fs::read_to_string(directory.path().join("log")).unwrap_or_default();
        let url = first.unwrap_or_else(|| panic!("no address on standard output: {}", log()));
        assert!(url.starts_with("http://127.0.0.1:"), "{url}");
        // The rest is for people; it is read so that the pipe never fills.
        let mut rest = lines.into_inner();
        drop(tokio::spawn(async move {
            rest.read_to_end(&mut Vec::new()).await
        }));
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE);
        Self {
            child,
            url,
            client: client.build().unwrap(),
            directory,
        }
    }

    /// Starts it on a SQLite file and waits until it is ready.
    pub(crate) async fn on_sqlite(parameters: &str) -> Self {
        Self::ready(&format!("file:./shop.db{parameters}")).await
    }

    /// Starts it on a PostgreSQL database and waits until it is ready.
    pub(crate) async fn on_postgres(database: &TestDatabase, parameters: &str) -> Self {
        Self::ready(&format!("{}{parameters}", database.url())).await
    }

    async fn ready(database_url: &str) -> Self {
        let shop = Self::start(database_url).await;
        shop.becomes_healthy().await;
        shop
    }

    pub(crate) async fn becomes_healthy(&self) {
        let healthy = async || {
            let health = self.ask(Method::GET, "/api/health", "", None).await;
            (health.status == StatusCode::OK).then_some(())
        };
        if let Err(late) = wait_for("the shop to be healthy", PATIENCE, healthy).await {
            panic!("{late}: {}", self.log());
        }
    }

    /// What it wrote into its log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// `127.0.0.1:port`
    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<Value>,
    ) -> Answer {
        self.try_ask(method, path, token, body).await.unwrap()
    }

    pub(crate) async fn try_ask(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<Value>,
    ) -> reqwest::Result<Answer> {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await?;
        Ok(Answer {
            status: response.status(),
            headers: response.headers().clone(),
            text: response.text().await?,
        })
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Answer {
        self.ask(Method::GET, path, token, None).await
    }

    pub(crate) async fn post(&self, path: &str, token: &str, body: Value) -> Answer {
        self.ask(Method::POST, path, token, Some(body)).await
    }

    /// Sends a signal: `TERM` or `INT`.
    pub(crate) async fn signal(&self, name: &str) {
        let process = self.child.id().unwrap().to_string();
        let sent = Command::new("kill")
            .args([format!("-{name}"), process])
            .status()
            .await
            .unwrap();
        assert!(sent.success());
    }

    /// Waits until it takes no more connections.
    pub(crate) async fn stops_listening(&self) {
        let refused = async || {
            let connected = tokio::net::TcpStream::connect(self.address()).await;
            connected.is_err().then_some(())
        };
        wait_for("the shop to stop listening", PATIENCE, refused)
            .await
            .unwrap();
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ends(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap()
    }
}

/// Clients that PostgreSQL sees on this database, without the asking one.
pub(crate) async fn clients(database: &TestDatabase) -> usize {
    let name = database.name().to_owned();
    let asked = database.cluster().run(move |cluster| {
        cluster.psql(&format!(
            "select count(*) from pg_stat_activity where datname = '{name}' \
             and backend_type = 'client backend' and pid <> pg_backend_pid()"
        ))
    });
    asked.await.unwrap().parse().unwrap()
}
