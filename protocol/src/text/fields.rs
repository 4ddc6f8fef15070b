//! A cursor over the tokens of one request.

use std::ops::RangeInclusive;

use memchr::memchr;

use super::error::{BadOption, ParseError};
use crate::limits::NUMBER_DIGITS_MAX;
use crate::name::{MessageId, Name, NameKind};

/// How a connection's requests are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The originals': any ASCII white space separates, tokens too many are ignored.
    Legacy,
    /// After `hello`: single spaces, nothing unexpected.
    Modern,
}

/// What of a request was not looked at yet.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    verb: &'a str,
    /// `None` at the end of the line; `Some("")` behind a space that ends it.
    rest: Option<&'a str>,
    dialect: Dialect,
}

impl<'a> Fields<'a> {
    /// Splits the command off a line.
    pub fn new(line: &'a str, dialect: Dialect) -> Self {
        let (verb, rest) = match dialect {
            Dialect::Legacy => split_white(line.trim_ascii_start()),
            Dialect::Modern => split_space(line),
        };
        Self { verb, rest, dialect }
    }

    /// The command, `""` on an empty line.
    pub fn verb(&self) -> &'a str {
        self.verb
    }

    /// Whether the line has ended.
    pub fn is_empty(&self) -> bool {
        match self.dialect {
            Dialect::Legacy => self.rest.is_none_or(|rest| rest.trim_ascii_start().is_empty()),
            Dialect::Modern => self.rest.is_none(),
        }
    }

    /// The next token, if there is one.
    ///
    /// # Errors
    /// [`ParseError::Spacing`] where a modern line has a space too many.
    pub fn token(&mut self) -> Result<Option<&'a str>, ParseError<'a>> {
        if self.is_empty() {
            return Ok(None);
        }
        let rest = self.rest.unwrap_or_default();
        let (token, rest) = match self.dialect {
            Dialect::Legacy => split_white(rest.trim_ascii_start()),
            Dialect::Modern => split_space(rest),
        };
        if token.is_empty() {
            return Err(ParseError::Spacing);
        }
        self.rest = rest;
        Ok(Some(token))
    }

    /// The next token, which must be there.
    ///
    /// # Errors
    /// [`ParseError::MissingArgument`] naming `argument`, or as [`token`](Self::token).
    pub fn required(&mut self, argument: &'static str) -> Result<&'a str, ParseError<'a>> {
        self.token()?.ok_or(ParseError::MissingArgument { verb: self.verb, argument })
    }

    /// The next token as a name.
    ///
    /// # Errors
    /// [`ParseError::BadName`], or as [`required`](Self::required).
    pub fn name(&mut self, kind: NameKind, argument: &'static str) -> Result<Name<'a>, ParseError<'a>> {
        name(self.required(argument)?, kind)
    }

    /// The next token as a message id. Legacy mode takes any token: its acknowledgements are always confirmed.
    ///
    /// # Errors
    /// [`ParseError::BadId`], or as [`required`](Self::required).
    pub fn id(&mut self) -> Result<&'a str, ParseError<'a>> {
        let id = self.required("id")?;
        match self.dialect {
            Dialect::Modern if MessageId::parse(id).is_err() => Err(ParseError::BadId { id }),
            _ => Ok(id),
        }
    }

    /// Everything to the end of the line, which must be there: JSON that may hold spaces.
    ///
    /// # Errors
    /// [`ParseError::MissingArgument`] naming `argument`; [`BadOption::Unknown`] when an option stands before the JSON.
    pub fn json(&mut self, argument: &'static str) -> Result<&'a str, ParseError<'a>> {
        if self.is_empty() {
            return Err(ParseError::MissingArgument { verb: self.verb, argument });
        }
        let rest = self.rest.take().unwrap_or_default();
        if self.dialect == Dialect::Legacy {
            return Ok(rest.trim_ascii());
        }
        match rest.as_bytes().first() {
            Some(b'{' | b'[') => Ok(rest),
            Some(b' ') => Err(ParseError::Spacing),
            None => Err(ParseError::MissingArgument { verb: self.verb, argument }),
            Some(_) => match Field::split(split_space(rest).0) {
                Some(option) => Err(option.unknown()),
                None => Ok(rest),
            },
        }
    }

    /// The next token as an option. Legacy mode has none: what is left there is ignored.
    ///
    /// # Errors
    /// [`ParseError::Unexpected`] for a token that is no option.
    pub fn option(&mut self) -> Result<Option<Field<'a>>, ParseError<'a>> {
        if self.dialect == Dialect::Legacy {
            return Ok(None);
        }
        match self.token()? {
            None => Ok(None),
            Some(token) => Field::split(token).map(Some).ok_or(ParseError::Unexpected { token }),
        }
    }

    /// Refuses whatever is left. Legacy mode ignores it.
    ///
    /// # Errors
    /// [`ParseError::Unexpected`], or [`BadOption::Unknown`] where it looks like an option.
    pub fn finish(&mut self) -> Result<(), ParseError<'a>> {
        match self.option()? {
            None => Ok(()),
            Some(option) => Err(option.unknown()),
        }
    }
}

/// A `name=value` token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// What stands before the `=`: lower-case letters and `_`.
    pub name: &'a str,
    /// What stands behind it.
    pub value: &'a str,
}

impl<'a> Field<'a> {
    /// Splits a token, if it has the form of an option.
    pub fn split(token: &'a str) -> Option<Self> {
        let (name, value) = token.split_once('=')?;
        let is_option = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        is_option.then_some(Self { name, value })
    }

    /// Keeps `value` in `slot`, unless the option was given before.
    pub(crate) fn store<T>(self, slot: &mut Option<T>, value: T) -> Result<(), ParseError<'a>> {
        if slot.is_some() {
            return Err(ParseError::BadOption(BadOption::Repeated { name: self.name }));
        }
        *slot = Some(value);
        Ok(())
    }

    /// The value as a number of a range.
    pub(crate) fn number<T: TryFrom<u64>>(self, range: RangeInclusive<u64>) -> Result<T, ParseError<'a>> {
        decimal(self.value)
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or(ParseError::BadOption(BadOption::Number { name: self.name, min: *range.start(), max: *range.end() }))
    }

    /// The value as a name.
    pub(crate) fn to_name(self, kind: NameKind) -> Result<Name<'a>, ParseError<'a>> {
        name(self.value, kind)
    }

    /// The error for an option the command does not have.
    pub(crate) fn unknown(self) -> ParseError<'a> {
        ParseError::BadOption(BadOption::Unknown { name: self.name })
    }

    /// The error for a value that is none of the words the option can be.
    pub(crate) fn expected(self, expected: &'static str) -> ParseError<'a> {
        ParseError::BadOption(BadOption::Word { name: self.name, expected })
    }
}

/// A decimal number without sign.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let legal = text.len() <= NUMBER_DIGITS_MAX && text.bytes().all(|byte| byte.is_ascii_digit());
    if legal { text.parse().ok() } else { None }
}

/// Splits at the first space; `None` behind it when there is none.
pub(crate) fn split_space(text: &str) -> (&str, Option<&str>) {
    match memchr(b' ', text.as_bytes()) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

fn split_white(text: &str) -> (&str, Option<&str>) {
    match text.bytes().position(|byte| byte.is_ascii_whitespace()) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

fn name(text: &str, kind: NameKind) -> Result<Name<'_>, ParseError<'_>> {
    Name::parse(text).map_err(|_| ParseError::BadName { kind, name: text })
}
