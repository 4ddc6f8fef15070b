//! Checks announcements of keys before the broker gets them.
//!
//! This is the one place where the broker's side does cryptography. It is done at the door, on the connection's own thread, and not
//! in the broker: what is checked is an announcement against itself, which no other record can change, so that the journal's thread
//! and replay only compare identities.

use ciphermq_broker::Announcement;
use ciphermq_protocol::limits::ANNOUNCEMENT_BYTES_MAX;
use ciphermq_protocol::{BadAnnouncement, Code, Name, SignedAnnouncement};
use ed25519_dalek::{Signature, VerifyingKey};

use crate::base64;

/// Why an announcement was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the announcement is not standard padded base64 of at most {ANNOUNCEMENT_BYTES_MAX} bytes")]
    NotBase64,
    #[error(transparent)]
    Bad(#[from] BadAnnouncement),
    #[error("the announcement is one of another client id")]
    OtherClient,
    #[error("the announcement is not signed by its identity")]
    BadSignature,
}

impl Refused {
    pub(crate) fn code(self) -> Code {
        match self {
            Refused::NotBase64 | Refused::Bad(_) | Refused::OtherClient => Code::BadAnnouncement,
            Refused::BadSignature => Code::BadSignature,
        }
    }
}

/// The announcement in `text`, if it is one of `client` and signed by the identity it names.
pub(crate) fn verified(client: Name<'_>, text: &str) -> Result<Announcement, Refused> {
    let bytes = base64::decode(text, ANNOUNCEMENT_BYTES_MAX).ok_or(Refused::NotBase64)?;
    let SignedAnnouncement { announcement, signed, signature } = SignedAnnouncement::parse(&bytes)?;
    if announcement.client_id != client {
        return Err(Refused::OtherClient);
    }
    let identity = VerifyingKey::from_bytes(announcement.identity).map_err(|_| Refused::BadSignature)?;
    // Strict: no weak keys, and for each message and key one signature only.
    let is_good = identity.verify_strict(signed, &Signature::from_bytes(signature));
    is_good.map_err(|_| Refused::BadSignature)?;
    Ok(Announcement {
        client: client.as_str().into(),
        seq: announcement.seq,
        identity: *announcement.identity,
        successor: announcement.successor.copied(),
        bytes: bytes.as_slice().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{content, signed};
    use ed25519_dalek::SigningKey;

    const CLIENT: &str = "billing";

    fn check(bytes: &[u8]) -> Result<Announcement, Refused> {
        verified(Name::parse(CLIENT).unwrap(), &base64::encode(bytes))
    }

    #[test]
    fn what_its_identity_signed_is_taken_whole() {
        let (identity, successor) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let bytes = signed(&identity, CLIENT, 7, Some(&successor));
        let taken = check(&bytes).unwrap();
        assert_eq!((&*taken.client, taken.seq, &*taken.bytes), (CLIENT, 7, &*bytes));
        assert_eq!(taken.identity, identity.verifying_key().to_bytes());
        assert_eq!(taken.successor, Some(successor.verifying_key().to_bytes()));
    }

    #[test]
    fn no_bit_of_an_announcement_can_be_changed() {
        let bytes = signed(&SigningKey::from_bytes(&[1; 32]), CLIENT, 7, None);
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&changed).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_signature_of_somebody_else_is_refused_and_so_is_a_weak_identity() {
        let (one, other) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let mut bytes = signed(&one, CLIENT, 7, None);
        let theirs = signed(&other, CLIENT, 7, None);
        let at = bytes.len() - 64;
        bytes[at..].copy_from_slice(&theirs[at..]);
        assert_eq!(check(&bytes), Err(Refused::BadSignature));
        // The neutral element as identity and as R, with s = 0: good for every message where weak keys are taken.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let claimed = content(&neutral, CLIENT, 1, None).signed_bytes().unwrap();
        let weak = [claimed, neutral.to_vec(), vec![0; 32]].concat();
        assert_eq!(check(&weak), Err(Refused::BadSignature));
    }

    #[test]
    fn another_clients_announcement_and_foreign_text_are_refused() {
        let identity = SigningKey::from_bytes(&[1; 32]);
        let other = signed(&identity, "other", 1, None);
        assert_eq!(check(&other), Err(Refused::OtherClient));
        assert_eq!(check(b"nothing"), Err(Refused::Bad(BadAnnouncement::Malformed)));
        let client = Name::parse(CLIENT).unwrap();
        let good = base64::encode(&signed(&identity, CLIENT, 1, None));
        let unpadded = good.trim_end_matches('=');
        let longer = base64::encode(&[0; ANNOUNCEMENT_BYTES_MAX + 1]);
        for bad in ["", "%%%%", "AAA", &good.replace(['+', '/'], "-"), &longer, &format!("{good}AAAA")] {
            assert!(verified(client, bad).is_err(), "{bad}");
        }
        assert_eq!(verified(client, unpadded).is_ok(), unpadded == good);
    }
}
