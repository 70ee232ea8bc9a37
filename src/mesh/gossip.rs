//! Live changes over gossipsub: the mesh's topics, sealing and opening, and verdicts.
//!
//! Heavy work happens in two tasks: one seals what is published, in order; one opens and checks what
//! arrives. What does not open is rejected at once and never bothers the node; everything else waits for
//! the node's verdict and is not passed on before it.

use std::collections::{BTreeMap, HashMap};

use futures::StreamExt;
use libp2p::PeerId as Libp2pId;
use libp2p::gossipsub::{IdentTopic, Message, MessageAcceptance, MessageId, PublishError, TopicHash};
use tokio::sync::mpsc;

use super::address::ours;
use super::behaviour::{Gossipsub, topic_scores};
use super::driver::Note;
use super::worker::Workers;
use crate::base::{MeshId, PeerId};
use crate::document::Unchecked;
use crate::limits::GOSSIP_VERDICTS_MAX;
use crate::node::{GossipId, Input, MeshContext, Verdict};
use crate::sync::gossip::Secret;
use crate::sync::{Checked, Topic, check};

/// Changes to be sealed, under the secret that was the mesh's when they were published.
#[derive(Debug)]
pub(super) struct Unsealed {
    pub(super) topic: Topic,
    pub(super) secret: Secret,
    pub(super) changes: Vec<Unchecked>,
}

/// A message to be opened and checked.
#[derive(Debug)]
pub(super) struct Unopened {
    id: GossipId,
    from: PeerId,
    topic: Topic,
    secret: Secret,
    mesh: MeshId,
    bytes: Vec<u8>,
}

/// The driver's side of gossip.
#[derive(Debug)]
pub(super) struct Gossip {
    context: MeshContext,
    topics: HashMap<TopicHash, Topic>,
    /// Messages without a verdict yet, with who passed them on.
    waiting: BTreeMap<GossipId, (MessageId, Libp2pId)>,
    next: GossipId,
    unopened: mpsc::Sender<Unopened>,
}

impl Gossip {
    pub(super) fn new(context: MeshContext, unopened: mpsc::Sender<Unopened>) -> Self {
        Self { context, topics: HashMap::new(), waiting: BTreeMap::new(), next: 1, unopened }
    }

    /// Leaves the topics of the mesh before, and enters those of this one. Returns the mesh that was left.
    pub(super) fn enter(&mut self, gossipsub: &mut Gossipsub, context: MeshContext) -> Option<MeshId> {
        let left = Some(self.context.mesh).filter(|mesh| *mesh != context.mesh);
        for (hash, _) in self.topics.drain() {
            gossipsub.unsubscribe(&IdentTopic::new(hash.into_string()));
        }
        self.context = context;
        for topic in Topic::all() {
            let name = IdentTopic::new(self.context.secret.topic_name(topic));
            if let Err(error) = gossipsub.subscribe(&name) {
                tracing::error!(%error, "a gossip topic cannot be entered; live changes are late");
            }
            if let Err(error) = gossipsub.set_topic_params(name.clone(), topic_scores()) {
                tracing::error!(%error, "the scores of a gossip topic are wrong");
            }
            self.topics.insert(name.hash(), topic);
        }
        left
    }

    /// A message arrived. It is passed on when the node has accepted it.
    pub(super) fn arrived(&mut self, gossipsub: &mut Gossipsub, source: Libp2pId, id: MessageId, message: Message) {
        let (Some(topic), Some(from)) = (self.topics.get(&message.topic), ours(&source)) else {
            gossipsub.report_message_validation_result(&id, &source, MessageAcceptance::Ignore);
            return;
        };
        let number = self.next;
        let unopened = Unopened {
            id: number,
            from,
            topic: *topic,
            secret: self.context.secret.clone(),
            mesh: self.context.mesh,
            bytes: message.data,
        };
        if self.unopened.try_send(unopened).is_err() {
            tracing::debug!("gossip arrives faster than it can be checked; a message is ignored");
            gossipsub.report_message_validation_result(&id, &source, MessageAcceptance::Ignore);
            return;
        }
        self.next += 1;
        self.waiting.insert(number, (id, source));
        if self.waiting.len() > GOSSIP_VERDICTS_MAX {
            self.waiting.pop_first();
        }
    }

