//! The native half of the Python package `ciphermq`.
//!
//! Keys, sealing and opening are here; what a user sees of them is described in
//! `python/ciphermq/_native.pyi`. Nothing in here decides anything about the
//! protocol or the cryptography: that is `cipher-client`.

mod error;
mod keys;
mod sealing;
mod text;

use pyo3::prelude::*;

#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::keys::{PrivateKey, PublicKey, generate_keypair, write_keypair};
    #[pymodule_export]
    use crate::sealing::{open_envelope, seal};
}
