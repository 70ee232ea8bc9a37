//! JSON Patch (RFC 6902), done step by step.

use automerge::transaction::Transactable;
use automerge::{ObjType, Prop, ROOT, ReadDoc, hydrate};
use serde_json::Value;

use super::{Editor, Reach, Site, check_levels, json_bytes};
use crate::document::edit;
use crate::document::json::Object;
use crate::document::patch::{Operation, Path, Step, canonical, shown};
use crate::document::present::{Present, to_object};
use crate::error::{Error, Invalid, InvalidKind};

impl Editor<'_, '_> {
    pub(super) fn step(&mut self, step: &Step) -> Result<(), Error> {
        let path = &step.path;
        match &step.operation {
            Operation::Add(value) => self.add(path, value),
            Operation::Remove => self.remove(path),
            Operation::Replace(Value::Object(fields)) if path.names().is_empty() => self.replace_document(path, fields),
            Operation::Replace(value) => {
                let site = self.existing(path)?;
                self.set(site, &[], value)
            }
            Operation::Move(from) if from == path => self.existing(path).map(|_| ()),
            Operation::Move(from) => {
                let value = self.value(from)?;
                self.remove(from)?;
                self.add_present(path, &value)
            }
            Operation::Copy(from) => {
                let value = self.value(from)?;
                self.add_present(path, &value)
            }
            Operation::Test(expected) => self.test(path, expected),
        }
    }

    fn replace_document(&mut self, path: &Path, fields: &Object) -> Result<(), Error> {
        if fields.contains_key("_id") {
            return Err(path.fault("_id names the document and cannot be changed; leave it out"));
        }
        self.replace(fields)
    }

    fn add(&mut self, path: &Path, value: &Value) -> Result<(), Error> {
        if let (Value::Object(fields), true) = (value, path.names().is_empty()) {
            return self.replace_document(path, fields);
        }
        let site = self.place_to_add(path)?;
        if matches!(site.prop, Prop::Map(_)) {
            return self.set(site, &[], value);
        }
        self.wrote(json_bytes(value))?;
        self.insert(site, edit::hydrate(value))
    }

    /// Adds what was somewhere else in the document; counters and texts stay what they are.
    fn add_present(&mut self, path: &Path, value: &Present) -> Result<(), Error> {
        check_levels(path, |levels| value.fits(levels))?;
        let json = value.to_json();
        if path.names().is_empty() {
            let Value::Object(fields) = &json else { return Err(path.fault("a document is an object")) };
            return self.replace_document(path, fields);
        }
        let site = self.place_to_add(path)?;
        self.wrote(json_bytes(&json))?;
        match site.prop {
            Prop::Map(_) => self.put(&site, &[], value.to_hydrate()),
            Prop::Seq(_) => self.insert(site, value.to_hydrate()),
        }
    }

    fn insert(&mut self, site: Site, value: hydrate::Value) -> Result<(), Error> {
        let Prop::Seq(index) = site.prop else { return self.put(&site, &[], value) };
        self.tx.splice(&site.parent, index, 0, [value])?;
        self.check_operations()
    }

    fn remove(&mut self, path: &Path) -> Result<(), Error> {
        let site = self.existing(path)?;
        self.tx.delete(&site.parent, site.prop)?;
        self.check_operations()
    }

    fn test(&mut self, path: &Path, expected: &Value) -> Result<(), Error> {
        let found = if path.names().is_empty() {
            Value::Object(to_object(&self.fields()?))
        } else {
            self.value(path)?.to_json()
        };
        self.reads(json_bytes(&found))?;
        if canonical(&found) == canonical(expected) {
            return Ok(());
        }
        let message = format!("the test of {:?} failed: it is {}, not {}", path.text(), shown(&found), shown(expected));
        let field = Some(path.text().to_owned());
        Err(Error::Invalid(Invalid { message, field, position: None, kind: InvalidKind::Test }))
    }

    fn value(&mut self, path: &Path) -> Result<Present, Error> {
        if path.names().is_empty() {
            return Ok(Present::Map(ROOT, self.fields()?));
        }
        let site = self.existing(path)?;
        let present = self.present(&site)?.ok_or_else(|| missing(path))?;
        self.reads(json_bytes(&present.to_json()))?;
        Ok(present)
    }

    fn existing(&self, path: &Path) -> Result<Site, Error> {
        if path.names().is_empty() {
            return Err(path.fault("a document is an object"));
        }
        self.find(path)?.ok_or_else(|| missing(path))
    }

    /// A field of an object that is there, or a position up to the end of a list.
    fn place_to_add(&self, path: &Path) -> Result<Site, Error> {
        let Some((last, parents)) = path.names().split_last() else {
            return Err(path.fault("a document is an object"));
        };
        if last == "-"
            && let Some(site) = self.end_of_list(parents)?
        {
            return Ok(site);
        }
        match self.reach(path.names())? {
            Reach::Open(site, []) => match site.prop {
                Prop::Seq(index) if index > 0 && self.tx.get(&site.parent, index - 1)?.is_none() => Err(missing(path)),
                Prop::Map(_) | Prop::Seq(_) => Ok(site),
            },
            Reach::Open(..) | Reach::Blocked(..) => Err(missing(path)),
        }
    }

    fn end_of_list(&self, parents: &[String]) -> Result<Option<Site>, Error> {
        if parents.is_empty() {
            return Ok(None);
        }
        let Reach::Open(site, []) = self.reach(parents)? else { return Ok(None) };
        let found = self.tx.get(&site.parent, site.prop)?;
        let Some((_, list)) = found.filter(|(found, _)| found.to_objtype() == Some(ObjType::List)) else {
            return Ok(None);
        };
        Ok(Some(Site { prop: Prop::Seq(self.length(&list)?), parent: list, exists: false, within_list: true }))
    }
}

fn missing(path: &Path) -> Error {
    path.fault("there is no such path in the document")
}
