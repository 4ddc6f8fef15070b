//! Envelopes of both suites, changed on their way by somebody who has no key.

use std::collections::HashSet;
use std::io::Read;
use std::sync::{Arc, LazyLock};

use cipher_client::crypto::{Keyset, OpenPolicy, Opened, Opener, PrivateKey, Sender, SenderKey, Suite};
use cipher_client::trust::{SenderPolicy, Senders};
use serde_json::Value;

use super::edits::{Member, Program, edit, edit_members, to_json};

/// Whatever is changed in an envelope: it opens to what its sender sealed, under all that the sender bound to it, or not at
/// all. Whole and in pieces alike.
pub fn envelopes(input: &[u8]) {
    static BENCH: LazyLock<Bench> = LazyLock::new(Bench::new);
    let text = BENCH.envelope(&mut Program::new(input));
    BENCH.openers.iter().for_each(|opener| BENCH.check(opener, &text));
}

/// Everything that the vectors have.
struct Bench {
    envelopes: Vec<String>,
    openers: Vec<Opener>,
    /// What comes out of the envelopes as they are.
    sealed: HashSet<String>,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self { envelopes: all_envelopes(), openers: openers(), sealed: HashSet::new() };
        for (opener, envelope) in
            bench.openers.iter().flat_map(|opener| bench.envelopes.iter().map(move |one| (opener, one)))
        {
            bench.sealed.extend(opener.open(envelope).ok().map(|opened| print(&opened)));
        }
        assert!(bench.sealed.len() > 100, "the vectors open");
        bench
    }

    fn envelope(&self, program: &mut Program<'_>) -> String {
        let mut take = || &self.envelopes[program.below(self.envelopes.len())];
        let (base, other) = (take(), take());
        let steps = program.steps();
        if steps == 0 {
            let mut text = base.clone().into_bytes();
            edit(&mut text, program);
            return String::from_utf8_lossy(&text).into_owned();
        }
        let (Some(mut members), Some(other)) = (members(base), members(other)) else { return base.clone() };
        (0..steps).for_each(|_| edit_members(&mut members, &other, program));
        to_json(&members, &ORDER)
    }

    fn check(&self, opener: &Opener, envelope: &str) {
        let whole = opener.open(envelope).ok();
        if let Some(opened) = &whole {
            let print = print(opened);
            assert!(self.sealed.contains(&print), "nobody sealed this: {print}\nit came out of {envelope}");
        }
        let pieces = opener.open_reader(envelope).ok().and_then(|mut reader| {
            let mut text = Vec::new();
            reader.read_to_end(&mut text).is_ok().then_some(text)
        });
        let whole = whole.filter(|opened| opened.suite != Suite::One).map(|opened| opened.plaintext);
        assert_eq!(pieces, whole, "whole and in pieces: {envelope}");
    }
}

/// All that an opening says of what was sealed. In suite 1 without a signature the id is bound to nothing.
fn print(opened: &Opened) -> String {
    let Opened { message_id, plaintext, uniqueness, suite, sender, context, sent_at, sequence, part, .. } = opened;
    if *suite == Suite::One && !matches!(sender, Sender::Signed(_)) {
        assert!(context.is_none() && sequence.is_none());
        return format!("{plaintext:?} {uniqueness:?}");
    }
    format!(
        "{suite} {sender:?} {message_id} {context:?} {sent_at:?} {sequence:?} {part:?} {plaintext:?} {uniqueness:?}"
    )
}

/// The order in which they are written, the members of `x` included.
const ORDER: [&str; 19] = [
    "message_id",
    "enc_session_key",
    "nonce",
    "tag",
    "v",
    "suite",
    "hdr",
    "wraps",
    "ciphertext",
    "x",
    "kid",
    "skid",
    "signed",
    "session",
    "sig",
    "seq",
    "ts",
    "ctx",
    "mac",
];

fn members(envelope: &str) -> Option<Vec<Member>> {
    let Ok(Value::Object(members)) = serde_json::from_str(envelope) else { return None };
    let mut members: Vec<_> = members.into_iter().collect();
    members.sort_by_key(|(name, _)| ORDER.iter().position(|known| known == name));
    Some(members)
}

const VECTORS: [&str; 4] = [
    include_str!("../../tests/vectors/envelope-v1/valid.json"),
    include_str!("../../tests/vectors/envelope-v1/signed.json"),
    include_str!("../../tests/vectors/envelope-v2/valid.json"),
    include_str!("../../tests/vectors/envelope-v2/parts.json"),
];

fn all_envelopes() -> Vec<String> {
    let files = VECTORS.iter().map(|file| serde_json::from_str::<Value>(file).expect("vectors are JSON"));
    let texts = |file: Value| {
        // Not invalid ones: a change may put one right.
        let valid = file["envelopes"].as_array().into_iter().flatten().filter(|case| case["result"] == "valid");
        let single = valid.map(|case| &case["envelope"]);
        let parts = file["messages"].as_array().into_iter().flatten().filter_map(|case| case["envelopes"].as_array());
        let all = single.chain(parts.flatten()).filter_map(Value::as_str);
        all.filter(|envelope| envelope.len() <= ENVELOPE_MAX).map(str::to_owned).collect::<Vec<_>>()
    };
    files.flat_map(texts).collect()
}

/// Longer ones take their time and have nothing new.
const ENVELOPE_MAX: usize = 20_000;

/// One for each way to look at senders, with the keys of all vectors.
fn openers() -> Vec<Opener> {
    let v1: Value = serde_json::from_str(include_str!("../../tests/vectors/envelope-v1/keys.json")).expect("JSON");
    let v2: Value = serde_json::from_str(include_str!("../../tests/vectors/envelope-v2/keys.json")).expect("JSON");
    let read = |pem: &Value| PrivateKey::from_pem(pem["pkcs8"].as_str().expect("a PEM text")).expect("a key");
    let senders = Arc::new(Senders::in_memory());
    for (name, forms) in v2["senders"].as_object().expect("senders") {
        let key = SenderKey::from_pem(forms["spki"].as_str().expect("a PEM text")).expect("a key");
        senders.add(name, key).expect("there is room");
    }
    let policies = [
        SenderPolicy::default(),
        SenderPolicy::allow_unsigned(Arc::clone(&senders)).mixed().allow_lower_suites(),
        SenderPolicy::require_signed(senders).allow_lower_suites(),
    ];
    let opener = |policy| {
        let forms = [&v1, &v2].into_iter().flat_map(|file| file["keys"].as_object().expect("keys"));
        let mut keys = forms.filter(|(name, _)| *name != "rsa1048").map(|(_, forms)| read(forms));
        let primary = Keyset::new(keys.next().expect("a key"));
        let keys = keys.try_fold(primary, Keyset::with_retired).expect("there is room");
        // No refusal may be put down to the failures before.
        let bounds = OpenPolicy { failures: u32::MAX, ..OpenPolicy::default() };
        Opener::builder(&keys).policy(bounds).senders(policy).build().expect("good options")
    };
    policies.into_iter().map(opener).collect()
}
