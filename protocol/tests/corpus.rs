//! The fuzz targets over their committed corpora: every input that was ever interesting stays a test.

use std::fs;
use std::path::{Path, PathBuf};

use ciphermq_protocol::fuzzing;

#[test]
fn text_command_holds_over_its_corpus() {
    run("text_command", fuzzing::text_command);
}

#[test]
fn text_stream_holds_over_its_corpus() {
    run("text_stream", fuzzing::text_stream);
}

#[test]
fn text_reply_holds_over_its_corpus() {
    run("text_reply", fuzzing::text_reply);
}

#[test]
fn envelope_holds_over_its_corpus() {
    run("envelope", fuzzing::envelope);
}

#[test]
fn names_hold_over_their_corpus() {
    run("names", fuzzing::names);
}

#[test]
fn announcement_holds_over_its_corpus() {
    run("announcement", fuzzing::announcement);
}

/// Every target gets every corpus: what is strange for one is often strange for another.
fn run(own: &str, target: fn(&[u8])) {
    let mut own_inputs = 0;
    for corpus in entries(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus")) {
        for input in entries(&corpus) {
            // On failure the captured output ends with the input's name.
            println!("{}", input.display());
            target(&fs::read(&input).expect("a corpus holds readable files"));
            own_inputs += usize::from(corpus.ends_with(own));
        }
    }
    assert!(own_inputs > 0, "no corpus of its own for {own}");
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("fuzz/corpus is committed");
    entries.map(|entry| entry.expect("a corpus can be listed").path()).collect()
}
