//! The client against our own server, and against hostile ones.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::client::{Question, is_other, take};
use super::message::{Change, Said, answer, read, request};
use super::responder::Limit;
use super::{Behavior, Doubt, Rejected, Served, StunError, discover, serve};
use crate::limits::{STUN_ANSWERS_MAX, STUN_ANSWERS_PER_ADDRESS_MAX};

const HERE: &str = "127.0.0.1:0";

async fn socket() -> UdpSocket {
    UdpSocket::bind(HERE).await.unwrap()
}

/// A server that answers each request with what `reply` makes of it; from the same socket, or from another one.
async fn server(elsewhere: bool, reply: impl Fn([u8; 12], SocketAddr) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let (socket, other) = (socket().await, socket().await);
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2_000];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let Some((transaction, _)) = read(&buffer[..length]) else { continue };
            let from_here = if elsewhere { &other } else { &socket };
            from_here.send_to(&reply(transaction, from), from).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn without_a_nat_everything_is_independent() {
    let second: IpAddr = "127.0.0.2".parse().unwrap();
    let responder = serve(HERE.parse().unwrap(), Some(second)).await.unwrap();
    let (socket, rejected) = (socket().await, Rejected::default());
    let found = discover(&socket, &[responder.address()], &rejected).await.unwrap();
    assert_eq!(found.mapped, socket.local_addr().unwrap());
    assert_eq!(found.mapping, Some(Behavior::EndpointIndependent));
    assert_eq!(found.filtering, Some(Behavior::EndpointIndependent));
    assert!(rejected.counts().values().all(|count| *count == 0), "{:?}", rejected.counts());
}

#[tokio::test]
async fn two_plain_servers_tell_a_symmetric_nat() {
    let one = serve(HERE.parse().unwrap(), None).await.unwrap();
    let two = serve("127.0.0.2:0".parse().unwrap(), None).await.unwrap();
    let (socket, rejected) = (socket().await, Rejected::default());
    let alone = discover(&socket, &[one.address()], &rejected).await.unwrap();
    assert_eq!((alone.mapping, alone.filtering), (None, None));
    let both = discover(&socket, &[one.address(), two.address()], &rejected).await.unwrap();
    assert_eq!((both.mapping, both.filtering), (Some(Behavior::EndpointIndependent), None));
    // Another one, at another address, sees another port.
    let three = UdpSocket::bind("127.0.0.3:0").await.unwrap();
    let address = three.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2_000];
        while let Ok((length, from)) = three.recv_from(&mut buffer).await {
            let Some((transaction, _)) = read(&buffer[..length]) else { continue };
            let seen = SocketAddr::new(from.ip(), from.port() ^ 1);
            three.send_to(&answer(transaction, seen, address, None), from).await.unwrap();
        }
    });
    let symmetric = discover(&socket, &[one.address(), address], &rejected).await.unwrap();
    assert_eq!(symmetric.mapping, Some(Behavior::AddressAndPortDependent));
}

#[tokio::test]
async fn what_cannot_be_believed_is_counted_and_others_are_asked() {
    let seen: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let origin = seen;
    let good = serve(HERE.parse().unwrap(), None).await.unwrap();
    let cases = [
        ("wrong_source", server(true, move |id, from| answer(id, from, origin, None)).await),
        ("unknown_transaction", server(false, move |_, from| answer([7; 12], from, origin, None)).await),
        ("malformed", server(false, |_, _| b"HTTP/1.1 200 OK".to_vec()).await),
        ("malformed", server(false, move |id, from| [answer(id, from, origin, None), vec![0; 1_600]].concat()).await),
        ("malformed", server(false, |id, _| request(id, Change::default())).await),
        (
            "impossible_address",
            server(false, move |id, _| answer(id, "224.0.0.1:5".parse().unwrap(), origin, None)).await,
        ),
        (
            "impossible_address",
            server(false, move |id, _| answer(id, "127.0.0.1:0".parse().unwrap(), origin, None)).await,
        ),
        ("refused", server(false, |id, _| [&[1, 0x11, 0, 0, 0x21, 0x12, 0xa4, 0x42], id.as_slice()].concat()).await),
    ];
    for (reason, bad) in cases {
        let (socket, rejected) = (socket().await, Rejected::default());
        let found = discover(&socket, &[bad, good.address()], &rejected).await.unwrap();
        assert_eq!((found.server, found.mapped), (good.address(), socket.local_addr().unwrap()), "{reason}");
        assert!(rejected.counts()[reason] > 0, "{reason}: {:?}", rejected.counts());
    }
}

#[tokio::test]
async fn silence_is_said_with_whom_was_asked() {
    let silent = socket().await;
    let address = silent.local_addr().unwrap();
    let error = discover(&socket().await, &[address], &Rejected::default()).await.unwrap_err();
    assert_eq!(error, StunError::Silence(vec![address]));
    assert!(error.to_string().contains(&address.to_string()));
    let six: SocketAddr = "[::1]:3478".parse().unwrap();
    assert_eq!(discover(&socket().await, &[six], &Rejected::default()).await, Err(StunError::NoServers));
}

#[tokio::test]
async fn a_server_answers_requests_and_ignores_the_rest() {
    let responder = serve(HERE.parse().unwrap(), None).await.unwrap();
    let (asker, mut buffer) = (socket().await, [0; 200]);
    let seen = asker.local_addr().unwrap();
    // Answers too: two servers would answer each other for ever.
    let ignored = [vec![], b"x".to_vec(), vec![0; 20], answer([1; 12], seen, seen, None), vec![0; 2_000]];
    for bytes in &ignored {
        asker.send_to(bytes, responder.address()).await.unwrap();
    }
    // It has no other address from which it could answer.
    asker.send_to(&request([2; 12], Change { ip: true, port: false }), responder.address()).await.unwrap();
    asker.send_to(&request([3; 12], Change::default()), responder.address()).await.unwrap();
    let (length, from) = asker.recv_from(&mut buffer).await.unwrap();
    let mapped = Some(seen);
    assert_eq!(read(&buffer[..length]), Some(([3; 12], Said::Answer { mapped, other: None })));
    assert_eq!(from, responder.address());
    assert_eq!(responder.served(), Served { answered: 1, ignored: ignored.len() as u64 + 1 });
}

