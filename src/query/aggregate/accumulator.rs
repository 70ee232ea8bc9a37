//! What a group adds up of its rows.

use std::collections::BTreeSet;

use super::super::Budget;
use crate::Result;
use crate::filter::expression::{Amount, Found};
use crate::value::{Direction, Json, Kind, compare, encode};

/// The kinds of accumulators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accumulator {
    Sum,
    Avg,
    Min,
    Max,
    First,
    Last,
    Push,
    AddToSet,
    Count,
}

pub(super) const NAMES: &[(&str, Accumulator)] = &[
    ("$sum", Accumulator::Sum),
    ("$avg", Accumulator::Avg),
    ("$min", Accumulator::Min),
    ("$max", Accumulator::Max),
    ("$first", Accumulator::First),
    ("$last", Accumulator::Last),
    ("$push", Accumulator::Push),
    ("$addToSet", Accumulator::AddToSet),
    ("$count", Accumulator::Count),
];

/// What has been added up so far.
#[derive(Debug)]
pub(super) enum State {
    Count(u64),
    Sum(Total),
    Avg(Total),
    /// The text of the smallest value.
    Min(Option<Box<[u8]>>),
    Max(Option<Box<[u8]>>),
    First(Option<Box<[u8]>>),
    Last(Box<[u8]>),
    /// The text of an array without its last bracket.
    Push(Vec<u8>),
    AddToSet {
        text: Vec<u8>,
        keys: BTreeSet<Box<[u8]>>,
    },
}

/// A sum of numbers: exact for integers, with the rounding errors of doubles made up for (Neumaier).
#[derive(Debug, Default)]
pub(super) struct Total {
    integers: i128,
    doubles: f64,
    lost: f64,
    has_doubles: bool,
    count: u64,
}

impl Total {
    fn add(&mut self, value: Json<'_>) {
        match Amount::of(value) {
            None => return,
            // Of 64 bits each, and fewer than 2^63 of them.
            Some(Amount::Integer(number)) => self.integers += number,
            Some(Amount::Double(number)) => {
                let sum = self.doubles + number;
                self.lost += if self.doubles.abs() >= number.abs() {
                    (self.doubles - sum) + number
                } else {
                    (number - sum) + self.doubles
                };
                self.doubles = sum;
                self.has_doubles = true;
            }
        }
        self.count += 1;
    }

    fn sum(&self) -> Amount {
        if !self.has_doubles {
            return Amount::Integer(self.integers);
        }
        let sum = self.integers as f64 + self.doubles;
        // Beyond the largest double there is nothing to make up for.
        Amount::Double(if sum.is_finite() && self.lost.is_finite() { sum + self.lost } else { sum })
    }

    fn average(&self) -> Option<Amount> {
        if self.count == 0 {
            return None;
        }
        Some(match self.sum() {
            Amount::Integer(sum) if sum % i128::from(self.count) == 0 => Amount::Integer(sum / i128::from(self.count)),
            sum @ (Amount::Integer(_) | Amount::Double(_)) => Amount::Double(sum.as_f64() / self.count as f64),
        })
    }
}

impl State {
    pub(super) fn new(accumulator: Accumulator) -> Self {
        match accumulator {
            Accumulator::Sum => Self::Sum(Total::default()),
            Accumulator::Avg => Self::Avg(Total::default()),
            Accumulator::Min => Self::Min(None),
            Accumulator::Max => Self::Max(None),
            Accumulator::First => Self::First(None),
            Accumulator::Last => Self::Last(NULL.into()),
            Accumulator::Push => Self::Push(vec![b'[']),
            Accumulator::AddToSet => Self::AddToSet { text: vec![b'['], keys: BTreeSet::new() },
            Accumulator::Count => Self::Count(0),
        }
    }

    /// Adds a value; `scratch` is room for a key.
    ///
    /// # Errors
    /// When the budget does not allow to hold it.
    pub(super) fn add(&mut self, value: Found<'_>, scratch: &mut Vec<u8>, budget: &Budget, stage: &str) -> Result<()> {
        let text = value.as_deref();
        let given = text.map(Json::new).filter(|value| value.kind() != Kind::Null);
        let hold = |held: &mut Option<Box<[u8]>>, text: &[u8]| -> Result<()> {
            budget.take(text.len(), stage)?;
            budget.give_back(held.as_ref().map_or(0, |held| held.len()));
            *held = Some(text.into());
            Ok(())
        };
        match self {
            Self::Count(count) => *count += 1,
            Self::Sum(total) | Self::Avg(total) => {
                if let Some(value) = given {
                    total.add(value);
                }
            }
            Self::Min(held) => match given {
                Some(value) if held.as_deref().is_none_or(|held| compare(value, Json::new(held)).is_lt()) => {
                    hold(held, value.text())?;
                }
                _ => {}
            },
            Self::Max(held) => match given {
                Some(value) if held.as_deref().is_none_or(|held| compare(value, Json::new(held)).is_gt()) => {
                    hold(held, value.text())?;
                }
                _ => {}
            },
            Self::First(held) => {
                if held.is_none() {
                    hold(held, text.unwrap_or(NULL))?;
                }
            }
            Self::Last(held) => {
                let text = text.unwrap_or(NULL);
                budget.take(text.len(), stage)?;
                budget.give_back(held.len());
                *held = text.into();
            }
            Self::Push(array) => {
                if let Some(text) = text {
                    budget.take(text.len() + 1, stage)?;
                    append(array, text);
                }
            }
            Self::AddToSet { text: array, keys } => {
                let Some(text) = text else { return Ok(()) };
                scratch.clear();
                encode(Json::new(text), Direction::Ascending, scratch);
                if !keys.contains(scratch.as_slice()) {
                    budget.take(text.len() + scratch.len() + KEY_BYTES, stage)?;
                    keys.insert(scratch.as_slice().into());
                    append(array, text);
                }
            }
        }
        Ok(())
    }

    /// The text of what was added up.
    pub(super) fn text(&self) -> Vec<u8> {
        // A sum beyond the largest double is no JSON number.
        let amount = |amount: Option<Amount>| amount.and_then(Amount::text).unwrap_or_else(|| NULL.to_vec());
        match self {
            Self::Count(count) => count.to_string().into_bytes(),
            Self::Sum(total) => amount(Some(total.sum())),
            Self::Avg(total) => amount(total.average()),
            Self::Min(held) | Self::Max(held) | Self::First(held) => held.as_deref().unwrap_or(NULL).to_vec(),
            Self::Last(held) => held.to_vec(),
            Self::Push(array) | Self::AddToSet { text: array, .. } => [array.as_slice(), b"]"].concat(),
        }
    }
}

const NULL: &[u8] = b"null";

/// Bytes that a key in a set takes besides its own.
const KEY_BYTES: usize = 48;

fn append(array: &mut Vec<u8>, text: &[u8]) {
    if array.len() > 1 {
        array.push(b',');
    }
    array.extend_from_slice(text);
}
