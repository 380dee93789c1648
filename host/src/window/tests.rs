use super::*;
use proptest::prelude::*;
use std::time::Duration;

fn tumbling(size_ms: i64, grace_ms: i64) -> Window {
    Window {
        size_ms,
        advance_ms: size_ms,
        offset_ms: 0,
        grace_ms,
    }
}

fn at(ms: i64) -> StreamTime {
    let mut now = StreamTime::default();
    now.advance(ms);
    now
}

#[test]
fn a_window_holds_its_start_and_not_its_end() {
    let window = tumbling(10, 0);
    let starts = |ts| window.place(ts, at(ts)).map(|starts| starts.collect::<Vec<_>>());
    assert_eq!(starts(0), Ok(vec![0]));
    assert_eq!(starts(9), Ok(vec![0]));
    assert_eq!(starts(10), Ok(vec![10]));
    assert_eq!(starts(-1), Err(Late::BeforeEpoch { timestamp_ms: -1 }));
}

#[test]
fn a_window_closes_when_its_end_and_grace_are_reached() {
    let window = tumbling(10, 5);
    assert!(window.place(3, at(14)).is_ok());
    let closed = Late::Closed {
        end_ms: 10,
        behind_ms: 5,
    };
    assert_eq!(window.place(3, at(15)).err(), Some(closed));
    assert_eq!(window.closes_at(0), 15);
    assert_eq!(window.first_open(at(14)), 0);
    assert_eq!(window.first_open(at(15)), 1);
}

#[test]
fn late_for_one_hopping_window_is_in_time_for_the_next() {
    let window = Window {
        size_ms: 10,
        advance_ms: 5,
        offset_ms: 0,
        grace_ms: 0,
    };
    let starts = |ts, now| window.place(ts, at(now)).map(|starts| starts.collect::<Vec<_>>());
    assert_eq!(starts(7, 7), Ok(vec![0, 5]));
    assert_eq!(starts(7, 10), Ok(vec![5]));
    let closed = Late::Closed {
        end_ms: 15,
        behind_ms: 0,
    };
    assert_eq!(starts(7, 15), Err(closed));
    assert_eq!(window.overlap(), 2);
}

#[test]
fn a_timestamp_from_the_future_does_not_move_stream_time() {
    let mut now = at(1000);
    let hour = Duration::from_secs(3600);
    assert_eq!(
        now.observe(3_600_500, 400, hour),
        Err(Late::Future { ahead_ms: 3_600_100 })
    );
    assert_eq!(now, at(1000));
    assert_eq!(now.observe(3_600_400, 400, hour), Ok(()));
    assert_eq!(now, at(3_600_400));
    assert_eq!(now.observe(5, 400, hour), Ok(()));
    assert_eq!(now, at(3_600_400), "stream time never goes back");
}

#[test]
fn the_ends_of_time_are_no_trap() {
    let window = tumbling(i64::MAX, i64::MAX);
    for ts in [i64::MIN, -1, 0, 1, i64::MAX - 1, i64::MAX] {
        let _ = window.place(ts, at(ts)).map(|starts| starts.count());
    }
    let small = tumbling(1, 0);
    assert_eq!(small.place(i64::MAX, StreamTime::default()).map(Iterator::count), Ok(1));
}

proptest! {
    #[test]
    fn starts_are_the_same_in_narrow_numbers(
        timestamp_ms in prop_oneof![any::<i64>(), -1000i64..1000],
        (size_ms, advance_ms, offset_ms) in prop_oneof![1i64..100, 1..=i64::MAX].prop_flat_map(|size| {
            (Just(size), 1..=size).prop_flat_map(|(size, advance)| (Just(size), Just(advance), 0..advance))
        }),
    ) {
        let window = Window { size_ms, advance_ms, offset_ms, grace_ms: 0 };
        if let Some(near) = window.starts_near(timestamp_ms) {
            let anywhere = window.starts_anywhere(timestamp_ms);
            prop_assert!(near == anywhere || near.next_ms > near.last_ms && anywhere.next_ms > anywhere.last_ms);
        }
    }
}

proptest! {
    /// By the definition, window by window.
    #[test]
    fn windows_are_those_of_the_definition(
        size in 1i64..50, advance in 1i64..50, offset in 0i64..50, grace in 0i64..20,
        timestamp in -10i64..200, ahead in 0i64..100,
    ) {
        let advance = advance.min(size);
        let window = Window { size_ms: size, advance_ms: advance, offset_ms: offset % advance, grace_ms: grace };
        let now = timestamp + ahead;
        let all: Vec<i64> = (0..)
            .map(|n| window.offset_ms + n * advance)
            .take_while(|&start| start <= timestamp)
            .filter(|&start| timestamp < start + size)
            .collect();
        let open: Vec<i64> = all.iter().copied().filter(|&start| start + size + grace > now).collect();
        match window.place(timestamp, at(now)) {
            Ok(starts) => prop_assert_eq!(starts.collect::<Vec<_>>(), open),
            Err(Late::Closed { end_ms, behind_ms }) => {
                prop_assert!(open.is_empty());
                let end = all.last().map(|start| start + size);
                prop_assert_eq!(Some(end_ms), end);
                prop_assert_eq!(behind_ms, now - end_ms);
            }
            Err(Late::BeforeEpoch { .. }) => prop_assert!(all.is_empty()),
            Err(late) => prop_assert!(false, "{}", late),
        }
        prop_assert!(all.len() as i64 <= window.overlap());
    }
}
