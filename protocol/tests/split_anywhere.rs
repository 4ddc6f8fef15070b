//! How a stream is split over reads means nothing.

mod common;

use ciphermq_protocol::limits::{INPUT_BYTES_INITIAL, READ_BYTES};
use ciphermq_protocol::{Command, Decoder, Dialect, LineTooLong};
use common::{config, envelope, id, name};
use proptest::prelude::*;

#[test]
fn every_split_of_a_small_stream_gives_the_same_commands() {
    let stream = b"hello 1\r\nack m\n\nnack m delay=0\r\n\xff\nquit\n";
    let whole = commands(&[stream]);
    assert_eq!(whole.len(), 6);
    for first in 0..=stream.len() {
        for second in first..=stream.len() {
            let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
            assert_eq!(commands(&pieces), whole, "split at {first} and {second}");
        }
    }
}

#[test]
fn every_split_mask_of_a_tiny_stream_gives_the_same_lines() {
    let stream = b"a\r\n\r\n\nbc\n\r\r\n";
    let whole = commands(&[stream]);
    for mask in 0..1u32 << (stream.len() - 1) {
        let mut pieces = Vec::new();
        let mut start = 0;
        for at in 1..stream.len() {
            if mask & (1 << (at - 1)) != 0 {
                pieces.push(&stream[start..at]);
                start = at;
            }
        }
        pieces.push(&stream[start..]);
        assert_eq!(commands(&pieces), whole, "mask {mask:b}");
    }
}

#[test]
fn ten_thousand_commands_in_one_write_are_ten_thousand_commands() {
    let stream = b"ping x\n".repeat(10_000);
    let commands = commands(&[&stream]);
    assert_eq!(commands.len(), 10_000);
    assert!(commands.iter().all(|command| command == "Ok(Ping { text: Some(\"x\") })"));
}

#[test]
fn a_line_of_exactly_the_longest_length_passes_and_one_more_byte_does_not() {
    for piece in [1, 3, 4096, 1 << 20] {
        let mut line = vec![b'x'; 9_999];
        line.push(b'\n');
        assert_eq!(lengths(&mut Decoder::new(10_000), &line, piece), Ok(vec![9_999]), "pieces of {piece}");
        line.insert(0, b'x');
        assert_eq!(
            lengths(&mut Decoder::new(10_000), &line, piece),
            Err(LineTooLong { max: 10_000 }),
            "pieces of {piece}"
        );
    }
}

#[test]
fn a_line_that_never_ends_is_refused_as_soon_as_it_is_too_long() {
    let mut decoder = Decoder::new(10_000);
    assert_eq!(lengths(&mut decoder, &[b'x'; 9_999], 100), Ok(vec![]));
    assert!(decoder.is_mid_line());
    assert_eq!(lengths(&mut decoder, b"x", 1), Err(LineTooLong { max: 10_000 }));
    assert_eq!(lengths(&mut decoder, b"\nquit\n", 1), Err(LineTooLong { max: 10_000 }), "there is no way back");
}

#[test]
fn memory_follows_the_need_and_is_given_back() {
    let mut decoder = Decoder::new(1 << 20);
    assert_eq!(decoder.capacity(), 0, "an idle connection costs nothing");
    lengths(&mut decoder, b"quit\n", 5).unwrap();
    assert_eq!(decoder.capacity(), INPUT_BYTES_INITIAL, "a quiet one little");
    lengths(&mut decoder, &b"quit\n".repeat(100_000), READ_BYTES).unwrap();
    assert_eq!(decoder.capacity(), READ_BYTES, "a busy one reads in large pieces");

    let mut long = vec![b'x'; (1 << 20) - 1];
    long.push(b'\n');
    assert_eq!(lengths(&mut decoder, &long, READ_BYTES), Ok(vec![(1 << 20) - 1]));
    assert!(decoder.capacity() <= (1 << 20) + READ_BYTES);
    lengths(&mut decoder, b"quit\nqu", 7).unwrap();
    lengths(&mut decoder, b"it\n", 3).unwrap();
    assert_eq!(decoder.capacity(), READ_BYTES, "the room for one long line goes when the line has gone");

    decoder.spare()[0] = b'x';
    decoder.advance(1);
    decoder.shrink();
    assert_eq!(decoder.buffered(), 1, "shrinking loses nothing");
    lengths(&mut decoder, b"\n", 1).unwrap();
    decoder.shrink();
    assert_eq!(decoder.capacity(), 0);
}

#[test]
fn a_driver_that_takes_no_lines_is_not_given_endless_room() {
    let mut decoder = Decoder::new(4096);
    let mut total = 0;
    loop {
        let spare = decoder.spare();
        if spare.is_empty() {
            break;
        }
        spare.fill(b'\n');
        let count = spare.len();
        decoder.advance(count);
        total += count;
        assert!(total <= 4096 + READ_BYTES);
    }
    assert_eq!(decoder.next_line(), Ok(Some(&b""[..])));
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn every_split_of_every_stream_gives_the_same_commands(
        requests in prop::collection::vec(request(), 1..40),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let stream = requests.concat().into_bytes();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.push(0);
        cuts.push(stream.len());
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect();
        prop_assert_eq!(commands(&pieces), commands(&[&stream]));
        prop_assert_eq!(commands(&pieces).len(), requests.len());
    }
}

fn request() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        (name(), name(), envelope())
            .prop_map(|(exchange, key, envelope)| format!("publish {exchange} {key} {envelope}")),
        id().prop_map(|id| format!("ack {id}")),
        "[ -~\r]{0,200}",
        Just(format!("ping {}", "x".repeat(9000))),
    ];
    (line, prop_oneof![Just("\n"), Just("\r\n")]).prop_map(|(line, end)| line + end)
}

/// What the stream says, read in these pieces.
fn commands(pieces: &[&[u8]]) -> Vec<String> {
    let mut decoder = Decoder::new(1 << 16);
    let mut commands = Vec::new();
    for piece in pieces {
        feed(&mut decoder, piece, |line| commands.push(format!("{:?}", Command::parse(line, Dialect::Modern))))
            .expect("no line is too long");
    }
    commands
}

fn lengths(decoder: &mut Decoder, stream: &[u8], piece: usize) -> Result<Vec<usize>, LineTooLong> {
    let mut lengths = Vec::new();
    for piece in stream.chunks(piece) {
        feed(decoder, piece, |line| lengths.push(line.len()))?;
    }
    Ok(lengths)
}

fn feed(decoder: &mut Decoder, mut bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), LineTooLong> {
    while !bytes.is_empty() {
        let spare = decoder.spare();
        let count = spare.len().min(bytes.len());
        spare[..count].copy_from_slice(&bytes[..count]);
        decoder.advance(count);
        bytes = &bytes[count..];
        while let Some(line) = decoder.next_line()? {
            each(line);
        }
    }
    Ok(())
}
