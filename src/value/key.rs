//! Values as byte strings that sort as the values do.
//!
//! | value | bytes |
//! |---|---|
//! | nothing at all: an empty array, looked into | `08` |
//! | null, or no such field | `10` |
//! | number | `20`, then 8 or 10 bytes |
//! | string | `30`, its bytes with `00` as `00 ff`, then `00 01` |
//! | object | `40`, for each field: kind (1), key as a string, value; then `00` |
//! | array | `50`, its items, then `00` |
//! | false, true | `60`, `61` |
//!
//! A number is the greatest double that is not above it, in 8 bytes whose order is that of doubles, and from 2^53 on
//! what is left to it in 2 bytes: so integers of 64 bits keep their exact place between doubles. No encoding is a prefix
//! of another, so that fields can follow each other, and every bit of one can be turned around to sort downwards.

use super::json::{Json, Kind, Number};

/// Which way a field of an index is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The smallest first.
    Ascending,
    /// The greatest first.
    Descending,
}

impl Direction {
    /// The other one.
    #[must_use]
    pub fn reversed(self) -> Self {
        match self {
            Self::Ascending => Self::Descending,
            Self::Descending => Self::Ascending,
        }
    }
}

const UNDEFINED: u8 = 0x08;
const NULL: u8 = 0x10;
const NUMBER: u8 = 0x20;
const STRING: u8 = 0x30;
const OBJECT: u8 = 0x40;
const ARRAY: u8 = 0x50;
const BOOL: u8 = 0x60;
const END: u8 = 0x00;

/// Appends a value to a key.
pub fn encode(value: Json<'_>, direction: Direction, key: &mut Vec<u8>) {
    let start = key.len();
    put(value, key);
    turn(direction, &mut key[start..]);
}

/// Appends what stands for a field that is not there: the same as for null.
pub fn encode_missing(direction: Direction, key: &mut Vec<u8>) {
    encode(Json::NULL, direction, key);
}

/// Appends what stands for an empty array whose items were looked for: it sorts before null.
pub fn encode_undefined(direction: Direction, key: &mut Vec<u8>) {
    let start = key.len();
    key.push(UNDEFINED);
    turn(direction, &mut key[start..]);
}

/// The keys of one kind, upwards: the first, and what comes behind the last.
#[must_use]
pub fn kind_keys(kind: Kind) -> (Vec<u8>, Vec<u8>) {
    let last = if kind == Kind::Bool { BOOL + 1 } else { tag(kind) };
    (vec![tag(kind)], vec![last + 1])
}

/// What the keys of all strings that start with `prefix` begin with, upwards.
#[must_use]
pub fn string_prefix(prefix: &str) -> Vec<u8> {
    let mut key = vec![STRING];
    put_bytes(prefix.as_bytes(), &mut key);
    key.truncate(key.len() - 2);
    key
}

/// The first key behind all that begin with these bytes.
#[must_use]
pub fn successor(prefix: &[u8]) -> Vec<u8> {
    let end = prefix.iter().rposition(|byte| *byte != 0xff).map_or(0, |last| last + 1);
    let mut next = prefix[..end].to_vec();
    if let Some(last) = next.last_mut() {
        *last += 1;
    }
    next
}

/// The bytes of a key upwards as those of the same value downwards, and back.
#[must_use]
pub fn turned(key: &[u8]) -> Vec<u8> {
    key.iter().map(|byte| !byte).collect()
}

fn turn(direction: Direction, bytes: &mut [u8]) {
    if direction == Direction::Descending {
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
    }
}

fn tag(kind: Kind) -> u8 {
    match kind {
        Kind::Null => NULL,
        Kind::Number => NUMBER,
        Kind::String => STRING,
        Kind::Object => OBJECT,
        Kind::Array => ARRAY,
        Kind::Bool => BOOL,
    }
}

fn put(value: Json<'_>, key: &mut Vec<u8>) {
    let kind = value.kind();
    match kind {
        Kind::Null => key.push(NULL),
        Kind::Bool => key.push(BOOL + u8::from(value.as_bool() == Some(true))),
        Kind::Number => {
            key.push(NUMBER);
            put_number(value.as_number().unwrap_or(Number::Signed(0)), key);
        }
        Kind::String => {
            key.push(STRING);
            match value.plain() {
                Some(plain) => put_bytes(plain, key),
                None => put_bytes(value.as_str().unwrap_or_default().as_bytes(), key),
            }
        }
        Kind::Array => {
            key.push(ARRAY);
            value.items().for_each(|item| put(item, key));
            key.push(END);
        }
        Kind::Object => {
            key.push(OBJECT);
            for (name, field) in value.fields() {
                key.push(tag(field.kind()));
                put_bytes(name.as_bytes(), key);
                put(field, key);
            }
            key.push(END);
        }
    }
}

