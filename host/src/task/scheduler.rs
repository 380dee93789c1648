//! The worker threads, and which task runs next.
//!
//! A task is woken (by an append to what it reads, by its commit, by its timer) and then takes turns until it says
//! that it waits. Tasks that are ready stand in one queue, first come first served, and a turn is one batch, so a
//! busy task delays another by one batch a worker. Guest calls are synchronous: where all workers sit in long calls
//! while somebody waits, the supervisor lends an extra worker, so that a plugin that runs into its deadline again
//! and again costs its neighbours a part of the processor and not their turn. An idle scheduler sleeps: no thread of
//! it wakes up before somebody calls or a timer is due.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long all workers may be busy without finishing a turn before another is lent.
const STALL_MAX: Duration = Duration::from_millis(20);
/// Extra workers at a time. Each costs a thread; beyond them the deadline of calls is what frees workers.
const EXTRA_WORKERS_MAX: usize = 16;

/// What a task says at the end of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// There is more to do at once.
    Ready,
    /// Nothing to do before somebody wakes it, or this moment comes.
    Wait(Option<Instant>),
    /// It will never run again.
    Done,
}

/// Something that takes turns on the workers.
pub trait Turn: Send {
    /// Works for about one batch.
    fn turn(&mut self) -> Next;
}

const IDLE: u8 = 0;
const READY: u8 = 1;
const RUNNING: u8 = 2;
/// Running, and woken meanwhile: it gets another turn whatever it says.
const WOKEN: u8 = 3;
const DONE: u8 = 4;

struct Cell {
    state: AtomicU8,
    /// Taken out when it is done, so that what it holds goes at once.
    task: Mutex<Option<Box<dyn Turn>>>,
    /// The earliest of its timers that has not fired. It is not set again for a later moment: whoever is woken early looks
    /// and waits on, so that a task that waits often leaves no pile of timers behind.
    timer_at: Mutex<Option<Instant>>,
    shared: Weak<Shared>,
}

/// A handle that wakes a task; cheap to copy, from any thread.
#[derive(Clone)]
pub struct Waker(Weak<Cell>);

impl Waker {
    /// A waker of no task: for a task that has not been spawned yet.
    pub fn none() -> Waker {
        Waker(Weak::new())
    }

    /// Gives the task a turn soon. Nothing happens if it has one coming, or is done.
    pub fn wake(&self) {
        let Some(cell) = self.0.upgrade() else { return };
        loop {
            let (from, to) = match cell.state.load(Ordering::Acquire) {
                IDLE => (IDLE, READY),
                RUNNING => (RUNNING, WOKEN),
                _ => return,
            };
            if cell
                .state
                .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
            {
                if to == READY
                    && let Some(shared) = cell.shared.upgrade()
                {
                    shared.push(cell);
                }
                return;
            }
        }
    }
}

struct Timer {
    at: Instant,
    task: Waker,
}

impl Timer {
    fn fire(&self) {
        if let Some(cell) = self.task.0.upgrade() {
            let mut timer_at = cell.timer_at.lock().unwrap_or_else(PoisonError::into_inner);
            if timer_at.is_some_and(|at| at <= self.at) {
                *timer_at = None;
            }
        }
        self.task.wake();
    }
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl Eq for Timer {}
impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Arc<Cell>>,
    timers: BinaryHeap<Reverse<Timer>>,
    workers: usize,
    sleeping: usize,
    /// Workers that are in a task's turn.
    running: usize,
    /// Whether the supervisor is awake; else it has to be woken where tasks wait and no worker is free.
    supervised: bool,
    stopping: bool,
}

impl Queue {
    /// Whether more tasks are ready than workers will look for one. A worker that was woken counts as sleeping until
    /// it has the lock, and takes one task, not two.
    fn is_short(&self) -> bool {
        self.ready.len() > self.sleeping
    }
}

struct Shared {
    queue: Mutex<Queue>,
    /// Workers wait here for tasks and timers.
    work: Condvar,
    /// The supervisor waits here until tasks wait for workers.
    pressure: Condvar,
    turns: AtomicU64,
    workers_wanted: usize,
}

