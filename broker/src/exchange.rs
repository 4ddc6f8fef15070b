use std::sync::{Arc, PoisonError, RwLock};

use ciphermq_journal::Durability;
use hashbrown::HashMap;

use crate::limits;
use crate::model::ExchangeId;
use crate::queue::Queue;

/// A direct exchange: a message goes to every queue bound with exactly its key.
#[derive(Debug)]
pub(crate) struct Exchange {
    id: ExchangeId,
    name: Arc<str>,
    routes: RwLock<HashMap<Box<str>, Arc<Route>>>,
}

/// The queues behind one key of one exchange. Replaced as a whole when a binding changes, so that a publish
/// takes it with one reference count and no copy.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) exchange: ExchangeId,
    pub(crate) queues: Vec<Arc<Queue>>,
    /// The strongest its queues ask for.
    pub(crate) durability: Durability,
}

impl Route {
    pub(crate) fn new(exchange: ExchangeId, queues: Vec<Arc<Queue>>) -> Route {
        let durabilities = queues.iter().map(|queue| queue.settings().durability);
        let durability = durabilities.reduce(Durability::strictest).unwrap_or_default();
        Route { exchange, queues, durability }
    }
}

impl Exchange {
    pub(crate) fn new(id: ExchangeId, name: Arc<str>) -> Exchange {
        Exchange { id, name, routes: RwLock::new(HashMap::new()) }
    }

    pub(crate) fn id(&self) -> ExchangeId {
        self.id
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn route(&self, key: &str) -> Option<Arc<Route>> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// True when the binding is new.
    pub(crate) fn bind(&self, key: &str, queue: &Arc<Queue>) -> bool {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let mut queues = routes.get(key).map(|route| route.queues.clone()).unwrap_or_default();
        if queues.len() >= limits::QUEUES_PER_MESSAGE_MAX || queues.iter().any(|bound| bound.id() == queue.id()) {
            return false;
        }
        queues.push(Arc::clone(queue));
        routes.insert(Box::from(key), Arc::new(Route::new(self.id, queues)));
        true
    }

    /// True when there was such a binding.
    pub(crate) fn unbind(&self, key: &str, queue: &Queue) -> bool {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let Some(route) = routes.get(key) else { return false };
        let queues: Vec<_> = route.queues.iter().filter(|bound| bound.id() != queue.id()).cloned().collect();
        if queues.len() == route.queues.len() {
            return false;
        }
        if queues.is_empty() {
            routes.remove(key);
        } else {
            routes.insert(Box::from(key), Arc::new(Route::new(self.id, queues)));
        }
        true
    }

    pub(crate) fn is_bound(&self, key: &str, queue: &Queue) -> bool {
        self.route(key).is_some_and(|route| route.queues.iter().any(|bound| bound.id() == queue.id()))
    }

    pub(crate) fn binding_count(&self) -> usize {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        routes.values().map(|route| route.queues.len()).sum()
    }

    /// Key and queue of every binding, in no order.
    pub(crate) fn bindings(&self) -> Vec<(Box<str>, Arc<Queue>)> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let pairs = routes.iter().flat_map(|(key, route)| route.queues.iter().map(move |queue| (key, queue)));
        pairs.map(|(key, queue)| (key.clone(), Arc::clone(queue))).collect()
    }
}
