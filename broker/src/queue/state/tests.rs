use super::*;
use crate::model::ExchangeId;
use crate::queue::Size;
use crate::{BrokerOptions, QueueOptions};

const NOW: Timestamp = Timestamp(5);
const A: ConnectionId = ConnectionId(1);
const B: ConnectionId = ConnectionId(2);
/// Text of a message made by `push`.
const TEXT_BYTES: u64 = 6;

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
fn the_end_of_a_connection_tells_of_every_message_that_has_no_attempt_left() {
    let mut state = queue_of(3);
    state.settings.max_attempts = 1;
    for order in [1, 2] {
        // It wore out, but could not be moved: the disk was full.
        let Assigned { order: leased, lease, .. } = state.fetch(A, 10, NOW).unwrap();
        assert_eq!(leased, Position(order));
        let which = LeaseRef { order: leased, lease };
        assert!(state.give_back(A, which, GiveBack::Nack { delay_ms: 0 }, NOW).unwrap().unwrap().worn_out);
    }
    [1, 2].into_iter().for_each(|order| state.restore(Position(order)));
    (0..3).for_each(|_| assert!(state.fetch(A, 10, NOW).is_some()));
    let tried = state.detach(A, NOW);
    let told: Vec<_> = tried.iter().map(|tried| (tried.order.0, tried.attempts, tried.worn_out)).collect();
    assert_eq!(told, [(1, 2, true), (2, 1, true)]);
    assert_eq!(state.counts(), Counts { ready: 1, leased: 2, delayed: 0 }, "those wait for their move");
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

/// A budget for so many of the messages `push` makes.
fn room_for(messages: u64) -> Budget {
    Budget::new(messages * (TEXT_BYTES + limits::MESSAGE_OVERHEAD_BYTES))
}

fn at(location: u64) -> Stored {
    Stored { location: Position(location), size: Size::new(TEXT_BYTES, 0) }
}

fn is_resident(body: &Body) -> bool {
    matches!(body, Body::Resident(_))
}

/// Order, whether the body is in memory, and the attempt, of everything that is ready.
fn drain(state: &mut QueueState) -> Vec<(u64, bool, u32)> {
    let fetched = std::iter::from_fn(|| state.fetch(A, 10, NOW));
    fetched.map(|assigned| (assigned.order.0, is_resident(&assigned.body), assigned.attempt)).collect()
}

#[test]
fn beyond_the_budget_bodies_leave_memory_and_the_order_stays() {
    let mut state = empty(room_for(2));
    (1..=4).for_each(|order| assert!(push(&mut state, order).is_none()));
    assert_eq!(state.counts(), Counts { ready: 4, leased: 0, delayed: 0 });
    let first = state.fetch(A, 10, NOW).unwrap();
    assert!(first.order == Position(1) && is_resident(&first.body), "its part of the budget is free again");
    (5..=6).for_each(|order| assert!(push(&mut state, order).is_none()));
    let in_memory = |order| matches!(order, 2 | 5);
    assert_eq!(drain(&mut state), [2, 3, 4, 5, 6].map(|order| (order, in_memory(order), 1)));
    assert_eq!(state.budget.bytes(), 0);
}

#[test]
fn a_body_for_a_waiting_consumer_takes_no_part_of_the_budget() {
    let mut state = empty(room_for(0));
    state.consumers.subscribe(A, 2);
    let given = push(&mut state, 1).unwrap();
    assert!(given.connection == A && is_resident(&given.body));
    assert_eq!(state.location(Position(1)), Some(at(1)));
    let which = LeaseRef { order: given.order, lease: given.lease };
    assert!(state.take_delivery(A, which, given.paid));
    assert_eq!(state.give_back(A, which, GiveBack::Release, NOW), Ok(None));
    // It would be delivered out of turn if the next one went past it.
    assert!(push(&mut state, 2).is_none());
    let next = [state.poll_delivery(NOW), state.poll_delivery(NOW), state.poll_delivery(NOW)];
    let next = next.map(|given| given.map(|given| (given.order.0, is_resident(&given.body))));
    assert_eq!(next, [Some((1, false)), Some((2, false)), None]);
}

#[test]
fn what_comes_back_is_read_back() {
    let mut state = empty(room_for(10));
    (1..=4).for_each(|order| assert!(push(&mut state, order).is_none()));
    let leases: Vec<_> = std::iter::from_fn(|| state.fetch(A, 10, NOW)).collect();
    assert!(leases.iter().all(|given| is_resident(&given.body)));
    let which = |index: usize| LeaseRef { order: leases[index].order, lease: leases[index].lease };
    let tried = |order, attempts| Tried { order: Position(order), attempts, worn_out: false };
    assert_eq!(state.give_back(A, which(0), GiveBack::Nack { delay_ms: 3 }, NOW), Ok(Some(tried(1, 1))));
    assert_eq!(state.give_back(A, which(1), GiveBack::Nack { delay_ms: 0 }, NOW), Ok(Some(tried(2, 1))));
    assert_eq!(state.detach(A, NOW), [tried(3, 1)]);
    assert!(state.handle_timeout(NOW.plus_ms(3)).is_empty());
    assert_eq!(drain(&mut state), [(1, false, 2), (2, false, 2), (3, false, 2), (4, false, 1)]);
    let later: Vec<_> = (1..=4).map(|order| tried(order, if order < 4 { 2 } else { 1 })).collect();
    assert_eq!(state.handle_timeout(NOW.plus_ms(10)), later);
    assert_eq!(state.retire(Position(4)), Some(at(4)));
}

#[test]
fn without_a_log_to_read_everything_stays_in_memory() {
    let mut state = queue_of(100);
    for attempt in 1..=2 {
        assert_eq!(drain(&mut state), (1..=100).map(|order| (order, true, attempt)).collect::<Vec<_>>());
        state.handle_timeout(NOW.plus_ms(10));
    }
    assert_eq!(state.budget.bytes(), 0);
}

#[test]
fn one_that_cannot_be_read_back_keeps_its_credit_and_uses_up_no_attempt() {
    let mut state = empty(room_for(0));
    (1..=3).for_each(|order| assert!(push(&mut state, order).is_none()));
    state.consumers.subscribe(A, 1);
    let mut now = NOW;
    for _ in 0..2 * state.settings.max_attempts {
        let given = state.poll_delivery(now).unwrap();
        assert_eq!((given.order, given.attempt), (Position(1), 1));
        let which = LeaseRef { order: given.order, lease: given.lease };
        assert!(state.take_delivery(A, which, given.paid));
        state.unread(A, which);
        assert!(state.poll_delivery(now).is_none(), "not through the whole queue in vain");
        now = now.plus_ms(limits::UNREADABLE_RETRY_MS);
        assert_eq!(state.poll_timeout(), Some(now));
        assert!(state.handle_timeout(now).is_empty());
    }
}

#[test]
fn one_that_can_never_be_read_back_leaves_and_the_next_one_comes() {
    let mut state = empty(room_for(0));
    (1..=2).for_each(|order| assert!(push(&mut state, order).is_none()));
    state.consumers.subscribe(A, 1);
    let given = state.poll_delivery(NOW).unwrap();
    let which = LeaseRef { order: given.order, lease: given.lease };
    assert!(state.take_delivery(A, which, given.paid));
    assert_eq!(state.abandon(A, which), Ok(NOW));
    assert_eq!(state.abandon(A, which), Err(NoLease));
    assert_eq!(state.poll_delivery(NOW).unwrap().order, Position(2));
    assert_eq!(state.counts(), Counts { ready: 0, leased: 2, delayed: 0 });
    assert!(state.retire(Position(1)).is_some());
}

#[test]
fn a_worn_out_message_that_cannot_be_read_back_is_given_out_once_more() {
    let mut state = empty(room_for(0));
    state.settings.max_attempts = 1;
    assert!(push(&mut state, 1).is_none());
    assert_eq!(drain(&mut state), [(1, false, 1)]);
    let later = NOW.plus_ms(10);
    assert_eq!(state.handle_timeout(later), [Tried { order: Position(1), attempts: 1, worn_out: true }]);
    state.defer(Position(1), later);
    assert!(state.fetch(A, 10, later).is_none());
    assert!(state.handle_timeout(later.plus_ms(limits::UNREADABLE_RETRY_MS)).is_empty());
    assert_eq!(drain(&mut state), [(1, false, 2)]);
}

#[test]
fn records_are_found_in_any_order_and_delivered_in_theirs() {
    let mut state = empty(room_for(0));
    // 9 and 8 are still where they came; the others were written anew, some twice, behind younger ones.
    for (order, location, attempts) in
        [(8, 8, 0), (9, 9, 0), (5, 10, 0), (2, 11, 0), (4, 12, 3), (5, 13, 1), (3, 14, 0)]
    {
        let replaced = state.recover(Position(order), at(location), Position(order), attempts);
        assert_eq!(replaced, (location == 13).then_some(at(10)));
    }
    assert_eq!(state.recover(Position(8), at(15), Position(8), 0), Some(at(8)));
    state.set_attempts(Position(9), 1);
    state.set_attempts(Position(9), 0);
    state.set_attempts(Position(77), 1);
    assert_eq!(state.attempts(Position(9)), Some(1));
    state.recovered();
    assert_eq!((state.stored.len(), state.returned.len()), (3, 3), "what is alike takes little room");
    let locations = [2, 3, 4, 5, 8, 9].map(|order| state.location(Position(order)).unwrap().location.0);
    assert_eq!(locations, [11, 14, 12, 13, 15, 9]);
    let expected = [(2, 1), (3, 1), (4, 4), (5, 2), (8, 1), (9, 2)];
    assert_eq!(drain(&mut state), expected.map(|(order, attempt)| (order, false, attempt)));
}

#[test]
fn a_record_written_anew_is_known_wherever_its_message_is() {
    let mut state = empty(room_for(3));
    (1..=7).for_each(|order| assert!(push(&mut state, order).is_none()));
    let which = |given: Assigned| LeaseRef { order: given.order, lease: given.lease };
    // 1 delayed, 2 leaving, 3 in memory until it is written anew, 4 in the log.
    let [first, second] = [(); 2].map(|()| which(state.fetch(A, 10, NOW).unwrap()));
    state.give_back(A, first, GiveBack::Nack { delay_ms: 1 }, NOW).unwrap();
    state.settle(A, second).unwrap();
    for order in 1..=4 {
        assert_eq!(state.relocate(Position(order), at(100 + order)), Some(at(order)));
        assert_eq!(state.location(Position(order)), Some(at(100 + order)));
    }
    assert_eq!(state.relocate(Position(8), at(108)), None);
    assert_eq!(state.budget.bytes(), 0);
    assert_eq!(state.retire(Position(2)), Some(at(102)));
    state.handle_timeout(NOW.plus_ms(1));
    let expected = [(1, 2), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1)];
    assert_eq!(drain(&mut state), expected.map(|(order, attempt)| (order, false, attempt)));
    assert_eq!(state.relocate(Position(3), at(203)), Some(at(103)), "and while it is leased");
}

