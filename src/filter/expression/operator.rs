//! The operators, and how many arguments each takes.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Eq,
    Ne,
    Gt,
    Gte,
    Lt,
    Lte,
    Cmp,
    And,
    Or,
    Not,
    IfNull,
    Add,
    Subtract,
    Multiply,
    Divide,
    Mod,
    Abs,
    Ceil,
    Floor,
    Round,
    Trunc,
    Pow,
    Sqrt,
    Concat,
    ToLower,
    ToUpper,
    StrLenCp,
    SubstrCp,
    ToString,
    ToInt,
    ToDouble,
    Size,
    ArrayElemAt,
    In,
    ConcatArrays,
    IsArray,
    IsNumber,
}

/// An operator's name, and its arguments at least and at most.
struct Entry(&'static str, Operator, usize, usize);

const ANY: usize = usize::MAX;

const TABLE: &[Entry] = &[
    Entry("$eq", Operator::Eq, 2, 2),
    Entry("$ne", Operator::Ne, 2, 2),
    Entry("$gt", Operator::Gt, 2, 2),
    Entry("$gte", Operator::Gte, 2, 2),
    Entry("$lt", Operator::Lt, 2, 2),
    Entry("$lte", Operator::Lte, 2, 2),
    Entry("$cmp", Operator::Cmp, 2, 2),
    Entry("$and", Operator::And, 0, ANY),
    Entry("$or", Operator::Or, 0, ANY),
    Entry("$not", Operator::Not, 1, 1),
    Entry("$ifNull", Operator::IfNull, 2, ANY),
    Entry("$add", Operator::Add, 0, ANY),
    Entry("$subtract", Operator::Subtract, 2, 2),
    Entry("$multiply", Operator::Multiply, 0, ANY),
    Entry("$divide", Operator::Divide, 2, 2),
    Entry("$mod", Operator::Mod, 2, 2),
    Entry("$abs", Operator::Abs, 1, 1),
    Entry("$ceil", Operator::Ceil, 1, 1),
    Entry("$floor", Operator::Floor, 1, 1),
    Entry("$round", Operator::Round, 1, 2),
    Entry("$trunc", Operator::Trunc, 1, 2),
    Entry("$pow", Operator::Pow, 2, 2),
    Entry("$sqrt", Operator::Sqrt, 1, 1),
    Entry("$concat", Operator::Concat, 0, ANY),
    Entry("$toLower", Operator::ToLower, 1, 1),
    Entry("$toUpper", Operator::ToUpper, 1, 1),
    Entry("$strLenCP", Operator::StrLenCp, 1, 1),
    Entry("$substrCP", Operator::SubstrCp, 3, 3),
    Entry("$toString", Operator::ToString, 1, 1),
    Entry("$toInt", Operator::ToInt, 1, 1),
    Entry("$toLong", Operator::ToInt, 1, 1),
    Entry("$toDouble", Operator::ToDouble, 1, 1),
    Entry("$size", Operator::Size, 1, 1),
    Entry("$arrayElemAt", Operator::ArrayElemAt, 2, 2),
    Entry("$in", Operator::In, 2, 2),
    Entry("$concatArrays", Operator::ConcatArrays, 0, ANY),
    Entry("$isArray", Operator::IsArray, 1, 1),
    Entry("$isNumber", Operator::IsNumber, 1, 1),
];

/// What the parser reads by itself.
const FORMS: &[&str] = &["$literal", "$cond", "$switch"];

impl Operator {
    /// The operator of a name, and its arguments at least and at most.
    pub(super) fn named(name: &str) -> Option<(Self, usize, usize)> {
        TABLE.iter().find(|entry| entry.0 == name).map(|entry| (entry.1, entry.2, entry.3))
    }

    pub(super) fn name(self) -> &'static str {
        TABLE.iter().find(|entry| entry.1 == self).map_or("", |entry| entry.0)
    }
}

/// What to say to somebody who wrote a name that is none.
pub(super) fn suggestion(name: &str) -> String {
    crate::base::suggestion(name, TABLE.iter().map(|entry| entry.0).chain(FORMS.iter().copied()))
}
