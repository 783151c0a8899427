//! A port that was free a moment ago is often not free any more: the kernel hands ports of its
//! ephemeral range to outgoing connections all the time, and a server that restarts on "its" port
//! then finds a stranger there. So ports are drawn at random below that range, where only somebody
//! who asks for one by number can be in the way.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;

use socket2::{Domain, Socket, Type};

/// Above PostgreSQL's 5432 and its usual neighbours, below Linux's 32768 and everyone's 49152.
const RANGE: Range<u16> = 16_000..32_000;

/// With half of the range taken, a miss in all of these has a chance of 2^-64.
const ATTEMPTS: usize = 64;

/// A port on 127.0.0.1 that nobody held just now.
pub(crate) fn free_port() -> io::Result<u16> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..ATTEMPTS {
        let port = fastrand::u16(RANGE);
        match bind_alone(port) {
            Ok(()) => return Ok(port),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Without address reuse, which every listener of the standard library asks for: with it, a port
/// that a refusing proxy only holds would look free.
fn bind_alone(port: u16) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())
}
