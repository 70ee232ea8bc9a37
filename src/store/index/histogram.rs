//! How the keys of an index are spread: bounds with as many keys between each two (an equi-depth histogram). A key that
//! has more entries than that has a bucket of its own.

use crate::base::{Decode, DecodeError, Encode, Reader, Writer};

/// Buckets that the entries are meant to fill.
const BUCKETS: usize = 128;

/// Buckets at most: there may be one more before each key that has its own.
const BUCKETS_MAX: usize = 2 * BUCKETS + 1;

/// Bytes of a bound: keys that differ only behind them count as one.
const BOUND_BYTES_MAX: usize = 64;

/// An equi-depth histogram over the keys of an index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Histogram {
    buckets: Vec<Bucket>,
}

/// The keys up to a bound.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bucket {
    /// The last key.
    bound: Vec<u8>,
    /// Entries up to it, those of the buckets before included.
    entries: u64,
    /// Different keys among them.
    distinct: u64,
}

impl Histogram {
    /// Entries.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.buckets.last().map_or(0, |bucket| bucket.entries)
    }

    /// Different keys.
    #[must_use]
    pub fn distinct(&self) -> u64 {
        self.buckets.last().map_or(0, |bucket| bucket.distinct)
    }

    /// Entries with `from <= key < to`, about.
    #[must_use]
    pub fn between(&self, from: &[u8], to: &[u8]) -> f64 {
        let (low, high) = (self.bucket_of(from), self.bucket_of(to));
        let entries = |at: usize| if at == 0 { 0.0 } else { self.buckets[at - 1].entries as f64 };
        let distinct = |at: usize| if at == 0 { 0 } else { self.buckets[at - 1].distinct };
        // Of a bucket that an end of the range falls into, half is on either side of it, and of one with one key, which
        // is the bound, nothing is before it.
        let half = |at: usize| match self.buckets.get(at) {
            Some(_) if distinct(at + 1) - distinct(at) > 1 => (entries(at + 1) - entries(at)) / 2.0,
            Some(_) | None => 0.0,
        };
        if low == high { half(low) } else { entries(high) - entries(low) - half(low) + half(high) }
    }

    /// The bucket that a key falls into; their number when it is behind all.
    fn bucket_of(&self, key: &[u8]) -> usize {
        self.buckets.partition_point(|bucket| bucket.bound.as_slice() < key)
    }
}

/// Makes a histogram of keys that come in order.
#[derive(Debug)]
pub(super) struct Counting {
    /// Entries of one bucket.
    depth: u64,
    histogram: Histogram,
    entries: u64,
    distinct: u64,
    last: Vec<u8>,
    /// Entries of the last key.
    run: u64,
    /// The key before the last.
    before: Vec<u8>,
}

impl Counting {
    /// For about so many keys.
    pub(super) fn new(expected: u64) -> Self {
        let depth = expected / BUCKETS as u64 + 1;
        let histogram = Histogram::default();
        Self { depth, histogram, entries: 0, distinct: 0, last: Vec::new(), run: 0, before: Vec::new() }
    }

    /// Takes the next key. Whether it is the same as the one before.
    pub(super) fn add(&mut self, key: &[u8]) -> bool {
        let same = self.entries > 0 && self.last == key;
        if !same {
            let begun = self.entries - self.histogram.entries();
            if begun >= self.depth && self.histogram.buckets.len() < BUCKETS_MAX - 1 {
                self.close();
            }
            self.distinct += 1;
            std::mem::swap(&mut self.last, &mut self.before);
            self.last.clear();
            self.last.extend_from_slice(key);
            self.run = 0;
        }
        self.entries += 1;
        self.run += 1;
        same
    }

    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    pub(super) fn finish(mut self) -> Histogram {
        if self.entries > self.histogram.entries() {
            self.close();
        }
        self.histogram
    }

    fn close(&mut self) {
        let begun = self.entries - self.histogram.entries();
        if (self.depth..begun).contains(&self.run) && self.histogram.buckets.len() < BUCKETS_MAX - 2 {
            self.push(self.entries - self.run, self.distinct - 1, &self.before.clone());
        }
        self.push(self.entries, self.distinct, &self.last.clone());
    }

    fn push(&mut self, entries: u64, distinct: u64, bound: &[u8]) {
        let bound = bound[..bound.len().min(BOUND_BYTES_MAX)].to_vec();
        self.histogram.buckets.push(Bucket { bound, entries, distinct });
    }
}

impl Encode for Histogram {
    fn encode(&self, writer: &mut Writer) {
        writer.list(&self.buckets, |w, bucket| {
            w.bytes(&bucket.bound).varint(bucket.entries).varint(bucket.distinct);
        });
    }
}

impl Decode for Histogram {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bucket = |r: &mut Reader<'_>| {
            let bound = r.bytes("bound", BOUND_BYTES_MAX)?.to_vec();
            Ok(Bucket { bound, entries: r.varint()?, distinct: r.varint()? })
        };
        let buckets = reader.list("buckets", BUCKETS_MAX, bucket)?;
        let ascend = |pair: &[Bucket]| pair[0].entries <= pair[1].entries && pair[0].distinct <= pair[1].distinct;
        if !buckets.windows(2).all(ascend) {
            return Err(DecodeError::Rule("the counts of a histogram do not ascend".into()));
        }
        Ok(Self { buckets })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(keys: &[Vec<u8>]) -> Histogram {
        let mut counting = Counting::new(keys.len() as u64);
        keys.iter().for_each(|key| _ = counting.add(key));
        counting.finish()
    }

    #[test]
    fn a_key_that_is_half_of_all_is_known_to_be() {
        let mut keys: Vec<Vec<u8>> = (0..1_000u16).map(|n| n.to_be_bytes().to_vec()).collect();
        keys.extend(std::iter::repeat_n(vec![1, 200], 1_000));
        keys.sort();
        let histogram = of(&keys);
        assert_eq!((histogram.entries(), histogram.distinct()), (2_000, 1_000));
        assert!((900.0..1_100.0).contains(&histogram.between(&[1, 200], &[1, 200, 0])));
        assert!(histogram.between(&[0, 7], &[0, 7, 0]) < 20.0);
    }

    proptest! {
        #[test]
        fn an_estimate_is_off_by_few_buckets(
            mut keys in proptest::collection::vec(proptest::collection::vec(0u8..4, 1..4), 1..400),
            a in proptest::collection::vec(0u8..4, 0..4),
            b in proptest::collection::vec(0u8..4, 0..4),
        ) {
            keys.sort();
            let (from, to) = (a.clone().min(b.clone()), a.max(b));
            let right = keys.iter().filter(|key| **key >= from && **key < to).count() as f64;
            let histogram = of(&keys);
            let widest = keys.chunk_by(|a, b| a == b).map(<[_]>::len).max().unwrap_or(0) as f64;
            let off = (histogram.between(&from, &to) - right).abs();
            prop_assert!(off <= 2.0 * (widest + keys.len() as f64 / 128.0 + 2.0), "off by {off}");
            prop_assert_eq!(histogram.entries(), keys.len() as u64);
            prop_assert_eq!(Histogram::from_bytes(&histogram.to_bytes()).unwrap(), histogram);
        }
    }
}
