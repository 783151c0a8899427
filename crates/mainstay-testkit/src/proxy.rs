//! Networks fail in more ways than "connection refused": packets vanish, a firewall forgets a
//! connection, a peer dies in the middle of a message. A server on the same machine shows none of
//! that. So a [`Proxy`] stands in front of its port and does it on command.
//!
//! Its own port stays the same and stays taken through every fault, so that "the server went away
//! and came back" can be played without a stranger on the port in between.
//!
//! ```
//! # async fn example(server: std::net::SocketAddr, url: &str) -> std::io::Result<()> {
//! use mainstay_testkit::proxy::{Direction, Proxy};
//!
//! let proxy = Proxy::start(server).await?;
//! let url = proxy.rewrite(url); // connect here instead
//! proxy.cut_after(10, Direction::FromTarget); // the answer breaks off after ten bytes
//! proxy.refuse().await?; // nobody listens any more
//! proxy.cut_all().await; // and everybody who was connected is thrown out
//! proxy.forward().await?; // all is well again
//! # Ok(())
//! # }
//! ```

mod door;
mod faults;
mod link;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::ToSocketAddrs;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub use self::faults::Direction;

use self::door::{Command, Door};
use self::faults::Faults;
use crate::port::free_port;

/// Commands wait for the door one after the other; callers beyond this many wait to be heard.
const COMMANDS: usize = 16;

/// A TCP proxy on a port of 127.0.0.1, until it is dropped; what is connected then is cut.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    faults: Arc<Faults>,
    commands: mpsc::Sender<Command>,
    door: JoinHandle<()>,
}

impl Proxy {
    /// Starts to forward from a free port to `target`, which need not answer yet.
    ///
    /// # Errors
    ///
    /// When `target` does not resolve or no port can be had.
    ///
    /// # Cancel safety
    ///
    /// Nothing is left when the future is dropped.
    pub async fn start(target: impl ToSocketAddrs) -> io::Result<Self> {
        let target = tokio::net::lookup_host(target).await?.next();
        let target = target.ok_or_else(|| io::Error::other("the target has no address"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let faults = Arc::new(Faults::default());
        let (commands, heard) = mpsc::channel(COMMANDS);
        let door = Door::open(address, target, Arc::clone(&faults))?;
        let door = tokio::spawn(door.serve(heard));
        Ok(Self {
            address,
            faults,
            commands,
            door,
        })
    }

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The URL with its host and port replaced by the proxy's. A text without `://` comes back as
    /// it was.
    pub fn rewrite(&self, url: &str) -> String {
        rewrite(url, self.address)
    }

    /// Forwards again, old connections and new ones. Latency and a pending cut stay.
    ///
    /// # Errors
    ///
    /// When the port cannot be listened on.
    ///
    /// # Cancel safety
    ///
    /// The change happens or not; both leave the proxy whole.
    pub async fn forward(&self) -> io::Result<()> {
        self.tell(Command::Listen).await?;
        self.faults.flow(true);
        Ok(())
    }

    /// Refuses new connections: whoever connects after this call gets `ECONNREFUSED`. Open ones
    /// live on; see [`Proxy::cut_all`].
    ///
    /// # Errors
    ///
    /// When the port cannot be kept.
    ///
    /// # Cancel safety
    ///
    /// As [`Proxy::forward`].
    pub async fn refuse(&self) -> io::Result<()> {
        self.tell(Command::Refuse).await
    }

    /// Accepts new connections and forwards nothing, in either direction, on new and old ones.
    /// [`Proxy::forward`] lets everything through that was held back.
    ///
    /// # Errors
    ///
    /// When the port cannot be listened on.
    ///
    /// # Cancel safety
    ///
    /// As [`Proxy::forward`].
    pub async fn black_hole(&self) -> io::Result<()> {
        self.faults.flow(false);
        self.tell(Command::Listen).await
    }

    /// Forwards nothing more on the connections that are open now, for good, and tells neither side;
    /// new ones are forwarded. A firewall that was restarted does this.
    pub fn strand(&self) {
        self.faults.strand();
    }

    /// Resets every open connection, towards both sides. They are gone when this returns.
    ///
    /// # Cancel safety
    ///
    /// As [`Proxy::forward`].
    pub async fn cut_all(&self) {
        // The door can only be gone with its runtime, and then its connections are gone too.
        self.tell(Command::CutAll).await.ok(); // see above
    }

    /// Lets `bytes` more through in one direction, counted over all connections, then resets the
    /// connection to which the next byte would belong. With 0 that is the very next one. Happens
    /// once; another call replaces a pending one.
    pub fn cut_after(&self, bytes: u64, direction: Direction) {
        self.faults.cut_after(bytes, direction);
    }

    /// Delays what passes, in each direction, by `delay`; without reordering, and without slowing
    /// down a long transfer by more than that until 64 pieces are under way.
    pub fn latency(&self, delay: Duration) {
        self.faults.set_latency(delay);
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.faults.open_links()
    }

    /// How many connections were accepted since the start.
    pub fn accepted(&self) -> u64 {
        self.faults.accepted()
    }

    /// How many bytes went through in one direction since the start, over all connections.
    pub fn passed(&self, direction: Direction) -> u64 {
        self.faults.passed(direction)
    }

    /// How many round trips clients have made since the start, over all connections: how often one
    /// said something after it had been answered, or for the first time. What is said in pieces before
    /// the answer comes is one round trip, so a delay ([`Proxy::latency`]) longer than the pieces are
    /// apart makes the count certain.
    pub fn round_trips(&self) -> u64 {
        self.faults.round_trips()
    }

    async fn tell(
        &self,
        command: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Command,
    ) -> io::Result<()> {
        let gone = || io::Error::other("the proxy ended with its runtime");
        let (answer, answered) = oneshot::channel();
        self.commands
            .send(command(answer))
            .await
            .map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.door.abort();
    }
}

/// The authority of a URL reaches from `://` to the next `/`, `?` or `#`; the credentials in it end
/// at the last `@`.
fn rewrite(url: &str, address: SocketAddr) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((credentials, _)) => format!("{scheme}://{credentials}@{address}{tail}"),
        None => format!("{scheme}://{address}{tail}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_and_port_of_a_url_are_replaced() {
        let address = SocketAddr::from(([127, 0, 0, 1], 7));
        let through = |url| rewrite(url, address);
        assert_eq!(
            through("postgres://u:p@db.example:5432/app?a=b@c"),
            "postgres://u:p@127.0.0.1:7/app?a=b@c"
        );
        assert_eq!(through("postgres://db.example"), "postgres://127.0.0.1:7");
        assert_eq!(
            through("postgres://[::1]:1?a=/"),
            "postgres://127.0.0.1:7?a=/"
        );
        assert_eq!(through("file:./x.db"), "file:./x.db");
    }
}
