//! Sealing: what a sealer is made of, and which suite it uses.

use std::io::Write;
use std::sync::Arc;
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::base64;
use super::context::Context;
use super::envelope;
use super::identity::Identity;
use super::keys::{PublicInner, PublicKey, PublicMaterial};
use super::kid::Kid;
use super::message_id;
use super::opened::Suite;
use super::process::Moment;
use super::session::{SessionPolicy, Sessions};
use super::signed::{Bounds, MacSeed, Message, SealingSession, Signing, Stamp, X_WRITTEN_MAX};
use super::suite::{self, NONCE_LEN, Nonce, SESSION_KEY_LEN, SessionCipher};
use super::suite2::compress::Compression;
use super::suite2::padding::Padding;
use super::suite2::seal::{Request, Sealing};
use super::suite2::stream::SealWriter;
use super::suite2::wrap::suite_of;
use crate::error::{Error, ErrorKind, Result};
use crate::trust::{Recipient, Trusted};

/// Seals `plaintext` for the holder of `key`. Calls with the same key, or with
/// clones of it, share a session as [`SessionPolicy::default`] says.
///
/// Without a `message_id` a version 4 UUID is made. A given one has 1 to 255
/// bytes, no space, control character, quote or backslash.
///
/// # Errors
///
/// [`ErrorKind::MessageId`], [`ErrorKind::TooLarge`], [`ErrorKind::KeyTooSmall`],
/// [`ErrorKind::Random`].
pub fn seal(plaintext: &[u8], key: &PublicKey, message_id: Option<&str>) -> Result<String> {
    let sealer = match &key.sealer {
        Some(sealer) => sealer,
        // Tells why there is none.
        None => &Arc::new(Sealer::new(key, SessionPolicy::default())?),
    };
    let sealed = match message_id {
        Some(id) => sealer.seal_with_id(id, plaintext),
        None => sealer.seal(plaintext),
    };
    sealed.map(|sealed| sealed.envelope)
}

/// A sealed message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The id inside the envelope.
    pub message_id: String,
    /// The JSON text to publish.
    pub envelope: String,
}

/// Seals messages for one recipient or several. To be kept and shared between
/// threads.
///
/// The kind of the recipients' keys selects the [`Suite`]: RSA suite 1, X25519
/// suite 2x, X-Wing suite 2pq. Several RSA keys, and one that is asked to
/// ([`SealerBuilder::suite`]), take suite 2r.
///
/// A process that forks may go on using it on both sides: the child starts a
/// session of its own. It cannot be copied, shown or stored: a session key that
/// is in two places ends in none.
///
/// ```compile_fail,E0599
/// # let key = cipher_client::crypto::PrivateKey::generate(2048).unwrap().public_key();
/// # let sealer = cipher_client::crypto::Sealer::new(&key, Default::default()).unwrap();
/// let copy = sealer.clone();
/// ```
/// ```compile_fail,E0277
/// # let key = cipher_client::crypto::PrivateKey::generate(2048).unwrap().public_key();
/// # let sealer = cipher_client::crypto::Sealer::new(&key, Default::default()).unwrap();
/// println!("{sealer:?}");
/// ```
pub struct Sealer {
    target: Target,
    /// When the first of its recipients' keys ends; milliseconds since 1970.
    expires_ms: u64,
}

enum Target {
    One(First),
    Two(Arc<Sealing>),
}

/// What a [`Sealer`] can be told beside its recipients.
///
/// ```
/// use cipher_client::crypto::{Context, KeyKind, Padding, PrivateKey, Sealer};
/// use cipher_client::trust::Recipient;
///
/// let keys = [PrivateKey::generate_kind(KeyKind::XWing)?, PrivateKey::generate_kind(KeyKind::XWing)?];
/// let recipients = keys.iter().map(|key| Recipient::from_own_source(key.public_key()));
/// let sealer = Sealer::builder(recipients).padding(Padding::Padme).build()?;
/// let sealed = sealer.seal_for(&Context::new("orders", "eu.new"), b"the goods are on the dock")?;
/// # Ok::<(), cipher_client::Error>(())
/// ```
#[must_use = "a sealer comes from `build`"]
pub struct SealerBuilder {
    recipients: Vec<PublicKey>,
    expires_ms: u64,
    suite: Option<Suite>,
    identity: Option<Arc<Identity>>,
    signing: Signing,
    session: SessionPolicy,
    padding: Padding,
    compression: Compression,
}

