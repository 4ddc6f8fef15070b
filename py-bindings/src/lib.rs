//! The native half of the Python package `ciphermq`.
//!
//! A user sees `python/ciphermq`; what this crate offers to it is described in
//! `_native.pyi`. Nothing in here decides anything about the protocol or the
//! cryptography: that is `cipher-client`. What is here:
//!
//! - `keys`, `keyset`, `identity`, `context`, `sealing`, `sealer`, `opener`: values and
//!   functions of `cipher_client::crypto`.
//! - `recipient`, `trust`, `directory`: those of `cipher_client::trust`.
//! - `connection`, `subscription`, `message`: a client, a consumer and a
//!   delivery. Each operation is written once, as a future.
//! - `collecting`, `large`: messages that come, and go, in parts.
//! - `wait`, `bridge`: the two ways to run such a future: block until it is done,
//!   or hand out an asyncio future.
//! - `process`: one runtime a process, and what must not cross a `fork`.
//! - `logging`: events of the Rust side become records of the logger `ciphermq`.
//! - `broker`: the broker itself, for `ciphermq.testing`.

mod bridge;
mod broker;
mod collecting;
mod connection;
mod context;
mod directory;
mod error;
mod identity;
mod keys;
mod keyset;
mod large;
mod leases;
mod logging;
mod message;
mod opener;
mod opening;
mod process;
mod publishing;
mod recipient;
mod sealer;
mod sealing;
mod seconds;
mod subscription;
mod text;
mod topology;
mod trust;
mod wait;

use pyo3::prelude::*;

#[pymodule]
mod _native {
    use super::{Bound, PyModule, PyResult};

    #[pymodule_export]
    use crate::broker::Broker;
    #[pymodule_export]
    use crate::connection::Connection;
    #[pymodule_export]
    use crate::context::Context;
    #[pymodule_export]
    use crate::identity::{Identity, SenderKey};
    #[pymodule_export]
    use crate::keys::{PrivateKey, PublicKey, generate_keypair, write_keypair};
    #[pymodule_export]
    use crate::keyset::Keyset;
    #[pymodule_export]
    use crate::large::{BodyReader, LargeMessage};
    #[pymodule_export]
    use crate::message::{AsyncMessage, Message, MessageBase};
    #[pymodule_export]
    use crate::opener::{Opened, Opener, PartCollector};
    #[pymodule_export]
    use crate::publishing::Batch;
    #[pymodule_export]
    use crate::recipient::{Recipient, UnverifiedRecipient};
    #[pymodule_export]
    use crate::sealer::Sealer;
    #[pymodule_export]
    use crate::sealing::{open_envelope, seal};
    #[pymodule_export]
    use crate::subscription::Subscription;
    #[pymodule_export]
    use crate::trust::{Announcement, Pins, Senders};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        use pyo3::prelude::{PyAnyMethods, PyModuleMethods};
        crate::logging::install();
        let close_gate = pyo3::wrap_pyfunction!(crate::process::close_gate, module)?;
        module.py().import("atexit")?.call_method1("register", (close_gate,))?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
