//! From a host to a stream: resolving, connecting, and asking for TLS.

use crate::tls::{TlsPolicy, end_point, server_name};
use mainstay_core::config::{Host, KeepAlive, SslMode};
use mainstay_core::error::Report;
use mainstay_core::{Error, Evidence, Kind, Result};
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// The system counts whole seconds, in 15 bits.
const PROBES_LEAST: Duration = Duration::from_secs(1);
const PROBES_MOST: Duration = Duration::from_secs(32_767);

/// A name with more addresses than this is not a host but a mistake.
const ADDRESSES_MAX: usize = 16;

/// Too many open files, in the system and in the process: the same numbers on every Unix.
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

/// The same on Windows.
const WSAEMFILE: i32 = 10_024;

/// `SSLRequest`: length 8, and the code that is no protocol version.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// What a session travels over.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// A stream, encrypted or not.
pub(crate) type Stream = Box<dyn Transport>;

/// Where exactly a session is connected: a cancel request has to go to the same place.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    host: Host,
    address: Address,
    /// The host's place in the URL.
    pub(crate) index: usize,
    keep_alive: KeepAlive,
    /// Whether the session speaks TLS.
    pub(crate) encrypted: bool,
}

/// An address that can be connected to.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A connected stream.
pub(crate) struct Dialled {
    pub(crate) stream: Stream,
    pub(crate) encrypted: bool,
    pub(crate) end_point: Option<Vec<u8>>,
}

/// The addresses of a host, in the order in which to try them.
pub(crate) async fn addresses(host: &Host) -> Result<Vec<Address>> {
    match host {
        Host::Unix { directory, port } => Ok(vec![Address::Unix(
            directory.join(format!(".s.PGSQL.{port}")),
        )]),
        Host::Tcp { host: name, port } => {
            let found: Vec<Address> = tokio::net::lookup_host((name.as_str(), *port))
                .await
                .map_err(|error| unknown_host(name, error))?
                .take(ADDRESSES_MAX)
                .map(Address::Tcp)
                .collect();
            if found.is_empty() {
                return Err(unknown_host(
                    name,
                    io::Error::other("the name has no address"),
                ));
            }
            Ok(found)
        }
        _ => Err(Report::new(Kind::Config, format!("{host} is no address known here")).into()),
    }
}

