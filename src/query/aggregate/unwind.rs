//! `$unwind`: a document for each item of an array in it.

use std::borrow::Cow;
use std::ops::ControlFlow;

use super::super::shape::{Leaf, Shape};
use super::super::{Budget, row};
use super::{Flow, Process, Sink};
use crate::Result;
use crate::filter::expression::Found;
use crate::value::{Kind, Path, Row};

#[derive(Debug, Clone)]
pub(super) struct Unwind {
    path: Path,
    /// Sets the item, and its position where that is wanted.
    shape: Shape,
    /// Sets the position only, where that is wanted.
    position: Option<Shape>,
    /// Levels of nesting that the position may need.
    height: usize,
    /// Whether documents remain that have nothing there.
    preserves: bool,
}

impl Unwind {
    /// # Errors
    /// When the position would come into the item, or the other way around.
    pub(super) fn new(path: Path, position: Option<&Path>, preserves: bool, at: &str) -> Result<Self> {
        let mut shape = Shape::over_arrays();
        shape.insert(&path, Leaf::Set(0), at)?;
        let height = position.map_or(0, |position| position.parts().len());
        let position = position.map(|position| -> Result<Shape> {
            shape.insert(position, Leaf::Set(1), at)?;
            let mut only = Shape::over_arrays();
            only.insert(position, Leaf::Set(1), at)?;
            Ok(only)
        });
        Ok(Self { path, shape, position: position.transpose()?, height, preserves })
    }

    pub(super) fn height(&self) -> usize {
        self.height
    }
}

pub(super) struct Unwinding<'q> {
    pub(super) unwind: &'q Unwind,
    pub(super) budget: &'q Budget,
    pub(super) at: &'q str,
}

const NULL: Found<'static> = Some(Cow::Borrowed(b"null"));

impl Unwinding<'_> {
    fn emit(&self, shape: &Shape, before: Row<'_>, values: &[Found<'_>], out: Sink<'_>) -> Flow {
        let text = shape.apply(before, values, self.at)?;
        self.budget.work(text.len())?;
        out(row(&text))
    }
}

impl Process for Unwinding<'_> {
    fn push(&mut self, before: Row<'_>, out: Sink<'_>) -> Flow {
        self.budget.check()?;
        let Unwind { path, shape, position, preserves, .. } = self.unwind;
        // Arrays on the way are not looked into.
        let value = if path.is_id() { before.id } else { path.plain(before.body) };
        match value.filter(|value| value.kind() != Kind::Null) {
            None if !preserves => Ok(ControlFlow::Continue(())),
            None => match position {
                Some(position) => self.emit(position, before, &[None, NULL], out),
                None => out(before),
            },
            Some(array) if array.kind() == Kind::Array => {
                let mut items = array.items().enumerate().peekable();
                if items.peek().is_none() && *preserves {
                    return self.emit(shape, before, &[None, NULL], out);
                }
                for (index, item) in items {
                    let index = Some(Cow::Owned(index.to_string().into_bytes()));
                    if self.emit(shape, before, &[Some(Cow::Borrowed(item.text())), index], out)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(ControlFlow::Continue(()))
            }
            // What is no array is its own only item.
            Some(value) => match position {
                Some(_) => self.emit(shape, before, &[Some(Cow::Borrowed(value.text())), NULL], out),
                None => out(before),
            },
        }
    }
}
