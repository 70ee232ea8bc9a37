//! The table of actors: each author's store has a small number here, so that keys and vectors stay short.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::Store;
use super::key::{self, Space, Tag};
use super::record::{Actor, seal, unseal};
use crate::base::{ActorId, DecodeError, Incarnation, PeerId};
use crate::kv::{Batch, Kv};
use crate::{Error, Result};

/// All actors that ever wrote a stored change, by number. A mesh has as many as its members had stores.
#[derive(Debug, Default)]
pub(super) struct Actors {
    by_number: Vec<Actor>,
    by_id: BTreeMap<ActorId, u32>,
}

impl Actors {
    pub(super) fn load(kv: &dyn Kv, space: Space) -> Result<Self> {
        let mut actors = Self::default();
        let mut damaged = None;
        let (from, to) = key::all(space, Tag::Actor);
        kv.scan(&from, &to, &mut |key, value| match unseal::<Actor>(value) {
            Ok(actor) if key == key::actor(space, actors.by_number.len() as u32) => {
                actors.insert(actor);
                ControlFlow::Continue(())
            }
            Ok(_) => {
                damaged = Some(DecodeError::Rule("it is missing".into()));
                ControlFlow::Break(())
            }
            Err(error) => {
                damaged = Some(error);
                ControlFlow::Break(())
            }
        })?;
        match damaged {
            None => Ok(actors),
            Some(error) => {
                let number = actors.by_number.len();
                Err(Error::Corrupt(format!(
                    "the record of actor {number} is damaged: {error}; restore a backup, or start with an empty data directory and join the mesh again"
                )))
            }
        }
    }

    pub(super) fn get(&self, number: u32) -> Option<&Actor> {
        self.by_number.get(number as usize)
    }

    pub(super) fn number(&self, actor: &ActorId) -> Option<u32> {
        self.by_id.get(actor).copied()
    }

    fn insert(&mut self, actor: Actor) -> u32 {
        let number = u32::try_from(self.by_number.len()).expect("fewer than 2^32 stores have ever written here");
        self.by_id.insert(actor.actor, number);
        self.by_number.push(actor);
        number
    }
}

impl Store {
    /// Whether an actor is that of a store's expiry, see [`Incarnation::of_expiry`].
    #[must_use]
    pub fn is_of_expiry(&self, actor: &ActorId) -> bool {
        let known = self.actors.number(actor).and_then(|number| self.actors.get(number));
        known.is_some_and(|known| known.incarnation.is_of_expiry())
    }

    /// The number of an actor; a new one is stored before anything rests on it.
    pub(super) fn number_actor(&mut self, author: PeerId, incarnation: Incarnation) -> Result<u32> {
        let actor = Actor::new(author, incarnation);
        if let Some(number) = self.actors.number(&actor.actor) {
            return Ok(number);
        }
        let mut batch = Batch::new();
        batch.put(key::actor(self.space(), self.actors.by_number.len() as u32), seal(&actor));
        self.apply_twice(batch)?;
        Ok(self.actors.insert(actor))
    }
}
