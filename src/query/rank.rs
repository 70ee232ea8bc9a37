//! The order that a filter itself implies: the nearest first for `$near`, and for `$text` those that fit the words best,
//! where an index of words says how rare each is. It is the same whatever the plan: the score of a document is computed
//! from the document and from what the index knows of all.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::base::CollectionName;
use crate::filter::Filter;
use crate::filter::geo::Near;
use crate::index::{Corpus, Shape, Words};
use crate::limits::{INDEX_TOKENS_MAX, RANK_HOLDERS_MAX};
use crate::store::{Index, Reader};
use crate::value::{Path, Row};

/// What documents are ranked by.
pub(super) enum Rank<'a> {
    /// The distance of the point in a field.
    Near(&'a Path, &'a Near),
    /// How well the words in these fields fit.
    Words { fields: Vec<Path>, corpus: Corpus, terms: Vec<(&'a String, u64)> },
}

/// The index of words of a collection: the first by name.
pub(super) fn text_index(reader: &Reader, collection: &CollectionName) -> Option<Arc<Index>> {
    let catalog = reader.catalog();
    let is_text = |index: &&Arc<Index>| matches!(index.definition().shape, Shape::Text(_));
    catalog.of(collection).iter().find(is_text).cloned()
}

/// The filter with words searched for where the collection's index of words looks: whether it is used or not, the answer
/// is the same.
pub(super) fn in_fields_of_index(reader: &Reader, collection: &CollectionName, filter: &Filter) -> Filter {
    let index = filter.text().and_then(|_| text_index(reader, collection));
    match index.as_ref().map(|index| &index.definition().shape) {
        Some(Shape::Text(fields)) => filter.clone().with_text_fields(fields),
        Some(Shape::Ordered(_) | Shape::Geo(_)) | None => filter.clone(),
    }
}

impl<'a> Rank<'a> {
    /// The rank that a filter implies; `None` when it implies none.
    pub(super) fn new(reader: &Reader, collection: &CollectionName, filter: &'a Filter) -> Option<Self> {
        if let Some((path, near)) = filter.near() {
            return Some(Self::Near(path, near));
        }
        let search = filter.text()?;
        let index = text_index(reader, collection).filter(|index| index.is_ready())?;
        let holders = |word: &String| {
            let mut holders = 0;
            // What cannot be read counts as rare; the walk will say what is wrong.
            let _ = reader.postings(&index, word, &mut |_, _| {
                holders += 1;
                if holders < RANK_HOLDERS_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            holders
        };
        let terms = search.terms().iter().map(|word| (word, holders(word))).collect();
        Some(Self::Words { fields: search.fields().to_vec(), corpus: index.corpus(), terms })
    }

    /// What it is by, in a word.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Near(..) => "distance",
            Self::Words { .. } => "fit of the words",
        }
    }

    /// Appends bytes that sort as the rank does.
    pub(super) fn key(&self, row: Row<'_>, key: &mut Vec<u8>) {
        let number = match self {
            Self::Near(path, near) => near.distance_m(path, row).unwrap_or(f64::INFINITY),
            Self::Words { fields, corpus, terms } => {
                let words = Words::of(fields, row, INDEX_TOKENS_MAX).unwrap_or_default();
                let score: f64 =
                    terms.iter().filter_map(|(word, holders)| Some(corpus.bm25(*holders, words.posting(word)?))).sum();
                // The best first.
                return key.extend_from_slice(&(!score.to_bits()).to_be_bytes());
            }
        };
        // Neither is negative, so that the order of their bits is theirs.
        key.extend_from_slice(&number.to_bits().to_be_bytes());
    }
}
