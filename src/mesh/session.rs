//! One session with a peer: a pair of streams, and the task that serves them.
//!
//! The task itself tells the node that the peer is there, hands over what arrives, and tells it that the
//! peer is gone, all on the one bounded channel, so that the order is right without further ado; when the
//! node is slow, the task waits, reads no more, and the peer feels it. At most two frames of a peer are in
//! memory: one that waits for the node, and one that is being checked meanwhile.

use std::io;
use std::time::Duration;

use futures::{AsyncWrite, AsyncWriteExt, future};
use libp2p::swarm::Stream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::address::theirs;
use super::frame::{self, FrameError};
use super::life::Lives;
use super::outbox::{Course, Queued};
use super::worker::Workers;
use crate::base::{MeshId, PeerId};
use crate::document::Unchecked;
use crate::node::{DropReason, Input, Link, MeshContext};
use crate::sync::message::decode;
use crate::sync::{Checked, Message, check, introduce, verify_member};

/// A peer that lives and takes nothing of a write for so long has stalled. How long a whole frame takes is up to the line.
const STALL: Duration = Duration::from_secs(30);
/// A peer of which nothing has come for so long does not answer: it was to say something before, and the way is short.
const NO_ANSWER: Duration = Duration::from_millis(5_500);
/// How often it is looked whether a peer answers.
const LOOK: Duration = Duration::from_millis(500);
/// How long a peer that is dropped may take to read what was queued for it.
const FINISH: Duration = Duration::from_millis(500);
/// Frames and messages below this are handled on the spot: the way to a worker costs more.
const SMALL_BYTES: usize = 2 << 10;
/// Changes above this are checked in two halves at once.
const SPLIT_CHANGES: usize = 32;

/// What a session needs.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) peer: PeerId,
    pub(super) number: u64,
    pub(super) link: Link,
    pub(super) context: watch::Receiver<MeshContext>,
    pub(super) lives: Lives,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) workers: Workers,
    /// How it is to go on.
    pub(super) course: watch::Receiver<Course>,
    /// Closed when the session with this peer before has said goodbye.
    pub(super) before: Option<oneshot::Receiver<()>>,
    /// Dropped when this one has.
    pub(super) done: oneshot::Sender<()>,
}

/// Tells the driver that a session is over.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) peer: PeerId,
    pub(super) number: u64,
    /// Why the node dropped the peer, when it did.
    pub(super) dropped: Option<DropReason>,
}

