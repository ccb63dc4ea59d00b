//! Checks of the repository itself: rules that no compiler knows.

use std::path::{Path, PathBuf};

/// The one file that may hold `unsafe`.
const UNSAFE_ALLOWED: &str = "vfs/src/local/sys.rs";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in a workspace").to_owned()
}

/// Every Rust file of the workspace as (path from the root, text).
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for part in ["protocol/src", "protocol/tests", "vfs", "server", "integration"] {
        collect(&root().join(part), &mut found);
    }
    assert!(found.len() > 60, "only {} source files found: is the walk broken?", found.len());
    found
}

fn collect(directory: &Path, found: &mut Vec<(String, String)>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.map(|entry| entry.expect("the tree is readable")) {
        let path = entry.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).expect("below the root").display().to_string();
            found.push((name, std::fs::read_to_string(&path).expect("sources are UTF-8")));
        }
    }
}

/// The code of a line, without its comment.
fn code(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

fn complain(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn unsafe_stands_in_one_file_only() {
    let mut complaints = Vec::new();
    for (path, text) in sources() {
        if path == UNSAFE_ALLOWED || path.ends_with("tests/tidy.rs") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let words: Vec<&str> = code(line).split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            if words.contains(&"unsafe") && !line.contains('"') {
                complaints.push(format!("{path}:{}: unsafe outside {UNSAFE_ALLOWED}", number + 1));
            }
        }
    }
    complain(complaints);
}

#[test]
fn crates_import_only_what_they_may() {
    // (whose files, what they must not name). Cargo enforces the rest.
    let rules: &[(&str, &[&str])] = &[
        (
            "protocol/src/",
            &[
                "tokio",
                "shoal_vfs",
                "TcpStream",
                "TcpListener",
                "UdpSocket",
                "std::fs",
                "Instant::now",
                "SystemTime::now",
            ],
        ),
        ("server/src/state/", &[".await", "std::fs", "Instant::now()", "SystemTime::now()", "tokio::net"]),
    ];
    let mut complaints = Vec::new();
    for (path, text) in sources() {
        for (prefix, forbidden) in rules {
            if !path.starts_with(prefix) {
                continue;
            }
            let body = text.split("#[cfg(test)]").next().unwrap_or_default();
            for (number, line) in body.lines().enumerate() {
                for word in *forbidden {
                    if code(line).contains(word) {
                        complaints.push(format!("{path}:{}: {word} has no place below {prefix}", number + 1));
                    }
                }
            }
        }
    }
    complain(complaints);
}

#[test]
fn no_command_imports_another() {
    let mut complaints = Vec::new();
    for (path, text) in sources() {
        let Some(rest) = path.strip_prefix("server/src/command/") else { continue };
        let own = rest.split(['/', '.']).next().unwrap_or_default();
        if own == "mod" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let line = code(line);
            if let Some((_, after)) = line.split_once("use crate::command::") {
                let other = after.split([':', ';', '{']).next().unwrap_or_default().trim();
                // Closing an open is shared by every way in which an open ends.
                if other != own && other != "close" {
                    complaints.push(format!("{path}:{}: imports command::{other}", number + 1));
                }
            }
        }
    }
    complain(complaints);
}

#[test]
fn every_command_cites_the_section_it_obeys() {
    let commands = [
        "negotiate",
        "session_setup",
        "logoff",
        "tree_connect",
        "tree_disconnect",
        "create",
        "close",
        "flush",
        "read",
        "write",
        "lock",
        "ioctl",
        "cancel",
        "echo",
        "query_directory",
        "change_notify",
        "query_info",
        "set_info",
        "oplock_break",
    ];
    let mut complaints = Vec::new();
    for command in commands {
        let file = root().join(format!("server/src/command/{command}.rs"));
        let folder = root().join(format!("server/src/command/{command}/mod.rs"));
        let text = std::fs::read_to_string(file).or_else(|_| std::fs::read_to_string(folder));
        match text {
            Ok(text) if text.contains("3.3.5.") => {}
            Ok(_) => complaints.push(format!("server/src/command/{command}: cites no section 3.3.5.x")),
            Err(_) => complaints.push(format!("server/src/command/{command}: not there")),
        }
    }
    complain(complaints);
}

#[test]
fn every_file_says_what_it_is() {
    let lacking = sources().into_iter().filter(|(_, text)| !text.trim_start().starts_with("//!"));
    complain(lacking.map(|(path, _)| format!("{path}: does not open with what it is (//!)")).collect());
}

#[test]
fn signatures_are_compared_in_one_place_in_constant_time() {
    // Attack 19: a comparison with == would tell by its time how many bytes are right.
    let mut complaints = Vec::new();
    for (path, text) in sources() {
        if path.ends_with("tests/tidy.rs") || path.contains("/tests/") {
            continue;
        }
        let body = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in body.lines().enumerate() {
            let line = code(line);
            let compares = line.contains("==") || line.contains("!=");
            // A "tag" is a secret where there are ciphers; elsewhere it is ASN.1's or a reparse point's.
            let words: &[&str] = if path.starts_with("protocol/src/crypto/") {
                &["signature", "mic", "tag"]
            } else {
                &["signature", "mic"]
            };
            let secret = words.iter().any(|word| {
                line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|found| found == *word)
            });
            // Whether a message carries a signature at all is no secret: the all-zero constant may be compared with.
            // The constant that opens every NTLM message is called a signature, too.
            let public = ["[0; 16]", "[0u8; 16]", "NTLMSSP_SIGNATURE"].iter().any(|word| line.contains(word));
            if compares && secret && !public {
                complaints.push(format!("{path}:{}: compares a signature with {}", number + 1, line.trim()));
            }
        }
    }
    complain(complaints);
}

#[test]
fn nothing_unfinished_and_nothing_of_one_machine() {
    let here = concat!("/wo", "rk/");
    let words = [
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("FIX", "ME"),
        concat!("X", "XX:"),
        here,
    ];
    let mut complaints = Vec::new();
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            for word in words {
                if line.contains(word) {
                    complaints.push(format!("{path}:{}: {word}", number + 1));
                }
            }
        }
    }
    for document in
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "Cargo.toml", ".ci/run"]
    {
        let text = std::fs::read_to_string(root().join(document)).expect(document);
        if text.contains(here) {
            complaints.push(format!("{document}: names a path of one machine"));
        }
    }
    complain(complaints);
}

#[test]
fn every_expected_failure_has_its_reason() {
    let text =
        std::fs::read_to_string(root().join("integration/torture/expected.toml")).expect("expected.toml");
    let expected: toml::Table = text.parse().expect("expected.toml is TOML");
    let pass: Vec<&str> =
        expected["pass"].as_array().expect("pass").iter().filter_map(|t| t.as_str()).collect();
    for fail in expected.get("fail").and_then(|fail| fail.as_array()).into_iter().flatten() {
        let test = fail["test"].as_str().expect("test");
        for key in ["needs", "better"] {
            assert!(!fail[key].as_str().expect(key).is_empty(), "{test}: {key} is empty");
        }
        assert!(!pass.contains(&test), "{test} is both expected to pass and to fail");
    }
}

#[test]
fn the_two_commands_come_first_in_the_readme() {
    let text = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    let top: String = text.lines().take(25).collect::<Vec<_>>().join("\n");
    for command in ["cargo run --release", "cargo integration test"] {
        assert!(top.contains(command), "README's first 25 lines lack `{command}`");
    }
}
