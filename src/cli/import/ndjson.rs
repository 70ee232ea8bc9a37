//! One JSON text a line. Lines go to the peer as they are, which judges them.

use super::source::Source;
use super::{Record, Records};
use crate::cli::failure::Outcome;
use crate::gateway::Lines;
use crate::limits::DOCUMENT_BYTES_MAX;

/// Reads lines of a file.
pub(super) struct Ndjson {
    source: Source,
    lines: Lines,
    ended: bool,
}

impl Ndjson {
    pub(super) fn new(source: Source) -> Self {
        Self { source, lines: Lines::new(DOCUMENT_BYTES_MAX), ended: false }
    }
}

impl Records for Ndjson {
    fn next(&mut self) -> Outcome<Option<Record>> {
        loop {
            let mut line = self.lines.next();
            if line.is_none() && !self.ended {
                let piece = self.source.piece()?;
                if !piece.is_empty() {
                    self.lines.feed(piece);
                    continue;
                }
                self.ended = true;
                line = self.lines.finish();
            }
            let Some(line) = line else { return Ok(None) };
            let text = line.text.ok_or_else(|| format!("longer than the limit of {DOCUMENT_BYTES_MAX} bytes"));
            return Ok(Some(Record { number: line.number, text }));
        }
    }
}
