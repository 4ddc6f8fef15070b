use ciphermq_server::limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

/// Lets the process open as many files as the system allows it, and says when that is too few for its connections.
pub(crate) fn raise(connections_max: usize) {
    let files = raise_to_limit();
    let needed = connections_max as u64 + limits::OPEN_FILES_RESERVED;
    match files {
        Some(files) if files < needed => {
            warn!(files, connections_max, "fewer open files allowed than connections; raise the limit (ulimit -n)");
        }
        files => debug!(?files, "limit on open files"),
    }
}

/// As many open files as the system allows; how many that is, `None` for without limit.
pub(crate) fn raise_to_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    if raised.is_ok() { maximum } else { current }
}
