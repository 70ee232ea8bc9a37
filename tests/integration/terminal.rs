//! The client as a person at a terminal meets it: 80 columns, help, and completions of the shells.

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::harness::{Peer, client};

/// Runs the client on a terminal of so many columns; what it printed, or nothing where terminals cannot be made.
fn on_terminal(columns: usize, peer: &Peer, arguments: &[&str]) -> Option<String> {
    let client = client();
    let words: Vec<String> = [client.get_program().to_str().unwrap(), "--url", &peer.url]
        .iter()
        .chain(arguments)
        .map(|word| format!("'{word}'"))
        .collect();
    let line = format!("stty cols {columns} rows 24 && exec {}", words.join(" "));
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).stdin(Stdio::null());
    let Ok(output) = script.env("TERM", "xterm").output() else {
        eprintln!("unsupported: script (util-linux) is not installed, so there is no terminal to test on; skipped");
        return None;
    };
    let text = String::from_utf8(output.stdout).unwrap().replace('\r', "");
    assert!(output.status.success(), "{arguments:?}: {text}");
    Some(text)
}

#[test]
fn eighty_columns_are_enough() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(&folder.path().join("peer"));
    for n in 0..12 {
        peer.put(&format!("/api/v1/collections/notes/documents/{n}"), &json!({"n": n, "text": "x".repeat(200)}));
    }
    peer.put("/api/v1/collections/a/documents/a", &json!({}));
    let Some(status) = on_terminal(80, &peer, &["node", "status"]) else { return };
    // Titles are whole, each on a line of its own, with its value.
    for title in ["PEER", "MESH ID", "RELAYS FOR OTHERS", "HOLES PUNCHED", "CLOCK IS"] {
        assert!(status.lines().any(|line| line.trim_start().starts_with(&format!("{title} "))), "{title}:\n{status}");
    }
    assert!(status.lines().count() < 60, "{status}");
    let raw = peer.get("/api/v1/nodes/status").body;
    assert!(status.contains(raw["peer_id"].as_str().unwrap()), "{status}");
    // Sizes and times are for people, and raw in JSON.
    let system = on_terminal(80, &peer, &["status"]).unwrap();
    let value = |title: &str| {
        let line = system.lines().find(|line| line.trim_start().starts_with(title)).unwrap_or_default();
        line.trim_start().trim_start_matches(title).trim().to_owned()
    };
    assert_eq!(value("STATUS"), "ready");
    assert!(value("IN MEMORY").ends_with("MiB") && value("ON DISK").ends_with("iB"), "{system}");
    assert!(value("UPTIME").ends_with('s'), "{system}");
    let output = client().args(["--url", &peer.url, "status"]).output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["status"] == "ready" && json["disk_bytes"].is_u64() && json["uptime_s"].is_u64(), "{json}");
    // Numbers stand to the right.
    let listed = on_terminal(80, &peer, &["collection", "list"]).unwrap();
    let sizes = listed.lines().filter(|line| line.ends_with(" B") || line.ends_with(" KiB")).count();
    assert!(sizes == 2 && listed.contains("         12"), "{listed}");
    for arguments in [&["collection", "list", "notes"][..], &["document", "list", "notes", "--flat"]] {
        let listed = on_terminal(80, &peer, arguments).unwrap();
        assert!(listed.lines().all(|line| line.chars().count() <= 80), "{listed}");
    }
    let listed = on_terminal(80, &peer, &["collection", "list", "notes"]).unwrap();
    assert!(listed.contains(" ago ") || listed.contains(" now "), "{listed}");
}

#[test]
fn progress_stays_on_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(&folder.path().join("peer"));
    let file = folder.path().join("many.ndjson");
    let lines: String =
        (0..30_000).map(|n| format!("{{\"_id\":\"{n}\",\"text\":\"{}\"}}\n", "x".repeat(100))).collect();
    std::fs::write(&file, lines).unwrap();
    let file = file.to_str().unwrap();
    let Some(drawn) = on_terminal(80, &peer, &["import", "many", file]) else { return };
    // What is drawn over itself, each time without the codes that move the cursor.
    let frames: Vec<String> = drawn.split("\u{1b}[2K").flat_map(str::lines).map(without_codes).collect();
    assert!(frames.iter().any(|frame| frame.contains("MiB")), "no progress was drawn:\n{drawn}");
    for frame in frames {
        assert!(frame.chars().count() <= 80, "{} columns: {frame:?}", frame.chars().count());
    }
}

