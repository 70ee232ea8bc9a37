//! Which peers are linked: connections and streams made into sessions.
//!
//! A session is one pair of streams. It starts with a peer's first connection, on which our stream is
//! opened; the peer may open its own on any of its connections. When one of the streams breaks the
//! session is over, and all connections of the peer are closed, so that both sides start anew. When the
//! peer opens another stream on another connection, it has started anew without our noticing (a crash, a
//! change of network): the newest pair counts.
//!
//! The two sides may come to know a relayed connection and a direct one in different orders. So that their
//! streams do not cross, direct beats relayed: whoever is offered a stream on a direct connection follows it
//! there, and whoever has a direct connection takes no stream on a relayed one of the same time.

use std::sync::Arc;
use std::time::Duration;

use libp2p::PeerId as Libp2pId;
use libp2p::core::ConnectedPoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{ConnectionId, Stream};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::address::{self, ours, theirs};
use super::driver::{Connection, Driver, remote};
use super::link::{StreamError, StreamEvent};
use super::outbox::Course;
use super::session::{Ended, Session};
use crate::base::PeerId;
use crate::limits::CONNECTIONS_MAX;
use crate::node::{DropReason, Link};

/// Sessions, and former ones that have not told the node yet; more means that the node does not keep up.
const TASKS_MAX: usize = 2 * CONNECTIONS_MAX as usize;

/// How much later than a direct connection a relayed one may come up and still be of the same attempt to connect.
const SAME_TIME: Duration = Duration::from_secs(3);

/// A peer that is linked, or about to be.
#[derive(Debug)]
pub(super) struct Linked {
    peer: PeerId,
    number: u64,
    /// Where our stream is.
    pub(super) connection: ConnectionId,
    /// Where it is about to move: a stream is being opened there while the session goes on.
    moving: Option<ConnectionId>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Our stream is being opened; theirs may be here already.
    Opening { accepted: Option<(ConnectionId, Stream)> },
    /// The session's task runs.
    Open {
        course: Arc<watch::Sender<Course>>,
        /// Where to hand in their stream, until it has come.
        accept: Option<oneshot::Sender<Stream>>,
        /// Where their stream is.
        accepted: Option<ConnectionId>,
        /// Closed when the task has told the node that the session is over.
        done: oneshot::Receiver<()>,
    },
}

impl Linked {
    /// Whether one of the session's streams is on a connection.
    pub(super) fn uses(&self, connection: ConnectionId) -> bool {
        let theirs = match &self.state {
            State::Opening { accepted } => accepted.as_ref().map(|(on, _)| *on),
            State::Open { accepted, .. } => *accepted,
        };
        self.connection == connection || theirs == Some(connection)
    }
}

/// What becomes of a stream that a peer opened to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is the other half of the session.
    Take,
    /// The peer has moved to its connection, or started anew there.
    Follow,
    /// It belongs to no session, or to one that is over.
    Refuse,
}

/// Judges a stream on a connection by where our own stream is, and where the last one of the peer was.
fn judge(on: ConnectionId, theirs: &Connection, ours: &Connection, accepted: Option<ConnectionId>) -> Verdict {
    match (theirs.link.direct, ours.link.direct) {
        (true, false) => Verdict::Follow,
        (false, true) if theirs.since < ours.since + SAME_TIME => Verdict::Refuse,
        (_, _) if accepted.is_none() => Verdict::Take,
        (_, _) if accepted == Some(on) => Verdict::Refuse,
        (_, _) => Verdict::Follow,
    }
}

impl Driver {
    pub(super) fn established(&mut self, peer: Libp2pId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let remote = remote(endpoint, peer);
        tracing::debug!(%peer, %connection, %remote, dialed = endpoint.is_dialer(), "connection is open");
        let link =
            Link { address: remote.to_string(), dialed: endpoint.is_dialer(), direct: address::is_direct(&remote) };
        let from_listening_port = matches!(endpoint, ConnectedPoint::Dialer { port_use: PortUse::Reuse, .. });
        let (since, closing) = (Instant::now(), false);
        self.connections.insert(connection, Connection { peer, remote, link, since, from_listening_port, closing });
        if !self.links.contains_key(&peer) {
            self.begin(peer, connection, None);
        } else {
            self.dials.remove(&connection);
            self.move_over(peer);
        }
    }

