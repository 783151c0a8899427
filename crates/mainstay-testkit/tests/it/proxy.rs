//! Every fault of the proxy, seen from both of its sides.

use std::io::ErrorKind;
use std::time::Duration;

use mainstay_testkit::proxy::{Direction, Proxy};
use mainstay_testkit::{database, wait_for};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

const LONG: Duration = Duration::from_secs(60);

/// Long enough to be sure that nothing comes, as sure as one can be of that.
const SILENCE: Duration = Duration::from_millis(200);

/// A server that sends everything back; its connections end with it.
struct Echo {
    listener: std::net::SocketAddr,
    _serving: JoinSet<()>,
}

async fn echo() -> Echo {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut clients = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            clients.spawn(async move {
                let (mut from, mut to) = client.split();
                tokio::io::copy(&mut from, &mut to).await.ok();
            });
        }
    });
    Echo {
        listener: address,
        _serving: serving,
    }
}

async fn said_back(client: &mut TcpStream, text: &[u8]) -> std::io::Result<Vec<u8>> {
    client.write_all(text).await?;
    let mut answer = vec![0; text.len()];
    timeout(LONG, client.read_exact(&mut answer))
        .await
        .unwrap()?;
    Ok(answer)
}

#[tokio::test]
async fn what_goes_in_comes_out_and_a_regular_end_stays_one() {
    let echo = echo().await;
    let proxy = Proxy::start(echo.listener).await.unwrap();
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    // More than all buffers hold, so that both directions must flow at the same time.
    let sent: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut from, mut to) = client.split();
    let mut received = Vec::new();
    let send = async {
        to.write_all(&sent).await?;
        to.shutdown().await
    };
    let (sending, receiving) = tokio::join!(send, from.read_to_end(&mut received));
    sending.unwrap();
    receiving.unwrap();
    assert!(received == sent);
    assert_eq!(proxy.accepted(), 1);
    for direction in [Direction::ToTarget, Direction::FromTarget] {
        assert_eq!(proxy.passed(direction), 4_000_000, "{direction:?}");
    }
    wait_for("the link to end", LONG, async || {
        (proxy.connections() == 0).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_round_trip_is_what_is_said_after_an_answer_however_many_pieces_it_has() {
    let echo = echo().await;
    let proxy = Proxy::start(echo.listener).await.unwrap();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(proxy.round_trips(), 0);
    for done in 1..=3 {
        assert_eq!(said_back(&mut stream, b"one").await.unwrap(), b"one");
        assert_eq!(proxy.round_trips(), done);
    }
    // No answer comes between the pieces: it is held back.
    proxy.latency(Duration::from_millis(500));
    stream.set_nodelay(true).unwrap();
    stream.write_all(b"tw").await.unwrap();
    assert_eq!(said_back(&mut stream, b"o").await.unwrap(), b"t");
    let mut rest = [0; 2];
    stream.read_exact(&mut rest).await.unwrap();
    assert_eq!((&rest, proxy.round_trips()), (b"wo", 4));
    let mut other = TcpStream::connect(proxy.address()).await.unwrap();
    said_back(&mut other, b"three").await.unwrap();
    assert_eq!(proxy.round_trips(), 5);
}

#[tokio::test]
async fn a_refusing_proxy_keeps_its_port_and_its_open_connections() {
    let echo = echo().await;
    let proxy = Proxy::start(echo.listener).await.unwrap();
    let mut old = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(said_back(&mut old, b"one").await.unwrap(), b"one");
    for _ in 0..3 {
        proxy.refuse().await.unwrap();
        let refused = TcpStream::connect(proxy.address()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let stranger = TcpSocket::new_v4().unwrap();
        assert_eq!(
            stranger.bind(proxy.address()).unwrap_err().kind(),
            ErrorKind::AddrInUse
        );
        assert_eq!(said_back(&mut old, b"two").await.unwrap(), b"two");
        proxy.forward().await.unwrap();
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(said_back(&mut new, b"three").await.unwrap(), b"three");
    }
}

#[tokio::test]
async fn a_black_hole_accepts_and_swallows_until_it_forwards() {
    let echo = echo().await;
    let proxy = Proxy::start(echo.listener).await.unwrap();
    let mut old = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(said_back(&mut old, b"one").await.unwrap(), b"one");
    proxy.black_hole().await.unwrap();
    let mut new = TcpStream::connect(proxy.address()).await.unwrap();
    for client in [&mut old, &mut new] {
        client.write_all(b"?").await.unwrap();
        assert!(timeout(SILENCE, client.read_u8()).await.is_err());
    }
    proxy.forward().await.unwrap();
    for client in [&mut old, &mut new] {
        assert_eq!(
            timeout(LONG, client.read_u8()).await.unwrap().unwrap(),
            b'?'
        );
    }
}

#[tokio::test]
async fn a_cut_resets_everybody_and_spares_those_who_come_after() {
    let echo = echo().await;
    let proxy = Proxy::start(echo.listener).await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        said_back(&mut client, b"here").await.unwrap();
        clients.push(client);
    }
    assert_eq!(proxy.connections(), 5);
    proxy.cut_all().await;
    assert_eq!(proxy.connections(), 0);
    for client in &mut clients {
        let reset = timeout(LONG, client.read_u8()).await.unwrap().unwrap_err();
        assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    }
    let mut after = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(said_back(&mut after, b"later").await.unwrap(), b"later");
}

#[tokio::test]
async fn an_answer_breaks_off_after_exactly_the_bytes_allowed() {
    let echo = echo().await;
    let proxy = Proxy::start(echo.listener).await.unwrap();
    for allowed in [0, 1, 4] {
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        said_back(&mut client, b"before").await.unwrap();
        proxy.cut_after(allowed, Direction::FromTarget);
        client.write_all(b"12345").await.unwrap();
        let mut received = Vec::new();
        let reset = timeout(LONG, client.read_to_end(&mut received))
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
        assert_eq!(received, b"12345"[..allowed as usize]);
    }
    let mut after = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(said_back(&mut after, b"whole").await.unwrap(), b"whole");
}

#[tokio::test]
async fn a_question_that_is_cut_off_never_reaches_the_target() {
    let echo = echo().await;
    let proxy = Proxy::start(echo.listener).await.unwrap();
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    proxy.cut_after(0, Direction::ToTarget);
    let reset = said_back(&mut client, b"lost").await.unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn latency_delays_each_direction_and_reorders_nothing() {
    let echo = echo().await;
    let proxy = Proxy::start(echo.listener).await.unwrap();
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    said_back(&mut client, b"quick").await.unwrap();
    proxy.latency(Duration::from_millis(100));
    let before = Instant::now();
    assert_eq!(said_back(&mut client, b"slow").await.unwrap(), b"slow");
    assert!(
        before.elapsed() >= Duration::from_millis(200),
        "{:?}",
        before.elapsed()
    );
    proxy.latency(Duration::ZERO);
    assert_eq!(
        said_back(&mut client, b"in order").await.unwrap(),
        b"in order"
    );
}

#[tokio::test]
async fn a_target_that_is_away_shows_as_a_reset() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let proxy = Proxy::start(nobody).await.unwrap();
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let reset = timeout(LONG, client.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_dropped_proxy_resets_its_connections_and_frees_its_port() {
    let echo = echo().await;
    let proxy = Proxy::start(echo.listener).await.unwrap();
    let address = proxy.address();
    let mut client = TcpStream::connect(address).await.unwrap();
    said_back(&mut client, b"here").await.unwrap();
    drop(proxy);
    let reset = timeout(LONG, client.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    let refused = wait_for("the port to close", LONG, async || {
        TcpStream::connect(address).await.err()
    });
    assert_eq!(refused.await.unwrap().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_client_reaches_a_real_server_through_the_proxy() {
    let database = database().await.unwrap();
    let proxy = Proxy::start(("127.0.0.1", database.cluster().port()))
        .await
        .unwrap();
    let url = proxy.rewrite(&database.url());
    let psql = database.cluster().program("psql");
    let ask = move || {
        let asked = std::process::Command::new(&psql)
            .args(["-XAtqc", "select 6 * 7", &url])
            .output();
        asked.unwrap()
    };
    let answered = tokio::task::spawn_blocking(ask.clone()).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answered.stdout).trim(), "42");
    assert_eq!(proxy.accepted(), 1);
    proxy.refuse().await.unwrap();
    let refused = tokio::task::spawn_blocking(ask).await.unwrap();
    assert!(!refused.status.success());
}

#[tokio::test]
async fn stranded_connections_fall_silent_and_new_ones_pass() {
    let echo = echo().await;
    let proxy = Proxy::start(echo.listener).await.unwrap();
    let mut old = TcpStream::connect(proxy.address()).await.unwrap();
    let mut buffer = [0; 4];
    old.write_all(b"ping").await.unwrap();
    old.read_exact(&mut buffer).await.unwrap();
    proxy.strand();
    old.write_all(b"ping").await.unwrap();
    let silent = timeout(SILENCE, old.read_exact(&mut buffer)).await;
    assert!(silent.is_err(), "{silent:?}");
    let mut new = TcpStream::connect(proxy.address()).await.unwrap();
    new.write_all(b"ping").await.unwrap();
    timeout(LONG, new.read_exact(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(proxy.connections(), 2);
}
