//! Whether the broker is where the model is.

use std::collections::{BTreeMap, VecDeque};

use ciphermq_broker::{Notice, Settle};

use super::queue::Place;
use super::{CONNECTIONS, LEASE_MS, World};

impl World {
    /// Counts and states agree wherever one looks.
    pub(super) fn look_around(&mut self, operation: usize) {
        let views = self.links[0].list_queues(None, usize::MAX);
        for view in &views {
            let Some(queue) = self.model.get(&view.queue) else { continue };
            let count = |is: fn(&Place) -> bool| queue.messages.iter().filter(|it| is(&it.place)).count() as u64;
            let model = (
                count(|place| *place == Place::Ready),
                count(|place| matches!(place, Place::Leased { .. })),
                count(|place| matches!(place, Place::Delayed { .. })),
            );
            assert_eq!((view.ready, view.leased, view.delayed), model, "{} after {operation}", view.queue);
            assert_eq!(view.consumers, queue.consumers.len());
        }
        if let Some(message) = self.model["work"].messages.front() {
            let copies = self.links[0].status(&message.id).unwrap();
            let copy = copies.iter().find(|copy| copy.queue == "work" && copy.acknowledged.is_none()).unwrap();
            let leased = matches!(message.place, Place::Leased { .. });
            assert_eq!(copy.attempts, message.attempts + u32::from(leased));
        }
    }

    pub(super) fn compare_deliveries(&mut self) {
        for (link, connection) in self.links.iter_mut().zip(&self.ids) {
            let expected = self.expected.entry(*connection).or_default();
            // A link hands deliveries of one queue in order; between queues only the model's grouping may differ.
            let mut by_queue: BTreeMap<String, VecDeque<(String, u32)>> = BTreeMap::new();
            for (queue, id, attempt) in expected.drain(..) {
                by_queue.entry(queue).or_default().push_back((id, attempt));
            }
            while let Some(notice) = link.next_notice() {
                let Notice::Delivery(delivery) = notice else { panic!("no queue is deleted here") };
                let got = (delivery.message().id().to_owned(), delivery.attempt());
                let queue = by_queue.get_mut(delivery.queue());
                assert_eq!(Some(got), queue.and_then(VecDeque::pop_front), "delivery from {}", delivery.queue());
            }
            let missing: Vec<_> = by_queue.into_iter().filter(|(_, left)| !left.is_empty()).collect();
            assert!(missing.is_empty(), "not delivered: {missing:?}");
        }
    }

    /// Everything that is left can be taken out, once each, and then nothing is accounted for any more.
    pub(super) fn drain(&mut self) {
        (0..CONNECTIONS).for_each(|_| self.reconnect(0));
        self.now = self.now.plus_ms(LEASE_MS);
        self.broker.handle_timeout(self.now);
        self.broker.write_journal();
        let now = self.now;
        let link = self.links.last_mut().unwrap();
        for (name, queue) in &self.model {
            let mut ids: Vec<String> = queue.messages.iter().map(|message| message.id.clone()).collect();
            ids.sort_unstable();
            let mut taken = Vec::new();
            while let Some(delivery) = link.fetch(name, None, now).unwrap() {
                taken.push(delivery.message().id().to_owned());
                link.settle(delivery.message().id(), Some(name), Settle::Ack, now).unwrap();
                let _ = link.submit().unwrap().unwrap();
                self.broker.write_journal();
            }
            taken.sort_unstable();
            assert!(taken == ids, "{name}: took {} of {}", taken.len(), ids.len());
        }
        assert_eq!(link.store_bytes().0, 0, "nothing stored, nothing reserved");
    }
}
