//! What is wrong with a configuration: all of it, so that nobody mends and starts once for each mistake.

use crate::{Error, Result};

/// Errors that were met, in their order.
#[derive(Debug, Default)]
pub struct Faults(Vec<Error>);

impl Faults {
    /// The value of a result, or what stands in for it when it is an error, which is kept.
    pub fn take<T: Default>(&mut self, result: Result<T>) -> T {
        result.unwrap_or_else(|error| {
            self.0.push(error);
            T::default()
        })
    }

    /// The values of results; errors are kept.
    pub fn take_all<T>(&mut self, results: impl IntoIterator<Item = Result<T>>) -> Vec<T> {
        results.into_iter().filter_map(|result| result.map_err(|error| self.0.push(error)).ok()).collect()
    }

    /// A value, unless there were errors.
    ///
    /// # Errors
    /// The only error as it is, or all of them, a line each.
    pub fn unless_any<T>(mut self, value: T) -> Result<T> {
        match self.0.len() {
            0 => Ok(value),
            1 => Err(self.0.remove(0)),
            _ => {
                let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
                Err(Error::invalid(lines.join("\n")))
            }
        }
    }
}
