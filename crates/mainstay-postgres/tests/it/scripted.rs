//! A server that says what it is told to say.
//!
//! A real server cannot be made to fail with a given code between two given messages, so this one
//! speaks just enough of the protocol to be taken for a server, and departs from it once, at the
//! place that a [`Script`] names: it sends the first so many messages of the usual answer, then
//! whatever it was given, then goes on, hangs up, resets the connection or falls silent.
//!
//! It lives on a thread of its own, so that a test may stop its runtime and still see it act.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const SSL_REQUEST: u32 = 80_877_103;
const CANCEL_REQUEST: u32 = 80_877_102;

/// The requests of a test are short; a longer one is a broken client.
const FRAME_MAX: usize = 64 * 1_024;

/// What is being asked when the server departs from the usual.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// The client asks for TLS.
    Encryption,
    /// The client introduces itself.
    Startup,
    /// A statement is prepared.
    Prepare,
    /// A prepared statement is executed.
    Execute,
    /// Another one is, or the same once more.
    ExecuteAgain,
    /// The same behind BEGIN, in one request.
    First,
    /// A text that begins like this is run: `BEGIN`, `COMMIT`, `ROLLBACK`.
    Query(&'static str),
}

/// What follows what was said.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// The rest of the usual answer.
    GoOn,
    /// The request is over: ready for the next one.
    Ready,
    /// The end of the stream.
    HangUp,
    /// A reset of the connection.
    Reset,
    /// Nothing more, ever.
    Silence,
}

/// One departure from the usual answer.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) at: At,
    /// How many messages of the usual answer come first.
    pub(crate) after: usize,
    /// What is said then: whole messages, half ones, or nonsense.
    pub(crate) says: Vec<u8>,
    pub(crate) then: Then,
}

/// The whole of a usual answer.
pub(crate) const ALL: usize = usize::MAX;

/// BEGIN is parsed, bound and complete before the statement behind it has its turn.
pub(crate) const UNTIL_BEGUN: usize = 3;

/// COMMIT is answered by its completion.
pub(crate) const UNTIL_COMMITTED: usize = 1;

/// A message of the protocol.
pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// An error (`E`) or a notice (`N`).
pub(crate) fn complaint(tag: u8, severity: &str, code: &str, routine: &str) -> Vec<u8> {
    let fields = format!("S{severity}\0V{severity}\0C{code}\0Mas scripted\0R{routine}\0\0");
    message(tag, fields.as_bytes())
}

/// The server.
pub(crate) struct Server {
    address: SocketAddr,
    script: Arc<Mutex<Option<Script>>>,
    ended: mpsc::Receiver<()>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with_tls(None)
    }

    pub(crate) fn with_tls(tls: Option<TlsAcceptor>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(None));
        let scripts = Arc::clone(&script);
        let (ends, ended) = mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                let accepting = async {
                    loop {
                        let (stream, _) = listener.accept().await.unwrap();
                        let script = scripts.lock().unwrap().clone();
                        let (tls, ends) = (tls.clone(), ends.clone());
                        tokio::spawn(async move {
                            // A client that goes away in the middle is what many tests do.
                            drop(welcome(stream, script, tls).await);
                            // A test that is over does not want to know.
                            ends.send(()).unwrap_or_default();
                        });
                    }
                };
                tokio::select! {
                    () = accepting => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            script,
            ended,
            _stop: stop,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// What the connections to come will meet.
    pub(crate) fn play(&self, script: Option<Script>) {
        *self.script.lock().unwrap() = script;
        while self.ended.try_recv().is_ok() {}
    }

    /// Blocks this thread, runtime and all, until a connection made since [`play`](Self::play) has
    /// been ended.
    pub(crate) fn wait_for_the_end(&self) {
        self.ended.recv_timeout(Duration::from_secs(60)).unwrap();
    }
}

