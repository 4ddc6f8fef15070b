//! Exchanges, bindings, queues and delivery. No sockets, no files, time passed in.