    /// When the session of a peer goes through a relay and there is a connection that does not, it moves over. One side
    /// sees to it; the other follows when it is offered the new stream.
    fn move_over(&mut self, peer: Libp2pId) {
        let is_direct = |id: &ConnectionId| self.connections.get(id).is_some_and(|known| known.link.direct);
        let is_ours = *self.swarm.local_peer_id() < peer;
        let is_relayed =
            self.links.get(&peer).is_some_and(|linked| linked.moving.is_none() && !is_direct(&linked.connection));
        if is_ours
            && is_relayed
            && let Some(direct) = self.best(peer).filter(is_direct)
            && let Some(linked) = self.links.get_mut(&peer)
        {
            linked.moving = Some(direct);
            self.swarm.behaviour_mut().link.open(peer, direct);
        }
    }

    /// Nothing came of moving to a direct connection so far: it moves to another one, if there is any. A peer takes a
    /// connection that it dialed for open before the other side does, which may never do so.
    pub(super) fn move_elsewhere(&mut self, peer: Libp2pId) -> bool {
        let Some(stuck) = self.links.get(&peer).and_then(|linked| linked.moving) else { return false };
        let is_other = |(id, known): &(&ConnectionId, &Connection)| {
            known.peer == peer && known.link.direct && !known.closing && **id != stuck
        };
        let Some(other) = self.connections.iter().find(is_other).map(|(id, _)| *id) else { return false };
        if let Some(linked) = self.links.get_mut(&peer) {
            linked.moving = Some(other);
        }
        self.swarm.behaviour_mut().link.open(peer, other);
        self.shut(stuck);
        true
    }

    /// Whether a session was about to move to a connection; it is no longer.
    fn is_moving(&mut self, peer: Libp2pId, to: ConnectionId) -> bool {
        self.links.get_mut(&peer).and_then(|linked| linked.moving.take_if(|moving| *moving == to)).is_some()
    }

    /// The stream is open to which the session moves. The other side has it too, and follows; the old one ends here.
    fn moved(&mut self, peer: Libp2pId, connection: ConnectionId) {
        let Some(id) = self.links.get(&peer).map(|linked| linked.peer) else { return };
        tracing::debug!(%peer, "the session moves from a relay to a direct connection");
        self.leave(peer, true);
        self.link(peer, id, connection, None);
    }

    /// Starts a session with a peer that is connected without one: it was a stranger, through whom others were reached.
    /// Says whether it is connected at all.
    pub(super) fn link_again(&mut self, peer: Libp2pId, address: &str) -> bool {
        if self.links.contains_key(&peer) {
            return false;
        }
        let Some(connection) = self.best(peer) else { return false };
        self.dials.insert(connection, address.to_owned());
        self.begin(peer, connection, None);
        true
    }

    /// A connection of a peer for a session: a direct one, if there is any.
    fn best(&self, peer: Libp2pId) -> Option<ConnectionId> {
        let of_peer = self.connections.iter().filter(|(_, known)| known.peer == peer && !known.closing);
        of_peer.max_by_key(|(_, known)| known.link.direct).map(|(connection, _)| *connection)
    }

    /// Starts a session by opening our stream.
    fn begin(&mut self, peer: Libp2pId, connection: ConnectionId, accepted: Option<(ConnectionId, Stream)>) {
        let id = ours(&peer).filter(|_| !self.closing && self.tasks.len() < TASKS_MAX);
        let Some(id) = id else {
            self.shut(connection);
            return;
        };
        self.link(peer, id, connection, accepted);
        self.swarm.behaviour_mut().link.open(peer, connection);
    }

    fn link(&mut self, peer: Libp2pId, id: PeerId, on: ConnectionId, accepted: Option<(ConnectionId, Stream)>) {
        self.sessions += 1;
        let state = State::Opening { accepted };
        self.links.insert(peer, Linked { peer: id, number: self.sessions, connection: on, moving: None, state });
    }