impl Endpoint {
    pub(crate) fn new(host: Host, address: Address, index: usize, keep_alive: KeepAlive) -> Self {
        Self {
            host,
            address,
            index,
            keep_alive,
            encrypted: false,
        }
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn is_local(&self) -> bool {
        matches!(self.address, Address::Unix(_))
    }

    /// Connects; with a policy it asks for TLS, and goes on without only in mode `prefer` and only
    /// if the server says that it has none.
    pub(crate) async fn dial(&self, tls: Option<&TlsPolicy>) -> Result<Dialled> {
        let stream = match &self.address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)
                    .await
                    .map_err(|e| self.unreachable(e))?;
                return Ok(plain(Box::new(stream)));
            }
            Address::Tcp(address) => self.connect_tcp(*address).await?,
        };
        let Some(policy) = tls else {
            return Ok(plain(Box::new(stream)));
        };
        self.encrypt(stream, policy).await
    }

    async fn connect_tcp(&self, address: SocketAddr) -> Result<TcpStream> {
        let connected = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            watch(&stream, &self.keep_alive)?;
            Ok(stream)
        };
        connected
            .await
            .map_err(|error: io::Error| self.unreachable(error))
    }

    async fn encrypt(&self, mut stream: TcpStream, policy: &TlsPolicy) -> Result<Dialled> {
        let mut answer = [0];
        let asked = async {
            stream.write_all(&SSL_REQUEST).await?;
            stream.read_exact(&mut answer).await
        };
        asked.await.map_err(|error| self.unreachable(error))?;
        match answer {
            [b'S'] => {}
            [b'N'] if policy.mode() == SslMode::Prefer => return Ok(plain(Box::new(stream))),
            [b'N'] => {
                let message = format!("{} does not speak TLS, and sslmode demands it", self.host);
                return Err(Report::new(Kind::Tls, message)
                    .remedy("turn ssl on in postgresql.conf, or set sslmode=prefer if clear text will do")
                    .into());
            }
            _ => {
                let message = format!("{} does not speak PostgreSQL's protocol", self.host);
                return Err(Report::new(Kind::Config, message)
                    .remedy("check host and port")
                    .into());
            }
        }
        let Host::Tcp { host, .. } = &self.host else {
            return Err(Report::new(Kind::Tls, "a Unix socket does not speak TLS").into());
        };
        let stream = policy
            .connector()
            .connect(server_name(host)?, stream)
            .await
            .map_err(|error| self.tls_failure(error))?;
        let certificates = stream.get_ref().1.peer_certificates();
        let end_point = certificates
            .and_then(<[_]>::first)
            .and_then(|first| end_point(first));
        Ok(Dialled {
            stream: Box::new(stream),
            encrypted: true,
            end_point,
        })
    }

    fn unreachable(&self, error: io::Error) -> Error {
        let message = format!("cannot reach {}: {}", self.host, words(&error));
        let report = Report::new(Kind::Unreachable, message);
        let report = match error.kind() {
            _ if is_local(&error) => report
                .evidence(Evidence::Neither)
                .remedy("this machine or process has no files or addresses left for it"),
            io::ErrorKind::ConnectionRefused => {
                report.remedy("is the server running, and is it this port?")
            }
            io::ErrorKind::NotFound => {
                report.remedy("is the server running, and is it this directory and port?")
            }
            _ => report,
        };
        report.source(error).into()
    }

    /// A handshake that fails over the certificate fails again; one whose connection broke need not.
    fn tls_failure(&self, error: io::Error) -> Error {
        let rustls = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if rustls.is_none() {
            return self.unreachable(error);
        }
        let (why, remedy) = rustls.map_or(("", ""), distrust);
        let message = format!("no trusted TLS connection to {}: {why}{error}", self.host);
        Report::new(Kind::Tls, message)
            .remedy(remedy)
            .source(error)
            .into()
    }
}

/// What is wrong with the server's certificate, and what to do. The words of the library follow.
fn distrust(error: &rustls::Error) -> (&'static str, &'static str) {
    use rustls::CertificateError as Why;
    let rustls::Error::InvalidCertificate(why) = error else {
        return (
            "",
            "do server and client have a version and a cipher of TLS in common?",
        );
    };
    match why {
        Why::Expired | Why::ExpiredContext { .. } => (
            "its certificate has expired: ",
            "give the server a new certificate, and look whether the clock here is right",
        ),
        Why::NotValidYet | Why::NotValidYetContext { .. } => (
            "its certificate is not valid yet: ",
            "look whether the clocks here and there are right",
        ),
        Why::NotValidForName | Why::NotValidForNameContext { .. } => (
            "its certificate is for another host: ",
            "connect by a name that the certificate has, or give the server one with this name; \
             sslmode=verify-ca checks no name",
        ),
        Why::UnknownIssuer => (
            "its certificate is not from a trusted authority: ",
            "name the file of the authority that signed it with sslrootcert",
        ),
        _ => (
            "its certificate is not valid: ",
            "check the server's certificate and sslrootcert",
        ),
    }
}

