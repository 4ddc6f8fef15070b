//! The CipherMQ process: sockets, sessions, command line.
