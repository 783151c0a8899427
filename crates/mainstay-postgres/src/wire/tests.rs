use super::log::PARAMETERS_MAX;
use super::*;
use std::future::poll_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

const STARTUP: [u8; 8] = [0, 0, 0, 8, 0, 3, 0, 0];

struct Pair {
    log: Arc<Log>,
    wire: Wire<DuplexStream>,
    server: DuplexStream,
}

async fn pair() -> Pair {
    narrow_pair(1 << 16).await
}

/// With so much room on the way.
async fn narrow_pair(room: usize) -> Pair {
    let (client, server) = tokio::io::duplex(room);
    let log = Arc::new(Log::default());
    let mut pair = Pair {
        wire: Wire::new(client, None, Arc::clone(&log)),
        log,
        server,
    };
    pair.wire.write_all(&STARTUP).await.unwrap();
    pair.hear(&frame(b'Z', b"I")).await;
    pair
}

impl Pair {
    async fn hear(&mut self, bytes: &[u8]) {
        self.server.write_all(bytes).await.unwrap();
        let mut heard = vec![0; bytes.len()];
        self.wire.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, bytes);
    }

    async fn say(&mut self, tag: u8) {
        self.wire.write_all(&frame(tag, b"")).await.unwrap();
    }
}

const FATAL: &[u8] = b"SFATAL\0VFATAL\0C57P01\0Mgoing down\0\0";

#[tokio::test]
async fn an_answer_is_due_until_the_server_is_ready() {
    let mut pair = pair().await;
    assert!(!pair.log.is_pending());
    pair.say(b'B').await;
    pair.say(b'S').await;
    assert!(pair.log.is_pending());
    pair.hear(&frame(b'Z', b"T")).await;
    assert!(!pair.log.is_pending());
    assert_eq!(pair.log.state(), TransactionState::Open);
}

#[tokio::test]
async fn requests_gather_for_one_turn_while_the_server_is_busy() {
    let mut pair = pair().await;
    let (first, second) = (frame(b'S', b""), frame(b'Q', b"\0"));
    let mut wire = Pin::new(&mut pair.wire);
    poll_fn(|context| {
        let is_written = |poll: Poll<io::Result<usize>>| poll.map(|written| written.unwrap());
        let written = is_written(wire.as_mut().poll_write(context, &first));
        assert_eq!(
            written,
            Poll::Ready(first.len()),
            "a server at rest is told at once"
        );
        assert!(wire.as_mut().poll_flush(context).is_ready());
        for _ in 0..3 {
            let written = is_written(wire.as_mut().poll_write(context, &second));
            assert_eq!(written, Poll::Pending, "others are let past");
            let written = is_written(wire.as_mut().poll_write(context, &second));
            assert_eq!(written, Poll::Ready(second.len()), "once");
            let written = is_written(wire.as_mut().poll_write(context, &second));
            assert_eq!(
                written,
                Poll::Ready(second.len()),
                "for all that is flushed together"
            );
            assert!(wire.as_mut().poll_flush(context).is_ready());
        }
        Poll::Ready(())
    })
    .await;
    // Nobody but the wire itself wakes this task.
    wire.write_all(&second).await.unwrap();
}

#[tokio::test]
async fn nobody_waits_for_a_closed_statement() {
    let mut pair = pair().await;
    pair.say(b'C').await;
    pair.say(b'S').await;
    assert!(!pair.log.is_pending());
    pair.say(b'Q').await;
    assert!(pair.log.is_pending());
    pair.hear(&frame(b'Z', b"I")).await;
    assert!(pair.log.is_pending(), "only the close has been answered");
    pair.hear(&frame(b'Z', b"I")).await;
    assert!(!pair.log.is_pending());
}

#[tokio::test]
async fn a_fatal_error_in_place_of_the_answer_is_a_refusal() {
    let mut pair = pair().await;
    let mark = pair.log.mark();
    assert_eq!(pair.log.reached(mark, 0, 1), Reached::NotWritten);
    pair.say(b'E').await;
    pair.say(b'S').await;
    assert_eq!(pair.log.reached(mark, 0, 1), Reached::Unknown);
    pair.hear(&frame(b'E', FATAL)).await;
    assert_eq!(pair.log.reached(mark, 0, 1), Reached::Refused);
    assert_eq!(pair.log.last_words().unwrap().code, "57P01");
}

#[tokio::test]
async fn a_fatal_error_behind_the_answer_proves_nothing() {
    for answer in [frame(b'C', b"INSERT 0 1\0"), frame(b'Z', b"I")] {
        let mut pair = pair().await;
        let mark = pair.log.mark();
        pair.say(b'E').await;
        pair.say(b'S').await;
        pair.hear(&answer).await;
        pair.hear(&frame(b'E', FATAL)).await;
        assert_eq!(pair.log.reached(mark, 0, 1), Reached::Unknown, "{answer:?}");
    }
}