impl SealerBuilder {
    /// The suite, where the keys leave a choice: [`Suite::TwoRsa`] for RSA keys.
    pub fn suite(self, suite: Suite) -> Self {
        Self { suite: Some(suite), ..self }
    }

    /// Signs with this identity.
    pub fn identity(self, identity: Arc<Identity>) -> Self {
        Self { identity: Some(identity), ..self }
    }

    /// How often it signs in suite 1. In suite 2 the number of recipients says:
    /// once a session for one, where every message is refused; every message
    /// for several.
    pub fn signing(self, signing: Signing) -> Self {
        Self { signing, ..self }
    }

    /// For how long a session key is used, other than by default.
    pub fn session(self, session: SessionPolicy) -> Self {
        Self { session, ..self }
    }

    /// Hides the length of texts. Suite 2 only.
    pub fn padding(self, padding: Padding) -> Self {
        Self { padding, ..self }
    }

    /// Compresses texts; see [`Compression`] for when not to. Suite 2 only.
    pub fn compression(self, compression: Compression) -> Self {
        Self { compression, ..self }
    }

    /// The sealer.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyTooSmall`]; [`ErrorKind::Option`] for limits over the hard
    /// ones, no recipient or over 64, a key twice, keys of several kinds, and
    /// what the suite does not have.
    pub fn build(self) -> Result<Sealer> {
        self.recipients.iter().try_for_each(PublicKey::check_size)?;
        let (suite, expires_ms) = (self.suite_of_keys()?, self.expires_ms);
        self.check_signing(suite)?;
        let target = match suite {
            Suite::One => Target::One(self.build_first()?),
            suite => {
                let Self { recipients, identity, padding, compression, session, .. } = self;
                let sealing = Sealing::new(suite, recipients, identity, padding, compression, session)?;
                Target::Two(Arc::new(sealing))
            }
        };
        Ok(Sealer { target, expires_ms })
    }

    /// The suite of the recipients' keys. One for all: a message is as safe as
    /// the weakest of its wraps.
    fn suite_of_keys(&self) -> Result<Suite> {
        let mut suites = self.recipients.iter().map(|key| suite_of(&key.inner.material));
        let first = suites.next().ok_or(option("recipients", "1 to 64"))?;
        if !suites.all(|suite| suite == first) {
            return Err(option("recipients", "all with the same kind of key"));
        }
        let is_alone = self.recipients.len() == 1;
        match self.suite {
            None if first == Suite::TwoRsa && is_alone => Ok(Suite::One),
            None => Ok(first),
            Some(Suite::One) if first == Suite::TwoRsa && is_alone => Ok(Suite::One),
            Some(suite) if suite == first => Ok(suite),
            Some(_) => Err(option("suite", "not one of the recipients' keys")),
        }
    }

    /// What was asked for must not quietly be less.
    fn check_signing(&self, suite: Suite) -> Result<()> {
        match self.signing {
            Signing::EveryMessage if self.identity.is_none() => Err(option("signing", "needs an identity")),
            // One recipient's messages are signed by the session.
            Signing::EveryMessage if suite != Suite::One && self.recipients.len() == 1 => {
                Err(option("signing", "every message: suite 1, or several recipients"))
            }
            _ => Ok(()),
        }
    }

    fn build_first(self) -> Result<First> {
        if self.padding != Padding::Off || self.compression != Compression::Off {
            return Err(option("padding and compression", "suite 2 only"));
        }
        let signer = self.identity.map(|identity| (identity, self.signing));
        First::new(&self.recipients[0], self.session, signer)
    }
}

impl Sealer {
    /// A sealer for the holder of `key`, who is not asked for a proof of it:
    /// [`Sealer::builder`] is for keys that were given by others.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::KeyTooSmall`], [`ErrorKind::Option`] for limits over the hard ones.
    pub fn new(key: &PublicKey, policy: SessionPolicy) -> Result<Self> {
        Self::builder([Recipient::from_own_source(key.clone())]).session(policy).build()
    }

