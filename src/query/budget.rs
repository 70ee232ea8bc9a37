//! What one query may take: time and memory.
//!
//! Work is told as it is done, and the clock is looked at now and then only: telling costs an addition. This is the one
//! place of this module that looks at a clock.

use std::cell::Cell;
use std::time::Instant;

use super::fault;
use crate::Result;

/// Rows after which the clock is looked at; a row of many bytes counts as several.
const ROWS_PER_LOOK: usize = 64;
/// Bytes that count as one row more.
const BYTES_PER_ROW: usize = 4 << 10;

/// The time and the memory that are left to a query.
#[derive(Debug)]
pub struct Budget {
    started: Instant,
    deadline: Option<Instant>,
    bytes_max: usize,
    bytes: Cell<usize>,
    rows: Cell<usize>,
}

impl Budget {
    /// Until a time, and with so many bytes of rows held at once.
    #[must_use]
    pub fn new(deadline: Option<Instant>, bytes_max: usize) -> Self {
        Self { started: Instant::now(), deadline, bytes_max, bytes: Cell::new(0), rows: Cell::new(0) }
    }

    /// To be called for each row.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) once the time is over: the same query would take as long again.
    pub fn check(&self) -> Result<()> {
        self.work(0)
    }

    /// To be called for each row of which so many bytes are copied.
    ///
    /// # Errors
    /// As [`Budget::check`].
    pub fn work(&self, bytes: usize) -> Result<()> {
        let rows = self.rows.get() + 1 + bytes / BYTES_PER_ROW;
        if rows < ROWS_PER_LOOK {
            self.rows.set(rows);
            return Ok(());
        }
        self.rows.set(0);
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => {
                let limit = deadline.saturating_duration_since(self.started).as_millis();
                let message = format!(
                    "the query took longer than its time limit of {limit} ms; narrow it down by an earlier condition \
                     or a limit, add an index, or allow it more time"
                );
                Err(fault("", message))
            }
            _ => Ok(()),
        }
    }

    /// Takes memory for what a stage holds.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) that names the stage, when there is not so much left.
    pub fn take(&self, bytes: usize, stage: &str) -> Result<()> {
        let taken = self.bytes.get().saturating_add(bytes);
        if taken > self.bytes_max {
            let message = format!(
                "the query needs more than {} bytes of memory here; put a $match or a $limit before it, or a $project \
                 that leaves out what is not needed",
                self.bytes_max
            );
            return Err(fault(stage, message));
        }
        self.bytes.set(taken);
        Ok(())
    }

    /// Gives back memory that was taken.
    pub fn give_back(&self, bytes: usize) {
        self.bytes.set(self.bytes.get().saturating_sub(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn memory_is_taken_and_given_back() {
        let budget = Budget::new(None, 10);
        budget.take(8, "0.$group").unwrap();
        let Err(Error::Invalid(invalid)) = budget.take(3, "1.$sort") else { panic!("too much was given") };
        assert_eq!(invalid.field.as_deref(), Some("1.$sort"));
        assert!(invalid.message.contains("10 bytes") && invalid.message.contains("$match"), "{invalid}");
        budget.give_back(4);
        budget.take(6, "1.$sort").unwrap();
    }

    #[test]
    fn a_time_that_is_over_is_noticed_after_a_few_rows_or_many_bytes() {
        let over = || Budget::new(Some(Instant::now()), 0);
        let budget = over();
        let rows = (0..1_000).take_while(|_| budget.check().is_ok()).count();
        assert_eq!(rows, ROWS_PER_LOOK - 1);
        assert!(over().work(1 << 20).unwrap_err().to_string().contains("time limit"));
        let forever = Budget::new(None, 0);
        assert!((0..1_000).all(|_| forever.check().is_ok()));
    }
}