#[test]
fn what_is_condemned_cannot_be_leased_and_what_is_leased_stays() {
    for refused in [true, false] {
        let mut state = empty(room_for(4));
        (1..=8).for_each(|order| assert!(push(&mut state, order).is_none()));
        let given: Vec<_> = (0..4).map(|_| state.fetch(A, 10, NOW).unwrap()).collect();
        let which = |index: usize| LeaseRef { order: given[index].order, lease: given[index].lease };
        state.give_back(A, which(0), GiveBack::Nack { delay_ms: 5 }, NOW).unwrap();
        state.give_back(A, which(1), GiveBack::Release, NOW).unwrap();
        state.settle(A, which(2)).unwrap();
        let before = state.counts();
        assert_eq!(state.condemn(), [Position(3), Position(4)]);
        assert_eq!(state.counts(), before);
        assert!(state.fetch(B, 10, NOW).is_none());
        state.give_back(A, which(3), GiveBack::Release, NOW).unwrap();
        if refused {
            state.restore_condemned();
            state.handle_timeout(NOW.plus_ms(5));
            assert_eq!(drain(&mut state).iter().map(|given| given.0).collect::<Vec<_>>(), [1, 2, 4, 5, 6, 7, 8]);
        } else {
            let mut released = Vec::new();
            let budget = Arc::clone(&state.budget);
            state.take_condemned().unwrap().release(&budget, |at| released.push(at.location.0));
            released.sort_unstable();
            assert_eq!(released, [1, 2, 5, 6, 7, 8]);
            assert!(state.take_condemned().is_none() && state.handle_timeout(NOW.plus_ms(5)).is_empty());
            assert_eq!(drain(&mut state).iter().map(|given| given.0).collect::<Vec<_>>(), [4]);
        }
        assert_eq!(state.budget.bytes(), 0);
    }
}