    /// A sealer for one recipient or several, up to 64.
    ///
    /// When the key of one of them ends ([`Recipient::until`]), it seals no more:
    /// every call fails with [`ErrorKind::Untrusted`].
    pub fn builder(recipients: impl IntoIterator<Item = Recipient<Trusted>>) -> SealerBuilder {
        // One too many is enough to know that there are too many.
        let recipients: Vec<_> = recipients.into_iter().take(RECIPIENTS_TAKEN).collect();
        SealerBuilder {
            expires_ms: recipients.iter().map(Recipient::expires_ms).min().unwrap_or(u64::MAX),
            recipients: recipients.into_iter().map(Recipient::into_key).collect(),
            suite: None,
            identity: None,
            signing: Signing::default(),
            session: SessionPolicy::default(),
            padding: Padding::default(),
            compression: Compression::default(),
        }
    }

    /// The suite it seals with.
    pub fn suite(&self) -> Suite {
        match &self.target {
            Target::One(_) => Suite::One,
            Target::Two(sealing) => sealing.suite(),
        }
    }

    /// Seals under a new id, bound to nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`], [`ErrorKind::Random`].
    pub fn seal(&self, plaintext: &[u8]) -> Result<Sealed> {
        self.seal_at(None, &Context::default(), plaintext, Moment::current())
    }

    /// Seals under a given id, by the rules of [`seal`], bound to nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::MessageId`], [`ErrorKind::TooLarge`], [`ErrorKind::Random`].
    pub fn seal_with_id(&self, id: &str, plaintext: &[u8]) -> Result<Sealed> {
        self.seal_at(Some(id), &Context::default(), plaintext, Moment::current())
    }

    /// Seals under a new id for where it will be published. Suite 1 without an
    /// identity binds nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`], also for a part of the context over 255 bytes;
    /// [`ErrorKind::Random`].
    pub fn seal_for(&self, context: &Context, plaintext: &[u8]) -> Result<Sealed> {
        self.seal_at(None, context, plaintext, Moment::current())
    }

    /// Seals under a given id, by the rules of [`seal`], for where it will be
    /// published.
    ///
    /// # Errors
    ///
    /// As [`Sealer::seal_for`], and [`ErrorKind::MessageId`].
    pub fn seal_for_with_id(&self, context: &Context, id: &str, plaintext: &[u8]) -> Result<Sealed> {
        self.seal_at(Some(id), context, plaintext, Moment::current())
    }

    /// Seals what is written into the returned writer, and writes the envelope to
    /// `out` as it comes. [`SealWriter::finish`] must be called.
    ///
    /// # Errors
    ///
    /// As [`Sealer::seal_for_with_id`]; [`ErrorKind::Option`] for suite 1.
    pub fn seal_writer<W: Write>(&self, context: &Context, id: Option<&str>, out: W) -> Result<SealWriter<'_, W>> {
        let sealing = self.second()?;
        SealWriter::new(sealing, request(id, context, Moment::current()), out)
    }

    /// Forgets the session key: the next message starts a new one.
    pub fn rotate(&self) {
        match &self.target {
            Target::One(first) => first.sessions.rotate(),
            Target::Two(sealing) => sealing.rotate(),
        }
    }

    /// What streams and parts are sealed with.
    pub(super) fn second(&self) -> Result<&Arc<Sealing>> {
        self.check_time(unix_ms())?;
        match &self.target {
            Target::One(_) => Err(option("suite", "streams and parts are for suite 2")),
            Target::Two(sealing) => Ok(sealing),
        }
    }

    fn seal_at(&self, id: Option<&str>, context: &Context, plaintext: &[u8], moment: Moment) -> Result<Sealed> {
        let request = request(id, context, moment);
        self.check_time(request.sent_ms)?;
        match &self.target {
            Target::One(first) => first.seal(&request, plaintext),
            Target::Two(sealing) => sealing.seal(request, plaintext),
        }
    }

    fn check_time(&self, now_ms: u64) -> Result<()> {
        match now_ms < self.expires_ms {
            true => Ok(()),
            false => Err(ErrorKind::Untrusted { what: "the key of a recipient has expired: resolve it again" }.into()),
        }
    }
}

/// Recipients taken out of an iterator.
const RECIPIENTS_TAKEN: usize = super::RECIPIENTS_MAX + 1;

