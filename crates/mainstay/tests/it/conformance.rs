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

/// The laws that share this process; those that measure it run in one of their own.
fn together() -> impl Iterator<Item = Law> {
    laws().into_iter().filter(|law| !law.alone)
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
    for law in together() {
        failures.extend(hold(&law, &Fresh::file()).await.err());
    }
    none(&failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_law_holds_on_postgres() {
    let mut failures = Vec::new();
    for law in together() {
        failures.extend(hold(&law, &Fresh::server().await).await.err());
    }
    none(&failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_law_bites_on_sqlite() {
    let mut failures = Vec::new();
    for law in together() {
        failures.extend(bite(&law, &Fresh::file()).await.err());
    }
    none(&failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_law_bites_on_postgres() {
    let mut failures = Vec::new();
    for law in together() {
        failures.extend(bite(&law, &Fresh::server().await).await.err());
    }
    none(&failures);
}

/// Names the law, the database and the role to a process that runs this very test for one law.
const ALONE: [&str; 3] = [
    "MAINSTAY_TEST_LAW",
    "MAINSTAY_TEST_URL",
    "MAINSTAY_TEST_SABOTEUR",
];

#[tokio::test(flavor = "multi_thread")]
async fn laws_about_the_process_hold_and_bite_in_a_process_of_their_own() {
    if let [Ok(name), Ok(url), Ok(saboteur)] = ALONE.map(std::env::var) {
        let law = laws().into_iter().find(|law| law.name == name).unwrap();
        let saboteur = (saboteur == "yes").then(|| law.saboteur());
        let subject = Subject::open(&url, saboteur).await.unwrap();
        law.check(subject).await.unwrap();
        return;
    }
    let mut failures = Vec::new();
    for law in laws().iter().filter(|law| law.alone) {
        for saboteur in ["no", "yes"] {
            for fresh in [Fresh::file(), Fresh::server().await] {
                let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
                child.args([
                    "--exact",
                    "conformance::laws_about_the_process_hold_and_bite_in_a_process_of_their_own",
                ]);
                child.envs(ALONE.into_iter().zip([law.name, &fresh.url(), saboteur]));
                let output = child.output().await.unwrap();
                if output.status.success() != (saboteur == "no") {
                    let said = String::from_utf8_lossy(&output.stdout);
                    failures.push(format!("{} (saboteur: {saboteur}): {said}", law.name));
                }
            }
        }
    }
    none(&failures);
}
