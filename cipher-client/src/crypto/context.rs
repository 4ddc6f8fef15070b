//! Where a message was meant to go.

use std::collections::{HashMap, HashSet};

use crate::error::{Error, ErrorKind, Result};

/// What a sender binds to a message beside its text: where it published it and
/// what the text is. The receiver sees what the sender bound, whatever a broker
/// says on delivery.
///
/// ```
/// use cipher_client::crypto::Context;
///
/// let context = Context::new("orders", "eu.new").content_type("application/json");
/// assert_eq!(context.routing_key, "eu.new");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Context {
    /// The exchange published to; on other transports the topic, or nothing.
    pub exchange: String,
    /// The key published with.
    pub routing_key: String,
    /// What the text is, a media type by custom.
    pub content_type: Option<String>,
}

/// Longest exchange, routing key or content type.
pub(super) const CONTEXT_FIELD_BYTES_MAX: usize = 255;

impl Context {
    /// The context of a message to `exchange` with `routing_key`.
    pub fn new(exchange: impl Into<String>, routing_key: impl Into<String>) -> Self {
        Self { exchange: exchange.into(), routing_key: routing_key.into(), content_type: None }
    }

    /// The same with a content type; an empty one is none.
    #[must_use]
    pub fn content_type(self, content_type: impl Into<String>) -> Self {
        Self { content_type: Some(content_type.into()).filter(|text| !text.is_empty()), ..self }
    }

    /// Whether nothing is bound.
    pub fn is_empty(&self) -> bool {
        self.exchange.is_empty() && self.routing_key.is_empty() && self.bound_content_type().is_empty()
    }

    /// The content type as it is bound: none is empty.
    pub(super) fn bound_content_type(&self) -> &str {
        self.content_type.as_deref().unwrap_or_default()
    }

    /// Refuses what no receiver would take.
    pub(super) fn check(&self) -> Result<()> {
        for (what, text) in [
            ("exchange", self.exchange.as_str()),
            ("routing key", self.routing_key.as_str()),
            ("content type", self.bound_content_type()),
        ] {
            if text.len() > CONTEXT_FIELD_BYTES_MAX {
                return Err(ErrorKind::TooLarge { what, bytes: text.len(), max: CONTEXT_FIELD_BYTES_MAX }.into());
            }
        }
        Ok(())
    }

    /// The first part in which a message bound to `self` was not meant for where
    /// it came from.
    pub(super) fn difference(&self, delivered: &Self) -> Option<&'static str> {
        if self.exchange != delivered.exchange {
            return Some("sealed for another exchange");
        }
        (self.routing_key != delivered.routing_key).then_some("sealed for another routing key")
    }
}

/// What [`super::Opener::open_for`] does with a message that was bound to
/// another exchange or routing key than the one it was delivered with.
///
/// Moves and copies between queues, dead-lettering among them, change neither.
/// A bridge that publishes a message anew somewhere else does. The delivery is
/// what the broker says: against one that lies there is
/// [`super::OpenerBuilder::only_for`].
///
/// A message to which its sender bound nothing passes: suite 1 without a
/// signature, or sealed with no [`Context`]. Its [`super::Opened::context`] is
/// `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContextPolicy {
    /// Refuses it with [`ErrorKind::Misdirected`].
    #[default]
    Strict,
    /// Opens it, and warns in the log.
    Warn,
    /// Opens it.
    Off,
}

impl ContextPolicy {
    /// Applies the policy to an opened message.
    pub(super) fn check(self, bound: Option<&Context>, delivered: &Context, message_id: &str) -> Result<()> {
        let Some(what) = bound.and_then(|bound| bound.difference(delivered)) else { return Ok(()) };
        match self {
            Self::Strict => Err(Error::new(ErrorKind::Misdirected { what })),
            Self::Warn => {
                let (exchange, routing_key) = (&delivered.exchange, &delivered.routing_key);
                tracing::warn!(message_id, exchange, routing_key, what, "message delivered out of its context");
                Ok(())
            }
            Self::Off => Ok(()),
        }
    }
}

/// The places that a receiver takes messages from, as it knows them itself:
/// routing keys by exchange.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Places(HashMap<String, HashSet<String>>);

impl Places {
    pub(super) fn new(contexts: impl IntoIterator<Item = Context>) -> Self {
        let mut places = HashMap::<_, HashSet<_>>::new();
        for Context { exchange, routing_key, .. } in contexts {
            places.entry(exchange).or_default().insert(routing_key);
        }
        Self(places)
    }

    /// Refuses a message that its sender meant for none of them, or for nowhere.
    pub(super) fn check(&self, bound: Option<&Context>) -> Result<()> {
        let bound = bound.ok_or(ErrorKind::Misdirected { what: "bound to nothing" })?;
        let keys = self.0.get(&bound.exchange);
        match keys.is_some_and(|keys| keys.contains(&bound.routing_key)) {
            true => Ok(()),
            false => Err(ErrorKind::Misdirected { what: "sealed for a place that is not taken here" }.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_does_what_it_says() {
        let bound = Context::new("orders", "eu").content_type("text/plain");
        let check = |policy: ContextPolicy, delivered: &Context| policy.check(Some(&bound), delivered, "m");
        assert!(check(ContextPolicy::Strict, &Context::new("orders", "eu")).is_ok(), "the type is not delivered");
        for elsewhere in [Context::new("orders", "us"), Context::new("refunds", "eu"), Context::default()] {
            let error = check(ContextPolicy::Strict, &elsewhere).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Misdirected { .. }));
            assert!(check(ContextPolicy::Warn, &elsewhere).is_ok());
            assert!(check(ContextPolicy::Off, &elsewhere).is_ok());
            assert!(ContextPolicy::Strict.check(None, &elsewhere, "m").is_ok());
        }
    }

    #[test]
    fn only_the_named_places_are_taken() {
        let places = Places::new([Context::new("orders", "eu"), Context::new("orders", "us"), Context::new("log", "")]);
        for (exchange, key) in [("orders", "eu"), ("orders", "us"), ("log", "")] {
            assert!(places.check(Some(&Context::new(exchange, key).content_type("text/plain"))).is_ok());
        }
        let elsewhere = [("orders", ""), ("orders", "e"), ("log", "eu"), ("", "eu"), ("orderseu", "")];
        let elsewhere = elsewhere.map(|(exchange, key)| Some(Context::new(exchange, key)));
        for bound in elsewhere.into_iter().chain([None, Some(Context::default())]) {
            let error = places.check(bound.as_ref()).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Misdirected { .. }), "{bound:?}");
        }
        assert!(Places::new([]).check(Some(&Context::new("orders", "eu"))).is_err());
    }

    #[test]
    fn parts_longer_than_the_limit_are_refused() {
        let long = "x".repeat(256);
        for context in [
            Context::new(long.as_str(), ""),
            Context::new("", long.as_str()),
            Context::default().content_type(long.as_str()),
        ] {
            assert!(matches!(context.check().unwrap_err().kind(), ErrorKind::TooLarge { .. }));
        }
        assert!(Context::new(&long[1..], &long[1..]).content_type(&long[1..]).check().is_ok());
    }

    #[test]
    fn an_empty_content_type_is_none() {
        assert!(Context::default().content_type("").is_empty());
        assert!(!Context::default().content_type("x").is_empty());
    }
}
