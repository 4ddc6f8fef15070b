//! An input, read as changes to make.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// What is left of an input. What is missing at its end is 0.
pub(crate) struct Program<'a>(&'a [u8]);

impl<'a> Program<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `end`, or 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let number = usize::from(self.byte()) | usize::from(self.byte()) << 8;
        number.checked_rem(end).unwrap_or_default()
    }

    /// A few bytes, as they are in the input.
    pub(crate) fn piece(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte() % PIECE_MAX);
        let (piece, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        piece
    }

    /// All that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// How many changes to make: few, since after many nothing is like what it was.
    pub(crate) fn steps(&mut self) -> u8 {
        self.byte() % STEPS_MAX
    }
}

const PIECE_MAX: u8 = 40;
const STEPS_MAX: u8 = 5;

/// Makes one change.
pub(crate) fn edit(bytes: &mut Vec<u8>, program: &mut Program<'_>) {
    let at = program.below(bytes.len() + 1);
    match program.byte() % 6 {
        0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (program.byte() % 8)),
        1 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = program.byte()),
        2 => drop(bytes.splice(at..at, program.piece().iter().copied())),
        3 => drop(bytes.drain(at..at + program.below(bytes.len() - at + 1))),
        4 => {
            let again = bytes[at..at + program.below(bytes.len() - at + 1)].to_vec();
            bytes.splice(at..at, again);
        }
        _ => bytes.truncate(at),
    }
}

/// Makes one change to a text; to what it stands for, if it is base64.
pub(crate) fn edit_text(text: &mut String, program: &mut Program<'_>) {
    let is_raw = program.byte() % 4 == 3;
    match STANDARD.decode(&*text) {
        Ok(mut bytes) if !is_raw => {
            edit(&mut bytes, program);
            *text = STANDARD.encode(bytes);
        }
        _ => {
            let mut bytes = std::mem::take(text).into_bytes();
            edit(&mut bytes, program);
            *text = String::from_utf8_lossy(&bytes).into_owned();
        }
    }
}

/// A member of a JSON object; there may be two of one name.
pub(crate) type Member = (String, Value);

/// Makes one change to the members of an object; some come from another one.
pub(crate) fn edit_members(members: &mut Vec<Member>, other: &[Member], program: &mut Program<'_>) {
    let at = program.below(members.len());
    let Some((name, value)) = members.get_mut(at) else {
        return members.extend(other.iter().cloned());
    };
    match program.byte() % 8 {
        0..4 => edit_value(value, program),
        4 => other.iter().filter(|(other, _)| other == name).take(1).for_each(|(_, other)| *value = other.clone()),
        5 => drop(members.remove(at)),
        6 => members.extend(other.get(program.below(other.len())).cloned()),
        _ => {
            let to = program.below(members.len());
            members.swap(at, to);
        }
    }
}

fn edit_value(value: &mut Value, program: &mut Program<'_>) {
    match value {
        Value::String(text) => edit_text(text, program),
        Value::Array(values) => {
            let at = program.below(values.len() + 1);
            match (values.get_mut(at), program.byte() % 4) {
                (Some(value), 0 | 1) => edit_value(value, program),
                (Some(_), 2) => drop(values.remove(at)),
                _ => values.extend(values.first().cloned()),
            }
        }
        Value::Object(object) => {
            let mut members: Vec<_> = std::mem::take(object).into_iter().collect();
            edit_members(&mut members, &[], program);
            *object = Map::from_iter(members);
        }
        other => *other = [Value::from(program.byte()), Value::from(u64::MAX), Value::Null][program.below(3)].clone(),
    }
}

/// The members of an object as JSON, names that are known in their order.
pub(crate) fn to_json(members: &[Member], order: &[&str]) -> String {
    let written = members.iter().map(|(name, value)| {
        let value = match value {
            Value::Object(object) => {
                let mut members: Vec<_> = object.clone().into_iter().collect();
                members.sort_by_key(|(name, _)| order.iter().position(|known| known == name));
                to_json(&members, order)
            }
            value => value.to_string(),
        };
        format!("{}:{value}", Value::from(name.as_str()))
    });
    format!("{{{}}}", written.collect::<Vec<_>>().join(","))
}
