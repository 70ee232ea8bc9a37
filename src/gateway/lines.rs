//! Cutting a stream of bytes into lines, whatever the pieces in which it comes (NDJSON).
//!
//! A line ends with a line feed, or with the stream. Lines of nothing but spaces are passed over, and count. Of a
//! line that is too long nothing is held but the fact. Not here: what is in a line.

use bytes::{Bytes, BytesMut};

/// A line that holds something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Its number, from 1; empty lines have one too.
    pub(crate) number: u64,
    /// What it holds without its end; `None` when that is longer than the limit.
    pub(crate) text: Option<Bytes>,
}

/// Cuts what it is fed into lines.
#[derive(Debug)]
pub(crate) struct Lines {
    bytes_max: usize,
    /// Fed and not yet looked at.
    rest: Bytes,
    /// The begin of a line whose end was not fed yet.
    begun: BytesMut,
    too_long: bool,
    number: u64,
}

impl Lines {
    /// For lines of at most `bytes_max` bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, rest: Bytes::new(), begun: BytesMut::new(), too_long: false, number: 0 }
    }

    /// Takes the next piece. To be called when [`Lines::next`] has nothing left.
    pub(crate) fn feed(&mut self, piece: Bytes) {
        debug_assert!(self.rest.is_empty(), "what was fed before is taken first");
        self.rest = piece;
    }

    /// The next line that is whole.
    pub(crate) fn next(&mut self) -> Option<Line> {
        loop {
            let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') else {
                let rest = std::mem::take(&mut self.rest);
                self.begin(&rest);
                return None;
            };
            let end = self.rest.split_to(end + 1);
            let line = self.close(end.slice(..end.len() - 1));
            if line.is_some() {
                return line;
            }
        }
    }

    /// The last line, when the stream ended without a line feed.
    pub(crate) fn finish(&mut self) -> Option<Line> {
        let is_begun = self.too_long || !self.begun.is_empty();
        if is_begun { self.close(Bytes::new()) } else { None }
    }

    /// The number of the line that was begun or comes next.
    pub(crate) fn next_number(&self) -> u64 {
        self.number + 1
    }

    fn begin(&mut self, part: &[u8]) {
        if self.too_long || self.begun.len() + part.len() > self.bytes_max {
            self.too_long = true;
            self.begun = BytesMut::new();
        } else {
            self.begun.extend_from_slice(part);
        }
    }

    fn close(&mut self, end: Bytes) -> Option<Line> {
        self.number += 1;
        let text = if self.begun.is_empty() && !self.too_long {
            Some(end).filter(|end| end.len() <= self.bytes_max)
        } else {
            self.begin(&end);
            Some(self.begun.split().freeze()).filter(|_| !self.too_long)
        };
        self.too_long = false;
        match text {
            Some(text) if text.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r')) => None,
            text => Some(Line { number: self.number, text }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(pieces: &[&[u8]], bytes_max: usize) -> Vec<Line> {
        let mut lines = Lines::new(bytes_max);
        let mut found = Vec::new();
        for piece in pieces {
            lines.feed(Bytes::copy_from_slice(piece));
            found.extend(std::iter::from_fn(|| lines.next()));
        }
        found.extend(lines.finish());
        found
    }

    /// The same by the means of the standard library, with everything in memory.
    fn model(text: &[u8], bytes_max: usize) -> Vec<Line> {
        let mut parts: Vec<_> = text.split(|&byte| byte == b'\n').collect();
        if parts.last().is_some_and(|last| last.is_empty()) {
            parts.pop();
        }
        let line = |(number, part): (u64, &[u8])| {
            let text = (part.len() <= bytes_max).then(|| Bytes::copy_from_slice(part));
            let empty = text.is_some() && part.iter().all(|byte| b" \t\r".contains(byte));
            (!empty).then_some(Line { number, text })
        };
        (1..).zip(parts).filter_map(line).collect()
    }

    #[test]
    fn the_last_line_needs_no_end() {
        let texts = |text: &str| cut(&[text.as_bytes()], 9).into_iter().map(|line| line.number).collect::<Vec<_>>();
        assert_eq!(texts("a\nb"), [1, 2]);
        assert_eq!(texts("a\n\n \r\nb\n"), [1, 4]);
        assert_eq!(texts(""), [0u64; 0]);
        assert_eq!(texts("0123456789"), [1]);
    }

    proptest! {
        #[test]
        fn lines_are_the_same_whatever_the_pieces(
            text in proptest::collection::vec(prop_oneof![4 => Just(b'x'), 2 => Just(b'\n'), 1 => Just(b' '), 1 => Just(b'\r'), 1 => any::<u8>()], 0..200),
            cuts in proptest::collection::vec(0usize..200, 0..12),
            bytes_max in 0usize..12,
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|at| at.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            prop_assert_eq!(cut(&pieces, bytes_max), model(&text, bytes_max));
        }
    }
}
