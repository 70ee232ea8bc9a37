//! The scripts of examples that the documentation points to: they must work as they stand.

use std::path::Path;
use std::process::Command;

fn run(script: &str) {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("unsupported: curl is not installed, so examples/{script} cannot be run; skipped");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(script);
    let programs = Path::new(env!("CARGO_BIN_EXE_aerolithsdb")).parent().unwrap();
    let output = Command::new("bash").arg(script).env("AEROLITHSDB_BIN", programs).output().unwrap();
    let [said, failed] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{}: {failed}\n{said}", output.status);
}

#[test]
fn every_call_of_the_walkthrough_answers_as_it_says() {
    run("walkthrough.sh");
}

#[test]
fn every_question_about_countries_and_cities_is_answered() {
    run("queries.sh");
}
