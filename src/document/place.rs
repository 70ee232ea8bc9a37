//! What each operation is and where it acts: the check that a change refers only to its own past.
//!
//! Automerge takes the references of a change on trust. A missing object or element makes it panic; a
//! predecessor that lies elsewhere is applied or dropped depending on what else is in the batch, so that two peers
//! could show different documents for the same changes. [`places`] walks the operations of one change and
//! accepts a reference only if it leads to an earlier operation of the same change or, by the caller's
//! resolver, to one in its past, and if that operation is of the right kind and in the same place.
//!
//! [`Places`] keeps the result for all operations of a document, 24 bytes each. It is only needed to judge
//! the changes of others, so a document builds it when the first of those arrives.

use std::collections::BTreeMap;

use crate::limits::DOCUMENT_DEPTH_MAX;

use super::error::ScreenError;
use super::operation::{Action, Key, OpRef, Parsed, Row, ValueType};

/// The kind of thing an operation made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Map,
    List,
    Text,
    Counter,
    Scalar,
    /// A deletion or an increment: nothing can refer to it.
    Nothing,
}

/// A position within an object; fields by the number of their interned name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Slot {
    Field(u32),
    Element(OpRef),
}

/// What one operation made, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    object: Option<OpRef>,
    slot: Slot,
    kind: Kind,
    /// Levels from the root (1) to the thing made.
    depth: u8,
}

/// Names of fields by small numbers.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<Box<str>, u32>);

impl Names {
    fn number(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.0.get(name) {
            return number;
        }
        let number = self.0.len() as u32;
        self.0.insert(name.into(), number);
        number
    }

    /// Forgets all names but the first `count`.
    fn truncate(&mut self, count: usize) {
        if count < self.0.len() {
            self.0.retain(|_, number| (*number as usize) < count);
        }
    }
}

/// Where a reference out of the change leads.
pub(super) enum Resolved {
    /// To this operation in the past of the change.
    Place(Place),
    /// Cannot be said without the document; to be checked again with it.
    Unknown,
    /// To nothing in the past of the change.
    Nothing,
}

/// Checks every operation of a change. `lanes` gives each actor of the change its number in the result, and
/// `resolve` finds operations of earlier changes by that number. Names of a refused change are forgotten.
///
/// # Errors
/// The first fault in the form of the rows or in a reference.
pub(super) fn places(
    parsed: &Parsed<'_>,
    lanes: &[u32],
    names: &mut Names,
    resolve: impl Fn(OpRef) -> Resolved,
) -> Result<Vec<Place>, ScreenError> {
    let known = names.0.len();
    let mut used = vec![false; lanes.len()];
    used[0] = true;
    let mut walk = Walk { parsed, lanes, names, resolve, used, made: Vec::new(), standing: BTreeMap::new() };
    let result = walk.run();
    let made = walk.made;
    if result.is_err() {
        names.truncate(known);
    }
    result.map(|()| made)
}

struct Walk<'a, 'b, R> {
    parsed: &'a Parsed<'b>,
    lanes: &'a [u32],
    names: &'a mut Names,
    resolve: R,
    used: Vec<bool>,
    made: Vec<Place>,
    /// The change's own values that stand, by place; those of inserted elements only once they were updated.
    standing: BTreeMap<(Option<OpRef>, Slot), Option<u32>>,
}

impl<R: Fn(OpRef) -> Resolved> Walk<'_, '_, R> {
    fn run(&mut self) -> Result<(), ScreenError> {
        let mut rows = self.parsed.rows();
        let mut predecessors = Vec::new();
        while let Some(row) = rows.next(&mut predecessors)? {
            let place = self.check(&row, &predecessors)?;
            self.made.push(place);
        }
        rows.finish()?;
        if self.used.contains(&false) {
            return Err(ScreenError::Rule("an actor is named and not used"));
        }
        if u32::try_from(self.made.len()).ok().and_then(|count| self.parsed.start_op.checked_add(count)).is_none() {
            return Err(ScreenError::Rule("operation numbers do not fit 32 bits"));
        }
        Ok(())
    }

