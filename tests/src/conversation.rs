//! Scripts in the notation of `docs/protocol.md`, and two additions for golden files: `{=name}` is what the hole `{name}`
//! held before, `{<n>}` in a line to send is n letters.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::pattern::Pattern;
use crate::server::Server;
use crate::wire::Wire;

/// How long the end of a conversation listens for lines nobody expects: 20 times the pause before a legacy push.
const SILENCE: Duration = Duration::from_millis(100);

/// A script: what is sent on which connection, and what must come back.
#[derive(Debug)]
pub struct Conversation {
    /// Where it stands, for messages.
    pub title: String,
    steps: Vec<(usize, Step)>,
}

#[derive(Debug)]
enum Step {
    Send { connection: char, line: String },
    Expect { connection: char, pattern: String },
    ExpectClosed { connection: char },
}

impl Conversation {
    /// Reads a script; line numbers count from `first_line`.
    pub fn parse(title: &str, first_line: usize, text: &str) -> Self {
        let steps = text.lines().enumerate().filter_map(|(index, line)| {
            let number = first_line + index;
            let step = Step::parse(line).unwrap_or_else(|| panic!("{title}, line {number}: not a step: {line}"));
            Some((number, step?))
        });
        Self { title: title.to_owned(), steps: steps.collect() }
    }

    /// Every line this script sends.
    pub fn requests(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter_map(|(_, step)| match step {
            Step::Send { line, .. } => Some(line.as_str()),
            _ => None,
        })
    }

    /// Plays the script; afterwards no connection may have received anything else.
    pub fn run(&self, server: &Server) {
        let mut stage = Stage { server, wires: BTreeMap::new(), held: BTreeMap::new() };
        for (number, step) in &self.steps {
            eprintln!("{}, line {number}: {step:?}", self.title);
            stage.play(step);
        }
        for wire in stage.wires.values_mut().flatten() {
            wire.expect_nothing_else();
            wire.expect_nothing_for(SILENCE);
        }
    }
}

impl Step {
    /// `Some(None)` for an empty line or a comment.
    fn parse(line: &str) -> Option<Option<Self>> {
        if line.is_empty() || line.starts_with('#') {
            return Some(None);
        }
        let (connection, rest) = match line.as_bytes() {
            [b'a'..=b'z', b'>' | b'<' | b'.', ..] => (char::from(line.as_bytes()[0]), &line[1..]),
            _ => ('a', line),
        };
        let step = match rest {
            "." => Self::ExpectClosed { connection },
            ">" => Self::Send { connection, line: String::new() },
            _ => match rest.split_at_checked(2)? {
                ("> ", line) => Self::Send { connection, line: line.to_owned() },
                ("< ", pattern) => Self::Expect { connection, pattern: pattern.to_owned() },
                _ => return None,
            },
        };
        Some(Some(step))
    }
}

struct Stage<'a> {
    server: &'a Server,
    /// `None`: closed by the server, as the script wanted.
    wires: BTreeMap<char, Option<Wire>>,
    /// What the holes held last.
    held: BTreeMap<String, String>,
}

impl Stage<'_> {
    fn play(&mut self, step: &Step) {
        match step {
            Step::Send { connection, line } => {
                let line = filled(&self.with_held(line));
                self.wire(*connection).send(&line);
            }
            Step::Expect { connection, pattern } => {
                let pattern = self.with_held(pattern);
                let line = self.wire(*connection).expect(&pattern);
                let pattern = Pattern::parse(&pattern);
                for (name, text) in pattern.matches(&line).into_iter().flatten() {
                    self.held.insert(name.to_owned(), text.to_owned());
                }
            }
            Step::ExpectClosed { connection } => {
                self.wire(*connection).expect_closed();
                self.wires.insert(*connection, None);
            }
        }
    }

    /// `{=name}` replaced by what the hole `{name}` held last.
    fn with_held(&self, line: &str) -> String {
        self.held.iter().fold(line.to_owned(), |line, (name, text)| line.replace(&format!("{{={name}}}"), text))
    }

    fn wire(&mut self, connection: char) -> &mut Wire {
        let server = self.server;
        let wire = self.wires.entry(connection).or_insert_with(|| Some(server.connect()));
        wire.as_mut().unwrap_or_else(|| panic!("connection {connection} was closed before"))
    }
}

/// `{<n>}` replaced by n letters, so that a script can hold a long line.
fn filled(line: &str) -> String {
    let Some((before, rest)) = line.split_once('{') else { return line.to_owned() };
    let filler = rest.split_once('}').and_then(|(number, behind)| Some((number.parse::<usize>().ok()?, behind)));
    match filler {
        Some((bytes, behind)) => format!("{before}{}{behind}", "x".repeat(bytes)),
        // Not this brace: the envelope's own comes before a hole in it.
        None => format!("{before}{{{}", filled(rest)),
    }
}

/// The `wire` blocks of a Markdown document.
pub fn wire_blocks(name: &str, markdown: &str) -> Vec<Conversation> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in markdown.lines().enumerate() {
        match &mut open {
            None if line == "```wire" => open = Some((index + 2, String::new())),
            None => {}
            Some((start, text)) if line == "```" => {
                blocks.push(Conversation::parse(&format!("{name}:{start}"), *start, text));
                open = None;
            }
            Some((_, text)) => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    assert!(open.is_none(), "{name}: a wire block has no end");
    blocks
}

/// The conversations of a golden file: each starts with a line `== <title>`, behind which flags of the broker may stand
/// after ` | `. Gives flags and conversation.
pub fn scripts(name: &str, text: &str) -> Vec<(Vec<String>, Conversation)> {
    let lines: Vec<&str> = text.lines().collect();
    let starts: Vec<usize> = (0..lines.len()).filter(|index| lines[*index].starts_with("== ")).collect();
    starts
        .iter()
        .enumerate()
        .map(|(nth, start)| {
            let end = starts.get(nth + 1).copied().unwrap_or(lines.len());
            let (title, flags) = lines[*start][3..].split_once(" | ").unwrap_or((&lines[*start][3..], ""));
            let body = lines[start + 1..end].join("\n");
            let conversation = Conversation::parse(&format!("{name}: {title}"), start + 2, &body);
            (flags.split_whitespace().map(str::to_owned).collect(), conversation)
        })
        .collect()
}
