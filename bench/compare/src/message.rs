/// Characters of a message id: as many as a UUID's text has.
const ID_BYTES: usize = 36;
/// Within an id: the lane, a dash, the number.
const NUMBER_AT: usize = 20;
const NUMBER_DIGITS: usize = 16;

/// Messages of one connection: the envelope CipherMQ's clients make, one unlike the other only by its id.
///
/// What looks random in a real envelope is random here too, so that nobody gains by compressing.
#[derive(Debug)]
pub(crate) struct Messages {
    envelope: Vec<u8>,
    id_at: usize,
    next: u64,
}

impl Messages {
    /// Envelopes around `plaintext_bytes`; ids of different lanes differ.
    pub(crate) fn new(plaintext_bytes: usize, lane: u16) -> Messages {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let id = format!("{lane:019x}-{:016x}", 0);
        let head = "{\"message_id\":\"";
        // An RSA-2048 block, a nonce and a tag of 16 bytes each, and the ciphertext, which is as long as the plaintext.
        let envelope = format!(
            "{head}{id}\",\"enc_session_key\":\"{}\",\"nonce\":\"{}\",\"tag\":\"{}\",\"ciphertext\":\"{}\"}}",
            random.base64(256),
            random.base64(16),
            random.base64(16),
            random.base64(plaintext_bytes),
        );
        Messages { envelope: envelope.into_bytes(), id_at: head.len(), next: 0 }
    }

    /// The next message.
    pub(crate) fn next(&mut self) -> &[u8] {
        let number_at = self.id_at + NUMBER_AT;
        write_hex(&mut self.envelope[number_at..number_at + NUMBER_DIGITS], self.next);
        self.next += 1;
        &self.envelope
    }

    /// Bytes of each message.
    pub(crate) fn len(&self) -> usize {
        self.envelope.len()
    }
}

const _: () = assert!(NUMBER_AT + NUMBER_DIGITS == ID_BYTES);

fn write_hex(field: &mut [u8], mut value: u64) {
    for digit in field.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

/// xorshift64: the same bytes in each run.
struct Random(u64);

impl Random {
    /// As many characters as the base64 text of `bytes` bytes has, padding included.
    fn base64(&mut self, bytes: usize) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let padding = (3 - bytes % 3) % 3;
        let characters = bytes.div_ceil(3) * 4 - padding;
        let text = (0..characters).map(|_| char::from(ALPHABET[(self.next() >> 58) as usize]));
        text.chain((0..padding).map(|_| '=')).collect()
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn envelopes_are_json_of_one_length_with_ids_of_their_own() {
        let mut ids = HashSet::new();
        for lane in [0, u16::MAX] {
            let mut messages = Messages::new(1024, lane);
            for _ in 0..3 {
                let len = messages.len();
                let envelope: serde_json::Value = serde_json::from_slice(messages.next()).unwrap();
                assert_eq!(envelope["ciphertext"].as_str().unwrap().len(), 1368);
                assert_eq!(envelope["enc_session_key"].as_str().unwrap().len(), 344);
                assert_eq!(envelope["message_id"].as_str().unwrap().len(), ID_BYTES);
                assert!(ids.insert(envelope["message_id"].as_str().unwrap().to_owned()));
                assert_eq!(len, 1870);
            }
        }
    }
}
