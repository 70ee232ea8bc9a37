//! Which keys of an index a filter is about.
//!
//! The first fields of an index are held against the tests that the filter makes of them together. Equal values give
//! points, which the next field goes on from; the first field with a range, or with nothing, is the last that counts.
//! Where a document has several keys, each test may be met by another of them, so that one test alone narrows a field
//! down; otherwise all do.
//!
//! An index of points has the cells of a shape, one of words those that are searched for, and a partial one helps
//! when the filter asks for all that it asks for.
//!
//! The spans hold at least the keys of all matching documents. They are `exact` when they hold no others, so that
//! counting them is enough.

use crate::filter::{Comparison, Condition, Element, Filter, Operand, Test};
use crate::index::{Definition, Shape, Span, geo_spans, text_key};
use crate::limits::QUERY_SPANS_MAX;
use crate::value::{
    Direction, Json, Kind, Path, Pattern, encode, encode_undefined, kind_keys, string_prefix, successor, turned,
};

/// What of an index a filter is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bounds {
    /// In the order of keys, none overlapping.
    pub(super) spans: Vec<Span>,
    /// Leading fields that have one and the same value in all of them.
    pub(super) fixed: usize,
    /// What all keys begin with on account of those.
    pub(super) prefix: Vec<u8>,
    /// Leading fields that are narrowed down.
    pub(super) used: usize,
    /// Whether every key in them is that of a matching document.
    pub(super) exact: bool,
}

/// Some values of one field: keys upwards.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    from: Vec<u8>,
    to: Vec<u8>,
    /// Whether it is one value, whose whole key is `from`.
    point: bool,
}

/// The values of a field that a test is about, in their order.
struct Pieces {
    pieces: Vec<Piece>,
    /// Whether all of them pass the test.
    exact: bool,
}

/// What an index narrows a filter down to; `None` when it does not. `multiple` says whether documents may have several
/// keys in it.
pub(super) fn bounds(definition: &Definition, multiple: bool, filter: &Filter) -> Option<Bounds> {
    if definition.filter.as_ref().is_some_and(|taken| !implies(filter, taken)) {
        return None;
    }
    let of_spans = |spans: Vec<Span>| Bounds { spans, fixed: 0, prefix: Vec::new(), used: 1, exact: false };
    match &definition.shape {
        Shape::Ordered(pattern) => of_pattern(pattern, definition.sparse, multiple, filter),
        Shape::Geo(path) => geo(path, filter).map(of_spans),
        Shape::Text(fields) => words(fields, filter).map(of_spans),
    }
}

/// Whether every condition of `taken` is one of the filter's, so that what it leaves out does not match.
fn implies(filter: &Filter, taken: &Filter) -> bool {
    let alone = |condition: &Condition| Filter { condition: condition.clone() };
    let asked: Vec<Filter> = filter.condition.together().iter().map(alone).collect();
    taken.condition.together().iter().all(|condition| asked.contains(&alone(condition)))
}

/// The cells of the points that a filter is about.
fn geo(field: &Path, filter: &Filter) -> Option<Vec<Span>> {
    let mut tests = filter.condition.together().iter().filter_map(Condition::field);
    let shape = tests.find_map(|(path, test)| {
        if path != field {
            None
        } else if let Test::Within(shape) = test {
            Some(shape.clone())
        } else if let Test::Near(near) = test {
            near.circle()
        } else {
            None
        }
    })?;
    Some(geo_spans(&shape))
}

/// The entries of words one of which a matching document has.
fn words(fields: &[Path], filter: &Filter) -> Option<Vec<Span>> {
    let search = filter.text().filter(|search| search.fields() == fields)?;
    let words = match search.phrases().first() {
        // All phrases must be there, so each of their words.
        Some(phrase) => &phrase[..1],
        None => search.terms(),
    };
    let span = |word: &String| {
        let from = text_key(word);
        (from.clone(), successor(&from))
    };
    Some(words.iter().map(span).collect())
}