fn without_codes(text: &str) -> String {
    let mut shown = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\u{1b}' {
            shown.push(character);
            continue;
        }
        // A code ends with a letter.
        characters.by_ref().skip(1).find(char::is_ascii_alphabetic);
    }
    shown
}

#[test]
fn what_every_command_takes_is_named_apart() {
    for command in [&["document", "put"][..], &["query", "search"], &["import"], &["mesh", "invite"], &[]] {
        let output = client().args(command).arg("--help").output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        let (own, common) = help.split_once("\nConnection:\n").unwrap_or_else(|| panic!("no heading:\n{help}"));
        for option in ["--url", "--token-file", "--tls-fingerprint"] {
            assert!(!own.contains(&format!("{option} ")) && common.contains(&format!("{option} ")), "{help}");
        }
        let (_, options) = own.split_once("Options:").unwrap_or((own, ""));
        assert!(!options.contains("--output"), "{help}");
    }
}

/// The completions of a shell in a file.
fn completions(folder: &std::path::Path, shell: &str) -> String {
    let output = client().args(["completions", shell]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let file = folder.join(format!("completions.{shell}"));
    std::fs::write(&file, output.stdout).unwrap();
    file.to_str().unwrap().to_owned()
}

/// What a program of a shell printed; nothing where there is no such shell.
fn shell(name: &str, arguments: &[&str]) -> Option<Output> {
    let output = Command::new(name).args(arguments).stdin(Stdio::null()).output();
    if output.is_err() {
        eprintln!("unsupported: {name} is not installed, so its completions cannot be tested; skipped");
    }
    output.ok()
}

/// Words, and one of those that complete them.
const COMPLETED: [(&str, &str); 6] = [
    ("doc", "document"),
    ("document pat", "patch"),
    ("sync safe", "safe-to-leave"),
    ("--output json index cr", "create"),
    ("document patch a b --mer", "--merge"),
    ("sync safe-to-leave --pe", "--peers"),
];

#[test]
fn bash_completes_at_every_depth() {
    let folder = tempfile::tempdir().unwrap();
    let file = completions(folder.path(), "bash");
    // As bash calls a completion: the words so far, and the function that `complete` named for the program.
    let program = r#"
        source "$1"
        shift
        function=$(complete -p "$1" | sed 's/.*-F \([^ ]*\).*/\1/')
        COMP_WORDS=("$@")
        COMP_CWORD=$(( $# - 1 ))
        "$function" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        echo "${COMPREPLY[@]}"
    "#;
    for (line, expected) in COMPLETED {
        let words: Vec<&str> = line.split(' ').collect();
        let arguments = [&["--norc", "-c", program, "bash", &file, "aerolithsdb-cli"][..], &words].concat();
        let Some(output) = shell("bash", &arguments) else { return };
        let found = String::from_utf8(output.stdout).unwrap();
        assert!(
            found.split_whitespace().any(|word| word == expected),
            "{line}: {found:?} {output:?}",
            output = output.stderr
        );
    }
}

#[test]
fn zsh_completes_at_every_depth() {
    let folder = tempfile::tempdir().unwrap();
    let file = completions(folder.path(), "zsh");
    // A second zsh on a terminal of its own is typed to, and shows what it completes.
    let program = r#"
        zmodload zsh/zpty
        zpty -b typed zsh -f -i
        zpty -w typed "autoload -Uz compinit; compinit -u -D; source $1; print READY=\$((1+1))"
        text=''
        expect() {
            local part
            repeat 1200; do
                if zpty -rt typed part; then text+=$part; else sleep 0.05; fi
                [[ $text == *$1* ]] && return 0
            done
            print -r -- "waited in vain for $1: $text"
            return 1
        }
        expect READY=2 || exit 1
        zpty -w -n typed "aerolithsdb-cli $2"$'\t'
        expect "$3"
        found=$?
        zpty -d typed
        exit $found
    "#;
    for (line, expected) in COMPLETED {
        let Some(output) = shell("zsh", &["-f", "-c", program, "zsh", &file, line, expected]) else { return };
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stdout));
    }
}
