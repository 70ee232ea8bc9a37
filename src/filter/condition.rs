//! The tree that a filter is read into.

use std::cmp::Ordering;

use serde_json::Value;

use super::geo::{Near, Shape};
use super::{Expression, Regex, TextSearch, matching, parse};
use crate::Result;
use crate::limits::FILTER_CONDITIONS_MAX;
use crate::value::{Json, Kind, Path};

/// What must hold of a document.
#[derive(Debug, Clone)]
pub enum Condition {
    /// All of these: `$and`, and several fields. Of none: always.
    All(Vec<Condition>),
    /// Any of these: `$or`.
    Any(Vec<Condition>),
    /// Not this. `$nor` is not any.
    Not(Box<Condition>),
    /// What a path finds passes a test.
    Field {
        /// Where to look.
        path: Path,
        /// What to look for.
        test: Test,
    },
    /// What is computed from it counts as true: `$expr`.
    Expression {
        /// What computes it.
        expression: Expression,
        /// As it was written.
        source: Value,
    },
    /// Words are in it: `$text`.
    Text(TextSearch),
}

/// What is looked for among the values that a path finds. One of them is enough, and an array stands for its items too.
#[derive(Debug, Clone)]
pub enum Test {
    /// Equal to this; null is equal to nothing at all as well.
    Equal(Operand),
    /// Equal to one of these, which are in the order of values, each once.
    In(Vec<Operand>),
    /// Of the same kind as the operand and in this order to it. Nothing at all compares as null.
    Compare(Comparison, Operand),
    /// There is something, or not.
    Exists(bool),
    /// Of one of these kinds.
    Type(Vec<Type>),
    /// A string in which the expression finds something.
    Matches(Regex),
    /// A number that, without its fraction, leaves this remainder: `$mod`.
    Remainder {
        /// What is divided by; not 0.
        divisor: i64,
        /// What is left, with the sign of what was divided.
        remainder: i64,
    },
    /// Each of these finds something: `$all`. Of none: never.
    Holds(Vec<Test>),
    /// An array of so many items.
    Size(u64),
    /// An array with an item of which all of this holds: `$elemMatch`.
    Element(Element),
    /// Not all of these find something: `$not`, `$ne`, `$nin`.
    Not(Vec<Test>),
    /// A point at such a distance.
    Near(Near),
    /// A point in this shape.
    Within(Shape),
}

/// What `$elemMatch` asks of one item.
#[derive(Debug, Clone)]
pub enum Element {
    /// It is an object of which this holds.
    Fields(Box<Condition>),
    /// It passes these itself.
    Value(Vec<Test>),
}

/// Which way a value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `$lt`
    Less,
    /// `$lte`
    LessOrEqual,
    /// `$gt`
    Greater,
    /// `$gte`
    GreaterOrEqual,
}

/// The kinds that `$type` tells apart. Module documentation says which numbers are which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Type {
    /// 1: a number with a fraction or an exponent, or beyond 64 bits.
    Double,
    /// 2
    String,
    /// 3
    Object,
    /// 4
    Array,
    /// 8
    Bool,
    /// 10
    Null,
    /// 16: a whole number of 32 bits.
    Int,
    /// 18: a whole number of 64 bits that does not fit 32.
    Long,
    /// Any number.
    Number,
}

/// A value in a filter.
#[derive(Clone)]
pub struct Operand {
    text: Box<[u8]>,
}

impl Operand {
    pub(super) fn new(value: &Value) -> Self {
        Self { text: value.to_string().into_bytes().into() }
    }

    /// The value.
    #[must_use]
    pub fn json(&self) -> Json<'_> {
        Json::new(&self.text)
    }

    /// Whether it is null, which stands for nothing at all as well.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.json().kind() == Kind::Null
    }
}

impl std::fmt::Debug for Operand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.text))
    }
}

impl Element {
    /// Reads what a projection's `$elemMatch` asks of an item; `at` is its place in the request.
    ///
    /// # Errors
    /// [`Invalid`](crate::Error::Invalid) as for a filter; `$near`, `$text` and `$expr` cannot be asked of an item.
    pub fn parse(value: &Value, at: &str) -> Result<Self> {
        parse::element(value, at, FILTER_CONDITIONS_MAX)
    }

    /// Whether an item of an array is as it asks.
    #[must_use]
    pub fn is(&self, item: Json<'_>) -> bool {
        matching::is_such(item, self)
    }
}

