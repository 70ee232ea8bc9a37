//! The three column encodings of Automerge's storage format, read strictly and written.
//!
//! A column is read row by row, driven by the caller, who decides how many rows there are: a run of 2^40 costs
//! nothing. Only the form that Automerge writes is accepted: the longest runs, no empty ones, integers without
//! padding, and no column at all where it would hold nothing but nulls.
//!
//! Source: <https://automerge.org/automerge-binary-format-spec/>

use crate::base::{DecodeError, Reader, Writer};

use super::error::ScreenError;

const NOT_CANONICAL: ScreenError = ScreenError::Rule("a column is not run-length encoded as Automerge does it");
const MISSING_ROWS: ScreenError = ScreenError::Rule("a column has fewer rows than there are operations");
const LEFT_OVER: ScreenError = ScreenError::Rule("a column has more rows than there are operations");

/// One value of a column.
pub(super) trait Cell<'a>: Copy + PartialEq + Sized {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError>;
    fn write(self, writer: &mut Writer);
}

impl Cell<'_> for u64 {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.varint()
    }

    fn write(self, writer: &mut Writer) {
        writer.varint(self);
    }
}

impl Cell<'_> for i64 {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        signed(reader)
    }

    fn write(self, writer: &mut Writer) {
        write_signed(writer, self);
    }
}

impl<'a> Cell<'a> for &'a str {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let limit = reader.remaining();
        reader.string("key", limit)
    }

    fn write(self, writer: &mut Writer) {
        writer.string(self);
    }
}

/// Takes a signed LEB128 integer without padding.
pub(super) fn signed(reader: &mut Reader<'_>) -> Result<i64, DecodeError> {
    let mut value = 0i64;
    let mut previous = 0u8;
    for shift in (0..64).step_by(7) {
        let byte = reader.u8()?;
        value |= i64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let negative = byte & 0x40 != 0;
            let padded = shift > 0 && byte == if previous & 0x40 == 0 { 0 } else { 0x7f };
            let overflows = shift == 63 && byte != 0 && byte != 0x7f;
            if padded || overflows {
                return Err(DecodeError::Integer);
            }
            let extend = negative && shift + 7 < 64;
            return Ok(if extend { value | (-1 << (shift + 7)) } else { value });
        }
        previous = byte;
    }
    Err(DecodeError::Integer)
}

/// Appends a signed LEB128 integer.
pub(super) fn write_signed(writer: &mut Writer, mut value: i64) {
    loop {
        let byte = value as u8 & 0x7f;
        value >>= 7;
        if (value == 0 && byte & 0x40 == 0) || (value == -1 && byte & 0x40 != 0) {
            writer.u8(byte);
            return;
        }
        writer.u8(byte | 0x80);
    }
}

/// A run-length encoded column; no bytes when every row is null.
pub(super) fn write_runs<'a, T: Cell<'a>>(rows: impl Iterator<Item = Option<T>>) -> Vec<u8> {
    let mut writer = Writer::new();
    let mut literals: Vec<T> = Vec::new();
    let mut rows = rows.peekable();
    let mut all_null = true;
    while let Some(row) = rows.next() {
        let mut count = 1;
        while rows.next_if_eq(&row).is_some() {
            count += 1;
        }
        all_null &= row.is_none();
        match row {
            Some(value) if count == 1 => literals.push(value),
            Some(value) => {
                flush(&mut literals, &mut writer);
                write_signed(&mut writer, count);
                value.write(&mut writer);
            }
            None => {
                flush(&mut literals, &mut writer);
                writer.u8(0).varint(count as u64);
            }
        }
    }
    flush(&mut literals, &mut writer);
    if all_null { Vec::new() } else { writer.finish() }
}

fn flush<'a, T: Cell<'a>>(literals: &mut Vec<T>, writer: &mut Writer) {
    if !literals.is_empty() {
        write_signed(writer, -(literals.len() as i64));
        literals.drain(..).for_each(|value| value.write(writer));
    }
}

/// A run-length encoded column of differences.
pub(super) fn write_deltas(rows: impl Iterator<Item = Option<u32>>) -> Vec<u8> {
    let mut absolute = 0;
    write_runs(rows.map(|row| {
        row.map(|value| {
            let value = i64::from(value);
            value - std::mem::replace(&mut absolute, value)
        })
    }))
}

/// A column of booleans.
pub(super) fn write_booleans(rows: impl Iterator<Item = bool>) -> Vec<u8> {
    let mut writer = Writer::new();
    let (mut value, mut count) = (false, 0);
    for row in rows {
        if row != value {
            writer.varint(count);
            (value, count) = (row, 0);
        }
        count += 1;
    }
    if count > 0 {
        writer.varint(count);
    }
    writer.finish()
}

#[derive(Clone, Copy, PartialEq)]
enum Run<T> {
    Start,
    Repeat(T, u64),
    Literal(u64),
    Nulls(u64),
}