#[tokio::test]
async fn requests_of_one_flight_are_told_apart() {
    let mut pair = pair().await;
    let mark = pair.log.mark();
    for _ in 0..3 {
        pair.say(b'Q').await;
    }
    pair.hear(&frame(b'Z', b"I")).await;
    pair.hear(&frame(b'C', b"SELECT 1\0")).await;
    pair.hear(&frame(b'E', FATAL)).await;
    assert_eq!(pair.log.reached(mark, 0, 1), Reached::Unknown);
    assert_eq!(pair.log.reached(mark, 1, 1), Reached::Unknown);
    assert_eq!(pair.log.reached(mark, 1, 2), Reached::Refused);
    assert_eq!(pair.log.reached(mark, 2, 1), Reached::Refused);
}

#[tokio::test]
async fn the_cause_is_heard_after_a_failed_write() {
    let mut pair = pair().await;
    pair.server.write_all(&frame(b'E', FATAL)).await.unwrap();
    drop(pair.server);
    assert!(pair.wire.write_all(&frame(b'Q', b"")).await.is_err());
    assert_eq!(pair.log.last_words().unwrap().message, "going down");
}

#[tokio::test]
async fn closing_says_goodbye_and_waits_for_the_server() {
    let mut pair = pair().await;
    pair.log.close();
    let (read, heard) = tokio::join!(
        async {
            let mut buffer = [0; 8];
            pair.wire.read(&mut buffer).await.unwrap()
        },
        async {
            let mut heard = Vec::new();
            pair.server.read_to_end(&mut heard).await.unwrap();
            drop(pair.server);
            heard
        },
    );
    assert_eq!(read, 0);
    assert_eq!(heard, [&STARTUP[..], &TERMINATE].concat());
    assert_eq!(pair.log.ended().as_deref(), Some("closed by us"));
}

#[tokio::test]
async fn reported_parameters_are_bounded() {
    let mut pair = pair().await;
    for number in 0..2 * PARAMETERS_MAX {
        pair.hear(&frame(b'S', format!("p{number}\0v\0").as_bytes()))
            .await;
    }
    pair.hear(&frame(b'S', b"p1\0new\0")).await;
    assert_eq!(pair.log.parameter("p1").as_deref(), Some("new"));
    assert_eq!(pair.log.facts().parameters.len(), PARAMETERS_MAX);
}

#[tokio::test]
async fn a_preface_goes_before_the_request_that_is_meant_through_any_bottleneck() {
    let begin = Preface::new(&["BEGIN"]);
    let before = [frame(b'C', b"Ss1\0"), frame(b'S', b"")].concat();
    let request = [frame(b'B', b"BP"), frame(b'E', b""), frame(b'S', b"")].concat();
    let answers = [
        frame(b'3', b""),
        frame(b'Z', b"I"),
        frame(b'1', b""),
        frame(b'2', b""),
        frame(b'C', b"BEGIN\0"),
        frame(b'2', b""),
        frame(b'Z', b"T"),
    ];
    for room in [STARTUP.len(), 9, 10, 64, 1 << 16] {
        let Pair {
            log,
            mut wire,
            mut server,
        } = narrow_pair(room).await;
        server.read_exact(&mut [0; STARTUP.len()]).await.unwrap();
        log.precede(begin.clone());
        let mark = log.mark();
        let everything = [&before[..], &request].concat();
        let sent = [&before[..], &begin.frames, &request].concat();
        let writing = async {
            wire.write_all(&everything).await.unwrap();
            wire.flush().await.unwrap();
        };
        let mut heard = vec![0; sent.len()];
        let hearing = server.read_exact(&mut heard);
        let ((), heard_all) = tokio::join!(writing, hearing);
        heard_all.unwrap();
        assert_eq!(heard, sent, "with room for {room} bytes");
        assert!(log.take_preface().is_none());
        assert_eq!(
            log.facts().written,
            sent.len() as u64 + STARTUP.len() as u64
        );
        let all = answers.concat();
        let mut told = vec![0; frame(b'3', b"").len() + 6 + 5 + 6];
        let (said, read) = tokio::join!(server.write_all(&all), wire.read_exact(&mut told));
        said.unwrap();
        read.unwrap();
        let expected = [&answers[0], &answers[1], &answers[5], &answers[6]].map(|a| &**a);
        assert_eq!(told, expected.concat());
        assert_eq!(log.state(), TransactionState::Open);
        assert_eq!(log.reached(mark, 1, 2), Reached::Unknown);
    }
}