fn of_pattern(pattern: &Pattern, sparse: bool, multiple: bool, filter: &Filter) -> Option<Bounds> {
    let conditions = filter.condition.together();
    let mut prefixes = vec![Vec::new()];
    let mut ranges = None;
    let mut bounds = Bounds { spans: Vec::new(), fixed: 0, prefix: Vec::new(), used: 0, exact: !multiple };
    let (mut met, mut is_there) = (0, false);
    for (path, direction) in pattern.fields() {
        let Some((pieces, tests)) = of_field(conditions, path, multiple) else { break };
        if bounds.used > 0 && prefixes.len() * pieces.pieces.len() > QUERY_SPANS_MAX {
            break;
        }
        is_there |= pieces.pieces.iter().all(|piece| piece.from >= kind_keys(Kind::Number).0);
        // A list that is named by its position has the keys of its items, and is not found by them.
        bounds.exact &= pieces.exact && !path.has_position();
        met += tests;
        bounds.used += 1;
        let points = pieces.pieces.iter().all(|piece| piece.point);
        let spread: Vec<Piece> = pieces.pieces.into_iter().map(|piece| piece.in_direction(*direction)).collect();
        let spans = product(&prefixes, &spread);
        if !points {
            ranges = Some(spans);
            break;
        }
        prefixes = spans.into_iter().map(|(from, _)| from).collect();
        if let [only] = prefixes.as_slice()
            && bounds.fixed + 1 == bounds.used
        {
            bounds.fixed += 1;
            bounds.prefix.clone_from(only);
        }
    }
    // One that leaves documents out which have none of its fields must be asked for a field that is there.
    if bounds.used == 0 || (sparse && !is_there) {
        return None;
    }
    let whole = || prefixes.iter().map(|prefix| (prefix.clone(), successor(prefix))).collect();
    bounds.spans = ranges.unwrap_or_else(whole);
    bounds.spans.sort();
    bounds.exact &= met == conditions.len();
    Some(bounds)
}

/// Every beginning with every piece.
fn product(prefixes: &[Vec<u8>], pieces: &[Piece]) -> Vec<Span> {
    let join = |prefix: &[u8], end: &[u8]| [prefix, end].concat();
    let spans = prefixes
        .iter()
        .flat_map(|prefix| pieces.iter().map(move |piece| (join(prefix, &piece.from), join(prefix, &piece.to))));
    spans.collect()
}

/// What the tests of one field are about together, and how many of them were heeded; `None` when nothing narrows it.
fn of_field(conditions: &[Condition], field: &Path, multiple: bool) -> Option<(Pieces, usize)> {
    let tests = conditions.iter().filter_map(Condition::field).filter(|(path, _)| *path == field);
    let mut tests: Vec<Pieces> = tests.filter_map(|(_, test)| of_test(test)).collect();
    if multiple && tests.len() > 1 {
        // The one with the fewest points, or else any.
        let weight = |pieces: &Pieces| {
            let ranges = pieces.pieces.iter().filter(|piece| !piece.point).count();
            (ranges, pieces.pieces.len())
        };
        let best = tests.into_iter().min_by_key(weight)?;
        return Some((best, 1));
    }
    let count = tests.len();
    let first = tests.pop()?;
    let all = tests.into_iter().fold(first, |all, test| Pieces {
        pieces: intersect(&all.pieces, &test.pieces),
        exact: all.exact && test.exact,
    });
    Some((all, count))
}

/// What is in both of two lists that are in order.
fn intersect(a: &[Piece], b: &[Piece]) -> Vec<Piece> {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    let mut both = Vec::new();
    while let (Some(one), Some(other)) = (a.peek(), b.peek()) {
        let (from, to) = ((&one.from).max(&other.from), (&one.to).min(&other.to));
        if from < to {
            both.push(Piece { from: from.clone(), to: to.clone(), point: one.point || other.point });
        }
        if one.to <= other.to {
            a.next();
        } else {
            b.next();
        }
    }
    both
}