/// Everything up to the startup message.
async fn welcome(
    mut stream: TcpStream,
    script: Option<Script>,
    tls: Option<TlsAcceptor>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    if script
        .as_ref()
        .is_some_and(|script| script.then == Then::Reset)
    {
        // Closing throws away what is unsent and resets.
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    }
    loop {
        let length = stream.read_u32().await? as usize;
        assert!((8..FRAME_MAX).contains(&length), "no startup message");
        let code = stream.read_u32().await?;
        let mut rest = vec![0; length - 8];
        stream.read_exact(&mut rest).await?;
        match (code, &tls) {
            (CANCEL_REQUEST, _) => return Ok(()),
            (SSL_REQUEST, _) if script.as_ref().is_some_and(|s| s.at == At::Encryption) => {
                stream.write_all(&script.unwrap().says).await?;
                return Ok(());
            }
            (SSL_REQUEST, Some(tls)) => {
                stream.write_all(b"S").await?;
                let mut stream = tls.accept(stream).await?;
                let length = stream.read_u32().await? as usize;
                let mut startup = vec![0; length - 4];
                stream.read_exact(&mut startup).await?;
                return Conversation::new(stream, script).hold(&startup).await;
            }
            (SSL_REQUEST, None) => stream.write_all(b"N").await?,
            _ => return Conversation::new(stream, script).hold(&rest).await,
        }
    }
}

/// The server reports the setting of the lane.
fn read_only(on: bool) -> Vec<u8> {
    let value: &[u8] = if on { b"on" } else { b"off" };
    message(
        b'S',
        &[b"default_transaction_read_only\0", value, b"\0"].concat(),
    )
}

/// The answer to the question what it is: a primary that takes writes, with the process of `welcome`
/// and our mark.
fn role() -> Vec<Vec<u8>> {
    let columns: [(u32, &[u8]); 5] = [
        (16, &[0]),
        (16, &[0]),
        (23, &[0, 0, 0, 1]),
        (20, &[0, 0, 0, 0, 0, 0, 0, 1]),
        (25, b"on"),
    ];
    let count = 5_u16.to_be_bytes();
    let (mut described, mut row) = (count.to_vec(), count.to_vec());
    for (kind, value) in columns {
        let length = u32::try_from(value.len()).unwrap();
        // No name, no table, no modifier; binary.
        described.extend([0; 7]);
        described.extend(kind.to_be_bytes());
        described.extend([0; 6]);
        described.extend(1_u16.to_be_bytes());
        row.extend(length.to_be_bytes());
        row.extend(value);
    }
    vec![
        message(b'1', b""),
        message(b'2', b""),
        message(b't', &[0, 1, 0, 0, 0, 25]),
        message(b'T', &described),
        message(b'D', &row),
        message(b'C', b"SELECT 1\0"),
    ]
}

/// One session.
struct Conversation<S> {
    stream: S,
    script: Option<Script>,
    /// As `ReadyForQuery` reports it.
    state: u8,
    has_executed: bool,
}

