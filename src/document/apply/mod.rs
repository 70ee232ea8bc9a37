//! Patches, done to a document within a transaction.
//!
//! Each operation becomes the smallest edit: only the place that it names is read and written. What several peers do
//! at the same time to different fields, elements or characters therefore survives, and what they do to the same
//! field is settled as everywhere, by the later write. In particular:
//!
//! - `$push`, `$addToSet` insert elements, `$pull` and `$pop` delete those they find: concurrent ones all count.
//!   Two peers that add the same value to a set apart leave it there twice.
//! - `$inc` by an integer makes a counter of an absent field or a plain integer, or increments the one that is
//!   there; increments add up, see [`counter`](super::counter). By a float, or of one, it is arithmetic on a plain number.
//! - Objects that are missing on the way to a field are made. Peers that make the same one apart make two, of which
//!   the later one is shown, as with any two values written to one field.
//! - `$mul`, `$min` and `$max` are computed from the present value and written, as by `$set`.
//! - `$text` makes a text of an absent field or a plain string, and splices it: concurrent typing merges. Peers
//!   that convert the same string apart make two texts, of which the later one is shown.
//! - `$rename`, and `move` of a JSON Patch, write the value anew at its new place and delete the old one: what others
//!   change at the old place meanwhile is lost with it.
//!
//! Nothing here is undone on a fault: the caller drops the transaction.

mod json_patch;
mod operators;

use std::collections::{BTreeMap, HashMap};

use automerge::transaction::{Transactable, Transaction};
use automerge::{ObjId, ObjType, Prop, ROOT, ReadDoc, ScalarValue, Value as Found, hydrate};
use serde_json::Value;

use super::edit;
use super::json::Object;
use super::patch::{Form, Patch, Path};
use super::present::{Present, Reader, to_object};
use super::view::json_bytes;
use crate::base::Timestamp;
use crate::error::{Error, Invalid, InvalidKind};
use crate::limits::{CHANGE_BYTES_MAX, CHANGE_OPS_MAX, DOCUMENT_BYTES_MAX, PATCH_READ_BYTES_MAX};

/// Bytes of JSON around a value: a colon, a comma, quotes and brackets.
const PUNCTUATION_BYTES: usize = 6;

/// Applies a patch. `shown_bytes` is the size of the view before it.
pub(super) fn patch(
    tx: &mut Transaction<'_>,
    reader: &Reader<'_>,
    now: Timestamp,
    patch: &Patch,
    shown_bytes: usize,
) -> Result<(), Error> {
    let mut editor = Editor { tx, reader, now, written: 0, read: 0 };
    match &patch.0 {
        Form::Merge(fields) => editor.merge(&ROOT, fields)?,
        Form::JsonPatch(steps) => steps.iter().try_for_each(|step| editor.step(step))?,
        Form::Operators(updates) => updates.iter().try_for_each(|update| editor.update(update))?,
    }
    editor.check_size(shown_bytes)
}

struct Editor<'a, 'b> {
    tx: &'a mut Transaction<'b>,
    reader: &'a Reader<'a>,
    now: Timestamp,
    /// Bytes of JSON written so far, at most; a bound for how much the document grew.
    written: usize,
    /// Bytes of JSON read so far by operations that may read the same again and again.
    read: usize,
}

/// A place in a document.
#[derive(Debug, Clone)]
struct Site {
    parent: ObjId,
    prop: Prop,
    exists: bool,
    /// Whether a list is on the way to it.
    within_list: bool,
}