    pub(super) fn closed(&mut self, peer: Libp2pId, connection: ConnectionId) {
        self.connections.remove(&connection);
        self.reach_closed(peer, connection);
        let failed = self.dials.remove(&connection);
        match self.links.get_mut(&peer) {
            // The session is served by another one, or was to move here: peers that connect over QUIC and TCP at once keep
            // one of the two.
            Some(linked) if linked.connection != connection => {
                linked.moving = linked.moving.filter(|to| *to != connection);
                return self.move_over(peer);
            }
            Some(linked) => match &mut linked.state {
                // Our stream went with it.
                State::Open { .. } => return self.end_or_move(peer),
                State::Opening { accepted } => {
                    let accepted = accepted.take().filter(|(on, _)| *on != connection);
                    self.links.remove(&peer);
                    if let Some(other) = self.best(peer) {
                        return self.begin(peer, other, accepted);
                    }
                }
            },
            None => {}
        }
        if let Some(address) = failed {
            self.dial_failed(address, "the peer there closed the connection".into());
        }
    }

    pub(super) fn stream_event(&mut self, peer: Libp2pId, connection: ConnectionId, event: StreamEvent) {
        match event {
            StreamEvent::Opened(stream) => {
                if self.is_moving(peer, connection) {
                    self.moved(peer, connection);
                }
                self.opened(peer, connection, stream);
            }
            StreamEvent::Accepted(stream) => self.accepted(peer, connection, stream),
            StreamEvent::Failed(error) => {
                tracing::debug!(%peer, %error, "no stream to the peer");
                if self.is_moving(peer, connection) {
                    // It is of no use, and there may be another one.
                    self.shut(connection);
                }
                if let Some(address) = self.dials.remove(&connection) {
                    self.dial_failed(address, error.to_string());
                }
                if self.links.get(&peer).is_none_or(|linked| linked.connection != connection) {
                    return;
                }
                if matches!(error, StreamError::Unspoken) {
                    // Nobody of ours, but it may ask the DHT or try addresses with us, as whoever speaks libp2p may.
                    self.leave(peer, false);
                    self.keep_for_now(peer);
                } else {
                    self.end(peer);
                }
            }
        }
    }

    /// Our stream is open: the session's task takes over.
    fn opened(&mut self, peer: Libp2pId, connection: ConnectionId, stream: Stream) {
        self.dials.remove(&connection);
        let (Some(known), Some(linked)) = (self.connections.get(&connection), self.links.get_mut(&peer)) else {
            return;
        };
        let State::Opening { accepted } = &mut linked.state else { return };
        if linked.connection != connection {
            return;
        }
        let accepted = accepted.take();
        let course = Arc::new(watch::Sender::new(Course::On));
        let queue = self.shared.outboxes.open(linked.peer, linked.number, Arc::clone(&course));
        let ((accept, inbound), (done, is_done)) = (oneshot::channel(), oneshot::channel());
        let session = Session {
            peer: linked.peer,
            number: linked.number,
            link: known.link.clone(),
            context: self.context.clone(),
            lives: self.lives.clone(),
            inputs: self.inputs.clone(),
            workers: self.workers.clone(),
            course: course.subscribe(),
            before: self.leaving.remove(&peer),
            done,
        };
        let relayed = !known.link.direct;
        self.tasks.spawn(session.run(stream, inbound, queue, self.notes.0.clone()));
        linked.state = State::Open { course, accept: Some(accept), accepted: None, done: is_done };
        if relayed {
            self.punch_later(peer);
        }
        if let Some((on, stream)) = accepted {
            self.accepted(peer, on, stream);
        }
    }

    /// The peer opened a stream to us. Dropping it refuses it.
    fn accepted(&mut self, peer: Libp2pId, connection: ConnectionId, stream: Stream) {
        let Some(linked) = self.links.get_mut(&peer) else {
            // It was a stranger before, and is none any more.
            return self.begin(peer, connection, Some((connection, stream)));
        };
        let of = |id| self.connections.get(id);
        let (Some(theirs), Some(ours)) = (of(&connection), of(&linked.connection)) else { return };
        let before = match &linked.state {
            // Ours is not there yet, so a second one on the same connection takes the place of the first.
            State::Opening { accepted } => accepted.as_ref().map(|(on, _)| *on).filter(|on| *on != connection),
            State::Open { accepted, .. } => *accepted,
        };
        match (judge(connection, theirs, ours, before), &mut linked.state) {
            (Verdict::Take, State::Opening { accepted }) => *accepted = Some((connection, stream)),
            (Verdict::Take, State::Open { accept, accepted, .. }) => {
                *accepted = Some(connection);
                // When the task is over, its note is on the way.
                if let Some(accept) = accept.take() {
                    _ = accept.send(stream);
                }
            }
            (Verdict::Follow, _) => self.follow(peer, connection, stream),
            (Verdict::Refuse, _) => {}
        }
    }

