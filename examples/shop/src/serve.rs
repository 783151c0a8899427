//! From the listening socket to the orderly end.

use crate::config::Config;
use crate::seed::USERS;
use crate::stop::Signals;
use crate::{Failure, app, start};
use mainstay::Database;
use mainstay_axum::{Metrics, Readiness};
use std::future::IntoFuture;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long requests that are being served may take to finish. Supervisors wait 10 to 30 seconds
/// before they kill.
const GRACE: Duration = Duration::from_secs(10);

/// How long the database may take to close after that; what still runs then is cancelled.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// Serves until a signal comes, then ends in order. A second signal ends at once.
pub(crate) async fn serve(config: Config) -> Result<(), Failure> {
    let mut signals = Signals::listen()
        .map_err(|cause| Failure::Start(format!("signals cannot be received: {cause}")))?;
    if let Err(error) = Metrics::install() {
        tracing::warn!(%error, "there will be no metrics");
    }
    let db = config.open().map_err(Failure::Config)?;
    let listener = listen(&config.listen).await?;
    let address = listener
        .local_addr()
        .map_err(|cause| Failure::Start(format!("the address is not known: {cause}")))?;
    greet(address, &db).map_err(|cause| {
        Failure::Start(format!("standard output cannot be written to: {cause}"))
    })?;

    let readiness = Readiness::waiting(start::WAITING);
    let router = app::router(db.clone(), &readiness);
    let (stop, stopped) = oneshot::channel::<()>();
    let server = axum::serve(listener, router)
        .with_graceful_shutdown(async move { drop(stopped.await) })
        .into_future();
    let server = tokio::spawn(server);
    let preparing = start::prepare(&db, &readiness);
    let mut failure = None;
    tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "asked to end: no more connections, requests may finish");
        }
        error = never_done(preparing) => {
            failure = Some(Failure::Start(error.to_string()));
        }
    }
    drop(stop); // which is the server's sign to end
    let ending = async {
        match timeout(GRACE, server).await {
            Ok(_) => tracing::info!("every request was answered"),
            Err(_) => tracing::warn!(grace = ?GRACE, "requests were cut off"),
        }
        db.close_within(CLOSE_GRACE).await
    };
    tokio::select! {
        report = ending => tracing::info!(left = report.left, "ended"),
        _ = signals.next() => failure = Some(Failure::Interrupted),
    }
    failure.map_or(Ok(()), Err)
}

/// Waits on after success: a shop that is prepared goes on until it is asked to end.
async fn never_done(preparing: impl Future<Output = mainstay::Result<()>>) -> mainstay::Error {
    match preparing.await {
        Ok(()) => std::future::pending().await,
        Err(error) => error,
    }
}

async fn listen(address: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|cause| {
        Failure::Config(format!(
            "cannot listen on {address:?}: {cause}; set LISTEN_ADDR, for instance to 127.0.0.1:0"
        ))
    })
}

/// The address on the first line, for programs; then what to try, for people.
fn greet(address: SocketAddr, db: &Database) -> std::io::Result<()> {
    let [(_, _, token), ..] = USERS;
    let tokens = USERS.map(|(_, _, token)| token).join(", ");
    let (system, target) = (db.system().as_str(), db.target());
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "http://{address}

A shop on {system}: {target}. Try:

  curl -s http://{address}/api/health
  curl -s -H 'authorization: Bearer {token}' http://{address}/api/services
  curl -s -H 'authorization: Bearer {token}' --json '{{\"items\": [{{\"service_id\": 1, \"quantity\": 2}}]}}' http://{address}/api/orders
  curl -s -H 'authorization: Bearer {token}' --json '{{\"service_id\": 1, \"slot\": \"2099-01-01T10:00:00Z\"}}' http://{address}/api/bookings
  curl -s http://{address}/metrics

Demo tokens, known to everybody: {tokens}. Ctrl-C ends the shop."
    )?;
    out.flush()
}
