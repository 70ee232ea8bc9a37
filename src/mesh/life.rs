//! Whether the other side of a connection is still there.
//!
//! A network can lose a connection without a word: a router forgets it, a cable is cut, a machine stops. The kernel goes on
//! for a quarter of an hour before it says so, and says nothing at all while nothing is sent. So each side says something
//! every few seconds (see [`super::pulse`]), and a connection on which nothing has come for [`SILENCE`] is over, over TCP,
//! QUIC and relays alike. It is enough that anything comes: on a slow line that a transfer fills, pulses wait behind it one
//! way, and pass freely the other way.
//!
//! Over TCP and through relays the bytes below the encryption count, so that a part of a message is a sign of life, and
//! so is a write that had to wait and goes on: what was sent before it has been taken. Over QUIC, whose packets are not
//! seen here, the bytes of the streams count.
//!
//! Nothing is decided here about peers: a dead connection is an error of its transport, and the rest follows from it.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::{MapOk, TryFutureExt};
use futures::{AsyncRead, AsyncWrite};
use libp2p::PeerId;
use libp2p::core::UpgradeInfo;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use tokio::time::{Instant, Sleep, sleep};

use crate::limits::READ_AHEAD_BYTES_MAX;

/// A connection on which nothing has come for so long is over: two pulses were missed, and the next is due.
pub(super) const SILENCE: Duration = Duration::from_secs(8);
/// A timer that comes so much later than it was set has told of a machine that was held up, and nothing of the peer.
const HELD_UP: Duration = Duration::from_secs(1);
/// Time to read what has come while the machine was held up.
const GRACE: Duration = Duration::from_secs(2);
/// Bytes that are read at once from a socket of which nobody reads.
const READ_AHEAD_BYTES: usize = 4 << 10;

/// Why a connection is over on which nothing comes.
#[derive(Debug, thiserror::Error)]
#[error("nothing has come from the other side for {} s", SILENCE.as_secs())]
pub(super) struct Silent;

impl Silent {
    /// Whether this is what is below an error of a connection.
    pub(super) fn is_below(error: &(dyn std::error::Error + 'static)) -> bool {
        let mut next = Some(error);
        while let Some(error) = next {
            // What is in an error of input and output is not its source.
            let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            if error.is::<Self>() || held.is_some_and(|held| Self::is_below(held)) {
                return true;
            }
            next = error.source();
        }
        false
    }
}

/// The connections of all peers, and when something last came over each.
#[derive(Debug, Clone)]
pub(super) struct Lives {
    start: Instant,
    peers: Arc<Mutex<HashMap<PeerId, Vec<Weak<AtomicU64>>>>>,
}

impl Lives {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), peers: Arc::default() }
    }

    /// A new connection, whose peer is not known yet.
    pub(super) fn begin(&self) -> Life {
        let heard = Heard { start: self.start, at_ms: Arc::default() };
        heard.now();
        Life { heard, timer: Box::pin(sleep(SILENCE)) }
    }

    /// An encryption whose connections are these.
    pub(super) fn watch<U>(&self, upgrade: U) -> Watched<U> {
        Watched { upgrade, lives: self.clone() }
    }

    /// It is known whose connection this is.
    pub(super) fn enroll(&self, peer: PeerId, heard: &Heard) {
        // Every change of the map leaves it whole, so a panic elsewhere does.
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|_, connections| {
            connections.retain(|connection| connection.strong_count() > 0);
            !connections.is_empty()
        });
        peers.entry(peer).or_default().push(Arc::downgrade(&heard.at_ms));
    }

    /// For how long nothing has come from a peer, over any of its connections. Of one without any nothing is awaited.
    pub(super) fn silence(&self, peer: &PeerId) -> Duration {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = peers.get(peer).into_iter().flatten().filter_map(Weak::upgrade);
        let last_ms = connections.map(|at_ms| at_ms.load(Ordering::Relaxed)).max();
        last_ms.map_or(Duration::ZERO, |last_ms| self.start.elapsed().saturating_sub(Duration::from_millis(last_ms)))
    }
}

/// When something last came over a connection, for those who see it come.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    start: Instant,
    at_ms: Arc<AtomicU64>,
}

impl Heard {
    /// Something has come.
    pub(super) fn now(&self) {
        let ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.at_ms.store(ms, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.at_ms.load(Ordering::Relaxed))
    }
}

/// One connection's life.
#[derive(Debug)]
pub(super) struct Life {
    heard: Heard,
    timer: Pin<Box<Sleep>>,
}

impl Life {
    pub(super) fn heard(&self) -> &Heard {
        &self.heard
    }

    /// Ready when nothing has come for too long. To be asked after all that has come was read.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let (now, due) = (Instant::now(), self.heard.last() + SILENCE);
            let next = if now > self.timer.deadline() + HELD_UP {
                due.max(now + GRACE)
            } else if due <= now {
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, Silent));
            } else {
                due
            };
            self.timer.as_mut().reset(next);
        }
    }
}

/// A socket on which something must come.
#[derive(Debug)]
pub(super) struct Living<S> {
    socket: S,
    life: Life,
    /// Whether a write waits.
    waits: bool,
    /// Read to see whether anything comes, while whoever reads is held up by a write that waits.
    ahead: Vec<u8>,
}

impl<S: AsyncRead + Unpin> Living<S> {
    fn new(socket: S, life: Life) -> Self {
        Self { socket, life, waits: false, ahead: Vec::new() }
    }

    fn poll_socket(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let bytes = ready!(Pin::new(&mut self.socket).poll_read(cx, buffer))?;
        self.life.heard.now();
        Poll::Ready(Ok(bytes))
    }