/// Why a session is over, for the log.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the peer closed it")]
    Closed,
    #[error("stopped from here")]
    Stopped,
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("a message that cannot be read: {0}")]
    Message(#[from] crate::base::DecodeError),
    #[error("the peer took nothing for {} s", STALL.as_secs())]
    Stalled,
    #[error("a check failed to run: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

impl Session {
    /// Serves the streams until the session is over, and tells the node and the driver.
    pub(super) async fn run<E: From<Ended>>(
        mut self,
        outbound: Stream,
        inbound: oneshot::Receiver<Stream>,
        queue: mpsc::Receiver<Queued>,
        ended: mpsc::Sender<E>,
    ) {
        if let Some(before) = self.before.take() {
            // Nothing is ever sent: it ends with an error when the other end is dropped.
            _ = before.await;
        }
        let (peer, number) = (self.peer, self.number);
        if self.inputs.send(Input::Connected(peer, self.link.clone())).await.is_ok() {
            let end = self.serve(outbound, inbound, queue).await;
            tracing::debug!(%peer, %end, "link is closed");
        }
        let dropped = self.course.borrow().reason();
        // First the driver, so that the connection is closed even while the node is slow.
        _ = ended.send(Ended { peer, number, dropped }.into()).await;
        _ = self.inputs.send(Input::Disconnected(peer)).await;
        drop(self.done);
    }

    async fn serve(&self, outbound: Stream, inbound: oneshot::Receiver<Stream>, queue: mpsc::Receiver<Queued>) -> End {
        let mut course = self.course.clone();
        let reading = async {
            match inbound.await {
                Ok(stream) => self.read(stream).await,
                Err(_) => End::Stopped,
            }
        };
        let writing = async {
            match write(outbound, queue, &self.workers).await {
                // All is sent; the peer reads to the end and then closes, which ends the reading.
                Ok(_outbound) => future::pending().await,
                Err(end) => {
                    // What the peer said last may be on its way to the node, and says why it closed.
                    sleep(FINISH).await;
                    end
                }
            }
        };
        tokio::select! {
            end = reading => end,
            end = writing => end,
            end = self.attend() => end,
            () = over(&mut course) => End::Stopped,
        }
    }

    /// Tells the node when the peer answers no more, and when it does again.
    async fn attend(&self) -> End {
        let Some(peer) = theirs(&self.peer) else { return future::pending().await };
        let mut answers = true;
        loop {
            sleep(LOOK).await;
            let silence = self.lives.silence(&peer);
            if answers == (silence < NO_ANSWER) {
                continue;
            }
            answers = !answers;
            let silence_ms = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
            let input = if answers { Input::Answered(self.peer) } else { Input::Unanswered(self.peer, silence_ms) };
            if self.inputs.send(input).await.is_err() {
                return End::Stopped;
            }
        }
    }

    /// Hands frames to the node in order. The next one is read and checked while the last one waits.
    async fn read(&self, mut stream: Stream) -> End {
        let mut ready = None;
        loop {
            let hand_over = async {
                match ready.take() {
                    Some(input) => self.inputs.send(input).await.map_err(|_| End::Stopped),
                    None => Ok(()),
                }
            };
            let (handed, next) = future::join(hand_over, self.next(&mut stream)).await;
            match handed.and(next) {
                Ok(input) => ready = Some(input),
                Err(end) => return end,
            }
        }
    }

    async fn next(&self, stream: &mut Stream) -> Result<Input, End> {
        let body = frame::read(stream).await?.ok_or(End::Closed)?;
        let message =
            if body.len() < SMALL_BYTES { decode(&body)? } else { self.workers.run(move || decode(&body)).await?? };
        if message.carries_records() {
            let check = move || introduce(message, verify_member);
            return Ok(Input::Introduced(self.peer, Box::new(self.workers.run(check).await?)));
        }
        match message {
            Message::Changes { number, changes } => {
                let mesh = self.context.borrow().mesh;
                let changes = check_changes(&self.workers, mesh, changes).await?;
                Ok(Input::Changes { from: self.peer, number, changes })
            }
            message @ (Message::Hello(_)
            | Message::Redeem(_)
            | Message::Welcome(_)
            | Message::Refused(_)
            | Message::Members(_)
            | Message::Roots(_)
            | Message::Ranges(_)
            | Message::Items(_)
            | Message::Acknowledged(_)
            | Message::Ask(_)
            | Message::Told(_)
            | Message::RunsTwice(_)) => Ok(Input::Received(self.peer, Box::new(message))),
        }
    }
}

/// Checks the signatures of changes on workers.
pub(super) async fn check_changes(
    workers: &Workers,
    mesh: MeshId,
    mut changes: Vec<Unchecked>,
) -> Result<Vec<Checked>, tokio::task::JoinError> {
    let rest = if changes.len() > SPLIT_CHANGES { changes.split_off(changes.len() / 2) } else { Vec::new() };
    if rest.is_empty() {
        return workers.run(move || check(mesh, changes)).await;
    }
    let halves = (workers.run(move || check(mesh, changes)), workers.run(move || check(mesh, rest)));
    let (mut checked, rest) = future::try_join(halves.0, halves.1).await?;
    checked.extend(rest);
    Ok(checked)
}

/// Sends what is queued until the queue is closed and empty; then closes the stream and returns it.
async fn write(mut stream: Stream, mut queue: mpsc::Receiver<Queued>, workers: &Workers) -> Result<Stream, End> {
    while let Some(queued) = queue.recv().await {
        let frame = if queued.bytes < SMALL_BYTES {
            frame::write(&queued.message)?
        } else {
            workers.run(move || frame::write(&queued.message)).await??
        };
        write_frame(&mut stream, &frame).await?;
        if queue.is_empty() {
            in_time(stream.flush()).await?;
        }
    }
    in_time(stream.close()).await?;
    Ok(stream)
}

async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), mut left: &[u8]) -> Result<(), End> {
    while !left.is_empty() {
        let taken = in_time(stream.write(left)).await?;
        if taken == 0 {
            return Err(FrameError::from(io::Error::from(io::ErrorKind::WriteZero)).into());
        }
        left = &left[taken..];
    }
    Ok(())
}

async fn in_time<T>(writing: impl Future<Output = io::Result<T>>) -> Result<T, End> {
    timeout(STALL, writing).await.map_err(|_| End::Stalled)?.map_err(|error| FrameError::from(error).into())
}

/// Returns when the session is to end, having given it time to finish when it may. A session that the driver forgot, so
/// that nobody is left to change its course, ends as well, whatever its streams do: the next one waits for it.
async fn over(course: &mut watch::Receiver<Course>) {
    _ = course.wait_for(|course| *course != Course::On).await;
    let stopped = async {
        if course.wait_for(|course| matches!(course, Course::Stop(_))).await.is_err() {
            future::pending().await
        }
    };
    _ = timeout(FINISH, stopped).await;
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_session_ends_when_it_is_told_to_and_when_it_is_forgotten() {
        let (sender, mut course) = watch::channel(Course::On);
        assert!(over(&mut course).now_or_never().is_none());
        sender.send_replace(Course::Finish(None));
        assert!(over(&mut course).now_or_never().is_none());
        sender.send_replace(Course::Stop(None));
        assert!(over(&mut course).now_or_never().is_some());
        for last in [Course::On, Course::Finish(None)] {
            let (sender, mut course) = watch::channel(last);
            drop(sender);
            // It may hand over what has arrived.
            assert!(over(&mut course).now_or_never().is_none());
            timeout(STALL, over(&mut course)).await.unwrap();
        }
    }
}
