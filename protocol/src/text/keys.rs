//! Requests about keys: what of [`Command::parse`] concerns them.

use super::command::Command;
use super::error::ParseError;
use super::fields::Fields;
use crate::limits::{ANNOUNCEMENT_SEQ_MAX, KEY_HISTORY_LIMIT_MAX};
use crate::name::{Name, NameKind};

pub(super) fn client<'a>(fields: &mut Fields<'a>) -> Result<Name<'a>, ParseError<'a>> {
    fields.name(NameKind::ClientId, "client_id")
}

pub(super) fn announce_key<'a>(fields: &mut Fields<'a>) -> Result<Command<'a>, ParseError<'a>> {
    let (client, announcement) = (client(fields)?, fields.required("announcement")?);
    fields.finish()?;
    Ok(Command::AnnounceKey { client, announcement })
}

pub(super) fn register_key<'a>(fields: &mut Fields<'a>) -> Result<Command<'a>, ParseError<'a>> {
    Ok(Command::RegisterKey { client: client(fields)?, key: fields.required("public_key")? })
}

pub(super) fn key_history<'a>(fields: &mut Fields<'a>) -> Result<Command<'a>, ParseError<'a>> {
    let client = client(fields)?;
    let (mut from, mut limit) = (None, None);
    while let Some(option) = fields.option()? {
        match option.name {
            "from" => option.store(&mut from, option.number(1..=ANNOUNCEMENT_SEQ_MAX)?)?,
            "limit" => option.store(&mut limit, option.number(1..=u64::from(KEY_HISTORY_LIMIT_MAX))?)?,
            _ => return Err(option.unknown()),
        }
    }
    Ok(Command::KeyHistory { client, from: from.unwrap_or(1), limit: limit.unwrap_or(KEY_HISTORY_LIMIT_MAX) })
}