#[test]
fn a_server_answers_so_often_and_no_more() {
    let start = Instant::now();
    let admitted = |limit: &mut Limit, to: IpAddr, now: Instant| {
        let asked = 2 * STUN_ANSWERS_MAX;
        (0..asked).filter(|_| limit.admit(to, now)).count() as u32
    };
    let mut limit = Limit::new(start);
    assert_eq!(admitted(&mut limit, "8.8.8.8".parse().unwrap(), start), STUN_ANSWERS_PER_ADDRESS_MAX);
    // One network of IPv6 is one asker.
    assert_eq!(admitted(&mut limit, "2001:db8::1".parse().unwrap(), start), STUN_ANSWERS_PER_ADDRESS_MAX);
    assert_eq!(admitted(&mut limit, "2001:db8::2".parse().unwrap(), start), 0);
    let others: u32 = (0..200u8).map(|number| admitted(&mut limit, [9, 9, 9, number].into(), start)).sum();
    assert_eq!(others, STUN_ANSWERS_MAX - 2 * STUN_ANSWERS_PER_ADDRESS_MAX);
    let later = start + Duration::from_secs(1);
    assert_eq!(admitted(&mut limit, "8.8.8.8".parse().unwrap(), later), STUN_ANSWERS_PER_ADDRESS_MAX);
}

#[test]
fn a_server_far_away_sends_nobody_into_our_network() {
    let server = "8.8.8.8:3478".parse().unwrap();
    let named = |other: &str| is_other(server, Some(other.parse().unwrap()));
    assert!(named("8.8.4.4:3479"));
    for other in ["192.168.1.1:53", "100.64.0.1:53", "127.0.0.1:53", "0.0.0.0:53", "224.0.0.1:53", "8.8.4.4:3478"] {
        assert!(!named(other), "{other}");
    }
    // One beside us may.
    assert!(is_other("192.168.1.2:3478".parse().unwrap(), Some("192.168.1.3:3479".parse().unwrap())));
}

#[test]
fn what_a_request_asks_for_is_read_as_the_rfc_writes_it() {
    for (ip, port, flags) in [(false, true, 2), (true, false, 4), (true, true, 6)] {
        let bytes = request([1; 12], Change { ip, port });
        assert_eq!(bytes[20..], [0, 3, 0, 4, 0, 0, 0, flags]);
        assert_eq!(read(&bytes), Some(([1; 12], Said::Request { change: Change { ip, port } })));
    }
}

proptest! {
    #[test]
    fn bytes_of_strangers_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let server = "8.8.8.8:5".parse().unwrap();
        let mut questions = [Question::plain(server)];
        prop_assert!(take(&mut questions, server, &bytes).is_err());
        prop_assert!(questions[0].answer.is_none());
    }

    #[test]
    fn an_answer_whose_number_is_guessed_wrong_finds_nothing(guess: [u8; 12], port: u16) {
        let server = "8.8.8.8:5".parse().unwrap();
        let mut questions = [Question::plain(server)];
        prop_assume!(questions[0].transaction != guess);
        let bytes = answer(guess, SocketAddr::from(([9, 9, 9, 9], port)), server, Some(server));
        prop_assert_eq!(take(&mut questions, server, &bytes), Err(Doubt::UnknownTransaction));
        prop_assert!(questions[0].answer.is_none());
    }

    #[test]
    fn damaged_answers_do_no_harm(at in any::<prop::sample::Index>(), to: u8, cut in any::<prop::sample::Index>()) {
        let seen: SocketAddr = "8.8.8.8:5".parse().unwrap();
        let mut bytes = answer([3; 12], seen, seen, Some(seen));
        let index = at.index(bytes.len());
        bytes[index] = to;
        _ = read(&bytes);
        _ = read(&bytes[..cut.index(bytes.len())]);
    }
}

#[tokio::test]
async fn a_filter_that_was_opened_by_other_questions_is_not_judged() {
    let second: IpAddr = "127.0.0.2".parse().unwrap();
    let responder = serve(HERE.parse().unwrap(), Some(second)).await.unwrap();
    let (socket, rejected) = (socket().await, Rejected::default());
    // The second address of the same server: having been asked, it may answer through any filter.
    let servers = [responder.address(), SocketAddr::new(second, responder.address().port())];
    let found = discover(&socket, &servers, &rejected).await.unwrap();
    assert_eq!((found.mapping, found.filtering), (Some(Behavior::EndpointIndependent), None));
}

#[tokio::test]
async fn a_request_that_needs_what_is_unknown_here_is_refused() {
    let responder = serve(HERE.parse().unwrap(), None).await.unwrap();
    let (asker, mut buffer) = (socket().await, [0; 200]);
    // RESPONSE-PORT (RFC 5780, 7.5): the answer would have to go to another port.
    let mut bytes = request([5; 12], Change::default());
    bytes[3] = 8;
    bytes.extend([0, 0x27, 0, 4, 0, 9, 0, 0]);
    asker.send_to(&bytes, responder.address()).await.unwrap();
    let (length, _) = asker.recv_from(&mut buffer).await.unwrap();
    assert_eq!(read(&buffer[..length]), Some(([5; 12], Said::Refusal)));
}
