use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::ConnectionId;

/// The consumers of one queue: who is next, and how much credit each has left.
///
/// Only consumers with credit stand in `turn`, so finding the next one never scans the others.
#[derive(Debug, Default)]
pub(crate) struct Consumers {
    credits: HashMap<ConnectionId, Credit>,
    turn: VecDeque<ConnectionId>,
    subscriptions: u64,
}

/// One subscription: cancelled and made again it is another one, whose credit the old leases do not touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SubscriptionId(u64);

#[derive(Debug)]
struct Credit {
    subscription: SubscriptionId,
    limit: u32,
    used: u32,
    in_turn: bool,
}

impl Consumers {
    pub(crate) fn len(&self) -> usize {
        self.credits.len()
    }

    pub(crate) fn is_anyone_in_turn(&self) -> bool {
        !self.turn.is_empty()
    }

    /// Adds a consumer, or changes the limit of one that is there.
    pub(crate) fn subscribe(&mut self, id: ConnectionId, limit: u32) {
        self.subscriptions += 1;
        let subscription = SubscriptionId(self.subscriptions);
        let new = Credit { subscription, limit, used: 0, in_turn: false };
        let credit = self.credits.entry(id).or_insert(new);
        credit.limit = limit;
        credit.join_turn(id, &mut self.turn);
    }

    pub(crate) fn unsubscribe(&mut self, id: ConnectionId) -> bool {
        self.turn.retain(|waiting| *waiting != id);
        self.credits.remove(&id).is_some()
    }

    /// The consumer whose turn it is; one credit of it is spent.
    pub(crate) fn take_turn(&mut self) -> Option<(ConnectionId, SubscriptionId)> {
        loop {
            let id = self.turn.pop_front()?;
            let credit =
                self.credits.get_mut(&id).expect("whoever stands in turn is subscribed: unsubscribe removes both");
            credit.in_turn = false;
            // A limit lowered since it joined leaves it without credit: it loses its turn.
            if credit.used < credit.limit {
                credit.used += 1;
                credit.join_turn(id, &mut self.turn);
                return Some((id, credit.subscription));
            }
        }
    }

    /// A delivery of this subscription ended. Ignored if the subscription has.
    pub(crate) fn return_credit(&mut self, id: ConnectionId, subscription: SubscriptionId) {
        if let Some(credit) = self.credits.get_mut(&id).filter(|credit| credit.subscription == subscription) {
            credit.used -= 1;
            credit.join_turn(id, &mut self.turn);
        }
    }
}

impl Credit {
    fn join_turn(&mut self, id: ConnectionId, turn: &mut VecDeque<ConnectionId>) {
        if !self.in_turn && self.used < self.limit {
            self.in_turn = true;
            turn.push_back(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConnectionId = ConnectionId(1);
    const B: ConnectionId = ConnectionId(2);

    fn turn(consumers: &mut Consumers) -> Option<ConnectionId> {
        consumers.take_turn().map(|(id, _)| id)
    }

    #[test]
    fn consumers_take_turns_within_their_credit() {
        let mut consumers = Consumers::default();
        consumers.subscribe(A, 3);
        consumers.subscribe(B, 1);
        let turns: Vec<_> = std::iter::from_fn(|| consumers.take_turn()).collect();
        assert_eq!(turns.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [A, B, A, A]);
        consumers.return_credit(B, turns[1].1);
        assert_eq!(turn(&mut consumers), Some(B));
    }

    #[test]
    fn credit_changes_live() {
        let mut consumers = Consumers::default();
        consumers.subscribe(A, 2);
        assert_eq!(turn(&mut consumers), Some(A));
        consumers.subscribe(A, 1);
        assert_eq!(turn(&mut consumers), None, "lowered to what is used");
        consumers.subscribe(A, 2);
        assert_eq!(turn(&mut consumers), Some(A));
    }

    /// Found by the model test: leases of a cancelled subscription paid into the next one.
    #[test]
    fn old_leases_give_no_credit_to_a_new_subscription() {
        let mut consumers = Consumers::default();
        consumers.subscribe(A, 1);
        let (_, old) = consumers.take_turn().unwrap();
        assert!(consumers.unsubscribe(A));
        consumers.subscribe(A, 1);
        assert_eq!(turn(&mut consumers), Some(A));
        consumers.return_credit(A, old);
        assert_eq!(turn(&mut consumers), None);
    }
}
