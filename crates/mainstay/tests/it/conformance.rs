//! Every law of the conformance suite on both databases, and every saboteur caught on both.

use mainstay_testkit::conformance::{Law, Subject, laws};

/// A fresh database for one law.
enum Fresh {
    File(tempfile::TempDir),
    Server(mainstay_testkit::TestDatabase),
}

impl Fresh {
    fn file() -> Self {
        Self::File(tempfile::tempdir().unwrap())
    }

    async fn server() -> Self {
        Self::Server(mainstay_testkit::database().await.unwrap())
    }

    fn url(&self) -> String {
        match self {
            Self::File(directory) => format!("file:{}/law.db", directory.path().display()),
            Self::Server(database) => database.url(),
        }
    }
}

async fn hold(law: &Law, fresh: &Fresh) -> Result<(), String> {
    let subject = Subject::open(&fresh.url(), None)
        .await
        .map_err(|error| error.to_string())?;
    law.check(subject)
        .await
        .map_err(|broken| format!("{}: {broken}", law.name))
}

/// The saboteur is caught: the law says that it is broken.
async fn bite(law: &Law, fresh: &Fresh) -> Result<(), String> {
    let saboteur = law.saboteur();
    let subject = Subject::open(&fresh.url(), Some(saboteur))
        .await
        .map_err(|error| error.to_string())?;
    match law.check(subject).await {
        Err(_) => Ok(()),
        Ok(()) => Err(format!("{}: its saboteur was not caught", law.name)),
    }
}

fn none(failures: &[String]) {
    assert!(
        failures.is_empty(),
        "{} laws failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_law_holds_on_sqlite() {
    let mut failures = Vec::new();
    for law in laws() {
        failures.extend(hold(&law, &Fresh::file()).await.err());
    }
    none(&failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_law_holds_on_postgres() {
    let mut failures = Vec::new();
    for law in laws() {
        failures.extend(hold(&law, &Fresh::server().await).await.err());
    }
    none(&failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_law_bites_on_sqlite() {
    let mut failures = Vec::new();
    for law in laws() {
        failures.extend(bite(&law, &Fresh::file()).await.err());
    }
    none(&failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_law_bites_on_postgres() {
    let mut failures = Vec::new();
    for law in laws() {
        failures.extend(bite(&law, &Fresh::server().await).await.err());
    }
    none(&failures);
}
