//! An edit once more, of something else than it was made of: from the values before and after it, and the one that it is
//! to be done to.
//!
//! Elements of lists are followed as in [`edit`](super::edit): what was deleted goes, what was inserted comes behind the
//! element that it came behind, and what was edited in place is.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::align::align;
use super::edit::{Class, Classes, same};
use super::json::Object;

/// What `base` becomes by the edit from `before` to `after`.
pub(super) fn value(before: &Value, after: &Value, base: &Value) -> Value {
    match (before, after, base) {
        (before, _, base) if same(before, base) => after.clone(),
        (before, after, base) if same(before, after) => base.clone(),
        (Value::Object(before), Value::Object(after), Value::Object(base)) => {
            Value::Object(object(before, after, base))
        }
        (Value::Array(before), Value::Array(after), Value::Array(base)) => Value::Array(list(before, after, base)),
        (_, after, _) => after.clone(),
    }
}

/// As [`value`], of objects.
pub(super) fn object(before: &Object, after: &Object, base: &Object) -> Object {
    let mut edited = base.clone();
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        edited.remove(key);
    }
    for (key, field) in after {
        let known = before.get(key);
        if known.is_some_and(|known| same(known, field)) {
            continue;
        }
        let field = match (known, base.get(key)) {
            (Some(known), Some(present)) => value(known, field, present),
            (None, _) | (_, None) => field.clone(),
        };
        edited.insert(key.clone(), field);
    }
    edited
}

fn list(before: &[Value], after: &[Value], base: &[Value]) -> Vec<Value> {
    let mut classes = Classes::default();
    let mut numbers = |list: &[Value]| list.iter().map(|item| classes.of_target(item)).collect::<Vec<Class>>();
    let (old, new, present) = (numbers(before), numbers(after), numbers(base));
    let edit = Pairs::of(&old, &new);
    let place = Pairs::of(&old, &present).pairs;
    // What happens in front of each element of the base, and to each.
    let (mut inserted, mut becomes): (BTreeMap<usize, Vec<Value>>, BTreeMap<usize, Option<Value>>) = Default::default();
    for (index, item) in before.iter().enumerate() {
        let Some(&at) = place.get(&index) else { continue };
        match edit.pairs.get(&index) {
            Some(&to) => _ = becomes.insert(at, Some(value(item, &after[to], &base[at]))),
            None => _ = becomes.insert(at, None),
        }
    }
    for (behind, to) in edit.added {
        let left = place.range(..behind).next_back();
        inserted.entry(left.map_or(0, |(_, at)| at + 1)).or_default().push(after[to].clone());
    }
    let mut edited = Vec::with_capacity(base.len() + after.len());
    for (index, item) in base.iter().enumerate() {
        edited.extend(inserted.remove(&index).into_iter().flatten());
        edited.extend(becomes.remove(&index).unwrap_or_else(|| Some(item.clone())));
    }
    edited.extend(inserted.into_values().flatten());
    edited
}

/// Which elements of two lists are the same.
struct Pairs {
    /// Places in the first list with those in the second.
    pairs: BTreeMap<usize, usize>,
    /// Places in the second list that are new, each with the place in the first that it comes in front of.
    added: Vec<(usize, usize)>,
}

impl Pairs {
    fn of(old: &[Class], new: &[Class]) -> Self {
        let numbers = |classes: &[Class]| classes.iter().map(|class| class.number).collect::<Vec<u32>>();
        let (mut pairs, mut added) = (BTreeMap::new(), Vec::new());
        let mut at = (0, 0);
        for hunk in align(&numbers(old), &numbers(new)) {
            pairs.extend((at.0..hunk.old.start).zip(at.1..hunk.new.start));
            let in_place = hunk.old.clone().zip(hunk.new.clone());
            let in_place = in_place.filter(|&(old_at, new_at)| !old[old_at].keyed && !new[new_at].keyed);
            let edited: BTreeMap<usize, usize> = in_place.collect();
            let taken: BTreeSet<usize> = edited.values().copied().collect();
            added.extend(hunk.new.clone().filter(|new| !taken.contains(new)).map(|new| (hunk.old.end, new)));
            pairs.extend(edited);
            at = (hunk.old.end, hunk.new.end);
        }
        pairs.extend((at.0..old.len()).zip(at.1..new.len()));
        Self { pairs, added }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(before: Value, after: Value, base: Value, expected: Value) {
        assert_eq!(value(&before, &after, &base), expected);
    }

    #[test]
    fn an_edit_is_done_to_something_else() {
        check(json!({"a": 1, "b": 1}), json!({"a": 2}), json!({"a": 1, "b": 1, "c": 1}), json!({"a": 2, "c": 1}));
        check(json!([1, 2, 3]), json!([1, 3, 4]), json!([0, 1, 2, 3]), json!([0, 1, 3, 4]));
        check(json!([1, 2, 3]), json!([1, 9, 2, 3]), json!([2, 3]), json!([9, 2, 3]));
        check(json!([1, 2]), json!([]), json!([1, 5, 2]), json!([5]));
        check(
            json!([{"id": 1, "n": 1}]),
            json!([{"id": 1, "n": 2}]),
            json!([{"id": 0}, {"id": 1, "n": 1, "m": 1}]),
            json!([{"id": 0}, {"id": 1, "n": 2, "m": 1}]),
        );
        check(json!([[1], [2]]), json!([[1], [2, 3]]), json!([[0], [1], [2]]), json!([[0], [1], [2, 3]]));
        check(json!([1]), json!({"a": 1}), json!([1, 2]), json!({"a": 1}));
    }
}
