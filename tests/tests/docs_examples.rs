//! `docs/protocol.md` is the contract: its examples run, and it covers every command.

use std::collections::BTreeSet;
use std::fs;

use system_tests::{Conversation, Server, wire_blocks, workspace};

#[test]
fn every_example_of_the_protocol_document_runs() {
    let blocks = examples();
    assert!(blocks.len() >= 8, "the document lost its examples: {}", blocks.len());
    for block in blocks {
        eprintln!("-- {}", block.title);
        block.run(&Server::start());
    }
}

#[test]
fn every_documented_command_has_an_example() {
    let shown: BTreeSet<String> = examples().iter().flat_map(requested).collect();
    // Their replies differ from run to run too much to be worth an example; tests/legacy.rs and lifecycle.rs run them.
    let elsewhere = ["stats", "reset_stats", "release"].map(str::to_owned);
    let missing: Vec<String> = documented().into_iter().filter(|verb| !shown.contains(verb)).collect();
    let missing: Vec<&String> = missing.iter().filter(|verb| !elsewhere.contains(verb)).collect();
    assert!(missing.is_empty(), "commands of section 5 without an example: {missing:?}");
}

#[test]
fn help_lists_exactly_the_documented_commands_and_explains_each() {
    let server = Server::start();
    let mut wire = server.connect_modern();
    let line = wire.ask("help", "Help: {commands}");
    let listed: BTreeSet<String> = line["Help: ".len()..].split(' ').map(str::to_owned).collect();
    assert_eq!(listed, documented());
    for verb in listed {
        wire.ask(&format!("help {verb}"), &format!("Help: {verb}{{form}}: {{meaning}}"));
    }
}

fn document() -> String {
    fs::read_to_string(workspace().join("docs/protocol.md")).expect("the contract is there")
}

fn examples() -> Vec<Conversation> {
    wire_blocks("docs/protocol.md", &document())
}

fn requested(block: &Conversation) -> BTreeSet<String> {
    block.requests().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// `hello`, the headings of section 5 that name commands, and the items of 5.4.
fn documented() -> BTreeSet<String> {
    let document = document();
    let start = document.find("\n## 5 ").expect("the section of the commands");
    let end = document.find("\n## 6 ").expect("the section behind it");
    let mut verbs = BTreeSet::from(["hello".to_owned()]);
    for line in document[start..end].lines() {
        if let Some(heading) = line.strip_prefix("#### ") {
            verbs.extend(heading.split(", ").map(str::to_owned));
        } else if let Some(item) = line.strip_prefix("- `") {
            let verb: String = item.chars().take_while(|char| char.is_ascii_lowercase() || *char == '_').collect();
            // Items that are no command name an option of one: `lease` 1 to …
            if line.contains('→') {
                verbs.insert(verb);
            }
        }
    }
    verbs
}
