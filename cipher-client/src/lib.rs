//! CipherMQ client with end-to-end encryption.