    fn follow(&mut self, peer: Libp2pId, connection: ConnectionId, stream: Stream) {
        let Some(id) = self.links.get(&peer).map(|linked| linked.peer) else { return };
        tracing::debug!(%peer, "the session moves to where the peer is, which has moved or started anew");
        // Our stream may be under way there already.
        let moving = self.is_moving(peer, connection);
        self.leave(peer, true);
        let of_peer = self.connections.iter().filter(|(id, known)| known.peer == peer && **id != connection);
        for stale in of_peer.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.shut(stale);
        }
        if moving {
            self.link(peer, id, connection, Some((connection, stream)));
        } else {
            self.begin(peer, connection, Some((connection, stream)));
        }
    }

    /// A session's task is over.
    pub(super) fn ended(&mut self, ended: &Ended) {
        let Some(peer) = theirs(&ended.peer) else { return };
        if self.links.get(&peer).is_some_and(|linked| linked.number == ended.number) {
            if matches!(ended.dropped, Some(DropReason::ForeignMesh | DropReason::NotAMember | DropReason::Fallen)) {
                // It may have come to go through us to somebody who lets it in.
                self.leave(peer, false);
                self.keep_for_now(peer);
            } else if ended.dropped.is_none() {
                self.end_or_move(peer);
            } else {
                self.end(peer);
            }
        }
        if ended.dropped == Some(DropReason::Misbehaved) {
            self.block(peer);
        }
    }

    /// A session is over. When it went through a relay and there is a direct connection it has moved there: the other
    /// side was faster.
    fn end_or_move(&mut self, peer: Libp2pId) {
        let Some(linked) = self.links.get(&peer) else { return };
        let (id, moving) = (linked.peer, linked.moving);
        let is_direct = |of: &ConnectionId| self.connections.get(of).is_some_and(|known| known.link.direct);
        let was_relayed = !is_direct(&linked.connection);
        let is_good = |known: &Connection| known.peer == peer && known.link.direct && !known.closing;
        let direct = || self.connections.iter().find(|(_, known)| is_good(known));
        if let Some(moving) = moving {
            // Our stream is being opened there.
            self.leave(peer, true);
            self.link(peer, id, moving, None);
        } else if let Some((direct, _)) = direct().filter(|_| was_relayed) {
            let direct = *direct;
            self.leave(peer, true);
            self.begin(peer, direct, None);
        } else {
            self.end(peer);
        }
    }

    /// Ends the link to a peer with all of its connections, unless others are reached through it.
    fn end(&mut self, peer: Libp2pId) {
        // Its task hands over what has arrived, and ends because the streams do.
        self.leave(peer, false);
        if self.carries(&peer) {
            self.keep_for_now(peer);
        } else {
            self.shut_all(peer);
        }
    }

    /// Closes all connections of a peer.
    pub(super) fn shut_all(&mut self, peer: Libp2pId) {
        let of_peer = self.connections.iter().filter(|(_, known)| known.peer == peer);
        of_peer.map(|(id, _)| *id).collect::<Vec<_>>().into_iter().for_each(|id| self.shut(id));
    }

    /// Closes a connection, which nothing is begun on from now on.
    pub(super) fn shut(&mut self, connection: ConnectionId) {
        if let Some(known) = self.connections.get_mut(&connection) {
            known.closing = true;
        }
        // Whether it was still open makes no difference.
        _ = self.swarm.close_connection(connection);
    }

    /// Forgets a session; its task says goodbye to the node by itself, at once when it is told to.
    fn leave(&mut self, peer: Libp2pId, at_once: bool) {
        let Some(linked) = self.links.remove(&peer) else { return };
        self.shared.outboxes.close(&linked.peer, linked.number);
        if let State::Open { course, done, .. } = linked.state {
            if at_once {
                course.send_modify(|course| *course = course.stopped());
            }
            self.leaving.retain(|_, done| matches!(done.try_recv(), Err(TryRecvError::Empty)));
            self.leaving.insert(peer, done);
        }
    }
}

