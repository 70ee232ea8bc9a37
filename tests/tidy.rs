//! Holds the shape of the source: imports go down the layers only, files say what they are, and none
//! grows beyond what can be read in one sitting.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules from the bottom up. A module may use those in earlier rows, and itself.
const LAYERS: &[&[&str]] = &[
    &["error"],
    &["limits"],
    &["base", "memory"],
    &["kv", "identity", "value"],
    &["filter"],
    &["document", "access"],
    &["index"],
    &["store"],
    &["sync", "query"],
    &["node"],
    &["mesh"],
    &["peer"],
    &["gateway"],
    &["config"],
    &["cli"],
];

/// Production lines of one file at most.
const LINES_MAX: usize = 600;

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("the entry is readable").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<(PathBuf, String)> {
    below("src")
}

fn below(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("the file is readable");
        (path.strip_prefix(&root).expect("it is below the folder").to_owned(), text)
    };
    files(&root).into_iter().map(read).collect()
}

fn is_test(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "tests.rs" || name == "conformance.rs")
        || path.components().any(|part| part.as_os_str() == "tests")
}

fn production(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(text)
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// The modules that a text names after `crate::`.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split("crate::").skip(1)).map(|rest| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    })
}

#[test]
fn imports_go_down_the_layers_only() {
    let mut breaches = Vec::new();
    let mut checked = 0;
    for (path, text) in sources() {
        let first = path.components().next().expect("a path has a component");
        let module = first.as_os_str().to_str().expect("names are UTF-8").trim_end_matches(".rs");
        let Some(own) = layer(module).filter(|_| !is_test(&path)) else {
            assert!(["lib", "bin"].contains(&module) || is_test(&path), "{module} is not in the table of layers");
            continue;
        };
        for name in named(production(&text)) {
            // What is named in capitals is re-exported at the root: the error.
            if let Some(other) = layer(name) {
                checked += 1;
                if other > own || (other == own && name != module) {
                    breaches.push(format!("{} uses {name}", path.display()));
                }
            }
        }
    }
    assert!(checked > 100, "only {checked} imports were seen: the test looks in the wrong place");
    assert!(breaches.is_empty(), "{breaches:#?}");
}

#[test]
fn every_file_says_what_it_is_and_can_be_read_in_one_sitting() {
    for (path, text) in sources().into_iter().chain(below("netsim/src")) {
        assert!(text.starts_with("//!"), "{} does not start with //!", path.display());
        let lines = production(&text).lines().count();
        assert!(is_test(&path) || lines <= LINES_MAX, "{} has {lines} lines", path.display());
    }
}

#[test]
fn only_one_file_names_sled() {
    for (path, text) in sources() {
        let names = production(&text).contains("sled::Db") || production(&text).contains("use sled");
        assert!(!names || path == Path::new("kv/sled.rs"), "{} names sled", path.display());
    }
}
