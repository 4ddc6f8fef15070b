//! The journal on a simulated disk, under a small owner: crashes, damage, faults and full disks, exhaustively.

#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub, reason = "a binary of tests")]

mod corruption;
mod crash;
mod faults;
mod fixtures;
mod full_disk;
mod history;
mod script;
mod store;
mod toy;
