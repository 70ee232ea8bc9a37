//! Deleting a document without opening it.
//!
//! A delete says nothing but which changes it builds on. Where one change comes after all others, that change is all
//! that must be known of the document. To open it takes several times as long as everything else that happens to its
//! delete, which counts when a whole collection is dropped.

use super::{Broken, Change};
use crate::Error;
use crate::base::{ActorId, ChangeHash, Hlc};

/// The change of a document that comes after all of its others. It is an edit: the document is not deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    hash: ChangeHash,
    max_op: u64,
}

impl Tip {
    /// Takes a change that is the only head of its document; `None` when it is a delete.
    #[must_use]
    pub fn of(head: &Change) -> Option<Self> {
        (!head.is_delete()).then(|| Self { hash: head.hash(), max_op: head.max_op() })
    }

    /// The change.
    #[must_use]
    pub fn hash(&self) -> ChangeHash {
        self.hash
    }

    /// The delete that [`Document::delete`](super::Document::delete) makes, where `seq` is the number of the actor's
    /// next change in this document.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the document is not what it seemed.
    pub fn delete(&self, actor: ActorId, seq: u64, now: Hlc) -> Result<Change, Error> {
        let made = Change::delete(actor, seq, self.max_op + 1, now, &[self.hash]);
        made.map_err(|error| Broken(format!("its own delete was refused: {error}")).into())
    }

    /// Whether a change is such a delete, which the document takes.
    #[must_use]
    pub fn takes(&self, change: &Change, seq: u64) -> bool {
        change.is_delete()
            && change.deps() == [self.hash]
            && change.seq() == seq
            && change.start_op() == self.max_op + 1
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::base::Timestamp;
    use crate::document::{Document, Object};

    fn object(n: u64) -> Object {
        json!({"n": n, "list": [1, 2, n], "text": "some words"}).as_object().cloned().unwrap()
    }

    #[test]
    fn a_delete_made_without_the_document_is_the_one_made_with_it() {
        let [a, b, c] = [1, 2, 3].map(|n| ActorId([n; 16]));
        let at = |n| Hlc::from_physical(Timestamp(1_700_000_000_000 + n));
        let (mut document, first) = Document::create(a, at(0), &object(0)).unwrap();
        let mut changes = vec![first];
        for (n, actor) in [(1, b), (2, b), (3, a)] {
            changes.push(document.replace(actor, at(n), &object(n)).unwrap().unwrap());
        }
        for known in 1..=changes.len() {
            for actor in [a, b, c] {
                let mut document = Document::new();
                document.apply(changes[..known].to_vec()).unwrap();
                let (tip, seq) = (Tip::of(&changes[known - 1]).unwrap(), document.sequence(&actor) + 1);
                let made = tip.delete(actor, seq, at(9)).unwrap();
                assert!(tip.takes(&made, seq) && !tip.takes(&made, seq + 1));
                assert!(!tip.takes(&changes[known - 1], seq));
                assert_eq!(document.delete(actor, at(9)).unwrap(), Some(made.clone()));
                assert_eq!(Tip::of(&made), None);
            }
        }
    }
}