/// Where a path leads.
enum Reach<'p> {
    /// To a place whose parent is there; the objects named by the rest are missing below it.
    Open(Site, &'p [String]),
    /// Nowhere: this many of its names lead to something that cannot hold the next one.
    Blocked(usize, &'static str),
}

impl Editor<'_, '_> {
    /// Follows a path of at least one name.
    fn reach<'p>(&self, names: &'p [String]) -> Result<Reach<'p>, Error> {
        let (mut parent, mut kind, mut within_list) = (ROOT, ObjType::Map, false);
        for (index, name) in names.iter().enumerate() {
            let rest = &names[index + 1..];
            let prop = match kind {
                ObjType::Map | ObjType::Table => Prop::Map(name.clone()),
                ObjType::List => match element(name) {
                    Some(element) => Prop::Seq(element),
                    None => return Ok(Reach::Blocked(index, "a list, whose elements are named by number")),
                },
                ObjType::Text => return Ok(Reach::Blocked(index, "a string")),
            };
            within_list |= kind == ObjType::List;
            match self.tx.get(&parent, prop.clone())? {
                None => return Ok(Reach::Open(Site { parent, prop, exists: false, within_list }, rest)),
                Some(_) if rest.is_empty() => {
                    return Ok(Reach::Open(Site { parent, prop, exists: true, within_list }, rest));
                }
                Some((Found::Object(next), id)) => (parent, kind) = (id, next),
                Some((Found::Scalar(_), _)) => {
                    return Ok(Reach::Blocked(index + 1, "neither an object nor a list"));
                }
            }
        }
        Ok(Reach::Blocked(0, "the whole document"))
    }

    /// Follows a path, and refuses one that leads nowhere even if objects were made on the way.
    fn open<'p>(&self, path: &'p Path) -> Result<(Site, &'p [String]), Error> {
        match self.reach(path.names())? {
            Reach::Open(site, rest) => Ok((site, rest)),
            Reach::Blocked(count, what) => {
                let at = path.names()[..count].join(".");
                Err(path.fault(format!("{at:?} is {what}")))
            }
        }
    }

    /// The place at the end of a path when something is there.
    fn find(&self, path: &Path) -> Result<Option<Site>, Error> {
        match self.reach(path.names())? {
            Reach::Open(site, _) if site.exists => Ok(Some(site)),
            Reach::Open(..) | Reach::Blocked(..) => Ok(None),
        }
    }

    fn present(&self, site: &Site) -> Result<Option<Present>, Error> {
        Ok(if site.exists { self.reader.get(&*self.tx, &site.parent, &site.prop)? } else { None })
    }

    /// Elements of a list. Found by looking for the last one, which is fast; Automerge counts them all.
    fn length(&self, list: &ObjId) -> Result<usize, Error> {
        let has = |index: usize| Ok::<bool, Error>(self.tx.get(list, index)?.is_some());
        let (mut length, mut beyond) = (0, 1);
        while has(beyond - 1)? {
            (length, beyond) = (beyond, beyond * 2);
        }
        while length + 1 < beyond {
            let middle = length.midpoint(beyond);
            if has(middle - 1)? { length = middle } else { beyond = middle }
        }
        Ok(length)
    }

    /// Turns what is at a place, or nothing, into a value by the smallest edit.
    fn set(&mut self, site: Site, rest: &[String], value: &Value) -> Result<(), Error> {
        self.wrote(json_bytes(value))?;
        match self.present(&site)? {
            Some(present) => edit::edit_value(self.tx, &site.parent, site.prop, &present, value)?,
            None => self.make(site, rest, edit::hydrate(value))?,
        }
        self.check_operations()
    }

    /// Puts a value where nothing is, and the objects on the way to it.
    fn make(&mut self, site: Site, rest: &[String], value: hydrate::Value) -> Result<(), Error> {
        self.wrote(rest.iter().map(|name| name.len() + PUNCTUATION_BYTES).sum())?;
        let nest = |value, name: &String| hydrate::Value::Map(HashMap::from([(name.clone(), value)]).into());
        let value = rest.iter().rev().fold(value, nest);
        match site.prop {
            Prop::Map(name) => {
                self.wrote(name.len())?;
                edit::put(self.tx, &site.parent, Prop::Map(name), value)?;
            }
            // Beyond the end of a list there are nulls, as in MongoDB.
            Prop::Seq(index) => {
                let length = self.length(&site.parent)?;
                let gap = index.saturating_sub(length);
                self.wrote(gap.saturating_mul("null,".len()))?;
                let nulls = std::iter::repeat_n(hydrate::Value::Scalar(ScalarValue::Null), gap);
                self.tx.splice(&site.parent, length, 0, nulls.chain([value]))?;
            }
        }
        self.check_operations()
    }

    /// Writes a value over whatever is at a place.
    fn put(&mut self, site: &Site, rest: &[String], value: hydrate::Value) -> Result<(), Error> {
        if site.exists {
            edit::put(self.tx, &site.parent, site.prop.clone(), value)?;
            return self.check_operations();
        }
        self.make(site.clone(), rest, value)
    }

    /// Merges the fields of a merge patch into an object. Recurses as deep as the patch is.
    fn merge(&mut self, id: &ObjId, patch: &Object) -> Result<(), Error> {
        for (key, value) in patch {
            let found =
                self.tx.get(id, key.as_str())?.map(|(found, id)| (found.to_objtype() == Some(ObjType::Map), id));
            match (value, found) {
                (Value::Null, None) => {}
                (Value::Null, Some(_)) => self.tx.delete(id, key.as_str())?,
                (Value::Object(fields), Some((true, id))) => self.merge(&id, fields)?,
                (value, found) => {
                    let site = Site {
                        parent: id.clone(),
                        prop: key.as_str().into(),
                        exists: found.is_some(),
                        within_list: false,
                    };
                    self.set(site, &[], &without_nulls(value))?;
                }
            }
        }
        Ok(())
    }

    /// Turns the whole document into other fields by the smallest edit.
    fn replace(&mut self, fields: &Object) -> Result<(), Error> {
        self.wrote(json_bytes(fields))?;
        let present = self.fields()?;
        edit::replace(self.tx, &present, fields)
    }

    fn fields(&self) -> Result<BTreeMap<String, Present>, Error> {
        Ok(self.reader.fields(&*self.tx)?)
    }

    /// Counts what is written: no change could hold more.
    fn wrote(&mut self, bytes: usize) -> Result<(), Error> {
        self.written = self.written.saturating_add(bytes).saturating_add(PUNCTUATION_BYTES);
        let what = format!("the patch writes more than {CHANGE_BYTES_MAX} bytes; send several");
        if self.written > CHANGE_BYTES_MAX { Err(too_large(what)) } else { Ok(()) }
    }

    fn reads(&mut self, bytes: usize) -> Result<(), Error> {
        self.read = self.read.saturating_add(bytes);
        let what = format!("the patch reads more than {PATCH_READ_BYTES_MAX} bytes; send several");
        if self.read > PATCH_READ_BYTES_MAX { Err(too_large(what)) } else { Ok(()) }
    }

    fn check_operations(&self) -> Result<(), Error> {
        let what = "the patch makes too many operations; send several";
        if self.tx.pending_ops() as u64 > CHANGE_OPS_MAX { Err(too_large(what.to_owned())) } else { Ok(()) }
    }

    /// A document may not outgrow what one request may hold. It is only measured when it may have.
    fn check_size(&self, shown_bytes: usize) -> Result<(), Error> {
        if shown_bytes.saturating_add(self.written) <= DOCUMENT_BYTES_MAX {
            return Ok(());
        }
        let size = json_bytes(&to_object(&self.fields()?));
        if size <= DOCUMENT_BYTES_MAX.max(shown_bytes) {
            return Ok(());
        }
        Err(too_large(format!("the document would have {size} bytes, the limit is {DOCUMENT_BYTES_MAX}")))
    }
}

/// Checks that something from elsewhere in the document nests no deeper at a place than documents may: the change
/// alone does not show how deep its place is, so only others would find out.
fn check_levels(path: &Path, fits: impl FnOnce(usize) -> bool) -> Result<(), Error> {
    if fits(path.levels()) { Ok(()) } else { Err(path.fault("nested too deeply")) }
}

/// The number of an element as a path writes it: decimal, without leading zeros.
fn element(name: &str) -> Option<usize> {
    let plain = name == "0" || (!name.starts_with('0') && name.bytes().all(|byte| byte.is_ascii_digit()));
    name.parse::<u32>().ok().filter(|_| plain).map(|number| number as usize)
}

/// A value of a merge patch as it is where nothing is to be merged with (RFC 7396, section 2).
fn without_nulls(value: &Value) -> Value {
    let Value::Object(fields) = value else { return value.clone() };
    let kept = fields.iter().filter(|(_, field)| !field.is_null());
    Value::Object(kept.map(|(key, field)| (key.clone(), without_nulls(field))).collect())
}

fn too_large(message: String) -> Error {
    Error::Invalid(Invalid { message, field: None, position: None, kind: InvalidKind::TooLarge })
}

#[cfg(test)]
mod tests;
