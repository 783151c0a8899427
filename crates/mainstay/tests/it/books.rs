//! Books that must balance: callers move amounts between accounts, each with the id of its move in
//! the same transaction. What was acknowledged is there once, what was refused is not there, and no
//! cent is lost.

use mainstay::{Error, Result, Tx};
use mainstay_testkit::Cluster;
use std::collections::BTreeSet;

const ACCOUNTS: i64 = 8;
const CENTS: i64 = 1000;

/// Opens the accounts.
pub(crate) fn open(cluster: &Cluster) {
    let schema = format!(
        "create table accounts (id bigint primary key, cents bigint not null); \
         create table moves (id bigint not null); \
         insert into accounts select n, {CENTS} from generate_series(0, {}) n",
        ACCOUNTS - 1
    );
    cluster.psql(&schema).unwrap();
}

/// Moves a random amount between two random accounts; the same with the same seed.
pub(crate) async fn book(tx: &Tx, id: i64, seed: u64) -> Result<()> {
    let mut rng = fastrand::Rng::with_seed(seed ^ id.unsigned_abs());
    let cents = rng.i64(1..100);
    let mut steps = [
        (rng.i64(0..ACCOUNTS), -cents),
        (rng.i64(0..ACCOUNTS), cents),
    ];
    // In one order, so that two moves do not wait for each other in a circle.
    steps.sort_unstable();
    for (account, cents) in steps {
        let text = "update accounts set cents = cents + $2 where id = $1";
        tx.execute(text, (account, cents)).await?;
    }
    tx.execute("insert into moves (id) values ($1)", (id,))
        .await?;
    Ok(())
}

/// What callers were told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) done: BTreeSet<i64>,
    pub(crate) unknown: BTreeSet<i64>,
    /// Everything else: not done, for certain.
    pub(crate) refused: Vec<(i64, Error)>,
}

impl Told {
    pub(crate) fn note(&mut self, id: i64, told: Result<()>) {
        match told {
            Ok(()) => drop(self.done.insert(id)),
            Err(error) if error.is_outcome_unknown() => drop(self.unknown.insert(id)),
            Err(error) => self.refused.push((id, error)),
        }
    }

    pub(crate) fn join(&mut self, other: Self) {
        self.done.extend(other.done);
        self.unknown.extend(other.unknown);
        self.refused.extend(other.refused);
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [done, unknown] = [&self.done, &self.unknown].map(BTreeSet::len);
        let refused = self.refused.len();
        write!(f, "{done} done, {unknown} unknown, {refused} refused")
    }
}

/// What is in the books agrees with what the callers were told.
pub(crate) fn audit(cluster: &Cluster, told: &Told) {
    let moves = cluster.psql("select id from moves order by id").unwrap();
    let moves: Vec<i64> = moves.lines().map(|id| id.parse().unwrap()).collect();
    let there: BTreeSet<i64> = moves.iter().copied().collect();
    assert_eq!(there.len(), moves.len(), "a move was booked twice");
    let lost: Vec<_> = told.done.difference(&there).collect();
    assert!(lost.is_empty(), "acknowledged and not there: {lost:?}");
    let known: BTreeSet<i64> = told.done.union(&told.unknown).copied().collect();
    let surplus: Vec<_> = there.difference(&known).collect();
    assert!(surplus.is_empty(), "there and never promised: {surplus:?}");
    let total = cluster.psql("select sum(cents) from accounts").unwrap();
    assert_eq!(total, (ACCOUNTS * CENTS).to_string(), "cents were lost");
}
