//! The walk through the gateway's calls that the documentation points to: it must work as it stands.

use std::path::Path;
use std::process::Command;

#[test]
fn every_call_of_the_walkthrough_answers_as_it_says() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("unsupported: curl is not installed, so examples/walkthrough.sh cannot be run; skipped");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/walkthrough.sh");
    let programs = Path::new(env!("CARGO_BIN_EXE_aerolithsdb")).parent().unwrap();
    let output = Command::new("bash").arg(script).env("AEROLITHSDB_BIN", programs).output().unwrap();
    let [said, failed] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{}: {failed}\n{said}", output.status);
}