/// A run-length encoded column; absent (without bytes) it holds a null in every row.
pub(super) struct Runs<'a, T> {
    reader: Reader<'a>,
    present: bool,
    run: Run<T>,
    last: Option<T>,
    all_null: bool,
}

impl<'a, T: Cell<'a>> Runs<'a, T> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let reader = Reader::new(bytes);
        Self { reader, present: !bytes.is_empty(), run: Run::Start, last: None, all_null: true }
    }

    /// The next row, which must exist unless the column is absent.
    pub(super) fn row(&mut self) -> Result<Option<T>, ScreenError> {
        if !self.present {
            return Ok(None);
        }
        if let Run::Start | Run::Repeat(_, 0) | Run::Literal(0) | Run::Nulls(0) = self.run {
            self.start_run()?;
        }
        match &mut self.run {
            Run::Start => Err(MISSING_ROWS),
            Run::Nulls(left) => {
                *left -= 1;
                Ok(None)
            }
            Run::Repeat(value, left) => {
                *left -= 1;
                Ok(Some(*value))
            }
            Run::Literal(left) => {
                *left -= 1;
                let value = T::read(&mut self.reader)?;
                if self.last == Some(value) {
                    return Err(NOT_CANONICAL);
                }
                self.last = Some(value);
                Ok(Some(value))
            }
        }
    }

    fn start_run(&mut self) -> Result<(), ScreenError> {
        if self.reader.remaining() == 0 {
            return Err(MISSING_ROWS);
        }
        let count = signed(&mut self.reader)?;
        match count {
            0 => {
                let nulls = self.reader.varint()?;
                if nulls == 0 || matches!(self.run, Run::Nulls(_)) {
                    return Err(NOT_CANONICAL);
                }
                self.run = Run::Nulls(nulls);
                self.last = None;
            }
            2.. => {
                let value = T::read(&mut self.reader)?;
                if self.last == Some(value) {
                    return Err(NOT_CANONICAL);
                }
                self.run = Run::Repeat(value, count.unsigned_abs());
                self.last = Some(value);
                self.all_null = false;
            }
            1 => return Err(NOT_CANONICAL),
            ..0 => {
                if matches!(self.run, Run::Literal(_)) {
                    return Err(NOT_CANONICAL);
                }
                self.run = Run::Literal(count.unsigned_abs());
                self.all_null = false;
            }
        }
        Ok(())
    }

    /// Ends the reading: nothing may be left, and a column of nulls should not be there.
    pub(super) fn finish(self) -> Result<(), ScreenError> {
        let open = match self.run {
            Run::Start => 0,
            Run::Repeat(_, left) | Run::Literal(left) | Run::Nulls(left) => left,
        };
        if open > 0 || self.reader.remaining() > 0 {
            return Err(LEFT_OVER);
        }
        if self.present && self.all_null { Err(NOT_CANONICAL) } else { Ok(()) }
    }

    /// Whether every byte and every run is used up.
    pub(super) fn is_done(&self) -> bool {
        let open = !matches!(self.run, Run::Start | Run::Repeat(_, 0) | Run::Literal(0) | Run::Nulls(0));
        !open && self.reader.remaining() == 0
    }
}

/// A run-length encoded column of differences.
pub(super) struct Deltas<'a> {
    runs: Runs<'a, i64>,
    absolute: i64,
}

impl<'a> Deltas<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { runs: Runs::new(bytes), absolute: 0 }
    }

    /// The next row as an operation counter.
    pub(super) fn row(&mut self) -> Result<Option<u32>, ScreenError> {
        let Some(delta) = self.runs.row()? else { return Ok(None) };
        self.absolute = self.absolute.checked_add(delta).ok_or(DecodeError::Integer)?;
        u32::try_from(self.absolute).map(Some).map_err(|_| DecodeError::Integer.into())
    }

    pub(super) fn finish(self) -> Result<(), ScreenError> {
        self.runs.finish()
    }
}

/// A column of booleans: the lengths of alternating runs, the first of them false.
pub(super) struct Booleans<'a> {
    reader: Reader<'a>,
    value: bool,
    left: u64,
    first: bool,
}