fn request<'a>(message_id: Option<&'a str>, context: &'a Context, moment: Moment) -> Request<'a> {
    Request { message_id, context, part: None, moment, sent_ms: unix_ms() }
}

/// Milliseconds since 1970, 0 before.
pub(super) fn unix_ms() -> u64 {
    let passed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    passed.map_or(0, |passed| u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
}

fn option(option: &'static str, reason: &'static str) -> Error {
    ErrorKind::Option { option, reason }.into()
}

/// Sealing in suite 1: for one RSA key.
struct First {
    key: Arc<PublicInner>,
    kid: Kid,
    wrapped_text_len: usize,
    signer: Option<(Arc<Identity>, Signing)>,
    sessions: Sessions<FirstSecret>,
}

/// A session key ready for use, and its wrapped form in base64.
struct FirstSecret {
    cipher: SessionCipher,
    wrapped: String,
    signed: Option<(SealingSession, Bounds)>,
}

impl First {
    fn new(key: &PublicKey, policy: SessionPolicy, signer: Option<(Arc<Identity>, Signing)>) -> Result<Self> {
        let wrapped_len = key.inner.suite_1_len().ok_or(Error::key("suite 1 takes RSA keys only"))?;
        let wrapped_text_len = base64::encoded_len(wrapped_len);
        Ok(Self {
            key: Arc::clone(&key.inner),
            kid: *key.kid(),
            wrapped_text_len,
            signer,
            sessions: Sessions::new(policy)?,
        })
    }

    fn seal(&self, request: &Request<'_>, plaintext: &[u8]) -> Result<Sealed> {
        request.context.check()?;
        let (id, nonce) = id_and_nonce(request.message_id)?;
        let room = self.signer.as_ref().map_or(0, |_| X_WRITTEN_MAX);
        envelope::check_len(room + envelope::written_len(id.len(), self.wrapped_text_len, plaintext.len()))?;
        let (bytes, sent_ms) = (plaintext.len() as u64, request.sent_ms);
        let turn = self.sessions.turn(bytes, request.moment, |stream| self.new_secret(*stream, sent_ms))?;
        let mut text = plaintext.to_vec();
        let tag = turn.secret.cipher.encrypt(&nonce, &mut text)?;
        let x = turn.secret.signed.as_ref().map(|(session, bounds)| {
            let message = Message { id: &id, nonce: nonce.as_bytes(), tag: &tag, ciphertext: &text };
            session.extension(&message, &Stamp::new(turn.number, bounds.clamp(sent_ms), request.context))
        });
        let envelope = envelope::write(&id, &turn.secret.wrapped, &nonce, &tag, &text, x.as_deref());
        Ok(Sealed { message_id: id, envelope })
    }

    fn new_secret(&self, stream: [u8; 16], started_ms: u64) -> Result<FirstSecret> {
        let session_key = Zeroizing::new(suite::random::<SESSION_KEY_LEN>()?);
        let PublicMaterial::Rsa(rsa) = &self.key.material else {
            return Err(Error::key("suite 1 takes RSA keys only"));
        };
        let wrapped = suite::wrap(rsa, &session_key[..])?;
        let bounds = Bounds { stream, started_ms, lifetime_ms: self.sessions.lifetime_ms() };
        let sign = |(identity, signing): &(Arc<Identity>, Signing)| {
            let seed = MacSeed::new(&session_key[..]);
            (SealingSession::new((identity, *signing), self.kid, bounds, &wrapped, &seed), bounds)
        };
        let signed = self.signer.as_ref().map(sign);
        let cipher = SessionCipher::new(&session_key[..]).expect("16 bytes are a key of AES-128");
        Ok(FirstSecret { cipher, wrapped: base64::text(&wrapped), signed })
    }
}

/// One call to the system for both: it costs more than the cipher does for a
/// short message.
fn id_and_nonce(given: Option<&str>) -> Result<(String, Nonce)> {
    if let Some(id) = given {
        message_id::check(id)?;
        return Ok((id.to_owned(), Nonce::Long(suite::random()?)));
    }
    let random: [u8; NONCE_LEN + 16] = suite::random()?;
    let (nonce, id) = random.split_first_chunk().expect("longer than a nonce");
    let id = message_id::from_random(id.try_into().expect("16 bytes are left"));
    Ok((id, Nonce::Long(*nonce)))
}

#[cfg(test)]
mod tests;
