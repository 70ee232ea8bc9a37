//! Update operators, done one path after the other; no two touch the same place.

use std::cmp::Ordering;
use std::collections::HashSet;

use automerge::transaction::Transactable;
use automerge::{ObjId, ObjType, Prop, ReadDoc, ScalarValue, hydrate};
use serde_json::{Number, Value};

use super::{Editor, Reach, Site, check_levels, json_bytes};
use crate::document::edit;
use crate::document::patch::{Act, Path, Push, Splice, Update, canonical};
use crate::document::present::{ENCODING, Present};
use crate::error::Error;
use crate::filter::Pull;
use crate::value::{Json, compare};

/// Bytes of a 64-bit integer in decimal.
const COUNTER_DIGITS_MAX: usize = 20;

/// Where a list is, or would be: then with the objects that are missing on the way.
enum Target<'p> {
    List(ObjId),
    Absent(Site, &'p [String]),
}

impl Editor<'_, '_> {
    pub(super) fn update(&mut self, update: &Update) -> Result<(), Error> {
        let path = &update.path;
        match &update.act {
            Act::Set(value) => self.set_at(path, value),
            Act::Unset => self.unset(path),
            Act::Increment(amount) => self.increment(path, amount),
            Act::Multiply(factor) => self.multiply(path, factor),
            Act::Min(value) => self.set_if(path, value, Ordering::Less),
            Act::Max(value) => self.set_if(path, value, Ordering::Greater),
            Act::Push(push) => self.push(path, push),
            Act::Pull(condition) => self.pull(path, condition),
            Act::AddToSet(items) => self.add_to_set(path, items),
            Act::Pop(first) => self.pop(path, *first),
            Act::Rename(to) => self.rename(path, to),
            Act::CurrentDate => self.set_at(path, &Value::String(self.now.to_string())),
            Act::Text(splices) => self.splice_text(path, splices),
        }
    }

    fn set_at(&mut self, path: &Path, value: &Value) -> Result<(), Error> {
        let (site, rest) = self.open(path)?;
        self.set(site, rest, value)
    }

    /// Deletes a field; an element becomes null, so that those behind it keep their numbers.
    fn unset(&mut self, path: &Path) -> Result<(), Error> {
        let Some(site) = self.find(path)? else { return Ok(()) };
        match &site.prop {
            Prop::Map(name) => Ok(self.tx.delete(&site.parent, name.as_str())?),
            Prop::Seq(_) => self.set(site, &[], &Value::Null),
        }
    }

    fn increment(&mut self, path: &Path, amount: &Number) -> Result<(), Error> {
        let (site, rest) = self.open(path)?;
        let present = self.present(&site)?;
        let start = number(path, "$inc", present.as_ref())?;
        if amount.is_f64() || start.as_ref().is_some_and(Number::is_f64) {
            let sum = as_float(start.as_ref()) + as_float(Some(amount));
            return self.set(site, rest, &finite(path, sum)?);
        }
        let integer = |number: &Number| number.as_i64().ok_or_else(|| overflow(path));
        let (start, amount) = (start.as_ref().map(integer).transpose()?, integer(amount)?);
        start.unwrap_or(0).checked_add(amount).ok_or_else(|| overflow(path))?;
        if amount == 0 && start.is_some() {
            return Ok(());
        }
        self.wrote(COUNTER_DIGITS_MAX)?;
        if !matches!(present, Some(Present::Counter(_))) {
            // The start and the increment apart: see `counter` for why.
            self.put(&site, rest, hydrate::Value::Scalar(ScalarValue::counter(start.unwrap_or(0))))?;
        }
        if amount == 0 {
            return Ok(());
        }
        let (site, _) = self.open(path)?;
        Ok(self.tx.increment(&site.parent, site.prop, amount)?)
    }

    fn multiply(&mut self, path: &Path, factor: &Number) -> Result<(), Error> {
        let (site, rest) = self.open(path)?;
        let start = number(path, "$mul", self.present(&site)?.as_ref())?;
        let Some(start) = start else {
            let zero = if factor.is_f64() { Value::from(0.0) } else { Value::from(0) };
            return self.set(site, rest, &zero);
        };
        let product = if start.is_f64() || factor.is_f64() {
            finite(path, as_float(Some(&start)) * as_float(Some(factor)))?
        } else {
            let integer = |number: &Number| {
                let signed = number.as_i64().map(i128::from);
                signed.or_else(|| number.as_u64().map(i128::from)).unwrap_or_default()
            };
            let product = integer(&start) * integer(factor);
            Value::from(i64::try_from(product).map_err(|_| overflow(path))?)
        };
        self.set(site, rest, &product)
    }

