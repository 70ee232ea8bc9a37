//! How often something did not go as asked, by reason.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Why something did not go as asked.
pub trait Reason: Copy + Ord + 'static {
    /// All there are.
    const ALL: &'static [Self];

    /// The word by which counters show it.
    fn as_str(self) -> &'static str;
}

/// How often something did not go as asked, by reason.
#[derive(Debug)]
pub struct Tally<R>(Mutex<BTreeMap<R, u64>>);

impl<R> Default for Tally<R> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<R: Reason> Tally<R> {
    /// Counts one more.
    pub(super) fn count(&self, reason: R) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
    }

    /// The counts, by the word of the reason; also of those that never came up.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        R::ALL.iter().map(|reason| (reason.as_str(), counted.get(reason).copied().unwrap_or_default())).collect()
    }
}