impl<'a> Booleans<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { reader: Reader::new(bytes), value: true, left: 0, first: true }
    }

    pub(super) fn row(&mut self) -> Result<bool, ScreenError> {
        while self.left == 0 {
            if self.reader.remaining() == 0 {
                return Err(MISSING_ROWS);
            }
            self.left = self.reader.varint()?;
            if self.left == 0 && !self.first {
                return Err(NOT_CANONICAL);
            }
            self.first = false;
            self.value = !self.value;
        }
        self.left -= 1;
        Ok(self.value)
    }

    pub(super) fn finish(self) -> Result<(), ScreenError> {
        if self.left > 0 || self.reader.remaining() > 0 { Err(LEFT_OVER) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(bytes: &[u8], count: usize) -> Result<Vec<Option<u64>>, ScreenError> {
        let mut runs = Runs::new(bytes);
        let rows = (0..count).map(|_| runs.row()).collect::<Result<_, _>>()?;
        runs.finish()?;
        Ok(rows)
    }

    #[test]
    fn runs_are_read_in_their_one_form() {
        assert_eq!(rows(&[], 2), Ok(vec![None, None]));
        assert_eq!(rows(&[2, 7, 0, 1, 0x7e, 1, 2], 5), Ok(vec![Some(7), Some(7), None, Some(1), Some(2)]));
        assert_eq!(rows(&[0x7f, 1, 2, 2], 3), Ok(vec![Some(1), Some(2), Some(2)]));
        for other_form in [
            &[1, 7][..],         // a run of one
            &[0x7e, 7, 7],       // equal values as literals
            &[2, 7, 2, 7],       // a run cut in two
            &[0x7f, 7, 2, 7],    // a run whose start is a literal
            &[2, 7, 0x7f, 7],    // a run whose end is a literal
            &[0x7f, 1, 0x7f, 2], // literals cut in two
            &[0, 1, 0, 1, 2, 7], // nulls cut in two
            &[0, 0, 2, 7],       // no nulls
            &[0, 4],             // nothing but nulls
            &[0x82, 0, 7],       // a padded length
            &[2, 0x87, 0],       // a padded value
        ] {
            let count = (1..=4).find(|&count| rows(other_form, count).is_ok());
            assert_eq!(count, None, "{other_form:?}");
        }
        assert_eq!(rows(&[3, 7], 2), Err(LEFT_OVER));
        assert_eq!(rows(&[3, 7], 4), Err(MISSING_ROWS));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            numbers in proptest::collection::vec(proptest::option::of(0u64..4), 0..40),
            counters in proptest::collection::vec(proptest::option::of(0u32..300), 0..40),
            flags in proptest::collection::vec(any::<bool>(), 0..40),
        ) {
            prop_assert_eq!(rows(&write_runs(numbers.iter().copied()), numbers.len()), Ok(numbers));
            let bytes = write_deltas(counters.iter().copied());
            let mut deltas = Deltas::new(&bytes);
            for counter in counters {
                prop_assert_eq!(deltas.row(), Ok(counter));
            }
            prop_assert_eq!(deltas.finish(), Ok(()));
            let bytes = write_booleans(flags.iter().copied());
            let mut booleans = Booleans::new(&bytes);
            for flag in flags {
                prop_assert_eq!(booleans.row(), Ok(flag));
            }
            prop_assert_eq!(booleans.finish(), Ok(()));
        }

        #[test]
        fn signed_integers_round_trip(value: i64) {
            let mut writer = Writer::new();
            write_signed(&mut writer, value);
            let bytes = writer.finish();
            prop_assert_eq!(signed(&mut Reader::new(&bytes)), Ok(value));
        }
    }

    #[test]
    fn an_endless_run_costs_only_the_rows_taken() {
        let mut bomb = vec![0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
        bomb.push(1);
        let mut runs = Runs::<u64>::new(&bomb);
        assert_eq!(runs.row(), Ok(Some(1)));
        assert_eq!(runs.finish(), Err(LEFT_OVER));
    }

    #[test]
    fn deltas_stay_operation_counters() {
        let mut deltas = Deltas::new(&[0x7e, 5, 0x7d]);
        assert_eq!((deltas.row(), deltas.row()), (Ok(Some(5)), Ok(Some(2))));
        assert!(Deltas::new(&[0x7f, 0x7f]).row().is_err());
        let mut overflow = vec![2];
        overflow.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00]);
        assert!(Deltas::new(&overflow).row().is_err());
    }

    #[test]
    fn booleans_alternate() {
        let rows = |bytes: &[u8], count: usize| {
            let mut column = Booleans::new(bytes);
            let rows = (0..count).map(|_| column.row()).collect::<Result<Vec<_>, _>>()?;
            column.finish().map(|()| rows)
        };
        assert_eq!(rows(&[0, 2, 1], 3), Ok(vec![true, true, false]));
        assert_eq!(rows(&[1, 0, 1], 2), Err(NOT_CANONICAL));
        assert_eq!(rows(&[1], 2), Err(MISSING_ROWS));
        assert_eq!(rows(&[2], 1), Err(LEFT_OVER));
    }

    #[test]
    fn signed_integers_have_one_form() {
        let read = |bytes: &[u8]| signed(&mut Reader::new(bytes));
        assert_eq!(read(&[0x7f]), Ok(-1));
        assert_eq!(read(&[0xbf, 0x7f]), Ok(-65));
        assert_eq!(read(&[0xc0, 0x00]), Ok(64));
        assert_eq!(read(&[0xff, 0x7f]), Err(DecodeError::Integer));
        assert_eq!(read(&[0x81, 0x00]), Err(DecodeError::Integer));
        assert_eq!(read(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f]), Ok(i64::MIN));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00]), Ok(i64::MAX));
        assert_eq!(read(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01]), Err(DecodeError::Integer));
    }
}
