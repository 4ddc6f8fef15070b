//! What clients do, and what each answer is held against.

use ciphermq_broker::{Delivery, Error, Notice, Reason};
use rand::RngExt;

use crate::history::{Client, Held, History, LEASE_MS};
use crate::model::{Certainty, Copy, Entry, Name, Place, QUEUES, name};

impl History {
    pub(crate) fn operate(&mut self) {
        self.coverage.operations += 1;
        match self.random.random_range(0..1000) {
            0..230 => self.publish_new(),
            230..265 => self.publish_batch(),
            265..325 => self.publish_again(),
            325..385 => self.submit_any(),
            385..525 => self.let_the_journal_work(),
            525..575 => self.subscribe(),
            575..585 => self.cancel(),
            585..685 => self.take(),
            685..805 => self.settle(),
            805..885 => self.fetch(),
            885..895 => self.ack_anywhere(),
            895..932 => self.change_topology(),
            932..946 => self.end_connection(),
            946..954 => self.take_over_session(),
            954..988 => self.pass_time(),
            _ => self.look(),
        }
        while self.running().clients.len() < self.clients_wanted {
            self.connect();
        }
    }

    pub(crate) fn client_does(&mut self, client: usize, what: String) {
        let number = self.client(client).number;
        self.say(format!("client {number} {what}"));
    }

    fn let_the_journal_work(&mut self) {
        self.say("the journal works".into());
        self.write_journal();
    }

    fn submit_any(&mut self) {
        let at = self.any_client();
        self.client_does(at, "submits".into());
        self.submit(at);
    }

    pub(crate) fn submit_soon(&mut self, client: usize) {
        if self.chance(10) {
            return;
        }
        self.submit(client);
        if self.chance(4) {
            self.write_journal();
        }
    }

    pub(crate) fn any_queue(&mut self) -> Name {
        let names: Vec<Name> = self.model.queues.keys().copied().collect();
        if self.chance(3) {
            self.pick(&names).unwrap_or(QUEUES[0])
        } else {
            self.pick(&QUEUES[..3]).unwrap_or(QUEUES[0])
        }
    }

    fn subscribe(&mut self) {
        let (client, queue, credit) = (self.any_client(), self.any_queue(), self.random.random_range(1..6));
        let at = self.at();
        self.client_does(client, format!("consumes {queue} with credit {credit}"));
        let subscribed = self.client(client).link.subscribe(queue, credit, at);
        match (subscribed, self.model.queue_ref(queue)) {
            (Ok(()), Some(found)) => {
                self.client(client).subscribed.insert(queue, found);
                self.model.queues.get_mut(queue).expect("just found").is_only_fetched = false;
            }
            (Err(Error::NoQueue(_)), None) => {}
            (other, found) => panic!("subscribe to {queue} ({found:?}): {other:?}"),
        }
        self.note_take_overs();
    }

    fn cancel(&mut self) {
        let client = self.any_client();
        let subscribed: Vec<Name> = self.client(client).subscribed.keys().copied().collect();
        let Some(queue) = self.pick(&subscribed) else { return };
        self.client_does(client, format!("cancels {queue}"));
        let at = self.at();
        self.client(client).subscribed.remove(queue);
        let cancelled = self.client(client).link.cancel(queue, at);
        assert!(cancelled.is_ok(), "a subscription could not be cancelled: {cancelled:?}");
    }

    /// Takes some of what waits for a consumer.
    fn take(&mut self) {
        let client = self.any_client();
        self.client_does(client, "takes what waits".into());
        for _ in 0..self.random.random_range(1..8) {
            match self.client(client).link.next_notice() {
                None => return,
                Some(Notice::Cancelled { queue }) => {
                    let queue = name(&queue);
                    let before = self.client(client).subscribed.remove(queue);
                    let is_gone = before.is_some_and(|before| self.model.queue(before).is_none());
                    assert!(is_gone || self.is_broken(), "the end of {queue} was told, but it is there");
                }
                Some(Notice::Delivery(delivery)) => self.delivered(client, delivery, false),
            }
        }
    }

