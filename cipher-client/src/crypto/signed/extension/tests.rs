use super::*;
use crate::crypto::kid::Kid;
use proptest::prelude::*;

const HEAD: &str = concat!(
    r#"{"v":1,"kid":"sha256:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE","#,
    r#""skid":"sha256:AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI","signed":"session","#,
    r#""session":"AwMDAwMDAwMDAwMDAwMDAwAAAAAAAAAEAAAAAAAAAAU="#,
);

fn session(signing: Signing) -> Session {
    Session {
        recipient: Kid::from_bytes([1; 32]),
        sender: Kid::from_bytes([2; 32]),
        signing,
        bounds: Bounds { stream: [3; 16], started_ms: 4, lifetime_ms: 5 },
        wrapped: Sha256::digest([6; 256]).into(),
    }
}

fn stamp<'a>(exchange: &'a str, routing_key: &'a str, content_type: &'a str) -> Stamp<'a> {
    let (exchange, routing_key, content_type) = (exchange.into(), routing_key.into(), content_type.into());
    Stamp { number: 17, sent_ms: 1_763_740_000_000, exchange, routing_key, content_type }
}

fn written(stamp: &Stamp<'_>) -> String {
    write(&write_head(&session(Signing::Session), Some(&[7; 64])), None, stamp, &[8; 32])
}

#[test]
fn the_text_is_that_of_the_contract() {
    assert_eq!(write_head(&session(Signing::Session), None), HEAD);
    let tail = r#"","seq":17,"ts":1763740000000,"ctx":{"exchange":"e","routing_key":"k"},"mac":"#;
    let text = written(&stamp("e", "k", ""));
    assert!(text.starts_with(HEAD) && text.contains(tail) && text.ends_with("\"}"), "{text}");
    assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["mac"].is_string());
}

#[test]
fn each_form_of_the_json_is_read_alike() {
    let compact = written(&stamp("e", "k", "text/plain"));
    let spaced = serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(&compact).unwrap()).unwrap();
    let escaped = compact.replace("\"kid\"", "\"\\u006bid\"").replace("text/plain", "text\\/plain");
    assert!(usual_form(&compact).is_some() && usual_form(&spaced).is_none() && usual_form(&escaped).is_none());
    let wanted = Extension::parse(&compact).unwrap();
    for text in [&compact, &spaced, &escaped] {
        let read = Extension::parse(text).unwrap();
        assert_eq!((&read.head, &read.stamp), (&wanted.head, &wanted.stamp));
        assert_eq!((read.signature().unwrap(), read.mac().unwrap()), ([7; 64], [8; 32]));
        let (found, made) = (read.head.session(&[6; 256]).unwrap(), session(Signing::Session));
        assert_eq!(found.signed_bytes(), made.signed_bytes());
    }
}

/// Every signature of a session is another head: it is never taken for one
/// that was checked.
#[test]
fn the_signature_of_a_session_is_part_of_its_head_and_that_of_a_message_is_not() {
    for (signing, is_part) in [(Signing::Session, true), (Signing::EveryMessage, false)] {
        let text =
            |byte| write(&write_head(&session(signing), None), Some(&[byte; 64]), &stamp("e", "k", ""), &[8; 32]);
        let (one, other) = (text(1), text(2));
        let (one, other) = (Extension::parse(&one).unwrap(), Extension::parse(&other).unwrap());
        assert_eq!(one.head != other.head, is_part);
        assert_eq!((one.signature().unwrap()[0], other.signature().unwrap()[0]), (1, 2));
    }
}

#[test]
fn what_breaks_the_form_is_refused() {
    let good = written(&stamp("exchange", "k", "text/plain"));
    let long = format!("\"{}\"", "x".repeat(256));
    let changes = [
        (r#""v":1"#, r#""v":2"#),
        (r#""v":1"#, r#""v":"1""#),
        (r#""v":1"#, r#""v":1,"v":1"#),
        (r#""v":1"#, r#""v":1,"w":1"#),
        (r#""v":1,"#, ""),
        (r#""signed":"session""#, r#""signed":"nothing""#),
        (r#""seq":17"#, r#""seq":-17"#),
        (r#""seq":17"#, r#""seq":17.0"#),
        (r#""seq":17"#, r#""seq":017"#),
        (r#""seq":17"#, r#""seq":9007199254740992"#),
        (r#""seq":17"#, r#""seq":18446744073709551616"#),
        (r#""ts":1763740000000"#, r#""ts":"1763740000000""#),
        (r#""ctx":{"#, r#""ctx":{"more":1,"#),
        (r#""routing_key":"k","#, ""),
        (r#""exchange""#, &long),
        (r#""exchange":"exchange""#, "\"exchange\":\"ex\nchange\""),
    ];
    assert!(Extension::parse(&good).is_ok());
    for (from, to) in changes {
        assert!(good.contains(from), "{from}");
        assert!(Extension::parse(&good.replace(from, to)).is_err(), "{from} -> {to}");
    }
    let context = &good[good.find("{\"exchange").unwrap()..=good.find("plain\"}").unwrap() + 6];
    assert!(Extension::parse(&good.replace(context, r#"["e","k","t"]"#)).is_err());
    for end in 0..good.len() {
        assert!(Extension::parse(&good[..end]).is_err(), "cut at {end}");
    }
    for bad in [format!("{good} x"), format!("[{good}]"), "null".into(), "\"\"".into(), " ".repeat(X_BYTES_MAX + 1)] {
        assert!(Extension::parse(&bad).is_err(), "{bad:.20}");
    }
}

#[test]
fn keys_and_codes_of_another_length_are_refused() {
    let good = written(&stamp("e", "k", ""));
    let whole = |text: &str| {
        let read = Extension::parse(text)?;
        read.mac()?;
        read.signature()?;
        read.head.session(&[6; 256]).map(drop)
    };
    whole(&good).unwrap();
    for (from, to) in
        [("AQEBAQE\"", "AQEBAQEB\""), ("sha256:AQ", "sha512:AQ"), ("AAU=\"", "AAU\""), ("AAU=\"", "AAV=\"")]
    {
        assert!(good.contains(from), "{from}");
        assert!(whole(&good.replace(from, to)).is_err(), "{from} -> {to}");
    }
    let mac = base64::text(&[8; 32]);
    for other in
        [&mac[..40], &format!("{mac}AAAA"), &mac.replace('=', "A"), "", "****************************************CAg="]
    {
        assert!(whole(&good.replace(&mac, other)).is_err(), "{other}");
    }
}

proptest! {
    /// Whatever stands in the names: it is JSON, and reads back by either way.
    #[test]
    fn names_of_any_text_read_back(exchange in ".{0,60}", key in ".{0,60}", kind in ".{0,60}", number in 0..NUMBER_MAX) {
        let stamp = Stamp { number, ..stamp(&exchange, &key, &kind) };
        let text = written(&stamp);
        let read = Extension::parse(&text).unwrap();
        prop_assert_eq!(&read.stamp, &stamp);
        let at_large = any_form(&text).unwrap();
        prop_assert_eq!((&at_large.stamp, &at_large.head), (&read.stamp, &read.head));
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,300}", at in 0usize..400, with in ".{0,8}") {
        let _ = Extension::parse(&text);
        let mut good = written(&stamp("e", "k", "t"));
        let at = at.min(good.len());
        good.insert_str(at, &with);
        if let Ok(read) = Extension::parse(&good) {
            let _ = (read.mac(), read.signature(), read.head.session(&[6; 256]).is_ok());
        }
    }
}