    /// Tells gossipsub what is to become of a message.
    pub(super) fn judge(&mut self, gossipsub: &mut Gossipsub, id: GossipId, verdict: Verdict) {
        let Some((message, source)) = self.waiting.remove(&id) else { return };
        let acceptance = match verdict {
            Verdict::Accept => MessageAcceptance::Accept,
            Verdict::Ignore => MessageAcceptance::Ignore,
            Verdict::Reject => MessageAcceptance::Reject,
        };
        if !gossipsub.report_message_validation_result(&message, &source, acceptance) {
            tracing::debug!(id, "the verdict on a gossip message came too late");
        }
    }
}

/// Publishes a sealed message; false when it may have reached nobody although somebody listens.
pub(super) fn publish(gossipsub: &mut Gossipsub, topic: &str, sealed: Vec<u8>) -> bool {
    match gossipsub.publish(TopicHash::from_raw(topic), sealed) {
        // Nobody there is normal: comparing brings the changes over later.
        Ok(_) | Err(PublishError::NoPeersSubscribedToTopic | PublishError::Duplicate) => true,
        Err(
            error @ (PublishError::MessageTooLarge
            | PublishError::AllQueuesFull(_)
            | PublishError::SigningError(_)
            | PublishError::TransformFailed(_)),
        ) => {
            tracing::debug!(?error, "live changes could not be published");
            false
        }
    }
}

/// Seals what is to be published, in order, until the queue is closed.
pub(super) async fn seal_all(mut queue: mpsc::Receiver<Unsealed>, workers: Workers, notes: mpsc::Sender<Note>) {
    while let Some(Unsealed { topic, secret, changes }) = queue.recv().await {
        let name = secret.topic_name(topic);
        let sealed = workers.run(move || secret.seal(topic, rand::random(), &changes)).await;
        let note = match sealed {
            Ok(bytes) => Note::Sealed { topic: name, bytes },
            Err(error) => {
                tracing::error!(%error, "live changes could not be sealed");
                Note::PublishFailed
            }
        };
        if notes.send(note).await.is_err() {
            return;
        }
    }
}

/// Opens and checks what arrives, two at a time and in order, until the queue is closed.
pub(super) async fn open_all(
    mut queue: mpsc::Receiver<Unopened>,
    workers: Workers,
    inputs: mpsc::Sender<Input>,
    notes: mpsc::Sender<Note>,
) {
    let arrived = futures::stream::poll_fn(move |cx| queue.poll_recv(cx));
    let mut opened = arrived.map(|unopened| open(unopened, &workers)).buffered(2);
    while let Some((id, from, changes)) = opened.next().await {
        let told = match changes {
            Some(changes) => inputs.send(Input::Published { from, id, changes }).await.is_ok(),
            None => notes.send(Note::Rejected(id)).await.is_ok(),
        };
        if !told {
            return;
        }
    }
}

async fn open(unopened: Unopened, workers: &Workers) -> (GossipId, PeerId, Option<Vec<Checked>>) {
    let Unopened { id, from, topic, secret, mesh, bytes } = unopened;
    let opened = workers.run(move || secret.open(topic, &bytes).map(|changes| check(mesh, changes))).await;
    match opened {
        Ok(Ok(changes)) => (id, from, Some(changes)),
        Ok(Err(error)) => {
            tracing::debug!(%from, %error, "gossip message is rejected");
            (id, from, None)
        }
        Err(error) => {
            tracing::error!(%error, "a gossip message could not be checked");
            (id, from, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: GossipId, secret: u8, bytes: Vec<u8>) -> Unopened {
        let topic = Topic::all().next().unwrap();
        let (secret, mesh) = (Secret::new([secret; 32]), MeshId([1; 32]));
        Unopened { id, from: PeerId([7; 32]), topic, secret, mesh, bytes }
    }

    #[tokio::test]
    async fn what_does_not_open_is_rejected_without_bothering_the_node() {
        let (queue, to_open) = mpsc::channel(8);
        let (inputs, mut node) = mpsc::channel(8);
        let (notes, mut driver) = mpsc::channel(8);
        let sealed = Secret::new([1; 32]).seal(Topic::all().next().unwrap(), [0; 24], &[]);
        for (id, secret, bytes) in [(1, 1, b"garbage".to_vec()), (2, 2, sealed.clone()), (3, 1, sealed), (4, 1, vec![])]
        {
            queue.send(message(id, secret, bytes)).await.unwrap();
        }
        drop(queue);
        open_all(to_open, Workers::new(), inputs, notes).await;
        assert!(matches!(node.recv().await, Some(Input::Published { id: 3, .. })));
        assert!(node.recv().await.is_none());
        for rejected in [1, 2, 4] {
            assert!(matches!(driver.recv().await, Some(Note::Rejected(id)) if id == rejected));
        }
    }
}
