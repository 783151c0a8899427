//! One connection through the proxy: two pumps, each with a bounded queue of delayed pieces.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::faults::{CountedLink, Direction, Passage};

/// A piece is what one read gives, at most this long.
const PIECE: usize = 16 * 1024;

/// Pieces under way in one direction: with [`PIECE`] at most 1 MiB.
const UNDER_WAY: usize = 64;

/// A piece and when it may arrive.
type Delayed = (Instant, Vec<u8>);

/// Carries one client until both sides have finished, or resets both.
///
/// Both sockets are set to reset when they are closed, from the beginning. So whatever drops this
/// future (a cut, the end of the proxy) cuts the connection, and only the regular end takes the
/// setting back.
pub(super) async fn run(mut client: TcpStream, target: SocketAddr, faults: CountedLink) {
    if reset_on_close(&client, true).is_err() {
        return;
    }
    faults.until_flowing().await;
    // A target that refuses shows to the client as a reset: the proxy did accept.
    let Ok(mut target) = TcpStream::connect(target).await else {
        return;
    };
    let ready = reset_on_close(&target, true)
        .and_then(|()| client.set_nodelay(true))
        .and_then(|()| target.set_nodelay(true));
    if ready.is_err() {
        return;
    }
    let finished = {
        let (from_client, to_client) = client.split();
        let (from_target, to_target) = target.split();
        tokio::try_join!(
            pump(from_client, to_target, Direction::ToTarget, &faults),
            pump(from_target, to_client, Direction::FromTarget, &faults),
        )
    };
    if finished.is_ok() {
        // A side that is gone already cannot be told, and need not be.
        reset_on_close(&client, false).ok(); // see above
        reset_on_close(&target, false).ok(); // see above
    }
}

fn reset_on_close(stream: &TcpStream, reset: bool) -> io::Result<()> {
    SockRef::from(stream).set_linger(reset.then_some(Duration::ZERO))
}

async fn pump(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    direction: Direction,
    faults: &CountedLink,
) -> io::Result<()> {
    let (queue, queued) = mpsc::channel(UNDER_WAY);
    tokio::try_join!(
        take(from, queue, faults),
        give(queued, to, direction, faults)
    )?;
    Ok(())
}

async fn take(
    mut from: ReadHalf<'_>,
    queue: mpsc::Sender<Delayed>,
    faults: &CountedLink,
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        faults.until_flowing().await;
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        let piece = (Instant::now() + faults.latency(), buffer[..length].to_vec());
        if queue.send(piece).await.is_err() {
            return Ok(()); // the other half has failed and says why
        }
    }
}

async fn give(
    mut queued: mpsc::Receiver<Delayed>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    faults: &CountedLink,
) -> io::Result<()> {
    while let Some((due, piece)) = queued.recv().await {
        // Asked first, because the timer rounds up and would cost a millisecond for no delay.
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
        }
        faults.until_flowing().await;
        match faults.pass(direction, piece.len()) {
            Passage::All => {
                // Counted first: whoever got an answer finds it in the count.
                faults.count_bytes(direction, piece.len());
                to.write_all(&piece).await?;
            }
            Passage::Only(length) => {
                faults.count_bytes(direction, length);
                to.write_all(&piece[..length]).await?;
                return cut().map(|never| match never {});
            }
        }
    }
    faults.until_flowing().await;
    to.shutdown().await
}

fn cut() -> io::Result<Infallible> {
    Err(io::Error::from(io::ErrorKind::ConnectionReset))
}
