//! What waits to be sent to the peers, filled by the node's thread and emptied by the sessions' tasks.
//!
//! Nothing here waits: a queue that is full means a peer that does not read, and ends its session.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};

use crate::base::PeerId;
use crate::limits::{SEND_QUEUE_BYTES_MAX, SEND_QUEUE_MAX};
use crate::node::DropReason;
use crate::sync::Message;
use crate::sync::message::{Names, Part};
use crate::sync::receipt::Version;

/// How a session is to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// As it does.
    On,
    /// It ends once the queue is sent, or after a short while.
    Finish(Option<DropReason>),
    /// It ends at once; the reason for which the node dropped the peer before is kept.
    Stop(Option<DropReason>),
}

impl Course {
    /// What it becomes when the session is to end at once.
    pub(super) fn stopped(self) -> Self {
        Self::Stop(self.reason())
    }

    /// Why the node dropped the peer, when it did.
    pub(super) fn reason(self) -> Option<DropReason> {
        match self {
            Self::On => None,
            Self::Finish(reason) | Self::Stop(reason) => reason,
        }
    }
}

/// A message, and its share of the queue's bytes.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) message: Message,
    pub(super) bytes: usize,
    total: Arc<AtomicUsize>,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The sending end of one session's queue.
#[derive(Debug)]
struct Outbox {
    session: u64,
    queue: mpsc::Sender<Queued>,
    bytes: Arc<AtomicUsize>,
    course: Arc<watch::Sender<Course>>,
    /// Whether the first message of the link has come.
    greeted: bool,
}

/// The queues of all sessions.
#[derive(Debug, Clone, Default)]
pub(super) struct Outboxes(Arc<Mutex<HashMap<PeerId, Outbox>>>);

impl Outboxes {
    /// Opens the queue of a new session, in place of the one before.
    pub(super) fn open(
        &self,
        peer: PeerId,
        session: u64,
        course: Arc<watch::Sender<Course>>,
    ) -> mpsc::Receiver<Queued> {
        let (queue, receiver) = mpsc::channel(SEND_QUEUE_MAX);
        let outbox = Outbox { session, queue, bytes: Arc::default(), course, greeted: false };
        self.lock().insert(peer, outbox);
        receiver
    }

    /// Closes the queue of a session, unless it is another session's by now.
    pub(super) fn close(&self, peer: &PeerId, session: u64) {
        let mut outboxes = self.lock();
        if outboxes.get(peer).is_some_and(|outbox| outbox.session == session) {
            outboxes.remove(peer);
        }
    }

    /// Queues a message; one for a peer that is not connected is forgotten.
    ///
    /// The first message of a link is a greeting. What comes before it was meant for the link before this
    /// one: the node does not know yet that the peer is back.
    pub(super) fn send(&self, peer: &PeerId, message: Message) {
        let mut outboxes = self.lock();
        let Some(outbox) = outboxes.get_mut(peer) else { return };
        outbox.greeted |= matches!(message, Message::Hello(_) | Message::Redeem(_));
        if !outbox.greeted {
            tracing::debug!(%peer, message = message.name(), "message for the former link is dropped");
            return;
        }
        let bytes = weight(&message);
        let total = outbox.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let queued = Queued { message, bytes, total: Arc::clone(&outbox.bytes) };
        let full = match outbox.queue.try_send(queued) {
            Ok(()) => total > SEND_QUEUE_BYTES_MAX,
            Err(mpsc::error::TrySendError::Full(_)) => true,
            // The session is ending by itself.
            Err(mpsc::error::TrySendError::Closed(_)) => return,
        };
        if full {
            tracing::warn!(%peer, queued_bytes = total, "peer does not read what is sent; its link is closed");
            outbox.course.send_replace(Course::Stop(None));
            outboxes.remove(peer);
        }
    }

    /// Ends a session after what is queued.
    pub(super) fn finish(&self, peer: &PeerId, reason: DropReason) {
        if let Some(outbox) = self.lock().remove(peer) {
            outbox.course.send_replace(Course::Finish(Some(reason)));
        }
    }

    /// Ends all sessions after what is queued.
    pub(super) fn finish_all(&self) {
        for (_, outbox) in self.lock().drain() {
            outbox.course.send_replace(Course::Finish(None));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, Outbox>> {
        // Every change of the map is one call, so a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// About how many bytes a message takes in memory.
fn weight(message: &Message) -> usize {
    const EACH: usize = 256;
    EACH + match message {
        Message::Hello(hello) => hello.chain.len() * 4 * EACH,
        Message::Redeem(_) => 16 * EACH,
        Message::Welcome(welcome) => welcome.chain.len() * 4 * EACH,
        Message::Refused(why) => why.len(),
        Message::Members(records) => records.len() * 4 * EACH,
        Message::Roots(roots) => roots.parts.iter().map(|(_, names)| EACH / 2 + listed(names) * EACH / 2).sum(),
        Message::Ranges(ranges) => ranges.parts.iter().map(|(_, part)| EACH + digests(part) * 6).sum(),
        Message::Items(items) => {
            let vectors: usize = items.items.iter().map(|(_, vector)| EACH + vector.len() * 24).sum();
            vectors + items.unknown.iter().map(|unknown| EACH + unknown.digests.len() * 6).sum::<usize>()
        }
        Message::Changes { changes, .. } => changes.iter().map(|change| EACH + change.run.bytes()).sum(),
        Message::Acknowledged(_) => 0,
        Message::Ask(ask) => weight_of(&ask.versions),
        Message::RunsTwice(places) => places.len() * EACH,
        Message::Told(told) => told.receipt.as_ref().map_or(0, |receipt| weight_of(&receipt.body.versions)),
    }
}

fn weight_of(versions: &[Version]) -> usize {
    versions.iter().map(|(_, vector)| 256 + vector.len() * 24).sum()
}

fn listed(names: &Names) -> usize {
    match names {
        Names::Skip | Names::Fingerprint(_) => 0,
        Names::Listed(roots) | Names::Differing(roots) => roots.len(),
    }
}

fn digests(part: &Part) -> usize {
    match part {
        Part::Skip | Part::Fingerprint(_) => 0,
        Part::Digests(digests) => digests.len(),
    }
}
