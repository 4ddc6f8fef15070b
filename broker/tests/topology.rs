//! Changes of the topology are decided when they are committed, whatever was true when they were asked for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails is a test that fails")]

use std::sync::Arc;

use ciphermq_broker::{Broker, BrokerOptions, Error, Link, Publish, QueueOptions, Returned, Timestamp, limits};
use ciphermq_journal::{Doorbell, Pace, Simulation};

const NOW: Timestamp = Timestamp(1_000);

/// A broker that commits when told to, with queue `q` bound with key `k`.
fn slow() -> (Broker, Link, Link) {
    let simulation = Simulation { pace: Pace::WhenTold, ..Default::default() };
    let broker = Broker::simulated(BrokerOptions::default(), NOW, simulation);
    broker.write_journal();
    let [mut first, second] = [(); 2].map(|()| broker.connect(Arc::new(Doorbell::new())));
    let _ = first.declare_queue("q", &QueueOptions::default(), NOW).unwrap();
    broker.write_journal();
    let _ = first.bind("default_exchange", "q", "k", NOW).unwrap();
    broker.write_journal();
    (broker, first, second)
}

fn immediate(options: BrokerOptions) -> Link {
    Broker::in_memory(options, NOW).connect(Arc::new(Doorbell::new()))
}

fn message(id: &str) -> Publish<'_> {
    Publish { exchange: "default_exchange", key: "k", id, envelope: "{}" }
}

fn dead_letters_to(queue: &str) -> QueueOptions {
    QueueOptions { dead_letter: Some(queue.into()), ..Default::default() }
}

/// It was in order when asked for, and committed; this became of it.
fn verdict(link: &Link, returned: &Returned) -> Option<Error> {
    assert_eq!(link.outcome(returned.receipt.unwrap()), Some(Ok(())));
    returned.refused().cloned()
}

#[test]
fn an_unforced_delete_never_takes_a_message_with_it() {
    let (broker, mut first, mut second) = slow();
    let deleted = first.delete_queue("q", false, NOW).unwrap();
    second.publish(message("a"), NOW).unwrap();
    let published = second.submit().unwrap().unwrap();
    broker.write_journal();
    assert_eq!(verdict(&first, &deleted), Some(Error::NotEmpty { queue: "q".into(), messages: 1 }));
    assert_eq!(second.outcome(published), Some(Ok(())));
    assert_eq!(second.fetch("q", None, NOW).unwrap().unwrap().message().id(), "a");
}

#[test]
fn a_message_on_its_way_keeps_its_queue() {
    let (_broker, mut first, mut second) = slow();
    second.publish(message("a"), NOW).unwrap();
    assert!(matches!(first.delete_queue("q", false, NOW), Err(Error::NotEmpty { messages: 1, .. })));
    drop(second);
    let _ = first.delete_queue("q", false, NOW).unwrap();
}

#[test]
fn a_forced_delete_leaves_nothing_behind() {
    let (broker, mut first, mut second) = slow();
    let _ = first.declare_exchange("e", NOW).unwrap();
    broker.write_journal();
    for key in ["a", "b"] {
        let _ = first.bind("e", "q", key, NOW).unwrap();
    }
    broker.write_journal();
    assert_eq!(first.topology_counts(), (2, 4));
    let deleted = first.delete_queue("q", true, NOW).unwrap();
    second.publish(message("a"), NOW).unwrap();
    let _ = second.submit().unwrap().unwrap();
    broker.write_journal();
    assert_eq!(verdict(&first, &deleted), None);
    assert_eq!((first.topology_counts(), first.store_bytes().0), ((2, 1), 0));
    assert!(first.list_bindings(Some("e"), None, 10).is_empty());
    assert!(matches!(second.publish(message("b"), NOW), Err(Error::NoRoute { .. })));
}

#[test]
fn bindings_of_a_deleted_exchange_are_forgotten_by_their_queue() {
    let mut link = immediate(BrokerOptions::default());
    for _ in 0..3 {
        let _ = link.declare_exchange("e", NOW).unwrap();
        let _ = link.bind("e", "default_queue", "k", NOW).unwrap();
        assert_eq!(link.topology_counts(), (2, 2));
        let _ = link.delete_exchange("e", NOW).unwrap();
        assert_eq!(link.topology_counts(), (1, 1));
    }
}

