//! The CipherMQ text protocol: bytes to values and back. No IO, no clock.
