//! Lines with holes: `{name}` stands for any text, `{"` and everything else for itself.

/// A line of a conversation, cut at its holes.
#[derive(Debug)]
pub struct Pattern {
    /// What stands before, between and behind the holes.
    literals: Vec<String>,
    names: Vec<String>,
}

impl Pattern {
    /// Reads a pattern; every text is one.
    pub fn parse(text: &str) -> Self {
        let mut literals = vec![String::new()];
        let mut names = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let (before, tail) = rest.split_at(open);
            let literal = literals.last_mut().expect("starts with one");
            literal.push_str(before);
            if let Some(name) = hole(tail) {
                names.push(name.to_owned());
                literals.push(String::new());
                rest = &tail[name.len() + 2..];
            } else {
                literal.push('{');
                rest = &tail[1..];
            }
        }
        literals.last_mut().expect("starts with one").push_str(rest);
        Self { literals, names }
    }

    /// What the holes hold in `line`, the shortest way; `None` when the line does not match.
    pub fn matches<'a>(&'a self, line: &'a str) -> Option<Vec<(&'a str, &'a str)>> {
        let mut rest = line.strip_prefix(self.literals[0].as_str())?;
        let mut held = Vec::with_capacity(self.names.len());
        for (index, name) in self.names.iter().enumerate() {
            let literal = self.literals[index + 1].as_str();
            let last = index + 1 == self.names.len();
            let at = if last { rest.strip_suffix(literal)?.len() } else { rest.find(literal)? };
            held.push((name.as_str(), &rest[..at]));
            rest = &rest[at + literal.len()..];
        }
        rest.is_empty().then_some(held)
    }
}

/// The name of the hole `text` starts with.
fn hole(text: &str) -> Option<&str> {
    let name = text.strip_prefix('{')?.split_once('}')?.0;
    (!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(pattern: &str, line: &str) -> Option<Vec<(String, String)>> {
        let pattern = Pattern::parse(pattern);
        let held = pattern.matches(line)?;
        Some(held.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect())
    }

    #[test]
    fn a_hole_stands_for_any_text_and_json_for_itself() {
        assert_eq!(holds("ACK m-1", "ACK m-1"), Some(vec![]));
        assert_eq!(holds("ACK m-1", "ACK m-12"), None);
        assert_eq!(
            holds("at {ms} {rest}", "at 17 x y"),
            Some(vec![("ms".into(), "17".into()), ("rest".into(), "x y".into())])
        );
        assert_eq!(holds(r#"S {"a":{ms},"b":{}}"#, r#"S {"a":3,"b":{}}"#), Some(vec![("ms".into(), "3".into())]));
        assert_eq!(holds("x{where}", "x"), Some(vec![("where".into(), String::new())]));
        assert_eq!(holds("{a}-end", "x-end-end"), Some(vec![("a".into(), "x-end".into())]));
        assert_eq!(holds("{a}-end", "x-end?"), None);
    }
}
