//! Why errands: opening, checking, cleaning and closing take time, and a caller may stop waiting at
//! any moment. Each is a task of its own that outlives whoever caused it, bounded in time, holding
//! its slot by a claim; however it ends, the ledger hears of it.

use std::sync::Arc;

use tokio::time::{Instant, timeout};

use crate::connector::{CloseReason, Condition, Connector, Tag};
use crate::lender::{Claim, Kept, SOLE};
use crate::observer::Event;
use crate::opening::Failure;

/// Opens one connection.
pub(crate) async fn connect<K: Connector>(mut claim: Claim<K>, tag: Tag) {
    let lender = claim.lender.clone();
    let mut stop = lender.stop.subscribe();
    let begun = Instant::now();
    let limit = lender.settings.connect_timeout;
    let outcome = tokio::select! {
        biased;
        outcome = timeout(limit, lender.connector.connect(tag)) => outcome,
        _ = stop.wait_for(|stopped| *stopped) => {
            claim.settle(|ledger, index, now, orders| ledger.vacate(now, index, orders));
            return;
        }
    };
    let took = begun.elapsed();
    let (error, timed_out) = match outcome {
        Ok(Ok(connection)) => {
            lender.tell(&Event::Connected(took));
            claim.settle(|ledger, index, now, orders| {
                ledger.connected(now, index, Arc::new(connection), orders);
            });
            return;
        }
        Ok(Err(error)) => (Some(error), false),
        Err(_) => (lender.connector.timed_out(limit), true),
    };
    let permanent = !timed_out
        && error
            .as_ref()
            .is_some_and(|e| lender.connector.is_permanent(e));
    let pool = &*lender.settings.name;
    match &error {
        Some(error) => tracing::warn!(pool, ?took, permanent, %error, "connecting failed"),
        None => tracing::warn!(pool, ?took, "connecting got no answer"),
    }
    lender.tell(&Event::ConnectFailed {
        took,
        permanent,
        timed_out,
    });
    let retry_after = error
        .as_ref()
        .and_then(|error| lender.connector.retry_after(error));
    let failure = Failure {
        error,
        permanent,
        retry_after,
    };
    claim.settle(|ledger, index, now, orders| {
        ledger.connect_failed(now, index, failure, orders);
    });
}

/// Asks a connection that was idle for a while whether it still answers.
pub(crate) async fn check<K: Connector>(claim: Claim<K>, mut connection: Kept<K>) {
    let lender = claim.lender.clone();
    let mut stop = lender.stop.subscribe();
    let begun = Instant::now();
    let whole = Arc::get_mut(&mut connection).expect(SOLE);
    let asked = tokio::select! {
        biased;
        asked = timeout(lender.settings.check_timeout, lender.connector.check(whole)) => asked,
        _ = stop.wait_for(|stopped| *stopped) => {
            return retire(claim, connection, CloseReason::PoolClosed);
        }
    };
    let pool = &*lender.settings.name;
    match asked {
        Ok(Ok(())) => {
            lender.tell(&Event::Checked(begun.elapsed()));
            admit(claim, connection, CloseReason::CheckFailed);
        }
        Ok(Err(error)) => {
            tracing::debug!(pool, %error, "an idle connection did not pass its check");
            retire(claim, connection, CloseReason::CheckFailed);
        }
        Err(_) => {
            tracing::debug!(pool, "an idle connection did not answer its check");
            retire(claim, connection, CloseReason::CheckFailed);
        }
    }
}

/// Makes a connection clean that its user left dirty.
pub(crate) async fn clean<K: Connector>(claim: Claim<K>, mut connection: Kept<K>) {
    let lender = claim.lender.clone();
    let mut stop = lender.stop.subscribe();
    let begun = Instant::now();
    let whole = Arc::get_mut(&mut connection).expect(SOLE);
    let cleaned = tokio::select! {
        biased;
        cleaned = timeout(lender.settings.clean_timeout, lender.connector.clean(whole)) => cleaned,
        _ = stop.wait_for(|stopped| *stopped) => {
            return retire(claim, connection, CloseReason::PoolClosed);
        }
    };
    let pool = &*lender.settings.name;
    match cleaned {
        Ok(Ok(())) => {
            lender.tell(&Event::Cleaned(begun.elapsed()));
            admit(claim, connection, CloseReason::CleanFailed);
        }
        Ok(Err(error)) => {
            tracing::warn!(pool, %error, "a returned connection could not be made clean");
            retire(claim, connection, CloseReason::CleanFailed);
        }
        Err(_) => {
            tracing::warn!(pool, "a returned connection was not clean in time");
            retire(claim, connection, CloseReason::CleanFailed);
        }
    }
}

/// Closes a connection; the slot is free when the other side has let go or the time is over.
pub(crate) async fn close<K: Connector>(
    mut claim: Claim<K>,
    connection: Kept<K>,
    reason: CloseReason,
) {
    let lender = claim.lender.clone();
    let connection = Arc::into_inner(connection).expect(SOLE);
    let closing = lender.connector.close(connection, reason);
    if timeout(lender.settings.close_timeout, closing)
        .await
        .is_err()
    {
        let pool = &*lender.settings.name;
        let reason = reason.as_str();
        tracing::warn!(
            pool,
            reason,
            "a connection was not closed in time and was dropped"
        );
    }
    claim.settle(|ledger, index, now, orders| {
        ledger.totals.closed += 1;
        ledger.vacate(now, index, orders);
    });
    lender.tell(&Event::Closed(reason));
}

/// Gives a connection back to the ledger if it is clean by its own account, else closes it.
fn admit<K: Connector>(mut claim: Claim<K>, connection: Kept<K>, otherwise: CloseReason) {
    if claim.lender.connector.condition(&connection) != Condition::Clean {
        return retire(claim, connection, otherwise);
    }
    let tag = claim.lender.connector.tag(&connection);
    claim.settle(|ledger, index, now, orders| {
        ledger.slots.note_tag(index, tag);
        ledger.arrive(now, index, connection, orders);
    });
}

fn retire<K: Connector>(mut claim: Claim<K>, connection: Kept<K>, reason: CloseReason) {
    claim.settle(|ledger, index, now, orders| {
        ledger.dismiss(now, index, connection, reason, orders);
        ledger.settle(now, orders);
    });
}
