//! An append-only log of opaque entries: submit, commit in order, complete.
