//! How a store is cut into stretches of time that are dropped whole.

use super::codec::read_start;

/// Which stretch of time a row belongs to. A store keeps what it was first written with: other lengths would look for
/// its rows in the wrong places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segmenting {
    /// Rows stay until they are deleted.
    None,
    /// By the first eight bytes of the key: a time in milliseconds, big-endian with its sign flipped. A key has one segment.
    ByKeyTime {
        /// Length of a segment.
        segment_ms: i64,
    },
    /// By the timestamp of the row's last change. A key may have an older row in an older segment, which the newer hides.
    ByRowTime {
        /// Length of a segment.
        segment_ms: i64,
    },
}

/// Bytes of an encoded [`Segmenting`].
pub(super) const SEGMENTING_BYTES: usize = 9;

impl Segmenting {
    /// Where the segment begins in which `time_ms` lies; `None` where there are no segments.
    pub fn segment_of(self, time_ms: i64) -> Option<i64> {
        let segment_ms = match self {
            Segmenting::None => return None,
            Segmenting::ByKeyTime { segment_ms } | Segmenting::ByRowTime { segment_ms } => segment_ms.max(1),
        };
        // The first segment of all time may be shorter than the others.
        let begin = time_ms.div_euclid(segment_ms).checked_mul(segment_ms);
        Some(begin.unwrap_or(i64::MIN))
    }

    /// The segment of a row by its key and timestamp.
    pub(super) fn segment_of_row(self, key: &[u8], timestamp_ms: i64) -> Result<Option<i64>, KeyTooShort> {
        match self {
            Segmenting::ByKeyTime { .. } => Ok(self.segment_of(key_time(key).ok_or(KeyTooShort)?)),
            Segmenting::None | Segmenting::ByRowTime { .. } => Ok(self.segment_of(timestamp_ms)),
        }
    }

    pub(super) fn encode(self) -> [u8; SEGMENTING_BYTES] {
        let (kind, segment_ms) = match self {
            Segmenting::None => (0, 0),
            Segmenting::ByKeyTime { segment_ms } => (1, segment_ms),
            Segmenting::ByRowTime { segment_ms } => (2, segment_ms),
        };
        let mut bytes = [kind; SEGMENTING_BYTES];
        bytes[1..].copy_from_slice(&segment_ms.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Segmenting> {
        let (kind, segment_ms) = bytes.split_first()?;
        let segment_ms = i64::from_le_bytes(segment_ms.try_into().ok()?);
        match (kind, segment_ms) {
            (0, 0) => Some(Segmenting::None),
            (1, 1..) => Some(Segmenting::ByKeyTime { segment_ms }),
            (2, 1..) => Some(Segmenting::ByRowTime { segment_ms }),
            _ => None,
        }
    }
}

/// A key of a windowed store that does not begin with a time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeyTooShort;

/// The time that a key begins with.
pub(super) fn key_time(key: &[u8]) -> Option<i64> {
    read_start(key).map(|(time, _)| time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::codec::{decode_time, encode_time};

    #[test]
    fn times_fall_into_segments() {
        let by_row = Segmenting::ByRowTime { segment_ms: 10 };
        for (time, segment) in [(0, 0), (9, 0), (10, 10), (-1, -10), (-10, -10), (-11, -20)] {
            assert_eq!(by_row.segment_of(time), Some(segment), "{time}");
        }
        assert_eq!(by_row.segment_of(i64::MIN), Some(i64::MIN));
        assert!(
            by_row
                .segment_of(i64::MAX)
                .is_some_and(|segment| segment > i64::MAX - 10)
        );
        assert_eq!(Segmenting::None.segment_of(5), None);
        let by_key = Segmenting::ByKeyTime { segment_ms: 10 };
        assert_eq!(by_key.segment_of_row(&encode_time(-3), 500), Ok(Some(-10)));
        assert_eq!(by_key.segment_of_row(b"short", 500), Err(KeyTooShort));
    }

    #[test]
    fn times_are_ordered_as_bytes_and_segmentings_survive() {
        let times = [i64::MIN, -5, 0, 7, i64::MAX];
        assert!(times.map(encode_time).is_sorted());
        assert_eq!(times.map(encode_time).map(decode_time), times);
        for segmenting in [
            Segmenting::None,
            Segmenting::ByKeyTime { segment_ms: 7 },
            Segmenting::ByRowTime { segment_ms: i64::MAX },
        ] {
            assert_eq!(Segmenting::decode(&segmenting.encode()), Some(segmenting));
        }
        assert_eq!(Segmenting::decode(&[1; 8]), None);
        assert_eq!(Segmenting::decode(&[0; 10]), None);
        assert_eq!(Segmenting::decode(&[1, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
