//! What a connection says and hears, without the connection: bytes and time in, bytes out.

mod answers;
mod keys;
mod pace;
mod refusal;
mod replies;
mod requests;
#[cfg(test)]
mod tests;
mod text;

pub(crate) use text::{OUTPUT_BYTES_MAX, Received, TextSession, Transmitted};