    /// What becomes of a write: when it waits for too long while nothing comes, the connection is over.
    fn written<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if std::mem::take(&mut self.waits) {
                self.life.heard.now();
            }
            return written;
        }
        self.waits = true;
        while let Poll::Ready(over) = self.life.poll_over(cx) {
            let room = READ_AHEAD_BYTES_MAX.saturating_sub(self.ahead.len()).min(READ_AHEAD_BYTES);
            let mut buffer = vec![0; room];
            match self.poll_socket(cx, &mut buffer) {
                Poll::Ready(Ok(bytes)) if bytes > 0 => self.ahead.extend_from_slice(&buffer[..bytes]),
                Poll::Ready(Ok(_) | Err(_)) | Poll::Pending => return Poll::Ready(Err(over)),
            }
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Living<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if !self.ahead.is_empty() {
            let bytes = self.ahead.len().min(buffer.len());
            buffer[..bytes].copy_from_slice(&self.ahead[..bytes]);
            self.ahead.drain(..bytes);
            return Poll::Ready(Ok(bytes));
        }
        match self.poll_socket(cx, buffer) {
            Poll::Pending => self.life.poll_over(cx).map(Err),
            ready @ Poll::Ready(_) => ready,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Living<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buffer);
        self.written(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        self.written(cx, flushed)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.socket).poll_close(cx);
        self.written(cx, closed)
    }
}

/// An encryption whose connections must live.
#[derive(Debug, Clone)]
pub(super) struct Watched<U> {
    upgrade: U,
    lives: Lives,
}

type Enroll<S> = Box<dyn FnOnce((PeerId, S)) -> (PeerId, S) + Send>;

impl<U> Watched<U> {
    fn begin<C: AsyncRead + Unpin, S: 'static>(&self, socket: C) -> (Living<C>, Enroll<S>) {
        let (life, lives) = (self.lives.begin(), self.lives.clone());
        let heard = life.heard.clone();
        let enroll = move |(peer, stream)| {
            lives.enroll(peer, &heard);
            (peer, stream)
        };
        (Living::new(socket, life), Box::new(enroll))
    }
}

impl<U: UpgradeInfo> UpgradeInfo for Watched<U> {
    type Info = U::Info;
    type InfoIter = U::InfoIter;

    fn protocol_info(&self) -> U::InfoIter {
        self.upgrade.protocol_info()
    }
}

impl<C, U, S> InboundConnectionUpgrade<C> for Watched<U>
where
    C: AsyncRead + Unpin,
    U: InboundConnectionUpgrade<Living<C>, Output = (PeerId, S)>,
    S: 'static,
{
    type Output = (PeerId, S);
    type Error = U::Error;
    type Future = MapOk<U::Future, Enroll<S>>;

    fn upgrade_inbound(self, socket: C, info: U::Info) -> Self::Future {
        let (socket, enroll) = self.begin(socket);
        self.upgrade.upgrade_inbound(socket, info).map_ok(enroll)
    }
}

impl<C, U, S> OutboundConnectionUpgrade<C> for Watched<U>
where
    C: AsyncRead + Unpin,
    U: OutboundConnectionUpgrade<Living<C>, Output = (PeerId, S)>,
    S: 'static,
{
    type Output = (PeerId, S);
    type Error = U::Error;
    type Future = MapOk<U::Future, Enroll<S>>;

    fn upgrade_outbound(self, socket: C, info: U::Info) -> Self::Future {
        let (socket, enroll) = self.begin(socket);
        self.upgrade.upgrade_outbound(socket, info).map_ok(enroll)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// A socket to which nothing can be written, and from which one byte at a time comes, or nothing.
    struct Stuck {
        speaks: bool,
    }

    impl AsyncRead for Stuck {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            if self.speaks { Poll::Ready(Ok(1)) } else { Poll::Pending }
        }
    }

    impl AsyncWrite for Stuck {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn a_write_that_waits_is_over_when_nothing_comes_meanwhile() {
        let lives = Lives::new();
        let write = async |speaks| {
            let life = lives.begin();
            let (heard, mut socket) = (life.heard().clone(), Living::new(Stuck { speaks }, life));
            let mut write = poll_fn(|cx| Pin::new(&mut socket).poll_write(cx, b"x"));
            let over = tokio::time::timeout(SILENCE + Duration::from_secs(2), &mut write).await;
            drop(write);
            (over, heard, socket)
        };
        let ((over, ..), (waits, heard, mut socket)) = tokio::join!(write(false), write(true));
        let error = over.unwrap().unwrap_err();
        assert!(Silent::is_below(&error) && Silent::is_below(&io::Error::other(error)));
        assert!(waits.is_err(), "something came");
        assert!(heard.last().elapsed() < SILENCE);
        // What was read meanwhile is not lost.
        let mut buffer = [7; 4];
        assert_eq!(poll_fn(|cx| Pin::new(&mut socket).poll_read(cx, &mut buffer)).await.unwrap(), 1);
        assert_eq!(buffer, [0, 7, 7, 7]);
    }

    #[tokio::test]
    async fn the_silence_of_a_peer_is_that_of_the_connection_that_was_heard_last() {
        let (lives, peer) = (Lives::new(), PeerId::random());
        assert_eq!(lives.silence(&peer), Duration::ZERO);
        let (one, other) = (lives.begin(), lives.begin());
        lives.enroll(peer, one.heard());
        lives.enroll(peer, other.heard());
        sleep(Duration::from_millis(30)).await;
        assert!(lives.silence(&peer) >= Duration::from_millis(20));
        one.heard().now();
        assert!(lives.silence(&peer) < Duration::from_millis(20));
        drop((one, other));
        assert_eq!(lives.silence(&peer), Duration::ZERO);
    }
}
