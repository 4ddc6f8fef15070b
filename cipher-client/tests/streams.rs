//! Envelopes in pieces: what a writer makes, what a reader gives, and when.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first thing that fails")]

use std::fs;
use std::io::{self, Cursor, Read, Write};
use std::sync::Arc;

use cipher_client::crypto::{
    Compression, Context, EXPANDED_BYTES_MAX, Identity, KeyKind, Keyset, Opener, Order, Padding, PrivateKey, Sealer,
    Sender,
};
use cipher_client::trust::{Recipient, SenderPolicy, Senders};
use cipher_client::{Error, ErrorKind};

struct Pair {
    me: Arc<Identity>,
    keys: Vec<PrivateKey>,
    known: Arc<Senders>,
}

impl Pair {
    fn with_recipients(count: usize) -> Self {
        let me = Arc::new(Identity::generate().unwrap());
        let known = Arc::new(Senders::in_memory());
        known.add("me", me.sender_key().clone()).unwrap();
        let keys = (0..count).map(|_| PrivateKey::generate_kind(KeyKind::X25519).unwrap()).collect();
        Self { me, keys, known }
    }

    fn sealer(&self, padding: Padding, compression: Compression) -> Sealer {
        let to = self.keys.iter().map(|key| Recipient::from_own_source(key.public_key()));
        let builder = Sealer::builder(to).identity(Arc::clone(&self.me));
        builder.padding(padding).compression(compression).build().unwrap()
    }

    fn opener(&self) -> Opener {
        let policy = SenderPolicy::require_signed(Arc::clone(&self.known));
        let keys = Keyset::new(PrivateKey::from_pem(&*self.keys[0].to_pem().unwrap()).unwrap());
        Opener::builder(&keys).senders(policy).build().unwrap()
    }
}

fn sealed(sealer: &Sealer, text: &[u8], piece: usize) -> String {
    let mut writer = sealer.seal_writer(&Context::new("scans", "eu"), None, Vec::new()).unwrap();
    text.chunks(piece).for_each(|piece| writer.write_all(piece).unwrap());
    String::from_utf8(writer.finish().unwrap().1).unwrap()
}

fn kind(fault: io::Error) -> ErrorKind {
    fault.downcast::<Error>().unwrap().kind().clone()
}

fn text() -> Vec<u8> {
    (0..40_000u32).flat_map(|n| format!("{} goods on the dock, ", n * n % 977).into_bytes()).collect()
}

/// Every option of the builder holds for a stream.
#[test]
fn a_stream_is_padded_and_compressed_as_its_sealer_says() {
    let (pair, text) = (Pair::with_recipients(1), text());
    let opener = pair.opener();
    let mut lengths = Vec::new();
    for padding in [Padding::Off, Padding::Padme] {
        for compression in [Compression::Off, Compression::Zstd] {
            let sealer = pair.sealer(padding, compression);
            let envelope = sealed(&sealer, &text, 7777);
            let cut = sealed(&sealer, &text[1..], 7777);
            assert_eq!(cut.len() == envelope.len(), padding == Padding::Padme, "{padding:?} {compression:?}");
            assert!(opener.open(&envelope).unwrap().plaintext == text);
            let mut read = Vec::new();
            opener.open_reader(&envelope).unwrap().read_to_end(&mut read).unwrap();
            assert!(read == text);
            lengths.push(envelope.len());
        }
    }
    assert!(lengths[1] * 3 < lengths[0] && lengths[3] * 3 < lengths[2], "{lengths:?}");
}

#[test]
fn a_stream_that_nobody_would_expand_is_not_sealed() {
    let pair = Pair::with_recipients(1);
    let sealer = pair.sealer(Padding::Off, Compression::Zstd);
    let mut writer = sealer.seal_writer(&Context::default(), None, io::sink()).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..EXPANDED_BYTES_MAX >> 20 {
        writer.write_all(&zeros).unwrap();
    }
    assert!(matches!(kind(writer.write_all(&[0]).unwrap_err()), ErrorKind::TooLarge { .. }));
}