    fn check(&mut self, row: &Row<'_>, predecessors: &[OpRef]) -> Result<Place, ScreenError> {
        let kind = kind(row)?;
        let (container, depth) = self.container(row.object)?;
        let slot = self.slot(row, container)?;
        self.predecessors(row, slot, predecessors)?;
        self.supersede(row, slot, predecessors)?;
        let holds = matches!(kind, Kind::Map | Kind::List | Kind::Text);
        let depth = depth + usize::from(holds);
        if depth > DOCUMENT_DEPTH_MAX {
            return Err(ScreenError::Rule("nested too deeply"));
        }
        Ok(Place { object: self.global(row.object), slot, kind, depth: depth as u8 })
    }

    /// The kind of the object (`None` when it cannot be said yet) and its depth.
    fn container(&mut self, object: Option<OpRef>) -> Result<(Option<Kind>, usize), ScreenError> {
        let Some(object) = object else { return Ok((Some(Kind::Map), 1)) };
        match self.find(object)? {
            None => Ok((None, 1)),
            Some(Place { kind: kind @ (Kind::Map | Kind::List | Kind::Text), depth, .. }) => {
                Ok((Some(kind), usize::from(depth)))
            }
            Some(_) => Err(ScreenError::Rule("an operation acts in something that is no object")),
        }
    }

    fn slot(&mut self, row: &Row<'_>, container: Option<Kind>) -> Result<Slot, ScreenError> {
        let fits = match row.key {
            Key::Field(_) => !row.insert && matches!(container, None | Some(Kind::Map)),
            Key::Head => row.insert && matches!(container, None | Some(Kind::List | Kind::Text)),
            Key::Element(_) => matches!(container, None | Some(Kind::List | Kind::Text)),
        };
        if !fits || (container == Some(Kind::Text) && !fits_text(row)) {
            return Err(ScreenError::Rule("an operation does not fit its object"));
        }
        if let Key::Element(element) = row.key {
            let (object, id) = (self.global(row.object), self.to_global(element));
            if self.find(element)?.is_some_and(|place| place.object != object || place.slot != Slot::Element(id)) {
                return Err(ScreenError::Rule("an operation refers to an element that is not in its list"));
            }
        }
        match row.key {
            Key::Field(name) => Ok(Slot::Field(self.names.number(name))),
            Key::Head | Key::Element(_) if row.insert => {
                let counter = self.parsed.start_op.saturating_add(self.made.len() as u32);
                Ok(Slot::Element(OpRef { counter, actor: self.lanes[0] }))
            }
            Key::Element(element) => Ok(Slot::Element(self.to_global(element))),
            Key::Head => Err(ScreenError::Rule("the head of a list can only be inserted at")),
        }
    }

    fn predecessors(&mut self, row: &Row<'_>, slot: Slot, predecessors: &[OpRef]) -> Result<(), ScreenError> {
        let lamport = |op: &OpRef| (op.counter, self.parsed.actors[op.actor as usize]);
        if !predecessors.is_sorted_by(|a, b| lamport(a) < lamport(b)) {
            return Err(ScreenError::Rule("predecessors must be sorted and different"));
        }
        let needed = matches!(row.action, Action::Delete | Action::Increment);
        if (needed && predecessors.is_empty()) || (row.insert && !predecessors.is_empty()) {
            return Err(ScreenError::Rule("an operation has too few or too many predecessors"));
        }
        let object = self.global(row.object);
        let mut counter = row.action != Action::Increment;
        for &predecessor in predecessors {
            let Some(place) = self.find(predecessor)? else {
                counter = true;
                continue;
            };
            if place.object != object || place.slot != slot || place.kind == Kind::Nothing {
                return Err(ScreenError::Rule("a predecessor is not in the same place"));
            }
            counter |= place.kind == Kind::Counter;
        }
        if counter { Ok(()) } else { Err(ScreenError::Rule("only counters can be incremented")) }
    }

    /// Within one change a place holds one value: an operation names the change's own earlier value in its place
    /// as a predecessor. So a place has at most as many conflicting values as there are concurrent changes.
    fn supersede(&mut self, row: &Row<'_>, slot: Slot, predecessors: &[OpRef]) -> Result<(), ScreenError> {
        if row.insert {
            return Ok(());
        }
        let counter = self.parsed.start_op.saturating_add(self.made.len() as u32);
        let inserted = match slot {
            Slot::Element(id) if id.actor == self.lanes[0] && id.counter >= self.parsed.start_op => Some(id.counter),
            Slot::Element(_) | Slot::Field(_) => None,
        };
        let standing = self.standing.entry((row.object, slot)).or_insert(inserted);
        if standing.is_some_and(|own| !predecessors.contains(&OpRef { counter: own, actor: 0 })) {
            return Err(ScreenError::Rule("a change conflicts with itself"));
        }
        *standing = match row.action {
            Action::Delete => None,
            Action::Increment => *standing,
            Action::Set | Action::MakeMap | Action::MakeList | Action::MakeText => Some(counter),
        };
        Ok(())
    }