#[test]
fn of_two_declarations_that_differ_the_later_gets_conflict() {
    let (broker, mut first, mut second) = slow();
    let lease = |lease_ms| QueueOptions { lease_ms: Some(lease_ms), ..Default::default() };
    let declared = [
        first.declare_queue("new", &lease(1), NOW).unwrap(),
        second.declare_queue("new", &lease(2), NOW).unwrap(),
        second.declare_queue("new", &lease(1), NOW).unwrap(),
    ];
    broker.write_journal();
    let conflict = Error::Conflict { queue: "new".into(), has: "lease=1".into() };
    assert_eq!(declared.map(|returned| verdict(&first, &returned)), [None, Some(conflict), None]);
}

#[test]
fn a_bind_to_a_queue_deleted_meanwhile_says_so() {
    let (broker, mut first, mut second) = slow();
    let _ = first.delete_queue("q", false, NOW).unwrap();
    let bound = second.bind("default_exchange", "q", "other", NOW).unwrap();
    broker.write_journal();
    assert_eq!(verdict(&second, &bound), Some(Error::NoQueue("q".into())));
}

#[test]
fn dead_letter_queues_form_no_circle() {
    let (broker, mut first, mut second) = slow();
    let circle = Error::NotAllowed("dead-letter queues must not form a circle");
    let _ = first.declare_queue("a", &dead_letters_to("b"), NOW).unwrap();
    // Neither is there yet when both are asked for: the commit decides.
    let closing = second.declare_queue("b", &dead_letters_to("a"), NOW).unwrap();
    broker.write_journal();
    assert_eq!(verdict(&second, &closing), Some(circle.clone()));
    let _ = first.declare_queue("b", &dead_letters_to("c"), NOW).unwrap();
    broker.write_journal();
    assert_eq!(first.declare_queue("c", &dead_letters_to("a"), NOW).unwrap_err(), circle);
    assert!(matches!(first.declare_queue("self", &dead_letters_to("self"), NOW), Err(Error::NotAllowed(_))));
}

#[test]
fn a_row_of_dead_letter_queues_is_bounded() {
    let mut link = immediate(BrokerOptions::default());
    let mut declare = |n: usize| link.declare_queue(&n.to_string(), &dead_letters_to(&(n - 1).to_string()), NOW);
    (1..limits::DEAD_LETTER_CHAIN_MAX).for_each(|n| drop(declare(n).unwrap()));
    assert!(matches!(declare(limits::DEAD_LETTER_CHAIN_MAX), Err(Error::Limit(_))));
}

#[test]
fn small_messages_count_for_more_than_their_text_against_the_store() {
    let options = BrokerOptions { store_bytes_max: 100 * 256, ..Default::default() };
    let mut link = immediate(options);
    let key = limits::DEFAULT_KEY;
    let publish = |link: &mut Link, n: usize| {
        link.publish(Publish { exchange: limits::DEFAULT_EXCHANGE, key, id: &n.to_string(), envelope: "{}" }, NOW)
    };
    let stored = (0..1_000).take_while(|n| publish(&mut link, *n).is_ok()).count();
    let _ = link.submit().unwrap().unwrap();
    let text = limits::DEFAULT_EXCHANGE.len() + key.len() + "{}".len();
    assert!((100..=25_600 / (text + limits::MESSAGE_OVERHEAD_BYTES as usize)).contains(&stored), "{stored}");
    assert_eq!(publish(&mut link, 1_000), Err(Error::StoreFull));
    // What the queue shows is text only.
    let digits: usize = (0..stored).map(|n| n.to_string().len()).sum();
    assert_eq!(link.list_queues(None, 10)[0].bytes, (stored * text + digits) as u64);
    let _ = link.purge(limits::DEFAULT_QUEUE, NOW).unwrap();
    assert_eq!(link.store_bytes().0, 0);
}
