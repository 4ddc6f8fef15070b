//! The table of attacks in docs/encryption.md names a test for each answer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first thing that fails")]

use std::fs;
use std::path::Path;

/// A claim whose test was renamed, moved or never written fails here.
#[test]
fn every_answer_to_an_attack_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let document = fs::read_to_string(root.join("docs/encryption.md")).unwrap();
    let (_, attacks) = document.split_once("\n## Attacks\n").unwrap();
    let (attacks, _) = attacks.split_once("\n### What is not noticed\n").unwrap();
    let rows = attacks.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| --- "));
    let mut answered = 0;
    for row in rows.filter(|row| !row.starts_with("| attack | answer | test |")) {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
        assert_eq!(cells.len(), 3, "{row}");
        let tests: Vec<_> = cells[2].split('`').filter(|word| word.contains("::")).collect();
        assert!(!tests.is_empty(), "no test is named: {row}");
        for test in tests {
            let (file, name) = test.rsplit_once("::").unwrap();
            assert!(is_test(&root.join(file), name), "there is no test {test}");
        }
        answered += 1;
    }
    assert!(answered >= 30, "{answered}");
}

/// Whether `file` has a function of this name that is marked as a test.
fn is_test(file: &Path, name: &str) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let is_it = |line: &str| line.starts_with(&format!("fn {name}(")) || line.starts_with(&format!("async fn {name}("));
    let Some(at) = lines.iter().position(|line| is_it(line)) else { return false };
    // Attributes stand right above.
    let attributes = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
    attributes.into_iter().any(|line| *line == "#[test]" || line.starts_with("#[tokio::test"))
}

#[test]
fn what_is_no_test_is_not_taken_for_one() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/threat_model.rs");
    assert!(is_test(&here, "what_is_no_test_is_not_taken_for_one"));
    assert!(!is_test(&here, "is_test") && !is_test(&here, "what_is_no_test") && !is_test(&here.join("x"), "is_test"));
}
