//! What a stream takes of memory. Alone in its process, so that the peak is its own.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first thing that fails")]

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use cipher_client::crypto::{
    Compression, Context, ENVELOPE_BYTES_MAX, Identity, KeyKind, Keyset, Opener, Padding, PrivateKey, Sealer,
};
use cipher_client::trust::{Recipient, SenderPolicy, Senders};

/// Most that a stream may take of memory beside what it is given, and with
/// compression. docs/encryption.md says both.
const STREAM_MEMORY_MAX: u64 = 1 << 20;
const COMPRESSED_STREAM_MEMORY_MAX: u64 = 4 << 20;

/// A text whose envelope is hardly shorter than the longest there is.
const TEXT_LEN: u64 = 46 << 20;

#[test]
fn a_64_mib_envelope_is_sealed_and_opened_in_one_mib() {
    let pair = Pair::new();
    let dir = tempfile::tempdir().unwrap();
    let (path, opener) = (dir.path().join("envelope"), pair.opener());
    let (sealed, opened) = pair.go_through(&opener, &pair.keys[..1], Compression::Off, &path);
    assert!(sealed <= STREAM_MEMORY_MAX && opened <= STREAM_MEMORY_MAX);
    let (sealed, opened) = pair.go_through(&opener, &pair.keys, Compression::Zstd, &path);
    assert!(sealed <= COMPRESSED_STREAM_MEMORY_MAX && opened <= COMPRESSED_STREAM_MEMORY_MAX);
    let envelope = fs::read_to_string(&path).unwrap();
    let read = peak_of(|| {
        let mut reader = opener.open_reader(&envelope).unwrap();
        assert_eq!(io::copy(&mut reader, &mut io::sink()).unwrap(), TEXT_LEN);
    });
    println!("opening took {read} bytes beside an envelope in memory");
    assert!(read <= COMPRESSED_STREAM_MEMORY_MAX);
}

struct Pair {
    me: Arc<Identity>,
    keys: [PrivateKey; 2],
}

impl Pair {
    fn new() -> Self {
        let keys = [(); 2].map(|()| PrivateKey::generate_kind(KeyKind::X25519).unwrap());
        Self { me: Arc::new(Identity::generate().unwrap()), keys }
    }

    fn opener(&self) -> Opener {
        let known = Arc::new(Senders::in_memory());
        known.add("me", self.me.sender_key().clone()).unwrap();
        let own = Keyset::new(PrivateKey::from_pem(&*self.keys[0].to_pem().unwrap()).unwrap());
        Opener::builder(&own).senders(SenderPolicy::require_signed(known)).build().unwrap()
    }

    /// What sealing into a file and opening out of it took.
    fn go_through(&self, opener: &Opener, to: &[PrivateKey], compression: Compression, path: &Path) -> (u64, u64) {
        let recipients = to.iter().map(|key| Recipient::from_own_source(key.public_key()));
        let builder = Sealer::builder(recipients).identity(Arc::clone(&self.me)).padding(Padding::Padme);
        let sealer = builder.compression(compression).build().unwrap();
        let sealed = peak_of(|| {
            let mut writer = sealer.seal_writer(&Context::default(), None, File::create(path).unwrap()).unwrap();
            write_text(&mut writer);
            writer.finish().unwrap();
        });
        let envelope_len = fs::metadata(path).unwrap().len();
        assert!(envelope_len > ENVELOPE_BYTES_MAX as u64 * 9 / 10, "{envelope_len}");
        let opened = peak_of(|| {
            let mut reader = opener.open_stream(File::open(path).unwrap(), None).unwrap();
            assert_eq!(io::copy(&mut reader, &mut io::sink()).unwrap(), TEXT_LEN);
        });
        println!("{} recipients, {compression:?}: sealing took {sealed} bytes, opening {opened}", to.len());
        (sealed, opened)
    }
}

/// A text that does not compress.
fn write_text(writer: &mut impl Write) {
    let mut state = 7u64;
    let mut buffer = vec![0; 256 << 10];
    for bytes in buffer.as_chunks_mut::<8>().0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *bytes = state.to_le_bytes();
    }
    for _ in 0..TEXT_LEN / buffer.len() as u64 {
        writer.write_all(&buffer).unwrap();
    }
}

/// By how many bytes the memory of this process was higher during `work` than before.
fn peak_of(work: impl FnOnce()) -> u64 {
    // The peak is from now on; what was taken before and is free again does not hide anything.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmHWM:");
    work();
    status("VmHWM:").saturating_sub(before)
}

fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