#[test]
fn a_purge_found_in_the_log_spares_what_it_spared() {
    let mut state = empty(room_for(0));
    for order in 1..=6 {
        assert!(state.recover(Position(order), at(order), Position(order), u32::from(order % 3 == 0)).is_none());
    }
    let mut released = Vec::new();
    let budget = Arc::clone(&state.budget);
    let taken = state.take_except(&[Position(2), Position(3), Position(9)]).unwrap();
    taken.release(&budget, |at| released.push(at.location.0));
    released.sort_unstable();
    assert_eq!(released, [1, 4, 5, 6]);
    assert_eq!(drain(&mut state), [(2, false, 1), (3, false, 2)]);
}

#[test]
fn dead_letters_are_found_by_where_they_were_published_until_they_leave() {
    let mut state = empty(room_for(0));
    for order in 1_000..3_000 {
        assert!(state.recover(Position(order), at(order), Position(order / 2), 0).is_none());
    }
    let found: Vec<_> = state.find(Position(700)).into_iter().map(|sighting| sighting.order.0).collect();
    assert_eq!(found, [1_400, 1_401]);
    for order in 1_000..2_990 {
        assert!(state.retire(Position(order)).is_some());
        assert!(state.moved.len() <= 2 * (state.len() + 1) + MOVED_ENDED_MAX, "after {order}");
    }
    assert!(state.find(Position(700)).is_empty());
    assert_eq!(state.find(Position(1_495)).len(), 2);
    state.condemn();
    assert!(state.take_condemned().is_some() && state.moved.is_empty());
}
