//! What must hold for any bytes at all. The fuzz targets call these, and `tests/corpus.rs` runs them over the committed
//! corpora, so that they are ordinary tests too.
//!
//! Each function panics if its promise is broken, and does nothing else.

use crate::limits::ERROR_BYTES_MAX;
use crate::{
    BadEnvelope, Command, Decoder, Dialect, Envelope, MessageId, Name, ParseError, ServerLine, SignedAnnouncement,
    parse_batch,
};

/// Any line is a command or has an error of one line; a command that was read can be written and read again.
pub fn text_command(line: &[u8]) {
    if let Err(error) = Command::parse(line, Dialect::Legacy) {
        check_error(&error);
    }
    match Command::parse(line, Dialect::Modern) {
        Err(error) => check_error(&error),
        Ok(command) => {
            let mut written = Vec::new();
            command.encode(&mut written);
            assert_eq!(written.pop(), Some(b'\n'));
            assert_eq!(Command::parse(&written, Dialect::Modern), Ok(command));
        }
    }
}

/// However a stream is split, the decoder gives the lines a plain search for LF gives, up to the first that is too long,
/// and holds no more than its bound. The first two bytes of `data` choose the longest line and the split.
pub fn text_stream(data: &[u8]) {
    let Some((&[longest, piece], stream)) = data.split_first_chunk() else { return };
    let max_line = usize::from(longest) + 1;
    let expected = plain_lines(stream, max_line);
    assert_eq!(decoded_lines(stream, max_line, usize::from(piece) + 1), expected);
    assert_eq!(decoded_lines(stream, max_line, stream.len().max(1)), expected);
}

/// Any line is a reply, a push, or refused; what was read can be written and read again.
pub fn text_reply(line: &[u8]) {
    let Ok(read) = ServerLine::parse(line) else { return };
    let mut written = Vec::new();
    read.encode(&mut written);
    assert_eq!(written.pop(), Some(b'\n'));
    let again = ServerLine::parse(&written).expect("what the server writes the client reads");
    // An error's text is cut and its control characters replaced once, and never again.
    if line.len() <= ERROR_BYTES_MAX && !String::from_utf8_lossy(line).contains(char::is_control) {
        assert_eq!(again, read);
    }
    let mut twice = Vec::new();
    again.encode(&mut twice);
    assert_eq!(twice.strip_suffix(b"\n"), Some(&written[..]));
}

/// An envelope that is accepted is what `serde_json` makes of it too, keeps its text, and takes an id in its place.
pub fn envelope(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Envelope::parse(text) {
        Err(error) => check_detail(&error),
        Ok(envelope) => check_envelope(text, &envelope),
    }
    match parse_batch(text) {
        Err(error) => check_detail(&error),
        Ok(batch) => batch.iter().for_each(|envelope| check_envelope(envelope.text(), envelope)),
    }
}

/// Any text is a name and an id or is neither, as the contract's character sets say.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(name) = Name::parse(text) {
        assert_eq!(name.as_str(), text);
        assert!(MessageId::parse(text).is_ok(), "every name could be an id");
    }
}

/// Bytes that are an announcement are what its values make again, and no others are.
pub fn announcement(data: &[u8]) {
    let Ok(SignedAnnouncement { announcement, signed, signature }) = SignedAnnouncement::parse(data) else { return };
    let again = announcement.signed_bytes().expect("what can be read can be written");
    assert_eq!(again, signed);
    assert_eq!([&again[..], signature].concat(), data);
}

fn check_error(error: &ParseError<'_>) {
    for text in [error.to_string(), error.legacy_text().into_owned()] {
        assert!(text.len() <= ERROR_BYTES_MAX && !text.contains(char::is_control), "{text:?}");
    }
}

fn check_detail(error: &BadEnvelope) {
    let text = error.to_string();
    assert!(text.len() <= ERROR_BYTES_MAX + 64 && !text.contains(char::is_control), "{text:?}");
}

fn check_envelope(text: &str, envelope: &Envelope<'_>) {
    assert_eq!(envelope.text(), text);
    let tree: serde_json::Value = serde_json::from_str(text).expect("what is accepted is JSON");
    for member in ["message_id", "enc_session_key", "nonce", "ciphertext"] {
        assert!(tree[member].is_string(), "{member}");
    }
    assert_eq!(tree["message_id"], envelope.message_id());
    assert_eq!(envelope.id().is_none(), envelope.message_id().is_empty());

    let new_id = MessageId::parse("new-id").expect("legal");
    let with_id = envelope.with_id(new_id);
    let again = Envelope::parse(&with_id).expect("an id in its place leaves the envelope valid");
    assert_eq!(again.id(), envelope.id().or(Some(new_id)));
    assert_eq!(with_id.len(), if envelope.id().is_some() { text.len() } else { text.len() + "new-id".len() });
}

/// The lines, and whether the stream ends at one that is too long.
type Lines = (Vec<Vec<u8>>, bool);

fn plain_lines(stream: &[u8], max_line: usize) -> Lines {
    let mut lines = Vec::new();
    for line in stream.split_inclusive(|byte| *byte == b'\n') {
        let Some(content) = line.strip_suffix(b"\n") else { return (lines, line.len() >= max_line) };
        if line.len() > max_line {
            return (lines, true);
        }
        lines.push(content.strip_suffix(b"\r").unwrap_or(content).to_vec());
    }
    (lines, false)
}

fn decoded_lines(stream: &[u8], max_line: usize, piece: usize) -> Lines {
    let mut decoder = Decoder::new(max_line);
    let mut lines = Vec::new();
    for mut piece in stream.chunks(piece) {
        while !piece.is_empty() {
            let spare = decoder.spare();
            let count = spare.len().min(piece.len());
            assert!(count > 0, "a drained decoder has room");
            spare[..count].copy_from_slice(&piece[..count]);
            decoder.advance(count);
            piece = &piece[count..];
            loop {
                match decoder.next_line() {
                    Ok(Some(line)) => lines.push(line.to_vec()),
                    Ok(None) => break,
                    Err(_) => return (lines, true),
                }
            }
            assert!(decoder.capacity() <= max_line + crate::limits::READ_BYTES);
        }
    }
    (lines, false)
}
