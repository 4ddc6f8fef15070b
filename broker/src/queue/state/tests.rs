use super::*;
use crate::model::ExchangeId;
use crate::{BrokerOptions, QueueOptions};

const NOW: Timestamp = Timestamp(5);
const A: ConnectionId = ConnectionId(1);
const B: ConnectionId = ConnectionId(2);

fn empty(budget: Budget) -> QueueState {
    let settings = QueueSettings::decide("q", &QueueOptions::default(), &BrokerOptions::default());
    QueueState::new(settings, Arc::new(budget))
}

fn push(state: &mut QueueState, order: u64) -> Option<Assigned> {
    let message = Message::new(&mut String::new(), (ExchangeId(1), "e"), "k", "id", "{}", NOW);
    state.push(Position(order), message.with_origin(Position(order), 1), NOW)
}

fn queue_of(messages: u64) -> QueueState {
    let mut state = empty(Budget::unlimited());
    (1..=messages).for_each(|order| assert!(push(&mut state, order).is_none()));
    state
}

#[test]
fn the_end_of_a_connection_looks_at_its_own_leases_only() {
    let mut state = queue_of(4);
    for connection in [A, B, A, B] {
        assert!(state.fetch(connection, 10, NOW).is_some());
    }
    assert_eq!(state.holders.sizes(A), (2, 2));
    state.detach(A, NOW);
    assert_eq!((state.holders.sizes(A), state.holders.sizes(B)), ((0, 0), (2, 2)));
    assert_eq!(state.counts(), Counts { ready: 2, leased: 2, delayed: 0 });
    let attempts = [1, 3].map(|order| state.find(Position(order))[0].attempts);
    assert_eq!(attempts, [1, 0], "the one held longest");
}

#[test]
fn one_hold_of_the_lock_ends_a_bounded_number_of_leases() {
    let mut state = queue_of(DUE_MAX as u64 + 1);
    while state.fetch(A, 10, NOW).is_some() {}
    let later = NOW.plus_ms(10);
    state.handle_timeout(later);
    assert_eq!(state.counts(), Counts { ready: DUE_MAX as u64, leased: 1, delayed: 0 });
    assert_eq!(state.poll_timeout(), Some(later));
    state.handle_timeout(later);
    assert_eq!((state.counts().leased, state.poll_timeout()), (0, None));
    let (live, entries) = state.holders.sizes(A);
    assert!(live == 0 && entries <= 64, "{entries} entries for no lease");
}

#[test]
fn credit_returns_when_the_lease_has_ended_and_its_delivery_was_taken() {
    for taken_first in [true, false] {
        let mut state = queue_of(2);
        state.consumers.subscribe(A, 1);
        let Assigned { order, lease, paid, .. } = state.poll_delivery(NOW).unwrap();
        let which = LeaseRef { order, lease };
        if taken_first {
            assert!(state.take_delivery(A, which, paid));
            assert!(state.poll_delivery(NOW).is_none());
            state.retire(order);
        } else {
            state.retire(order);
            assert!(state.poll_delivery(NOW).is_none());
            assert!(!state.take_delivery(A, which, paid));
        }
        assert_eq!(state.poll_delivery(NOW).unwrap().order, Position(2));
    }
}
