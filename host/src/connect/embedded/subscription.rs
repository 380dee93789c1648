//! Who wants to know when a partition grows.

use crate::connect::TopicPartition;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

type Notify = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
pub(super) struct Subscriptions {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next_id: u64,
    by_partition: HashMap<TopicPartition, Vec<(u64, Notify)>>,
}

/// Lives as long as somebody wants to be told of a partition's growth.
pub struct Subscription {
    subscriptions: Weak<Subscriptions>,
    tp: TopicPartition,
    id: u64,
}

impl Subscriptions {
    pub(super) fn add(self: &Arc<Self>, tp: &TopicPartition, notify: Notify) -> Subscription {
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        state.next_id += 1;
        let id = state.next_id;
        state.by_partition.entry(tp.clone()).or_default().push((id, notify));
        Subscription {
            subscriptions: Arc::downgrade(self),
            tp: tp.clone(),
            id,
        }
    }

    /// Tells all of one partition, without holding the lock meanwhile: they may unsubscribe.
    pub(super) fn notify(&self, tp: &TopicPartition) {
        let told: Vec<Notify> = {
            let state = self.state.lock().unwrap_or_else(|e| e.into_inner());
            state
                .by_partition
                .get(tp)
                .map(|all| all.iter().map(|(_, n)| n.clone()).collect())
                .unwrap_or_default()
        };
        for notify in told {
            notify();
        }
    }

    /// Tells everybody: after a reopening, ends may have moved.
    pub(super) fn notify_all(&self) {
        let told: Vec<Notify> = {
            let state = self.state.lock().unwrap_or_else(|e| e.into_inner());
            state.by_partition.values().flatten().map(|(_, n)| n.clone()).collect()
        };
        for notify in told {
            notify();
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(subscriptions) = self.subscriptions.upgrade() {
            let mut state = subscriptions.state.lock().unwrap_or_else(|e| e.into_inner());
            if let Some(all) = state.by_partition.get_mut(&self.tp) {
                all.retain(|(id, _)| *id != self.id);
                if all.is_empty() {
                    state.by_partition.remove(&self.tp);
                }
            }
        }
    }
}