    /// Follows a reference; `None` when that must wait for the document.
    fn find(&mut self, target: OpRef) -> Result<Option<Place>, ScreenError> {
        const NOT_IN_THE_PAST: ScreenError = ScreenError::Rule("an operation refers to one that is not in its past");
        self.used[target.actor as usize] = true;
        if target.counter < self.parsed.start_op {
            return match (self.resolve)(self.to_global(target)) {
                Resolved::Place(place) => Ok(Some(place)),
                Resolved::Unknown => Ok(None),
                Resolved::Nothing => Err(NOT_IN_THE_PAST),
            };
        }
        let own = (target.counter - self.parsed.start_op) as usize;
        let place = if target.actor == 0 { self.made.get(own) } else { None };
        place.copied().map(Some).ok_or(NOT_IN_THE_PAST)
    }

    fn global(&self, object: Option<OpRef>) -> Option<OpRef> {
        object.map(|object| self.to_global(object))
    }

    fn to_global(&self, op: OpRef) -> OpRef {
        OpRef { actor: self.lanes[op.actor as usize], ..op }
    }
}

/// Checks the value against the action.
fn kind(row: &Row<'_>) -> Result<Kind, ScreenError> {
    let (kind, fits) = match row.action {
        Action::MakeMap => (Kind::Map, row.value_type == ValueType::Null),
        Action::MakeList => (Kind::List, row.value_type == ValueType::Null),
        Action::MakeText => (Kind::Text, row.value_type == ValueType::Null),
        Action::Set if row.value_type == ValueType::Counter => (Kind::Counter, true),
        Action::Set => (Kind::Scalar, true),
        Action::Delete => (Kind::Nothing, row.value_type == ValueType::Null && !row.insert),
        Action::Increment => (Kind::Nothing, row.value_type == ValueType::Int && !row.insert),
    };
    if fits { Ok(kind) } else { Err(ScreenError::Rule("a value does not fit its operation")) }
}

/// Whether an operation may act in a text: those hold characters that come and go, nothing else.
fn fits_text(row: &Row<'_>) -> bool {
    match (row.insert, row.action) {
        (true, Action::Set) => {
            let one = |text: &str| text.chars().count() == 1;
            row.value_type == ValueType::String && row.value.len() <= 4 && str::from_utf8(row.value).is_ok_and(one)
        }
        (false, Action::Delete) => true,
        _ => false,
    }
}

/// The places of all operations of a document.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) names: Names,
    /// By actor, then by sequence number.
    lanes: Vec<Vec<(u32, Box<[Place]>)>>,
    count: usize,
}

impl Places {
    /// Adds the next change of an actor.
    pub(super) fn push(&mut self, lane: u32, start_op: u32, places: Vec<Place>) {
        let lane = lane as usize;
        if self.lanes.len() <= lane {
            self.lanes.resize_with(lane + 1, Vec::new);
        }
        self.count += places.len();
        self.lanes[lane].push((start_op, places.into_boxed_slice()));
    }

    /// Finds an operation among the first `changes` changes of its actor.
    pub(super) fn get(&self, op: OpRef, changes: u64) -> Option<Place> {
        let lane = self.lanes.get(op.actor as usize)?;
        let past = &lane[..lane.len().min(usize::try_from(changes).unwrap_or(usize::MAX))];
        let at = past.partition_point(|&(start_op, _)| start_op <= op.counter).checked_sub(1)?;
        let (start_op, places) = &past[at];
        places.get((op.counter - start_op) as usize).copied()
    }

    /// Bytes in memory, about.
    pub(super) fn memory_bytes(&self) -> usize {
        self.count * size_of::<Place>() + self.names.0.keys().map(|name| name.len() + 64).sum::<usize>()
    }
}
