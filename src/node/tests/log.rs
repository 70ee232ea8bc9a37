//! What peers do that is wrong is logged, and not once for each thing.

use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Metadata, Subscriber};

use super::*;
use crate::document::Refused;

/// Counts warnings.
struct Warnings(Arc<AtomicUsize>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Warnings while something is done.
fn warnings(act: impl FnOnce()) -> usize {
    let count = Arc::new(AtomicUsize::new(0));
    tracing::subscriber::with_default(Warnings(count.clone()), act);
    count.load(Ordering::Relaxed)
}

#[test]
fn a_frame_of_bad_changes_is_one_line() {
    let mut world = World::mesh(2);
    world.connect(0, 1);
    world.run(1_000);
    let from = world.id(1);
    let bad = |n: u32| Err((key(&format!("docs/{n}")), Refused::Signature));
    let mut publish = |ms| {
        world.run(ms);
        let changes = (0..4_096).map(bad).collect();
        world.feed(0, vec![Input::Published { from, id: 1, changes }]);
    };
    assert_eq!(warnings(|| publish(0)), 1);
    assert_eq!(warnings(|| (0..9).for_each(|_| publish(1_000))), 0);
    assert_eq!(warnings(|| publish(1_100)), 1);
}
