//! Tests across the process boundary: the built binary, real sockets.