/// Owns the worker threads. Dropping it ends them after their turn.
pub struct Scheduler {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Scheduler {
    /// Starts `workers` threads, at least one.
    pub fn start(workers: usize) -> Scheduler {
        let workers = workers.max(1);
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                workers,
                ..Queue::default()
            }),
            work: Condvar::new(),
            pressure: Condvar::new(),
            turns: AtomicU64::new(0),
            workers_wanted: workers,
        });
        let spawn = |name: String, body: fn(&Arc<Shared>)| {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(name)
                .spawn(move || body(&shared))
                .expect("the host starts its own threads at its start")
        };
        let mut threads: Vec<_> = (0..workers)
            .map(|n| spawn(format!("worker-{n}"), Shared::work))
            .collect();
        threads.push(spawn("supervisor".into(), Shared::supervise));
        Scheduler { shared, threads }
    }

    /// Worker threads, without lent ones.
    pub fn workers(&self) -> usize {
        self.shared.workers_wanted
    }

    /// The number of turns taken by all tasks so far, if no task has a turn now or is about to have one. If the same
    /// number is seen twice, nothing happened between.
    pub fn idle_turns(&self) -> Option<u64> {
        let queue = self.shared.lock();
        let idle = queue.running == 0 && queue.ready.is_empty();
        idle.then(|| self.shared.turns.load(Ordering::Acquire))
    }

    /// Adds a task, which gets its first turn at once. `make` is handed the task's own waker.
    pub fn spawn(&self, make: impl FnOnce(Waker) -> Box<dyn Turn>) -> Handle {
        match self.try_spawn(|waker| Ok::<_, std::convert::Infallible>(make(waker))) {
            Ok(handle) => handle,
        }
    }

    /// As [`Scheduler::spawn`], for a task that may not come to be.
    ///
    /// # Errors
    /// What `make` says; there is no task then.
    pub fn try_spawn<E>(&self, make: impl FnOnce(Waker) -> Result<Box<dyn Turn>, E>) -> Result<Handle, E> {
        let cell = Arc::new(Cell {
            state: AtomicU8::new(READY),
            task: Mutex::new(None),
            timer_at: Mutex::new(None),
            shared: Arc::downgrade(&self.shared),
        });
        // Until it is pushed no wake can reach it: its state says that it is ready already.
        let task = make(Waker(Arc::downgrade(&cell)))?;
        *cell.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        self.shared.push(cell.clone());
        Ok(Handle(cell))
    }
}

/// Owns a task: while it lives the task can be woken. Dropping it drops the task, after the turn that it is in.
pub struct Handle(Arc<Cell>);

impl Handle {
    /// Wakes the task, also after others have forgotten it.
    pub fn waker(&self) -> Waker {
        Waker(Arc::downgrade(&self.0))
    }

    /// Whether the task said that it will never run again, or panicked.
    pub fn is_done(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == DONE
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.work.notify_all();
        self.shared.pressure.notify_all();
        for thread in self.threads.drain(..) {
            // A worker that panicked has said so already; the others still have to end.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // The queue is consistent between any two statements; a panic elsewhere must not stop the others.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, cell: Arc<Cell>) {
        let mut queue = self.lock();
        queue.ready.push_back(cell);
        if queue.sleeping > 0 {
            self.work.notify_one();
        }
        if queue.is_short() && !queue.supervised {
            self.pressure.notify_one();
        }
    }

    /// The life of a worker.
    fn work(self: &Arc<Self>) {
        let mut queue = self.lock();
        loop {
            queue = self.fire_timers(queue);
            if queue.stopping || queue.workers > self.workers_wanted && queue.ready.is_empty() {
                queue.workers -= 1;
                return;
            }
            if let Some(cell) = queue.ready.pop_front() {
                queue.running += 1;
                drop(queue);
                self.take_turn(&cell);
                drop(cell);
                queue = self.lock();
                queue.running -= 1;
                continue;
            }
            queue = self.sleep(queue);
        }
    }

    /// Wakes the tasks whose time has come.
    fn fire_timers<'q>(&'q self, mut queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        if queue.timers.is_empty() {
            return queue;
        }
        let now = Instant::now();
        let mut due = Vec::new();
        while queue.timers.peek().is_some_and(|Reverse(timer)| timer.at <= now) {
            due.extend(queue.timers.pop());
        }
        if due.is_empty() {
            return queue;
        }
        // Waking takes the lock.
        drop(queue);
        due.iter().for_each(|Reverse(timer)| timer.fire());
        self.lock()
    }

    /// Waits until a task is pushed or the next timer is due.
    fn sleep<'q>(&'q self, mut queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        let next = queue
            .timers
            .peek()
            .map(|Reverse(timer)| timer.at.saturating_duration_since(Instant::now()));
        queue.sleeping += 1;
        let mut queue = match next {
            Some(wait) => {
                self.work
                    .wait_timeout(queue, wait)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
            None => self.work.wait(queue).unwrap_or_else(PoisonError::into_inner),
        };
        queue.sleeping -= 1;
        queue
    }