    fn fetch(&mut self) {
        let (client, queue) = (self.any_client(), self.any_queue());
        // Which of a connection's leases is the oldest is known only if it does not do both.
        if self.client(client).subscribed.contains_key(queue) {
            return;
        }
        self.client_does(client, format!("fetches from {queue}"));
        let at = self.at();
        let fetched = self.client(client).link.fetch(queue, None, at);
        if self.is_broken() {
            return;
        }
        let expected = self.model.queues.get(queue);
        match fetched {
            Err(Error::NoQueue(_)) if expected.is_none() => {}
            Err(error) => panic!("fetch from {queue}: {error}"),
            Ok(None) => {
                let is_taken_over = self.client(client).is_taken_over;
                let queue = &self.model.queues[queue];
                let left = queue.copies.values().find(|copy| {
                    copy.place == Place::Ready && copy.certainty == Certainty::There && queue.is_only_fetched
                });
                let is_excused = is_taken_over || left.is_none();
                assert!(is_excused, "nothing to fetch, but there is {left:?}");
            }
            Ok(Some(delivery)) => self.delivered(client, delivery, true),
        }
        self.note_take_overs();
    }

    /// A message was handed over: it must be one that was published, committed, not settled, and nobody else's.
    pub(crate) fn delivered(&mut self, client: usize, delivery: Delivery, is_fetched: bool) {
        self.coverage.deliveries += 1;
        self.coverage.redeliveries += u64::from(delivery.attempt() > 1);
        let queue = name(delivery.queue());
        let send = self.recognise(delivery.message());
        let from = delivery.message().dead_letter().map(|dead| (name(dead.from), dead.reason));
        self.say(format!("... {queue} gives n{send} {from:?}, attempt {}", delivery.attempt()));
        let (number, now) = (self.client(client).number, self.now);
        let Some(at) = self.model.queue_ref(queue) else { panic!("a delivery from {queue}, which is not there") };
        let copies = &self.model.queues[queue].copies;
        let same: Vec<&Copy> = copies.values().filter(|copy| copy.send == send && copy.from == from).collect();
        let fits = |copy: &&&Copy| copy.place == Place::Ready && copy.attempts + 1 == delivery.attempt();
        let Some(copy) = same.iter().filter(fits).min_by_key(|copy| copy.rank) else {
            panic!("{queue} gave n{send} {from:?}, attempt {}: there is {same:?}", delivery.attempt());
        };
        let (copy, rank, ready_since) = (copy.number, copy.rank, copy.ready_since);
        if self.model.queues[queue].is_only_fetched {
            let ready = copies.values().filter(|copy| copy.place == Place::Ready && copy.certainty == Certainty::There);
            let first = ready.map(|copy| copy.rank).min();
            assert!(first.is_none_or(|first| first >= rank), "{queue} gave {rank:?} before {first:?}");
        }
        let latest = now + LEASE_MS;
        let earliest = if is_fetched { latest } else { ready_since + LEASE_MS - self.lag_ms };
        self.model.is_certain_now(at, copy);
        let place = Place::Leased { connection: number, earliest, latest };
        self.model.copy_mut(at, copy).expect("just found").place = place;
        let held = &mut self.client(client).held;
        held.retain(|held| (held.queue, held.copy) != (at, copy));
        held.push(Held { queue: at, copy, delivery });
    }

    /// The publish a message is from; its bytes are those that were sent.
    pub(crate) fn recognise(&self, message: &ciphermq_broker::Message) -> usize {
        let digits = message.envelope().strip_prefix("{\"n\":").and_then(|rest| rest.split(',').next());
        let number = digits.and_then(|digits| digits.parse::<usize>().ok());
        let send = number.and_then(|number| self.model.sends.get(number));
        let Some(send) = send else { panic!("nobody sent {message:?}") };
        let is_same = (message.envelope(), message.id(), message.exchange(), message.key(), message.published().0)
            == (&*send.envelope, &*send.id, send.exchange.0, send.key, send.at);
        assert!(is_same, "not as it was sent: {message:?}, sent {send:?}");
        number.expect("found by it")
    }

    fn end_connection(&mut self) {
        let client = self.any_client();
        self.end_client(client);
    }

