//! The connection that carries a cancel request.
//!
//! Nothing is answered on it; whoever is asked closes it once the request was passed on. It has to be
//! kept until then, also when nobody waits any more: PgBouncer up to 1.18 ends its whole process
//! (`bad client state`) when the one who asked hangs up while it still asks the server.

use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::time::timeout;

/// `CancelRequest`: the code that is no protocol version.
const CODE: [u8; 4] = [0x04, 0xd2, 0x16, 0x2e];

/// How long a connection is kept that nobody waits for. A pooler asks its server within milliseconds;
/// one that does not close at all costs a socket for this long.
const KEPT: Duration = Duration::from_secs(10);

/// Sends a cancel request with this key, and waits until whoever was asked has dealt with it.
///
/// # Cancel safety
///
/// Once it was sent the request is not taken back: the connection is kept in the background until the
/// other side closes it, for ten seconds at most.
pub(crate) async fn request<S>(stream: S, key: &[u8]) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let length = u32::try_from(8 + key.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    let text = [&length[..], &CODE, key].concat();
    let mut asked = Asked(Some(stream));
    let Some(stream) = &mut asked.0 else {
        return Ok(());
    };
    stream.write_all(&text).await?;
    stream.flush().await?;
    let ended = end(stream).await;
    asked.0 = None;
    ended
}

async fn end(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    match stream.read(&mut [0]).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        Err(error) => Err(error),
    }
}

/// A connection on which a request is under way; kept in the background when it is dropped.
struct Asked<S: AsyncRead + Unpin + Send + 'static>(Option<S>);

impl<S: AsyncRead + Unpin + Send + 'static> Drop for Asked<S> {
    fn drop(&mut self) {
        if let Some(mut stream) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            // Whatever comes of it, nobody waits for it.
            runtime.spawn(async move { drop(timeout(KEPT, end(&mut stream)).await) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_carries_a_request_is_kept_until_the_other_side_closes() {
        let (near, mut far) = tokio::io::duplex(64);
        {
            let mut asking = pin!(request(near, &[1, 2, 3, 4, 5, 6, 7, 8]));
            poll_fn(|context| {
                assert!(asking.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
        }
        let mut text = [0; 16];
        far.read_exact(&mut text).await.unwrap();
        assert_eq!(text, [0, 0, 0, 16, 4, 210, 22, 46, 1, 2, 3, 4, 5, 6, 7, 8]);
        let early = timeout(KEPT / 2, far.read(&mut text)).await;
        assert!(early.is_err(), "it does not hang up: {early:?}");
        let late = timeout(KEPT, far.read(&mut text)).await;
        assert!(matches!(late, Ok(Ok(0))), "and not for ever: {late:?}");
    }
}
