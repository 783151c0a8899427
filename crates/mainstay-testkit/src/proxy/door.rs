//! The listening side. It alone owns the port and all connections, so that "refuse", "listen" and
//! "cut" happen one after the other and are done when they are answered.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::faults::Faults;
use super::link;

/// Connections beyond this many wait in the kernel's queue until another one ends.
const MAX_LINKS: usize = 4096;

/// The kernel's queue of connections not yet accepted.
const BACKLOG: u32 = 1024;

type Answer = oneshot::Sender<io::Result<()>>;

/// What the proxy's handle asks for; answered when it is done.
#[derive(Debug)]
pub(super) enum Command {
    Listen(Answer),
    Refuse(Answer),
    CutAll(Answer),
}

/// The port in one of its two states.
#[derive(Debug)]
enum Port {
    /// Connections are accepted.
    Listening(TcpListener),
    /// Bound and not listening: the kernel refuses connections and gives the port to nobody else.
    Held(TcpSocket),
    /// Lost to a failed change; the next command tries again.
    Lost,
}

#[derive(Debug)]
pub(super) struct Door {
    address: SocketAddr,
    target: SocketAddr,
    port: Port,
    faults: Arc<Faults>,
    links: JoinSet<()>,
}

impl Door {
    pub(super) fn open(
        address: SocketAddr,
        target: SocketAddr,
        faults: Arc<Faults>,
    ) -> io::Result<Self> {
        let port = Port::Listening(hold(address)?.listen(BACKLOG)?);
        Ok(Self {
            address,
            target,
            port,
            faults,
            links: JoinSet::new(),
        })
    }

    /// Runs until the handle is dropped; the connections end with it.
    pub(super) async fn serve(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            let full = self.links.len() >= MAX_LINKS;
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => return,
                },
                client = accept(&self.port), if !full => self.link(client),
                Some(_) = self.links.join_next() => {}
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        let (done, answer) = match command {
            Command::Listen(answer) => (self.listen(), answer),
            Command::Refuse(answer) => (self.refuse(), answer),
            Command::CutAll(answer) => {
                // A link that is dropped resets both its sides; see `link::run`.
                self.links.shutdown().await;
                (Ok(()), answer)
            }
        };
        answer.send(done).ok(); // whoever asked may have stopped waiting, the change stands
    }

    fn listen(&mut self) -> io::Result<()> {
        self.port = match std::mem::replace(&mut self.port, Port::Lost) {
            Port::Listening(listener) => Port::Listening(listener),
            Port::Held(socket) => Port::Listening(socket.listen(BACKLOG)?),
            Port::Lost => Port::Listening(hold(self.address)?.listen(BACKLOG)?),
        };
        Ok(())
    }

    fn refuse(&mut self) -> io::Result<()> {
        self.port = match std::mem::replace(&mut self.port, Port::Lost) {
            Port::Held(socket) => Port::Held(socket),
            Port::Listening(listener) => {
                drop(listener);
                Port::Held(hold(self.address)?)
            }
            Port::Lost => Port::Held(hold(self.address)?),
        };
        Ok(())
    }

    fn link(&mut self, client: TcpStream) {
        let counted = self.faults.count_link();
        self.links.spawn(link::run(client, self.target, counted));
    }
}

/// Binds without listening. Address reuse lets the port be taken back while connections that were
/// accepted on it are still open.
fn hold(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// The next client, or never while there is nobody to let in.
async fn accept(port: &Port) -> TcpStream {
    if let Port::Listening(listener) = port {
        loop {
            match listener.accept().await {
                Ok((client, _)) => return client,
                // The client went away in the queue, or descriptors ran out: both pass, and the
                // latter must not spin.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
    }
    std::future::pending().await
}
