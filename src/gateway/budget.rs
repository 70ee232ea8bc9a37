//! Bytes that wait on connections, within one bound for all of them: answers on their way out, bodies on their way in.
//!
//! Who asks for much and does not read would else fill the memory, a page at a time. An answer takes its room before it
//! leaves and keeps it until the last of it is with the system; a stream takes it for each piece. What is small needs none:
//! so many bytes any connection has anyway, and health, refusals and most writes are answered however full it is.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::GATEWAY_SMALL_BYTES;

/// A bound for bytes.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    bytes: Arc<Semaphore>,
    max: usize,
}

/// Room for some bytes, until it is dropped.
#[derive(Debug)]
pub(super) struct Room(OwnedSemaphorePermit);

impl Budget {
    /// Room for `max` bytes.
    pub(super) fn new(max: usize) -> Self {
        let max = max.clamp(GATEWAY_SMALL_BYTES, u32::MAX as usize);
        Self { bytes: Arc::new(Semaphore::new(max)), max }
    }

    /// Room for so many bytes, if there is. What is larger than all of it takes all of it.
    pub(super) fn try_take(&self, bytes: usize) -> Option<Room> {
        self.bytes.clone().try_acquire_many_owned(self.permits(bytes)).ok().map(Room)
    }

    /// Waits for room for so many bytes, in the order of those who ask.
    pub(super) async fn take(&self, bytes: usize) -> Room {
        let permit = self.bytes.clone().acquire_many_owned(self.permits(bytes)).await;
        Room(permit.expect("the semaphore is never closed"))
    }

    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.max)).unwrap_or(u32::MAX)
    }
}

impl Room {
    /// Gives back what is more than so many bytes need.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        let spare = self.0.num_permits().saturating_sub(bytes);
        drop(self.0.split(spare));
    }

    /// Bytes that keep this room for as long as any part of them is there.
    pub(super) fn hold(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Held { bytes, _room: self })
    }
}

/// Bytes and their room.
struct Held {
    bytes: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn room_comes_back_when_the_last_part_of_what_it_is_for_is_gone() {
        let budget = Budget::new(1 << 20);
        let mut bytes = budget.try_take(1 << 20).unwrap().hold(Bytes::from(vec![7; 1 << 20]));
        assert!(budget.try_take(1).is_none());
        let last = bytes.split_off(1);
        drop(bytes);
        assert!(budget.take(1).now_or_never().is_none());
        drop(last);
        let mut room = budget.try_take(2 << 20).expect("what is too large takes all of it");
        assert!(budget.try_take(1).is_none());
        room.shrink_to(1 << 19);
        assert!(budget.try_take(1 << 19).is_some() && budget.try_take((1 << 19) + 1).is_none());
    }
}