impl Comparison {
    pub(super) const ALL: [(&'static str, Self); 4] =
        [("$lt", Self::Less), ("$lte", Self::LessOrEqual), ("$gt", Self::Greater), ("$gte", Self::GreaterOrEqual)];

    /// Whether a value that is so ordered to the operand passes.
    #[must_use]
    pub fn accepts(self, order: Ordering) -> bool {
        match self {
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

impl Type {
    /// Name, number in BSON where there is one, and type.
    pub(super) const ALL: [(&'static str, Option<u64>, Self); 9] = [
        ("double", Some(1), Self::Double),
        ("string", Some(2), Self::String),
        ("object", Some(3), Self::Object),
        ("array", Some(4), Self::Array),
        ("bool", Some(8), Self::Bool),
        ("null", Some(10), Self::Null),
        ("int", Some(16), Self::Int),
        ("long", Some(18), Self::Long),
        ("number", None, Self::Number),
    ];
}

impl Condition {
    /// The path and the test of a condition on one field; `None` for any other.
    #[must_use]
    pub fn field(&self) -> Option<(&Path, &Test)> {
        if let Self::Field { path, test } = self { Some((path, test)) } else { None }
    }

    /// What must hold together, as a list.
    #[must_use]
    pub fn together(&self) -> &[Self] {
        if let Self::All(all) = self { all } else { std::slice::from_ref(self) }
    }

    /// All of these, without nesting, the cheap ones first.
    pub(super) fn all(conditions: Vec<Self>) -> Self {
        let mut flat = Vec::with_capacity(conditions.len());
        for condition in conditions {
            if let Self::All(inner) = condition { flat.extend(inner) } else { flat.push(condition) }
        }
        flat.sort_by_key(Self::cost);
        if flat.len() == 1 { flat.remove(0) } else { Self::All(flat) }
    }

    /// Any of these, without nesting, the cheap ones first.
    pub(super) fn any(conditions: Vec<Self>) -> Self {
        let mut flat = Vec::with_capacity(conditions.len());
        for condition in conditions {
            if let Self::Any(inner) = condition { flat.extend(inner) } else { flat.push(condition) }
        }
        flat.sort_by_key(Self::cost);
        if flat.len() == 1 { flat.remove(0) } else { Self::Any(flat) }
    }

    /// What trying it costs, in comparisons of one small value, very roughly.
    fn cost(&self) -> usize {
        match self {
            Self::All(conditions) | Self::Any(conditions) => conditions.iter().map(Self::cost).sum(),
            Self::Not(condition) => condition.cost(),
            Self::Field { path, test } => path.parts().len() - 1 + test.cost(),
            Self::Expression { .. } => 100,
            Self::Text(_) => 1_000,
        }
    }

    /// Has words searched for in these fields only.
    pub(super) fn set_text_fields(&mut self, fields: &[Path]) {
        if let Self::Text(search) = self {
            search.fields = fields.to_vec();
        } else if let Self::All(all) = self {
            all.iter_mut().for_each(|condition| condition.set_text_fields(fields));
        }
    }

    /// Adds the paths that it reads; whether those are all that it reads.
    pub(super) fn collect_paths<'a>(&'a self, paths: &mut Vec<&'a Path>) -> bool {
        match self {
            Self::All(conditions) | Self::Any(conditions) => {
                let mut known = true;
                for condition in conditions {
                    known &= condition.collect_paths(paths);
                }
                known
            }
            Self::Not(condition) => condition.collect_paths(paths),
            Self::Field { path, .. } => {
                paths.push(path);
                true
            }
            Self::Expression { .. } => false,
            Self::Text(search) => {
                paths.extend(&search.fields);
                !search.fields.is_empty()
            }
        }
    }
}

impl Test {
    fn cost(&self) -> usize {
        match self {
            Self::Equal(_) | Self::Exists(_) | Self::Type(_) => 1,
            Self::Compare(..) | Self::Remainder { .. } => 2,
            Self::In(_) | Self::Size(_) => 3,
            Self::Holds(tests) | Self::Not(tests) => tests.iter().map(Self::cost).sum(),
            Self::Element(Element::Value(tests)) => 4 + 2 * tests.iter().map(Self::cost).sum::<usize>(),
            Self::Element(Element::Fields(condition)) => 4 + 2 * condition.cost(),
            Self::Near(_) | Self::Within(_) => 10,
            Self::Matches(_) => 20,
        }
    }
}
