//! Each profile in `peers/` starts unedited.

use std::time::Instant;

use serde_json::json;

use crate::harness::Peer;

#[test]
fn every_profile_boots_and_serves() {
    for profile in ["bootstrap", "worker", "laptop", "edge"] {
        let folder = tempfile::tempdir().unwrap();
        let start = Instant::now();
        let mut peer = Peer::start_with(folder.path(), 0, &["--profile".into(), profile.into()]);
        let answer = peer.post("/api/v1/collections/docs/documents", &json!({"profile": profile}));
        assert_eq!(answer.status, 201, "{profile}: {answer:?}");
        assert_eq!(peer.get("/health/ready").status, 200, "{profile}");
        assert!(peer.stop().success(), "{profile} did not end well");
        eprintln!("{profile}: {} ms", start.elapsed().as_millis());
    }
}