    /// Writes the value when nothing is there, or when it is less or greater than what is, in the order over all kinds
    /// in which queries sort: `$min` and `$max`.
    fn set_if(&mut self, path: &Path, value: &Value, wanted: Ordering) -> Result<(), Error> {
        let (site, rest) = self.open(path)?;
        if let Some(present) = self.present(&site)? {
            let (value, present) = (value.to_string(), present.to_json().to_string());
            if compare(Json::new(value.as_bytes()), Json::new(present.as_bytes())) != wanted {
                return Ok(());
            }
        }
        self.set(site, rest, value)
    }

    /// The list at a path; `None` when there is nothing, and when a path leads nowhere, so that nothing is to be taken
    /// out.
    fn list_there(&self, path: &Path, operator: &str) -> Result<Option<ObjId>, Error> {
        if let Reach::Blocked(..) = self.reach(path.names())? {
            return Ok(None);
        }
        match self.list(path, operator)? {
            Target::List(list) => Ok(Some(list)),
            Target::Absent(..) => Ok(None),
        }
    }

    /// The list at a path.
    fn list<'p>(&self, path: &'p Path, operator: &str) -> Result<Target<'p>, Error> {
        let (site, rest) = self.open(path)?;
        match self.tx.get(&site.parent, site.prop.clone())? {
            None => Ok(Target::Absent(site, rest)),
            Some((found, list)) if found.to_objtype() == Some(ObjType::List) => Ok(Target::List(list)),
            Some(_) => {
                let kind = self.present(&site)?.map_or("nothing", |present| present.kind());
                Err(path.fault(format!("{operator} needs a list, this is {kind}")))
            }
        }
    }

    fn push(&mut self, path: &Path, push: &Push) -> Result<(), Error> {
        let target = self.list(path, "$push")?;
        let length = if let Target::List(list) = &target { self.length(list)? } else { 0 };
        let added = push.items.len();
        let at = match push.position.unwrap_or(i64::MAX) {
            position @ 0.. => length.min(usize::try_from(position).unwrap_or(length)),
            back => length.saturating_sub(usize::try_from(back.unsigned_abs()).unwrap_or(length)),
        };
        // What stays of the list after the insertion.
        let total = length + added;
        let keep = match push.slice {
            None => 0..total,
            Some(count @ 0..) => 0..total.min(usize::try_from(count).unwrap_or(total)),
            Some(count) => total.saturating_sub(usize::try_from(count.unsigned_abs()).unwrap_or(total))..total,
        };
        let clamp = |index: usize| index.clamp(at, at + added) - at;
        let items = &push.items[clamp(keep.start)..clamp(keep.end)];
        self.wrote(items.iter().map(|item| json_bytes(item) + ",".len()).sum())?;
        let list = match target {
            Target::List(list) => list,
            Target::Absent(site, rest) => {
                let items: Vec<_> = items.iter().map(edit::hydrate).collect();
                return self.make(site, rest, hydrate::Value::from(items));
            }
        };
        // From the back, so that the numbers in front stay what they are.
        let behind = keep.end.max(at + added) - added..length;
        let before = 0..keep.start.min(at);
        let within_behind = at..at.max(keep.start.saturating_sub(added)).max(at);
        let within_front = keep.end.min(at)..at;
        for gone in [behind, within_behind] {
            self.cut(&list, gone)?;
        }
        self.tx.splice(&list, at, 0, items.iter().map(edit::hydrate))?;
        for gone in [within_front, before] {
            self.cut(&list, gone)?;
        }
        self.check_operations()
    }

    fn cut(&mut self, list: &ObjId, gone: std::ops::Range<usize>) -> Result<(), Error> {
        if gone.is_empty() {
            return Ok(());
        }
        edit::check_room(self.tx, gone.len())?;
        Ok(self.tx.splice(list, gone.start, gone.len() as isize, std::iter::empty::<hydrate::Value>())?)
    }

    fn pull(&mut self, path: &Path, pull: &Pull) -> Result<(), Error> {
        let Some(list) = self.list_there(path, "$pull")? else { return Ok(()) };
        let items = self.items(path)?;
        let stays = |item: &Value| !pull.takes(Json::new(item.to_string().as_bytes()));
        let mut end = items.len();
        // Runs of elements that go, from the back.
        while end > 0 {
            let start = items[..end].iter().rposition(stays).map_or(0, |index| index + 1);
            self.cut(&list, start..end)?;
            end = start.saturating_sub(1);
        }
        self.check_operations()
    }

    /// The elements of the list at a path.
    fn items(&self, path: &Path) -> Result<Vec<Value>, Error> {
        let (site, _) = self.open(path)?;
        match self.present(&site)? {
            Some(Present::List(_, items)) => Ok(items.iter().map(Present::to_json).collect()),
            Some(_) | None => Ok(Vec::new()),
        }
    }

    fn add_to_set(&mut self, path: &Path, added: &[Value]) -> Result<(), Error> {
        self.list(path, "$addToSet")?;
        let mut known: HashSet<Value> = self.items(path)?.iter().map(canonical).collect();
        let items = added.iter().filter(|item| known.insert(canonical(item))).cloned().collect();
        self.push(path, &Push { items, position: None, slice: None })
    }

    fn pop(&mut self, path: &Path, first: bool) -> Result<(), Error> {
        let Some(list) = self.list_there(path, "$pop")? else { return Ok(()) };
        match self.length(&list)? {
            0 => Ok(()),
            length => self.cut(&list, if first { 0..1 } else { length - 1..length }),
        }
    }

    fn rename(&mut self, path: &Path, to: &Path) -> Result<(), Error> {
        let (from, _) = self.open(path)?;
        if !from.exists {
            return Ok(());
        }
        let (target, rest) = self.open(to)?;
        for (site, path) in [(&from, path), (&target, to)] {
            if site.within_list {
                return Err(path.fault("$rename cannot go through a list"));
            }
        }
        let Some(present) = self.present(&from)? else { return Ok(()) };
        check_levels(to, |levels| present.fits(levels))?;
        self.wrote(json_bytes(&present.to_json()))?;
        self.put(&target, rest, present.to_hydrate())?;
        Ok(self.tx.delete(&from.parent, from.prop)?)
    }

    fn splice_text(&mut self, path: &Path, splices: &[Splice]) -> Result<(), Error> {
        let (site, rest) = self.open(path)?;
        let (text, start) = match self.present(&site)? {
            Some(Present::Text(id, text)) => (Some(id), text),
            Some(Present::Scalar(Value::String(text))) => (None, text),
            None => (None, String::new()),
            Some(other) => return Err(path.fault(format!("$text needs a string, this is {}", other.kind()))),
        };
        let length = start.chars().count();
        check_splices(path, length, splices)?;
        if splices.iter().all(|splice| splice.delete == 0 && splice.insert.is_empty()) {
            return Ok(());
        }
        let id = match text {
            Some(id) => id,
            None => {
                check_levels(path, |levels| levels > 0)?;
                self.wrote(start.len())?;
                edit::check_room(self.tx, length)?;
                self.put(&site, rest, hydrate::Value::text(ENCODING, &start))?;
                let (site, _) = self.open(path)?;
                let made = self.tx.get(&site.parent, site.prop)?;
                made.map(|(_, id)| id).ok_or_else(|| path.fault("the text could not be made"))?
            }
        };
        let operations = splices.iter().map(|splice| splice.delete + splice.insert.chars().count()).sum::<usize>();
        edit::check_room(self.tx, operations)?;
        for Splice { position, delete, insert } in splices {
            self.wrote(json_bytes(insert))?;
            self.tx.splice_text(&id, *position, *delete as isize, insert)?;
            self.check_operations()?;
        }
        Ok(())
    }
}

