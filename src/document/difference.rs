//! What differs between two JSON objects, as a bounded list of places that turns the one into the other.
//!
//! The differences apply in order, as the operations of a JSON Patch (RFC 6902) do: without a value before, one is
//! added (in an array: inserted); without a value after, it is removed. Places are JSON Pointers (RFC 6901). Within an
//! array the differences come from its end to its start, so that their indices are those of the old array. Elements
//! are matched as a write matches them (`edit`). Where only one of the two documents is there, the whole is the one
//! difference, at the empty path.

use serde_json::Value;

use super::align::align;
use super::edit::{Class, Classes, same};
use super::json::Object;
use super::view::json_bytes;
/// The value on one side of a difference.
#[derive(Debug, Clone, PartialEq)]
pub enum Side {
    /// None.
    Nothing,
    /// This one.
    Value(Value),
    /// One that is too long to be shown: the bytes of its JSON.
    Long(usize),
}

/// A place where two versions differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The place, as a JSON Pointer.
    pub path: String,
    /// What was there.
    pub before: Side,
    /// What is there then.
    pub after: Side,
}

/// What differs between two versions, in the order in which it applies.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Differences {
    /// The places.
    pub list: Vec<Difference>,
    /// Whether there are more, beyond the bounds.
    pub is_cut: bool,
}

/// How much a list of differences may hold.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Places.
    pub places: usize,
    /// Bytes of all paths and values.
    pub bytes: usize,
    /// Bytes of one value.
    pub value_bytes: usize,
}

/// What turns one version into another; `None` is a version in which the document is not there.
#[must_use]
pub fn differences(before: Option<&Object>, after: Option<&Object>, bounds: Bounds) -> Differences {
    let mut finder = Finder { path: String::new(), found: Differences::default(), bounds };
    match (before, after) {
        (Some(before), Some(after)) => finder.object(before, after),
        (None, None) => {}
        (Some(only), None) => finder.note(Some(&Value::Object(only.clone())), None),
        (None, Some(only)) => finder.note(None, Some(&Value::Object(only.clone()))),
    }
    finder.found
}

struct Finder {
    /// Where the search is.
    path: String,
    found: Differences,
    /// What is left of them.
    bounds: Bounds,
}

impl Finder {
    fn note(&mut self, before: Option<&Value>, after: Option<&Value>) {
        if self.found.is_cut {
            return;
        }
        let (before, before_bytes) = self.side(before);
        let (after, after_bytes) = self.side(after);
        let bytes = self.path.len() + before_bytes + after_bytes;
        if self.bounds.places == 0 || bytes > self.bounds.bytes {
            self.found.is_cut = true;
            return;
        }
        self.bounds.places -= 1;
        self.bounds.bytes -= bytes;
        self.found.list.push(Difference { path: self.path.clone(), before, after });
    }

    /// A value as it is shown, and the bytes that this takes.
    fn side(&self, value: Option<&Value>) -> (Side, usize) {
        let Some(value) = value else { return (Side::Nothing, 0) };
        let bytes = json_bytes(value);
        if bytes > self.bounds.value_bytes { (Side::Long(bytes), 0) } else { (Side::Value(value.clone()), bytes) }
    }

    /// Runs `search` one level down.
    fn at(&mut self, token: &str, search: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        push_token(&mut self.path, token);
        search(self);
        self.path.truncate(length);
    }

    fn value(&mut self, before: &Value, after: &Value) {
        match (before, after) {
            (Value::Object(before), Value::Object(after)) => self.object(before, after),
            (Value::Array(before), Value::Array(after)) => self.array(before, after),
            (before, after) if same(before, after) => {}
            (before, after) => self.note(Some(before), Some(after)),
        }
    }

    fn object(&mut self, before: &Object, after: &Object) {
        for (key, old) in before {
            match after.get(key) {
                Some(new) => self.at(key, |finder| finder.value(old, new)),
                None => self.at(key, |finder| finder.note(Some(old), None)),
            }
        }
        for (key, new) in after.iter().filter(|(key, _)| !before.contains_key(*key)) {
            self.at(key, |finder| finder.note(None, Some(new)));
        }
    }

    fn array(&mut self, before: &[Value], after: &[Value]) {
        // Equal ends are cut off without hashing them: most edits of a long list are small.
        let start = before.iter().zip(after).take_while(|(old, new)| equal(old, new)).count();
        let (before, after) = (&before[start..], &after[start..]);
        let end = before.iter().rev().zip(after.iter().rev()).take_while(|(old, new)| equal(old, new)).count();
        self.region(start, &before[..before.len() - end], &after[..after.len() - end]);
    }

    /// A part of an array, from the index `start` on.
    fn region(&mut self, start: usize, before: &[Value], after: &[Value]) {
        let mut classes = Classes::default();
        let old: Vec<Class> = before.iter().map(|item| classes.of_target(item)).collect();
        let new: Vec<Class> = after.iter().map(|item| classes.of_target(item)).collect();
        let numbers = |classes: &[Class]| classes.iter().map(|class| class.number).collect::<Vec<u32>>();
        let (mut old_end, mut new_end) = (before.len(), after.len());
        for hunk in align(&numbers(&old), &numbers(&new)).into_iter().rev() {
            let behind = hunk.old.end;
            self.matched(start + behind, &old[behind..old_end], &before[behind..], &after[hunk.new.end..new_end]);
            let paired = hunk.old.len().min(hunk.new.len());
            for index in (hunk.old.start + paired..hunk.old.end).rev() {
                self.at_index(start + index, |finder| finder.note(Some(&before[index]), None));
            }
            for (offset, item) in after[hunk.new.start + paired..hunk.new.end].iter().enumerate() {
                self.at_index(start + hunk.old.start + paired + offset, |finder| finder.note(None, Some(item)));
            }
            for offset in (0..paired).rev() {
                let (from, to) = (hunk.old.start + offset, hunk.new.start + offset);
                self.at_index(start + from, |finder| match old[from].keyed || new[to].keyed {
                    true => finder.note(Some(&before[from]), Some(&after[to])),
                    false => finder.value(&before[from], &after[to]),
                });
            }
            (old_end, new_end) = (hunk.old.start, hunk.new.start);
        }
        self.matched(start, &old[..old_end], before, &after[..new_end]);
    }

