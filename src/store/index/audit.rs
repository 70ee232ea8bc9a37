//! Checking indexes against the documents.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::super::Store;
use super::super::key;
use super::{Index, Stage, entry};
use crate::base::CollectionName;
use crate::kv::Kv;
use crate::{Error, Result};

impl Store {
    /// Checks that the indexes of a collection have the entries that its documents give, and no others, and that the
    /// conflicts of unique ones are marked.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the first thing that does not match, [`Error::Io`] when the disk cannot be read.
    pub(in super::super) fn audit_indexes(&self, collection: &CollectionName) -> Result<()> {
        for index in self.catalog().of(collection) {
            if let Some(why) = self.fault_of_index(collection, index)? {
                return Err(Error::Corrupt(format!("index {} of {collection}: {why}", index.name)));
            }
        }
        Ok(())
    }

    fn fault_of_index(&self, collection: &CollectionName, index: &Index) -> Result<Option<String>> {
        let stage = index.state.read().stage.clone();
        let (mut expected, mut unread, mut multiple) = (BTreeSet::new(), BTreeSet::new(), false);
        self.reader.views(collection, None, &mut |id, view| {
            match view {
                Some(view) => {
                    let keys = index.keys_of_view(id, view.json);
                    multiple |= keys.keys.len() > 1;
                    let entries = entry::entries(index.space, index.number, &keys, id);
                    expected.extend(entries.into_iter().map(|entry| (id.to_owned(), entry)));
                }
                None => _ = unread.insert(id.to_owned()),
            }
            ControlFlow::Continue(())
        })?;
        let mut holders: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        let mut found = BTreeSet::new();
        let (from, to) = entry::all(index.space, index.number);
        let mut damaged = false;
        self.kv.scan(&from, &to, &mut |key, value| {
            let Some((bare, id)) = entry::parts(key, value) else {
                damaged = true;
                return ControlFlow::Break(());
            };
            if !entry::is_overflow(bare) {
                *holders.entry(bare.to_vec()).or_default() += 1;
            }
            found.insert((id.to_owned(), (key.to_vec(), value.to_vec())));
            ControlFlow::Continue(())
        })?;
        if damaged {
            return Ok(Some("an entry is damaged".into()));
        }
        let is_due = |id: &str| match &stage {
            Stage::Filling { after, .. } => after.as_ref().is_some_and(|after| id <= after.as_str()),
            Stage::Measuring | Stage::Ready => true,
        };
        if let Some((id, _)) = expected.difference(&found).find(|(id, _)| is_due(id)) {
            return Ok(Some(format!("an entry of document {id} is missing")));
        }
        if let Some((id, _)) = found.difference(&expected).find(|(id, _)| !unread.contains(id)) {
            return Ok(Some(format!("an entry of document {id} does not follow from it")));
        }
        if stage == Stage::Ready && multiple && !index.is_multiple() {
            return Ok(Some("a document has several keys, and the index does not know it".into()));
        }
        self.fault_of_conflicts(index, &stage, &holders)
    }

    fn fault_of_conflicts(
        &self,
        index: &Index,
        stage: &Stage,
        holders: &BTreeMap<Vec<u8>, usize>,
    ) -> Result<Option<String>> {
        let mut marked = BTreeSet::new();
        let (from, to) = key::index_conflicts(index.space, index.number);
        self.kv.scan(&from, &to, &mut |key, _| {
            marked.insert(key[entry::PREFIX..].to_vec());
            ControlFlow::Continue(())
        })?;
        let several = |key: &Vec<u8>| holders.get(key).is_some_and(|holders| *holders > 1);
        if marked.iter().any(|key| !several(key)) {
            return Ok(Some("a conflict is marked that there is not".into()));
        }
        let is_known = |key: &Vec<u8>| marked.contains(key) || !index.definition.unique || *stage != Stage::Ready;
        if holders.keys().any(|key| several(key) && !is_known(key)) {
            return Ok(Some("a conflict is not marked".into()));
        }
        Ok(None)
    }
}
