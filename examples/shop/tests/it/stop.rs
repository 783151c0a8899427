//! The orderly end: what is being served finishes, and nothing is left behind.

use crate::load::load_time;
use crate::shop::{ADA, PATIENCE, Shop, clients};
use mainstay_testkit::wait_for;
use reqwest::StatusCode;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The grace of the shop, with what closing may take.
const END: Duration = Duration::from_secs(15);

const BOOKING: &str = r#"{"service_id": 1, "slot": "2099-07-01T08:00:00Z"}"#;

/// A request whose body has not arrived yet.
async fn half_a_request(shop: &Shop) -> TcpStream {
    let mut stream = TcpStream::connect(shop.address()).await.unwrap();
    // The server's "100 Continue" tells that the handler is waiting for the body.
    let head = format!(
        "POST /api/bookings HTTP/1.1\r\nhost: shop\r\nauthorization: Bearer {ADA}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        BOOKING.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100");
    stream
}

#[tokio::test]
async fn a_request_that_is_being_served_finishes_after_sigterm() {
    finishes("TERM").await;
}

#[tokio::test]
async fn a_request_that_is_being_served_finishes_after_sigint() {
    finishes("INT").await;
}

async fn finishes(signal: &str) {
    let mut shop = Shop::on_sqlite("").await;
    let mut stream = half_a_request(&shop).await;
    shop.signal(signal).await;
    shop.stops_listening().await;
    stream.write_all(BOOKING.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("HTTP/1.1 201 Created"), "{answer}");
    let status = shop.ends().await;
    assert_eq!(status.code(), Some(0), "{}", shop.log());
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let mut shop = Shop::on_sqlite("").await;
    let stream = half_a_request(&shop).await;
    shop.signal("TERM").await;
    shop.stops_listening().await;
    let asked = Instant::now();
    shop.signal("TERM").await;
    let status = shop.ends().await;
    assert_eq!(status.code(), Some(130), "{}", shop.log());
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    drop(stream);
}

#[tokio::test]
async fn an_end_under_load_leaves_no_connection_behind() {
    let database = mainstay_testkit::database().await.unwrap();
    let mut shop = Shop::on_postgres(&database, "?connection_limit=10").await;
    let (url, client) = (shop.url.clone(), shop.client.clone());
    let served = Arc::new(AtomicUsize::new(0));
    let mut users = JoinSet::new();
    for _ in 0..50 {
        let (url, client, served) = (url.clone(), client.clone(), Arc::clone(&served));
        users.spawn(async move {
            // Until nobody listens any more. Whatever is answered at all is answered well.
            loop {
                let body = json!({"items": [{"service_id": 1, "quantity": 1}]});
                let request = client.post(format!("{url}/api/orders")).bearer_auth(ADA);
                match request.json(&body).send().await {
                    Ok(response) => {
                        assert_eq!(response.status(), StatusCode::CREATED);
                        response.bytes().await.unwrap();
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(_) => return,
                }
            }
        });
    }
    let busy = async || (served.load(Ordering::Relaxed) > 100).then_some(());
    wait_for("the load to be on", PATIENCE.max(load_time()), busy)
        .await
        .unwrap();
    let asked = Instant::now();
    shop.signal("INT").await;
    let status = shop.ends().await;
    assert_eq!(status.code(), Some(0), "{}", shop.log());
    assert!(asked.elapsed() < END, "{:?}", asked.elapsed());
    assert_eq!(clients(&database).await, 0, "{}", shop.log());
    users.join_all().await;
    assert!(!shop.log().contains("cut off"), "{}", shop.log());
    // What reached the shop was answered, and what was answered is there: not one order more, which
    // somebody would have paid without knowing, and not one less.
    let orders: usize = database
        .psql("select count(*) from orders")
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(orders, served.load(Ordering::Relaxed), "{}", shop.log());
}
