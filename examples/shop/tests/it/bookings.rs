//! A slot is sold once, whatever the concurrency.

use crate::shop::{ADA, BOB, Shop};
use reqwest::StatusCode;
use serde_json::json;
use std::sync::Arc;
use tokio::task::JoinSet;

const SHOPPERS: usize = 200;

#[tokio::test]
async fn one_of_200_gets_the_slot_on_sqlite() {
    rush(Shop::on_sqlite("").await).await;
}

#[tokio::test]
async fn one_of_200_gets_the_slot_on_postgres() {
    let database = mainstay_testkit::database().await.unwrap();
    rush(Shop::on_postgres(&database, "?connection_limit=10").await).await;
    let slots = "select count(*) from bookings where slot = '2099-05-01T09:15:00Z'";
    assert_eq!(database.psql(slots).unwrap(), "1");
}

async fn rush(shop: Shop) {
    let shop = Arc::new(shop);
    let mut shoppers = JoinSet::new();
    for index in 0..SHOPPERS {
        let shop = Arc::clone(&shop);
        let token = if index % 2 == 0 { ADA } else { BOB };
        let body = json!({"service_id": 1, "slot": "2099-05-01T09:15:00Z"});
        shoppers.spawn(async move { shop.post("/api/bookings", token, body).await });
    }
    let (mut sold, mut refused) = (0, 0);
    for answer in shoppers.join_all().await {
        match answer.status {
            StatusCode::CREATED => sold += 1,
            StatusCode::CONFLICT => {
                assert_eq!(answer.json()["code"], "slot_taken");
                refused += 1;
            }
            _ => panic!("{answer:?}\n{}", shop.log()),
        }
    }
    assert_eq!((sold, refused), (1, SHOPPERS - 1));
    let ada = shop.get("/api/bookings", ADA).await.json();
    let bob = shop.get("/api/bookings", BOB).await.json();
    let booked = [ada, bob].map(|list| list["items"].as_array().unwrap().len());
    assert_eq!(booked.iter().sum::<usize>(), 1);
    // The next slot is free.
    let next = json!({"service_id": 1, "slot": "2099-05-01T09:30:00Z"});
    let answer = shop.post("/api/bookings", ADA, next).await;
    assert_eq!(answer.status, StatusCode::CREATED);
}