    /// Ends a connection, as if its socket had closed.
    pub(crate) fn end_client(&mut self, index: usize) {
        // Worn-out messages whose move was never submitted would have used up more attempts than there are.
        let is_worn_out = |entry: &Entry| matches!(entry, Entry::Move { reason: Reason::Attempts, .. });
        if self.client(index).collected.iter().any(is_worn_out) {
            self.submit(index);
        }
        self.coverage.connections_ended += 1;
        let client = self.running().clients.remove(index);
        self.say(format!("client {} ends with {} leases", client.number, client.held.len()));
        let (at, broken) = (self.at(), self.is_broken());
        let (held, collected) = (client.held, client.collected);
        client.link.end(at);
        if broken {
            return;
        }
        self.never_submitted(collected);
        self.detached(held);
    }

    /// What was collected and never submitted has not happened.
    fn never_submitted(&mut self, collected: Vec<Entry>) {
        let now = self.now;
        for entry in collected {
            self.has_untold_attempts |= matches!(entry, Entry::Attempts { .. });
            if let Entry::Settle { queue, copy } | Entry::Move { queue, copy, .. } = entry
                && let Some(copy) = self.model.copy_mut(queue, copy)
                && copy.place == Place::Leaving
            {
                (copy.place, copy.ready_since) = (Place::Ready, now);
            }
        }
    }

    /// Leases return; in each queue the one held longest has used up an attempt.
    fn detached(&mut self, held: Vec<Held>) {
        let (mut tried, mut entries) = (Vec::new(), Vec::new());
        for Held { queue, copy, .. } in held {
            let is_first = !tried.contains(&queue);
            tried.push(queue);
            entries.extend(self.model.put_back(queue, copy, is_first, 0, self.now));
        }
        self.submitted(self.now, entries, None, None);
    }

    fn take_over_session(&mut self) {
        let with_session = |client: &Client| client.session;
        let known: Vec<_> = self.running().clients.iter().filter_map(with_session).collect();
        let client = self.any_client();
        if self.client(client).session.is_some() || self.client(client).is_taken_over {
            return;
        }
        let (asked, at) = (self.pick(&known), self.at());
        self.client_does(client, format!("opens a session, taking one over: {}", asked.is_some()));
        let opened = self.client(client).link.open_session(asked, at);
        self.client(client).session = Some(opened);
        self.note_take_overs();
    }

    /// Connections whose session was taken over have lost their leases at that moment.
    fn note_take_overs(&mut self) {
        for index in 0..self.running().clients.len() {
            let client = self.client(index);
            if client.is_taken_over || !client.link.is_taken_over() {
                continue;
            }
            client.is_taken_over = true;
            client.session = None;
            client.subscribed.clear();
            let held = std::mem::take(&mut client.held);
            self.coverage.sessions_taken_over += 1;
            if !self.is_broken() {
                self.detached(held);
            }
        }
        if let Some(index) = self.running().clients.iter().position(|client| client.is_taken_over) {
            self.end_client(index);
        }
    }

    fn pass_time(&mut self) {
        let ms = [1, 20, 100, 250, LEASE_MS + 10, 1_200][self.random.random_range(0..6)];
        self.now += ms;
        self.say(format!("{ms} ms pass"));
        if !self.chance(5) {
            self.timers_fire();
        }
    }

    pub(crate) fn timers_fire(&mut self) {
        let (at, now) = (self.at(), self.now);
        self.running().broker.handle_timeout(at);
        if self.is_broken() {
            return;
        }
        for copy in self.model.queues.values_mut().flat_map(|queue| queue.copies.values_mut()) {
            if matches!(copy.place, Place::Delayed { until } if until <= now) {
                (copy.place, copy.ready_since) = (Place::Ready, now);
            }
        }
        let mut ended = Vec::new();
        for client in &mut self.running.as_mut().expect("runs").clients {
            let link = &client.link;
            let model = &self.model;
            client.held.retain(|held| {
                let still = link.holds(&held.delivery);
                let place = model.copy(held.queue, held.copy).map(|copy| copy.place);
                let Some(Place::Leased { earliest, latest, .. }) = place else { panic!("held, but {place:?}") };
                assert!(still || earliest <= now, "a lease until {earliest} was over at {now}");
                assert!(!still || now < latest, "a lease until {latest} goes on at {now}");
                if !still {
                    ended.push((held.queue, held.copy));
                }
                still
            });
        }
        self.coverage.leases_run_out += ended.len() as u64;
        let entries: Vec<_> =
            ended.into_iter().filter_map(|(queue, copy)| self.model.put_back(queue, copy, true, 0, now)).collect();
        self.submitted(now, entries, None, None);
    }
}
