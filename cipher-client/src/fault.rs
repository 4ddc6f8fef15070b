//! Why a connection ended.

use std::io;

use ciphermq_protocol::Code;

use crate::{Error, ErrorKind};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no connection within the time allowed")]
    Slow,
    #[error("the broker closed the connection")]
    Eof,
    #[error("the broker closed the connection in the middle of a line")]
    CutOff,
    #[error("the broker is closing the connection: {code} {text}")]
    Closing { code: Code, text: String },
    #[error("the broker gave no sign of life")]
    Silent,
    #[error("the broker refused the connection: {code} {text}")]
    Refused { code: Code, text: String },
    #[error("a line of the broker is longer than {max} bytes")]
    LineTooLong { max: usize },
    #[error("the broker's answer breaks the protocol: {0}")]
    Protocol(&'static str),
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Io(source) => Self::with_source(ErrorKind::Connection, source),
            Fault::Refused { code, text } => Self::new(ErrorKind::Refused { code, text }),
            Fault::Protocol(what) => Self::new(ErrorKind::Protocol { what }),
            fault => Self::with_source(ErrorKind::Connection, fault),
        }
    }
}
