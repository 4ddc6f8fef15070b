//! What `help` says: one table of all commands.

/// A command's form and meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The command.
    pub verb: &'static str,
    /// Its arguments and options.
    pub arguments: &'static str,
    /// What it does, in a line.
    pub meaning: &'static str,
}

/// Every command of modern mode.
pub const ENTRIES: &[Entry] = &[
    entry("hello", "1 [name=<client>] [session=<session>]", "moves the connection to modern mode"),
    entry(
        "declare_queue",
        "<queue> [lease=<ms>] [max_attempts=<n>] [dead_letter=<queue>] [max_messages=<n>] [max_bytes=<n>] \
         [durability=<sync|none|interval:ms>]",
        "makes the queue if it is not there",
    ),
    entry("declare_exchange", "<exchange>", "makes the exchange if it is not there"),
    entry("bind", "<exchange> <queue> <key>", "sends what is published with the key to the queue"),
    entry("unbind", "<exchange> <queue> <key>", "removes the binding"),
    entry("delete_queue", "<queue> [force=yes]", "deletes the queue; with force its messages too"),
    entry("delete_exchange", "<exchange>", "deletes the exchange and its bindings"),
    entry("purge", "<queue>", "removes the ready and delayed messages of the queue"),
    entry("publish", "<exchange> <key> <envelope>", "stores the envelope in every queue bound with the key"),
    entry("publish_batch", "<exchange> <key> <envelopes>", "stores a JSON array of envelopes, all or none"),
    entry("consume", "<queue> [prefetch=<n>]", "pushes messages, at most n of them unsettled"),
    entry("cancel", "<queue>", "ends the subscription; deliveries already made stay leased"),
    entry("fetch", "<queue> [lease=<ms>]", "takes the next ready message"),
    entry("ack", "<id> [queue=<queue>]", "the message is done with"),
    entry("nack", "<id> [queue=<queue>] [delay=<ms>]", "puts the message back; uses up an attempt"),
    entry("release", "<id> [queue=<queue>]", "puts the message back; uses up no attempt"),
    entry("reject", "<id> [queue=<queue>]", "moves the message to the dead-letter queue"),
    entry("touch", "<id> [queue=<queue>] [lease=<ms>]", "starts the lease anew from now"),
    entry("status", "<id>", "shows where the message is"),
    entry("resend", "<id>", "delivers again what this connection holds, or what is a dead letter"),
    entry("announce_key", "<client_id> <announcement>", "stores a signed announcement of the client's key"),
    entry("lookup_key", "<client_id>", "shows the client's last announcement; whoever uses it checks it"),
    entry("key_history", "<client_id> [from=<seq>] [limit=<n>]", "shows the client's announcements, oldest first"),
    entry("register_public_key", "<public_key>", "stores an unsigned key under the name of this connection"),
    entry("get_public_key", "<client_id>", "shows the client's unsigned key, which anybody may have stored"),
    entry("register_key", "<client_id> <public_key>", "as register_public_key; the client id must be one's own"),
    entry("get_key", "<client_id>", "as get_public_key"),
    entry("list_queues", "[after=<queue>] [limit=<n>]", "lists queues by name"),
    entry("list_exchanges", "[after=<exchange>] [limit=<n>]", "lists exchanges by name"),
    entry("list_bindings", "[exchange=<exchange>] [after=<exchange>] [limit=<n>]", "lists bindings"),
    entry("stats", "", "shows counters and averages"),
    entry("reset_stats", "", "starts counters and averages at zero"),
    entry("ping", "[<text>]", "answers with the text"),
    entry("help", "[<command>]", "lists the commands, or explains one"),
    entry("quit", "", "ends the connection; leases return at once"),
];

/// All commands, separated by spaces: the text of `Help:` without an argument.
pub fn list() -> String {
    ENTRIES.iter().map(|entry| entry.verb).collect::<Vec<_>>().join(" ")
}

/// The form and meaning of one command, `None` if there is no such command.
///
/// ```
/// # use ciphermq_protocol::text::help;
/// assert_eq!(help::explain("quit").as_deref(), Some("quit: ends the connection; leases return at once"));
/// ```
pub fn explain(verb: &str) -> Option<String> {
    let entry = ENTRIES.iter().find(|entry| entry.verb == verb)?;
    let space = if entry.arguments.is_empty() { "" } else { " " };
    Some(format!("{}{space}{}: {}", entry.verb, entry.arguments, entry.meaning))
}

const fn entry(verb: &'static str, arguments: &'static str, meaning: &'static str) -> Entry {
    Entry { verb, arguments, meaning }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, Dialect, ParseError};

    #[test]
    fn help_names_exactly_the_commands_that_exist() {
        for entry in ENTRIES {
            let parsed = Command::parse(entry.verb.as_bytes(), Dialect::Modern);
            assert!(!matches!(parsed, Err(ParseError::UnknownCommand { .. })), "{} is no command", entry.verb);
            let needs_more = matches!(parsed, Err(ParseError::MissingArgument { .. }));
            assert_eq!(needs_more, entry.arguments.starts_with(['<', '1']), "{}", entry.verb);
        }
        assert_eq!(ENTRIES.len(), 35);
    }

    #[test]
    fn help_for_something_else_is_nothing() {
        assert_eq!(explain("frobnicate"), None);
        assert_eq!(explain("ping").as_deref(), Some("ping [<text>]: answers with the text"));
    }
}