/// The values that a test is about; `None` when no keys say.
fn of_test(test: &Test) -> Option<Pieces> {
    let inexact = |pieces: Vec<Piece>| Some(Pieces { pieces, exact: false });
    match test {
        Test::Equal(operand) => {
            let (mut pieces, exact) = equal(operand);
            sort(&mut pieces);
            Some(Pieces { pieces, exact })
        }
        Test::In(operands) => {
            let (mut pieces, mut exact) = (Vec::new(), true);
            for operand in operands {
                let (more, is_exact) = equal(operand);
                pieces.extend(more);
                exact &= is_exact;
            }
            sort(&mut pieces);
            Some(Pieces { pieces, exact })
        }
        Test::Compare(comparison, operand) => compare(*comparison, operand),
        Test::Matches(regex) if !regex.prefix().is_empty() => {
            let from = string_prefix(regex.prefix());
            inexact(vec![Piece { to: successor(&from), from, point: false }])
        }
        // Each of them finds something, so the first does.
        Test::Holds(tests) => inexact(tests.iter().find_map(of_test)?.pieces),
        // One item passes all of them.
        Test::Element(Element::Value(tests)) => {
            let pieces = tests.iter().filter_map(of_test).map(|pieces| pieces.pieces);
            inexact(pieces.reduce(|all, more| intersect(&all, &more))?)
        }
        Test::Matches(_)
        | Test::Exists(_)
        | Test::Type(_)
        | Test::Remainder { .. }
        | Test::Size(_)
        | Test::Element(Element::Fields(_))
        | Test::Not(_)
        | Test::Near(_)
        | Test::Within(_) => None,
    }
}

fn sort(pieces: &mut Vec<Piece>) {
    pieces.sort_by(|a, b| a.from.cmp(&b.from));
    pieces.dedup();
}

fn key(value: Json<'_>) -> Vec<u8> {
    let mut key = Vec::new();
    encode(value, Direction::Ascending, &mut key);
    key
}

fn point(from: Vec<u8>) -> Piece {
    Piece { to: successor(&from), from, point: true }
}

/// Keys that documents have in which something is equal to an operand, and whether only those have them.
fn equal(operand: &Operand) -> (Vec<Piece>, bool) {
    let value = operand.json();
    match value.kind() {
        // A missing field has the same key, and so has a list in which nobody has the field, which is not equal to null.
        Kind::Null => (vec![point(key(value))], false),
        Kind::Number | Kind::String | Kind::Object | Kind::Bool => (vec![point(key(value))], true),
        // As a whole it has a key for each of its items, and as an item of another array one of its own.
        Kind::Array => {
            let first = value.items().next().map_or_else(
                || {
                    let mut undefined = Vec::new();
                    encode_undefined(Direction::Ascending, &mut undefined);
                    undefined
                },
                key,
            );
            (vec![point(first), point(key(value))], false)
        }
    }
}

/// The values on one side of an operand, of the same kind.
fn compare(comparison: Comparison, operand: &Operand) -> Option<Pieces> {
    let value = operand.json();
    let at = key(value);
    let (first, end) = kind_keys(value.kind());
    match value.kind() {
        // Nothing is below or above null.
        Kind::Null => {
            let equal = matches!(comparison, Comparison::LessOrEqual | Comparison::GreaterOrEqual);
            return Some(Pieces { pieces: if equal { vec![point(at)] } else { Vec::new() }, exact: !equal });
        }
        // Arrays compare item by item; their keys are those of single items.
        Kind::Array => return None,
        Kind::Number | Kind::String | Kind::Object | Kind::Bool => {}
    }
    let (from, to) = match comparison {
        Comparison::Less => (first, at),
        Comparison::LessOrEqual => (first, successor(&at)),
        Comparison::Greater => (successor(&at), end),
        Comparison::GreaterOrEqual => (at, end),
    };
    let pieces = if from < to { vec![Piece { from, to, point: false }] } else { Vec::new() };
    Some(Pieces { pieces, exact: true })
}

impl Piece {
    /// The same values in a field of an index that is sorted this way.
    fn in_direction(self, direction: Direction) -> Self {
        match direction {
            Direction::Ascending => self,
            Direction::Descending if self.point => point(turned(&self.from)),
            // What was excluded at one end is included at the other.
            Direction::Descending => {
                Self { from: successor(&turned(&self.to)), to: successor(&turned(&self.from)), point: false }
            }
        }
    }
}