    /// Elements that are the same ones; those with a key can differ within.
    fn matched(&mut self, start: usize, classes: &[Class], before: &[Value], after: &[Value]) {
        for (offset, class) in classes.iter().enumerate().rev() {
            if class.keyed {
                self.at_index(start + offset, |finder| finder.value(&before[offset], &after[offset]));
            }
        }
    }

    fn at_index(&mut self, index: usize, search: impl FnOnce(&mut Self)) {
        self.at(&index.to_string(), search);
    }
}

/// Equality of values by what they show.
fn equal(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            before.len() == after.len()
                && before.iter().zip(after).all(|((key, old), (other, new))| key == other && equal(old, new))
        }
        (Value::Array(before), Value::Array(after)) => {
            before.len() == after.len() && before.iter().zip(after).all(|(old, new)| equal(old, new))
        }
        (before, after) => same(before, after),
    }
}

/// Adds a token to a JSON Pointer.
pub(super) fn push_token(path: &mut String, token: &str) {
    path.push('/');
    for c in token.chars() {
        match c {
            '~' => path.push_str("~0"),
            '/' => path.push_str("~1"),
            other => path.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn find(before: &Value, after: &Value, bounds: Bounds) -> Differences {
        differences(before.as_object(), after.as_object(), bounds)
    }

    const WIDE: Bounds = Bounds { places: 1_000, bytes: 1 << 20, value_bytes: 1 << 20 };

    fn value(value: Value) -> Side {
        Side::Value(value)
    }

    fn check(before: &Value, after: &Value, expected: Vec<(&str, Side, Side)>) {
        let found = find(before, after, WIDE);
        let shown = found.list.into_iter().map(|at| (at.path, at.before, at.after));
        let expected = expected.into_iter().map(|(path, before, after)| (path.to_owned(), before, after));
        assert_eq!(shown.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{before} to {after}");
        assert!(!found.is_cut);
    }

    #[test]
    fn each_place_is_named_once() {
        use Side::Nothing;
        check(&json!({"a": 1}), &json!({"a": 1}), vec![]);
        check(&json!({"a": 1}), &json!({"a": 1.0}), vec![("/a", value(json!(1)), value(json!(1.0)))]);
        check(&json!({"a": 0.0}), &json!({"a": -0.0}), vec![("/a", value(json!(0.0)), value(json!(-0.0)))]);
        check(
            &json!({"a/b": {"~": 1, "x": null}, "": 2}),
            &json!({"a/b": {"~": 3}, "new": null}),
            vec![
                ("/", value(json!(2)), Nothing),
                ("/a~1b/x", value(json!(null)), Nothing),
                ("/a~1b/~0", value(json!(1)), value(json!(3))),
                ("/new", Nothing, value(json!(null))),
            ],
        );
        check(&json!({"l": [1, 2, 3]}), &json!({"l": [0, 1, 2, 3]}), vec![("/l/0", Nothing, value(json!(0)))]);
        check(
            &json!({"l": [1, 2, 3, 4]}),
            &json!({"l": [1, 4]}),
            vec![("/l/2", value(json!(3)), Nothing), ("/l/1", value(json!(2)), Nothing)],
        );
        check(
            &json!({"l": [{"id": 1, "n": 1}, {"id": 2, "n": 2}]}),
            &json!({"l": [{"id": 2, "n": 3}]}),
            vec![("/l/1/n", value(json!(2)), value(json!(3))), ("/l/0", value(json!({"id": 1, "n": 1})), Nothing)],
        );
        check(
            &json!({"l": [0, 1, 2, {"x": [1, 2]}, 4]}),
            &json!({"l": [0, 1, 9, {"x": [1, 3, 2]}, 4]}),
            vec![("/l/3/x/1", Nothing, value(json!(3))), ("/l/2", value(json!(2)), value(json!(9)))],
        );
        check(&json!({"l": [1, 1]}), &json!({"l": [1, 1, 1]}), vec![("/l/2", Nothing, value(json!(1)))]);
        check(&json!(null), &json!({"a": 1}), vec![("", Nothing, value(json!({"a": 1})))]);
        check(&json!({"a": 1}), &json!(null), vec![("", value(json!({"a": 1})), Nothing)]);
        check(&json!(null), &json!(null), vec![]);
    }

    #[test]
    fn what_is_beyond_the_bounds_is_said() {
        let (before, after) = (json!({}), json!({"a": "xxxxxxxxxx", "b": 1, "c": 2}));
        let long = find(&before, &after, Bounds { value_bytes: 11, ..WIDE });
        assert_eq!((long.list.len(), &long.list[0].after, long.is_cut), (3, &Side::Long(12), false));
        let few = find(&before, &after, Bounds { places: 2, ..WIDE });
        assert_eq!((few.list.len(), few.is_cut), (2, true));
        let small = find(&before, &after, Bounds { bytes: 17, ..WIDE });
        assert_eq!((small.list.len(), small.is_cut), (2, true));
        assert!(!find(&before, &after, Bounds { places: 3, ..WIDE }).is_cut);
    }
}