#[cfg(test)]
mod tests {
    use libp2p::core::Endpoint;
    use tokio::sync::mpsc;

    use super::*;
    use crate::identity::Keypair;
    use crate::mesh::prepare;
    use crate::mesh::tests::{config, mesh};

    #[tokio::test]
    async fn a_session_moves_from_a_relay_to_the_direct_connection_that_stays() {
        let id = |seed| theirs(&Keypair::from_seed([seed; 32]).peer_id()).unwrap();
        let mut seeds = [1, 2];
        seeds.sort_by_key(|seed| id(*seed));
        let (peer, relay) = (id(seeds[1]), id(3));
        let (mut driver, _handle) = prepare(config(seeds[0], &[]), mesh(1), mpsc::channel(1).0).unwrap();
        let [relayed, quic, tcp, last] = [1, 2, 3, 4].map(ConnectionId::new_unchecked);
        let connect = |driver: &mut Driver, connection, address: &str| {
            let (role_override, port_use) = (Endpoint::Dialer, PortUse::Reuse);
            let point = ConnectedPoint::Dialer { address: address.parse().unwrap(), role_override, port_use };
            driver.established(peer, connection, &point);
        };
        let moving = |driver: &Driver| driver.links[&peer].moving;
        connect(&mut driver, relayed, &format!("/ip4/8.8.8.8/tcp/1/p2p/{relay}/p2p-circuit"));
        assert_eq!(moving(&driver), None);
        connect(&mut driver, quic, "/ip4/8.8.4.4/udp/1/quic-v1");
        connect(&mut driver, tcp, "/ip4/8.8.4.4/tcp/1");
        assert_eq!(moving(&driver), Some(quic));
        driver.closed(peer, quic);
        assert_eq!(moving(&driver), Some(tcp));
        // A connection on which no stream can be opened is closed.
        driver.stream_event(peer, tcp, StreamEvent::Failed(StreamError::Unspoken));
        assert_eq!(moving(&driver), None);
        connect(&mut driver, last, "/ip4/8.8.4.4/tcp/2");
        driver.closed(peer, tcp);
        assert_eq!(moving(&driver), Some(last));
        // One on which nothing happens is given up when there is another.
        assert!(!driver.move_elsewhere(peer));
        connect(&mut driver, quic, "/ip4/8.8.4.4/udp/1/quic-v1");
        assert!(driver.move_elsewhere(peer));
        assert_eq!(moving(&driver), Some(quic));
    }

    #[test]
    fn streams_do_not_cross_between_a_relay_and_a_direct_connection() {
        let start = Instant::now();
        let peer = Libp2pId::random();
        let connection = |direct, after_ms| {
            let link = Link { address: String::new(), dialed: true, direct };
            let since = start + Duration::from_millis(after_ms);
            let (from_listening_port, closing) = (true, false);
            Connection { peer, remote: libp2p::Multiaddr::empty(), link, since, from_listening_port, closing }
        };
        let [one, other, third] = [1, 2, 3].map(ConnectionId::new_unchecked);
        let (relayed, direct) = (connection(false, 0), connection(true, 20));
        for accepted in [None, Some(one), Some(other)] {
            // Whoever saw the relay first follows, whoever saw the direct connection first waits for that.
            assert_eq!(judge(one, &direct, &relayed, accepted), Verdict::Follow);
            assert_eq!(judge(one, &relayed, &direct, accepted), Verdict::Refuse);
            assert_eq!(judge(one, &connection(false, 2_000), &direct, accepted), Verdict::Refuse);
        }
        // A peer that comes back through a relay has lost the direct connection.
        let back = connection(false, 20_000);
        assert_eq!(judge(third, &back, &direct, Some(one)), Verdict::Follow);
        // Both dialed at once, each side has its stream on another connection: that is a pair.
        for other in [direct, connection(true, 9_000)] {
            assert_eq!(judge(one, &other, &connection(true, 0), None), Verdict::Take);
            assert_eq!(judge(one, &other, &connection(true, 0), Some(one)), Verdict::Refuse);
            assert_eq!(judge(one, &other, &connection(true, 0), Some(third)), Verdict::Follow);
        }
    }
}