    fn take_turn(self: &Arc<Self>, cell: &Arc<Cell>) {
        cell.state.store(RUNNING, Ordering::Release);
        self.turns.fetch_add(1, Ordering::AcqRel);
        let mut slot = cell.task.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(task) = slot.as_mut() else { return };
        let turn = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| task.turn()));
        let next = turn.unwrap_or_else(|_| {
            // Our own mistake, said by the panic hook. The task is in an unknown state: it ends, uncommitted, and a
            // restart goes on from its last commit.
            tracing::error!("a task panicked and was stopped; what it had not committed will be processed again");
            Next::Done
        });
        if next == Next::Done {
            *slot = None;
            cell.state.store(DONE, Ordering::Release);
            return;
        }
        drop(slot);
        let state = match next {
            Next::Ready => READY,
            _ => IDLE,
        };
        if state == IDLE
            && cell
                .state
                .compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
        {
            if let Next::Wait(Some(at)) = next {
                self.set_timer(at, cell);
            }
            return;
        }
        cell.state.store(READY, Ordering::Release);
        self.push(cell.clone());
    }

    fn set_timer(&self, at: Instant, cell: &Arc<Cell>) {
        {
            let mut timer_at = cell.timer_at.lock().unwrap_or_else(PoisonError::into_inner);
            if timer_at.is_some_and(|set| set <= at) {
                return;
            }
            *timer_at = Some(at);
        }
        let task = Waker(Arc::downgrade(cell));
        let mut queue = self.lock();
        let earlier = queue.timers.peek().is_none_or(|Reverse(first)| at < first.at);
        queue.timers.push(Reverse(Timer { at, task }));
        if earlier && queue.sleeping > 0 {
            // Somebody who sleeps longer than that has to sleep anew.
            self.work.notify_one();
        }
    }

    /// Lends a worker when tasks wait and no worker has finished a turn for [`STALL_MAX`].
    fn supervise(self: &Arc<Self>) {
        let mut queue = self.lock();
        while !queue.stopping {
            if !queue.is_short() {
                queue.supervised = false;
                queue = self.pressure.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.supervised = true;
                continue;
            }
            let before = self.turns.load(Ordering::Acquire);
            queue = self.pressure_pause(queue);
            let stalled = self.turns.load(Ordering::Acquire) == before && queue.is_short();
            if stalled && queue.workers < self.workers_wanted + EXTRA_WORKERS_MAX {
                let shared = self.clone();
                let lent = std::thread::Builder::new()
                    .name("worker-lent".into())
                    .spawn(move || shared.work());
                match lent {
                    Ok(_) => queue.workers += 1,
                    Err(error) => tracing::warn!("all workers are busy and another could not be started: {error}"),
                }
            }
        }
    }

    /// Lets [`STALL_MAX`] pass, whatever is pushed meanwhile.
    fn pressure_pause<'q>(&'q self, mut queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        let end = Instant::now() + STALL_MAX;
        while !queue.stopping {
            let Some(left) = end
                .checked_duration_since(Instant::now())
                .filter(|left| !left.is_zero())
            else {
                break;
            };
            queue = self
                .pressure
                .wait_timeout(queue, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        queue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    struct Script<F: FnMut() -> Next + Send>(F);

    impl<F: FnMut() -> Next + Send> Turn for Script<F> {
        fn turn(&mut self) -> Next {
            (self.0)()
        }
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_task_sleeps_until_it_is_woken_and_no_wake_is_lost() {
        let scheduler = Scheduler::start(2);
        let (send, turns) = mpsc::channel();
        let task = scheduler.spawn(|_| {
            Box::new(Script(move || {
                send.send(()).expect("the test listens");
                Next::Wait(None)
            }))
        });
        for _ in 0..1000 {
            turns.recv_timeout(LONG).expect("a turn for each wake");
            task.waker().wake();
        }
        turns.recv_timeout(LONG).expect("the last turn");
    }

    #[test]
    fn a_timer_wakes_a_task_and_a_later_one_does_not_hold_it_up() {
        let scheduler = Scheduler::start(1);
        let (send, turns) = mpsc::channel();
        let wait = |name: &'static str, after: Duration| {
            let send = send.clone();
            let mut first = true;
            scheduler.spawn(move |_| {
                Box::new(Script(move || {
                    if std::mem::take(&mut first) {
                        return Next::Wait(Some(Instant::now() + after));
                    }
                    send.send(name).expect("the test listens");
                    Next::Done
                }))
            })
        };
        let _late = wait("late", Duration::from_millis(200));
        let _soon = wait("soon", Duration::from_millis(10));
        assert_eq!(turns.recv_timeout(LONG), Ok("soon"));
        assert_eq!(turns.recv_timeout(LONG), Ok("late"));
    }

    #[test]
    fn a_task_that_waits_often_leaves_one_timer() {
        let scheduler = Scheduler::start(1);
        let (sender, turns) = mpsc::channel();
        let handle = scheduler.spawn(|_| {
            Box::new(Script(move || {
                let _ = sender.send(());
                Next::Wait(Some(Instant::now() + Duration::from_secs(3600)))
            }))
        });
        for _ in 0..100 {
            turns.recv_timeout(LONG).expect("a turn");
            handle.waker().wake();
        }
        // The last turn has ended when the worker sleeps.
        while scheduler.idle_turns().is_none() {
            std::thread::yield_now();
        }
        assert_eq!(scheduler.shared.lock().timers.len(), 1);
    }

    #[test]
    fn a_timer_fires_while_others_are_always_ready() {
        let scheduler = Scheduler::start(1);
        let _busy = scheduler.spawn(|_| Box::new(Script(|| Next::Ready)));
        let (send, turns) = mpsc::channel();
        let mut first = true;
        let _timed = scheduler.spawn(move |_| {
            Box::new(Script(move || {
                if std::mem::take(&mut first) {
                    return Next::Wait(Some(Instant::now() + Duration::from_millis(5)));
                }
                send.send(()).expect("the test listens");
                Next::Done
            }))
        });
        turns.recv_timeout(LONG).expect("the timer fires");
    }

    #[test]
    fn a_task_in_a_long_call_does_not_hold_up_the_others() {
        let scheduler = Scheduler::start(1);
        let (release, blocked) = mpsc::channel::<()>();
        // Pushed while the worker sleeps and, more often than not, before it is awake: the second task must not count on
        // a worker that the first one takes.
        let _stuck = scheduler.spawn(move |_| {
            Box::new(Script(move || {
                let _ = blocked.recv();
                Next::Done
            }))
        });
        let (send, turns) = mpsc::channel();
        let _other = scheduler.spawn(move |_| {
            Box::new(Script(move || {
                send.send(()).expect("the test listens");
                Next::Done
            }))
        });
        turns.recv_timeout(LONG).expect("a lent worker takes the turn");
        release.send(()).expect("the task still waits");
    }

    #[test]
    fn ready_tasks_take_turns_one_after_the_other() {
        let scheduler = Scheduler::start(1);
        let order = Arc::new(Mutex::new(Vec::new()));
        let left = Arc::new(AtomicUsize::new(2));
        let (gate_open, gate) = mpsc::channel::<()>();
        let _gate = scheduler.spawn(move |_| {
            Box::new(Script(move || {
                let _ = gate.recv();
                Next::Done
            }))
        });
        let tasks: Vec<_> = (0..2)
            .map(|name| {
                let (order, left) = (order.clone(), left.clone());
                let mut turns = 0;
                scheduler.spawn(move |_| {
                    Box::new(Script(move || {
                        order.lock().expect("no panic").push(name);
                        turns += 1;
                        if turns < 5 {
                            return Next::Ready;
                        }
                        left.fetch_sub(1, Ordering::AcqRel);
                        Next::Done
                    }))
                })
            })
            .collect();
        gate_open.send(()).expect("the gate waits");
        while !tasks.iter().all(Handle::is_done) {
            std::thread::yield_now();
        }
        let order = order.lock().expect("no panic");
        let runs = order.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert!(runs <= 2, "{order:?} is not one after the other");
    }

    #[test]
    fn a_task_that_panics_is_done_and_the_workers_live_on() {
        let scheduler = Scheduler::start(1);
        let bad = scheduler.spawn(|_| Box::new(Script(|| panic!("on purpose"))));
        while !bad.is_done() {
            std::thread::yield_now();
        }
        let (send, turns) = mpsc::channel();
        let _good = scheduler.spawn(move |_| {
            Box::new(Script(move || {
                send.send(()).expect("the test listens");
                Next::Done
            }))
        });
        turns.recv_timeout(LONG).expect("a turn");
    }
}
