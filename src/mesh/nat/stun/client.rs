//! What the NAT in front of this machine does, found out by asking STUN servers.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::message::{Change, DATAGRAM_BYTES_MAX, Said, Transaction, read, request};
use super::{Behavior, Doubt, Rejected};
use crate::mesh::address::is_public;
use crate::mesh::nat::tally::Reason;

/// Until when answers are waited for, each time a question is asked, counted from the first time.
const ROUNDS: [Duration; 3] = [Duration::from_millis(250), Duration::from_millis(600), Duration::from_millis(1_200)];
/// Servers that are asked; more tell nothing new.
const SERVERS_MAX: usize = 8;

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// The server that told most.
    pub server: SocketAddr,
    /// The address of the socket on this machine.
    pub local: SocketAddr,
    /// Its address as the server sees it.
    pub mapped: SocketAddr,
    /// How outer ports are chosen; `None` when the servers at hand cannot tell.
    pub mapping: Option<Behavior>,
    /// Who may answer to an outer port; `None` when the servers at hand cannot tell.
    pub filtering: Option<Behavior>,
}

/// Why nothing was found out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StunError {
    /// There is nobody to ask.
    #[error("no STUN server is known")]
    NoServers,
    /// Nothing came back.
    #[error("no STUN server answered over UDP (asked: {})", list(.0))]
    Silence(Vec<SocketAddr>),
    /// The socket failed.
    #[error("STUN servers cannot be asked: {0}")]
    Io(String),
}

fn list(servers: &[SocketAddr]) -> String {
    servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A question, and what came back.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) transaction: Transaction,
    to: SocketAddr,
    change: Change,
    /// From where the answer has to come.
    from: SocketAddr,
    pub(super) answer: Option<(SocketAddr, Option<SocketAddr>)>,
}

impl Question {
    fn new(to: SocketAddr, change: Change, from: SocketAddr) -> Self {
        Self { transaction: rand::random(), to, change, from, answer: None }
    }

    pub(super) fn plain(to: SocketAddr) -> Self {
        Self::new(to, Change::default(), to)
    }

    fn mapped(&self) -> Option<SocketAddr> {
        self.answer.map(|(mapped, _)| mapped)
    }
}

/// Finds out what the NAT does (RFC 5780, 4.3 and 4.4), in at most some four seconds. Servers of the other IP version
/// than the socket's are left out. With a server that has a second address all is found out; with two plain servers
/// only whether mappings are endpoint-independent.
///
/// # Errors
/// [`StunError`] when nobody is there to be asked, nobody answers, or the socket fails.
pub async fn discover(socket: &UdpSocket, servers: &[SocketAddr], rejected: &Rejected) -> Result<Findings, StunError> {
    let io = |error: std::io::Error| StunError::Io(error.to_string());
    let local = socket.local_addr().map_err(io)?;
    let servers: Vec<SocketAddr> =
        servers.iter().filter(|server| server.is_ipv4() == local.is_ipv4()).take(SERVERS_MAX).copied().collect();
    if servers.is_empty() {
        return Err(StunError::NoServers);
    }
    let first =
        ask(socket, servers.iter().map(|server| Question::plain(*server)).collect(), rejected).await.map_err(io)?;
    let answered: Vec<&Question> = first.iter().filter(|question| question.answer.is_some()).collect();
    let full = |question: &&&Question| question.answer.is_some_and(|(_, other)| is_other(question.to, other));
    let unopened =
        |question: &&&Question| question.answer.is_some_and(|(_, other)| is_closed(question.to, other, &servers));
    let best = answered.iter().find(unopened).or_else(|| answered.iter().find(full)).or(answered.first());
    let Some(best) = best else { return Err(StunError::Silence(servers)) };
    let Some((mapped, other)) = best.answer else { return Err(StunError::Silence(servers)) };
    let mut findings = Findings { server: best.to, local, mapped, mapping: None, filtering: None };
    if let Some(other) = other.filter(|_| is_other(best.to, other)) {
        // Filtering first: asking the other address opens the filter for it.
        if is_closed(best.to, Some(other), &servers) {
            findings.filtering = Some(filtering(socket, best.to, other, rejected).await.map_err(io)?);
        }
        findings.mapping = mapping(socket, best.to, other, mapped, rejected).await.map_err(io)?;
    } else {
        let elsewhere = answered.iter().filter(|question| question.to.ip() != best.to.ip());
        let mut equal = elsewhere.filter_map(|question| question.mapped()).map(|other| other == mapped).peekable();
        if equal.peek().is_some() {
            findings.mapping = Some(if equal.all(|equal| equal) {
                Behavior::EndpointIndependent
            } else {
                Behavior::AddressAndPortDependent
            });
        }
    }
    Ok(findings)
}

