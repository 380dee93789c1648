//! Jobs on Kafka, beside native ones and Kafka Streams: one broker, and one side after the other in one run.
//!
//! `cargo bench --workspace --bench kafka -- branch count many-keys minutes`; without names, all.
//! `--records N`, `--turns N`; `--quick` leaves Kafka Streams out.
#![allow(missing_docs)]

mod as_written;
mod compare;
mod jobs;
mod process;
mod rides;
mod sides;
mod streams;
mod tuned;

use jobs::JobArgs;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // A native side is this program again.
    if let [side, name, rest @ ..] = &args[..]
        && side == "side"
    {
        let job = JobArgs::from_args(rest);
        return match name.as_str() {
            "tuned" => tuned::run(&job),
            _ => as_written::run(&job),
        };
    }
    // For profiles: only the records, on a broker that runs.
    if let [fill, bootstrap, topic, keys, count] = &args[..]
        && fill == "fill"
    {
        let number = |text: &String| text.parse().expect("a number");
        return rides::fill(bootstrap, topic, number(keys), number(count));
    }
    compare::run(&args);
}
