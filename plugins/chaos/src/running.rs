//! Ways to misbehave while running: to stop, not to stop, to take memory, to call the host without end.

use std::hint::black_box;

use millstream_sdk::bindings::aggregator::millstream::plugin::metrics;
use millstream_sdk::log::{self, Level};

use crate::{Kind, Settings};

const PAGE_BYTES: usize = 64 << 10;

/// Does what the kind does before there is an answer; most kinds do nothing here.
pub(crate) fn misbehave(settings: &Settings) {
    use Kind::*;
    let amount = |default: u64| settings.amount.unwrap_or(default);
    match settings.kind {
        Panic => panic!("a poisoned row"),
        PanicWithNewlines => panic!("first\nsecond\r\n\u{1b}[31mred\u{1b}[0m\0end"),
        PanicHuge => panic!("{}", "long ".repeat(amount(1 << 20) as usize)),
        Trap => trap(),
        DivideByZero => {
            black_box(black_box(1_i64) / black_box(0));
        }
        Loop => spin(),
        Recursion => {
            black_box(recurse(black_box(1)));
        }
        MemoryByPage => grow_by_page(),
        MemoryAtOnce => touch(amount(1 << 30) as usize),
        MemoryFill => {
            let mut bytes = vec![0_u8; 16 << 20];
            for round in 0..amount(1_000_000) {
                black_box(&mut bytes).fill(round as u8);
            }
        }
        LeakPerBatch => {
            let bytes = vec![1_u8; amount(1 << 20) as usize];
            black_box(Box::leak(bytes.into_boxed_slice()));
        }
        Slow => {
            for round in 0..amount(100_000_000) {
                black_box(round);
            }
        }
        HugeLog => log::write(Level::Info, &"x".repeat(amount(10 << 20) as usize)),
        EndlessLog => log_endlessly(),
        ForgedLog => log::write(
            Level::Info,
            "one line\n2020-01-01T00:00:00Z ERROR host: all is lost\r\u{1b}[2J\u{1b}]0;title\u{7}\u{202e}\0end",
        ),
        MetricOutOfRange => metrics::update(7, 1.0),
        MetricLoop => loop {
            metrics::update(0, 1.0);
        },
        _ => {}
    }
}

/// Ends as a program with an unreachable instruction does.
pub(crate) fn trap() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort()
}

/// Never ends.
pub(crate) fn spin() -> ! {
    let mut round = 0_u64;
    loop {
        round = black_box(round.wrapping_add(1));
    }
}

#[expect(unconditional_recursion, reason = "it is to take the whole stack")]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 16]);
    recurse(depth + 1) + frame[(depth % 16) as usize]
}

/// Takes memory page by page, and touches it, until there is none; then traps.
pub(crate) fn grow_by_page() -> ! {
    let mut pages = Vec::new();
    loop {
        pages.push(vec![1_u8; PAGE_BYTES]);
        black_box(&pages);
    }
}

fn touch(bytes: usize) {
    black_box(vec![1_u8; bytes]);
}

/// Never ends, and says so.
pub(crate) fn log_endlessly() -> ! {
    let mut line = 0_u64;
    loop {
        log::info!("line {line}");
        line += 1;
    }
}
