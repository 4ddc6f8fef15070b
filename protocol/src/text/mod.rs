//! The text protocol, layer by layer: lines, tokens, commands, envelopes, replies.

pub mod command;
pub mod decoder;
pub mod durability;
pub mod envelope;
pub mod error;
pub mod fields;
pub mod help;
mod keys;
pub mod legacy;
pub mod reply;
mod request;
mod write;