/// What a client asks, with everything up to its `Sync`.
#[derive(Default)]
struct Request {
    tags: Vec<u8>,
    text: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conversation<S> {
    fn new(stream: S, script: Option<Script>) -> Self {
        Self {
            stream,
            script,
            state: b'I',
            has_executed: false,
        }
    }

    async fn hold(mut self, startup: &[u8]) -> std::io::Result<()> {
        let takes_options = String::from_utf8_lossy(startup).contains("mainstay.lanes=on");
        assert!(takes_options, "a session without its mark");
        let welcome = vec![
            message(b'R', &0_u32.to_be_bytes()),
            message(b'S', b"server_version\x0016.4\0"),
            message(b'S', b"client_encoding\0UTF8\0"),
            read_only(false),
            message(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]),
        ];
        if !self.answer(Some(At::Startup), welcome, b'I').await? {
            return Ok(());
        }
        while let Some(request) = self.request().await? {
            let (at, answer, state) = self.usual(&request);
            if !self.answer(at, answer, state).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads on to the end of a request. `None`: the client has said goodbye.
    async fn request(&mut self) -> std::io::Result<Option<Request>> {
        let mut request = Request::default();
        loop {
            let tag = self.stream.read_u8().await?;
            let length = self.stream.read_u32().await? as usize;
            assert!((4..FRAME_MAX).contains(&length), "no message");
            let mut body = vec![0; length - 4];
            self.stream.read_exact(&mut body).await?;
            request.tags.push(tag);
            match tag {
                b'P' => request.text = String::from_utf8_lossy(&body).into_owned(),
                b'Q' => {
                    request.text = String::from_utf8_lossy(&body).into_owned();
                    return Ok(Some(request));
                }
                b'S' => return Ok(Some(request)),
                b'X' => return Ok(None),
                _ => {}
            }
        }
    }

    /// What is asked, the usual answer without `ReadyForQuery`, and the state after it.
    fn usual(&self, request: &Request) -> (Option<At>, Vec<Vec<u8>>, u8) {
        let done = |tag: &str| message(b'C', format!("{tag}\0").as_bytes());
        let has = |tag: u8| request.tags.contains(&tag);
        let text = &*request.text;
        match text {
            _ if text.contains("pg_is_in_recovery") => (None, role(), self.state),
            _ if has(b'P') && request.tags.iter().filter(|&&tag| tag == b'E').count() == 2 => {
                let begun = [message(b'1', b""), message(b'2', b""), done("BEGIN")];
                let executed = [message(b'2', b""), done("UPDATE 1")];
                (Some(At::First), [&begun[..], &executed].concat(), b'T')
            }
            _ if has(b'P') => {
                let answer = vec![
                    message(b'1', b""),
                    message(b't', &[0, 0]),
                    message(b'n', b""),
                ];
                (Some(At::Prepare), answer, self.state)
            }
            _ if has(b'E') => {
                let answer = vec![message(b'2', b""), done("INSERT 0 1")];
                let at = if self.has_executed {
                    At::ExecuteAgain
                } else {
                    At::Execute
                };
                (Some(at), answer, self.state)
            }
            _ if has(b'C') => (None, vec![message(b'3', b"")], self.state),
            "" => (None, Vec::new(), self.state),
            _ if text.starts_with("SET default_transaction_read_only") => {
                let answer = vec![read_only(text.contains("= on")), done("SET")];
                (Some(At::Query("SET")), answer, self.state)
            }
            _ if text.starts_with("BEGIN") => (Some(At::Query("BEGIN")), vec![done("BEGIN")], b'T'),
            _ if text.starts_with("COMMIT") => {
                // A transaction that was aborted is rolled back instead.
                let tag = if self.state == b'E' {
                    "ROLLBACK"
                } else {
                    "COMMIT"
                };
                (Some(At::Query("COMMIT")), vec![done(tag)], b'I')
            }
            _ => (Some(At::Query("ROLLBACK")), vec![done("ROLLBACK")], b'I'),
        }
    }

    /// Answers as usual, or as the script wants it, which is played once. Whether the session goes
    /// on.
    async fn answer(
        &mut self,
        at: Option<At>,
        mut answer: Vec<Vec<u8>>,
        state: u8,
    ) -> std::io::Result<bool> {
        let script = self.script.take_if(|script| Some(script.at) == at);
        let ready = |state| message(b'Z', &[state]);
        self.has_executed |= at == Some(At::Execute);
        let before = self.state;
        self.state = state;
        answer.push(ready(state));
        let Some(script) = script else {
            self.say(&answer.concat()).await?;
            return Ok(true);
        };
        let rest = answer.split_off(script.after.min(answer.len()));
        answer.push(script.says);
        match script.then {
            Then::GoOn => answer.extend(rest),
            Then::Ready => {
                // An error undoes a transaction that it meets, and ends one that was committing.
                self.state = match at {
                    Some(At::Execute) if before == b'T' => b'E',
                    // A transaction that did not begin cannot be aborted.
                    Some(At::First) if script.after < UNTIL_BEGUN => before,
                    Some(At::First) => b'E',
                    _ => state,
                };
                answer.push(ready(self.state));
            }
            Then::HangUp | Then::Reset | Then::Silence => {}
        }
        self.say(&answer.concat()).await?;
        match script.then {
            // Closing is enough, see `welcome`.
            Then::Reset => Ok(false),
            Then::HangUp => {
                self.stream.shutdown().await?;
                Ok(false)
            }
            Then::Silence => {
                // Until the client loses patience.
                while self.stream.read_u8().await.is_ok() {}
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    async fn say(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }
}
