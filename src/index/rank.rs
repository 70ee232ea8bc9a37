//! How well a document fits the words that are searched for: Okapi BM25.
//!
//! Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (Foundations and Trends in
//! Information Retrieval 3(4), 2009), equations 3.3 and 3.15. Its weight of a word falls below zero when more than half
//! of the documents have it; here 1 is added within the logarithm, so that a word never counts against a document.

use super::keys::Keys;
use super::text::Posting;

/// How much further occurrences of a word add: little, once there are a few.
const K1: f64 = 1.2;

/// How much longer documents must say more: from 0, not at all, to 1, in proportion.
const B: f64 = 0.75;

/// What ranking must know of all documents of an index of text together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Corpus {
    /// Documents with a word in it.
    pub documents: u64,
    /// Their words, each counted as often as it occurs.
    pub tokens: u64,
}

impl Corpus {
    /// The same after the keys of one document have changed.
    #[must_use]
    pub fn after(self, old: &Keys, new: &Keys) -> Self {
        let documents = |keys: &Keys| u64::from(keys.tokens > 0);
        Self {
            documents: (self.documents + documents(new)).saturating_sub(documents(old)),
            tokens: (self.tokens + u64::from(new.tokens)).saturating_sub(old.tokens.into()),
        }
    }

    /// What one word adds to the score of a document that has it, when `holders` documents have it: above 0. Scores of
    /// several words are added up.
    #[must_use]
    pub fn bm25(&self, holders: u64, posting: Posting) -> f64 {
        // The figures of the corpus may lag behind the entries.
        let (documents, holders) = (self.documents.max(holders) as f64, holders as f64);
        let rarity = (1.0 + (documents - holders + 0.5) / (holders + 0.5)).ln();
        let average = (self.tokens as f64 / self.documents.max(1) as f64).max(1.0);
        let (occurrences, length) = (f64::from(posting.occurrences), f64::from(posting.tokens));
        rarity * occurrences / (occurrences + K1 * (1.0 - B + B * length / average))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORPUS: Corpus = Corpus { documents: 100, tokens: 1_000 };

    fn score(holders: u64, occurrences: u32, tokens: u32) -> f64 {
        CORPUS.bm25(holders, Posting { occurrences, tokens })
    }

    #[test]
    fn a_score_is_the_one_computed_by_hand() {
        // ln(1 + 90.5 / 10.5) * 2 / (2 + 1.2 * (0.25 + 0.75 * 20 / 10))
        assert!((score(10, 2, 20) - 9.619_047_619_f64.ln() * 2.0 / 4.1).abs() < 1e-9);
    }

    #[test]
    fn rare_words_many_occurrences_and_short_documents_count_more() {
        assert!(score(1, 1, 10) > score(50, 1, 10));
        assert!(score(5, 3, 10) > score(5, 1, 10));
        assert!(score(5, 3, 10) - score(5, 2, 10) < score(5, 2, 10) - score(5, 1, 10));
        assert!(score(5, 1, 5) > score(5, 1, 50));
        // Also of words that all have, and when the figures lag behind.
        for holders in [100, 1_000] {
            assert!(score(holders, 1, 10) > 0.0);
        }
        assert!(Corpus::default().bm25(1, Posting { occurrences: 1, tokens: 1 }) > 0.0);
    }
}
