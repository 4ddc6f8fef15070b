//! The JSON form, good and bad.

use super::json::{any_form, usual_form};
use super::*;

const WHOLE: [(&str, &str); 5] = [
    ("message_id", r#""m1""#),
    ("enc_session_key", r#""QUFB""#),
    ("nonce", r#""AAAAAAAAAAAAAAAAAAAAAA==""#),
    ("tag", r#""AAAAAAAAAAAAAAAAAAAAAA==""#),
    ("ciphertext", r#""QQ==""#),
];

fn json(members: &[(&str, &str)]) -> String {
    let members: Vec<_> = members.iter().map(|(k, v)| format!("\"{k}\": {v}")).collect();
    format!("{{{}}}", members.join(", "))
}

fn fault(json: &str) -> ErrorKind {
    match Envelope::parse(json).and_then(|envelope| envelope.decode().map(|_| ())) {
        Ok(()) => panic!("was read: {json}"),
        Err(error) => error.kind().clone(),
    }
}

#[test]
fn order_and_foreign_members_do_not_matter() {
    let mut members = WHOLE.to_vec();
    members.reverse();
    members.push(("x", r#"{"deep": [1, 2.5, null, true, "s", {}]}"#));
    let text = json(&members);
    let envelope = Envelope::parse(&text).unwrap();
    assert_eq!(envelope.message_id(), "m1");
    assert_eq!(envelope.decode().unwrap().ciphertext, b"A");
}

/// The short way must not take what JSON refuses, nor read it otherwise.
#[test]
fn the_usual_form_is_read_as_json_reads_it() {
    let written = write("m-1", "QUFB", &Nonce::Long([7; 16]), &[9; 16], b"text", None);
    let spaced = json(&WHOLE);
    for text in [&written, &spaced] {
        let (quick, full) = (usual_form(text).unwrap(), any_form(text).unwrap());
        assert_eq!(format!("{quick:?}"), format!("{full:?}"));
        for end in 0..text.len() {
            assert!(usual_form(&text[..end]).is_none(), "cut at {end}");
        }
        assert!(usual_form(&format!("{text} ")).is_none());
        assert!(usual_form(&text.replace("QUFB", "Q\\u0055FB")).is_none());
    }
    // What JSON forbids inside a string is refused further on.
    for control in ["\n", "\0", "\u{1f}"] {
        for value in ["m-1", "QUFB"] {
            let text = written.replace(value, &format!("{value}{control}"));
            assert!(matches!(fault(&text), ErrorKind::Malformed { .. }), "{text:?}");
        }
    }
}

#[test]
fn escapes_in_names_and_values_are_read() {
    let text = json(&WHOLE).replace("nonce", "n\\u006fnce").replace("QQ==", "\\u0051Q==");
    let envelope = Envelope::parse(&text).unwrap();
    assert_eq!(envelope.decode().unwrap().ciphertext, b"A");
}

#[test]
fn each_missing_doubled_or_mistyped_member_is_named() {
    for (i, (name, value)) in WHOLE.iter().enumerate() {
        let mut members = WHOLE.to_vec();
        members.push((name, value));
        assert_eq!(fault(&json(&members)), ErrorKind::Malformed { part: name, fault: "given twice" });
        for wrong in ["1", "-1", "1.5", "null", "true", "[]", "[[1]]", "{}", r#"{"a":{}}"#] {
            members = WHOLE.to_vec();
            members[i].1 = wrong;
            assert_eq!(fault(&json(&members)), ErrorKind::Malformed { part: name, fault: "not a string" });
        }
        if *name != "tag" {
            members = WHOLE.to_vec();
            members.remove(i);
            assert_eq!(fault(&json(&members)), ErrorKind::Malformed { part: name, fault: "missing" });
        }
    }
}

#[test]
fn later_dialects_are_named_and_not_called_damaged() {
    let mut members = WHOLE.to_vec();
    members.remove(3);
    assert!(matches!(fault(&json(&members)), ErrorKind::Unsupported { .. }));
    let sealed_box = format!("\"{}=\"", "A".repeat(107));
    members = WHOLE.to_vec();
    members[1].1 = &sealed_box;
    assert!(matches!(fault(&json(&members)), ErrorKind::Unsupported { .. }));
}

#[test]
fn what_is_no_object_is_refused() {
    let deep = "[".repeat(100_000);
    let deep_member = format!("{{\"x\":{deep}");
    for text in ["", "{", "[]", "1", "null", "\"\"", "{} {}", "{\"a\":1,}", "\u{feff}{}", &deep, &deep_member] {
        assert!(matches!(fault(text), ErrorKind::Malformed { .. }), "{:.20}", text);
    }
}

#[test]
fn a_long_key_member_is_refused_before_it_is_decoded() {
    let long = format!("\"{}\"", "A".repeat(1372));
    let mut members = WHOLE.to_vec();
    members[1].1 = &long;
    assert!(matches!(fault(&json(&members)), ErrorKind::Malformed { part: "enc_session_key", .. }));
}

#[test]
fn an_envelope_over_the_limit_is_refused_unread() {
    let text = " ".repeat(ENVELOPE_BYTES_MAX + 1);
    assert!(matches!(fault(&text), ErrorKind::TooLarge { .. }));
}

#[test]
fn the_written_form_has_the_announced_length_and_reads_back() {
    let nonce = Nonce::Long([7; 16]);
    for len in [0, 1, 2, 3, 1000] {
        let text = write("m-1", "QUFB", &nonce, &[9; 16], &vec![5; len], None);
        assert_eq!(text.len(), written_len(3, 4, len));
        let envelope = Envelope::parse(&text).unwrap();
        let parts = envelope.decode().unwrap();
        assert_eq!(envelope.message_id(), "m-1");
        assert_eq!((parts.wrapped, parts.nonce, parts.tag), (b"AAA".to_vec(), nonce, [9; 16]));
        assert_eq!(parts.ciphertext, vec![5; len]);
    }
}

/// It is read without the parser of JSON where it is written as usual: that must
/// not let through what is no JSON.
#[test]
fn x_is_one_whole_value_in_every_form() {
    let kid = format!("sha256:{}", "A".repeat(43));
    let usual = format!(
        concat!(
            r#"{{"v":1,"kid":"{kid}","skid":"{kid}","signed":"session","session":"{session}","sig":"{sig}","#,
            r#""seq":1,"ts":2,"ctx":{{"exchange":"e","routing_key":"k"}},"mac":"{session}"}}"#
        ),
        kid = kid,
        session = "A".repeat(44),
        sig = "A".repeat(88)
    );
    let with = |x: &str| write("m-1", "QUFB", &Nonce::Long([7; 16]), &[9; 16], b"text", Some(x));
    let read = with(&usual);
    assert!(matches!(Envelope::parse(&read).unwrap().x(), Some(X::Read(_))));
    for other in [usual.replace(':', ": "), usual.replace("\"v\"", "\"\\u0076\""), r#"{"deep": [1, {}]}"#.into()] {
        let text = with(&other);
        assert!(matches!(Envelope::parse(&text).unwrap().x(), Some(X::Json(json)) if *json == other));
    }
    for end in 0..usual.len() {
        assert!(matches!(fault(&with(&usual[..end])), ErrorKind::Malformed { .. }), "cut at {end}");
    }
    for junk in ["x", "}", ",", " 1", "\"", ",\"y\""] {
        assert!(matches!(fault(&with(&format!("{usual}{junk}"))), ErrorKind::Malformed { .. }), "{junk}");
    }
    for (at, _) in usual.match_indices('A').step_by(13) {
        for bad in ["\n", "\"", "\\"] {
            let text = format!("{}{bad}{}", &usual[..at], &usual[at + 1..]);
            assert!(matches!(fault(&with(&text)), ErrorKind::Malformed { .. }), "{bad:?} at {at}");
        }
    }
}