/// A stream of zeros is compressed by less than a receiver would allow.
#[test]
fn what_a_stream_compresses_best_is_expanded_again() {
    let pair = Pair::with_recipients(1);
    let (sealer, zeros) = (pair.sealer(Padding::Off, Compression::Zstd), vec![0; 8 << 20]);
    let envelope = sealed(&sealer, &zeros, 100_000);
    assert!(envelope.len() < zeros.len() / 150, "{}", envelope.len());
    assert!(pair.opener().open(&envelope).unwrap().plaintext == zeros);
}

/// The signature is checked before anything can be read.
#[test]
fn a_stream_of_a_stranger_gives_no_byte() {
    for recipients in [1, 2] {
        let (pair, mut stranger) = (Pair::with_recipients(recipients), Pair::with_recipients(0));
        stranger.keys = pair.keys.iter().map(|key| PrivateKey::from_pem(&*key.to_pem().unwrap()).unwrap()).collect();
        let opener = pair.opener();
        let envelope = sealed(&stranger.sealer(Padding::Off, Compression::Off), b"let me in", 9);
        let unsigned = Sealer::new(&pair.keys[0].public_key(), Default::default()).unwrap();
        for envelope in [envelope, sealed(&unsigned, b"let me in", 9)] {
            let refused = opener.open_reader(&envelope).unwrap_err();
            assert!(matches!(refused.kind(), ErrorKind::Untrusted { .. }), "{refused}");
            let refused = opener.open_stream(Cursor::new(envelope), None).unwrap_err();
            assert!(matches!(refused.kind(), ErrorKind::Untrusted { .. }), "{refused}");
        }
    }
}