/// Whether a server has a second address and port. One on the Internet that names an address on our network has none: it
/// would have us send packets there.
pub(super) fn is_other(server: SocketAddr, other: Option<SocketAddr>) -> bool {
    other.is_some_and(|other| {
        other.ip() != server.ip()
            && other.port() != server.port()
            && is_possible(other, server)
            && (is_public(other.ip()) || !is_public(server.ip()))
    })
}

/// Whether a server has a second address and port from which nothing may come back yet: what was asked has opened the
/// filter for itself, so that such answers would say nothing.
fn is_closed(server: SocketAddr, other: Option<SocketAddr>, asked: &[SocketAddr]) -> bool {
    let opens = |asked: &SocketAddr, other: SocketAddr| {
        asked.ip() == other.ip() || *asked == SocketAddr::new(server.ip(), other.port())
    };
    is_other(server, other) && other.is_some_and(|other| !asked.iter().any(|asked| opens(asked, other)))
}

async fn filtering(
    socket: &UdpSocket,
    server: SocketAddr,
    other: SocketAddr,
    rejected: &Rejected,
) -> std::io::Result<Behavior> {
    let port_only = SocketAddr::new(server.ip(), other.port());
    let questions = vec![
        Question::new(server, Change { ip: true, port: true }, other),
        Question::new(server, Change { ip: false, port: true }, port_only),
    ];
    let answers = ask(socket, questions, rejected).await?;
    Ok(match (answers[0].answer.is_some(), answers[1].answer.is_some()) {
        (true, _) => Behavior::EndpointIndependent,
        (false, true) => Behavior::AddressDependent,
        (false, false) => Behavior::AddressAndPortDependent,
    })
}

async fn mapping(
    socket: &UdpSocket,
    server: SocketAddr,
    other: SocketAddr,
    first: SocketAddr,
    rejected: &Rejected,
) -> std::io::Result<Option<Behavior>> {
    let other_ip = SocketAddr::new(other.ip(), server.port());
    let answers = ask(socket, vec![Question::plain(other_ip), Question::plain(other)], rejected).await?;
    Ok(match (answers[0].mapped(), answers[1].mapped()) {
        (Some(second), _) if second == first => Some(Behavior::EndpointIndependent),
        (Some(second), Some(third)) if second == third => Some(Behavior::AddressDependent),
        (Some(_), Some(_)) => Some(Behavior::AddressAndPortDependent),
        _ => None,
    })
}

/// Asks all questions at once, again when no answer comes, until all are answered or the time is over.
async fn ask(socket: &UdpSocket, mut questions: Vec<Question>, rejected: &Rejected) -> std::io::Result<Vec<Question>> {
    let start = Instant::now();
    let mut buffer = [0; DATAGRAM_BYTES_MAX + 1];
    for after in ROUNDS {
        for question in questions.iter().filter(|question| question.answer.is_none()) {
            let bytes = request(question.transaction, question.change);
            // No way to this one says nothing of the others.
            if let Err(error) = socket.send_to(&bytes, question.to).await {
                tracing::debug!(server = %question.to, %error, "a STUN server cannot be asked");
            }
        }
        while let Ok(received) = timeout_at(start + after, socket.recv_from(&mut buffer)).await {
            // An error is what the network said to a packet of ours, such as that a port is closed.
            let Ok((length, from)) = received else { continue };
            if let Err(doubt) = take(&mut questions, from, &buffer[..length]) {
                tracing::debug!(%from, reason = doubt.as_str(), "an answer of a STUN server is not believed");
                rejected.count(doubt);
            }
            if questions.iter().all(|question| question.answer.is_some()) {
                return Ok(questions);
            }
        }
    }
    Ok(questions)
}

/// Takes in an answer, if it can be believed.
pub(super) fn take(questions: &mut [Question], from: SocketAddr, bytes: &[u8]) -> Result<(), Doubt> {
    let (transaction, said) = read(bytes).ok_or(Doubt::Malformed)?;
    let asked = questions.iter_mut().find(|question| question.transaction == transaction);
    let question = asked.ok_or(Doubt::UnknownTransaction)?;
    if question.from != from {
        return Err(Doubt::WrongSource);
    }
    match said {
        Said::Answer { mapped: Some(mapped), other } if is_possible(mapped, from) => {
            question.answer.get_or_insert((mapped, other));
            Ok(())
        }
        Said::Answer { mapped: Some(_), .. } => Err(Doubt::ImpossibleAddress),
        Said::Refusal => Err(Doubt::Refused),
        Said::Answer { mapped: None, .. } | Said::Request { .. } | Said::Demand { .. } => Err(Doubt::Malformed),
    }
}

/// Whether an address can be one at which a server that is at another sees somebody.
fn is_possible(address: SocketAddr, server: SocketAddr) -> bool {
    let is_broadcast = matches!(address.ip(), IpAddr::V4(ip) if ip.is_broadcast());
    address.port() != 0
        && address.is_ipv4() == server.is_ipv4()
        && !address.ip().is_unspecified()
        && !address.ip().is_multicast()
        && !is_broadcast
        && (!address.ip().is_loopback() || server.ip().is_loopback())
}
