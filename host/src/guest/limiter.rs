//! What an instance may take of the host's memory: all memories and tables, summed.

use wasmtime::{ResourceLimiter, Result};

use crate::limits::{GUEST_CORE_INSTANCES_MAX, GUEST_MEMORIES_MAX, GUEST_TABLES_MAX};

/// Bytes that the host holds for an element of a table.
const ELEMENT_BYTES: usize = 16;

/// Counts what an instance holds and refuses what would pass its limit.
#[derive(Debug)]
pub struct Limiter {
    /// Bytes of all memories and tables.
    pub bytes: usize,
    bytes_max: usize,
    /// Bytes that the instance would have had if a growth had not been refused: set by the refusal, so that the trap
    /// which follows it is known to be one for want of memory.
    pub refused_bytes: Option<usize>,
}

impl Limiter {
    /// For an instance that holds nothing yet.
    pub fn new(bytes_max: usize) -> Limiter {
        Limiter {
            bytes: 0,
            bytes_max,
            refused_bytes: None,
        }
    }

    /// The limit.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    fn grow(&mut self, by_bytes: usize) -> bool {
        let wanted = self.bytes.saturating_add(by_bytes);
        if wanted > self.bytes_max {
            self.refused_bytes = Some(wanted);
            return false;
        }
        self.bytes = wanted;
        true
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        Ok(self.grow(desired.saturating_sub(current)))
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        Ok(self.grow(desired.saturating_sub(current).saturating_mul(ELEMENT_BYTES)))
    }

    fn instances(&self) -> usize {
        GUEST_CORE_INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        GUEST_MEMORIES_MAX
    }

    fn tables(&self) -> usize {
        GUEST_TABLES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_and_tables_are_summed_and_a_refusal_is_remembered() {
        let mut limiter = Limiter::new(1000);
        assert!(limiter.memory_growing(0, 400, None).unwrap());
        assert!(limiter.memory_growing(0, 400, None).unwrap());
        assert!(limiter.table_growing(0, 12, None).unwrap());
        assert_eq!(limiter.bytes, 992);
        assert!(!limiter.table_growing(12, 13, None).unwrap());
        assert_eq!(limiter.refused_bytes, Some(1008));
        assert!(!limiter.memory_growing(400, usize::MAX, None).unwrap());
        assert_eq!(limiter.bytes, 992);
    }

    #[test]
    fn a_growth_past_the_guests_own_maximum_is_not_counted() {
        let mut limiter = Limiter::new(1000);
        assert!(!limiter.memory_growing(100, 500, Some(200)).unwrap());
        assert_eq!((limiter.bytes, limiter.refused_bytes), (0, None));
    }
}
