//! `$facet`: several pipelines over the same rows, whose results are arrays of one document.

use std::ops::ControlFlow;

use super::super::{Budget, fault, row};
use super::{Flow, Pipeline, Process, Run, Sink, Sources};
use crate::Result;
use crate::filter::expression::whole;
use crate::limits::DOCUMENT_VIEW_BYTES_MAX;
use crate::value::Row;

pub(super) struct Facets<'q> {
    facets: Vec<Facet<'q>>,
    budget: &'q Budget,
    at: &'q str,
    /// Bytes of all results so far.
    bytes: usize,
}

struct Facet<'q> {
    /// The text of the field's key.
    key: &'q str,
    run: Option<Run<'q>>,
    wants_more: bool,
    /// The results, without the last bracket.
    array: Vec<u8>,
}

impl<'q> Facets<'q> {
    pub(super) fn new(
        facets: &'q [(String, Pipeline)],
        sources: &'q dyn Sources,
        budget: &'q Budget,
        at: &'q str,
    ) -> Self {
        let facet = |(key, pipeline): &'q (String, Pipeline)| Facet {
            key,
            run: Some(pipeline.start(sources, budget)),
            wants_more: true,
            array: vec![b'['],
        };
        Self { facets: facets.iter().map(facet).collect(), budget, at, bytes: 0 }
    }
}

/// Appends a result.
fn append(array: &mut Vec<u8>, bytes: &mut usize, row: Row<'_>, budget: &Budget, at: &str) -> Result<()> {
    let text = whole(row);
    *bytes += text.len() + 1;
    if *bytes > DOCUMENT_VIEW_BYTES_MAX {
        let message =
            format!("the results have more than {DOCUMENT_VIEW_BYTES_MAX} bytes in all; put a $limit into each");
        return Err(fault(at, message));
    }
    budget.take(text.len() + 1, at)?;
    if array.len() > 1 {
        array.push(b',');
    }
    array.extend_from_slice(&text);
    Ok(())
}

impl Process for Facets<'_> {
    fn push(&mut self, row: Row<'_>, _out: Sink<'_>) -> Flow {
        self.budget.check()?;
        let mut wants_more = false;
        for facet in self.facets.iter_mut().filter(|facet| facet.wants_more) {
            let Some(run) = &mut facet.run else { continue };
            let flow = run.push(row, &mut |row| {
                append(&mut facet.array, &mut self.bytes, row, self.budget, self.at)?;
                Ok(ControlFlow::Continue(()))
            })?;
            facet.wants_more = flow.is_continue();
            wants_more |= facet.wants_more;
        }
        Ok(if wants_more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    }

    fn finish(&mut self, out: Sink<'_>) -> Flow {
        let mut text = vec![b'{'];
        for facet in &mut self.facets {
            if let Some(run) = facet.run.take() {
                run.finish(&mut |row| {
                    append(&mut facet.array, &mut self.bytes, row, self.budget, self.at)?;
                    Ok(ControlFlow::Continue(()))
                })?;
            }
            if text.len() > 1 {
                text.push(b',');
            }
            text.extend_from_slice(facet.key.as_bytes());
            text.push(b':');
            text.append(&mut facet.array);
            text.push(b']');
        }
        text.push(b'}');
        out(row(&text))
    }
}
