//! What other peers did that is wrong, as lines of the log: one for each peer and reason in ten seconds, which says how
//! often it was. Whatever is found in a loop over what came from the network goes here.

use std::collections::BTreeMap;

use crate::base::{DocumentKey, PeerId, Timestamp};
use crate::limits::COMPLAINTS_MAX;

use super::Node;

/// Milliseconds between two lines about the same peer and reason.
const AGAIN_MS: u64 = 10_000;

/// What is to be said of one peer and reason.
#[derive(Debug)]
struct Complaint {
    /// When the next line may be written.
    due: Timestamp,
    /// How often it was since the last line.
    count: u64,
    /// The first time since then: about which document it was, and what was wrong.
    document: Option<DocumentKey>,
    why: String,
}

/// What is still to be said, and what was said a short while ago.
#[derive(Debug, Default)]
pub(super) struct Complaints(BTreeMap<(PeerId, &'static str), Complaint>);

impl Node {
    /// Takes note that a peer did something wrong.
    pub(super) fn complain(
        &mut self,
        now: Timestamp,
        of: PeerId,
        reason: &'static str,
        document: Option<&DocumentKey>,
        why: impl FnOnce() -> String,
    ) {
        let complaints = &mut self.complaints.0;
        // Beyond the bound it is only counted: strangers may come under any number of names.
        if complaints.len() >= COMPLAINTS_MAX && !complaints.contains_key(&(of, reason)) {
            return;
        }
        let new = || Complaint { due: now, count: 0, document: None, why: String::new() };
        let complaint = complaints.entry((of, reason)).or_insert_with(new);
        if complaint.count == 0 {
            (complaint.document, complaint.why) = (document.cloned(), why());
        }
        complaint.count += 1;
    }

    /// Writes the lines that are due, and forgets what was not repeated.
    pub(super) fn tend_complaints(&mut self, now: Timestamp) {
        self.complaints.0.retain(|(peer, reason), complaint| {
            let Complaint { due, count, document, why } = complaint;
            if *due > now {
                return true;
            }
            if *count == 0 {
                return false;
            }
            let document = document.as_ref().map(tracing::field::display);
            tracing::warn!(%peer, reason, count, document, why, "a peer sent what is not taken");
            (*due, *count) = (now.plus_ms(AGAIN_MS), 0);
            true
        });
    }

    /// When a line is due.
    pub(super) fn next_complaint(&self) -> Option<Timestamp> {
        self.complaints.0.values().map(|complaint| complaint.due).min()
    }
}
