//! Flags of `keygen` and `key`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::values::{days, key_bits};

#[derive(Debug, Args)]
pub(crate) struct Keygen {
    /// Directory for receiver_private.pem (mode 0600) and receiver_public.pem, for suite sign sender_private.pem and
    /// sender_public.pem; made if need be, no file is overwritten
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,

    /// What the key is for
    #[arg(long, value_enum, default_value = "1")]
    pub(crate) suite: KeySuite,

    /// Size of an RSA key (suite 1), 2048 to 8192 [default: 2048]
    #[arg(long, value_name = "N", value_parser = key_bits)]
    pub(crate) bits: Option<usize>,

    /// Begin a keyset in DIR, to which `key rotate` adds keys, instead of two files
    #[arg(long)]
    pub(crate) keyset: bool,

    /// Begin the keyset with this private key (PEM) instead of a new one; its file stays as it is
    #[arg(long, value_name = "PRIVATE.PEM", requires = "keyset", conflicts_with_all = ["suite", "bits", "encrypt"])]
    pub(crate) import: Option<PathBuf>,

    /// Encrypt the private key with a passphrase; without one of the flags below it is asked for
    #[arg(long)]
    pub(crate) encrypt: bool,

    #[command(flatten)]
    pub(crate) passphrase: PassphraseFrom,
}

/// By what is sealed to a key, or signed with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeySuite {
    /// RSA: what the original clients speak
    #[value(name = "1")]
    One,
    /// X25519: small and fast
    #[value(name = "2x")]
    TwoX25519,
    /// X-Wing, X25519 with ML-KEM-768: holds against quantum computers too
    #[value(name = "2pq")]
    TwoXWing,
    /// Ed25519: signs what a sender seals
    #[value(name = "sign")]
    Sign,
}

/// Where the passphrase of a private key comes from; at a terminal it is asked for. Never an argument: those every user of
/// the machine can read.
#[derive(Debug, Default, Args)]
pub(crate) struct PassphraseFrom {
    /// File whose first line is the passphrase of the private key
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_env")]
    pub(crate) passphrase_file: Option<PathBuf>,

    /// Environment variable that holds the passphrase of the private key
    #[arg(long, value_name = "NAME")]
    pub(crate) passphrase_env: Option<String>,
}

/// How a command reads a private key that it works with.
#[derive(Debug, Default, Args)]
pub(crate) struct KeyUse {
    #[command(flatten)]
    pub(crate) passphrase: PassphraseFrom,

    /// Use a private key, keyset or passphrase file that others than its owner can read; otherwise it is refused
    #[arg(long)]
    pub(crate) allow_exposed_key: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Key {
    #[command(subcommand)]
    pub(crate) command: KeyCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Tell what key files and keysets hold: kind, id, size, mode, primary or retired
    Show(KeyShow),
    /// Print the id of each key, public or private, and its file: what people compare
    Fingerprint(KeyFingerprint),
    /// Make a new primary key in a keyset; the old one goes on opening
    ///
    /// Give the new public key to the senders afterwards. What is sealed to the old key opens until `key prune` deletes it.
    Rotate(KeyRotate),
    /// Delete the retired private keys of a keyset that are past their retention
    ///
    /// What is still sealed to a key deleted here can never be read again, by anybody.
    Prune(KeyPrune),
    /// Change the passphrase of key files, or seal messages anew for the primary key of a keyset
    ///
    /// Without --envelope each PATH is a private key file, or a keyset, all keys of which are meant. A file is replaced in
    /// one step, by the same key under the new passphrase.
    ///
    /// With --envelope the one PATH is a keyset or a private key file. Envelopes are read from stdin, one a line, and printed
    /// sealed anew with their ids, for messages in dead-letter queues whose key is to be deleted. A signature of the sender is
    /// not carried over: only the sender can make it.
    Rewrap(KeyRewrap),
}

#[derive(Debug, Args)]
pub(crate) struct KeyShow {
    /// Key files (PEM) and keyset directories; a keyset is shown without its passphrase
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,

    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) passphrase: PassphraseFrom,
}

#[derive(Debug, Args)]
pub(crate) struct KeyFingerprint {
    /// Key files (PEM) and keyset directories, of which the primary key is meant
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) passphrase: PassphraseFrom,
}

#[derive(Debug, Args)]
pub(crate) struct KeyRotate {
    /// Directory of the keyset
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,

    /// What the new key is for [default: as the primary key so far]
    #[arg(long, value_enum)]
    pub(crate) suite: Option<KeySuite>,

    /// Size of an RSA key (suite 1), 2048 to 8192 [default: 2048]
    #[arg(long, value_name = "N", value_parser = key_bits)]
    pub(crate) bits: Option<usize>,

    #[command(flatten)]
    pub(crate) key_use: KeyUse,
}

#[derive(Debug, Args)]
pub(crate) struct KeyPrune {
    /// Directory of the keyset
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,

    /// Days a retired key is kept: at least as long as a message can wait, dead-letter queues included
    #[arg(long, value_name = "DAYS", value_parser = days)]
    pub(crate) retention: u64,

    #[command(flatten)]
    pub(crate) key_use: KeyUse,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 done, 1 at least one file or envelope could not be rewrapped (it is told which, the others are), 2 wrong usage.")]
pub(crate) struct KeyRewrap {
    /// Private key files and keyset directories, or with --envelope what opens the envelopes
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) passphrase: PassphraseFrom,

    /// File whose first line is the new passphrase
    #[arg(long, value_name = "FILE", conflicts_with_all = ["new_passphrase_env", "decrypt", "envelope"])]
    pub(crate) new_passphrase_file: Option<PathBuf>,

    /// Environment variable that holds the new passphrase
    #[arg(long, value_name = "NAME", conflicts_with_all = ["decrypt", "envelope"])]
    pub(crate) new_passphrase_env: Option<String>,

    /// Write the key without a passphrase
    #[arg(long, conflicts_with = "envelope")]
    pub(crate) decrypt: bool,

    /// Seal envelopes anew, stdin to stdout
    #[arg(long)]
    pub(crate) envelope: bool,

    /// Public key (PEM) to seal for [default: the primary key of the keyset]
    #[arg(long, value_name = "PUBLIC.PEM", requires = "envelope")]
    pub(crate) to: Option<PathBuf>,
}
