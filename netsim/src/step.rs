//! What happens in a scenario at set times.

use serde::{Deserialize, Serialize};

use crate::time::Span;

/// Something that happens at a set time.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(try_from = "WrittenStep", into = "WrittenStep")]
pub struct Step {
    /// When, from the start of work.
    pub at: Span,
    /// What.
    pub act: Act,
}

/// What happens in a step. Peers are numbers from 0, the founder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// A peer writes so many new documents.
    Write {
        /// The peer.
        peer: usize,
        /// How many.
        documents: usize,
    },
    /// A peer changes fields of documents that are there, so often.
    Edit {
        /// The peer.
        peer: usize,
        /// How often.
        times: usize,
    },
    /// A peer is shut down.
    Leave(usize),
    /// A peer is started, if it is down.
    Start(usize),
    /// The power of a peer goes.
    PowerCut(usize),
    /// Only peers of one group reach each other; those that are in none reach nobody.
    Partition(Vec<Vec<usize>>),
    /// Everybody reaches everybody again.
    Heal,
    /// Everybody is shut down and started again at once.
    RestartAll,
    /// A peer's disk is copied.
    Backup(usize),
    /// A peer is started from its last copy.
    Restore(usize),
}

/// A step as it is written.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenStep {
    at: Span,
    #[serde(rename = "do")]
    verb: Verb,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    documents: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    times: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<Vec<usize>>>,
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verb {
    Write,
    Edit,
    Leave,
    Start,
    PowerCut,
    Partition,
    Heal,
    RestartAll,
    Backup,
    Restore,
}

impl TryFrom<WrittenStep> for Step {
    type Error = String;

    fn try_from(written: WrittenStep) -> Result<Self, String> {
        let WrittenStep { at, verb, peer, documents, times, groups } = written;
        let needs = |key: &str| format!("this step needs `{key}`");
        let peer = || peer.ok_or_else(|| needs("peer"));
        let act = match verb {
            Verb::Write => Act::Write { peer: peer()?, documents: documents.ok_or_else(|| needs("documents"))? },
            Verb::Edit => Act::Edit { peer: peer()?, times: times.ok_or_else(|| needs("times"))? },
            Verb::Leave => Act::Leave(peer()?),
            Verb::Start => Act::Start(peer()?),
            Verb::PowerCut => Act::PowerCut(peer()?),
            Verb::Partition => Act::Partition(groups.ok_or_else(|| needs("groups"))?),
            Verb::Heal => Act::Heal,
            Verb::RestartAll => Act::RestartAll,
            Verb::Backup => Act::Backup(peer()?),
            Verb::Restore => Act::Restore(peer()?),
        };
        Ok(Self { at, act })
    }
}

impl From<Step> for WrittenStep {
    fn from(step: Step) -> Self {
        let verb = match &step.act {
            Act::Write { .. } => Verb::Write,
            Act::Edit { .. } => Verb::Edit,
            Act::Leave(_) => Verb::Leave,
            Act::Start(_) => Verb::Start,
            Act::PowerCut(_) => Verb::PowerCut,
            Act::Partition(_) => Verb::Partition,
            Act::Heal => Verb::Heal,
            Act::RestartAll => Verb::RestartAll,
            Act::Backup(_) => Verb::Backup,
            Act::Restore(_) => Verb::Restore,
        };
        let mut written = Self { at: step.at, verb, peer: None, documents: None, times: None, groups: None };
        match step.act {
            Act::Write { documents, .. } => written.documents = Some(documents),
            Act::Edit { times, .. } => written.times = Some(times),
            Act::Partition(ref groups) => written.groups = Some(groups.clone()),
            Act::Leave(_)
            | Act::Start(_)
            | Act::PowerCut(_)
            | Act::Heal
            | Act::RestartAll
            | Act::Backup(_)
            | Act::Restore(_) => {}
        }
        written.peer = step.act.peers().first().copied().filter(|_| written.groups.is_none());
        written
    }
}

impl Act {
    pub(crate) fn peers(&self) -> Vec<usize> {
        match self {
            Self::Write { peer, .. }
            | Self::Edit { peer, .. }
            | Self::Leave(peer)
            | Self::Start(peer)
            | Self::PowerCut(peer)
            | Self::Backup(peer)
            | Self::Restore(peer) => vec![*peer],
            Self::Partition(groups) => groups.concat(),
            Self::Heal | Self::RestartAll => Vec::new(),
        }
    }
}