fn put_bytes(mut bytes: &[u8], key: &mut Vec<u8>) {
    while let Some(zero) = memchr::memchr(0, bytes) {
        key.extend_from_slice(&bytes[..zero]);
        key.extend_from_slice(&[0, 0xff]);
        bytes = &bytes[zero + 1..];
    }
    key.extend_from_slice(bytes);
    key.extend_from_slice(&[0, 1]);
}

/// From here on doubles are further apart than integers may be.
const EXACT: f64 = 9_007_199_254_740_992.0;

fn put_number(number: Number, key: &mut Vec<u8>) {
    let (double, left) = match number {
        Number::Float(double) => (double, 0),
        Number::Signed(number) => split(number.into()),
        Number::Unsigned(number) => split(number.into()),
    };
    // -0 and 0 are one value.
    let bits = (double + 0.0).to_bits();
    let ordered = if bits >> 63 == 0 { bits | 1 << 63 } else { !bits };
    key.extend_from_slice(&ordered.to_be_bytes());
    if double.abs() >= EXACT {
        key.extend_from_slice(&left.to_be_bytes());
    }
}

/// The greatest double that is not above an integer of 64 bits, and what is left: less than 2048, the distance between
/// doubles below 2^64.
fn split(integer: i128) -> (f64, u16) {
    let nearest = integer as f64;
    let double = if nearest as i128 > integer { nearest.next_down() } else { nearest };
    (double, u16::try_from(integer - double as i128).unwrap_or_default())
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::super::order::compare;
    use super::*;

    fn number() -> impl Strategy<Value = Value> {
        let near = |base: i64| (-3i64..=3).prop_map(move |step| Value::from(base.wrapping_add(step)));
        prop_oneof![
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e300f64..1e300).prop_map(Value::from),
            (-4i64..4).prop_map(Value::from),
            (-4i64..4).prop_map(|half| Value::from(half as f64 / 2.0)),
            near(1 << 53),
            near(-(1 << 53)),
            near(i64::MAX - 4),
            (0u64..4).prop_map(|step| Value::from(u64::MAX - step)),
            prop_oneof![Just(-0.0), Just(9_007_199_254_740_992.0), Just(9.223_372_036_854_776e18), Just(1.8e19)]
                .prop_map(Value::from),
        ]
    }

    /// Any JSON value, often one that is close to another.
    pub(in super::super) fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            number(),
            "[ab\\x00\\x01\"\\\\\u{e9}\u{1f600}]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let key = "[abc\"\\x00]{0,2}";
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(key, inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    fn key(text: &[u8], direction: Direction) -> Vec<u8> {
        let mut key = Vec::new();
        encode(Json::new(text), direction, &mut key);
        key
    }

    proptest! {
        #[test]
        fn keys_sort_as_values_do(a in value(), b in value()) {
            let (a, b) = (serde_json::to_vec(&a).unwrap(), serde_json::to_vec(&b).unwrap());
            let order = compare(Json::new(&a), Json::new(&b));
            prop_assert_eq!(order, compare(Json::new(&b), Json::new(&a)).reverse());
            prop_assert_eq!(key(&a, Direction::Ascending).cmp(&key(&b, Direction::Ascending)), order);
            prop_assert_eq!(key(&a, Direction::Descending).cmp(&key(&b, Direction::Descending)), order.reverse());
        }

        #[test]
        fn the_order_is_one(a in value(), b in value(), c in value()) {
            let texts = [a, b, c].map(|value| serde_json::to_vec(&value).unwrap());
            let mut values = texts.iter().map(|text| Json::new(text)).collect::<Vec<_>>();
            values.sort_by(|a, b| compare(*a, *b));
            prop_assert!(compare(values[0], values[2]).is_le());
        }

        #[test]
        fn no_key_is_a_prefix_of_another(a in value(), b in value()) {
            let (a, b) = (serde_json::to_vec(&a).unwrap(), serde_json::to_vec(&b).unwrap());
            let (a, b) = (key(&a, Direction::Ascending), key(&b, Direction::Ascending));
            prop_assert!(a == b || !b.starts_with(&a));
        }
    }

    #[test]
    fn numbers_keep_their_exact_place() {
        let ascending = [
            "-1e300",
            "-9223372036854775808",
            "-9223372036854775807",
            "-1.5",
            "-1",
            "0",
            "1e-300",
            "0.5",
            "1",
            "9007199254740992",
            "9007199254740993",
            "9007199254740994.0",
            "9223372036854775806",
            "9223372036854775807",
            "9223372036854775808.0",
            "18446744073709551614",
            "18446744073709551615",
            "1.8446744073709552e19",
            "1e300",
        ];
        for pair in ascending.windows(2) {
            let [a, b] = [pair[0].as_bytes(), pair[1].as_bytes()];
            assert!(compare(Json::new(a), Json::new(b)).is_lt(), "{pair:?}");
            assert!(key(a, Direction::Ascending) < key(b, Direction::Ascending), "{pair:?}");
        }
        assert_eq!(key(b"1", Direction::Ascending), key(b"1.0", Direction::Ascending));
        assert_eq!(key(b"0", Direction::Ascending), key(b"-0.0", Direction::Ascending));
    }
}