/// With several recipients each could seal in the sender's name: one who puts
/// another text under the sender's signature is found before it is read.
#[test]
fn a_text_that_the_sender_did_not_sign_for_several_gives_no_byte() {
    let pair = Pair::with_recipients(2);
    let sealer = pair.sealer(Padding::Off, Compression::Off);
    let (mine, other) = (sealed(&sealer, &[1; 100_000], 9999), sealed(&sealer, &[2; 100_000], 9999));
    let payload = |json: &str| {
        let start = json.find(r#""ciphertext":""#).unwrap() + 14;
        start..start + json[start..].find('"').unwrap()
    };
    let mut changed = mine.clone();
    changed.replace_range(payload(&mine), &other[payload(&other)]);
    let opener = pair.opener();
    for refused in
        [opener.open_reader(&changed).unwrap_err(), opener.open_stream(Cursor::new(&changed), None).unwrap_err()]
    {
        assert_eq!(*refused.kind(), ErrorKind::Decrypt);
    }
}

#[test]
fn a_stream_has_its_place_among_the_others_once_it_was_read() {
    for recipients in [1, 2] {
        let pair = Pair::with_recipients(recipients);
        let (sealer, opener) = (pair.sealer(Padding::Off, Compression::Off), pair.opener());
        let envelopes: Vec<_> = (0..4u8).map(|n| sealed(&sealer, &[n; 40_000], 9999)).collect();
        let read = |envelope: &str| {
            let mut reader = opener.open_reader(envelope).unwrap();
            assert_eq!(
                (reader.message().order, reader.message().sender),
                (Order::Untracked, Sender::Signed(*pair.me.kid()))
            );
            io::copy(&mut reader, &mut io::sink()).unwrap();
            reader.message().order
        };
        assert_eq!(read(&envelopes[0]), Order::First);
        assert_eq!(read(&envelopes[2]), Order::Gap { missing: 1 });
        // One that was not read to its end was not received.
        let mut unread = opener.open_reader(&envelopes[1]).unwrap();
        unread.read_exact(&mut [0; 100]).unwrap();
        drop(unread);
        let mut damaged = envelopes[1].clone();
        let at = damaged.len() - 200;
        let other = if damaged.as_bytes()[at] == b'A' { "B" } else { "A" };
        damaged.replace_range(at..=at, other);
        match opener.open_reader(&damaged) {
            // The payload is signed for several, so that it is found at once.
            Err(error) => assert_eq!((recipients, error.kind()), (2, &ErrorKind::Decrypt)),
            Ok(mut reader) => {
                let fault = io::copy(&mut reader, &mut io::sink()).unwrap_err();
                assert_eq!((recipients, kind(fault)), (1, ErrorKind::Decrypt));
                assert_eq!(reader.message().order, Order::Untracked);
            }
        }
        assert_eq!(
            [&envelopes[1], &envelopes[3], &envelopes[3]].map(|one| read(one)),
            [Order::Late, Order::Next, Order::Repeat]
        );
        let stats = opener.stats();
        assert_eq!((stats.opened, stats.failed, stats.missing, stats.late, stats.repeated), (5, 1, 1, 1, 1));
    }
}

#[test]
fn a_stream_for_elsewhere_is_refused() {
    let pair = Pair::with_recipients(1);
    let (envelope, opener) = (sealed(&pair.sealer(Padding::Off, Compression::Off), b"text", 4), pair.opener());
    opener.open_reader_for(&envelope, &Context::new("scans", "eu")).unwrap();
    opener.open_stream(Cursor::new(&envelope), Some(&Context::new("scans", "eu"))).unwrap();
    let elsewhere = Context::new("scans", "us");
    for refused in [
        opener.open_reader_for(&envelope, &elsewhere).unwrap_err(),
        opener.open_stream(Cursor::new(&envelope), Some(&elsewhere)).unwrap_err(),
    ] {
        assert!(matches!(refused.kind(), ErrorKind::Misdirected { .. }));
    }
}

#[test]
fn every_changed_byte_of_an_envelope_in_a_file_is_found() {
    for recipients in [1, 2] {
        let pair = Pair::with_recipients(recipients);
        let envelope = sealed(&pair.sealer(Padding::Padme, Compression::Off), &[7; 100], 50).into_bytes();
        let opener = pair.opener();
        let opened = |bytes: &[u8]| {
            let mut reader = opener.open_stream(Cursor::new(bytes.to_vec()), None).ok()?;
            let mut text = Vec::new();
            reader.read_to_end(&mut text).ok().map(|_| text)
        };
        assert_eq!(opened(&envelope).unwrap(), [7; 100]);
        for at in 0..envelope.len() {
            let mut changed = envelope.clone();
            changed[at] ^= 2;
            assert_eq!(opened(&changed), None, "byte {at}");
            assert_eq!(opened(&envelope[..at]), None, "cut at {at}");
        }
    }
}

#[test]
fn a_file_is_there_when_it_is_whole_or_not_at_all() {
    let (pair, dir) = (Pair::with_recipients(2), tempfile::tempdir().unwrap());
    let [plain, sealed, opened] = ["plain", "sealed", "opened"].map(|name| dir.path().join(name));
    let context = Context::new("scans", "eu").content_type("text/plain");
    fs::write(&plain, text()).unwrap();
    let sealer = pair.sealer(Padding::Padme, Compression::Zstd);
    let id = sealer.seal_file(&context, Some("scan-7"), &plain, &sealed).unwrap();
    assert_eq!(id, "scan-7");
    let opener = pair.opener();
    let message = opener.open_file(&sealed, &opened, Some(&Context::new("scans", "eu"))).unwrap();
    assert_eq!(
        (message.message_id.as_str(), message.order, message.context),
        ("scan-7", Order::First, Some(context.clone()))
    );
    assert!(fs::read(&opened).unwrap() == text());
    #[cfg(unix)]
    for path in [&sealed, &opened] {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    fs::write(&opened, "what was there").unwrap();
    let mut damaged = fs::read(&sealed).unwrap();
    let at = damaged.len() / 2;
    damaged[at] ^= 1;
    fs::write(&sealed, damaged).unwrap();
    assert!(opener.open_file(&sealed, &opened, None).is_err());
    assert_eq!(fs::read_to_string(&opened).unwrap(), "what was there");
    let absent = sealer.seal_file(&context, None, dir.path().join("absent"), &sealed).unwrap_err();
    assert!(matches!(absent.kind(), ErrorKind::Io { .. }));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "nothing unfinished is left");
}
