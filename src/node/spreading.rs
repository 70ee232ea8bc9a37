//! Changes that gossip is bringing to everybody just now. A comparison finds them missing wherever they have not come yet;
//! to send them there as well would have most of them come twice.

use std::collections::{BTreeMap, VecDeque};

use crate::base::{ActorId, DocumentKey, Timestamp};
use crate::limits::SPREADING_CHANGES_MAX;

use super::neighbour::SETTLE_MS;

/// What gossip has brought here, or was given here, in the last [`SETTLE_MS`].
#[derive(Debug, Default)]
pub(super) struct Spreading {
    /// In the order of time.
    changes: VecDeque<(Timestamp, (DocumentKey, ActorId))>,
    /// The sequence numbers of each actor's changes of a document, in the order of time.
    numbers: BTreeMap<(DocumentKey, ActorId), VecDeque<(u64, Timestamp)>>,
}

impl Spreading {
    /// Takes note of a change. Beyond the bound none is noted: those may come twice.
    pub(super) fn note(&mut self, now: Timestamp, document: DocumentKey, actor: ActorId, number: u64) {
        self.forget(now);
        if self.changes.len() < SPREADING_CHANGES_MAX {
            let key = (document, actor);
            self.numbers.entry(key.clone()).or_default().push_back((number, now));
            self.changes.push_back((now, key));
        }
    }

    /// Whether anything is noted.
    pub(super) fn has_some(&self) -> bool {
        !self.changes.is_empty()
    }

    fn forget(&mut self, now: Timestamp) {
        while let Some((_, key)) = self.changes.pop_front_if(|(at, _)| now.since_ms(*at) >= SETTLE_MS) {
            if let Some(numbers) = self.numbers.get_mut(&key) {
                numbers.pop_front();
                if numbers.is_empty() {
                    self.numbers.remove(&key);
                }
            }
        }
    }

    /// Whether gossip brings somebody who is connected `since` a time everything of a document that is here and beyond
    /// what is there, by actors.
    pub(super) fn brings(
        &self,
        now: Timestamp,
        since: Timestamp,
        document: &DocumentKey,
        ours: &[(ActorId, u64)],
        theirs: &[(ActorId, u64)],
    ) -> bool {
        let mut lacking = ours.iter().filter_map(|&(actor, last)| {
            let held = theirs.binary_search_by_key(&actor, |(actor, _)| *actor).map_or(0, |index| theirs[index].1);
            (held < last).then_some((actor, held + 1))
        });
        let is_lately = |at: Timestamp| at >= since && now.since_ms(at) < SETTLE_MS;
        lacking.all(|(actor, first)| {
            let numbers = self.numbers.get(&(document.clone(), actor));
            numbers.is_some_and(|numbers| numbers.iter().any(|&(number, at)| number == first && is_lately(at)))
        })
    }
}
