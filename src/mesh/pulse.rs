//! The libp2p behaviour by which each side of a connection says something every few seconds, so that silence means
//! that it is gone (see [`super::life`]).
//!
//! What is said is a ping of libp2p's own protocol (`/ipfs/ping/1.0.0`), which every peer answers. Its answer is not
//! waited for: on a slow line it may be behind megabytes of other data, and the next pulse must not be. A side that has
//! answered has said something, so on a quiet connection one side asks and the other answers, in turns.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, FutureExt};
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour, Stream,
    StreamProtocol, StreamUpgradeError, SubstreamProtocol, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{PeerId, ping};
use tokio::time::{Instant, Sleep, sleep};

/// How long a side says nothing at most.
const INTERVAL: Duration = Duration::from_secs(3);
/// Bytes of a ping.
const PING_BYTES: usize = 32;

/// The behaviour: it only gives each connection its handler.
#[derive(Debug, Default)]
pub(super) struct Behaviour;

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler::new())
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, never: THandlerOutEvent<Self>) {
        match never {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// Our stream on a connection.
#[derive(Debug)]
enum Outbound {
    /// To be opened.
    Closed,
    Opening,
    /// There is so much left to send of the last ping.
    Open {
        stream: Stream,
        left: usize,
    },
    /// The other side speaks no ping.
    Unspoken,
}

/// The pulse of one connection.
pub(super) struct Handler {
    /// When to say something.
    timer: Pin<Box<Sleep>>,
    outbound: Outbound,
    /// The answer to the other side's next ping.
    answer: Option<BoxFuture<'static, io::Result<Stream>>>,
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handler").field("outbound", &self.outbound).finish_non_exhaustive()
    }
}

impl Handler {
    fn new() -> Self {
        // The stream is opened at once: later there may be much in its way.
        Self { timer: Box::pin(sleep(Duration::ZERO)), outbound: Outbound::Closed, answer: None }
    }

    /// Answers what pings have come.
    fn answer(&mut self, cx: &mut Context<'_>) {
        while let Some(Poll::Ready(answered)) = self.answer.as_mut().map(|answer| answer.poll_unpin(cx)) {
            self.answer = answered.ok().map(|stream| answer(stream).boxed());
            self.timer.as_mut().reset(Instant::now() + INTERVAL);
        }
    }

    /// Whether it is time to say something.
    fn is_due(&mut self, cx: &mut Context<'_>) -> bool {
        let is_due = self.timer.as_mut().poll(cx).is_ready();
        if is_due {
            self.timer.as_mut().reset(Instant::now() + INTERVAL);
            // So that it wakes this task the next time.
            _ = self.timer.as_mut().poll(cx);
        }
        is_due
    }

    /// Sends what is left of a ping, and takes the answers to those before.
    fn talk(&mut self, cx: &mut Context<'_>) {
        if let Outbound::Open { stream, left } = &mut self.outbound
            && talk(stream, left, cx).is_err()
        {
            self.outbound = Outbound::Closed;
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<ReadyUpgrade<StreamProtocol>> {
        SubstreamProtocol::new(ReadyUpgrade::new(ping::PROTOCOL_NAME), ())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, (), Infallible>> {
        self.answer(cx);
        if self.is_due(cx) {
            match &mut self.outbound {
                Outbound::Open { left: left @ 0, .. } => *left = PING_BYTES,
                Outbound::Closed => {
                    self.outbound = Outbound::Opening;
                    // Asking for the stream is a sign of life as well, so it is asked for as often.
                    let protocol = self.listen_protocol().with_timeout(INTERVAL);
                    return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
                }
                Outbound::Open { .. } | Outbound::Opening | Outbound::Unspoken => {}
            }
        }
        self.talk(cx);
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, never: Infallible) {
        match never {}
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, ReadyUpgrade<StreamProtocol>, ReadyUpgrade<StreamProtocol>>,
    ) {
        if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: mut stream, .. }) = event {
            stream.ignore_for_keep_alive();
            self.answer = Some(answer(stream).boxed());
        } else if let ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
            protocol: mut stream, ..
        }) = event
        {
            stream.ignore_for_keep_alive();
            self.outbound = Outbound::Open { stream, left: 0 };
        } else if let ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) = event {
            self.outbound = match error {
                StreamUpgradeError::NegotiationFailed => Outbound::Unspoken,
                StreamUpgradeError::Timeout => {
                    self.timer.as_mut().reset(Instant::now());
                    Outbound::Closed
                }
                StreamUpgradeError::Io(_) => Outbound::Closed,
                StreamUpgradeError::Apply(never) => match never {},
            };
        }
    }
}

/// Waits for a ping and sends it back.
async fn answer(mut stream: Stream) -> io::Result<Stream> {
    let mut ping = [0; PING_BYTES];
    stream.read_exact(&mut ping).await?;
    stream.write_all(&ping).await?;
    stream.flush().await?;
    Ok(stream)
}

fn talk(stream: &mut Stream, left: &mut usize, cx: &mut Context<'_>) -> io::Result<()> {
    let closed = || io::Error::from(io::ErrorKind::UnexpectedEof);
    while let Poll::Ready(read) = Pin::new(&mut *stream).poll_read(cx, &mut [0; PING_BYTES]) {
        (read? > 0).then_some(()).ok_or_else(closed)?;
    }
    while *left > 0
        && let Poll::Ready(written) = Pin::new(&mut *stream).poll_write(cx, &[0; PING_BYTES][..*left])
    {
        *left -= Some(written?).filter(|written| *written > 0).ok_or_else(closed)?;
    }
    match Pin::new(stream).poll_flush(cx) {
        Poll::Ready(flushed) => flushed,
        Poll::Pending => Ok(()),
    }
}