/// Lets the operating system notice that the peer is gone.
fn watch(stream: &TcpStream, keep_alive: &KeepAlive) -> io::Result<()> {
    let socket = SockRef::from(stream);
    if keep_alive.enabled {
        let probes = TcpKeepalive::new()
            .with_time(keep_alive.idle.clamp(PROBES_LEAST, PROBES_MOST))
            .with_interval(keep_alive.interval.clamp(PROBES_LEAST, PROBES_MOST))
            .with_retries(keep_alive.count);
        socket.set_tcp_keepalive(&probes)?;
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(timeout) = keep_alive.user_timeout {
        socket.set_tcp_user_timeout(Some(timeout))?;
    }
    Ok(())
}

/// Whether it is this side that has nothing left to connect with, which says nothing about the
/// server. Two of the three have no name in the standard library.
fn is_local(error: &io::Error) -> bool {
    let used_up = if cfg!(unix) {
        [Some(ENFILE), Some(EMFILE)].contains(&error.raw_os_error())
    } else {
        error.raw_os_error() == Some(WSAEMFILE)
    };
    used_up || error.kind() == io::ErrorKind::AddrNotAvailable
}

fn plain(stream: Stream) -> Dialled {
    Dialled {
        stream,
        encrypted: false,
        end_point: None,
    }
}

fn unknown_host(name: &str, error: io::Error) -> Error {
    Report::new(
        Kind::Unreachable,
        format!("cannot find the host {name:?}: {}", words(&error)),
    )
    .remedy("check the name, and that it can be resolved here")
    .source(error)
    .into()
}

/// `Connection refused` without `(os error 111)`.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_core::Class;

    /// The rows that no test may bring about for real, because all others would suffer.
    #[test]
    #[cfg(unix)]
    fn what_this_machine_lacks_is_not_held_against_the_server() {
        let host = Host::Tcp {
            host: "db".into(),
            port: 5432,
        };
        let endpoint = Endpoint::new(host, Address::Unix(PathBuf::new()), 0, KeepAlive::default());
        let table = include_str!("../../tests/data/conditions.csv");
        for (name, error) in [
            ("too many open files", io::Error::from_raw_os_error(EMFILE)),
            (
                "too many open files in the system",
                io::Error::from_raw_os_error(ENFILE),
            ),
            (
                "no local address free",
                io::ErrorKind::AddrNotAvailable.into(),
            ),
        ] {
            let row = format!("{name},connecting,n/a,no,statement,no");
            assert!(table.lines().any(|line| line == row), "{row}");
            let error = endpoint.unreachable(error);
            let found = (error.kind(), error.class(), error.evidence());
            let expected = (Kind::Unreachable, Class::NotSent, Evidence::Neither);
            assert_eq!(found, expected, "{name}");
        }
    }
    #[cfg(target_os = "linux")]
    async fn dialled(keep_alive: KeepAlive) -> TcpStream {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let host = Host::Tcp {
            host: "127.0.0.1".into(),
            port: address.port(),
        };
        let endpoint = Endpoint::new(host, Address::Tcp(address), 0, keep_alive);
        endpoint.connect_tcp(address).await.unwrap()
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn a_peer_that_is_gone_is_noticed_within_half_a_minute_unless_told_otherwise() {
        let stream = dialled(KeepAlive::default()).await;
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && stream.nodelay().unwrap());
        let idle = socket.tcp_keepalive_time().unwrap();
        let interval = socket.tcp_keepalive_interval().unwrap();
        let probes = socket.tcp_keepalive_retries().unwrap();
        assert_eq!(idle + interval * probes, Duration::from_secs(30));
        let unacknowledged = socket.tcp_user_timeout().unwrap();
        assert_eq!(unacknowledged, Some(Duration::from_secs(20)));
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn the_probes_are_as_configured() {
        let mut keep_alive = KeepAlive::default();
        keep_alive.idle = Duration::from_millis(200);
        keep_alive.interval = Duration::from_secs(1_000_000);
        keep_alive.count = 7;
        keep_alive.user_timeout = Some(Duration::from_millis(1_500));
        let stream = dialled(keep_alive).await;
        let socket = SockRef::from(&stream);
        assert_eq!(socket.tcp_keepalive_time().unwrap(), PROBES_LEAST);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), PROBES_MOST);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 7);
        assert_eq!(socket.tcp_user_timeout().unwrap(), keep_alive.user_timeout);

        keep_alive.enabled = false;
        keep_alive.user_timeout = None;
        let stream = dialled(keep_alive).await;
        let socket = SockRef::from(&stream);
        assert!(!socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
    }
}
