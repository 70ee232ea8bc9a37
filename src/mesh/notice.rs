//! What the driver itself has to tell the node: failed dials, discoveries, lost publications. Links and
//! what arrives on them are told by the sessions' tasks.
//!
//! The driver must not wait for the node, so notices wait here, and some are lost when there are too many:
//! discoveries first. The node lives without each of them; it only takes longer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};

use crate::limits::NOTICES_MAX;
use crate::node::Input;

/// Notices that wait for the node.
#[derive(Debug, Clone, Default)]
pub(super) struct Notices {
    queue: Arc<Mutex<VecDeque<Input>>>,
    filled: Arc<Notify>,
}

impl Notices {
    /// Queues a notice; never waits.
    pub(super) fn push(&self, notice: Input) {
        let mut queue = self.lock();
        // One of these says as much as many.
        if matches!(notice, Input::PublishFailed) && queue.iter().any(|other| matches!(other, Input::PublishFailed)) {
            return;
        }
        if queue.len() >= NOTICES_MAX {
            tracing::debug!("the node is slow; a notice is dropped");
            let discovery = queue.iter().position(|other| matches!(other, Input::Discovered(..)));
            queue.remove(discovery.unwrap_or(0));
        }
        queue.push_back(notice);
        self.filled.notify_one();
    }

    /// Hands notices to the node as fast as it takes them, until it is gone.
    pub(super) async fn hand_over(self, inputs: mpsc::Sender<Input>) {
        loop {
            let notice = self.lock().pop_front();
            let Some(notice) = notice else {
                self.filled.notified().await;
                continue;
            };
            if inputs.send(notice).await.is_err() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Input>> {
        // The queue is whole after each call on it, whatever panics elsewhere.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::PeerId;

    #[test]
    fn discoveries_give_way_first_and_lost_publications_are_told_once() {
        let notices = Notices::default();
        notices.push(Input::DialFailed("first".into(), "why".into()));
        for _ in 0..NOTICES_MAX * 2 {
            notices.push(Input::Discovered(PeerId([1; 32]), Vec::new()));
            notices.push(Input::PublishFailed);
        }
        assert_eq!(notices.lock().len(), NOTICES_MAX);
        assert!(matches!(notices.lock().pop_front(), Some(Input::DialFailed(..))));
        let lost = notices.lock().iter().filter(|notice| matches!(notice, Input::PublishFailed)).count();
        assert_eq!(lost, 1);
    }
}
