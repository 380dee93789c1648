//! Dropping what pipelines have processed of their own topics, where the engine does not do that by itself.

use std::collections::HashMap;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use super::tasks::PipelineTasks;
use crate::connect::{EngineLog, TopicPartition};

/// How long what was processed may lie there. Kafka Streams does it as often.
const PURGE_INTERVAL: Duration = Duration::from_secs(30);

/// A thread that does it.
pub(super) struct Purger {
    tasks: Arc<Mutex<Vec<Weak<PipelineTasks>>>>,
    /// Dropped to end it.
    stop: Mutex<Option<Sender<()>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    log: Arc<dyn EngineLog>,
}

impl Purger {
    /// For pipelines on this log; the thread begins with the first.
    pub fn new(log: Arc<dyn EngineLog>) -> Purger {
        Purger {
            tasks: Arc::default(),
            stop: Mutex::default(),
            thread: Mutex::default(),
            log,
        }
    }

    /// From now on what these have processed of the pipeline's own topics is dropped.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn look_after(&self, tasks: &Arc<PipelineTasks>) -> std::io::Result<()> {
        if tasks.runtime.plan.repartitions.is_empty() {
            return Ok(());
        }
        lock(&self.tasks).push(Arc::downgrade(tasks));
        let mut stop = lock(&self.stop);
        if stop.is_some() {
            return Ok(());
        }
        let (sender, stopped) = mpsc::channel();
        let (tasks, log) = (self.tasks.clone(), self.log.clone());
        let thread = std::thread::Builder::new().name("kafka-purge".into()).spawn(move || {
            let mut purged = HashMap::new();
            while stopped.recv_timeout(PURGE_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                purge(&*log, &tasks, &mut purged);
            }
        })?;
        *stop = Some(sender);
        *lock(&self.thread) = Some(thread);
        Ok(())
    }

    /// Ends the thread.
    pub fn close(&self) {
        lock(&self.stop).take();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

fn purge(log: &dyn EngineLog, tasks: &Mutex<Vec<Weak<PipelineTasks>>>, purged: &mut HashMap<TopicPartition, u64>) {
    let running: Vec<_> = {
        let mut tasks = lock(tasks);
        tasks.retain(|tasks| tasks.strong_count() > 0);
        tasks.iter().filter_map(Weak::upgrade).collect()
    };
    for tasks in running {
        let due: Vec<(TopicPartition, u64)> = tasks
            .processed_of_own_topics()
            .into_iter()
            .filter(|(place, offset)| purged.get(place).copied().unwrap_or(0) < *offset)
            .collect();
        if due.is_empty() {
            continue;
        }
        match log.drop_before(&due) {
            Ok(()) => purged.extend(due),
            Err(error) => tracing::warn!(
                pipeline = tasks.runtime.plan.name,
                "what was processed of internal topics stays for now: {error}"
            ),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
