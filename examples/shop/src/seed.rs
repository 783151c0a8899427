//! The first data: an empty shop shows nothing.

use crate::auth::hash;
use mainstay::{Database, Result, Timestamp, Tx};

/// Users and their demo tokens. Everybody who can read this file knows the tokens; a shop in
/// earnest hands out random ones.
pub(crate) const USERS: [(&str, &str, &str); 2] = [
    ("Ada", "ada@example.org", "demo-ada"),
    ("Bob", "bob@example.org", "demo-bob"),
];

const SERVICES: [(&str, &str, i64, i64); 4] = [
    ("Haircut", "Wash, cut and dry", 4_500, 45),
    ("Massage", "Back and shoulders", 7_000, 60),
    ("Consultation", "Half an hour with an expert", 0, 30),
    ("Photo session", "In the studio, ten pictures", 19_900, 120),
];

const BENEFITS: [(&str, &str, i64); 2] = [
    ("Welcome", "For the first order", 10),
    ("Loyalty", "After ten orders", 15),
];

/// Fills a shop without users, in one transaction; answers whether it did. Shops that start at the
/// same time on one database do it once.
pub(crate) async fn plant(db: &Database) -> Result<bool> {
    db.transaction(async |tx| {
        let users: i64 = tx.fetch_one("select count(*) from users", ()).await?;
        if users > 0 {
            return Ok(false);
        }
        people(&tx).await?;
        goods(&tx).await?;
        Ok(true)
    })
    .await
}

async fn people(tx: &Tx) -> Result<()> {
    for (name, email, token) in USERS {
        tx.execute(
            "insert into users (name, email, updated_at) values ($1, $2, $3) \
             on conflict do nothing",
            (name, email, Timestamp::now()),
        )
        .await?;
        tx.execute(
            "insert into tokens (hash, user_id) \
             select cast($1 as text), id from users where email = $2 on conflict do nothing",
            (hash(token), email),
        )
        .await?;
    }
    Ok(())
}

async fn goods(tx: &Tx) -> Result<()> {
    for (name, description, price_cents, duration_minutes) in SERVICES {
        tx.execute(
            "insert into services (name, description, price_cents, duration_minutes, created_at) \
             values ($1, $2, $3, $4, $5) on conflict do nothing",
            (
                name,
                description,
                price_cents,
                duration_minutes,
                Timestamp::now(),
            ),
        )
        .await?;
    }
    for (title, description, percent_off) in BENEFITS {
        tx.execute(
            "insert into benefits (title, description, percent_off, created_at) \
             values ($1, $2, $3, $4) on conflict do nothing",
            (title, description, percent_off, Timestamp::now()),
        )
        .await?;
    }
    Ok(())
}
