//! Pin files, and announcements out of a directory.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cipher_client::crypto::{Identity, Kid, PublicKey};
use cipher_client::trust::{Announcement, PinMode, Pins};
use ed25519_dalek::{Signer, SigningKey};
use serde_json::Value;
use tempfile::TempDir;

use super::edits::{Program, edit};

/// Whatever is in a pin file: it is refused, or what it says can be used. Only keys that were announced come out of it.
pub fn pins(input: &[u8]) {
    thread_local!(static BENCH: Bench = Bench::new());
    BENCH.with(|bench| {
        let mut program = Program::new(input);
        let mut text = bench.files[program.below(bench.files.len())].clone();
        (0..program.steps()).for_each(|_| edit(&mut text, &mut program));
        fs::write(&bench.path, text).expect("the folder can be written");
        bench.check();
    });
}

/// Whatever an identity signs: it is no announcement, or one that reads the same again.
pub fn announced(input: &[u8]) {
    static KEYS: LazyLock<Keys> = LazyLock::new(Keys::new);
    let mut program = Program::new(input);
    let base = KEYS.chain(&KEYS.alice);
    let mut body = base[program.below(base.len())].as_bytes().to_vec();
    body.truncate(body.len() - SIGNATURE_LEN);
    (0..program.steps()).for_each(|_| edit(&mut body, &mut program));
    let signature = KEYS.signing.sign(&body).to_bytes();
    let bytes = [body, signature.to_vec()].concat();
    let Ok(read) = Announcement::from_bytes(&bytes) else { return };
    assert_eq!(read.as_bytes(), bytes);
    assert_eq!(Announcement::from_text(&read.to_text()).expect("it was read from its bytes"), read);
    let now = SystemTime::UNIX_EPOCH;
    let _ = (read.is_valid(now), read.kid(), Announcement::of(read.client_id(), None).after(&read).sign(&KEYS.alice));
}

const NAME: &str = "billing";
const SIGNATURE_LEN: usize = 64;

/// A store, and what may be in its file.
struct Bench {
    _dir: TempDir,
    pins: Pins,
    path: PathBuf,
    files: Vec<Vec<u8>>,
    chain: Vec<Announcement>,
    announced: Vec<Kid>,
}

impl Bench {
    fn new() -> Self {
        let (keys, dir) = (Keys::new(), tempfile::tempdir().expect("a folder"));
        let pins = Pins::open(dir.path(), PinMode::Tofu).expect("a store");
        let chain = keys.chain(&keys.alice);
        pins.pin(NAME, keys.alice.kid()).expect("the store can be written");
        let ends_with = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "pin");
        let mut all = fs::read_dir(dir.path()).expect("a folder").map(|entry| entry.expect("an entry").path());
        let path = all.find(ends_with).expect("a file for the name");
        let mut files = vec![fs::read(&path).expect("it was written")];
        for one in &chain {
            pins.take(NAME, std::slice::from_ref(one)).expect("it follows");
            files.push(fs::read(&path).expect("it was written"));
        }
        let announced = keys.public.iter().map(|key| *key.kid()).collect();
        Self { _dir: dir, pins, path, files, chain, announced }
    }

    fn check(&self) {
        let (pins, now) = (&self.pins, SystemTime::now());
        if let Ok(key) = pins.recipient(NAME, now) {
            assert!(self.announced.contains(key.kid()), "nobody announced this key");
        }
        let last = self.chain.last().expect("a chain");
        let known = pins.look(NAME);
        let _ = (pins.sender(NAME), pins.missing_before(last));
        match (known, pins.take(NAME, &self.chain)) {
            (Err(_), taken) => assert!(taken.is_err(), "a file that cannot be read is not written over"),
            (Ok(_), Err(_)) => {}
            (Ok(_), Ok(taken)) => {
                assert!(taken.last.as_ref().is_some_and(|taken| taken.seq() >= last.seq()));
                assert_eq!(pins.look(NAME).expect("it was written"), Some(taken));
            }
        }
    }
}

/// Keys of the vectors.
struct Keys {
    alice: Identity,
    bob: Identity,
    signing: SigningKey,
    public: Vec<PublicKey>,
}

impl Keys {
    fn new() -> Self {
        let file: Value =
            serde_json::from_str(include_str!("../../tests/vectors/envelope-v2/keys.json")).expect("vectors are JSON");
        let pem = |name: &str| file["senders"][name]["pkcs8"].as_str().expect("a PEM text");
        let public = |name: &str| PublicKey::from_pem(file["keys"][name]["spki"].as_str().expect("a PEM text"));
        let lines: String = pem("ed25519-alice").lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(lines).expect("base64");
        Self {
            alice: Identity::from_pem(pem("ed25519-alice")).expect("an identity"),
            bob: Identity::from_pem(pem("ed25519-bob")).expect("an identity"),
            signing: SigningKey::from_bytes(der.last_chunk().expect("the seed is at the end")),
            public: ["x25519-a", "xwing-a", "rsa-a"].map(|name| public(name).expect("a key")).to_vec(),
        }
    }

    /// One for each key, and one for none.
    fn chain(&self, identity: &Identity) -> Vec<Announcement> {
        let mut chain: Vec<Announcement> = Vec::new();
        for key in self.public.iter().map(Some).chain([None]) {
            let mut next = Announcement::of(NAME, key).successor(self.bob.sender_key());
            if let Some(last) = chain.last() {
                next = next.after(last);
            }
            chain.push(next.sign(identity).expect("a good announcement"));
        }
        chain
    }
}
