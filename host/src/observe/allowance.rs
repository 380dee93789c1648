//! How many lines may be written in a second; the rest is counted.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// An allowance of lines, shared by all who write them.
#[derive(Debug)]
pub struct Allowance {
    lines_per_second_max: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    second_began: Instant,
    lines: u32,
    left_out: u64,
}

impl Allowance {
    /// So many lines a second, from now on.
    pub fn new(lines_per_second_max: u32) -> Allowance {
        let state = State {
            second_began: Instant::now(),
            lines: 0,
            left_out: 0,
        };
        Allowance {
            lines_per_second_max,
            state: Mutex::new(state),
        }
    }

    /// Whether a line may be written now: `Some` of how many were left out before it, or `None`, and it is counted.
    pub fn take(&self) -> Option<u64> {
        self.take_at(Instant::now())
    }

    /// Counts lines that somebody else has left out.
    pub fn leave_out(&self, lines: u64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).left_out += lines;
    }

    fn take_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(state.second_began) >= SECOND {
            state.second_began = now;
            state.lines = 0;
        }
        if state.lines >= self.lines_per_second_max {
            state.left_out += 1;
            return None;
        }
        state.lines += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_for_a_second_is_counted_and_told_with_the_next() {
        let allowance = Allowance::new(2);
        let now = Instant::now();
        assert_eq!(
            [now; 4].map(|now| allowance.take_at(now)),
            [Some(0), Some(0), None, None]
        );
        allowance.leave_out(5);
        assert_eq!(
            [now + SECOND; 3].map(|now| allowance.take_at(now)),
            [Some(7), Some(0), None]
        );
        assert_eq!(allowance.take_at(now + 2 * SECOND), Some(1));
        assert_eq!(Allowance::new(0).take(), None);
    }
}