/// Checks that each splice lies within the text as those before it leave it.
fn check_splices(path: &Path, mut length: usize, splices: &[Splice]) -> Result<(), Error> {
    for Splice { position, delete, insert } in splices {
        if position + delete > length {
            let reach = if *delete == 0 { String::new() } else { format!(" with {delete} to delete") };
            let message =
                format!("position {position}{reach} is beyond the end of the text, which has {length} characters");
            return Err(path.fault(message));
        }
        length = length - delete + insert.chars().count();
    }
    Ok(())
}

fn number(path: &Path, operator: &str, present: Option<&Present>) -> Result<Option<Number>, Error> {
    let Some(present) = present else { return Ok(None) };
    match present.number() {
        Some(number) => Ok(Some(number)),
        None => Err(path.fault(format!("{operator} needs a number, this is {}", present.kind()))),
    }
}

fn as_float(number: Option<&Number>) -> f64 {
    number.and_then(Number::as_f64).unwrap_or(0.0)
}

fn finite(path: &Path, number: f64) -> Result<Value, Error> {
    let number = Number::from_f64(number).map(Value::Number);
    number.ok_or_else(|| path.fault("the result is too large for a 64-bit float"))
}

fn overflow(path: &Path) -> Error {
    path.fault("the result does not fit a signed 64-bit integer")
}
