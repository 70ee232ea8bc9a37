//! Spaces: the data of a mesh that was left stays on the disk beside those of the one that the peer is in. A space is
//! used once; a peer that comes back to a mesh does so in a new one.
//!
//! Not here: what moves from one to the other, which the node decides.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::key::Space;
use super::record::seal;
use super::{Reader, Store, key};
use crate::base::{Decode, DecodeError, Encode, Incarnation, Reader as Decoder, Writer};
use crate::kv::Batch;
use crate::{Error, Result};

/// The layout of the whole store; a store of a version that is not known is refused, never guessed at.
pub(super) const FORMAT: u8 = 3;

/// The oldest layout that is read: in it records do not say how many conflicts there are, which `conflict` makes good.
const FORMAT_MIN: u8 = 2;

/// What the whole store agrees on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) version: u8,
    pub(super) incarnation: Incarnation,
    pub(super) space: Space,
}

impl Encode for Format {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(self.version).value(&self.incarnation).u8(self.space);
    }
}

impl Decode for Format {
    fn decode(reader: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let version = reader.u8()?;
        if !(FORMAT_MIN..=FORMAT).contains(&version) {
            return Err(DecodeError::Unknown { what: "store format", value: version.into() });
        }
        Ok(Self { version, incarnation: reader.value()?, space: reader.u8()? })
    }
}

impl Store {
    /// The space that holds the current mesh.
    #[must_use]
    pub fn space(&self) -> u8 {
        self.reader.space()
    }

    /// This life of the store in its current space, under which changes are made. It differs in each: a peer that
    /// comes back to a mesh does so in another space, where its own past is still to be fetched from others, and
    /// must not use the sequence numbers of that past again.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        let mut bytes = self.incarnation.0;
        bytes[7] ^= self.space().wrapping_sub(1);
        Incarnation(bytes)
    }

    /// Begins another life of the store, in which sequence numbers start anew: documents may come back with less
    /// than was written here, and what other peers have of it must not be numbered a second time. Cursors of the
    /// feed end with the old life at the next start.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn renew_incarnation(&mut self) -> Result<()> {
        let mut next = [0; 8];
        blake3::Hasher::new().update(&self.incarnation.0).finalize_xof().fill(&mut next);
        self.incarnation = Incarnation(next);
        self.put_format()
    }

    /// A handle for reading another space than the current one.
    #[must_use]
    pub fn reader_of(&self, space: u8) -> Reader {
        Reader::new(self.kv.clone(), Arc::new(AtomicU8::new(space)), self.reader.incarnation())
    }

    /// Turns to an empty space, for another mesh, in which the same indexes are declared. What the left mesh holds stays on the disk, and a
    /// start finds it again until [`Store::keep_space`].
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no free space, [`Error::Io`] when the disk refuses.
    pub fn begin_space(&mut self) -> Result<()> {
        let Some(next) = self.space().checked_add(1) else {
            return Err(Error::invalid("this data directory has been in 254 meshes; use a new one"));
        };
        // Of a turn that was cut off.
        let leftovers =
            [(vec![next], vec![next + 1]), (key::meta(&format!("{next}/")), key::meta(&format!("{next}0")))];
        let mut batch = Batch::new();
        for (from, to) in leftovers {
            self.kv.scan(&from, &to, &mut |key, _| {
                batch.delete(key.to_vec());
                ControlFlow::Continue(())
            })?;
        }
        self.apply(batch)?;
        let indexes = self.catalog();
        self.turn_to_space(next)?;
        self.copy_indexes(&indexes)
    }

    /// Makes the space to which [`Store::begin_space`] turned the one that a start finds.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn keep_space(&mut self) -> Result<()> {
        self.put_format()
    }

    pub(super) fn put_format(&mut self) -> Result<()> {
        let mut batch = Batch::new();
        batch.put(
            key::meta("format"),
            seal(&Format { version: FORMAT, incarnation: self.incarnation, space: self.space() }),
        );
        self.apply_twice(batch)
    }

    /// Turns to another space for now, such as back to the one that was to be left.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn turn_to_space(&mut self, space: u8) -> Result<()> {
        self.space.store(space, Ordering::Release);
        self.load_space()
    }
}
