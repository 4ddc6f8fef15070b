//! The checker catches what it must: a test that cannot fail shows nothing.

use super::*;
use crate::torture::message::Route;

const ORDERED: Place = Place::Queue(Queue::Ordered);
const DEAD: Place = Place::DeadLetters(Queue::Ordered);

/// The first messages of publisher 0 that go to the ordered queue only.
fn ids<const N: usize>() -> [Id; N] {
    let mut numbers = (0..).map(|number| Id { publisher: 0, number }).filter(|id| id.route() == Route::Ordered);
    [(); N].map(|()| numbers.next().expect("a third of all"))
}

fn publish(history: &History, ids: &[Id]) {
    ids.iter().for_each(|id| history.sending(*id));
    ids.iter().for_each(|id| history.acknowledged(*id));
}

fn deliver(history: &History, place: Place, id: Id) {
    history.delivered(place, &id.to_string(), &id.envelope());
}

fn ack(history: &History, place: Place, id: Id) {
    deliver(history, place, id);
    history.settling(place, id, Settling::Ack);
    history.settled(place, id);
}

#[track_caller]
fn assert_caught(history: &History, what: &str) {
    let violation = history.violation().expect("a violation");
    assert!(violation.contains(what), "{violation}");
}

#[test]
fn a_good_run_is_accounted_for() {
    let (history, [one, two, three, lost]) = (History::default(), ids());
    publish(&history, &[one, two]);
    history.sending(three);
    history.sending(lost);
    ack(&history, ORDERED, one);
    deliver(&history, ORDERED, two);
    history.settling(ORDERED, two, Settling::Reject);
    history.ended([(ORDERED, two)]);
    ack(&history, DEAD, two);
    ack(&history, ORDERED, three);
    let counts = history.account();
    assert_eq!(history.violation(), None);
    assert_eq!(counts, Counts { published: 2, gone: 2, kept_unanswered: 1, lost_unanswered: 1 });
}

#[test]
fn an_acknowledged_message_that_is_missing_is_caught() {
    let (history, [id]) = (History::default(), ids());
    publish(&history, &[id]);
    history.account();
    assert_caught(&history, "is missing in ordered");
}

#[test]
fn a_message_that_was_seen_cannot_vanish_even_unacknowledged() {
    let (history, [id]) = (History::default(), ids());
    history.sending(id);
    deliver(&history, ORDERED, id);
    history.ended([(ORDERED, id)]);
    history.account();
    assert_caught(&history, "is missing in ordered");
}

#[test]
fn what_was_confirmed_may_not_come_back() {
    let (history, [id]) = (History::default(), ids());
    publish(&history, &[id]);
    ack(&history, ORDERED, id);
    deliver(&history, ORDERED, id);
    assert_caught(&history, "which is Gone");
}

#[test]
fn what_was_rejected_may_not_come_back_nor_be_lost() {
    for comes_back in [true, false] {
        let (history, [id]) = (History::default(), ids());
        publish(&history, &[id]);
        deliver(&history, ORDERED, id);
        history.settling(ORDERED, id, Settling::Reject);
        history.settled(ORDERED, id);
        if comes_back {
            deliver(&history, ORDERED, id);
            assert_caught(&history, "which is Dead");
        } else {
            history.account();
            assert_caught(&history, "is missing");
        }
    }
}

#[test]
fn two_copies_at_a_time_are_caught() {
    let (history, [id]) = (History::default(), ids());
    publish(&history, &[id]);
    deliver(&history, ORDERED, id);
    deliver(&history, ORDERED, id);
    assert_caught(&history, "which is Held");
}

#[test]
fn inventions_are_caught() {
    let [id, never_sent] = ids();
    let deliveries = [
        (ORDERED, never_sent.to_string(), never_sent.envelope()),
        (ORDERED, "p0-4294967295".to_owned(), id.envelope()),
        (ORDERED, "someone-else".to_owned(), id.envelope()),
        (Place::Queue(Queue::Shared), id.to_string(), id.envelope()),
        (ORDERED, id.to_string(), never_sent.envelope()),
        (DEAD, id.to_string(), id.envelope()),
    ];
    for (place, name, envelope) in deliveries {
        let history = History::default();
        publish(&history, &[id]);
        history.delivered(place, &name, &envelope);
        assert!(history.violation().is_some(), "{place} {name} {envelope}");
    }
}

#[test]
fn the_ordered_queue_in_another_order_is_caught() {
    let (history, [one, two]) = (History::default(), ids());
    publish(&history, &[one, two]);
    deliver(&history, ORDERED, two);
    history.ended([(ORDERED, two)]);
    deliver(&history, ORDERED, one);
    assert_caught(&history, "after number");
}

#[test]
fn half_a_batch_is_caught() {
    let (history, [one, two]) = (History::default(), ids());
    history.sending(one);
    history.sending(two);
    history.left_open(vec![one, two]);
    ack(&history, ORDERED, one);
    history.account();
    assert_caught(&history, "1 of a batch of 2");
}

#[test]
fn a_broker_that_confirms_what_nobody_settled_is_caught() {
    let (history, [id]) = (History::default(), ids());
    publish(&history, &[id]);
    history.settled(ORDERED, id);
    assert_caught(&history, "confirmed a settlement");
}
